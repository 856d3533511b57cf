//! A device or claim with a valid certificate poses as somebody else, in every way that MQTT offers; and strangers
//! knock. The broker runs with what `certwave broker-config` wrote.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::bail;
use certwave_crds::Broker;
use certwave_e2e::identity::{Authority, Identity};
use certwave_e2e::mqtt::{Connection, Message};
use certwave_e2e::stack::objects;
use certwave_e2e::wait_for;
use certwave_protocol::code::Code;
use certwave_protocol::envelope::sign_up;
use certwave_protocol::message::{Body, Type};
use serde_json::json;

use super::device::{Device, Mark, ask, certificate, claim_line, enrol};
use super::keys::{Credential, Key, forge};
use super::plant::{Plant, World};

const SOON: Duration = Duration::from_secs(10);

async fn open(world: &World, address: SocketAddr, identity: &Identity, client_id: &str) -> Connection {
    Connection::open(address, &world.anchors_pem, Some(identity), client_id)
        .await
        .unwrap()
}

/// Something that the controller answers to the victim, if it reaches the controller in the victim's name.
fn bait(victim: &Device) -> Vec<u8> {
    let header = json!({ "alg": "ES256", "typ": "certwave+jws" });
    let payload = json!({ "v": 99, "session": victim.line.session });
    forge(&header, &payload.to_string(), &Key::new())
}

/// Publishes in the victim's name, in every way.
async fn pose(attacker: &mut Connection, victim: &Device) {
    let id = &victim.id;
    let bait = bait(victim);
    // Even what the victim itself signed, heard somewhere.
    let hello = victim.payload(None, Body::Hello(victim.hello_body(None)));
    let stolen = sign_up(&hello, &victim.active.key.signing, victim.active.fingerprint);
    for topic in [
        format!("certwave/{id}/up/csr"),
        format!("certwave/{id}/down/job"),
        format!("certwave/{id}/down/rejected"),
        "certwave/~controller/up/csr".to_owned(),
        "certwave/~controller/down/job".to_owned(),
    ] {
        for retain in [false, true] {
            attacker.publish(&topic, &bait, retain).await.unwrap();
        }
    }
    let topic = format!("certwave/{id}/up/csr");
    attacker.publish(&topic, &stolen, false).await.unwrap();
    let gone = json!({ "v": 1, "online": false, "session": victim.line.session });
    let topic = format!("certwave/{id}/up/online");
    attacker
        .publish(&topic, gone.to_string().as_bytes(), true)
        .await
        .unwrap();
}

/// Subscribes to what is said to others; the broker may grant that and must not deliver.
async fn listen(attacker: &mut Connection, victim: &Device) {
    let id = &victim.id;
    for filter in [
        format!("certwave/{id}/down/#"),
        format!("certwave/{id}/up/#"),
        "certwave/+/down/+".to_owned(),
        "certwave/+/up/+".to_owned(),
        "certwave/#".to_owned(),
        "+/+/+/+".to_owned(),
        "#".to_owned(),
        "$SYS/#".to_owned(),
        "$share/all/certwave/+/down/+".to_owned(),
        "certwave/~controller/#".to_owned(),
        "certwave/~claim.acl/down/+".to_owned(),
    ] {
        attacker.subscribe(&filter).await.unwrap();
    }
}

#[tokio::test]
async fn a_device_can_neither_speak_for_another_nor_hear_it() {
    let (plant, claim) = Plant::new("acl", &["acl-1", "acl-2"]).await;
    let (mut victim, attacker) = tokio::join!(
        Device::enrolled(&plant, &claim, "acl-1"),
        Device::enrolled(&plant, &claim, "acl-2")
    );
    let devices = plant.world.stack.broker.device_address();
    let identity = attacker.active.identity.clone();

    // Its client id is put right by the broker; the victim's connection goes on.
    let mut connection = open(plant.world, devices, &identity, "acl-1").await;
    victim.line.silent("another took its client id").await;
    listen(&mut connection, &victim).await;
    pose(&mut connection, &victim).await;
    victim.line.silent("another spoke in its name").await;

    // Not even to itself may it say what only the controller says.
    connection
        .publish("certwave/acl-2/down/job", &bait(&victim), false)
        .await
        .unwrap();
    // What was said to the victim meanwhile came to nobody else: the first thing heard is said to the attacker.
    connection
        .publish("certwave/acl-2/up/csr", &bait(&victim), false)
        .await
        .unwrap();
    let heard = connection.next(SOON).await.unwrap().unwrap();
    assert_eq!(heard.topic, "certwave/acl-2/down/rejected");

    // A last will in the victim's name.
    let will = Message {
        topic: "certwave/acl-1/up/csr".to_owned(),
        payload: bait(&victim),
    };
    let refused =
        Connection::open_with_will(devices, &plant.world.anchors_pem, Some(&identity), "acl-2", Some(&will)).await;
    drop(refused);
    // The broker has done with the connection above by the time that it takes this one.
    drop(open(plant.world, devices, &identity, "acl-2").await);
    victim.line.silent("another's last will").await;

    plant.rotate("after").await;
    victim.rotate().await;
}

#[tokio::test]
async fn the_claims_listener_lets_nobody_speak_for_a_device_or_hear_it() {
    let (plant, claim) = Plant::new("acl-claims", &["acl-3", "acl-4"]).await;
    let (mut victim, attacker) = tokio::join!(
        Device::enrolled(&plant, &claim, "acl-3"),
        Device::enrolled(&plant, &claim, "acl-4")
    );
    let claims = plant.world.stack.broker.claim_address();
    let devices = plant.world.stack.broker.device_address();

    // A device's certificate, a claim's; the claims' listener, the devices'.
    for (address, identity) in [
        (claims, &attacker.active.identity),
        (claims, &claim.credential.identity),
        (devices, &claim.credential.identity),
    ] {
        let mut connection = open(plant.world, address, identity, "somebody").await;
        listen(&mut connection, &victim).await;
        pose(&mut connection, &victim).await;
        victim.line.silent("another spoke in its name").await;
    }

    plant.rotate("after").await;
    victim.rotate().await;
}

#[tokio::test]
async fn a_devices_certificate_enrols_nobody() {
    let (plant, claim) = Plant::new("acl-enrol", &["acl-9", "acl-10"]).await;
    let attacker = Device::enrolled(&plant, &claim, "acl-9").await;
    let broker = &plant.world.stack.broker;
    let (holder, mut line) = (format!("~claim.{}", claim.name), claim_line(plant.world, &claim).await);
    let payload = enrol(plant.world, "acl-10", line.session, Key::new().request("acl-10"));
    let asked = sign_up(&payload, &attacker.active.key.signing, attacker.active.fingerprint);
    for address in [broker.claim_address(), broker.device_address()] {
        let mut connection = open(plant.world, address, &attacker.active.identity, "acl-9").await;
        for speaker in [holder.as_str(), "acl-9", "acl-10"] {
            let topic = format!("certwave/{speaker}/up/enrol");
            connection.publish(&topic, &asked, false).await.unwrap();
        }
        // The broker has done with the connection above by the time that it takes this one.
        drop(open(plant.world, address, &attacker.active.identity, "acl-9").await);
    }
    assert!(plant.status("acl-10").await.certificates.current.is_none());

    // The first thing that the claim's holder hears is for what it asks itself.
    let key = Key::new();
    let answer = ask(plant.world, &mut line, &claim, "acl-10", key.request("acl-10")).await;
    let device = Credential::new(key, certificate(&answer));
    Device::commissioned(plant.world, "acl-10", device, Mark::of(&answer)).await;
}

/// When the controller's connections last began or ended.
async fn connections(world: &World) -> Vec<(String, String, String)> {
    let broker: Broker = world.stack.objects().get(objects::BROKER).await.unwrap();
    let conditions = broker.status.unwrap().conditions.into_iter();
    conditions
        .filter(|c| c.type_.ends_with("Connected"))
        .map(|c| (c.type_, c.status, c.last_transition_time.0.to_string()))
        .collect()
}

#[tokio::test]
async fn a_client_id_that_is_taken_ends_nobodys_connection() {
    let (plant, claim) = Plant::new("acl-ids", &["acl-7", "acl-8"]).await;
    let (mut victim, attacker) = tokio::join!(
        Device::enrolled(&plant, &claim, "acl-7"),
        Device::enrolled(&plant, &claim, "acl-8")
    );
    let claims = plant.world.stack.broker.claim_address();
    let devices = plant.world.stack.broker.device_address();
    let before = connections(plant.world).await;
    assert_eq!(before.len(), 2, "{before:?}");
    assert!(before.iter().all(|(_, status, _)| status == "True"), "{before:?}");

    for (holder, identity) in [
        ("a device", &attacker.active.identity),
        ("a claim", &claim.credential.identity),
    ] {
        // On the claims' listener client ids are free.
        let mut taken = Vec::new();
        for id in ["acl-7", "~controller", "~claim.acl-ids", "~controller.", ""] {
            taken.push((id, open(plant.world, claims, identity, id).await));
        }
        // On the devices' they are put right: this one ends none but the holder's own.
        drop(open(plant.world, devices, identity, "~controller").await);
        victim.line.silent(&format!("{holder} took its client id")).await;
        let mut line = claim_line(plant.world, &claim).await;
        let answer = ask(plant.world, &mut line, &claim, "acl-8", Key::new().request("acl-8")).await;
        assert_eq!(answer.device.as_str(), "acl-8", "the controller hears claims");
        for (id, connection) in &mut taken {
            // Whoever had been pushed out would have come back and pushed this one out.
            let topic = "certwave/nobody/up/hello";
            let alive = connection.publish(topic, b"", false).await;
            assert!(alive.is_ok(), "{holder} as {id:?} met somebody with that client id");
        }
    }
    assert_eq!(connections(plant.world).await, before);
    plant.rotate("after").await;
    victim.rotate().await;
}

#[tokio::test]
async fn one_claim_can_neither_speak_for_another_nor_hear_it() {
    let (mut plant, claim) = Plant::new("acl-one", &["acl-5", "acl-6"]).await;
    let other = plant.claim("acl-other", json!({ "quota": 5 })).await;
    let claims = plant.world.stack.broker.claim_address();
    let mut spy = open(plant.world, claims, &other.credential.identity, "~claim.acl-other.spy").await;
    spy.subscribe("certwave/~claim.acl-one/down/+").await.unwrap();
    spy.subscribe("certwave/~claim.acl-other/down/+").await.unwrap();
    spy.subscribe("#").await.unwrap();

    let mut line = claim_line(plant.world, &claim).await;
    let said = super::device::enrol(plant.world, "acl-5", line.session, Key::new().request("acl-5"));
    let envelope = sign_up(&said, &claim.credential.key.signing, claim.credential.fingerprint);
    // A good request on another claim's topic: it would be answered on `line`.
    spy.publish("certwave/~claim.acl-one/up/enrol", &envelope, false)
        .await
        .unwrap();
    let answer = ask(plant.world, &mut line, &claim, "acl-6", Key::new().request("acl-6")).await;
    assert_eq!(answer.device.as_str(), "acl-6");

    let mut own = claim_line(plant.world, &other).await;
    ask(plant.world, &mut own, &other, "acl-5", Key::new().request("acl-5")).await;
    let heard = spy.next(SOON).await.unwrap().unwrap();
    assert_eq!(heard.topic, "certwave/~claim.acl-other/down/certificate");
}

#[tokio::test]
async fn strangers_do_not_get_in() {
    let world = World::get().await;
    let own = Authority::new("Certwave e2e root").unwrap();
    for address in [world.stack.broker.device_address(), world.stack.broker.claim_address()] {
        for identity in [
            None,
            Some(own.client("meter-1", None).unwrap()),
            Some(own.client("~controller", None).unwrap()),
            Some(own.client("~claim.line-1", None).unwrap()),
        ] {
            let opened = Connection::open(address, &world.anchors_pem, identity.as_ref(), "meter-1").await;
            assert!(opened.is_err());
        }
    }
}

#[tokio::test]
async fn an_expired_certificate_opens_nothing_and_signs_nothing() {
    let (plant, claim) = Plant::with_validity("short", &["short-1"], "8s").await;
    let mut device = Device::enrolled(&plant, &claim, "short-1").await;
    let address = plant.world.stack.broker.device_address();
    // The line from before stays open; what is said on it counts no more once the certificate has ended.
    let labels = ["type=\"hello\"", "outcome=\"wrong-key\""];
    wait_for("the certificate to end", Duration::from_secs(30), || async {
        let identity = &device.active.identity;
        // A client id of nobody's: on the claims' listener it takes nobody's place.
        let claims = plant.world.stack.broker.claim_address();
        match Connection::open(claims, &plant.world.anchors_pem, Some(identity), "look").await {
            Ok(_) => bail!("it still gets in"),
            Err(_) => Ok(()),
        }
    })
    .await
    .unwrap();
    let before = plant.world.metric("certwave_messages_total", &labels).await;
    device.hello(None).await;
    let kind = Type::Hello;
    device
        .line
        .refused_at_last("signed by what has expired", kind, Code::WrongKey)
        .await;
    plant.world.counted("certwave_messages_total", &labels, before).await;
    let opened = Connection::open(
        address,
        &plant.world.anchors_pem,
        Some(&device.active.identity),
        "short-1",
    )
    .await;
    assert!(opened.is_err());

    // A permit and a claim help.
    plant.permit("short-1", "expired").await;
    super::claims::permitted(&plant, &claim, &device).await;
    Device::enrolled(&plant, &claim, "short-1").await;
}

#[tokio::test]
async fn an_odd_but_legal_id_is_served_like_any_other() {
    let (plant, claim) = Plant::new("odd", &["a.b-c_d", "0", "A--_.."]).await;
    for id in ["a.b-c_d", "0", "A--_.."] {
        Device::enrolled(&plant, &claim, id).await;
    }
    let mut line = claim_line(plant.world, &claim).await;
    let answer = ask(plant.world, &mut line, &claim, "A.B-C_D", Key::new().request("A.B-C_D")).await;
    super::claims::assert_refused("ids differ by case", &answer, Code::NotDeclared);
}

//! A fleet moves to another CA; certificates renew by themselves.

use certwave_crds::{CertificateAuthority, Fleet, RotationPhase};
use certwave_e2e::stack::objects;
use certwave_e2e::wait_for;
use k8s_openapi::api::core::v1::Secret;
use serde_json::{Value, json};

use super::world::{ENDS, SOON, World, patch};

/// Creates a CA and waits until it is ready.
pub(crate) async fn create(world: &World, name: &str, spec: &Value) -> CertificateAuthority {
    let metadata = json!({ "name": name, "namespace": world.stack.namespace() });
    let object = json!({ "apiVersion": "certwave.dev/v1alpha1", "kind": "CertificateAuthority", "metadata": metadata, "spec": spec });
    world.stack.api.apply(&object.to_string()).unwrap();
    let made = wait_for("the CA's certificate", SOON, || async {
        let ca: CertificateAuthority = world.stack.objects().get(name).await?;
        let ready = ca.status.as_ref().is_some_and(|status| {
            status.certificate.is_some()
                && status
                    .conditions
                    .iter()
                    .any(|c| c.type_ == "Ready" && c.status == "True")
        });
        if ready {
            return Ok(ca);
        }
        anyhow::bail!("{:#?}", ca.status)
    });
    made.await.unwrap()
}

async fn move_to(world: &mut World, ids: &[String], ca: &CertificateAuthority) {
    let first = world.certificates().await;
    let name = ca.metadata.name.clone().unwrap();
    world.rotate(
        &format!("to-{name}"),
        &json!({ "reason": "CAChange", "issuerRef": { "name": name } }),
    );
    let status = world.ended(&format!("to-{name}")).await;
    assert_eq!(
        status.phase,
        Some(RotationPhase::Complete),
        "{status:#?}\n{}",
        world.log()
    );
    world.wait_renewed(ids, &first).await;
    let key = ca.status.as_ref().unwrap().key_id.clone();
    for device in world.stack.devices().await.unwrap() {
        let current = device.status.unwrap().certificates.current.unwrap();
        assert_eq!(current.issuer, key, "{}", device.spec.device_id);
    }
    patch::<Fleet>(
        &world.stack,
        objects::FLEET,
        &json!({ "spec": { "issuerRef": { "name": name } } }),
    )
    .await;
    world.verify().await;
}

#[tokio::test]
async fn a_fleet_moves_to_a_subordinate_ca_and_to_another_root() {
    let mut world = World::new("move", 3).await;
    let ids = world.enrol("m", 6, &[]).await;
    let line = create(
        &world,
        "line",
        &json!({ "subordinate": { "issuerRef": { "name": objects::CA } } }),
    )
    .await;
    move_to(&mut world, &ids, &line).await;
    assert!(
        !world.history().kinds(&ids[0]).contains(&"trust".to_owned()),
        "the root is the same"
    );

    // The broker lets holders of both in before the first device moves.
    let other = create(&world, "other", &json!({ "root": {} })).await;
    let secret: Secret = world.stack.objects().get(objects::SERVER_SECRET).await.unwrap();
    let data = secret.data.unwrap();
    let pem = |key: &str| String::from_utf8(data[key].0.clone()).unwrap();
    let both = pem("ca.crt") + &other.status.clone().unwrap().certificate.unwrap();
    world
        .stack
        .broker
        .set_certificates(&both, &pem("tls.crt"), &pem("tls.key"))
        .unwrap();
    world.stack.broker.restart().await.unwrap();
    move_to(&mut world, &ids, &other).await;
    for id in &ids {
        let kinds = world.history().kinds(id);
        assert_eq!(
            kinds[kinds.len() - 2..],
            ["trust", "rotate"],
            "{id}: the anchor first, then the leaf: {kinds:?}"
        );
    }
    assert!(world.history().peak_in_flight() <= 3);
    assert_eq!(world.history().authorities(), 3);
}

#[tokio::test]
async fn certificates_near_their_end_renew_by_themselves() {
    let mut world = World::new("renew", 2).await;
    let change = json!({ "spec": { "certificate": { "validity": "60s", "renewBefore": "52s" } } });
    patch::<Fleet>(&world.stack, objects::FLEET, &change).await;
    let ids = world.enrol("m", 4, &[]).await;
    for _ in 0..2 {
        let before = world.certificates().await;
        world.wait_renewed(&ids, &before).await;
    }
    let kept = wait_for("a calm moment", ENDS, || async {
        let now = world.certificates().await;
        anyhow::ensure!(now.len() == ids.len());
        Ok(())
    });
    kept.await.unwrap();
    assert!(world.history().peak_in_flight() <= 2);
}

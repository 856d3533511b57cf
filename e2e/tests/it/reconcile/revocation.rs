//! `spec.revocation` of a device: what reaches the ledger, and how far people see it.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use certwave_core::model::{Credential, Identity};
use certwave_core::revocation::{Bar, Reason, Standing};
use certwave_crds::{
    Broker, CertificateAuthority, CertificateStanding, DeviceCertificate, DeviceCertificateStatus, DeviceState, Fleet,
    RevocationReason,
};
use certwave_ledger::{CertificateKind, CertificateRecord, CrlRecord, DoorLoad, Ledger, LedgerError, Marked, Write};
use certwave_protocol::ids::Fingerprint;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde_json::{Value, json};

use super::{Place, Running, broker_spec, device_spec, now, until};

pub(super) fn identity(place: &Place, device: &str) -> Identity {
    Identity {
        broker: place.namespace.parse().unwrap(),
        device: device.parse().unwrap(),
    }
}

/// The device gets another certificate, as if it had proven it.
pub(super) async fn holds(running: &Running, device: &Identity, issuer: &str) -> Credential {
    let ledger = &*running.ledger;
    let (der, public_key): ([u8; 64], [u8; 64]) = (rand::random(), rand::random());
    let record = CertificateRecord {
        fingerprint: Fingerprint::of(&der),
        serial: format!("7{:015x}", rand::random::<u64>() >> 4),
        issuer: issuer.to_owned(),
        spki: Fingerprint::of(&public_key),
        public_key: public_key.to_vec(),
        not_before: now() - 60,
        not_after: now() + 10 * 86_400,
        kind: CertificateKind::Device,
        holder: device.device.to_string(),
        identity: Some(device.clone()),
        job: None,
        der: der.to_vec(),
        issued_at: now() * 1000,
    };
    let credential = Credential::from(&record);
    until("the device in the ledger", async || {
        Ok(ledger.device(device).await?.is_some())
    })
    .await;
    let epoch = running.epoch(Some(&device.broker));
    loop {
        let mut next = ledger.device(device).await.unwrap().unwrap();
        next.previous = next.current.replace(credential.clone());
        let write = Write {
            certificate: Some(record.clone()),
            ..Write::of(next, now() * 1000)
        };
        match ledger.write(epoch, write).await {
            Ok(_) => return credential,
            Err(LedgerError::Conflict) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

/// The key id of a CA.
pub(super) async fn key_id(place: &Place, ca: &str) -> String {
    let found = place.ready::<CertificateAuthority>(ca, "Ready").await;
    found.status.unwrap().key_id.unwrap()
}

/// A device with a certificate of the CA `root`.
async fn enrolled(place: &Place, device: &str) -> Credential {
    place.apply::<DeviceCertificate>(device, device_spec(device)).await;
    let issuer = key_id(place, "root").await;
    let credential = holds(&place.world.running, &identity(place, device), &issuer).await;
    place.ready::<DeviceCertificate>(device, "CertificateValid").await;
    credential
}

pub(super) fn with(device: &str, field: &str, value: Value) -> Value {
    let mut spec = device_spec(device);
    spec[field] = value;
    spec
}

pub(super) fn condition<'a>(conditions: &'a [Condition], kind: &str) -> Result<&'a Condition> {
    let found = conditions.iter().find(|c| c.type_ == kind);
    found.with_context(|| format!("no condition {kind}"))
}

async fn shown(place: &Place, device: &str) -> DeviceCertificateStatus {
    place
        .api::<DeviceCertificate>()
        .get(device)
        .await
        .unwrap()
        .status
        .unwrap_or_default()
}

async fn marked(place: &Place, device: &str) -> Vec<Marked> {
    let ledger = &place.world.running.ledger;
    ledger.marked(&identity(place, device), 10).await.unwrap()
}

#[tokio::test]
async fn a_stolen_device_is_revoked_and_its_status_tells_each_step_with_its_time() {
    let place = Place::new("revoke").await;
    place.foundation().await;
    let ledger = &*place.world.running.ledger;
    let credential = enrolled(&place, "pump-1").await;
    let revocation = json!({"reason": "keyCompromise", "since": "2026-01-01T00:00:00Z"});
    place
        .apply::<DeviceCertificate>("pump-1", with("pump-1", "revocation", revocation))
        .await;
    place.ready::<DeviceCertificate>("pump-1", "Revoked").await;
    let status = shown(&place, "pump-1").await;
    assert_eq!(status.state, Some(DeviceState::Revoked));
    let said = condition(&status.conditions, "Revoked").unwrap();
    assert_eq!((said.status.as_str(), said.reason.as_str()), ("True", "KeyCompromise"));
    assert!(said.message.contains("spec.reenrol"), "{}", said.message);
    let revocation = status.revocation.unwrap();
    assert_eq!(revocation.reason, Some(RevocationReason::KeyCompromise));
    assert!(revocation.requested_at.is_some() && revocation.ledger_at.is_some());
    let [certificate] = revocation.certificates.as_slice() else {
        panic!("{revocation:?}");
    };
    assert_eq!(
        (&certificate.serial, certificate.state),
        (&credential.serial, CertificateStanding::Revoked)
    );
    let current = status.certificates.current.unwrap();
    assert_eq!(current.standing, Some(CertificateStanding::Revoked));

    let mark = marked(&place, "pump-1").await.remove(0);
    let reason = Reason::KeyCompromise;
    assert!(
        matches!(mark.standing, Standing::Revoked { reason: found, .. } if found == reason),
        "{mark:?}"
    );
    let audit = ledger.audit(&identity(&place, "pump-1"), 10).await.unwrap();
    assert!(
        audit.iter().any(|line| line.what == "revoked" && line.who == "person"),
        "{audit:?}"
    );

    // The world hears of it.
    let epoch = place.world.running.epoch(None);
    let last = ledger.crl(&mark.key.issuer, &mark.partition).await.unwrap();
    let crl = CrlRecord {
        issuer: mark.key.issuer.clone(),
        partition: mark.partition.clone(),
        number: last.map_or(0, |crl| crl.number).max((now() * 1000).cast_unsigned()) + 1_000_000,
        this_update: now(),
        next_update: now() + 86_400,
        der: vec![0],
    };
    let number = crl.number;
    let covers = ledger.last_change().await.unwrap();
    ledger.publish_crl(epoch, crl, covers, now() * 1000).await.unwrap();
    until("the CRL in the status", async || {
        Ok(shown(&place, "pump-1")
            .await
            .revocation
            .is_some_and(|r| r.crl.is_some()))
    })
    .await;
    let nodes = ["mqtt-0".to_owned(), "mqtt-1".to_owned()];
    let broker = identity(&place, "pump-1").broker;
    for node in &nodes {
        assert_eq!(shown(&place, "pump-1").await.revocation.unwrap().shut_at, None);
        let load = DoorLoad {
            broker: broker.clone(),
            node: node.clone(),
            issuer: mark.key.issuer.clone(),
            partition: mark.partition.clone(),
            number,
            at: now() * 1000,
        };
        ledger.doors_loaded(epoch, vec![load], &nodes).await.unwrap();
    }
    until("both nodes in the status", async || {
        let revocation = shown(&place, "pump-1").await.revocation.unwrap();
        Ok(revocation.shut_at.is_some() && revocation.brokers.len() == 2)
    })
    .await;
    let open = ledger.open_sessions(&broker, 10).await.unwrap();
    let closed = open
        .into_iter()
        .map(|session| (session.identity, session.change))
        .collect();
    ledger.sessions_closed(epoch, now() * 1000, closed).await.unwrap();
    until("the end of the session in the status", async || {
        let status = shown(&place, "pump-1").await;
        let out = condition(&status.conditions, "Revoked")?
            .message
            .contains("no session is left");
        Ok(out && status.revocation.is_some_and(|r| r.session_closed_at.is_some()))
    })
    .await;

    // To take it out takes nothing back.
    place.apply::<DeviceCertificate>("pump-1", device_spec("pump-1")).await;
    place.ready::<DeviceCertificate>("pump-1", "Revoked").await;
    assert!(matches!(
        marked(&place, "pump-1").await[0].standing,
        Standing::Revoked { .. }
    ));
}

#[tokio::test]
async fn a_hold_is_released_by_taking_it_out() {
    let place = Place::new("revoke").await;
    place.foundation().await;
    enrolled(&place, "pump-1").await;
    let held = with("pump-1", "revocation", json!({"hold": true}));
    place.apply::<DeviceCertificate>("pump-1", held).await;
    place.ready::<DeviceCertificate>("pump-1", "OnHold").await;
    let status = shown(&place, "pump-1").await;
    assert_eq!(status.state, Some(DeviceState::Held));
    assert_eq!(condition(&status.conditions, "Revoked").unwrap().reason, "OnHold");
    assert!(matches!(
        marked(&place, "pump-1").await[0].standing,
        Standing::Held { .. }
    ));
    place.apply::<DeviceCertificate>("pump-1", device_spec("pump-1")).await;
    let free = place.ready::<DeviceCertificate>("pump-1", "CertificateValid").await;
    let free = free.status.unwrap();
    assert_eq!(free.state, Some(DeviceState::Active));
    let released = condition(&free.conditions, "Revoked").unwrap();
    assert_eq!(
        (released.status.as_str(), released.reason.as_str()),
        ("False", "Released")
    );
    assert!(
        free.revocation
            .is_some_and(|r| r.ledger_at.is_some() && r.certificates.len() == 1)
    );
    assert_eq!(marked(&place, "pump-1").await[0].standing, Standing::Good);
}

#[tokio::test]
async fn a_hold_that_begins_while_the_broker_is_not_ready_ends_with_its_declaration_too() {
    let place = Place::new("revoke").await;
    place.foundation().await;
    enrolled(&place, "pump-1").await;
    let mut broker = broker_spec(&place.namespace);
    broker["trust"]["issuerRef"]["name"] = json!("not-there-yet");
    place.apply::<Broker>("mqtt", broker).await;
    place.ready::<Fleet>("pumps", "BrokerNotReady").await;
    let ledger = &place.world.running.ledger;
    let bar = async || {
        let known = ledger.device(&identity(&place, "pump-1")).await?;
        anyhow::Ok(known.context("no device")?.bar)
    };
    let held = with("pump-1", "revocation", json!({"hold": true}));
    place.apply::<DeviceCertificate>("pump-1", held).await;
    until("the hold", async || Ok(bar().await? == Some(Bar::Held))).await;
    place.apply::<DeviceCertificate>("pump-1", device_spec("pump-1")).await;
    until("the release", async || Ok(bar().await?.is_none())).await;
    place.apply::<Broker>("mqtt", broker_spec(&place.namespace)).await;
    place.ready::<DeviceCertificate>("pump-1", "CertificateValid").await;
}

#[tokio::test]
async fn one_serial_is_revoked_alone_and_one_that_nobody_has_is_told() {
    let place = Place::new("revoke").await;
    place.foundation().await;
    let old = enrolled(&place, "pump-1").await;
    let new = holds(&place.world.running, &identity(&place, "pump-1"), &old.issuer).await;
    let one = |serial: &str| {
        with(
            "pump-1",
            "revocation",
            json!({"reason": "superseded", "serial": serial}),
        )
    };
    place.apply::<DeviceCertificate>("pump-1", one("ff")).await;
    until("the fault", async || {
        let status = shown(&place, "pump-1").await;
        Ok(condition(&status.conditions, "RevocationFault").is_ok_and(|c| c.reason == "UnknownSerial"))
    })
    .await;
    place.apply::<DeviceCertificate>("pump-1", one(&old.serial)).await;
    until("the old one alone", async || {
        let status = shown(&place, "pump-1").await;
        let named = status
            .revocation
            .is_some_and(|r| r.certificates.len() == 1 && r.certificates[0].serial == old.serial);
        Ok(named && condition(&status.conditions, "RevocationFault").is_err())
    })
    .await;
    let status = shown(&place, "pump-1").await;
    assert_eq!(status.state, Some(DeviceState::Active));
    assert_eq!(condition(&status.conditions, "Revoked").unwrap().status, "False");
    assert_eq!(status.certificates.current.unwrap().serial, Some(new.serial));
}

#[tokio::test]
async fn a_permit_given_before_the_revocation_is_void_and_one_given_with_it_or_later_counts() {
    let place = Place::new("revoke").await;
    place.foundation().await;
    let ledger = &*place.world.running.ledger;
    for (device, first, second, opens) in [
        ("before", Some("ticket-1"), "ticket-1", false),
        ("together", None, "ticket-1", true),
        ("later", Some("ticket-1"), "ticket-2", true),
    ] {
        enrolled(&place, device).await;
        let id = identity(&place, device);
        if let Some(permit) = first {
            let spec = with(device, "reenrol", json!({"permit": permit}));
            place.apply::<DeviceCertificate>(device, spec).await;
            until("the permit", async || {
                Ok(ledger.device(&id).await?.unwrap().reenrol.is_some())
            })
            .await;
        }
        let mut spec = with(device, "revocation", json!({"reason": "keyCompromise"}));
        spec["reenrol"] = json!({"permit": second});
        place.apply::<DeviceCertificate>(device, spec).await;
        place.ready::<DeviceCertificate>(device, "Revoked").await;
        let permitted = async || {
            let known = ledger.device(&id).await?.unwrap();
            assert_eq!(known.bar, Some(Bar::Revoked));
            anyhow::Ok(known.reenrol.is_some() && known.reenrol != known.reenrol_used)
        };
        if opens {
            until(device, permitted).await;
        } else {
            assert!(!permitted().await.unwrap(), "{device}");
        }
    }
}

#[tokio::test]
async fn what_was_said_while_nobody_led_is_taken_over_at_the_start() {
    let place = Place::apart("revoke").await;
    let scope = Some(place.namespace.clone());
    let client = place.client.clone();
    let own = Running::start(client.clone(), scope.clone());
    place.foundation().await;
    for device in ["stolen", "held"] {
        place.apply::<DeviceCertificate>(device, device_spec(device)).await;
        holds(&own, &identity(&place, device), "aa").await;
    }
    let bar = async |ledger: &Arc<dyn Ledger>, device: &str| {
        let known = ledger.device(&identity(&place, device)).await?;
        anyhow::Ok(known.context("no device")?.bar)
    };
    let held = with("held", "revocation", json!({"hold": true}));
    place.apply::<DeviceCertificate>("held", held).await;
    until("the hold", async || {
        Ok(bar(&own.ledger, "held").await? == Some(Bar::Held))
    })
    .await;
    let (ledger, scratch) = own.stop().await;
    let stolen = with("stolen", "revocation", json!({"reason": "keyCompromise"}));
    place.apply::<DeviceCertificate>("stolen", stolen).await;
    place.apply::<DeviceCertificate>("held", device_spec("held")).await;
    let again = Running::start_with(client, scope, ledger, scratch);
    until("the revocation", async || {
        Ok(bar(&again.ledger, "stolen").await? == Some(Bar::Revoked))
    })
    .await;
    until("the release", async || Ok(bar(&again.ledger, "held").await?.is_none())).await;
}

#[tokio::test]
async fn a_hold_of_an_object_that_was_deleted_while_nobody_led_ends_when_one_of_its_name_comes_without_it() {
    let place = Place::apart("revoke").await;
    let scope = Some(place.namespace.clone());
    let client = place.client.clone();
    let own = Running::start(client.clone(), scope.clone());
    place.foundation().await;
    place.apply::<DeviceCertificate>("held", device_spec("held")).await;
    holds(&own, &identity(&place, "held"), "aa").await;
    let held = with("held", "revocation", json!({"hold": true}));
    place.apply::<DeviceCertificate>("held", held).await;
    let bar = async |ledger: &Arc<dyn Ledger>| {
        let known = ledger.device(&identity(&place, "held")).await?;
        anyhow::Ok(known.context("no device")?.bar)
    };
    until("the hold", async || Ok(bar(&own.ledger).await? == Some(Bar::Held))).await;
    let (ledger, scratch) = own.stop().await;
    place.delete::<DeviceCertificate>("held").await;
    let again = Running::start_with(client, scope, ledger, scratch);
    let broker = place.namespace.parse().unwrap();
    until("the withdrawal", async || {
        Ok(again.ledger.declared_objects(&broker, None, 1).await?.is_empty())
    })
    .await;
    assert_eq!(
        bar(&again.ledger).await.unwrap(),
        Some(Bar::Held),
        "a deleted object lets nobody in"
    );
    place.apply::<DeviceCertificate>("held", device_spec("held")).await;
    until("the release", async || Ok(bar(&again.ledger).await?.is_none())).await;
}

#[tokio::test]
async fn a_duplicate_revokes_nothing() {
    let place = Place::new("revoke").await;
    place.foundation().await;
    enrolled(&place, "pump-1").await;
    let spec = with("pump-1", "revocation", json!({"reason": "keyCompromise"}));
    place.apply::<DeviceCertificate>("another", spec).await;
    place.ready::<DeviceCertificate>("another", "DuplicateDeviceId").await;
    assert!(marked(&place, "pump-1").await.is_empty());
    place.ready::<DeviceCertificate>("pump-1", "CertificateValid").await;
    place.api::<Fleet>().get("pumps").await.unwrap();
}

//! `Revocation`: previewed, run, resumed, released; and a CA that is revoked itself.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use certwave_core::revocation::{Bar, Standing};
use certwave_crds::{CertificateAuthority, DeviceCertificate, Fleet, Revocation, RevocationPhase, RevocationStatus};
use certwave_e2e::wait_for;
use certwave_ledger::{Ledger, SerialKey};
use serde_json::{Value, json};

use super::revocation::{condition, holds, identity, key_id};
use super::{Place, Running, device_spec, fleet_spec, message, until};

const SOON: Duration = Duration::from_secs(30);

/// Waits until the Revocation is in one of these phases.
async fn reaches(place: &Place, name: &str, phases: &[RevocationPhase]) -> RevocationStatus {
    wait_for(&format!("{name} to be {phases:?}"), SOON, || async {
        let found = place.api::<Revocation>().get(name).await?;
        let status = found.status.context("no status")?;
        match status.phase {
            Some(phase) if phases.contains(&phase) && status.observed_generation == found.metadata.generation => {
                Ok(status)
            }
            other => bail!("{other:?}: {:?}", status.conditions),
        }
    })
    .await
    .unwrap()
}

/// All of it is in the ledger.
const DONE: [RevocationPhase; 2] = [RevocationPhase::Recorded, RevocationPhase::Complete];

async fn bar(ledger: &Arc<dyn Ledger>, place: &Place, device: &str) -> Option<Bar> {
    ledger.device(&identity(place, device)).await.unwrap().unwrap().bar
}

async fn declare(place: &Place, device: &str, site: &str) {
    let mut spec = device_spec(device);
    spec["labels"] = json!({"site": site});
    place.apply::<DeviceCertificate>(device, spec).await;
}

fn many(whom: Value, more: &Value) -> Value {
    let mut spec = whom;
    for (field, value) in more.as_object().unwrap() {
        spec[field] = value.clone();
    }
    spec
}

#[tokio::test]
async fn what_a_compromised_ca_has_issued_is_revoked_and_the_rest_goes_on() {
    let place = Place::new("many").await;
    place.foundation().await;
    let ledger = &place.world.running.ledger;
    let root = key_id(&place, "root").await;
    let spec = json!({"subordinate": {"issuerRef": {"name": "root"}}});
    place.apply::<CertificateAuthority>("plant", spec).await;
    let plant = key_id(&place, "plant").await;
    for device in ["behind", "moved", "never"] {
        declare(&place, device, "north").await;
    }
    // One is still on the compromised CA, one has moved to the other, one has never had anything of it.
    holds(&place.world.running, &identity(&place, "behind"), &plant).await;
    let old = holds(&place.world.running, &identity(&place, "moved"), &plant).await;
    let new = holds(&place.world.running, &identity(&place, "moved"), &root).await;
    holds(&place.world.running, &identity(&place, "never"), &root).await;

    let whom = json!({"issuerRef": {"name": "plant"}, "reason": "keyCompromise"});
    place.apply::<Revocation>("plant-leaves", whom.clone()).await;
    let preview = reaches(&place, "plant-leaves", &[RevocationPhase::Ready]).await;
    assert_eq!((preview.matched.devices, preview.matched.certificates), (2, 2));
    assert_eq!(preview.examples.len(), 2);
    assert_eq!(condition(&preview.conditions, "Complete").unwrap().reason, "Previewed");
    assert_eq!(bar(ledger, &place, "behind").await, None);

    // Not what was seen.
    let run = many(whom.clone(), &json!({"mode": "Run", "planHash": "0".repeat(64)}));
    place.apply::<Revocation>("plant-leaves", run).await;
    let refused = reaches(&place, "plant-leaves", &[RevocationPhase::Ready]).await;
    assert_eq!(
        condition(&refused.conditions, "Complete").unwrap().reason,
        "PlanChanged"
    );
    assert_eq!(bar(ledger, &place, "behind").await, None);

    let run = many(whom, &json!({"mode": "Run", "planHash": preview.plan_hash}));
    place.apply::<Revocation>("plant-leaves", run).await;
    let done = reaches(&place, "plant-leaves", &DONE).await;
    assert_eq!((done.matched.devices, done.progress.recorded), (2, 2));
    assert_eq!(bar(ledger, &place, "behind").await, Some(Bar::Revoked));
    assert_eq!(
        (bar(ledger, &place, "moved").await, bar(ledger, &place, "never").await),
        (None, None)
    );
    let standing = async |issuer: &str, serial: &str| {
        let key = SerialKey {
            issuer: issuer.to_owned(),
            serial: serial.to_owned(),
        };
        let marked = ledger.marked_certificate(&key).await.unwrap();
        marked.map_or(Standing::Good, |marked| marked.standing)
    };
    assert!(matches!(standing(&plant, &old.serial).await, Standing::Revoked { .. }));
    assert_eq!(standing(&root, &new.serial).await, Standing::Good);
    place.ready::<DeviceCertificate>("behind", "Revoked").await;
    place.ready::<DeviceCertificate>("moved", "CertificateValid").await;
    // To delete it takes nothing back.
    place.delete::<Revocation>("plant-leaves").await;
    place.touch::<DeviceCertificate>("behind").await;
    assert_eq!(bar(ledger, &place, "behind").await, Some(Bar::Revoked));
}

#[tokio::test]
async fn devices_with_a_label_are_held_and_released_again() {
    let place = Place::new("many").await;
    place.foundation().await;
    let ledger = &place.world.running.ledger;
    for (device, site) in [("n-1", "north"), ("n-2", "north"), ("s-1", "south")] {
        declare(&place, device, site).await;
        holds(&place.world.running, &identity(&place, device), "aa").await;
    }
    let whom = || json!({"fleetRef": {"name": "pumps"}, "selector": {"matchLabels": {"site": "north"}}, "hold": true, "mode": "Run"});
    for (name, released_by_deletion) in [("first", true), ("second", false)] {
        place.apply::<Revocation>(name, whom()).await;
        let done = reaches(&place, name, &DONE).await;
        assert_eq!(done.progress.recorded, 2);
        place.ready::<DeviceCertificate>("n-1", "OnHold").await;
        assert_eq!(bar(ledger, &place, "s-1").await, None);
        if released_by_deletion {
            place.delete::<Revocation>(name).await;
        } else {
            place
                .apply::<Revocation>(name, many(whom(), &json!({"release": true})))
                .await;
            reaches(&place, name, &[RevocationPhase::Released]).await;
        }
        until("the release", async || {
            Ok(bar(ledger, &place, "n-1").await.is_none() && bar(ledger, &place, "n-2").await.is_none())
        })
        .await;
    }
    place.ready::<DeviceCertificate>("n-1", "CertificateValid").await;
}

#[tokio::test]
async fn a_revocation_that_was_interrupted_goes_on_and_one_without_anybody_is_complete() {
    let place = Place::apart("many").await;
    let scope = Some(place.namespace.clone());
    let client = place.client.clone();
    let own = Running::start(client.clone(), scope.clone());
    place.foundation().await;
    let nobody = json!({"selector": {"matchLabels": {"site": "nowhere"}}, "mode": "Run"});
    place.apply::<Revocation>("nobody", nobody).await;
    let complete = reaches(&place, "nobody", &[RevocationPhase::Complete]).await;
    assert_eq!(
        condition(&complete.conditions, "Complete").unwrap().reason,
        "NothingMatched"
    );
    for n in 0..30 {
        let device = format!("pump-{n}");
        declare(&place, &device, "north").await;
        holds(&own, &identity(&place, &device), "aa").await;
    }
    let whom = json!({"fleetRef": {"name": "pumps"}, "reason": "cessationOfOperation", "mode": "Run"});
    place.apply::<Revocation>("all", whom).await;
    // Ended somewhere between its first look and the end.
    let (ledger, scratch) = own.stop().await;
    let again = Running::start_with(client, scope, ledger, scratch);
    reaches(&place, "all", &DONE).await;
    for n in 0..30 {
        assert_eq!(
            bar(&again.ledger, &place, &format!("pump-{n}")).await,
            Some(Bar::Revoked)
        );
    }
}

#[tokio::test]
async fn a_revoked_ca_issues_no_more_and_says_so() {
    let place = Place::new("many").await;
    place.foundation().await;
    let spec = json!({"subordinate": {"issuerRef": {"name": "root"}}});
    place.apply::<CertificateAuthority>("plant", spec).await;
    let plant = key_id(&place, "plant").await;
    let line = json!({"subordinate": {"issuerRef": {"name": "plant"}}});
    place.apply::<CertificateAuthority>("line", line).await;
    key_id(&place, "line").await;
    let mut fleet = fleet_spec();
    fleet["issuerRef"]["name"] = json!("plant");
    place.apply::<Fleet>("pumps", fleet).await;
    place.ready::<Fleet>("pumps", "BrokerNotConnected").await;

    let of = |name: &str| json!({"certificateAuthority": {"name": name}, "reason": "cACompromise", "mode": "Run"});
    place.apply::<Revocation>("root", of("root")).await;
    let refused = reaches(&place, "root", &[RevocationPhase::Invalid]).await;
    assert_eq!(
        condition(&refused.conditions, "Complete").unwrap().reason,
        "RootCannotBeRevoked"
    );
    place.apply::<Revocation>("plant", of("plant")).await;
    let done = reaches(&place, "plant", &DONE).await;
    assert_eq!(done.progress.recorded, 1);
    let ca = place.ready::<CertificateAuthority>("plant", "Revoked").await;
    let status = ca.status.unwrap();
    assert_eq!(condition(&status.conditions, "Revoked").unwrap().status, "True");
    let fleet = place.ready::<Fleet>("pumps", "CARevoked").await;
    assert!(message(&fleet).contains("plant"), "{}", message(&fleet));
    let below = json!({"subordinate": {"issuerRef": {"name": "plant"}}});
    place.apply::<CertificateAuthority>("below", below).await;
    place.ready::<CertificateAuthority>("below", "CARevoked").await;
    place.ready::<CertificateAuthority>("line", "CARevoked").await;

    // Whoever was in a hurry began with the CA: what it has issued can be revoked all the same, and the CA once only.
    declare(&place, "pump-1", "north").await;
    holds(&place.world.running, &identity(&place, "pump-1"), &plant).await;
    let issued = json!({"issuerRef": {"name": "plant"}, "reason": "keyCompromise", "mode": "Run"});
    place.apply::<Revocation>("issued", issued).await;
    assert_eq!(reaches(&place, "issued", &DONE).await.progress.recorded, 1);
    place.apply::<Revocation>("again", of("plant")).await;
    reaches(&place, "again", &[RevocationPhase::Complete]).await;
    place.apply::<Fleet>("pumps", fleet_spec()).await;
    place.ready::<Fleet>("pumps", "BrokerNotConnected").await;
}

#[tokio::test]
async fn a_revocation_of_what_does_not_exist_is_not_carried_out_when_somebody_makes_it() {
    let place = Place::new("many").await;
    place.foundation().await;
    let typed = json!({"fleetRef": {"name": "pump"}, "mode": "Run"});
    place.apply::<Revocation>("mistyped", typed).await;
    let refused = reaches(&place, "mistyped", &[RevocationPhase::Invalid]).await;
    let told = condition(&refused.conditions, "Complete").unwrap();
    assert_eq!(told.reason, "FleetNotFound");
    assert!(told.message.contains("create it anew"), "{}", told.message);
    place.apply::<Fleet>("pump", fleet_spec()).await;
    place.ready::<Fleet>("pump", "BrokerNotConnected").await;
    // One that is looked at later has been carried out, so the first one was passed by.
    let whom = json!({"fleetRef": {"name": "pump"}, "mode": "Run"});
    place.apply::<Revocation>("meant", whom).await;
    reaches(&place, "meant", &DONE).await;
    reaches(&place, "mistyped", &[RevocationPhase::Invalid]).await;
}

//! `Rotation`, as far as it goes without devices.

use anyhow::Context as _;
use certwave_crds::{Fleet, Rotation, RotationPhase};
use serde_json::{Value, json};

use super::Place;

fn spec(control: &str) -> Value {
    json!({"fleetRef": {"name": "pumps"}, "control": {"state": control}})
}

impl Place {
    /// Waits until the Rotation is in this phase, with this reason.
    async fn phase(&self, name: &str, phase: RotationPhase, reason: &str) -> Rotation {
        let mut found = None;
        super::until(&format!("{name} {phase:?} {reason}"), async || {
            let rotation = self.api::<Rotation>().get(name).await?;
            let status = rotation.status.clone().unwrap_or_default();
            let complete = status
                .conditions
                .iter()
                .any(|c| c.type_ == "Complete" && c.reason == reason);
            let there = status.phase == Some(phase) && complete;
            found = Some(rotation);
            Ok(there)
        })
        .await;
        found.context("no Rotation").unwrap()
    }
}

#[tokio::test]
async fn a_rotation_waits_for_its_fleet_and_belongs_to_it() {
    let place = Place::new("rotation").await;
    place.apply::<Rotation>("now", spec("Running")).await;
    place.phase("now", RotationPhase::Pending, "FleetNotFound").await;
    place.foundation().await;
    let over = place.phase("now", RotationPhase::Complete, "NoDevices").await;
    let fleet = place.api::<Fleet>().get("pumps").await.unwrap();
    let owners = over.metadata.owner_references.unwrap();
    assert_eq!(
        owners.iter().map(|owner| &owner.uid).collect::<Vec<_>>(),
        [fleet.metadata.uid.as_ref().unwrap()]
    );
    let status = over.status.unwrap();
    assert_eq!((status.counts.planned, status.completed_at.is_some()), (0, true));
}

#[tokio::test]
async fn one_rotation_runs_over_a_fleet_at_a_time_the_oldest_first() {
    let place = Place::new("rotation").await;
    place.foundation().await;
    let moves = json!({"fleetRef": {"name": "pumps"}, "reason": "CAChange", "issuerRef": {"name": "next"}});
    place.apply::<Rotation>("a-first", moves).await;
    place.phase("a-first", RotationPhase::Pending, "CANotFound").await;
    place.apply::<Rotation>("b-second", spec("Running")).await;
    place.phase("b-second", RotationPhase::Pending, "AnotherRotation").await;
    place
        .apply::<certwave_crds::CertificateAuthority>("next", json!({"subordinate": {"issuerRef": {"name": "root"}}}))
        .await;
    place.phase("a-first", RotationPhase::Complete, "NoDevices").await;
    place.phase("b-second", RotationPhase::Complete, "NoDevices").await;
}

#[tokio::test]
async fn a_rotation_that_a_person_keeps_from_beginning_holds_up_nobody() {
    let place = Place::new("rotation").await;
    place.foundation().await;
    place.apply::<Rotation>("a-first", spec("Paused")).await;
    place.phase("a-first", RotationPhase::Pending, "Paused").await;
    place.apply::<Rotation>("b-second", spec("Running")).await;
    place.phase("b-second", RotationPhase::Complete, "NoDevices").await;
    place.apply::<Rotation>("a-first", spec("Running")).await;
    place.phase("a-first", RotationPhase::Complete, "NoDevices").await;
}

#[tokio::test]
async fn an_aborted_rotation_is_over_before_it_begins() {
    let place = Place::new("rotation").await;
    place.foundation().await;
    place.apply::<Rotation>("now", spec("Paused")).await;
    place.phase("now", RotationPhase::Pending, "Paused").await;
    place.apply::<Rotation>("now", spec("Aborted")).await;
    place.phase("now", RotationPhase::Aborted, "Aborted").await;
}

#[tokio::test]
async fn a_move_waits_for_the_ca_that_it_moves_to() {
    let place = Place::new("rotation").await;
    place.foundation().await;
    let spec = json!({"fleetRef": {"name": "pumps"}, "reason": "CAChange", "issuerRef": {"name": "next"}});
    place.apply::<Rotation>("move", spec).await;
    place.phase("move", RotationPhase::Pending, "CANotFound").await;
    place
        .apply::<certwave_crds::CertificateAuthority>("next", json!({"subordinate": {"issuerRef": {"name": "root"}}}))
        .await;
    place.phase("move", RotationPhase::Complete, "NoDevices").await;
}

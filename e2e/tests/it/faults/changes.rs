//! People change their minds in the middle of a rotation.

use std::time::Duration;

use certwave_crds::{DeviceCertificate, Fleet, Rotation, RotationPhase};
use certwave_e2e::stack::objects;
use certwave_e2e::wait_for;
use kube::api::DeleteParams;
use serde_json::{Value, json};

use super::world::{ENDS, SOON, World, patch};

const SLOW: [&str; 2] = ["--fault", "slow:1s=*"];

async fn control(world: &World, name: &str, state: &str, phase: RotationPhase) {
    patch::<Rotation>(
        &world.stack,
        name,
        &json!({ "spec": { "control": { "state": state } } }),
    )
    .await;
    let what = format!("{phase:?}");
    let shown = wait_for(&what, SOON, || async {
        let status = world.stack.rotation(name).await?.status.unwrap_or_default();
        anyhow::ensure!(status.phase == Some(phase), "{status:#?}");
        Ok(())
    });
    shown.await.unwrap_or_else(|error| panic!("{error:#}\n{}", world.log()));
}

/// Waits until nothing is in flight any more, and answers how many have confirmed in all.
async fn settled(world: &World) -> usize {
    world
        .when("nothing in flight", |history| history.in_flight() == 0)
        .await;
    world.history().reached("confirmed")
}

#[tokio::test]
async fn a_rotation_pauses_goes_on_and_is_aborted_as_a_person_says() {
    let mut world = World::new("control", 1).await;
    let ids = world.enrol("m", 5, &SLOW).await;
    let first = world.certificates().await;
    world.rotate("one", &json!({}));
    world
        .when("a first confirmation", |history| history.reached("confirmed") >= 1)
        .await;
    control(&world, "one", "Paused", RotationPhase::Paused).await;
    let confirmed = settled(&world).await;
    assert!(confirmed < 5, "the pause came too late to be one");
    world.lasts(Duration::from_secs(3)).await;
    assert_eq!(
        world.history().reached("confirmed"),
        confirmed,
        "nothing starts in a pause"
    );
    control(&world, "one", "Running", RotationPhase::Running).await;
    let status = world.ended("one").await;
    assert_eq!(
        (status.phase, status.counts.confirmed),
        (Some(RotationPhase::Complete), 5)
    );
    world.wait_renewed(&ids, &first).await;

    world.rotate("two", &json!({}));
    world
        .when("one more", |history| history.reached("confirmed") >= 6)
        .await;
    control(&world, "two", "Aborted", RotationPhase::Aborted).await;
    let confirmed = settled(&world).await;
    assert!(confirmed < 10);
    world.lasts(Duration::from_secs(2)).await;
    assert_eq!(
        world.history().reached("confirmed"),
        confirmed,
        "nothing starts after an abort"
    );
    world.verify().await;

    let second = world.certificates().await;
    world.rotate("three", &json!({}));
    assert_eq!(world.ended("three").await.counts.confirmed, 5, "{}", world.log());
    world.wait_renewed(&ids, &second).await;
    assert_eq!(world.history().peak_in_flight(), 1);
}

#[tokio::test]
async fn a_spec_that_changes_in_the_middle_holds_from_then_on() {
    let mut world = World::new("spec", 2).await;
    let ids = world.enrol("m", 8, &SLOW).await;
    let first = world.certificates().await;
    world.rotate("now", &json!({}));
    world
        .when("some under way", |history| history.reached("accepted") >= 3)
        .await;
    let change = json!({ "spec": {
        "certificate": { "keyAlgorithms": ["ECDSA-P384"], "subject": { "organization": "Changed" } },
        "rotation": { "limits": { "maxInFlight": 4 } },
    } });
    patch::<Fleet>(&world.stack, objects::FLEET, &change).await;
    let status = world.ended("now").await;
    assert_eq!(
        status.phase,
        Some(RotationPhase::Complete),
        "{status:#?}\n{}",
        world.log()
    );
    world.wait_renewed(&ids, &first).await;
    world.verify().await;
    assert_eq!(
        world.history().peak_in_flight(),
        2,
        "a Rotation keeps the limits that it began with"
    );
    let texts = ids.iter().map(|id| world.certificate_text(id));
    let changed = texts.filter(|text| text.contains("O = Changed") || text.contains("O=Changed"));
    let changed: Vec<String> = changed.collect();
    assert!(!changed.is_empty());
    assert!(changed.iter().all(|text| text.contains("P-384")), "{changed:?}");
}

#[tokio::test]
async fn what_is_deleted_in_the_middle_stops_nobody_else() {
    let mut world = World::new("delete", 2).await;
    let ids = world.enrol("m", 6, &SLOW).await;
    let first = world.certificates().await;
    world.rotate("one", &json!({}));
    // Slow devices are in this state for a second; whoever accepts asks for its certificate at once.
    world
        .when("a device in flight", |history| history.device_in("Issued").is_some())
        .await;
    let gone = world.history().device_in("Issued").unwrap_or_else(|| ids[0].clone());
    world
        .stack
        .objects::<DeviceCertificate>()
        .delete(&gone, &DeleteParams::default())
        .await
        .unwrap();
    let status = world.ended("one").await;
    assert!(status.counts.confirmed >= 5, "{status:#?}\n{}", world.log());
    let rest: Vec<String> = ids.iter().filter(|id| **id != gone).cloned().collect();
    world.wait_renewed(&rest, &first).await;

    // Declared again, it is the same device with the same certificates.
    settled(&world).await;
    world.stack.declare_devices([gone.clone()]).await.unwrap();
    world.wait_enrolled(&ids).await;
    world.verify().await;

    let fleet: Fleet = world.stack.objects().get(objects::FLEET).await.unwrap();
    let (before, confirmed) = (world.certificates().await, world.history().reached("confirmed"));
    world.rotate("two", &json!({}));
    world
        .when("one more", |history| history.reached("confirmed") > confirmed)
        .await;
    world
        .stack
        .objects::<Fleet>()
        .delete(objects::FLEET, &DeleteParams::default())
        .await
        .unwrap();
    let said = wait_for("the Rotation to say so", SOON, || async {
        let status = world.stack.rotation("two").await?.status.unwrap_or_default();
        let says = status
            .conditions
            .iter()
            .any(|condition| condition.reason == "FleetNotFound");
        anyhow::ensure!(says, "{status:#?}");
        Ok(())
    });
    said.await.unwrap_or_else(|error| panic!("{error:#}\n{}", world.log()));
    let spec: Value = serde_json::to_value(&fleet.spec).unwrap();
    let metadata = json!({ "name": objects::FLEET, "namespace": world.stack.namespace() });
    let again = json!({ "apiVersion": "certwave.dev/v1alpha1", "kind": "Fleet", "metadata": metadata, "spec": spec });
    world.stack.api.apply(&again.to_string()).unwrap();
    let status = world.ended("two").await;
    assert_eq!(
        status.phase,
        Some(RotationPhase::Complete),
        "{status:#?}\n{}",
        world.log()
    );
    world.wait_renewed(&ids, &before).await;
    world.verify().await;
    assert!(world.history().peak_in_flight() <= 2);
}

#[tokio::test]
async fn a_rotation_deleted_while_the_ledger_cannot_be_written_ends_when_it_can() {
    let mut world = World::new("forget", 1).await;
    let ids = world.enrol("m", 4, &SLOW).await;
    world.rotate("now", &json!({}));
    world
        .when("a first confirmation", |history| history.reached("confirmed") >= 1)
        .await;
    let lock = world.lock_ledger();
    let rotations = world.stack.objects::<Rotation>();
    rotations.delete("now", &DeleteParams::default()).await.unwrap();
    let failed = wait_for("the first failure to end it", ENDS, || async {
        let log = std::fs::read_to_string(world.stack.directory().join("certwave.log"))?;
        anyhow::ensure!(log.contains("cannot forget a deleted object"), "not yet");
        Ok(())
    });
    world.told(failed.await);
    assert_eq!(world.history().rotations_open(), 1);
    drop(lock);
    world
        .when("the Rotation's end", |history| history.rotations_open() == 0)
        .await;
    let confirmed = settled(&world).await;
    assert!(confirmed < ids.len(), "the deletion came too late to be one");
    world.keep_controller().await;
    world.verify().await;
}

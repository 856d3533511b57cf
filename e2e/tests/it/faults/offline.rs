//! Devices that are away, and such that never answer.

use certwave_crds::RotationPhase;
use serde_json::json;

use super::world::{World, device_limits};

#[tokio::test]
async fn devices_that_are_away_block_nobody_and_rotate_when_they_come_back() {
    let mut world = World::new("offline", 2).await;
    let here = world.enrol("here", 4, &[]).await;
    let away = world.enrol("away", 4, &[]).await;
    world.switch_off("away");
    let first = world.certificates().await;

    world.rotate("now", &json!({}));
    let status = world.ended("now").await;
    assert_eq!(
        status.phase,
        Some(RotationPhase::Complete),
        "{status:#?}\n{}",
        world.log()
    );
    assert_eq!((status.counts.confirmed, status.counts.deferred), (4, 4));
    world.wait_renewed(&here, &first).await;
    for id in &away {
        assert_eq!(world.current_of(id).await.as_ref(), first.get(id), "{id}");
    }

    world.switch_on("away", &away, &[]);
    world.wait_renewed(&away, &first).await;
    world.verify().await;
    assert!(world.history().peak_in_flight() <= 2);
}

#[tokio::test]
async fn devices_that_never_answer_block_nobody() {
    let mut world = World::new("silent", 2).await;
    let silent = world.enrol("silent", 2, &["--fault", "never-answer=*"]).await;
    let good = world.enrol("good", 4, &[]).await;
    let first = world.certificates().await;

    let mut limits = device_limits();
    limits["offlineAfter"] = json!("2s");
    world.rotate("now", &json!({ "device": limits }));
    let status = world.ended("now").await;
    assert_eq!(status.counts.confirmed, 4, "{status:#?}\n{}", world.log());
    world.wait_renewed(&good, &first).await;

    // Repaired, they go on with what they were given when they are asked again.
    world.cut_power("silent");
    world.switch_on("silent", &silent, &[]);
    world.wait_renewed(&silent, &first).await;
    world.verify().await;
    assert!(world.history().peak_in_flight() <= 2);
}

//! A third of the fleet is offline.

use certwave_crds::{DeviceState, RotationPhase};
use serde_json::json;

use super::world::{MAX_IN_FLIGHT, Staged, condition, fleet, strategy};

#[tokio::test]
async fn an_offline_third_neither_blocks_nor_counts_and_rotates_when_it_comes_back() {
    // Nine devices; two left in good order, one lost its power, and nothing may fail or be lost.
    let mut world = Staged::new("third").await;
    let here = world.enrol("here", &fleet(6, 1, &["north", "south"]), &[]).await;
    let mut away = world.enrol("away", &fleet(2, 1, &["north", "south"]), &[]).await;
    let dark = world.enrol("dark", &fleet(1, 0, &["north"]), &[]).await;
    world.switch_off("away");
    world.cut_power("dark");
    let before = world.certificates().await;
    world.rotate(
        "run",
        &strategy(&json!({ "waves": [
            { "name": "canary", "count": 2, "selector": { "matchLabels": { "ring": "canary" } }, "soak": "1s" },
            { "name": "rest", "percent": 100 },
        ] })),
    );

    // Half of the canaries are away, and so is a part of the rest: both waves are done without them.
    let status = world.until("run", "the offline ones to be told apart", |status| {
        status.counts.offline == 3
    });
    let status = status.await;
    let offline: Vec<_> = status.waves.iter().map(|wave| wave.offline).collect();
    assert_eq!(offline, [1, 2]);
    let status = world.phase("run", RotationPhase::Complete).await;
    let complete = condition(&status, "Complete");
    assert_eq!(
        (complete.status.as_str(), complete.reason.as_str()),
        ("True", "CompleteButOffline")
    );
    let counts = status.counts;
    assert_eq!(
        (counts.confirmed, counts.deferred, counts.offline),
        (6, 3, 0),
        "{counts:#?}"
    );
    assert_eq!(
        (counts.failed, counts.timed_out, counts.lost),
        (0, 0, 0),
        "being away is no failure"
    );
    world.wait_renewed(&here, &before).await;
    for id in away.iter().chain(&dark) {
        assert_eq!(world.current_of(id).await.as_ref(), before.get(id), "{id}");
    }

    // They come back when all is long over, and are served at once, without another Rotation.
    world.switch_on("away", &away, &[]);
    world.switch_on("dark", &dark, &[]);
    away.extend(dark);
    world.wait_renewed(&away, &before).await;
    world.wait_enrolled(&away).await;
    let shown = world.states().await;
    assert!(
        shown.values().all(|state| *state == Some(DeviceState::Active)),
        "{shown:?}"
    );
    world.sound(MAX_IN_FLIGHT, MAX_IN_FLIGHT).await;
    assert_eq!(world.history().went_wrong(), 0);
}

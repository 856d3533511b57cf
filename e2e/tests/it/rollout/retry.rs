//! A person lets the failed devices try again: those and nobody else, and once for each word.

use std::time::Duration;

use certwave_crds::RotationPhase;
use serde_json::json;

use super::world::{MAX_IN_FLIGHT, Staged, fleet, strategy};

#[tokio::test]
async fn only_failed_devices_try_again_and_each_word_counts_once() {
    // Two of the three canaries refuse.
    let mut world = Staged::new("retry").await;
    let ids = world
        .enrol("m", &fleet(7, 3, &["north", "south"]), &["--fault", "reject=m-1,m-2"])
        .await;
    let before = world.certificates().await;
    let canaries = json!({ "matchLabels": { "ring": "canary" } });
    world.rotate(
        "run",
        &strategy(&json!({
            "waves": [
                { "name": "canary", "count": 3, "selector": canaries, "maxFailed": 1 },
                { "name": "rest", "percent": 100 },
            ],
        })),
    );
    let status = world.phase("run", RotationPhase::Breached).await;
    assert_eq!(status.breach.unwrap().wave, "canary");
    world
        .when("the canaries' end", |history| history.flying("run") == 0)
        .await;

    // Alice asks for another try, though nothing was repaired: they refuse again.
    world.control_as("alice", "run", &json!({ "retryFailed": "one" }));
    world
        .when("both to be asked again", |history| {
            ["m-1", "m-2"].iter().all(|id| history.kinds(id).len() == 3)
        })
        .await;
    let status = world
        .until("run", "both to refuse again", |status| {
            let canary = &status.waves[0];
            status.phase == Some(RotationPhase::Breached) && canary.rejected == 2 && canary.in_flight == 0
        })
        .await;
    assert_eq!(status.waves[0].confirmed, 1, "{status:#?}");
    assert_eq!(status.examples.len(), 2);

    // Her word again says nothing new.
    let sent = world.history().sent("run");
    world.control_as(
        "carol",
        "run",
        &json!({ "retryFailed": "one", "approval": { "throughWave": 0 } }),
    );
    world.lasts(Duration::from_secs(4)).await;
    assert_eq!(world.status("run").await.phase, Some(RotationPhase::Breached));
    assert_eq!(world.history().sent("run"), sent);

    // Repaired, they try once more by Bob's word, and the run goes on with the rest.
    world.switch_off("m");
    world.switch_on("m", &ids, &[]);
    world.control_as("bob", "run", &json!({ "retryFailed": "two" }));
    let status = world.phase("run", RotationPhase::Complete).await;
    assert_eq!((status.counts.confirmed, status.counts.rejected), (7, 0), "{status:#?}");
    world.wait_renewed(&ids, &before).await;
    let history = world.history();
    for id in &ids[..2] {
        assert_eq!(history.kinds(id), ["enrol", "rotate", "rotate", "rotate"], "{id}");
    }
    for id in &ids[2..] {
        assert_eq!(history.kinds(id), ["enrol", "rotate"], "{id}");
    }
    let asked: Vec<_> = history
        .deeds()
        .into_iter()
        .filter(|deed| deed.what == "rotation-retried")
        .collect();
    let who: Vec<_> = asked.iter().map(|deed| deed.who.as_str()).collect();
    assert_eq!(who, ["alice", "bob"], "{asked:?}");
    let note = world.event("run", "RetryFailed").await;
    assert!(note.contains("another try"), "{note}");
    world.sound(MAX_IN_FLIGHT, MAX_IN_FLIGHT).await;
}

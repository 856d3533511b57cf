//! Devices that should not go back to their old certificates, as these have too little life left.

use certwave_crds::RotationPhase;
use serde_json::json;

use super::world::{MAX_IN_FLIGHT, Staged, fleet, strategy};

#[tokio::test]
async fn whoever_should_not_go_back_keeps_the_new_certificate_and_is_named() {
    let mut world = Staged::new("stays").await;
    let good = world.enrol("good", &fleet(2, 2, &["north"]), &[]).await;
    let faults = ["--fault", "reject=*", "--fault", "slow:1s=*"];
    let bad = world.enrol("bad", &fleet(1, 1, &["north"]), &faults).await;
    let rest = world.enrol("rest", &fleet(2, 0, &["north"]), &[]).await;
    let before = world.certificates().await;
    // The old certificates are good for a month.
    world.rotate(
        "run",
        &strategy(&json!({
            "defaults": { "onBreach": "Rollback" },
            "oldCertificate": { "rollbackMinRemaining": "60d" },
            "waves": [
                { "name": "canary", "count": 3, "selector": { "matchLabels": { "ring": "canary" } } },
                { "name": "rest", "percent": 100 },
            ],
        })),
    );

    let status = world.phase("run", RotationPhase::RolledBack).await;
    let mut named: Vec<_> = status
        .not_rolled_back
        .iter()
        .map(|example| example.device_id.clone())
        .collect();
    named.sort();
    assert_eq!(named, good, "{status:#?}");
    let canary = &status.waves[0];
    assert_eq!(
        (canary.confirmed, canary.rejected, canary.rolled_back),
        (2, 1, 0),
        "they work: {canary:#?}"
    );
    world.wait_renewed(&good, &before).await;
    world.sound(MAX_IN_FLIGHT, MAX_IN_FLIGHT).await;
    for id in &good {
        assert_eq!(world.history().kinds(id), ["enrol", "rotate"], "{id}");
    }
    for id in bad.iter().chain(&rest) {
        assert_eq!(world.current_of(id).await.as_ref(), before.get(id), "{id}");
    }

    // A person finds that the one that refused may stay behind.
    world.control_as("alice", "run", &json!({ "resume": "one-in-repair" }));
    let status = world.phase("run", RotationPhase::Complete).await;
    assert_eq!((status.counts.confirmed, status.counts.rejected), (4, 1), "{status:#?}");
    world.sound(MAX_IN_FLIGHT, MAX_IN_FLIGHT).await;
}

//! Devices vanish after they accepted: whatever the broker says of them, that is not "offline".

use certwave_crds::{BreachCause, RotationPhase, WavePhase};
use serde_json::json;

use super::world::{MAX_IN_FLIGHT, Staged, condition, fleet, strategy};

#[tokio::test]
async fn devices_that_vanish_after_they_accepted_breach_and_do_not_look_offline() {
    // Of four canaries one never comes back from its job. It even says goodbye to the broker, as one that goes offline does.
    let mut world = Staged::new("vanish").await;
    let mut ids = world.enrol("m", &fleet(8, 3, &["north", "south"]), &[]).await;
    let gone = world
        .enrol("gone", &fleet(1, 1, &["south"]), &["--fault", "vanish:accepted=*"])
        .await;
    let before = world.certificates().await;
    world.rotate(
        "run",
        &strategy(&json!({
            "waves": [
                { "name": "canary", "count": 4, "selector": { "matchLabels": { "ring": "canary" } }, "soak": "1s" },
                { "name": "rest", "percent": 100 },
            ],
            "device": { "retries": { "max": 1 } },
        })),
    );

    let status = world.phase("run", RotationPhase::Breached).await;
    let breach = status.breach.as_ref().unwrap();
    assert_eq!((breach.wave.as_str(), breach.cause), ("canary", BreachCause::Lost));
    assert_eq!(breach.message, "1 devices vanished after they accepted where 0 may");
    let canary = &status.waves[0];
    assert_eq!(
        (canary.phase, canary.offline, canary.confirmed),
        (WavePhase::Breached, 0, 3)
    );
    assert_eq!(canary.timed_out + canary.lost, 1);
    assert_eq!(status.examples[0].device_id, gone[0]);
    assert!(world.event("run", "LimitExceeded").await.contains("vanished"));
    let status = world
        .until("run", "it to be given up", |status| status.waves[0].lost == 1)
        .await;
    assert_eq!(status.phase, Some(RotationPhase::Breached));
    assert_eq!(status.waves[1].waiting, 5, "nobody else was touched");
    assert_eq!(world.history().outcomes("run", "Confirmed"), 3);

    // Somebody fetches it from the field; that does not answer the breach. A person does, and writes it off.
    world.switch_on("gone", &gone, &[]);
    ids.extend(gone.clone());
    world.sound(MAX_IN_FLIGHT, MAX_IN_FLIGHT).await;
    assert_eq!(world.status("run").await.phase, Some(RotationPhase::Breached));
    world.control_as("alice", "run", &json!({ "resume": "found-it" }));
    let status = world.phase("run", RotationPhase::Complete).await;
    assert_eq!(condition(&status, "Complete").reason, "CompleteWithFailures");
    assert_eq!(condition(&status, "Breached").status, "False");
    assert_eq!((status.counts.confirmed, status.counts.lost), (8, 1));
    world.wait_renewed(&ids[..8], &before).await;
    assert_eq!(world.current_of(&gone[0]).await.as_ref(), before.get(&gone[0]));
    world.sound(MAX_IN_FLIGHT, MAX_IN_FLIGHT).await;
}

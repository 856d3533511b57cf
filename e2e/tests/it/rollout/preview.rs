//! A preview says what would happen, and does nothing.

use certwave_crds::{RotationMode, RotationPhase, WavePhase};
use serde_json::{Value, json};

use super::world::{MAX_IN_FLIGHT, Staged, condition, fleet, strategy};

#[tokio::test]
async fn a_preview_changes_nothing_and_the_run_keeps_to_it() {
    let mut world = Staged::new("preview").await;
    let ids = world.enrol("m", &fleet(10, 2, &["north", "south"]), &[]).await;
    let before = world.certificates().await;
    let spec = |mode: &str| -> Value {
        let canaries = json!({ "matchLabels": { "ring": "canary" } });
        strategy(&json!({
            "mode": mode,
            "waves": [
                { "name": "canary", "count": 2, "selector": canaries, "soak": "1s", "approval": true },
                { "name": "early", "percent": 45, "maxFailedPercent": 34 },
                { "name": "rest", "percent": 100 },
            ],
            "windows": [{ "cron": "0 0 * * *", "duration": "23h59m", "timeZone": "Europe/Berlin", "selector": {} }],
            // Whatever the time of day is, the run need not wait for midnight.
            "windowOverrideBeforeExpiry": "40d",
        }))
    };
    let rows = world.history().rows();
    world.rotate("look", &spec("Preview"));
    let status = world.phase("look", RotationPhase::Previewed).await;
    assert_eq!(world.history().rows(), rows, "the ledger is as it was");
    assert_eq!(world.certificates().await, before);

    // Half of ten, rounded up, less the two canaries.
    let sizes: Vec<_> = status
        .waves
        .iter()
        .map(|wave| (wave.name.as_str(), wave.planned, wave.max_failed))
        .collect();
    assert_eq!(sizes, [("canary", 2, 0), ("early", 3, 1), ("rest", 5, 0)]);
    assert!(
        status
            .waves
            .iter()
            .all(|wave| wave.phase == WavePhase::Pending && wave.confirmed == 0)
    );
    let plan = status.plan.clone().unwrap();
    assert_eq!((plan.missed, plan.without_window), (0, 0));
    assert!(!plan.windows.is_empty() && plan.eta.is_some(), "{plan:#?}");
    assert_eq!(condition(&status, "Complete").reason, "Preview");
    assert_eq!(condition(&status, "Planned").status, "True");

    // The run has the same plan, so what was seen is what is approved.
    world.rotate("run", &spec("Run"));
    let status = world.phase("run", RotationPhase::WaitingForApproval).await;
    assert_eq!(status.plan.unwrap().hash, plan.hash);
    let waves: Vec<_> = status.waves.iter().map(|wave| wave.planned).collect();
    assert_eq!(waves, [2, 3, 5]);
    world.control_as(
        "alice",
        "run",
        &json!({ "approval": { "throughWave": 1, "planHash": plan.hash } }),
    );
    let status = world.phase("run", RotationPhase::Complete).await;
    assert_eq!(status.counts.confirmed, 10, "{status:#?}");
    world.wait_renewed(&ids, &before).await;

    // A preview that is over stays as it was.
    let look = world.stack.rotation("look").await.unwrap();
    assert_eq!(
        (look.spec.mode, look.status.unwrap().phase),
        (RotationMode::Preview, Some(RotationPhase::Previewed))
    );
    world.sound(MAX_IN_FLIGHT, MAX_IN_FLIGHT).await;
}

//! Three waves, one after the other.

use certwave_crds::{RotationPhase, WavePhase};

use super::world::{Staged, condition, fleet, strategy};
use serde_json::json;

/// Soak of the first two waves, milliseconds.
const SOAK: i64 = 3_000;

#[tokio::test]
async fn three_waves_run_one_after_the_other_within_all_limits() {
    // Twelve meters at three sites; two may be in flight at once, and one of each site.
    let mut world = Staged::new("waves").await;
    let ids = world.enrol("m", &fleet(12, 2, &["north", "south", "west"]), &[]).await;
    let before = world.certificates().await;
    world.rotate(
        "run",
        &strategy(&json!({
            "limits": { "maxInFlight": 2, "perGroup": { "by": "site", "maxUnavailable": 1 } },
            "waves": [
                { "name": "canary", "count": 2, "selector": { "matchLabels": { "ring": "canary" } }, "soak": "3s" },
                { "name": "early", "percent": 50, "soak": "3s" },
                { "name": "rest", "percent": 100 },
            ],
        })),
    );

    // Whoever waits for it with kubectl is let go when it is complete.
    let waited = world.kubectl(&["wait", "--for=condition=Complete", "rotation/run", "--timeout=60s"]);
    assert!(waited.contains("condition met"), "{waited}");
    let status = world.phase("run", RotationPhase::Complete).await;
    assert_eq!(condition(&status, "Complete").reason, "AllConfirmed");

    // Percent is cumulative: half of twelve are six, and two of them were canaries.
    let sizes: Vec<_> = status
        .waves
        .iter()
        .map(|w| (w.name.as_str(), w.planned, w.confirmed))
        .collect();
    assert_eq!(sizes, [("canary", 2, 2), ("early", 4, 4), ("rest", 6, 6)]);
    assert!(
        status.waves.iter().all(|w| w.phase == WavePhase::Done),
        "{:#?}",
        status.waves
    );
    let counts = status.counts;
    assert_eq!(
        (counts.planned, counts.confirmed, counts.waiting, counts.in_flight),
        (12, 12, 0, 0)
    );
    assert_eq!(status.progress.as_deref(), Some("3/3 rest"));

    // What kubectl prints reads like a rollout.
    let table = world.kubectl(&["get", "rotation", "run"]);
    let (head, row) = table.trim().split_once('\n').unwrap();
    let head: Vec<_> = head.split_whitespace().collect();
    let (columns, row): (_, Vec<_>) = (&head[1..head.len() - 1], row.split_whitespace().collect());
    let expected = [
        "FLEET",
        "REASON",
        "PHASE",
        "WAVE",
        "PLANNED",
        "IN-FLIGHT",
        "CONFIRMED",
        "FAILED",
        "LOST",
    ];
    assert_eq!(columns, expected);
    assert_eq!(
        row[1..=10],
        ["meters", "Manual", "Complete", "3/3", "rest", "12", "0", "12", "0", "0"],
        "{table}"
    );

    // In the ledger: the canaries were those of the ring, and no wave began before the one before had soaked.
    let history = world.history();
    let mut canaries = history.wave("run", 0);
    canaries.sort();
    assert_eq!(canaries, ids[..2]);
    let spans: Vec<_> = history.spans("run").into_iter().map(Option::unwrap).collect();
    for pair in spans.windows(2) {
        assert!(pair[1].first_sent >= pair[0].last_confirmed + SOAK, "{spans:?}");
    }
    let deeds: Vec<_> = history.deeds().into_iter().map(|deed| deed.what).collect();
    assert_eq!(deeds, ["wave-began", "wave-began", "rotation-complete"]);
    for reason in ["Running", "Soaking", "WaveBegan", "Complete"] {
        world.event("run", reason).await;
    }
    world.wait_renewed(&ids, &before).await;
    world.sound(2, 1).await;
}

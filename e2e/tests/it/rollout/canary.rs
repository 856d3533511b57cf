//! A canary wave fails: it goes back, nobody else is touched, and a person resumes.

use certwave_crds::{BreachCause, RotationPhase, WavePhase};
use serde_json::json;

use super::world::{MAX_IN_FLIGHT, Staged, condition, fleet, strategy};

#[tokio::test]
async fn a_breach_in_the_canary_wave_rolls_it_back_and_a_resumed_run_completes() {
    // Five canaries, of which two cannot connect with a new certificate; six more devices.
    let mut world = Staged::new("canary").await;
    let good = world.enrol("good", &fleet(3, 3, &["north", "south"]), &[]).await;
    let faults = ["--fault", "fail-test=*", "--fault", "slow:1s=*"];
    let bad = world.enrol("bad", &fleet(2, 2, &["north", "south"]), &faults).await;
    let rest = world.enrol("rest", &fleet(6, 0, &["north", "south"]), &[]).await;
    let before = world.certificates().await;
    world.rotate(
        "run",
        &strategy(&json!({
            "defaults": { "onBreach": "Rollback" },
            "limits": { "maxInFlight": 5, "perGroup": { "by": "site", "maxUnavailable": 2 } },
            "waves": [
                { "name": "canary", "count": 5, "selector": { "matchLabels": { "ring": "canary" } }, "maxFailed": 1, "soak": "1s" },
                { "name": "rest", "percent": 100 },
            ],
        })),
    );

    // Two failed where one may: the three that are well go back too.
    let status = world.phase("run", RotationPhase::RolledBack).await;
    let canary = &status.waves[0];
    assert_eq!((canary.phase, canary.max_failed), (WavePhase::RolledBack, 1));
    assert_eq!(
        (canary.planned, canary.confirmed, canary.rolled_back),
        (5, 0, 5),
        "{canary:#?}"
    );
    assert_eq!(
        (status.waves[1].phase, status.waves[1].waiting),
        (WavePhase::Pending, 6)
    );
    let breach = status.breach.as_ref().unwrap();
    assert_eq!((breach.wave.as_str(), breach.cause), ("canary", BreachCause::Failed));
    assert_eq!(breach.message, "2 devices failed where 1 may");
    let mut examples: Vec<_> = status
        .examples
        .iter()
        .map(|e| (e.device_id.clone(), e.code.as_str()))
        .collect();
    examples.sort();
    assert_eq!(
        examples,
        [(bad[0].clone(), "test-failed"), (bad[1].clone(), "test-failed")]
    );
    assert!(status.not_rolled_back.is_empty());
    assert_eq!(condition(&status, "Breached").status, "True");
    assert_eq!(condition(&status, "Complete").status, "False");

    // The proof: each canary had a new certificate, has its old one again, and is connected with it.
    for id in &good {
        assert_eq!(world.history().kinds(id), ["enrol", "rotate", "rollback"], "{id}");
    }
    assert_eq!(world.history().outcomes("run", "Reverted"), 3);
    world.sound(5, 2).await;
    assert_eq!(world.certificates().await, before);
    for id in &rest {
        assert_eq!(world.history().kinds(id), ["enrol"], "{id} was not to be touched");
    }
    assert!(world.history().blocked_template().is_some());
    for reason in ["LimitExceeded", "RollingBack", "WaveRolledBack", "RolledBack"] {
        world.event("run", reason).await;
    }

    // The devices are mended, and a person goes on: the same wave first, its failures written off.
    world.cut_power("bad");
    world.switch_on("bad", &bad, &[]);
    world.control_as("alice", "run", &json!({ "resume": "firmware-1.2.1" }));
    let status = world.phase("run", RotationPhase::Complete).await;
    assert_eq!(condition(&status, "Complete").reason, "CompleteWithFailures");
    let waves: Vec<_> = status.waves.iter().map(|w| (w.confirmed, w.rolled_back)).collect();
    assert_eq!(waves, [(3, 2), (6, 0)]);
    assert!(status.breach.is_none());
    let renewed: Vec<_> = good.iter().chain(&rest).cloned().collect();
    world.wait_renewed(&renewed, &before).await;
    let history = world.history();
    assert!(history.blocked_template().is_none(), "a person has answered for it");
    let spans: Vec<_> = history.spans("run").into_iter().map(Option::unwrap).collect();
    assert!(
        spans[1].first_sent > spans[0].last_confirmed,
        "the canaries come before all others: {spans:?}"
    );
    let deeds: Vec<_> = history.deeds().into_iter().map(|deed| (deed.what, deed.who)).collect();
    let deeds: Vec<_> = deeds.iter().map(|(what, who)| (what.as_str(), who.as_str())).collect();
    let by_itself = |what| (what, "controller");
    let expected = [
        by_itself("rotation-breached"),
        by_itself("wave-rolled-back"),
        ("rotation-resumed", "alice"),
        by_itself("wave-began"),
        by_itself("rotation-complete"),
    ];
    assert_eq!(deeds, expected);

    // The two that failed are as good as the others by now; the next Rotation takes them along.
    world.rotate(
        "next",
        &strategy(&json!({ "waves": [{ "name": "all", "percent": 100 }] })),
    );
    let status = world.phase("next", RotationPhase::Complete).await;
    assert_eq!(status.counts.confirmed, 11);
    world.wait_renewed(&bad, &before).await;
    world.sound(5.max(MAX_IN_FLIGHT), 5).await;
}

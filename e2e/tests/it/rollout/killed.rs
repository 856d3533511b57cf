//! The controller dies in each phase of a run. The next one goes on where it was: nobody is asked twice, no limit is forgotten.

use std::time::Duration;

use certwave_crds::RotationPhase;
use serde_json::json;

use super::world::{MAX_IN_FLIGHT, Staged, fleet, strategy};

/// Longer than the controller takes to look at everything once.
const WHILE: Duration = Duration::from_secs(4);

#[tokio::test]
async fn killed_while_devices_rotate_soak_and_wait_for_approval_the_controller_goes_on_where_it_was() {
    let mut world = Staged::new("killed").await;
    let ids = world
        .enrol("m", &fleet(8, 3, &["north", "south"]), &["--fault", "slow:1s=m-1,m-5"])
        .await;
    let before = world.certificates().await;
    let canaries = json!({ "matchLabels": { "ring": "canary" } });
    world.rotate(
        "run",
        &strategy(&json!({
            "waves": [
                { "name": "canary", "count": 3, "selector": canaries, "soak": "3s", "approval": true },
                { "name": "rest", "percent": 100 },
            ],
        })),
    );

    world
        .when("a canary in flight", |history| history.reached("accepted") > 0)
        .await;
    world.kill_controller().await;
    world.phase("run", RotationPhase::Soaking).await;
    world.kill_controller().await;
    let status = world.phase("run", RotationPhase::WaitingForApproval).await;
    assert_eq!(status.waves[0].confirmed, 3);
    world.kill_controller().await;
    // Nobody has approved anything.
    world.lasts(WHILE).await;
    assert_eq!(world.status("run").await.phase, Some(RotationPhase::WaitingForApproval));
    assert_eq!(world.history().sent("run"), 3);

    world.control_as("alice", "run", &json!({ "approval": { "throughWave": 1 } }));
    world
        .when("another device in flight", |history| history.sent("run") > 4)
        .await;
    world.kill_controller().await;
    let status = world.phase("run", RotationPhase::Complete).await;
    assert_eq!((status.counts.confirmed, status.counts.planned), (8, 8));

    world.wait_renewed(&ids, &before).await;
    let history = world.history();
    assert_eq!(history.went_wrong(), 0);
    for id in &ids {
        assert_eq!(history.kinds(id), ["enrol", "rotate"], "{id}");
    }
    let deeds: Vec<_> = history.deeds().into_iter().map(|deed| deed.what).collect();
    assert_eq!(deeds, ["wave-approved", "wave-began", "rotation-complete"]);
    world.sound(MAX_IN_FLIGHT, MAX_IN_FLIGHT).await;
}

#[tokio::test]
async fn killed_after_a_breach_and_while_devices_go_back_the_controller_sends_each_back_once() {
    let mut world = Staged::new("killed-back").await;
    let options = ["--fault", "reject=m-1", "--fault", "slow:1s=m-2,m-3,m-4"];
    let ids = world.enrol("m", &fleet(7, 4, &["north"]), &options).await;
    let before = world.certificates().await;
    let canaries = json!({ "matchLabels": { "ring": "canary" } });
    world.rotate(
        "run",
        &strategy(&json!({
            "waves": [
                { "name": "canary", "count": 4, "selector": canaries, "onBreach": "Rollback" },
                { "name": "rest", "percent": 100 },
            ],
        })),
    );

    world
        .when("a device on its way back", |history| history.going_back("run") > 0)
        .await;
    world.kill_controller().await;
    let status = world.phase("run", RotationPhase::RolledBack).await;
    assert_eq!(status.waves[0].rolled_back, 3, "{status:#?}");
    world.wait_shown(&before).await;
    let sent = world.history().sent("run");
    world.kill_controller().await;
    world.lasts(WHILE).await;
    assert_eq!(world.status("run").await.phase, Some(RotationPhase::RolledBack));
    assert_eq!(world.history().sent("run"), sent, "nothing is sent after a breach");

    // Repaired, and gone on with: the whole canary proves itself again.
    world.switch_off("m");
    world.switch_on("m", &ids, &[]);
    world.control_as("alice", "run", &json!({ "retryFailed": "ticket-1" }));
    let status = world.phase("run", RotationPhase::Complete).await;
    assert_eq!(status.counts.confirmed, 7, "{status:#?}");
    world.wait_renewed(&ids, &before).await;
    let history = world.history();
    for id in &ids[1..4] {
        assert_eq!(history.kinds(id), ["enrol", "rotate", "rollback", "rotate"], "{id}");
    }
    for id in &ids[4..] {
        assert_eq!(history.kinds(id), ["enrol", "rotate"], "{id}");
    }
    world.sound(MAX_IN_FLIGHT, MAX_IN_FLIGHT).await;
}

#[tokio::test]
async fn killed_after_a_breach_the_controller_waits_for_a_person_and_has_not_forgotten_the_rate() {
    let mut world = Staged::new("killed-breach").await;
    let ids = world
        .enrol("m", &fleet(6, 2, &["north"]), &["--fault", "reject=m-1"])
        .await;
    let canaries = json!({ "matchLabels": { "ring": "canary" } });
    world.rotate(
        "run",
        &strategy(&json!({
            "waves": [
                { "name": "canary", "count": 2, "selector": canaries },
                { "name": "rest", "percent": 100 },
            ],
            "limits": { "maxPerMinute": 4 },
        })),
    );
    let breach = world.phase("run", RotationPhase::Breached).await.breach.unwrap();
    world
        .when("the other canary's end", |history| history.flying("run") == 0)
        .await;
    world.kill_controller().await;
    world.lasts(WHILE).await;
    let status = world.status("run").await;
    assert_eq!(
        (status.phase, status.breach),
        (Some(RotationPhase::Breached), Some(breach))
    );
    assert_eq!(world.history().sent("run"), 2);

    // Two jobs of this minute's four are left, whichever controller sent the others.
    world.control_as("alice", "run", &json!({ "resume": "ticket-1" }));
    world
        .when("the minute's last job", |history| history.sent("run") == 4)
        .await;
    world.kill_controller().await;
    world.lasts(WHILE).await;
    assert_eq!(world.history().sent("run"), 4);
    assert_eq!(world.status("run").await.phase, Some(RotationPhase::Running));
    world.control_as("alice", "run", &json!({ "state": "Aborted" }));
    let status = world.phase("run", RotationPhase::Aborted).await;
    assert_eq!((status.counts.confirmed, status.counts.rejected), (3, 1), "{status:#?}");
    assert_eq!(
        world.history().kinds(&ids[0]),
        ["enrol", "rotate"],
        "written off, not tried again"
    );
    world.sound(MAX_IN_FLIGHT, MAX_IN_FLIGHT).await;
}

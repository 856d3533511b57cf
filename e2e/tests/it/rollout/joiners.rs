//! Devices that come to the fleet while it is rotated.

use anyhow::Context as _;
use certwave_crds::RotationPhase;
use certwave_e2e::stack::objects;
use certwave_e2e::wait_for;
use serde_json::json;

use super::world::{MAX_IN_FLIGHT, Staged, condition, fleet, strategy};
use crate::faults::authority::create;
use crate::faults::world::SOON;

#[tokio::test]
async fn newcomers_are_added_to_the_last_wave_within_its_limits_or_left_alone() {
    let mut world = Staged::new("joiners").await;
    let ids = world.enrol("m", &fleet(4, 2, &["north", "south"]), &[]).await;
    let line = create(
        &world,
        "line",
        &json!({ "subordinate": { "issuerRef": { "name": objects::CA } } }),
    )
    .await;
    let canaries = json!({ "matchLabels": { "ring": "canary" } });
    let spec = |joiners: &str| {
        strategy(&json!({
            "reason": "CAChange", "issuerRef": { "name": "line" }, "joiners": joiners,
            "waves": [
                { "name": "canary", "count": 2, "selector": canaries, "approval": true },
                { "name": "rest", "percent": 100 },
            ],
            "limits": { "maxInFlight": 2 },
        }))
    };
    world.rotate("run", &spec("LastWave"));
    let status = world.phase("run", RotationPhase::WaitingForApproval).await;
    let seen = status.plan.unwrap().hash.unwrap();
    assert_eq!(status.waves[1].planned, 2);

    // Four more enrol meanwhile, by the CA of before. Canaries or not, they come last.
    let new = world.enrol("new", &fleet(4, 4, &["north", "south"]), &[]).await;
    let status = world
        .until("run", "the newcomers", |status| status.waves[1].planned == 6)
        .await;
    assert_eq!(status.waves[0].planned, 2);
    assert_eq!(world.history().wave("run", 1)[2..].len(), 4);

    // The plan is another one now: what was seen before is not what would be approved.
    world.control_as(
        "alice",
        "run",
        &json!({ "approval": { "throughWave": 1, "planHash": seen } }),
    );
    let status = world
        .until("run", "the approval to be refused", |status| {
            status.conditions.iter().any(|found| found.reason == "ApprovalRefused")
        })
        .await;
    assert_eq!(status.phase, Some(RotationPhase::WaitingForApproval));
    let now = status.plan.unwrap().hash.unwrap();
    assert!(
        condition(&world.status("run").await, "Approved")
            .message
            .contains("look at it again")
    );
    assert_eq!(world.history().sent("run"), 2);
    world.control_as(
        "alice",
        "run",
        &json!({ "approval": { "throughWave": 1, "planHash": now } }),
    );
    let status = world.phase("run", RotationPhase::Complete).await;
    assert_eq!((status.counts.planned, status.counts.confirmed), (8, 8), "{status:#?}");
    let key = line.status.unwrap().key_id;
    let moved = wait_for("every device to show the new CA", SOON, || async {
        for device in world.stack.devices().await? {
            let current = device
                .status
                .context("no status")?
                .certificates
                .current
                .context("no certificate")?;
            anyhow::ensure!(current.issuer == key, "{} shows another CA", device.spec.device_id);
        }
        Ok(())
    });
    world.told(moved.await);
    for id in ids.iter().chain(&new) {
        assert_eq!(world.history().kinds(id), ["enrol", "rotate"], "{id}");
    }
    world.sound(2, 2).await;

    // Where newcomers are to be left alone, they are.
    let more = world.enrol("more", &fleet(3, 2, &["north", "south"]), &[]).await;
    world.rotate("alone", &spec("Ignore"));
    world.phase("alone", RotationPhase::WaitingForApproval).await;
    let last = world.enrol("last", &fleet(2, 0, &["north"]), &[]).await;
    let before = world.certificates().await;
    world.control_as("alice", "alone", &json!({ "approval": { "throughWave": 1 } }));
    let status = world.phase("alone", RotationPhase::Complete).await;
    assert_eq!((status.counts.planned, status.counts.confirmed), (3, 3), "{status:#?}");
    world.wait_renewed(&more[2..], &before).await;
    for id in &last {
        assert_eq!(world.current_of(id).await.as_ref(), before.get(id), "{id}");
    }
    world.sound(MAX_IN_FLIGHT, MAX_IN_FLIGHT).await;
}

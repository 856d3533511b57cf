//! All is well: the old certificates end as superseded, and nobody is away.

use certwave_crds::RotationPhase;
use serde_json::json;

use super::world::{Retiring, revoking};
use crate::rollout::world::{MAX_IN_FLIGHT, condition, fleet};

#[tokio::test]
async fn old_certificates_are_revoked_as_superseded_once_their_devices_have_come_back_by_the_new_ones() {
    let mut world = Retiring::new("superseded").await;
    let ids = world.enrol("m", &fleet(4, 1, &["north"]), &[]).await;
    let first = world.certificates().await;
    world.rotate("run", &revoking(&json!({}), &json!({})));
    let status = world.phase("run", RotationPhase::Complete).await;
    assert_eq!(condition(&status, "Complete").reason, "AllConfirmed");
    assert!(status.retirements.is_some(), "{status:#?}");

    // The Rotation is complete, and its retirements go on being counted.
    let status = world
        .until("run", "the old certificates' end", |status| {
            status.retirements.is_some_and(|counts| counts.revoked == 4)
        })
        .await;
    assert_eq!(status.retirements.unwrap().released, 0);
    for id in &ids {
        let old = world.history().old(id);
        assert_eq!(Some(&old.sha256), first.get(id), "{id}");
        world.wait_said(&old, Some("Superseded")).await;
        assert!(
            !world.lets_in(id, &old.sha256).await,
            "{id} gets in by a revoked certificate"
        );
    }
    world.wait_renewed(&ids, &first).await;
    world.sound(MAX_IN_FLIGHT, MAX_IN_FLIGHT).await;

    // What was revoked is no place to go back to; the next rotation retires what this one brought.
    let second = world.certificates().await;
    world.rotate("again", &revoking(&json!({}), &json!({})));
    world
        .until("again", "the second certificates' end", |status| {
            status.retirements.is_some_and(|counts| counts.revoked == 4)
        })
        .await;
    for id in &ids {
        assert_eq!(Some(&world.history().old(id).sha256), second.get(id), "{id}");
    }
    world.wait_renewed(&ids, &second).await;
    world.sound(MAX_IN_FLIGHT, MAX_IN_FLIGHT).await;
}

#[tokio::test]
async fn while_grace_lasts_devices_can_be_sent_back_and_the_new_certificates_are_retired_then() {
    let mut world = Retiring::new("grace").await;
    let ids = world
        .enrol("m", &fleet(3, 3, &["north"]), &["--fault", "reject=m-3"])
        .await;
    let first = world.certificates().await;
    let waves = json!([{ "name": "all", "percent": 100, "onBreach": "Rollback" }]);
    world.rotate("run", &revoking(&json!({ "waves": waves }), &json!({ "grace": "1h" })));
    world.phase("run", RotationPhase::RolledBack).await;
    world.wait_shown(&first).await;
    let back = &ids[..2];
    world
        .when("the new certificates' end", |history| {
            let stages = history.stages();
            back.iter()
                .all(|id| stages.get(id).is_some_and(|stage| stage.phase == "Revoked"))
        })
        .await;
    for id in back {
        let gone = world.history().old(id);
        assert_ne!(Some(&gone.sha256), first.get(id), "{id}: not what it went back to");
        world.wait_said(&gone, Some("Superseded")).await;
    }
    world.sound(MAX_IN_FLIGHT, MAX_IN_FLIGHT).await;
}

//! What is due is rotated without anybody asking, by the Fleet's strategy; after a breach not again until a person has acted.

use std::time::Duration;

use certwave_crds::{Fleet, Rotation, RotationPhase, RotationReason};
use certwave_e2e::stack::objects;
use certwave_e2e::wait_for;
use kube::ResourceExt as _;
use kube::api::ListParams;
use serde_json::json;

use super::world::{MAX_IN_FLIGHT, Staged, condition, fleet, strategy};
use crate::faults::world::{ENDS, patch};

/// The Rotations that nobody made by hand, the oldest first.
async fn made(world: &Staged) -> Vec<Rotation> {
    let labelled = ListParams::default().labels("certwave.dev/automatic=true");
    let mut found = world.stack.objects::<Rotation>().list(&labelled).await.unwrap().items;
    found.sort_by_key(|rotation| rotation.metadata.creation_timestamp.as_ref().map(|time| time.0));
    found
}

/// Waits for one that is not among `known`, and returns its name.
async fn another(world: &Staged, known: &[String]) -> String {
    let found = wait_for("an automatic Rotation", ENDS, || async {
        let names = made(world).await.into_iter().map(|rotation| rotation.name_any());
        let mut new = names.filter(|name| !known.contains(name));
        new.next().ok_or_else(|| anyhow::anyhow!("none but {known:?}"))
    });
    world.told(found.await)
}

#[tokio::test]
async fn what_is_due_rotates_by_itself_and_after_a_breach_not_before_a_person_has_acted() {
    let mut world = Staged::new("automatic").await;
    let canaries = json!({ "matchLabels": { "ring": "canary" } });
    let mut rotation = strategy(&json!({
        "waves": [
            { "name": "canary", "count": 2, "selector": canaries, "soak": "1s", "onBreach": "Abort" },
            { "name": "rest", "percent": 100 },
        ],
    }));
    rotation["historyLimit"] = json!(1);
    let change = json!({ "spec": {
        "certificate": { "validity": "1h", "renewBefore": "59m52s" }, "rotation": rotation,
    } });
    patch::<Fleet>(&world.stack, objects::FLEET, &change).await;
    let ids = world.enrol("m", &fleet(6, 2, &["north", "south"]), &[]).await;

    // One is made, goes by the Fleet's waves and belongs to the Fleet.
    let first = another(&world, &[]).await;
    let status = world.phase(&first, RotationPhase::Complete).await;
    let names: Vec<_> = status.waves.iter().map(|wave| wave.name.as_str()).collect();
    assert_eq!(names, ["canary", "rest"], "{status:#?}");
    assert!(status.counts.confirmed > 0 && status.waves[0].planned <= 2);
    let object = world.stack.rotation(&first).await.unwrap();
    assert_eq!(object.spec.reason, RotationReason::Expiry);
    assert_eq!(object.owner_references()[0].name, objects::FLEET);

    // A canary refuses: the run ends, and the one before it is removed from the history.
    world.switch_off("m");
    world.switch_on("m", &ids, &["--fault", "reject=m-1,m-2"]);
    let mut known = vec![first.clone()];
    let failed = loop {
        let next = another(&world, &known).await;
        let status = world.ended(&next).await;
        if status.phase == Some(RotationPhase::Failed) {
            assert_eq!(condition(&status, "Failed").status, "True");
            break next;
        }
        // It had begun before they refused.
        known.push(next);
    };
    let alone = wait_for("the history to be short", ENDS, || async {
        let left: Vec<_> = made(&world).await.iter().map(kube::ResourceExt::name_any).collect();
        anyhow::ensure!(left == [failed.clone()], "{left:?}");
        Ok(())
    });
    world.told(alone.await);

    // Nothing is made again by the same template, though devices are due; and the Fleet says so.
    world.lasts(Duration::from_secs(10)).await;
    assert_eq!(made(&world).await.len(), 1);
    assert!(world.history().blocked_template().is_some());
    let shown = wait_for("the Fleet's condition", ENDS, || async {
        let fleet: Fleet = world.stack.objects().get(objects::FLEET).await?;
        let conditions = fleet.status.map(|status| status.conditions).unwrap_or_default();
        let found = conditions.into_iter().find(|found| found.type_ == "AutomaticRotation");
        let blocked = found.is_some_and(|found| found.status == "False" && found.message.contains(&failed));
        anyhow::ensure!(blocked, "not blocked");
        Ok(())
    });
    world.told(shown.await);

    // A person has the devices repaired, and shows by a run of their own that it works. From then on it goes by itself again.
    world.switch_off("m");
    world.switch_on("m", &ids, &[]);
    world.rotate("by-hand", &strategy(&json!({})));
    let status = world.phase("by-hand", RotationPhase::Complete).await;
    assert_eq!(status.counts.confirmed, 6, "{status:#?}");
    assert_eq!(world.history().blocked_template(), None);
    let next = another(&world, &[failed]).await;
    let status = world.ended(&next).await;
    assert_eq!(status.phase, Some(RotationPhase::Complete), "{status:#?}");
    // Long enough for what comes by itself from now on not to come between.
    let later = json!({ "spec": { "certificate": { "renewBefore": "1m" } } });
    patch::<Fleet>(&world.stack, objects::FLEET, &later).await;
    world.sound(MAX_IN_FLIGHT, MAX_IN_FLIGHT).await;
}

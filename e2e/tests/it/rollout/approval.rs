//! Waves that a person must approve.

use certwave_crds::RotationPhase;
use serde_json::json;

use super::world::{MAX_IN_FLIGHT, Staged, condition, fleet, strategy};

#[tokio::test]
async fn a_wave_waits_for_the_approval_of_the_plan_that_was_seen() {
    let mut world = Staged::new("approval").await;
    let mut ids = world.enrol("m", &fleet(5, 0, &["north"]), &[]).await;
    let plan = strategy(&json!({ "waves": [
        { "name": "canary", "count": 1 },
        { "name": "early", "count": 2, "approval": true },
        { "name": "rest", "percent": 100 },
    ] }));

    // A person looks at what would happen; then one more device comes, and the run is another one.
    let mut preview = plan.clone();
    preview["mode"] = json!("Preview");
    world.rotate("look", &preview);
    let seen = world.phase("look", RotationPhase::Previewed).await.plan.unwrap();
    assert_eq!(world.history().steps(), 0, "a preview changes nothing");
    ids.extend(world.enrol("late", &fleet(1, 0, &["north"]), &[]).await);
    let before = world.certificates().await;
    world.rotate("run", &plan);
    let waiting = world.phase("run", RotationPhase::WaitingForApproval).await;
    assert_eq!(waiting.progress.as_deref(), Some("2/3 early"));
    assert_eq!(condition(&waiting, "Approved").reason, "ApprovalNeeded");
    let hash = waiting.plan.as_ref().unwrap().hash.clone().unwrap();
    assert_ne!(seen.hash.as_ref(), Some(&hash));

    // The approval of what was seen before does not count, and says so.
    world.control_as(
        "bob",
        "run",
        &json!({ "approval": { "throughWave": 2, "planHash": seen.hash } }),
    );
    let told = world.until("run", "the approval to be refused", |status| {
        condition(status, "Approved").reason == "ApprovalRefused"
    });
    let told = told.await;
    let refused = condition(&told, "Approved");
    assert_eq!(refused.status, "False");
    assert!(refused.message.contains(&hash[..12]), "{}", refused.message);
    assert_eq!(told.phase, Some(RotationPhase::WaitingForApproval));

    // That of a wave that is past does not either.
    world.control_as(
        "bob",
        "run",
        &json!({ "approval": { "throughWave": 1, "planHash": hash } }),
    );
    let told = world.until("run", "the approval of a past wave to be refused", |status| {
        condition(status, "Approved").message.contains("past")
    });
    assert_eq!(condition(&told.await, "Approved").reason, "ApprovalRefused");
    assert_eq!(
        world.history().outcomes("run", "Confirmed"),
        3,
        "nobody of the last wave has begun"
    );

    // This one counts.
    world.control_as(
        "alice",
        "run",
        &json!({ "approval": { "throughWave": 2, "planHash": hash } }),
    );
    let status = world.phase("run", RotationPhase::Complete).await;
    assert_eq!(status.counts.confirmed, 6);
    let approved: Vec<_> = world
        .history()
        .deeds()
        .into_iter()
        .filter(|deed| deed.what == "wave-approved")
        .collect();
    assert_eq!(approved.len(), 1, "{approved:?}");
    assert_eq!(approved[0].who, "alice");
    assert!(world.event("run", "Approved").await.contains("alice"));
    world.wait_renewed(&ids, &before).await;
    world.sound(MAX_IN_FLIGHT, MAX_IN_FLIGHT).await;
}

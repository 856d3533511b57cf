//! What nobody can carry out is refused in words, and nothing is started; what is mended begins by itself.

use certwave_crds::{DeviceCertificate, Fleet, RotationPhase};
use certwave_e2e::stack::objects;
use kube::api::DeleteParams;
use serde_json::{Value, json};

use super::world::{MAX_IN_FLIGHT, Staged, condition, fleet, strategy};
use crate::faults::world::{World, patch};

fn canary(count: i32, ring: &str) -> Value {
    json!({ "waves": [
        { "name": "canary", "count": count, "selector": { "matchLabels": { "ring": ring } } },
        { "name": "rest", "percent": 100 },
    ] })
}

fn window(cron: &str, duration: &str, zone: &str) -> Value {
    json!({ "windows": [{ "cron": cron, "duration": duration, "timeZone": zone }] })
}

#[tokio::test]
async fn a_strategy_that_cannot_be_carried_out_starts_nothing_and_says_why() {
    let mut world = Staged::new("bad").await;
    let ids = world.enrol("m", &fleet(4, 2, &["north", "south"]), &[]).await;
    let before = world.certificates().await;
    let rows = world.history().rows();
    let cases = [
        (
            "nobody",
            canary(1, "nightly"),
            "InvalidPlan",
            "wave 1 (canary) selects no device",
        ),
        (
            "too-many",
            canary(3, "canary"),
            "InvalidPlan",
            "counts 3 devices; there are 2",
        ),
        (
            "zone",
            window("0 1 * * *", "1h", "Mars/Olympus"),
            "InvalidStrategy",
            "Mars/Olympus",
        ),
        (
            "never",
            window("0 0 30 2 *", "1h", "UTC"),
            "InvalidStrategy",
            "0 0 30 2 *",
        ),
        (
            "too-long",
            window("* * * * *", "2m", "UTC"),
            "InvalidStrategy",
            "windows",
        ),
    ];
    for (name, changes, _, _) in &cases {
        world.rotate(name, &strategy(changes));
    }
    for (name, _, reason, words) in &cases {
        let status = world
            .until(name, "to be refused", |status| {
                status.conditions.iter().any(|found| found.type_ == "Planned")
            })
            .await;
        assert_eq!(status.phase, Some(RotationPhase::Pending), "{name}");
        let planned = condition(&status, "Planned");
        assert_eq!(
            (planned.status.as_str(), planned.reason.as_str()),
            ("False", *reason),
            "{name}"
        );
        assert!(planned.message.contains(words), "{name}: {}", planned.message);
        assert_eq!(condition(&status, "Complete").reason, *reason, "{name}");
    }
    assert_eq!(world.history().rows(), rows, "nothing was begun");

    // A device of that ring is found: the Rotation that waited for one begins, and the others hold it up no longer.
    let label = json!({ "spec": { "labels": { "ring": "nightly" } } });
    patch::<DeviceCertificate>(&world.stack, &ids[3], &label).await;
    let status = world.phase("nobody", RotationPhase::Complete).await;
    assert_eq!(
        (status.waves[0].confirmed, status.waves[1].confirmed),
        (1, 3),
        "{status:#?}"
    );
    assert_eq!(condition(&status, "Planned").status, "True");
    world.wait_renewed(&ids, &before).await;
    world.sound(MAX_IN_FLIGHT, MAX_IN_FLIGHT).await;
}

#[tokio::test]
async fn a_fleet_deleted_in_the_middle_stops_its_rotation_which_goes_on_when_the_fleet_is_back() {
    let mut world = Staged::new("deleted").await;
    let ids = world.enrol("m", &fleet(6, 2, &["north", "south"]), &[]).await;
    let before = world.certificates().await;
    let canaries = json!({ "matchLabels": { "ring": "canary" } });
    world.rotate(
        "run",
        &strategy(&json!({
            "waves": [
                { "name": "canary", "count": 2, "selector": canaries, "approval": true },
                { "name": "rest", "percent": 100 },
            ],
        })),
    );
    world.phase("run", RotationPhase::WaitingForApproval).await;
    let fleets = world.stack.objects::<Fleet>();
    fleets.delete(objects::FLEET, &DeleteParams::default()).await.unwrap();
    let status = world.phase("run", RotationPhase::Paused).await;
    let progressing = condition(&status, "Progressing");
    assert_eq!(
        (progressing.status.as_str(), progressing.reason.as_str()),
        ("False", "FleetNotFound")
    );
    assert_eq!(status.counts.failed + status.counts.lost, 0);

    // Approved, it waits all the same: there is nobody to say what its devices' certificates are to be.
    world.control_as("alice", "run", &json!({ "approval": { "throughWave": 1 } }));
    world.event("run", "Approved").await;
    assert_eq!(world.history().sent("run"), 2);
    World::prepare(&world.stack, 4).await;
    let status = world.phase("run", RotationPhase::Complete).await;
    assert_eq!(status.counts.confirmed, 6, "{status:#?}");
    world.wait_renewed(&ids, &before).await;
    for id in &ids {
        assert_eq!(world.history().kinds(id), ["enrol", "rotate"], "{id}");
    }
    world.sound(MAX_IN_FLIGHT, MAX_IN_FLIGHT).await;
}

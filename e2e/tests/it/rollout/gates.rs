//! Somebody outside says whether all is well: a no is a breach, and silence is nobody's failure.

use certwave_crds::{BreachCause, RotationPhase};
use serde_json::{Value, json};

use super::webhook::Webhook;
use super::world::{MAX_IN_FLIGHT, Staged, condition, fleet, strategy};

fn asking(webhook: &Webhook) -> Value {
    strategy(&json!({
        "waves": [{ "name": "canary", "percent": 30, "soak": "2s" }, { "name": "rest", "percent": 100 }],
        "gates": [{ "webhook": { "url": webhook.url(), "timeout": "2s" }, "every": "1s", "failureLimit": 0, "errorLimit": 1 }],
    }))
}

#[tokio::test]
async fn a_gate_that_says_no_stops_the_run_until_a_person_resumes_it() {
    let webhook = Webhook::up().await;
    let mut world = Staged::new("gate").await;
    let ids = world.enrol("m", &fleet(6, 0, &["north", "south"]), &[]).await;
    let before = world.certificates().await;
    webhook.say(false);
    world.rotate("run", &asking(&webhook));

    let status = world.phase("run", RotationPhase::Breached).await;
    let breach = status.breach.unwrap();
    assert_eq!((breach.wave.as_str(), breach.cause), ("canary", BreachCause::Gate));
    assert!(breach.message.contains("error rate 7 %"), "{}", breach.message);
    assert!(status.waves[1].confirmed == 0 && status.waves[1].in_flight == 0);
    assert_eq!(status.counts.failed + status.counts.lost, 0, "no device is charged");
    let asked = webhook.asked();
    assert!(
        asked[0].starts_with("POST /gate ") && asked[0].contains("\"canary\""),
        "{asked:?}"
    );

    // All is well again: the wave proves itself anew, and its no is forgotten.
    webhook.say(true);
    world.control_as("alice", "run", &json!({ "resume": "fixed" }));
    let status = world.phase("run", RotationPhase::Complete).await;
    assert_eq!(status.counts.confirmed, 6, "{status:#?}");
    world.wait_renewed(&ids, &before).await;
    world.sound(MAX_IN_FLIGHT, MAX_IN_FLIGHT).await;
}

#[tokio::test]
async fn a_gate_that_is_down_is_waited_for_and_no_device_is_charged() {
    let mut webhook = Webhook::down().await;
    let mut world = Staged::new("gate-down").await;
    let ids = world.enrol("m", &fleet(6, 0, &["north", "south"]), &[]).await;
    let before = world.certificates().await;
    world.rotate("run", &asking(&webhook));

    let status = world.phase("run", RotationPhase::Paused).await;
    let progressing = condition(&status, "Progressing");
    assert_eq!(progressing.status, "False");
    assert!(progressing.message.contains("a gate: "), "{}", progressing.message);
    assert_eq!(condition(&status, "Breached").status, "False");
    assert_eq!((status.breach, status.counts.failed + status.counts.lost), (None, 0));
    assert!(status.waves[1].confirmed + status.waves[1].in_flight == 0);

    // It comes, goes and comes again.
    webhook.rise().await;
    world
        .until("run", "the second wave", |status| {
            status.progress.as_deref() == Some("2/2 rest")
        })
        .await;
    webhook.fall();
    world.phase("run", RotationPhase::Paused).await;
    webhook.rise().await;
    let status = world.phase("run", RotationPhase::Complete).await;
    assert_eq!(status.counts.confirmed, 6, "{status:#?}");
    world.wait_renewed(&ids, &before).await;
    assert_eq!(world.history().went_wrong(), 0);
    world.sound(MAX_IN_FLIGHT, MAX_IN_FLIGHT).await;
}

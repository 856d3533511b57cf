//! The CA's key is no longer safe: the fleet moves to another one, whatever windows, soak and other Rotations say.

use certwave_crds::{Fleet, RotationPhase};
use certwave_e2e::stack::objects;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::world::{MAX_IN_FLIGHT, Staged, condition, fleet, strategy};
use crate::faults::authority::create;
use crate::faults::world::patch;

/// Moves everybody to the CA `line` in two waves that would soak for an hour, in a window that is closed for half a day.
fn compromise(mode: &str) -> Value {
    let soon = (Timestamp::now().as_second() / 3600 + 12) % 24;
    let mut spec = strategy(&json!({
        "reason": "CACompromise", "mode": mode, "issuerRef": { "name": "line" },
        "waves": [{ "name": "canary", "percent": 30, "soak": "1h" }, { "name": "rest", "percent": 100 }],
        "windows": [{ "cron": format!("0 {soon} * * *"), "duration": "1h", "timeZone": "UTC" }],
    }));
    // As the Fleet says: to send devices back.
    spec.as_object_mut().unwrap().remove("defaults");
    spec
}

fn named(status: &certwave_crds::RotationStatus) -> Vec<String> {
    let mut named: Vec<_> = status
        .examples
        .iter()
        .map(|example| example.device_id.clone())
        .collect();
    named.sort();
    named
}

#[tokio::test]
async fn an_emergency_goes_before_everything_and_never_back() {
    let mut world = Staged::new("emergency").await;
    let defaults = json!({ "maxFailedPercent": 0, "maxLost": 0, "onBreach": "Rollback" });
    patch::<Fleet>(
        &world.stack,
        objects::FLEET,
        &json!({ "spec": { "rotation": { "defaults": defaults } } }),
    )
    .await;
    let line = create(
        &world,
        "line",
        &json!({ "subordinate": { "issuerRef": { "name": objects::CA } } }),
    )
    .await;
    let good = world.enrol("m", &fleet(5, 1, &["north"]), &[]).await;
    let odd = world
        .enrol("odd", &fleet(1, 0, &["north"]), &["--fault", "reject=*"])
        .await;
    let away = world.enrol("away", &fleet(1, 0, &["north"]), &[]).await;
    world.switch_off("away");
    let before = world.certificates().await;

    // An ordinary run has done its canary, and soaks.
    let canary = json!({ "matchLabels": { "ring": "canary" } });
    world.rotate(
        "ordinary",
        &strategy(&json!({
            "waves": [
                { "name": "canary", "count": 1, "selector": canary, "soak": "6s" },
                { "name": "rest", "percent": 100 },
            ],
        })),
    );
    world.phase("ordinary", RotationPhase::Soaking).await;

    // Before anything is done, a preview names everybody who would be cut off.
    world.rotate("preview", &compromise("Preview"));
    let status = world.phase("preview", RotationPhase::Previewed).await;
    let mut everybody: Vec<_> = good.iter().chain(&odd).chain(&away).cloned().collect();
    everybody.sort();
    assert_eq!(named(&status), everybody);

    world.rotate("emergency", &compromise("Emergency"));
    let status = world
        .until("ordinary", "the ordinary run to step aside", |status| {
            status.phase == Some(RotationPhase::Paused)
        })
        .await;
    let progressing = condition(&status, "Progressing").message.clone();
    assert!(progressing.contains("emergency"), "{progressing}");

    // One device refuses. Nobody is sent back to what is compromised, whatever the Fleet says.
    let status = world.phase("emergency", RotationPhase::Breached).await;
    assert_eq!(status.counts.rejected, 1, "{status:#?}");
    world
        .when("all that is in flight", |history| history.flying("emergency") == 0)
        .await;
    assert_eq!(status.counts.rolled_back, 0);
    world.switch_off("odd");
    world.switch_on("odd", &odd, &[]);
    world.control_as("alice", "emergency", &json!({ "retryFailed": "repaired" }));
    let status = world.phase("emergency", RotationPhase::Complete).await;
    assert_eq!((status.counts.confirmed, status.counts.deferred), (6, 1), "{status:#?}");
    let complete = condition(&status, "Complete");
    assert!(
        complete.message.contains("set spec.issuerRef of Fleet meters to line"),
        "{}",
        complete.message
    );

    // The other one goes on: whom the emergency has moved it leaves alone.
    let status = world.phase("ordinary", RotationPhase::Complete).await;
    assert_eq!(status.counts.confirmed, 1, "{status:#?}");
    let history = world.history();
    assert_eq!(history.kinds(&good[0]), ["enrol", "rotate", "rotate"]);
    for id in &good[1..] {
        assert_eq!(history.kinds(id), ["enrol", "rotate"], "{id}");
    }
    let key = line.status.unwrap().key_id;
    for device in world.stack.devices().await.unwrap() {
        let id = device.spec.device_id;
        if id != away[0] {
            assert_eq!(device.status.unwrap().certificates.current.unwrap().issuer, key, "{id}");
        }
    }

    // Whoever thinks about a cutoff now is told of the one that is left.
    world.rotate("again", &compromise("Preview"));
    let status = world.phase("again", RotationPhase::Previewed).await;
    assert_eq!(named(&status), away);
    world.switch_on("away", &away, &[]);
    world.wait_renewed(&away, &before).await;
    world.sound(MAX_IN_FLIGHT, MAX_IN_FLIGHT).await;
}

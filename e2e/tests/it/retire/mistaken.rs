//! Devices that have proven the new certificate by mistake, over a connection that the old one had opened.

use certwave_crds::{RotationPhase, RotationStatus};
use serde_json::json;

use super::world::{Retiring, Stage, revoking};
use crate::rollout::world::fleet;

#[tokio::test]
async fn a_device_that_takes_its_old_certificate_for_the_new_one_is_let_in_again_and_its_wave_stops() {
    let mut world = Retiring::new("mistaken").await;
    let ids = world
        .enrol("m", &fleet(4, 2, &["north"]), &["--fault", "old-door=m-1"])
        .await;
    let first = world.certificates().await;
    let canaries = json!({ "matchLabels": { "ring": "canary" } });
    // Longer than grace and both probation times: the canary is judged before the rest is touched.
    let waves = json!([
        { "name": "canary", "count": 2, "selector": canaries, "soak": "40s" },
        { "name": "rest", "percent": 100 },
    ]);
    world.rotate(
        "run",
        &revoking(&json!({ "waves": waves }), &json!({ "probation": "5s" })),
    );

    let breached = |status: &RotationStatus| status.phase == Some(RotationPhase::Breached);
    let status = world.until("run", "the wave to hear of it", breached).await;
    let canary = &status.waves[0];
    assert_eq!(
        (canary.confirmed, canary.probation_failed, canary.failures),
        (1, 1, 1),
        "{status:#?}"
    );
    let example = status.examples.iter().find(|example| example.device_id == ids[0]);
    assert_eq!(example.unwrap().code, "probation-failed", "{status:#?}");

    let stages = world.history().stages();
    let released = Stage {
        phase: "Released".to_owned(),
        why: Some("no-hello".to_owned()),
    };
    assert_eq!(stages.get(&ids[0]), Some(&released));
    assert_eq!(stages.get(&ids[1]).unwrap().phase, "Revoked");
    assert_eq!(stages.len(), 2, "the rest was not touched: {stages:?}");
    world.wait_said(&world.history().old(&ids[0]), None).await;
    world.wait_said(&world.history().old(&ids[1]), Some("Superseded")).await;

    // It is back by the certificate that works, and says so.
    world.connected().await;
    let old = &world.history().old(&ids[0]).sha256;
    assert_eq!(Some(old), first.get(&ids[0]));
}

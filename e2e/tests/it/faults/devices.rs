//! Devices that misbehave.

use certwave_crds::RotationPhase;
use certwave_e2e::wait_for;
use serde_json::json;

use super::world::{SOON, World};

#[tokio::test]
async fn power_cuts_at_every_step_and_odd_devices_end_with_a_certificate_that_works() {
    const CUTS: [u32; 10] = [1, 2, 4, 6, 8, 11, 14, 18, 23, 29];
    let mut world = World::new("odd", 5).await;
    let mut faults: Vec<String> = CUTS
        .iter()
        .zip(1..)
        .map(|(step, n)| format!("power-cut:{step}=m-{n}"))
        .collect();
    faults.extend(["duplicate=m-11", "slow:2s=m-12", "clock:-20y=m-13", "clock:20y=m-14"].map(str::to_owned));
    let options: Vec<&str> = faults.iter().flat_map(|fault| ["--fault", fault.as_str()]).collect();
    let ids = world.enrol("m", 14, &options).await;
    let first = world.certificates().await;

    world.rotate("now", &json!({}));
    let status = world.ended("now").await;
    assert_eq!(
        status.phase,
        Some(RotationPhase::Complete),
        "{status:#?}\n{}",
        world.log()
    );
    assert_eq!(status.counts.confirmed, 14);
    world.wait_renewed(&ids, &first).await;
    world.verify().await;
    assert!(world.history().peak_in_flight() <= 5);
    for id in ["m-13", "m-14"] {
        let seen = wait_for("the condition ClockSkew", SOON, || async {
            let found = world.device_condition(id, "ClockSkew").await;
            anyhow::ensure!(found.is_some_and(|condition| condition.status == "True"), "{id}");
            Ok(())
        });
        seen.await.unwrap();
    }
}

#[tokio::test]
async fn a_whole_site_without_power_at_any_instant_goes_on_when_it_is_back() {
    let mut world = World::new("site", 3).await;
    let ids = world.enrol("m", 8, &[]).await;
    let first = world.certificates().await;

    world.rotate("now", &json!({}));
    for steps in [2, 11, 23, 33] {
        world.when("the next step", |history| history.steps() >= steps).await;
        world.cut_power("m");
        world.stack.broker.kill();
        world.stack.controller().unwrap().kill();
        world.stack.broker.start().await.unwrap();
        world.stack.start_controller().await.unwrap();
        world.switch_on("m", &ids, &[]);
    }
    let status = world.ended("now").await;
    assert_eq!(
        (status.phase, status.counts.confirmed),
        (Some(RotationPhase::Complete), 8),
        "{status:#?}\n{}",
        world.log()
    );
    world.wait_renewed(&ids, &first).await;
    world.verify().await;
    assert!(world.history().peak_in_flight() <= 3);
}

//! The controller dies, or is told to end.

use std::time::{Duration, Instant};

use certwave_crds::RotationPhase;
use k8s_openapi::api::coordination::v1::Lease;
use serde_json::json;

use super::world::World;

const LEASE: &str = "certwave-controller";

#[tokio::test]
async fn killed_at_any_instant_the_controller_goes_on_where_it_was() {
    let mut world = World::new("kill", 3).await;
    let ids = world.enrol("m", 12, &[]).await;
    let first = world.certificates().await;

    world.rotate("now", &json!({}));
    // Five steps make a rotation: each of these is another instant of some job.
    for steps in [1, 8, 17, 29, 45] {
        world.when("the next step", |history| history.steps() >= steps).await;
        world.kill_controller().await;
    }

    let status = world.ended("now").await;
    assert_eq!(
        status.phase,
        Some(RotationPhase::Complete),
        "{status:#?}\n{}",
        world.log()
    );
    assert_eq!(status.counts.confirmed, 12);
    world.wait_renewed(&ids, &first).await;
    world.verify().await;
    let history = world.history();
    assert!(history.peak_in_flight() <= 3, "{} in flight", history.peak_in_flight());
    assert_eq!(history.authorities(), 1, "a CA is made once");
    assert_eq!(history.reached("lost"), 0);
}

#[tokio::test]
async fn killed_while_devices_enrol_the_controller_gives_each_one_identity() {
    let mut world = World::new("kill-enrol", 3).await;
    let ids = world.declare("m", 8).await;
    world.switch_on("m", &ids, &["--connect-rate", "8"]);
    for _ in 0..3 {
        world.lasts(Duration::from_millis(400)).await;
        world.kill_controller().await;
    }
    world.wait_enrolled(&ids).await;
    world.verify().await;
    assert_eq!(world.history().authorities(), 1);
}

#[tokio::test]
async fn told_to_end_the_controller_leaves_its_lease_to_the_next() {
    let mut world = World::new("term", 3).await;
    let ids = world.enrol("m", 6, &["--fault", "slow:1s=*"]).await;
    let first = world.certificates().await;
    world.rotate("now", &json!({}));
    world
        .when("a device in flight", |history| history.reached("accepted") > 0)
        .await;

    let start = Instant::now();
    world.stack.stop_controller().unwrap();
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "it took {:?}",
        start.elapsed()
    );
    let lease = world.stack.objects::<Lease>().get(LEASE).await.unwrap();
    assert_eq!(lease.spec.and_then(|spec| spec.holder_identity).unwrap_or_default(), "");

    world.stack.start_controller().await.unwrap();
    let status = world.ended("now").await;
    assert_eq!(
        status.phase,
        Some(RotationPhase::Complete),
        "{status:#?}\n{}",
        world.log()
    );
    world.wait_renewed(&ids, &first).await;
}

#[tokio::test]
async fn a_controller_that_hangs_goes_on_where_it_was() {
    let mut world = World::new("hang", 3).await;
    let ids = world.enrol("m", 8, &["--fault", "slow:1s=*"]).await;
    let first = world.certificates().await;
    world.rotate("now", &json!({}));
    world
        .when("a certificate on the way", |history| history.reached("issued") > 0)
        .await;
    world.stack.controller().unwrap().pause().unwrap();
    world.lasts(Duration::from_secs(6)).await;
    world.stack.controller().unwrap().resume().unwrap();
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

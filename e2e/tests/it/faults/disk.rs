//! The disk under the ledger is full.

use std::time::Duration;

use certwave_crds::RotationPhase;
use certwave_e2e::small_disk::SmallDisk;
use certwave_e2e::stack::Stack;
use serde_json::json;

use super::world::World;
use crate::shared;

#[tokio::test]
async fn a_full_disk_under_the_ledger_loses_nothing_and_goes_on_when_there_is_space() {
    let stack = Stack::on(shared::api().await, "disk").await.unwrap();
    let Some(disk) = SmallDisk::mount(&stack.directory().join("disk"), 32).unwrap() else {
        return;
    };
    let file = stack.directory().join("ledger.sqlite");
    std::os::unix::fs::symlink(disk.path().join("ledger.sqlite"), file).unwrap();
    let mut world = World::on(stack, 2).await;
    let ids = world.enrol("m", 6, &["--fault", "slow:1s=*"]).await;
    let first = world.certificates().await;

    world.rotate("now", &json!({}));
    world
        .when("certificates on the way", |history| history.reached("issued") > 0)
        .await;
    disk.fill().unwrap();
    world.lasts(Duration::from_secs(2)).await;
    let (steps, confirmed) = (world.history().steps(), world.history().reached("confirmed"));
    world.lasts(Duration::from_secs(3)).await;
    assert_eq!(world.history().steps(), steps, "no space, no step");
    disk.free().unwrap();
    world.kill_controller().await;
    assert!(world.history().steps() >= steps && world.history().reached("confirmed") >= confirmed);

    let status = world.ended("now").await;
    assert_eq!(
        status.phase,
        Some(RotationPhase::Complete),
        "{status:#?}\n{}",
        world.log()
    );
    assert_eq!(status.counts.confirmed, 6);
    world.wait_renewed(&ids, &first).await;
    world.verify().await;
    assert!(world.history().peak_in_flight() <= 2);
    // The disk goes when nobody uses it any more.
    drop(world);
    drop(disk);
}

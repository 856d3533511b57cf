//! The disk under the ledger is full.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use certwave_crds::RotationPhase;
use certwave_e2e::stack::Stack;
use certwave_e2e::tools;
use serde_json::json;

use super::world::World;
use crate::shared;

/// A small disk, unmounted on drop.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// One of 32 MiB on this directory, if this process may.
    fn mount(on: &Path) -> Option<Self> {
        fs::create_dir_all(on).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=32m", "tmpfs"]).arg(on);
        tools::output(&mut mount).ok().map(|_| Self(on.to_owned()))
    }

    /// Leaves not a byte of space.
    fn fill(&self) {
        let mut file = File::create(self.0.join("filler")).unwrap();
        for size in [1 << 16, 1 << 10, 1] {
            let block = vec![0; size];
            while file.write_all(&block).is_ok() {}
        }
    }

    fn free(&self) {
        fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = tools::output(Command::new("umount").arg("--lazy").arg(&self.0));
    }
}

#[tokio::test]
async fn a_full_disk_under_the_ledger_loses_nothing_and_goes_on_when_there_is_space() {
    let stack = Stack::on(shared::api().await, "disk").await.unwrap();
    let Some(disk) = SmallDisk::mount(&stack.directory().join("disk")) else {
        println!("skipped: a small disk needs the right to mount one (root)");
        return;
    };
    let file = stack.directory().join("ledger.sqlite");
    std::os::unix::fs::symlink(disk.0.join("ledger.sqlite"), file).unwrap();
    let mut world = World::on(stack, 2).await;
    let ids = world.enrol("m", 6, &["--fault", "slow:1s=*"]).await;
    let first = world.certificates().await;

    world.rotate("now", &json!({}));
    world
        .when("certificates on the way", |history| history.reached("issued") > 0)
        .await;
    disk.fill();
    world.lasts(Duration::from_secs(2)).await;
    let (steps, confirmed) = (world.history().steps(), world.history().reached("confirmed"));
    world.lasts(Duration::from_secs(3)).await;
    assert_eq!(world.history().steps(), steps, "no space, no step");
    disk.free();
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

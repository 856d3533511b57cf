//! The chart on a kind cluster, as a platform team meets it: install, enrol, rotate, fail, revoke, lose a leader, upgrade, uninstall,
//! install again.

mod cluster;
mod door;
mod guide;
mod images;
mod numbers;
mod objects;
mod release;
mod run;

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use certwave_crds::RotationPhase;

use crate::screen::Screen;
use crate::stack::objects as kinds;
use crate::tally;
use cluster::Cluster;
use numbers::Numbers;
use objects::{CANARIES, GROUPS};
use run::Seen;

/// The namespace of everything.
const NAMESPACE: &str = "certwave-system";

/// Runs all of it, and prints what was measured; then the page for those who begin, on a cluster of its own.
///
/// # Errors
/// When something is missing, or does not hold.
pub async fn run() -> Result<()> {
    let mut screen = Screen::default();
    chart(&mut screen).await?;
    guide::follow(&mut screen)
}

/// Follows the page for those who begin.
///
/// # Errors
/// When it does not work as it is written.
pub fn guide() -> Result<()> {
    guide::follow(&mut Screen::default())
}

async fn chart(screen: &mut Screen) -> Result<()> {
    let start = Instant::now();
    let mut numbers = Numbers::default();
    screen.say("1. images and a kind cluster");
    let images = images::build()?;
    numbers.add("image-bytes", images::size(&images::of("certwave", images::TAG))?);
    let cluster = Cluster::start(&images).await?;

    screen.say("2. helm install: two replicas on PostgreSQL, and a Mosquitto");
    cluster.start_database()?;
    let began = Instant::now();
    release::install_previous(&cluster.api, &cluster.scratch)?;
    release::wait(&cluster.api)?;
    numbers.add("install-to-ready-seconds", began.elapsed().as_secs());
    cluster.found().await?;

    let devices: usize = GROUPS.iter().map(|group| group.devices).sum();
    screen.say(&format!("3. {devices} devices in {} pods enrol", GROUPS.len()));
    cluster.start_devices().await?;
    let first = cluster.enrolled(screen, devices).await?;
    let mut seen = Seen::default();
    seen.add(&cluster.devices().await?);

    screen.say("4. a staged rotation, whose leader is killed in the middle of a wave");
    let sound = devices - 1;
    cluster.apply(&[objects::staged("staged")])?;
    cluster.rotation_under_way(screen, "staged", &first, sound / 4).await?;
    let handover = cluster.kill_leader().await?;
    numbers.add(
        "leader-death-to-next-job-milliseconds",
        u64::try_from(handover.as_millis())?,
    );
    cluster
        .rotation_ends(screen, "staged", &first, RotationPhase::Complete)
        .await?;
    let second = cluster.all_changed_once(&mut seen, sound).await?;

    screen.say("5. a canary that fails, and goes back");
    cluster.apply(&[objects::breached("breached")])?;
    cluster
        .rotation_ends(screen, "breached", &second, RotationPhase::RolledBack)
        .await?;
    let found = cluster.devices().await?;
    let back = tally::certificates(&found);
    ensure!(
        back == second,
        "after the rollback some devices have other certificates than before"
    );
    seen.add(&found);
    cluster.abort("breached")?;

    screen.say("6. a device is stolen, and revoked");
    let stolen = GROUPS[1].device(7);
    door::revoke(&cluster, screen, &stolen, GROUPS[1]).await?;

    screen.say("7. helm upgrade, in the middle of a wave");
    cluster.apply(&[objects::staged("upgrade")])?;
    cluster
        .rotation_under_way(screen, "upgrade", &second, sound / 4)
        .await?;
    release::install(&cluster.api, &cluster.scratch, images::TAG)?;
    release::wait(&cluster.api)?;
    cluster
        .rotation_ends(screen, "upgrade", &second, RotationPhase::Complete)
        .await?;
    let third = cluster.all_changed_once(&mut seen, sound - 1).await?;

    screen.say("8. uninstalled: CRDs, objects and the ledger stay; installed again, it goes on");
    release::uninstall(&cluster.api)?;
    ensure!(
        cluster.devices().await?.len() == devices,
        "objects are gone with the release"
    );
    cluster
        .api
        .kubectl(["get", "crd", "fleets.certwave.dev"])
        .context("the CRDs are gone")?;
    release::install(&cluster.api, &cluster.scratch, images::TAG)?;
    release::wait(&cluster.api)?;
    cluster.ready().await?;
    release::test(&cluster.api)?;
    cluster.apply(&[objects::staged("again")])?;
    cluster
        .rotation_ends(screen, "again", &third, RotationPhase::Complete)
        .await?;
    cluster.all_changed_once(&mut seen, sound - 1).await?;
    door::still_revoked(&cluster, &stolen).await?;

    numbers.idle(&cluster).await?;
    numbers.add("seconds", start.elapsed().as_secs());
    screen.say(&format!(
        "e2e: PASS devices={devices} canaries={CANARIES} fleet={} {numbers}",
        kinds::FLEET
    ));
    Ok(())
}

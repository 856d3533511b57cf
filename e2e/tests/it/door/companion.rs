//! The companion through faults: what it writes, and what it says.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use certwave_e2e::wait::wait_for;
use certwave_pki::crl::Crl;
use rustls::pki_types::CertificateRevocationListDer;
use rustls::pki_types::pem::PemObject;

use super::world::{Trouble, World, crl};

/// The CRLs in the file; a panic when one is cut short or damaged.
fn whole(path: &std::path::Path) -> Vec<(u64, i64)> {
    let pem = std::fs::read(path).unwrap();
    let crls = CertificateRevocationListDer::pem_slice_iter(&pem).map(|der| {
        let der = der.unwrap();
        let crl = Crl::parse(&der).unwrap();
        (crl.number(), crl.next_update())
    });
    crls.collect()
}

#[tokio::test]
async fn a_crl_cut_short_on_the_wire_changes_nothing_and_is_said() {
    for trouble in [Trouble::Cut, Trouble::Short, Trouble::Gone] {
        let mut world = World::new().await;
        let (device, revoked) = (world.device("d"), world.device("revoked"));
        let before = world.revoke([revoked.serial.clone()]);
        world.loaded(before).await;
        let file = std::fs::read(world.companion.file()).unwrap();
        world.publisher.set_trouble(Some(trouble));
        let number = world.revoke([device.serial.clone()]);
        let report = world.fault(world.partition().to_owned().as_str()).await;
        assert_eq!(report.scopes[0].number, before, "{trouble:?}");
        assert!(world.publisher.asked() > 0);
        assert_eq!(std::fs::read(world.companion.file()).unwrap(), file, "{trouble:?}");
        world.connect(&device).await.unwrap();
        assert!(world.connect(&revoked).await.is_err(), "{trouble:?}");
        world.publisher.set_trouble(None);
        assert_eq!(world.loaded(number).await.error, None, "{trouble:?}");
        assert!(world.connect(&device).await.is_err(), "{trouble:?}");
    }
}

#[tokio::test]
async fn a_broker_that_was_restarted_has_loaded_what_is_reported_then() {
    let mut world = World::new().await;
    let device = world.device("d");
    world.broker.stop().unwrap();
    let number = world.revoke([device.serial.clone()]);
    // While nobody is there to be told the file is kept fresh.
    let file = world.companion.file().to_owned();
    let fresh = wait_for("the file to be fresh", Duration::from_secs(30), || {
        let numbers: Vec<u64> = whole(&file).into_iter().map(|(number, _)| number).collect();
        async move {
            anyhow::ensure!(numbers == [number], "{numbers:?}");
            Ok(())
        }
    });
    fresh.await.unwrap();
    world.broker.start().await.unwrap();
    world.reconnect().await;
    world.hint().await;
    world.loaded(number).await;
    assert!(world.connect(&device).await.is_err());
}

#[tokio::test]
async fn killed_at_any_moment_it_leaves_a_whole_file_and_never_an_older_one() {
    let mut world = World::new().await;
    // Long enough for a write to take some time.
    let many = (0..30_000_u32).map(|n| format!("{:032x}", u128::from(n) + (1 << 100)));
    let number = world.revoke(many);
    world.loaded(number).await;
    let file = world.companion.file().to_owned();
    let mut least = number;
    for round in 0..12_u64 {
        world.revoke([format!("{:032x}", u128::from(round) + (1 << 90))]);
        // Somewhere between the start and the end of a write, a little later each time.
        let until = Instant::now() + Duration::from_millis(20 + 25 * round);
        while Instant::now() < until {
            tokio::task::yield_now().await;
        }
        world.companion.kill();
        let found = whole(&file);
        assert_eq!(found.len(), 1, "round {round}");
        assert!(found[0].0 >= least, "round {round}: {} after {least}", found[0].0);
        least = found[0].0;
        world.companion.start().unwrap();
    }
    let newest = world.number();
    world.loaded(newest).await;
}

#[tokio::test]
async fn what_it_has_believed_once_it_remembers_over_a_restart() {
    let mut world = World::new().await;
    let device = world.device("d");
    let number = world.revoke([device.serial.clone()]);
    world.loaded(number).await;
    world.companion.stop().unwrap();
    // An older list comes back: a cache, a backup, or somebody who wants the device to get in.
    let old = crl(
        &world.ca,
        &world.scope_url(),
        1,
        world.made() - 1,
        36_000,
        &BTreeSet::new(),
    );
    world.publisher.publish(world.partition(), number + 1, old);
    world.companion.start().unwrap();
    let report = world.fault("below").await;
    assert_eq!(report.scopes[0].number, number);
    assert!(world.connect(&device).await.is_err());
}

#[tokio::test]
async fn an_expired_crl_is_never_written_and_is_said_when_it_is_all_there_is() {
    let mut world = World::new().await;
    let file = std::fs::read(world.companion.file()).unwrap();
    let expired = crl(&world.ca, &world.scope_url(), 9, world.made() + 1, 60, &BTreeSet::new());
    world.publisher.publish(world.partition(), 9, expired);
    let report = world.fault("expired").await;
    assert_eq!(report.scopes[0].number, 1);
    assert_eq!(std::fs::read(world.companion.file()).unwrap(), file);
}

#[tokio::test]
async fn a_report_says_which_process_speaks_and_numbers_rise() {
    let mut world = World::new().await;
    world.hint().await;
    let first = world.report().await;
    world.hint().await;
    let second = world.report().await;
    assert_eq!(first.session, second.session);
    assert!(first.sequence < second.sequence);
    world.companion.kill();
    world.companion.start().unwrap();
    // What the first process said last may still be on its way; after that only the other one speaks.
    while world.loaded(1).await.session == first.session {}
}

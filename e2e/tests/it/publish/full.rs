//! The disk under the ledger is full at the moment of publishing.

use std::os::unix::fs::symlink;

use anyhow::{Context as _, ensure};
use certwave_controller::clock::now;
use certwave_core::revocation::Reason;
use certwave_crds::DeviceCertificate;
use certwave_e2e::bench::preload;
use certwave_e2e::http::sample;
use certwave_e2e::small_disk::SmallDisk;
use certwave_e2e::stack::Stack;
use certwave_e2e::wait_for;
use certwave_e2e::witness::Witness;
use certwave_ledger::{Act, Ledger as _, Mark, SqliteLedger, Target};
use rusqlite::Connection;
use serde_json::json;

use super::{SOON, authority, condition, openssl, served};
use crate::faults::world::{World, patch};
use crate::shared;

/// So many lines make a CRL of several hundred kilobytes: it does not fit where a single record does.
const MANY: usize = 15_000;
/// What is left for records, bytes.
const LEFT: u64 = 384 << 10;
/// Marks in one transaction.
const BATCH: usize = 1000;

/// Puts many revoked certificates into the ledger, while nobody uses it.
async fn load(stack: &Stack, issuer: &str) {
    let ledger = SqliteLedger::open(stack.ledger()).unwrap();
    let epoch = ledger.take_epoch("test", now()).await.unwrap();
    let devices = preload::devices(&ledger, epoch, stack.namespace(), issuer, MANY)
        .await
        .unwrap();
    for some in devices.chunks(BATCH) {
        let mark = |device| Mark {
            target: Target::Device(device),
            act: Act::Revoke {
                reason: Reason::Superseded,
                invalid_since: None,
            },
            requested_at: now(),
            who: "test".to_owned(),
            detail: None,
            revocation: None,
        };
        let marks = some.iter().map(|(device, _)| mark(device.clone())).collect();
        ledger.mark(epoch, now(), marks).await.unwrap();
    }
    ledger.close().await;
}

/// Empties the write-ahead log: `SQLite` writes within the length that its file has, and whatever is written next needs space anew.
fn empty_log(stack: &Stack) {
    let db = Connection::open(stack.ledger()).unwrap();
    db.busy_timeout(SOON).unwrap();
    let busy: i64 = db
        .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))
        .unwrap();
    assert_eq!(busy, 0, "the ledger was read or written all the time");
}

/// How many CRLs could not be stored.
async fn refused(stack: &Stack) -> f64 {
    let metrics = stack.controller_metrics().await.unwrap();
    let labels = ["kind=\"CRL\"", "reason=\"full\""];
    sample(&metrics, "certwave_reconcile_errors_total", &labels).unwrap_or_default()
}

#[tokio::test]
async fn on_a_full_disk_the_crl_of_before_is_served_whole_until_there_is_space_for_the_next() {
    let stack = Stack::on(shared::api().await, "publish-full").await.unwrap();
    let Some(disk) = SmallDisk::mount(&stack.directory().join("disk"), 128).unwrap() else {
        return;
    };
    symlink(disk.path().join("ledger.sqlite"), stack.ledger()).unwrap();
    let mut world = World::on(stack, 2).await;
    let ids = world.enrol("m", 1, &[]).await;
    let object = condition(&world.stack, "CRLFresh", "True").await;
    let issuer = object.status.as_ref().unwrap().key_id.clone().unwrap();
    world.stack.stop_controller().unwrap();
    load(&world.stack, &issuer).await;
    world.stack.start_controller().await.unwrap();
    let device = world.stack.objects::<DeviceCertificate>().get(&ids[0]).await.unwrap();
    let serial = device.status.unwrap().certificates.current.unwrap().serial.unwrap();
    let serial = serial.to_uppercase();
    let text = async |stack: &Stack| {
        let file = served(stack, &object, "full").await;
        let size = file.metadata().unwrap().len();
        (openssl(&["crl", "-noout", "-text", "-in"], &[&file]).unwrap(), size)
    };
    let (mut witness, at, scope) = (Witness::default(), world.stack.http(), format!("{issuer}/full"));
    let whole = wait_for("a CRL with all of them", SOON, || async {
        let (text, size) = text(&world.stack).await;
        let lines = text.matches("Serial Number:").count();
        ensure!(lines == MANY, "{lines} lines");
        Ok(size)
    });
    let size = world.told(whole.await);
    assert!(size > LEFT, "{size} bytes fit into {LEFT}");
    let before = world.told(witness.look(at, &scope).await).unwrap();

    empty_log(&world.stack);
    disk.fill_but(LEFT).unwrap();
    let revocation = json!({ "spec": { "revocation": { "reason": "keyCompromise" } } });
    patch::<DeviceCertificate>(&world.stack, &ids[0], &revocation).await;
    let failed = wait_for("a CRL that does not fit", SOON, || async {
        let marked: i64 = world.history().0.query_row(
            "SELECT count(*) FROM marks WHERE upper(serial) = ?1 AND revoked_at IS NOT NULL",
            [&serial],
            |row| row.get(0),
        )?;
        ensure!(marked == 1, "the revocation is not recorded");
        ensure!(refused(&world.stack).await >= 2.0, "none was refused");
        Ok(())
    });
    world.told(failed.await);
    assert_eq!(world.told(witness.look(at, &scope).await), Some(before));
    assert!(!text(&world.stack).await.0.contains(&serial));
    let status = authority(&world.stack)
        .await
        .unwrap()
        .status
        .context("no status")
        .unwrap();
    assert!(
        status
            .crls
            .iter()
            .any(|crl| crl.partition == "full" && crl.number.unsigned_abs() == before)
    );

    disk.free().unwrap();
    let said = wait_for("the next one", SOON, || async {
        let (text, _) = text(&world.stack).await;
        ensure!(text.contains(&serial), "it is not listed");
        Ok(())
    });
    world.told(said.await);
    assert!(world.told(witness.look(at, &scope).await) > Some(before));
    // The disk goes when nobody uses it any more.
    drop(world);
    drop(disk);
}

//! A full disk: nothing acknowledged is lost, and work goes on when there is space again.

use std::path::{Path, PathBuf};
use std::process::Command;

use certwave_core::model::Credential;
use certwave_ledger::{Ledger, LedgerError, SqliteLedger, SqliteOptions, Write};
use certwave_protocol::ids::Epoch;

use crate::fixtures::*;

/// Issues certificate after certificate to device 0 until the ledger refuses; answers the number of the first one refused.
async fn fill(ledger: &SqliteLedger, epoch: Epoch, from: u64) -> (u64, LedgerError) {
    for n in from..from + 10_000 {
        if let Err(error) = issue(ledger, epoch, n).await {
            return (n, error);
        }
    }
    panic!("it never fills")
}

async fn issue(ledger: &SqliteLedger, epoch: Epoch, n: u64) -> Result<u64, LedgerError> {
    let mut d = device(ledger, 0).await;
    let mut record = certificate(&identity(0), n, 1);
    record.der = vec![0x30; 3000];
    d.current = Some(Credential::from(&record));
    ledger
        .write(
            epoch,
            Write {
                certificate: Some(record),
                ..Write::of(d, NOW)
            },
        )
        .await
}

async fn assert_acknowledged(ledger: &SqliteLedger, refused: u64) {
    for n in 0..refused {
        let stored = ledger.certificate(&hash("certificate", n)).await.unwrap();
        assert!(stored.is_some_and(|c| c.confirmed_at.is_some()), "certificate {n}");
    }
    assert_eq!(device(ledger, 0).await.revision, refused + 1);
}

#[tokio::test]
async fn a_file_at_its_limit_refuses_and_goes_on_with_a_greater_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger.db");
    let limited = |bytes| SqliteOptions {
        max_bytes: Some(bytes),
        ..SqliteOptions::default()
    };
    let ledger = SqliteLedger::open_with(&path, &limited(1 << 20)).unwrap();
    let epoch = begin(&ledger, 1).await;
    let (refused, error) = fill(&ledger, epoch, 0).await;
    assert_eq!(error, LedgerError::Full);
    assert!(refused > 50, "{refused}");
    assert_acknowledged(&ledger, refused).await;
    assert_eq!(
        issue(&ledger, epoch, refused).await,
        Err(LedgerError::Full),
        "it stays full"
    );
    assert_eq!(ledger.epoch().await.unwrap(), epoch, "and can be read");
    ledger.close().await;

    let ledger = SqliteLedger::open_with(&path, &limited(2 << 20)).unwrap();
    assert_acknowledged(&ledger, refused).await;
    issue(&ledger, epoch, refused).await.unwrap();
}

/// When a group does not fit, all who share the commit hear of it, and none of their work is there.
#[tokio::test]
async fn a_group_that_does_not_fit_is_refused_whole_or_in_part_but_told_truly() {
    let dir = tempfile::tempdir().unwrap();
    let options = SqliteOptions {
        max_bytes: Some(1 << 20),
        ..SqliteOptions::default()
    };
    let ledger = std::sync::Arc::new(SqliteLedger::open_with(dir.path().join("ledger.db"), &options).unwrap());
    let epoch = begin(&*ledger, 200).await;
    let mut tasks = Vec::new();
    for n in 0..200 {
        let ledger = std::sync::Arc::clone(&ledger);
        tasks.push(tokio::spawn(async move {
            let mut record = certificate(&identity(n), u64::from(n), 1);
            record.der = vec![0x30; 20_000];
            let write = Write {
                certificate: Some(record),
                ..Write::of(device(&*ledger, n).await, NOW)
            };
            ledger.write(epoch, write).await
        }));
    }
    let (mut stored, mut refused) = (0, 0);
    for (n, task) in (0u32..).zip(tasks) {
        let answer = task.await.unwrap();
        let there = ledger
            .certificate(&hash("certificate", u64::from(n)))
            .await
            .unwrap()
            .is_some();
        assert_eq!(answer.is_ok(), there, "device {n}: {answer:?}");
        assert_eq!(device(&*ledger, n).await.revision, if there { 2 } else { 1 });
        if there { stored += 1 } else { refused += 1 }
    }
    assert!(
        refused > 0 && stored + refused == 200,
        "{stored} stored, {refused} refused"
    );
}

/// A small file system of its own, where one may be mounted.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path) -> Option<Self> {
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=3m", "tmpfs"])
            .arg(at)
            .output();
        mounted.is_ok_and(|o| o.status.success()).then(|| Self(at.to_owned()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[tokio::test]
async fn a_full_disk_refuses_and_the_same_ledger_goes_on_when_there_is_space() {
    let dir = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(dir.path()) else {
        eprintln!("skipped: a file system cannot be mounted here (root may)");
        return;
    };
    let ballast = disk.0.join("ballast");
    std::fs::write(&ballast, vec![1; 1 << 20]).unwrap();
    let path = disk.0.join("ledger.db");
    let ledger = SqliteLedger::open(&path).unwrap();
    let epoch = begin(&ledger, 1).await;
    let mut next = 0;
    for round in 0..3 {
        let (refused, error) = fill(&ledger, epoch, next).await;
        assert!(error.is_outage(), "round {round}: {error}");
        assert_acknowledged(&ledger, refused).await;
        next = refused;
        if round == 0 {
            std::fs::remove_file(&ballast).unwrap();
            issue(&ledger, epoch, next).await.unwrap();
            next += 1;
        }
    }
    ledger.close().await;
    let ledger = SqliteLedger::open_with(
        &path,
        &SqliteOptions {
            check: true,
            ..SqliteOptions::default()
        },
    );
    match ledger {
        Ok(ledger) => assert_acknowledged(&ledger, next).await,
        Err(error) => assert!(error.is_outage() && error.category() != "corrupt", "{error}"),
    }
}

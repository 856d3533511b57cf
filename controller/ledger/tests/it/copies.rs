//! Backups of either database, restored into either.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use certwave_core::model::JobState;
use certwave_ledger::{
    Ledger, LedgerError, NewMember, PostgresLedger, PostgresOptions, SqliteLedger, Target, Write, backup, restore,
};
use rusqlite::Connection;
use rusqlite::types::Value;

use crate::fixtures::*;
use crate::postgres::{name, open, server};
use crate::revocations::{HOLD, REVOKE, mark, one, publish};

fn options(url: &str) -> PostgresOptions {
    PostgresOptions::new(url, None, None).unwrap()
}

/// Something of everything: devices, jobs both ways, a claim, a Rotation, a CRL, holds, revocations, a line that must be quoted.
async fn fill(ledger: &dyn Ledger) {
    let epoch = begin(ledger, 6).await;
    for n in 0..5 {
        enrol(ledger, epoch, n, 30 + i64::from(n)).await;
    }
    change(ledger, epoch, 0, |d| d.job = Some(job(1, JobState::Issued))).await;
    ledger.upsert_claim(epoch, claim("line-1", Some(3))).await.unwrap();
    let found = ledger.candidates(&fleet("pumps"), NOW, None, 3).await.unwrap();
    let members = (0..).zip(&found).map(|(ordinal, candidate)| NewMember {
        row: candidate.row,
        wave: 0,
        ordinal,
        group: "a".to_owned(),
        windows: u64::MAX,
    });
    ledger
        .begin_rotation(epoch, rotation("run"), members.collect())
        .await
        .unwrap();
    publish(ledger, epoch, "2027-02", 7, NOW).await;
    one(ledger, epoch, NOW, mark(Target::Device(identity(3)), REVOKE)).await;
    one(ledger, epoch, NOW, mark(Target::Device(identity(4)), HOLD)).await;
    let mut line = audit(&identity(1), NOW, "seen");
    line.detail = Some("a 'quoted', \"strange\"\tline\\N\n\u{1f512}".to_owned());
    ledger.append_audit(epoch, vec![line]).await.unwrap();
}

/// All rows of all tables of a file.
fn rows(path: &Path) -> BTreeMap<String, Vec<Vec<Value>>> {
    let db = Connection::open(path).unwrap();
    let mut tables = db
        .prepare("SELECT name FROM sqlite_schema WHERE type = 'table'")
        .unwrap();
    let tables = tables.query_map([], |row| row.get::<_, String>(0)).unwrap();
    tables
        .map(|table| {
            let table = table.unwrap();
            let all = format!("SELECT * FROM {table}");
            let columns = db.prepare(&all).unwrap().column_count();
            let order: Vec<_> = (1..=columns).map(|c| c.to_string()).collect();
            let mut get = db.prepare(&format!("{all} ORDER BY {}", order.join(", "))).unwrap();
            let found = get
                .query_map([], |row| (0..columns).map(|c| row.get(c)).collect())
                .unwrap();
            (table, found.map(Result::unwrap).collect())
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_of_a_file_goes_into_a_database_and_back_without_losing_a_value() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let file = SqliteLedger::open(path("ledger.db")).unwrap();
    fill(&file).await;
    let first = backup(&path("ledger.db"), &path("first")).await.unwrap();
    file.close().await;

    let url = server().database().unwrap();
    let moved = restore(&path("first"), options(&url), NOW + 5, false).await.unwrap();
    assert_eq!(
        (&moved.provenance.id, moved.provenance.restored_at),
        (&first.provenance.id, Some(NOW + 5))
    );
    assert_eq!(
        moved.totals.audit,
        first.totals.audit + 1,
        "that it was restored stands in the audit"
    );
    let copied = backup(options(&url), &path("second")).await.unwrap();
    assert_eq!(copied.totals, moved.totals);

    let (mut before, mut after) = (rows(&path("first")), rows(&path("second")));
    // What restoring adds.
    for all in [&mut before, &mut after] {
        all.remove("ledger");
    }
    assert_eq!(after.get_mut("epochs").unwrap().len(), before["epochs"].len() + 1);
    after.get_mut("epochs").unwrap().pop();
    after.get_mut("audit").unwrap().pop();
    assert!(
        ["devices", "jobs", "members", "marks", "holds", "claims", "crls"]
            .iter()
            .all(|t| !before[*t].is_empty())
    );
    for (table, rows) in &before {
        assert_eq!(rows, &after[table], "{table}");
    }

    let back = restore(&path("second"), &path("again.db"), NOW + 9, false)
        .await
        .unwrap();
    assert_eq!(back.provenance.id, first.provenance.id);
    SqliteLedger::open_for_reading(path("again.db"))
        .unwrap()
        .verify_audit()
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_was_filled_from_a_backup_can_be_written_on() {
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("copy");
    let url = server().database().unwrap();
    let ledger = open(&url).unwrap();
    fill(&ledger).await;
    backup(options(&url), &copy).await.unwrap();
    ledger.close().await;

    let url = server().database().unwrap();
    restore(&copy, options(&url), NOW, false).await.unwrap();
    let ledger = open(&url).unwrap();
    let epoch = ledger.take_epoch("after", NOW).await.unwrap();
    let lost = certificate(&identity(5), 50, 30);
    let mut write = Write::of(device(&ledger, 5).await, NOW);
    write.certificate = Some(lost.clone());
    assert_eq!(ledger.write(epoch, write).await, Err(LedgerError::Restoring));
    ledger.recovered(epoch, NOW).await.unwrap();
    // Numbers that the database gives by itself, references, and triggers.
    ledger.declare(epoch, NOW, vec![declaration(9)]).await.unwrap();
    enrol(&ledger, epoch, 9, 30).await;
    change(&ledger, epoch, 0, |d| {
        d.job.as_mut().unwrap().state = JobState::Confirmed;
    })
    .await;
    ledger
        .begin_rotation(epoch, rotation("next"), Vec::new())
        .await
        .unwrap();
    let orphan = "INSERT INTO jobs SELECT * FROM jobs; UPDATE jobs SET device = 99";
    assert!(server().sql(name(&url), orphan).is_err());
    assert!(server().sql(name(&url), "DELETE FROM audit").is_err());
    ledger.verify_audit().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_holds_a_ledger_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("copy");
    let url = server().database().unwrap();
    let ledger = open(&url).unwrap();
    fill(&ledger).await;
    backup(options(&url), &copy).await.unwrap();
    let before = ledger.totals().await.unwrap();
    let refused = restore(&copy, options(&url), NOW, true).await.unwrap_err();
    assert!(refused.to_string().contains("holds a ledger already"), "{refused}");
    assert_eq!(ledger.totals().await.unwrap(), before);
    let none = backup(options(&server().database().unwrap()), &dir.path().join("none"))
        .await
        .unwrap_err();
    assert!(none.to_string().contains("holds no ledger"), "{none}");
    assert!(!dir.path().join("none").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_of_a_database_is_of_one_instant_whoever_writes() {
    let dir = tempfile::tempdir().unwrap();
    let url = server().database().unwrap();
    let ledger: Arc<PostgresLedger> = Arc::new(open(&url).unwrap());
    let epoch = begin(&*ledger, 1).await;
    let writer = Arc::clone(&ledger);
    let writing = tokio::spawn(async move {
        loop {
            let mut write = Write::of(device(&*writer, 0).await, NOW);
            write.audit = vec![audit(&identity(0), NOW, "seen")];
            writer.write(epoch, write).await.unwrap();
        }
    });
    for n in 0..3 {
        let copy = dir.path().join(n.to_string());
        // Each write adds one to both.
        let copied = backup(options(&url), &copy).await.unwrap();
        let revision = device(&SqliteLedger::open_for_reading(&copy).unwrap(), 0)
            .await
            .revision;
        assert_eq!(revision, 1 + copied.totals.audit);
    }
    writing.abort();
}

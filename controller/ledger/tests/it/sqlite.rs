//! The suite on SQLite, and what concerns its file.

use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use certwave_ledger::{Ledger, LedgerError, Open, SqliteLedger, SqliteOptions, Way, Write, backup, restore};
use rusqlite::Connection;
use tempfile::TempDir;

use crate::fixtures::*;

fn fresh() -> (Arc<dyn Ledger>, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    (Arc::new(SqliteLedger::open(dir.path().join("ledger.db")).unwrap()), dir)
}

crate::suite::suite!(fresh());

/// The same in memory, where whoever asks does the work.
mod in_memory {
    use super::*;

    fn fresh() -> (Arc<dyn Ledger>, ()) {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("suite-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        (Arc::new(SqliteLedger::in_memory(&name, Arc::new(Open)).unwrap()), ())
    }

    crate::suite::suite!(fresh());

    /// Every operation is lost on its way there, or its answer is.
    struct Broken {
        there: bool,
    }

    #[async_trait]
    impl Way for Broken {
        async fn there(&self, write: bool) -> Result<(), LedgerError> {
            if self.there && write {
                Err(LedgerError::Full)
            } else {
                Ok(())
            }
        }

        async fn back(&self, write: bool) -> Result<(), LedgerError> {
            if !self.there && write {
                Err(LedgerError::Full)
            } else {
                Ok(())
            }
        }
    }

    #[tokio::test]
    async fn what_is_lost_on_its_way_there_is_not_done_and_what_is_lost_on_its_way_back_is() {
        let ledger = SqliteLedger::in_memory("lossy", Arc::new(Open)).unwrap();
        for (there, epoch) in [(true, 0), (false, 7)] {
            let broken = SqliteLedger::in_memory("lossy", Arc::new(Broken { there })).unwrap();
            assert_eq!(broken.take_epoch("a", 7).await, Err(LedgerError::Full));
            assert_eq!(ledger.epoch().await, Ok(epoch));
        }
    }
}

#[tokio::test]
async fn only_the_owner_may_read_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger.db");
    std::fs::write(&path, "").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let ledger = SqliteLedger::open(&path).unwrap();
    begin(&ledger, 1).await;
    let modes: Vec<_> = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|e| e.unwrap())
        .map(|e| (e.file_name(), e.metadata().unwrap().permissions().mode() & 0o777))
        .collect();
    assert_eq!(modes.len(), 4, "file, log, index and lock: {modes:?}");
    assert!(modes.iter().all(|(_, mode)| *mode == 0o600), "{modes:?}");
}

#[tokio::test]
async fn a_second_process_is_kept_out_until_the_first_has_closed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger.db");
    let first = SqliteLedger::open(&path).unwrap();
    begin(&first, 3).await;
    let second = SqliteLedger::open(&path).unwrap_err();
    assert!(
        matches!(&second, LedgerError::Unavailable(why) if why.contains("another process")),
        "{second}"
    );
    first.close().await;
    let second = SqliteLedger::open_with(
        &path,
        &SqliteOptions {
            check: true,
            ..SqliteOptions::default()
        },
    )
    .unwrap();
    assert_eq!(device(&second, 2).await.revision, 1);
}

#[tokio::test]
async fn a_newer_schema_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger.db");
    let ledger = SqliteLedger::open(&path).unwrap();
    begin(&ledger, 1).await;
    ledger.close().await;
    let db = Connection::open(&path).unwrap();
    let version: i64 = db.pragma_query_value(None, "user_version", |r| r.get(0)).unwrap();
    db.pragma_update(None, "user_version", version + 1).unwrap();
    drop(db);
    let before = std::fs::read(&path).unwrap();
    let refused = SqliteLedger::open(&path).unwrap_err();
    assert_eq!(
        refused,
        LedgerError::Newer {
            found: version + 1,
            supported: version
        }
    );
    assert!(std::fs::read(&path).unwrap() == before);
}

#[tokio::test]
async fn files_of_others_and_damaged_ones_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let other = dir.path().join("other.db");
    Connection::open(&other)
        .unwrap()
        .execute_batch("CREATE TABLE t (x)")
        .unwrap();
    assert_eq!(SqliteLedger::open(&other).unwrap_err().category(), "corrupt");
    let text = dir.path().join("text.db");
    std::fs::write(&text, "not a database, and long enough to be taken for one".repeat(100)).unwrap();
    assert_eq!(SqliteLedger::open(&text).unwrap_err().category(), "corrupt");
    let nowhere = SqliteLedger::open(dir.path().join("missing/ledger.db")).unwrap_err();
    assert_eq!(nowhere.category(), "unavailable");

    let path = dir.path().join("ledger.db");
    let ledger = SqliteLedger::open(&path).unwrap();
    begin(&ledger, 2000).await;
    ledger.close().await;
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2 / 4096 * 4096;
    bytes[middle..middle + 4096].fill(0xa5);
    std::fs::write(&path, bytes).unwrap();
    let check = SqliteOptions {
        check: true,
        ..SqliteOptions::default()
    };
    assert_eq!(
        SqliteLedger::open_with(&path, &check).unwrap_err().category(),
        "corrupt"
    );
}

#[tokio::test]
async fn a_line_of_the_audit_that_was_changed_or_removed_is_found() {
    for (forged, line) in [
        ("UPDATE audit SET who = 'nobody' WHERE id = 2", "line 2"),
        ("DELETE FROM audit WHERE id = 2", "line 3"),
        ("UPDATE audit SET hash = NULL WHERE id = 3", "line 3"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger.db");
        let ledger = SqliteLedger::open(&path).unwrap();
        let epoch = begin(&ledger, 1).await;
        let lines = vec![audit(&identity(0), NOW, "seen"); 3];
        ledger.append_audit(epoch, lines).await.unwrap();
        ledger.close().await;
        let db = Connection::open(&path).unwrap();
        db.execute_batch("DROP TRIGGER audit_is_final_update; DROP TRIGGER audit_is_final_delete")
            .unwrap();
        db.execute(forged, []).unwrap();
        drop(db);
        let ledger = SqliteLedger::open_for_reading(&path).unwrap();
        let found = ledger.verify_audit().await.unwrap_err();
        assert!(
            matches!(&found, LedgerError::Corrupt(why) if why.contains(line)),
            "{found}"
        );
    }
}

#[tokio::test]
async fn a_backup_is_taken_while_the_ledger_is_written_and_put_back_only_over_what_knows_less() {
    let dir = tempfile::tempdir().unwrap();
    let (path, copy) = (dir.path().join("ledger.db"), dir.path().join("backup.db"));
    let ledger = SqliteLedger::open(&path).unwrap();
    let epoch = begin(&ledger, 50).await;
    let record = enrol(&ledger, epoch, 0, 30).await;
    let lines = || vec![audit(&identity(0), NOW, "seen")];
    ledger.append_audit(epoch, lines()).await.unwrap();
    let copied = backup(&path, &copy).await.unwrap();
    assert_eq!(
        (copied.totals.devices, copied.totals.certificates, copied.totals.audit),
        (50, 1, 1)
    );
    assert_eq!(std::fs::metadata(&copy).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(
        backup(&path, &copy).await.is_err(),
        "no backup takes the place of another"
    );
    ledger.append_audit(epoch, lines()).await.unwrap();
    let busy = restore(&copy, &path, NOW + 5, true).await.unwrap_err();
    assert!(busy.to_string().contains("another process"), "{busy}");
    ledger.close().await;

    let refused = restore(&copy, &path, NOW + 5, false).await.unwrap_err();
    assert!(refused.to_string().contains("holds more than the backup"), "{refused}");
    let restored = restore(&copy, &path, NOW + 5, true).await.unwrap();
    assert_eq!(restored.provenance.id, copied.provenance.id);
    assert_eq!(restored.provenance.restored_at, Some(NOW + 5));
    let ledger = SqliteLedger::open(&path).unwrap();
    assert!(
        ledger.epoch().await.unwrap() > epoch,
        "a writer of before is fenced out"
    );
    assert!(ledger.certificate(&record.fingerprint).await.unwrap().is_some());
    ledger.close().await;
    // What was there before is whole, and a backup may go where nothing is, or over what it has grown from.
    let before = SqliteLedger::open(restored.aside.unwrap()).unwrap();
    assert_eq!(before.verify_audit().await.unwrap().0, 2);
    restore(&copy, &dir.path().join("new.db"), NOW, false).await.unwrap();
    let mut left: Vec<_> = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    left.retain(|name| name.to_string_lossy().contains(".part"));
    assert_eq!(left, [""; 0]);
}

#[tokio::test]
async fn a_damaged_backup_is_refused_and_the_ledger_stays() {
    let dir = tempfile::tempdir().unwrap();
    let (path, copy) = (dir.path().join("ledger.db"), dir.path().join("backup.db"));
    let ledger = SqliteLedger::open(&path).unwrap();
    begin(&ledger, 2000).await;
    backup(&path, &copy).await.unwrap();
    ledger.close().await;
    let mut bytes = std::fs::read(&copy).unwrap();
    let middle = bytes.len() / 2 / 4096 * 4096;
    bytes[middle..middle + 4096].fill(0xa5);
    std::fs::write(&copy, bytes).unwrap();
    let refused = restore(&copy, &path, NOW, true).await.unwrap_err();
    assert_eq!(refused.category(), "corrupt");
    let ledger = SqliteLedger::open(&path).unwrap();
    assert_eq!(device(&ledger, 1999).await.revision, 1);
}

#[tokio::test]
async fn the_audit_and_the_certificates_cannot_be_unwritten() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger.db");
    let ledger = SqliteLedger::open(&path).unwrap();
    let epoch = begin(&ledger, 1).await;
    enrol(&ledger, epoch, 0, 1).await;
    ledger
        .append_audit(epoch, vec![audit(&identity(0), NOW, "seen")])
        .await
        .unwrap();
    ledger.close().await;
    let db = Connection::open(&path).unwrap();
    for sql in [
        "UPDATE audit SET who = 'x'",
        "DELETE FROM audit",
        "DELETE FROM certificates",
    ] {
        assert!(db.execute(sql, []).is_err(), "{sql}");
    }
}

#[tokio::test]
async fn an_operation_given_up_by_its_caller_is_done_or_not_but_never_half() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Arc::new(SqliteLedger::open(dir.path().join("ledger.db")).unwrap());
    let epoch = begin(&*ledger, 1).await;
    for n in 0..50 {
        let mut write = Write::of(device(&*ledger, 0).await, NOW);
        write.audit = vec![audit(&identity(0), n, "seen")];
        let writer = Arc::clone(&ledger);
        let task = tokio::spawn(async move { writer.write(epoch, write).await });
        tokio::task::yield_now().await;
        task.abort();
        let _ = task.await;
    }
    // Whatever was queued before is done when this one is answered.
    ledger.append_audit(epoch, vec![]).await.unwrap();
    let lines = ledger.audit(&identity(0), 100).await.unwrap().len();
    assert_eq!(device(&*ledger, 0).await.revision, 1 + lines as u64);
}

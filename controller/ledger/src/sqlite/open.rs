//! Opening, locking and migrating the file.

use std::fs::{File, OpenOptions, Permissions, TryLockError};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::SqliteOptions;
use crate::store::audit;
use crate::{LedgerError, Result, sql};

/// Each raises the schema by one. A released one never changes.
const MIGRATIONS: [&str; 8] = [
    include_str!("../../migrations/0001_initial.sql"),
    include_str!("../../migrations/0002_rollout.sql"),
    include_str!("../../migrations/0003_revocation.sql"),
    include_str!("../../migrations/0004_barred.sql"),
    include_str!("../../migrations/0005_authors.sql"),
    include_str!("../../migrations/0006_parts.sql"),
    include_str!("../../migrations/0007_authorities.sql"),
    include_str!("../../migrations/0008_order.sql"),
];
/// The schema with which the audit became a chain.
const CHAINED: i64 = 3;
/// "CWLG" in the file's header: tells our files from other `SQLite` databases.
const APPLICATION: i64 = 0x4357_4c47;

/// The connection that writes, and the lock that keeps other processes out while it lives.
pub(super) struct Opened {
    pub(super) db: sql::Connection,
    pub(super) lock: File,
}

/// Opens the file for writing, creating or migrating it as needed.
pub(super) fn writer(path: &Path, options: &SqliteOptions) -> Result<Opened> {
    let lock = lock(path)?;
    private_file(path).map_err(|e| unavailable(path, &e))?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(path, flags)?;
    identify(&db)?;
    db.pragma_update(None, "journal_mode", "WAL")?;
    db.pragma_update(None, "synchronous", "FULL")?;
    // Keys and serials are random, so each commit touches pages all over the file: let many commits share the copying back
    // (32 MiB of pages).
    db.pragma_update(None, "wal_autocheckpoint", 8192)?;
    // A write-ahead log that one large transaction has blown up shrinks again.
    db.pragma_update(None, "journal_size_limit", 64 << 20)?;
    common(&db, 16 << 10)?;
    if let Some(bytes) = options.max_bytes {
        let page: i64 = db.pragma_query_value(None, "page_size", |r| r.get(0))?;
        let pages = i64::try_from(bytes).unwrap_or(i64::MAX) / page.max(1);
        db.pragma_update(None, "max_page_count", pages.max(1))?;
    }
    if options.check {
        let found: String = db.query_row("PRAGMA quick_check(1)", [], |r| r.get(0))?;
        if found != "ok" {
            return Err(LedgerError::Corrupt(found));
        }
    }
    let found = integer(&db, "user_version")?;
    let db = sql::Connection::Sqlite(db);
    migrate(&db, found)?;
    Ok(Opened { db, lock })
}

/// Opens the database of this name in memory, creates or migrates it.
pub(super) fn memory(name: &str) -> Result<sql::Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_URI
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(format!("file:/{name}?vfs=memdb"), flags)?;
    db.pragma_update(None, "journal_mode", "MEMORY")?;
    common(&db, 16 << 10)?;
    let found = integer(&db, "user_version")?;
    let db = sql::Connection::Sqlite(db);
    migrate(&db, found)?;
    Ok(db)
}

/// Opens the file, which must exist, for reading.
pub(crate) fn reader(path: &Path) -> Result<Connection> {
    let db = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    common(&db, 4 << 10)?;
    Ok(db)
}

/// Makes a file that is there and empty into a ledger without a row, to be filled in one go. Without a journal: it is made anew when
/// that fails.
pub(crate) fn blank(path: &Path) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    migrate(&sql::Connection::Sqlite(Connection::open_with_flags(path, flags)?), 0)?;
    let db = Connection::open_with_flags(path, flags)?;
    common(&db, 16 << 10)?;
    db.pragma_update(None, "journal_mode", "OFF")?;
    db.pragma_update(None, "synchronous", "OFF")?;
    // Jobs and devices refer to each other; all of it is checked when the file is looked through.
    db.pragma_update(None, "foreign_keys", false)?;
    Ok(db)
}

/// Checks that this version has written a file that is opened for reading only.
pub(super) fn check_schema(db: &Connection) -> Result<()> {
    identify(db)?;
    let found = integer(db, "user_version")?;
    if found < version(MIGRATIONS.len()) {
        return Err(LedgerError::Unavailable(format!(
            "its schema {found} is of an earlier version; the controller brings it up to date when it starts"
        )));
    }
    Ok(())
}

/// Checks a file that is opened for reading only: the whole of it, and that this version has written it.
pub(super) fn check(db: &Connection) -> Result<()> {
    check_schema(db)?;
    for pragma in [
        "PRAGMA integrity_check(1)",
        "SELECT 'a row of ' || \"table\" || ' refers to nothing' FROM pragma_foreign_key_check LIMIT 1",
    ] {
        let mut get = db.prepare(pragma)?;
        let mut rows = get.query([])?;
        let found: String = rows.next()?.map_or_else(|| Ok("ok".to_owned()), |row| row.get(0))?;
        if found != "ok" {
            return Err(LedgerError::Corrupt(found));
        }
    }
    Ok(())
}

fn common(db: &Connection, cache_kib: i64) -> Result<()> {
    db.pragma_update(None, "foreign_keys", true)?;
    db.pragma_update(None, "temp_store", "MEMORY")?;
    db.pragma_update(None, "cache_size", -cache_kib)?;
    db.busy_timeout(Duration::from_secs(5))?;
    // One plan for a statement, whatever is bound: else SQLite compiles most of them anew each time, as another value could ask for
    // another plan. That took a quarter of all CPU time.
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    db.set_prepared_statement_cache_capacity(128);
    Ok(())
}

/// How long a lock may outlast whoever gave it up: a program that they are just starting holds it until it runs (flock(2), fork(2)).
const LET_GO: Duration = Duration::from_secs(1);
const LOOK_EVERY: Duration = Duration::from_millis(20);

pub(super) fn lock(path: &Path) -> Result<File> {
    let mut name = path.as_os_str().to_owned();
    name.push("-lock");
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&name)
        .map_err(|e| unavailable(path, &e))?;
    let begun = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if begun.elapsed() < LET_GO => std::thread::sleep(LOOK_EVERY),
            Err(TryLockError::WouldBlock) => {
                return Err(LedgerError::Unavailable(format!(
                    "{} is in use by another process",
                    path.display()
                )));
            }
            Err(TryLockError::Error(e)) => return Err(unavailable(path, &e)),
        }
    }
}

/// `SQLite` gives the write-ahead log the mode of the file.
fn private_file(path: &Path) -> std::io::Result<()> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)?;
    if file.metadata()?.permissions().mode() & 0o077 != 0 {
        file.set_permissions(Permissions::from_mode(0o600))?;
    }
    Ok(())
}

pub(super) fn unavailable(path: &Path, error: &std::io::Error) -> LedgerError {
    match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => LedgerError::Full,
        _ => LedgerError::Unavailable(format!("{}: {error}", path.display())),
    }
}

fn integer(db: &Connection, pragma: &str) -> Result<i64> {
    Ok(db.pragma_query_value(None, pragma, |r| r.get(0))?)
}

/// Refuses files of other programs and of newer versions before anything is written to them.
pub(super) fn identify(db: &Connection) -> Result<()> {
    let application = integer(db, "application_id")?;
    let tables: i64 = db.query_row("SELECT count(*) FROM sqlite_schema", [], |r| r.get(0))?;
    if application != APPLICATION && (application != 0 || tables != 0) {
        return Err(LedgerError::Corrupt("the file belongs to another program".to_owned()));
    }
    let (found, supported) = (integer(db, "user_version")?, version(MIGRATIONS.len()));
    if found > supported {
        Err(LedgerError::Newer { found, supported })
    } else {
        Ok(())
    }
}

fn version(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn migrate(db: &sql::Connection, found: i64) -> Result<()> {
    for (index, sql) in MIGRATIONS.iter().enumerate() {
        let to = version(index + 1);
        if to <= found {
            continue;
        }
        db.run(&["BEGIN EXCLUSIVE"])?;
        db.execute_batch(sql)?;
        if to == CHAINED {
            audit::chain_all(db)?;
        }
        db.execute_batch(&format!(
            "PRAGMA user_version = {to}; PRAGMA application_id = {APPLICATION}"
        ))?;
        db.run(&["COMMIT"])?;
        tracing::info!(version = to, "the ledger's schema was migrated");
    }
    Ok(())
}

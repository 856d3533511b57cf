//! The ledger in one `SQLite` file (WAL, `synchronous=FULL`).

pub(crate) mod backup;
mod open;

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use crate::sql::Connection;
use crate::store::{Source, SqlLedger};
use crate::{LedgerError, Result, Way};

pub(crate) use open::{blank, reader};

/// Threads that read, each from its own read-only connection.
const READERS: usize = 4;

/// How to open a [`SqliteLedger`].
#[derive(Debug, Clone, Default)]
pub struct SqliteOptions {
    /// The size that the file may reach, in bytes; then writes fail with [`LedgerError::Full`]. The write-ahead log comes on
    /// top.
    pub max_bytes: Option<u64>,
    /// Read the whole file and check it (`PRAGMA quick_check`) before opening; about a second per 500 MB.
    pub check: bool,
}

/// One `SQLite` file.
#[derive(Debug)]
pub enum Sqlite {}

/// The ledger in one `SQLite` file.
pub type SqliteLedger = SqlLedger<Sqlite>;

impl SqliteLedger {
    /// Opens the file, creates it (mode 0600) or migrates it. Blocks.
    ///
    /// One process at a time: a lock beside the file (`<file>-lock`) keeps a second one out, which fails with `Unavailable`
    /// and may try again. Epochs would fence two writers too, but two processes on one file usually means two pods on one
    /// network volume, where `SQLite`'s own locks cannot be relied on. The lock ends with the process, however it ends.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(path, &SqliteOptions::default())
    }

    /// As [`open`](Self::open), with options.
    pub fn open_with(path: impl AsRef<Path>, options: &SqliteOptions) -> Result<Self> {
        let path = path.as_ref();
        let open::Opened { db, lock } = open::writer(path, options)?;
        let writer = Writer { db, _lock: Lock(lock) };
        Self::start(writer, readers(path)?)
    }

    /// The database of this name in this process's memory, made where there is none: it lasts as long as somebody has it open. There
    /// are no threads, whoever asks does the work; so what happens follows from the order of questions alone. Nothing survives the
    /// process: for simulations and tests.
    pub fn in_memory(name: &str, way: Arc<dyn Way>) -> Result<Self> {
        Ok(Self::direct(open::memory(name)?, way))
    }

    /// Opens a file that is there for reading only, and checks the whole of it (`PRAGMA integrity_check`); another process may
    /// write meanwhile. Every write fails. Blocks, for seconds per gigabyte.
    pub fn open_for_reading(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        open::check(&open::reader(path)?)?;
        Self::for_reading(readers(path)?)
    }

    /// Opens a file that is there for reading only, as replicas do beside the process that writes. Every write fails.
    pub fn open_beside(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        open::check_schema(&open::reader(path)?)?;
        Self::for_reading(readers(path)?)
    }
}

fn readers(path: &Path) -> Result<Vec<Reader>> {
    let reader = |_| open::reader(path).map(|db| Reader(Connection::Sqlite(db)));
    (0..READERS).map(reader).collect()
}

/// The connection that reads; it is never lost.
struct Reader(Connection);

impl Source for Reader {
    fn get(&mut self) -> Result<&Connection> {
        Ok(&self.0)
    }

    fn failed(&mut self, _: &LedgerError) -> bool {
        false
    }
}

/// The connection that writes, and the lock that keeps other processes out while it lives.
struct Writer {
    // The file is closed before the lock is given back.
    db: Connection,
    _lock: Lock,
}

impl Source for Writer {
    fn get(&mut self) -> Result<&Connection> {
        Ok(&self.db)
    }

    fn failed(&mut self, error: &LedgerError) -> bool {
        // Copied back, the write-ahead log's own space can be used again.
        if *error == LedgerError::Full
            && let Err(error) = self.copy_back()
        {
            tracing::warn!(%error, "the ledger is out of space and could not copy its log back");
        }
        false
    }
}

impl Writer {
    fn copy_back(&self) -> crate::sql::Result<()> {
        let mut checkpoint = self.db.prepare_cached("PRAGMA wal_checkpoint(PASSIVE)")?;
        checkpoint.query_row([], |_| Ok(()))
    }
}

/// Closing the file alone leaves the lock to a process that is being forked just now, until that has started.
struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        if let Err(error) = self.0.unlock() {
            tracing::warn!(%error, "the ledger's lock was not given back");
        }
    }
}

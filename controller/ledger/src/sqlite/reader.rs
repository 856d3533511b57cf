//! The threads that read.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use super::open;
use crate::{LedgerError, Result};

const THREADS: usize = 2;
const BACKLOG: usize = 1024;

type Read = Box<dyn FnOnce(&Connection) + Send>;

/// The way to the threads.
#[derive(Debug)]
pub(super) struct Readers(mpsc::Sender<Read>);

impl Readers {
    /// Runs `work` on the latest committed state, the same one for all of its statements.
    pub(super) async fn run<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let read = move |db: &Connection| {
            // The caller may have given up meanwhile.
            let _ = answer.send(snapshot(db, work));
        };
        self.0.send(Box::new(read)).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }
}

fn snapshot<T>(db: &Connection, work: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
    db.prepare_cached("BEGIN DEFERRED")?.execute([])?;
    let result = work(db);
    if !db.is_autocommit() {
        db.prepare_cached("ROLLBACK")?.execute([])?;
    }
    result
}

fn gone() -> LedgerError {
    LedgerError::Unavailable("the ledger's readers have ended".to_owned())
}

/// Starts the threads; they end when the [`Readers`] are dropped.
pub(super) fn start(path: &Path) -> Result<(Readers, Vec<JoinHandle<()>>)> {
    let (sender, receiver) = mpsc::channel::<Read>(BACKLOG);
    let receiver = Arc::new(Mutex::new(receiver));
    let mut threads = Vec::with_capacity(THREADS);
    for _ in 0..THREADS {
        let db = open::reader(path)?;
        let receiver = Arc::clone(&receiver);
        let thread = std::thread::Builder::new()
            .name("ledger-reader".to_owned())
            .spawn(move || {
                loop {
                    // One thread waits in line for the next read, the others wait for it.
                    let next = receiver.lock().unwrap_or_else(PoisonError::into_inner).blocking_recv();
                    let Some(read) = next else { return };
                    read(&db);
                }
            })
            .map_err(|e| LedgerError::Unavailable(format!("cannot start a reader of the ledger: {e}")))?;
        threads.push(thread);
    }
    Ok((Readers(sender), threads))
}

//! The threads that read.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use tokio::sync::{Semaphore, mpsc, oneshot};

use super::direct::Direct;
use super::source::{Source, begin};
use crate::sql::Connection;
use crate::{LedgerError, Result};

const BACKLOG: usize = 1024;

/// What is to be read, or why it cannot be.
pub(super) type Read = Box<dyn FnOnce(Result<&Connection>) -> Result<()> + Send>;

/// The way to whoever reads.
#[derive(Debug)]
pub(super) enum Readers {
    /// Threads.
    Threads {
        line: mpsc::Sender<Read>,
        /// So many surveys there may be at a time.
        surveys: Arc<Semaphore>,
    },
    /// Whoever asks.
    Direct(Arc<Direct>),
}

impl Readers {
    /// Runs `work` on the latest committed state, the same one for all of its statements.
    pub(super) async fn run<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let read = move |db: Result<&Connection>| {
            let result = db.and_then(work);
            let outcome = result.as_ref().map(|_| ()).map_err(Clone::clone);
            // The caller may have given up meanwhile.
            let _ = answer.send(result);
            outcome
        };
        match self {
            Self::Threads { line, .. } => {
                line.send(Box::new(read)).await.map_err(|_| gone())?;
                answered.await.map_err(|_| gone())?
            }
            Self::Direct(direct) => {
                direct.way.there(false).await?;
                direct.with(|source| serve(source, Box::new(read)));
                direct.way.back(false).await?;
                answered.await.map_err(|_| gone())?
            }
        }
    }

    /// Runs a read that may go past a whole fleet, which takes a tenth of a second and more. Two readers are left for those who do not:
    /// devices wait for them, and whoever decides whose turn it is.
    pub(super) async fn survey<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T> + Send + 'static,
    {
        let permit = match self {
            Self::Threads { surveys, .. } => Some(Arc::clone(surveys).acquire_owned().await.map_err(|_| gone())?),
            Self::Direct(_) => None,
        };
        // The reader is busy until it has read, even when nobody waits for that any more.
        self.run(move |db| {
            let _permit = permit;
            work(db)
        })
        .await
    }
}

fn serve(source: &mut impl Source, read: Read) {
    let outcome = match begin(source, Connection::begin_read) {
        Err(error) => read(Err(error)),
        Ok(db) => {
            let outcome = read(Ok(db));
            let ended = if db.is_autocommit() {
                Ok(())
            } else {
                db.run(&["ROLLBACK"])
            };
            outcome.and(ended.map_err(LedgerError::from))
        }
    };
    if let Err(error) = outcome {
        source.failed(&error);
    }
}

fn gone() -> LedgerError {
    LedgerError::Unavailable("the ledger's readers have ended".to_owned())
}

/// Starts a thread for each source; they end when the [`Readers`] are dropped.
pub(super) fn start(sources: Vec<impl Source>) -> Result<(Readers, Vec<JoinHandle<()>>)> {
    let (line, receiver) = mpsc::channel::<Read>(BACKLOG);
    let receiver = Arc::new(Mutex::new(receiver));
    let surveys = Arc::new(Semaphore::new(sources.len().saturating_sub(2).max(1)));
    let mut threads = Vec::with_capacity(sources.len());
    for mut source in sources {
        let receiver = Arc::clone(&receiver);
        let thread = std::thread::Builder::new()
            .name("ledger-reader".to_owned())
            .spawn(move || {
                loop {
                    // One thread waits in line for the next read, the others wait for it.
                    let next = receiver.lock().unwrap_or_else(PoisonError::into_inner).blocking_recv();
                    let Some(read) = next else { return };
                    serve(&mut source, read);
                }
            })
            .map_err(|e| LedgerError::Unavailable(format!("cannot start a reader of the ledger: {e}")))?;
        threads.push(thread);
    }
    Ok((Readers::Threads { line, surveys }, threads))
}

/// The way of those who do the work themselves.
pub(super) fn direct(direct: Arc<Direct>) -> Readers {
    Readers::Direct(direct)
}

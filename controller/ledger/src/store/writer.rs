//! The thread that writes.

use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::sync::{mpsc, oneshot};

use super::direct::Direct;
use super::source::{Source, begin};
use crate::sql::Connection;
use crate::{LedgerError, Result};

/// Operations that share one commit at most.
const GROUP: usize = 256;
/// Operations that may wait; more of them wait outside, which slows their callers down.
const BACKLOG: usize = 1024;

/// The way to whoever writes.
#[derive(Debug)]
pub(super) enum Writer {
    /// A thread.
    Thread(mpsc::Sender<Box<dyn Operation>>),
    /// Whoever asks.
    Direct(Arc<Direct>),
}

impl Writer {
    /// Runs `work` in a transaction and answers once it is on disk.
    pub(super) async fn run<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let pending = Pending {
            work: Some(work),
            result: None,
            answer,
        };
        match self {
            Self::Thread(sender) => {
                sender.send(Box::new(pending)).await.map_err(|_| gone())?;
                answered.await.map_err(|_| gone())?
            }
            Self::Direct(direct) => {
                direct.way.there(true).await?;
                let mut group: [Box<dyn Operation>; 1] = [Box::new(pending)];
                let outcome = direct.with(|source| commit(source, &mut group));
                let [operation] = group;
                operation.answer(outcome);
                direct.way.back(true).await?;
                answered.await.map_err(|_| gone())?
            }
        }
    }

    /// How many operations wait.
    pub(super) fn backlog(&self) -> usize {
        match self {
            Self::Thread(sender) => sender.max_capacity() - sender.capacity(),
            Self::Direct(_) => 0,
        }
    }
}

fn gone() -> LedgerError {
    LedgerError::Unavailable("the ledger's writer has ended".to_owned())
}

/// Something to be done in a transaction and answered after its commit.
pub(super) trait Operation: Send {
    /// Does it and keeps the result; an error undoes what it did.
    fn run(&mut self, db: &Connection) -> std::result::Result<(), LedgerError>;
    /// Answers: with the result, or with the error that befell the whole group.
    fn answer(self: Box<Self>, group: std::result::Result<(), LedgerError>);
}

struct Pending<T, F> {
    work: Option<F>,
    result: Option<Result<T>>,
    answer: oneshot::Sender<Result<T>>,
}

impl<T, F> Operation for Pending<T, F>
where
    T: Send,
    F: FnOnce(&Connection) -> Result<T> + Send,
{
    fn run(&mut self, db: &Connection) -> std::result::Result<(), LedgerError> {
        let Some(work) = self.work.take() else { return Ok(()) };
        let result = work(db);
        let outcome = result.as_ref().map(|_| ()).map_err(Clone::clone);
        self.result = Some(result);
        outcome
    }

    fn answer(self: Box<Self>, group: std::result::Result<(), LedgerError>) {
        let Self { result, answer, .. } = *self;
        // Nobody waits any more when the caller gave up; what was done stands.
        let _ = answer.send(group.and_then(|()| result.unwrap_or_else(|| Err(gone()))));
    }
}

/// A way that leads nowhere, for a ledger that is opened for reading only.
pub(super) fn none() -> Writer {
    Writer::Thread(mpsc::channel(1).0)
}

/// The way of those who do the work themselves.
pub(super) fn direct(direct: Arc<Direct>) -> Writer {
    Writer::Direct(direct)
}

/// Starts the thread; it ends, and gives its connection back, when the [`Writer`] is dropped and all is done.
pub(super) fn start(mut source: impl Source) -> Result<(Writer, JoinHandle<()>)> {
    let (sender, mut receiver) = mpsc::channel::<Box<dyn Operation>>(BACKLOG);
    let thread = std::thread::Builder::new()
        .name("ledger-writer".to_owned())
        .spawn(move || {
            let mut group = Vec::with_capacity(GROUP);
            while let Some(first) = receiver.blocking_recv() {
                group.push(first);
                while group.len() < GROUP
                    && let Ok(next) = receiver.try_recv()
                {
                    group.push(next);
                }
                let outcome = commit(&mut source, &mut group);
                if let Err(error) = &outcome {
                    source.failed(error);
                }
                for operation in group.drain(..) {
                    operation.answer(outcome.clone());
                }
            }
        })
        .map_err(|e| LedgerError::Unavailable(format!("cannot start the ledger's writer: {e}")))?;
    Ok((Writer::Thread(sender), thread))
}

/// Runs a group in one transaction. When this fails, nothing of the group is to be taken for stored, not even that an operation
/// was refused: what it was refused for may have been undone with the rest.
fn commit(source: &mut impl Source, group: &mut [Box<dyn Operation>]) -> Result<()> {
    let db = begin(source, Connection::begin_write)?;
    let outcome = in_transaction(db, group);
    if outcome.is_err()
        && !db.is_autocommit()
        && let Err(error) = db.run(&["ROLLBACK"])
    {
        tracing::error!(%error, "the ledger could not roll back");
    }
    outcome
}

fn in_transaction(db: &Connection, group: &mut [Box<dyn Operation>]) -> Result<()> {
    db.run(&["SAVEPOINT operation"])?;
    for operation in group.iter_mut() {
        match operation.run(db) {
            Ok(()) => db.run(&["RELEASE operation", "SAVEPOINT operation"])?,
            // Out of space or memory, SQLite may have rolled back the transaction by itself, and the others' work with it.
            Err(error) if db.is_autocommit() => return Err(error),
            Err(_) => db.run(&["ROLLBACK TO operation"])?,
        }
    }
    // PostgreSQL would roll back a transaction that has failed, and call that a success; releasing fails first.
    Ok(db.run(&["RELEASE operation", "COMMIT"])?)
}

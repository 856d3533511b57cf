//! The ledger in an SQL database, whichever it is.
//!
//! One thread writes: it takes all operations that wait, runs each in a savepoint of one transaction, commits once and then
//! answers them. Others read, each from its own connection, so that a long count holds up no decision.

mod archive;
pub(crate) mod audit;
mod candidate;
mod certificate;
mod claim;
mod column;
mod crl;
mod declare;
mod device;
mod direct;
mod door;
mod enlist;
mod mark;
mod member;
mod operations;
mod outcome;
mod query;
mod reader;
mod recover;
mod renewed;
mod retirement;
mod revocation;
mod rotation;
mod source;
mod standing;
mod tally;
mod term;
mod waiting;
mod write;
mod writer;

use std::marker::PhantomData;
use std::sync::Arc;
use std::thread::JoinHandle;

use crate::sql::Connection;
use crate::{Result, Way};
use certwave_protocol::ids::Epoch;

pub(crate) use source::Source;

/// A ledger in the SQL database `D`.
#[derive(Debug)]
pub struct SqlLedger<D> {
    database: PhantomData<D>,
    writer: writer::Writer,
    readers: reader::Readers,
    /// The readers', then the writer's.
    threads: Vec<JoinHandle<()>>,
}

impl<D> SqlLedger<D> {
    /// Starts the threads, one for each source.
    pub(crate) fn start(writer: impl Source, readers: Vec<impl Source>) -> Result<Self> {
        let (readers, mut threads) = reader::start(readers)?;
        let (writer, thread) = writer::start(writer)?;
        threads.push(thread);
        Ok(Self {
            database: PhantomData,
            writer,
            readers,
            threads,
        })
    }

    /// A ledger without threads: whoever asks does the work, one after the other, over this one connection.
    pub(crate) fn direct(connection: Connection, way: Arc<dyn Way>) -> Self {
        let direct = Arc::new(direct::Direct::new(connection, way));
        Self {
            database: PhantomData,
            writer: writer::direct(Arc::clone(&direct)),
            readers: reader::direct(direct),
            threads: Vec::new(),
        }
    }

    /// Starts the threads of a ledger that is opened for reading only: every write fails.
    pub(crate) fn for_reading(readers: Vec<impl Source>) -> Result<Self> {
        let (readers, threads) = reader::start(readers)?;
        Ok(Self {
            database: PhantomData,
            writer: writer::none(),
            readers,
            threads,
        })
    }

    /// Waits for what is under way and closes the database. Without it, dropping the ledger does the same in the background.
    pub async fn close(self) {
        let Self {
            writer,
            readers,
            mut threads,
            ..
        } = self;
        let join = tokio::task::spawn_blocking(move || {
            // The writer comes last: as the last connection it moves SQLite's write-ahead log into the file.
            let last = threads.pop();
            drop(readers);
            for thread in threads {
                ended(thread);
            }
            drop(writer);
            if let Some(last) = last {
                ended(last);
            }
        });
        if join.await.is_err() {
            tracing::error!("closing the ledger was interrupted");
        }
    }

    /// Operations that wait for the writer, for a metric.
    pub(super) fn backlog(&self) -> usize {
        self.writer.backlog()
    }

    async fn read<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T> + Send + 'static,
    {
        self.readers.run(work).await
    }

    async fn survey<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T> + Send + 'static,
    {
        self.readers.survey(work).await
    }

    /// Runs a survey about the object with this uid.
    async fn survey_of<T, F>(&self, uid: &str, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection, &str) -> Result<T> + Send + 'static,
    {
        let uid = uid.to_owned();
        self.survey(move |db| work(db, &uid)).await
    }

    /// Runs a read about the object with this uid.
    async fn read_of<T, F>(&self, uid: &str, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection, &str) -> Result<T> + Send + 'static,
    {
        let uid = uid.to_owned();
        self.read(move |db| work(db, &uid)).await
    }

    /// Runs a write under an epoch; what it is about, it checks itself.
    async fn fenced<T, F>(&self, epoch: Epoch, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection, &term::Term) -> Result<T> + Send + 'static,
    {
        self.writer
            .run(move |db| {
                let term = term::Term::of(db, epoch)?;
                work(db, &term)
            })
            .await
    }
}

fn ended(thread: JoinHandle<()>) {
    if thread.join().is_err() {
        tracing::error!("a thread of the ledger panicked");
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;
    use crate::SqliteLedger;

    #[tokio::test]
    async fn whoever_asks_for_little_does_not_wait_for_surveys() {
        let directory = tempfile::tempdir().unwrap();
        let ledger = Arc::new(SqliteLedger::open(directory.path().join("ledger")).unwrap());
        // More than there are readers, each until it is let go.
        let (begun, first) = mpsc::channel();
        let surveys: Vec<_> = (0..8)
            .map(|number| {
                let (ledger, begun, (go, wait)) = (Arc::clone(&ledger), begun.clone(), mpsc::channel::<()>());
                let survey = move |_: &Connection| {
                    let _ = begun.send(number);
                    let _ = wait.recv();
                    Ok(number)
                };
                (go, tokio::spawn(async move { ledger.survey(survey).await }))
            })
            .collect();
        let first = tokio::task::spawn_blocking(move || [first.recv().unwrap(), first.recv().unwrap()]);
        first.await.unwrap();
        let little = tokio::time::timeout(Duration::from_secs(30), ledger.read(|_| Ok(())));
        little.await.unwrap().unwrap();
        for (number, (go, survey)) in surveys.into_iter().enumerate() {
            drop(go);
            assert_eq!(survey.await.unwrap().unwrap(), number);
        }
    }
}

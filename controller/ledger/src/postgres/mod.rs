//! The ledger in a `PostgreSQL` database, which several replicas may share.
//!
//! Every transaction that writes first locks one row (`fence`), so that writers are alone as they are on `SQLite`, and then
//! looks at the epoch: a new leader's epoch waits for the last transaction of the old one, and each later one fails.
//! Connections that are lost are made anew; while that fails, operations fail with `Unavailable` at once. When the connection
//! dies in a commit, nobody knows whether it happened: that is `Unavailable` too, and repeating a write is safe.

pub(crate) mod copy;
mod migrate;
mod options;
mod tls;

use std::sync::Arc;
use std::time::{Duration, Instant};

pub use options::PostgresOptions;

use crate::sql::{Connection, Session};
use crate::store::{Source, SqlLedger};
use crate::{LedgerError, Result};

/// Threads that read, each from its own connection: a slow query of one holds up none of the others.
const READERS: usize = 4;
/// How long to wait before the second attempt to connect; doubled after each further one.
const PAUSE: Duration = Duration::from_millis(100);
/// How long to wait at most.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// A `PostgreSQL` database.
#[derive(Debug)]
pub enum Postgres {}

/// The ledger in a `PostgreSQL` database (14 or later).
pub type PostgresLedger = SqlLedger<Postgres>;

impl PostgresLedger {
    /// Connects, and creates or migrates the schema; another process that does so at the same time is waited for. Blocks.
    /// A role that may only read can open a ledger whose schema is this version's.
    pub fn open(options: &PostgresOptions) -> Result<Self> {
        let options = Arc::new(options.clone());
        let writer = Link::new(&options);
        // The client waits on a runtime of its own, which must not happen on a thread of another one.
        let first = std::thread::spawn(move || {
            let mut writer = writer;
            migrate::migrate(writer.get()?)?;
            Ok::<_, LedgerError>(writer)
        });
        let writer = first
            .join()
            .map_err(|_| LedgerError::Unavailable("connecting to the ledger was interrupted".to_owned()))??;
        let readers = (0..READERS).map(|_| Link::new(&options)).collect();
        Self::start(writer, readers)
    }
}

/// A connection that is made when it is needed.
struct Link {
    options: Arc<PostgresOptions>,
    db: Option<Connection>,
    pause: Duration,
    /// No attempt to connect before this.
    not_before: Option<Instant>,
}

impl Link {
    fn new(options: &Arc<PostgresOptions>) -> Self {
        Self {
            options: Arc::clone(options),
            db: None,
            pause: PAUSE,
            not_before: None,
        }
    }

    fn connect(&mut self) -> Result<Connection> {
        if self.not_before.is_some_and(|time| Instant::now() < time) {
            return Err(LedgerError::Unavailable(
                "the database could not be reached; trying again soon".to_owned(),
            ));
        }
        match self.options.connect() {
            Ok(client) => {
                if self.not_before.is_some() {
                    tracing::info!("the ledger's database is reached again");
                }
                (self.pause, self.not_before) = (PAUSE, None);
                Ok(Connection::Postgres(Box::new(Session::new(client))))
            }
            Err(error) => {
                tracing::warn!(%error, "the ledger's database cannot be reached");
                self.not_before = Some(Instant::now() + self.pause);
                self.pause = (self.pause * 2).min(LONGEST_PAUSE);
                Err(error)
            }
        }
    }
}

impl Source for Link {
    fn get(&mut self) -> Result<&Connection> {
        let db = match self.db.take() {
            Some(db) if !db.is_autocommit() => db,
            _ => self.connect()?,
        };
        Ok(self.db.insert(db))
    }

    fn failed(&mut self, error: &LedgerError) -> bool {
        // Of a connection that was not available nobody knows what is under way on it.
        matches!(error, LedgerError::Unavailable(_)) && self.db.take().is_some()
    }
}

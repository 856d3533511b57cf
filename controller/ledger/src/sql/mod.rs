//! One way to speak SQL to either database: what [`store`](crate::store) needs of a connection, with the names of `rusqlite`.
//!
//! # Writing SQL for both
//! Parameters are `?1`, `?2`; a connection translates what is written otherwise (see each connection). Beyond that, write
//! what both understand:
//! - `CASE WHEN`, not `iif`; `TRUE` and `FALSE`, not 1 and 0, beside a comparison; `IS DISTINCT FROM`, not `IS NOT`.
//! - `ON CONFLICT (columns) DO UPDATE`, and in it the table's name before its own columns: `SET n = tallies.n + 1`.
//! - `RETURNING id`, not the last row's id. `CAST(sum(n) AS BIGINT)`.
//! - `json_each` over a list or an object, its values as text: `CAST(value AS BIGINT)` for numbers.
//! - A parameter's type follows from what it first stands beside; beside a number that is written out, say
//!   `CAST(?1 AS BIGINT)`. Booleans are stored as 0 and 1, so `declared = 1`.
//! - `x || ''` keeps an index from being used. `CROSS JOIN … ON` and `INDEXED BY` tell `SQLite` its way.

mod error;
mod postgres;
mod row;
mod statement;
mod value;

pub(crate) use error::{Error, OptionalExtension, Result};
pub(crate) use postgres::Session;
pub(crate) use row::Row;
pub(crate) use statement::Statement;
pub(crate) use value::{FromSql, Params, ToSql, Value, params};

/// A connection to a database.
#[derive(Debug)]
pub(crate) enum Connection {
    /// To a file.
    Sqlite(rusqlite::Connection),
    /// To a server.
    Postgres(Box<Session>),
}

impl Connection {
    /// A statement, kept for the next time.
    pub(crate) fn prepare_cached(&self, sql: &str) -> Result<Statement<'_>> {
        match self {
            Self::Sqlite(db) => Ok(Statement::Sqlite(db.prepare_cached(sql)?)),
            Self::Postgres(db) => Ok(Statement::Postgres(db, db.prepare(sql)?)),
        }
    }

    /// Runs a script.
    pub(crate) fn execute_batch(&self, sql: &str) -> Result<()> {
        match self {
            Self::Sqlite(db) => Ok(db.execute_batch(sql)?),
            Self::Postgres(db) => db.batch(sql),
        }
    }

    /// Runs statements without parameters or answers, one after the other.
    pub(crate) fn run(&self, statements: &[&str]) -> Result<()> {
        match self {
            Self::Sqlite(db) => {
                for sql in statements {
                    db.prepare_cached(sql)?.execute([])?;
                }
                Ok(())
            }
            Self::Postgres(db) => db.batch(&statements.join("; ")),
        }
    }

    /// Begins a transaction that is alone in writing.
    pub(crate) fn begin_write(&self) -> Result<()> {
        match self {
            Self::Sqlite(_) => self.run(&["BEGIN IMMEDIATE"]),
            Self::Postgres(_) => self.run(&["BEGIN", "SELECT one FROM fence FOR UPDATE"]),
        }
    }

    /// Begins a transaction whose statements all read the same state.
    pub(crate) fn begin_read(&self) -> Result<()> {
        match self {
            Self::Sqlite(_) => self.run(&["BEGIN DEFERRED"]),
            Self::Postgres(_) => self.run(&["BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"]),
        }
    }

    /// No transaction can be open any more, as after an error that ended it, or the connection.
    pub(crate) fn is_autocommit(&self) -> bool {
        match self {
            Self::Sqlite(db) => db.is_autocommit(),
            Self::Postgres(db) => db.is_closed(),
        }
    }
}

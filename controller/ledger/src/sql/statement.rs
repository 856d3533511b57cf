//! Prepared statements.

use rusqlite::params_from_iter;

use super::row::{Mapped, Rows};
use super::{Error, Params, Result, Row, Session};

/// A prepared statement.
pub(crate) enum Statement<'c> {
    /// Of a file.
    Sqlite(rusqlite::CachedStatement<'c>),
    /// Of a server.
    Postgres(&'c Session, postgres::Statement),
}

#[allow(clippy::needless_pass_by_value, reason = "parameters are made for one call")]
impl Statement<'_> {
    /// Runs it; answers how many rows it changed.
    pub(crate) fn execute(&mut self, params: impl Params) -> Result<usize> {
        match self {
            Self::Sqlite(statement) => Ok(statement.execute(params_from_iter(params.values()))?),
            Self::Postgres(db, statement) => db.execute(statement, &params.values()),
        }
    }

    /// The rows that it finds.
    pub(crate) fn query(&mut self, params: impl Params) -> Result<Rows<'_>> {
        match self {
            Self::Sqlite(statement) => Ok(Rows::Sqlite(statement.query(params_from_iter(params.values()))?)),
            Self::Postgres(db, statement) => {
                Ok(Rows::Postgres(db.query(statement, &params.values())?.into_iter(), None))
            }
        }
    }

    /// The rows that it finds, each made into something.
    pub(crate) fn query_map<T, F>(&mut self, params: impl Params, map: F) -> Result<Mapped<'_, F>>
    where
        F: FnMut(&Row<'_>) -> Result<T>,
    {
        Ok(Mapped {
            rows: self.query(params)?,
            map,
        })
    }

    /// The first row; fails with [`Error::NoRow`] if there is none.
    pub(crate) fn query_row<T>(&mut self, params: impl Params, map: impl FnOnce(&Row<'_>) -> Result<T>) -> Result<T> {
        match self.query(params)?.next()? {
            Some(row) => map(&row),
            None => Err(Error::NoRow),
        }
    }

    /// Whether it finds any row.
    pub(crate) fn exists(&mut self, params: impl Params) -> Result<bool> {
        Ok(self.query(params)?.next()?.is_some())
    }
}

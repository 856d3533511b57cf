//! Rows that a query finds.

use super::{Error, FromSql, Result, Value};

/// One row.
#[derive(Clone, Copy)]
pub(crate) enum Row<'r> {
    /// From a file.
    Sqlite(&'r rusqlite::Row<'r>),
    /// From a server.
    Postgres(&'r postgres::Row),
}

impl<'r> Row<'r> {
    /// The value of a column, counted from 0.
    pub(crate) fn get<T: FromSql>(&self, index: usize) -> Result<T> {
        let value = self.value(index)?;
        T::from_sql(value).map_err(|why| Error::column(index, why))
    }

    fn value(&self, index: usize) -> Result<Value<'r>> {
        match self {
            Self::Sqlite(row) => Value::try_from(row.get_ref(index)?).map_err(|why| Error::column(index, why)),
            Self::Postgres(row) => Ok(row.try_get(index)?),
        }
    }
}

/// Rows, one after the other.
pub(crate) enum Rows<'s> {
    /// From a file.
    Sqlite(rusqlite::Rows<'s>),
    /// From a server: those to come, and the present one.
    Postgres(std::vec::IntoIter<postgres::Row>, Option<postgres::Row>),
}

impl Rows<'_> {
    /// The next one.
    pub(crate) fn next(&mut self) -> Result<Option<Row<'_>>> {
        match self {
            Self::Sqlite(rows) => Ok(rows.next()?.map(Row::Sqlite)),
            Self::Postgres(rows, present) => {
                *present = rows.next();
                Ok(present.as_ref().map(Row::Postgres))
            }
        }
    }
}

/// Rows, made into something else.
pub(crate) struct Mapped<'s, F> {
    pub(super) rows: Rows<'s>,
    pub(super) map: F,
}

impl<T, F> Iterator for Mapped<'_, F>
where
    F: FnMut(&Row<'_>) -> Result<T>,
{
    type Item = Result<T>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.rows.next() {
            Ok(Some(row)) => Some((self.map)(&row)),
            Ok(None) => None,
            Err(error) => Some(Err(error)),
        }
    }
}

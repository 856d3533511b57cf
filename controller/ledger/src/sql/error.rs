//! What goes wrong between us and the database.

use postgres::error::SqlState;
use rusqlite::ErrorCode;

use crate::LedgerError;

/// What a statement answers.
pub(crate) type Result<T> = std::result::Result<T, Error>;

/// Why a statement failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// `SQLite`'s word.
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    /// `PostgreSQL`'s word.
    #[error(transparent)]
    Postgres(#[from] postgres::Error),
    /// One row was expected.
    #[error("no row was found")]
    NoRow,
    /// A value is not what it should be.
    #[error("column {index}: {why}")]
    Column {
        /// Which, from 0.
        index: usize,
        /// What is wrong.
        why: String,
    },
}

impl Error {
    /// The value of a column is not what it should be.
    #[allow(clippy::needless_pass_by_value, reason = "it is made for this")]
    pub(crate) fn column(index: usize, why: impl ToString) -> Self {
        Self::Column {
            index,
            why: why.to_string(),
        }
    }
}

impl From<Error> for LedgerError {
    fn from(error: Error) -> Self {
        match error {
            Error::Sqlite(error) => error.into(),
            Error::Postgres(error) => error.into(),
            Error::NoRow => Self::Unavailable(error.to_string()),
            Error::Column { .. } => Self::Corrupt(error.to_string()),
        }
    }
}

impl From<rusqlite::Error> for LedgerError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::Full,
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::Corrupt(error.to_string()),
            Some(ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch) => Self::Invalid(error.to_string()),
            _ => Self::Unavailable(error.to_string()),
        }
    }
}

impl From<postgres::Error> for LedgerError {
    fn from(error: postgres::Error) -> Self {
        let Some(said) = error.as_db_error() else {
            let why = std::error::Error::source(&error).map_or_else(String::new, |source| format!(": {source}"));
            return Self::Unavailable(format!("{error}{why}"));
        };
        let (code, said) = (said.code(), format!("{} ({})", said.message(), said.code().code()));
        if *code == SqlState::DISK_FULL {
            Self::Full
        } else if [SqlState::DATA_CORRUPTED, SqlState::INDEX_CORRUPTED].contains(code) {
            Self::Corrupt(said)
        } else if ["22", "23"].iter().any(|class| code.code().starts_with(class)) {
            // Data exceptions and violated constraints.
            Self::Invalid(said)
        } else {
            Self::Unavailable(said)
        }
    }
}

/// A row that need not be there.
pub(crate) trait OptionalExtension<T> {
    /// `None` where there is no row.
    fn optional(self) -> Result<Option<T>>;
}

impl<T> OptionalExtension<T> for Result<T> {
    fn optional(self) -> Result<Option<T>> {
        match self {
            Ok(value) => Ok(Some(value)),
            Err(Error::NoRow) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

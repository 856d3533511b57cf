//! Which ledger to open.
#![allow(clippy::doc_markdown, reason = "people read the help as it is written here")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use certwave_ledger::{Ledger, LedgerError, Place, PostgresLedger, PostgresOptions, SqliteLedger};

/// The ledger, on the command line.
#[derive(Debug, clap::Args)]
pub struct LedgerArguments {
    /// The ledger: a file (SQLite, one replica), or the URL of a PostgreSQL database that replicas share:
    /// `postgres://user@host/database`. Its `sslmode` is `verify-full` (the default) or `disable`. The password comes from
    /// the file below, PGPASSWORD, or the URL.
    #[arg(
        long,
        env = "CERTWAVE_LEDGER",
        hide_env_values = true,
        default_value = "/var/lib/certwave/ledger.sqlite"
    )]
    ledger: String,
    /// PEM file with the CAs that may vouch for the PostgreSQL server; else the system's.
    #[arg(long, env = "CERTWAVE_LEDGER_CA")]
    ledger_ca: Option<PathBuf>,
    /// File with the password for PostgreSQL.
    #[arg(long, env = "CERTWAVE_LEDGER_PASSWORD_FILE")]
    ledger_password_file: Option<PathBuf>,
}

impl LedgerArguments {
    /// Opens it, creating or migrating it as needed. Blocks.
    ///
    /// # Errors
    /// When it cannot be opened; nothing says the password.
    pub fn open(&self) -> Result<Arc<dyn Ledger>, LedgerError> {
        match self.file() {
            Some(path) => Ok(Arc::new(SqliteLedger::open(path)?)),
            None => self.open_postgres(),
        }
    }

    /// Opens it only to look at it: a file that is used by another process too, and may not be written then. Blocks, for seconds
    /// per gigabyte of a file, the whole of which is checked.
    ///
    /// # Errors
    /// When it cannot be opened, or the file is damaged; nothing says the password.
    pub fn open_for_reading(&self) -> Result<Arc<dyn Ledger>, LedgerError> {
        match self.file() {
            Some(path) => Ok(Arc::new(SqliteLedger::open_for_reading(path)?)),
            None => self.open_postgres(),
        }
    }

    /// Opens it for reading, beside the process that writes: a file as it is, unchecked; a database with whatever its role may
    /// do, which for readers should be reading alone. Blocks.
    ///
    /// # Errors
    /// When it is not there, or its schema is not this version's; nothing says the password.
    pub fn open_beside(&self) -> Result<Arc<dyn Ledger>, LedgerError> {
        match self.file() {
            Some(path) => Ok(Arc::new(SqliteLedger::open_beside(path)?)),
            None => self.open_postgres(),
        }
    }

    /// The file, unless it is in PostgreSQL.
    pub fn file(&self) -> Option<&Path> {
        (!self.is_postgres()).then(|| Path::new(&self.ledger))
    }

    /// Where it is.
    ///
    /// # Errors
    /// When the URL or the files that belong to it are not understood; nothing says the password.
    pub fn place(&self) -> Result<Place, LedgerError> {
        match self.file() {
            Some(path) => Ok(Place::from(path)),
            None => Ok(Place::from(self.postgres()?)),
        }
    }

    fn open_postgres(&self) -> Result<Arc<dyn Ledger>, LedgerError> {
        Ok(Arc::new(PostgresLedger::open(&self.postgres()?)?))
    }

    fn postgres(&self) -> Result<PostgresOptions, LedgerError> {
        let password = match &self.ledger_password_file {
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .map_err(|e| LedgerError::Unavailable(format!("the password file {}: {e}", path.display())))?;
                Some(text.trim_end_matches(['\r', '\n']).to_owned())
            }
            None => std::env::var("PGPASSWORD").ok(),
        };
        PostgresOptions::new(&self.ledger, password.as_deref(), self.ledger_ca.as_deref())
    }

    /// What to call it in messages: the file, or what kind of database, as the URL may hold a password.
    pub fn name(&self) -> &str {
        if self.is_postgres() {
            "in PostgreSQL"
        } else {
            &self.ledger
        }
    }

    fn is_postgres(&self) -> bool {
        ["postgres://", "postgresql://"]
            .iter()
            .any(|p| self.ledger.starts_with(p))
    }
}

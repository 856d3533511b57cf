//! Copies of a ledger, taken while it is in use, and put back.
//!
//! A copy is an `SQLite` file, a ledger by itself, whichever database it is of and wherever it goes: a backup of one can be restored
//! into the other, which is also how a ledger moves from a file to a server.

use std::path::{Path, PathBuf};

use certwave_core::model::Millis;

use crate::sqlite::backup as file;
use crate::{Ledger as _, PostgresLedger, PostgresOptions, Provenance, Result, Totals, postgres};

/// Where a ledger is.
#[derive(Debug, Clone)]
pub enum Place {
    /// In an `SQLite` file.
    File(PathBuf),
    /// In a `PostgreSQL` database.
    Database(Box<PostgresOptions>),
}

impl<P: AsRef<Path> + ?Sized> From<&P> for Place {
    fn from(path: &P) -> Self {
        Self::File(path.as_ref().to_owned())
    }
}

impl From<PostgresOptions> for Place {
    fn from(options: PostgresOptions) -> Self {
        Self::Database(Box::new(options))
    }
}

/// What [`backup`] has copied, or [`restore`] put back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copied {
    /// Which ledger it is.
    pub provenance: Provenance,
    /// What it holds.
    pub totals: Totals,
    /// Where the file lies now that was there before, if one was.
    pub aside: Option<PathBuf>,
}

/// Copies the ledger as it stands at one instant into a file of its own (mode 0600), which appears whole or not at all. The
/// controller may go on meanwhile: no writer waits. Of a database it takes a role that may only read.
///
/// # Errors
/// `Unavailable` if `to` exists or the ledger's schema is of an earlier version, `Corrupt` if the copy is damaged or the chain of
/// its audit broken, `Full` without space.
pub async fn backup(from: impl Into<Place>, to: &Path) -> Result<Copied> {
    match from.into() {
        Place::File(from) => file::write(to, move |part| file::copy(&from, part)).await,
        Place::Database(options) => file::write(to, move |part| postgres::copy::out(&options, part)).await,
    }
}

/// Puts a backup where a ledger is to be: into a file that no process uses, or into a database that holds no ledger yet. From then
/// on it counts as restored: nothing is issued until what was lost has been taken in again. A file that was there before is kept
/// beside it.
///
/// # Errors
/// `Unavailable` if the file is in use; or if it holds more than the backup, is another ledger or cannot be read, unless `force` is
/// given; or if the database holds a ledger; `Corrupt` if the backup is damaged or the chain of its audit broken.
pub async fn restore(from: &Path, to: impl Into<Place>, now: Millis, force: bool) -> Result<Copied> {
    let options = match to.into() {
        Place::File(to) => return file::put_back(from, &to, now, force).await,
        Place::Database(options) => options,
    };
    file::looked_through(from).await?;
    let (source, target) = (from.to_owned(), options.clone());
    file::blocking(move || postgres::copy::into(&source, &target, now)).await?;
    let ledger = PostgresLedger::open(&options)?;
    ledger.mark_restored(ledger.epoch().await?, now).await?;
    let (totals, provenance) = file::look_through(&ledger).await?;
    ledger.close().await;
    Ok(Copied {
        provenance,
        totals,
        aside: None,
    })
}

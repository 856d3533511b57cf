//! Files that hold a copy of a ledger: they appear whole or not at all.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use certwave_core::model::Millis;

use super::open::{self, unavailable};
use super::{SqliteLedger, SqliteOptions};
use crate::backup::Copied;
use crate::{Ledger, LedgerError, Provenance, Result, Totals};

/// Has `content` write a ledger into a file that is made for it (mode 0600), which gets its name when it is whole.
pub(crate) async fn write(to: &Path, content: impl FnOnce(&Path) -> Result<()> + Send + 'static) -> Result<Copied> {
    if to.exists() {
        return Err(LedgerError::Unavailable(format!("{} exists already", to.display())));
    }
    let part = beside(to, ".part");
    remove(&part)?;
    let target = part.clone();
    blocking(move || {
        let file = private(&target)?;
        content(&target)?;
        file.sync_all().map_err(|e| unavailable(&target, &e))
    })
    .await?;
    let (totals, provenance) = looked_through(&part).await?;
    put(&part, to)?;
    Ok(Copied {
        provenance,
        totals,
        aside: None,
    })
}

/// Copies the ledger as it stands. Blocks no writer, but the write-ahead log grows as long as it lasts.
pub(crate) fn copy(from: &Path, to: &Path) -> Result<()> {
    let db = open::reader(from)?;
    open::identify(&db)?;
    db.execute("VACUUM INTO ?1", [to.to_string_lossy()])?;
    Ok(())
}

/// Puts a backup in the place of a ledger that no process uses, marked as restored. A ledger that was there before is kept beside
/// it.
pub(crate) async fn put_back(from: &Path, to: &Path, now: Millis, force: bool) -> Result<Copied> {
    let lock = open::lock(to)?;
    let part = beside(to, ".part");
    remove(&part)?;
    let (source, target) = (from.to_owned(), part.clone());
    blocking(move || {
        let mut file = private(&target)?;
        let mut source = File::open(&source).map_err(|e| unavailable(&source, &e))?;
        std::io::copy(&mut source, &mut file).map_err(|e| unavailable(&target, &e))?;
        file.sync_all().map_err(|e| unavailable(&target, &e))
    })
    .await?;
    // Migrates it as well, if an earlier version has written it.
    let check = SqliteOptions {
        check: true,
        ..SqliteOptions::default()
    };
    let ledger = SqliteLedger::open_with(&part, &check)?;
    let (totals, provenance) = look_through(&ledger).await?;
    if to.exists() && !force {
        older(to, &provenance, &totals).await?;
    }
    ledger.mark_restored(ledger.epoch().await?, now).await?;
    let provenance = ledger.provenance().await?;
    ledger.close().await;
    remove(&beside(&part, "-lock"))?;
    File::open(&part)
        .and_then(|file| file.sync_all())
        .map_err(|e| unavailable(&part, &e))?;
    let aside = to.exists().then(|| beside(to, &format!(".before-{now}")));
    if let Some(aside) = &aside {
        // With the log: it may hold what the file does not.
        for end in ["-wal", "-shm", ""] {
            rename(&beside(to, end), &beside(aside, end))?;
        }
    }
    put(&part, to)?;
    drop(lock);
    Ok(Copied {
        provenance,
        totals,
        aside,
    })
}

/// Refuses to put a backup over a ledger that knows more.
async fn older(present: &Path, backup: &Provenance, holds: &Totals) -> Result<()> {
    let refused = |why: &str| {
        let path = present.display();
        Err(LedgerError::Unavailable(format!(
            "{path} {why}; with --force the backup takes its place, and it is kept beside"
        )))
    };
    let Ok((totals, provenance)) = looked_through(present).await else {
        return refused("is there and cannot be read");
    };
    if provenance.id != backup.id {
        return refused("is another ledger than the backup");
    }
    if totals.audit > holds.audit || totals.epoch > holds.epoch {
        return refused("holds more than the backup");
    }
    Ok(())
}

/// Opens a file for reading and looks it through.
pub(crate) async fn looked_through(path: &Path) -> Result<(Totals, Provenance)> {
    let ledger = SqliteLedger::open_for_reading(path)?;
    let found = look_through(&ledger).await;
    ledger.close().await;
    found
}

pub(crate) async fn look_through(ledger: &impl Ledger) -> Result<(Totals, Provenance)> {
    ledger.verify_audit().await?;
    Ok((ledger.totals().await?, ledger.provenance().await?))
}

pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let ended = tokio::task::spawn_blocking(work).await;
    ended.unwrap_or_else(|error| Err(LedgerError::Unavailable(format!("copying was interrupted: {error}"))))
}

fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name: OsString = path.as_os_str().to_owned();
    name.push(end);
    PathBuf::from(name)
}

fn private(path: &Path) -> Result<File> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(|e| unavailable(path, &e))
}

/// Removes what an earlier attempt has left.
fn remove(path: &Path) -> Result<()> {
    for end in ["", "-wal", "-shm"] {
        let path = beside(path, end);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(unavailable(&path, &error)),
            _ => {}
        }
    }
    Ok(())
}

fn rename(from: &Path, to: &Path) -> Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(unavailable(from, &error)),
        _ => Ok(()),
    }
}

/// Gives a whole file its name, for good.
fn put(part: &Path, to: &Path) -> Result<()> {
    fs::rename(part, to).map_err(|e| unavailable(to, &e))?;
    // What is left of it was made by reading.
    remove(part)?;
    let directory = to
        .parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(|e| unavailable(directory, &e))
}

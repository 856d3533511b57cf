//! The schema.

use std::cmp::Ordering;

use crate::sql::Connection;
use crate::{LedgerError, Result};

/// Each raises the schema by one. A released one never changes.
const MIGRATIONS: [&str; 6] = [
    include_str!("../../migrations/postgres/0001_initial.sql"),
    include_str!("../../migrations/postgres/0002_barred.sql"),
    include_str!("../../migrations/postgres/0003_authors.sql"),
    include_str!("../../migrations/postgres/0004_parts.sql"),
    include_str!("../../migrations/postgres/0005_authorities.sql"),
    include_str!("../../migrations/postgres/0006_order.sql"),
];

/// Keeps two processes from migrating at once ("certwave", read as a number).
const LOCK: &str = "SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = '5min';
    SELECT pg_advisory_xact_lock(7161679558146322021)";

/// Creates or migrates the schema, all in one transaction; refuses that of a newer version before anything is written.
pub(super) fn migrate(db: &Connection) -> Result<()> {
    let supported = supported();
    if version(db)? == supported {
        return Ok(());
    }
    db.run(&["BEGIN", LOCK])?;
    let found = version(db)?;
    if found > supported {
        return Err(LedgerError::Newer { found, supported });
    }
    db.execute_batch("CREATE TABLE IF NOT EXISTS schema_version (version BIGINT PRIMARY KEY)")?;
    for (to, sql) in (1i64..).zip(MIGRATIONS) {
        if to > found {
            db.execute_batch(sql)?;
            db.prepare_cached("INSERT INTO schema_version (version) VALUES (?1)")?
                .execute([to])?;
            tracing::info!(version = to, "the ledger's schema was migrated");
        }
    }
    Ok(db.run(&["COMMIT"])?)
}

/// Refuses what is not of this version's schema, to whoever may not migrate it.
pub(super) fn is_current(found: i64) -> Result<()> {
    let supported = supported();
    match found.cmp(&supported) {
        Ordering::Equal => Ok(()),
        Ordering::Greater => Err(LedgerError::Newer { found, supported }),
        Ordering::Less => Err(LedgerError::Unavailable(format!(
            "its schema {found} is of an earlier version; the controller brings it up to date when it starts"
        ))),
    }
}

fn supported() -> i64 {
    i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX)
}

/// The schema's version, 0 where there is none.
fn version(db: &Connection) -> Result<i64> {
    let known = db
        .prepare_cached("SELECT 1 WHERE to_regclass('schema_version') IS NOT NULL")?
        .exists([])?;
    if !known {
        return Ok(0);
    }
    let mut get = db.prepare_cached("SELECT coalesce(max(version), 0) FROM schema_version")?;
    Ok(get.query_row([], |row| row.get(0))?)
}

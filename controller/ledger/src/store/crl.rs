//! CRLs: their lines, the last one of each scope, and how far it reaches.

use std::collections::BTreeSet;

use crate::sql::{Connection, OptionalExtension as _, Row, ToSql, params};
use certwave_core::model::{Identity, Millis};

use super::column::{Columns, int};
use super::{mark, revocation};
use crate::partition::{FULL_PARTITION, partition_of};
use crate::{CertificateKind, CrlCover, CrlLine, CrlLines, CrlRecord, LedgerError, Result};

/// CRLs of a scope, and loads of a node, whose numbers are kept.
pub(super) const HISTORY: u32 = 500;
/// So long after its month a partition is of no interest any more, in seconds.
const YEAR_S: i64 = 366 * 86_400;

fn record(row: &Row<'_>) -> crate::sql::Result<CrlRecord> {
    let mut c = Columns::of(row);
    Ok(CrlRecord {
        issuer: c.get()?,
        partition: c.get()?,
        number: c.unsigned()?,
        this_update: c.get()?,
        next_update: c.get()?,
        der: c.get()?,
    })
}

/// The last CRL of a scope.
pub(super) fn get(db: &Connection, issuer: &str, partition: &str) -> Result<Option<CrlRecord>> {
    let mut get = db.prepare_cached(
        "SELECT issuer, partition, number, this_update, next_update, der FROM crls WHERE issuer = ?1 AND partition = ?2",
    )?;
    Ok(get.query_row(params![issuer, partition], record).optional()?)
}

/// Takes the place of the last one, if the number is greater than any that was published.
pub(super) fn publish(db: &Connection, crl: &CrlRecord, covers: u64, now: Millis) -> Result<()> {
    let mut highest = db.prepare_cached(
        "SELECT coalesce(max(number), 0) FROM (SELECT number FROM crls WHERE issuer = ?1 AND partition = ?2
             UNION ALL SELECT number FROM crl_floors WHERE issuer = ?1 AND partition = ?2) AS n",
    )?;
    let present = highest.query_row([&crl.issuer, &crl.partition], |row| Columns::of(row).unsigned())?;
    if crl.number <= present {
        return Err(LedgerError::CrlNumber {
            given: crl.number,
            present,
        });
    }
    let (number, covers) = (int(crl.number)?, int(covers)?);
    db.prepare_cached(
        "INSERT INTO crls (issuer, partition, number, this_update, next_update, der, covers)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
         ON CONFLICT (issuer, partition) DO UPDATE SET number = excluded.number, this_update = excluded.this_update,
             next_update = excluded.next_update, der = excluded.der, covers = max(crls.covers, excluded.covers)",
    )?
    .execute(params![
        crl.issuer,
        crl.partition,
        number,
        crl.this_update,
        crl.next_update,
        crl.der,
        covers
    ])?;
    db.prepare_cached(
        "INSERT INTO crl_covers (issuer, partition, number, covers, this_update, published_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?
    .execute(params![crl.issuer, crl.partition, number, covers, crl.this_update, now])?;
    db.prepare_cached(
        "DELETE FROM crl_covers WHERE issuer = ?1 AND partition = ?2 AND number <= (SELECT number FROM crl_covers
             WHERE issuer = ?1 AND partition = ?2 ORDER BY number DESC LIMIT 1 OFFSET ?3)",
    )?
    .execute(params![crl.issuer, crl.partition, HISTORY])?;
    let mut listed = db.prepare_cached(
        "UPDATE marks SET crl_number = ?4, crl_at = ?5
         WHERE issuer = ?1 AND partition = ?2 AND change <= ?3 AND crl_number IS NULL
         RETURNING broker, device",
    )?;
    let rows = listed.query_map(params![crl.issuer, crl.partition, covers, number, now], |row| {
        Columns::of(row).optional_identity()
    })?;
    show(db, rows, now)
}

/// Makes the status of devices due.
pub(super) fn show(
    db: &Connection,
    devices: impl Iterator<Item = crate::sql::Result<Option<Identity>>>,
    now: Millis,
) -> Result<()> {
    let devices: BTreeSet<_> = devices
        .filter_map(crate::sql::Result::transpose)
        .collect::<crate::sql::Result<_>>()?;
    for identity in &devices {
        revocation::touch(db, identity, now)?;
    }
    Ok(())
}

/// Every scope that has a CRL.
pub(super) fn scopes(db: &Connection) -> Result<Vec<(String, String)>> {
    let mut get = db.prepare_cached("SELECT issuer, partition FROM crls ORDER BY issuer, partition")?;
    let rows = get.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.collect::<crate::sql::Result<_>>()?)
}

/// CRLs that end soon.
pub(super) fn before(db: &Connection, next_update_before: i64, limit: u32) -> Result<Vec<CrlRecord>> {
    let mut get = db.prepare_cached(
        "SELECT issuer, partition, number, this_update, next_update, der FROM crls
         WHERE next_update < ?1
             AND (partition IN ('ca', 'full') OR partition >= ?3)
         ORDER BY next_update LIMIT ?2",
    )?;
    let alive = partition_of(CertificateKind::Device, next_update_before - YEAR_S);
    let rows = get.query_map(params![next_update_before, limit, alive], record)?;
    Ok(rows.collect::<crate::sql::Result<_>>()?)
}

/// The greatest numbers of an issuer's CRLs.
pub(super) fn numbers(db: &Connection, issuer: &str) -> Result<Vec<(String, u64)>> {
    let mut get = db.prepare_cached(
        "SELECT partition, max(number) FROM (SELECT partition, number FROM crls WHERE issuer = ?1
             UNION ALL SELECT partition, number FROM crl_floors WHERE issuer = ?1) AS n
         GROUP BY partition ORDER BY partition",
    )?;
    let rows = get.query_map([issuer], |row| {
        let mut c = Columns::of(row);
        Ok((c.get()?, c.unsigned()?))
    })?;
    Ok(rows.collect::<crate::sql::Result<_>>()?)
}

/// The lines of a CRL.
pub(super) fn lines(db: &Connection, q: &CrlLines, after: Option<&str>, limit: u32) -> Result<Vec<CrlLine>> {
    const COLUMNS: &str = "serial, held_at, revoked_at, reason, invalid_since, released_at";
    let partition = q.partition.as_deref().unwrap_or_default();
    let changed = q.changed_after.map(int).transpose()?;
    // No serial number is empty.
    let after = after.unwrap_or_default();
    let values: &[&dyn ToSql] = params![q.issuer, partition, after, q.ends_at_or_after, limit, changed];
    // Changes since a CRL are few; all else goes by the order of the lines.
    let sql = match (q.partition.is_some(), changed.is_some()) {
        (true, false) => format!(
            "SELECT {COLUMNS} FROM marks WHERE issuer = ?1 AND partition = ?2 AND serial > ?3 AND not_after >= ?4
                 AND (held_at IS NOT NULL OR revoked_at IS NOT NULL) AND CAST(?6 AS BIGINT) IS NULL ORDER BY serial LIMIT ?5"
        ),
        (false, false) => format!(
            "SELECT {COLUMNS} FROM marks INDEXED BY marks_serial WHERE issuer = ?1 AND serial > ?3 AND not_after >= ?4
                 AND (held_at IS NOT NULL OR revoked_at IS NOT NULL) AND ?2 = '' AND CAST(?6 AS BIGINT) IS NULL ORDER BY serial LIMIT ?5"
        ),
        (_, true) => format!(
            "SELECT {COLUMNS} FROM marks WHERE change > ?6 AND issuer || '' = ?1 AND (?2 = '' OR partition || '' = ?2)
                 AND serial || '' > ?3
                 AND not_after >= ?4 AND (held_at IS NOT NULL OR revoked_at IS NOT NULL OR released_at IS NOT NULL)
             ORDER BY serial || '' LIMIT ?5"
        ),
    };
    let mut get = db.prepare_cached(&sql)?;
    let rows = get.query_map(values, |row| {
        let mut c = Columns::of(row);
        Ok(CrlLine {
            serial: c.get()?,
            standing: mark::standing(&mut c)?,
            invalid_since: c.get()?,
            released_at: c.get()?,
        })
    })?;
    Ok(rows.collect::<crate::sql::Result<_>>()?)
}

/// How far the last CRLs of a scope reach.
pub(super) fn covers(db: &Connection, issuer: &str, partition: &str, limit: u32) -> Result<Vec<CrlCover>> {
    let mut get = db.prepare_cached(
        "SELECT number, covers, this_update, published_at FROM crl_covers WHERE issuer = ?1 AND partition = ?2
         ORDER BY number DESC LIMIT ?3",
    )?;
    let rows = get.query_map(params![issuer, partition, limit], |row| {
        let mut c = Columns::of(row);
        Ok(CrlCover {
            number: c.unsigned()?,
            covers: c.unsigned()?,
            this_update: c.get()?,
            published_at: c.get()?,
        })
    })?;
    Ok(rows.collect::<crate::sql::Result<_>>()?)
}

/// Scopes whose last CRL does not say all changes.
pub(super) fn behind(db: &Connection) -> Result<Vec<(String, String)>> {
    let mut get = db.prepare_cached(
        "SELECT c.issuer, c.partition FROM crls c JOIN scopes s ON s.issuer = c.issuer AND s.partition = c.partition
             WHERE s.last_change > c.covers
         UNION SELECT c.issuer, c.partition FROM crls c JOIN scopes s ON s.issuer = c.issuer
             WHERE c.partition = ?1 AND s.last_change > c.covers
         ORDER BY 1, 2",
    )?;
    let rows = get.query_map([FULL_PARTITION], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.collect::<crate::sql::Result<_>>()?)
}

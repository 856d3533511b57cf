//! CRLs.

use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::column::{Columns, int};
use crate::{CrlRecord, LedgerError, Result};

fn record(row: &Row<'_>) -> rusqlite::Result<CrlRecord> {
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

/// Takes the place of the last one, if the number is greater.
pub(super) fn publish(db: &Connection, crl: &CrlRecord) -> Result<()> {
    let mut put = db.prepare_cached(
        "INSERT INTO crls (issuer, partition, number, this_update, next_update, der) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT (issuer, partition) DO UPDATE SET number = excluded.number, this_update = excluded.this_update,
             next_update = excluded.next_update, der = excluded.der
         WHERE excluded.number > crls.number",
    )?;
    let stored = put.execute(params![
        crl.issuer,
        crl.partition,
        int(crl.number)?,
        crl.this_update,
        crl.next_update,
        crl.der
    ])?;
    if stored == 1 {
        return Ok(());
    }
    let present = get(db, &crl.issuer, &crl.partition)?.map_or(0, |c| c.number);
    Err(LedgerError::CrlNumber {
        given: crl.number,
        present,
    })
}

/// CRLs that end soon.
pub(super) fn before(db: &Connection, next_update_before: i64, limit: u32) -> Result<Vec<CrlRecord>> {
    let mut get = db.prepare_cached(
        "SELECT issuer, partition, number, this_update, next_update, der FROM crls
         WHERE next_update < ?1
             AND (partition = 'ca' OR partition >= strftime('%Y-%m', ?1, 'unixepoch', '-12 months'))
         ORDER BY next_update LIMIT ?2",
    )?;
    let rows = get.query_map(params![next_update_before, limit], record)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// The numbers of an issuer's CRLs.
pub(super) fn numbers(db: &Connection, issuer: &str) -> Result<Vec<(String, u64)>> {
    let mut get = db.prepare_cached("SELECT partition, number FROM crls WHERE issuer = ?1 ORDER BY partition")?;
    let rows = get.query_map([issuer], |row| {
        let mut c = Columns::of(row);
        Ok((c.get()?, c.unsigned()?))
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

//! Devices that a Rotation could take.

use crate::sql::{Connection, OptionalExtension as _, ToSql, params};
use certwave_core::model::Millis;

use super::column::Columns;
use super::declare;
use crate::{Candidate, DeviceRow, FleetKey, Result};

fn list(db: &Connection, renewed: &str, condition: &str, params: &[&dyn ToSql]) -> Result<Vec<Candidate>> {
    let mut get = db.prepare_cached(&format!(
        "SELECT d.id, d.device, d.not_after, d.issuer, {renewed}, d.labels,
             coalesce(d.job_state IN ('Rejected', 'Failed', 'RolledBack')
                 OR d.job_state IN ('TimedOut', 'Lost') AND coalesce(d.last_seen <= d.job_since, TRUE), FALSE)
         FROM devices d INDEXED BY devices_fleet
         WHERE d.current IS NOT NULL AND d.declared = 1 AND d.bar IS NULL AND d.not_after > ?1 AND d.id > ?2 AND {condition}
         ORDER BY d.id LIMIT ?3"
    ))?;
    let rows = get.query_map(params, |row| {
        let mut c = Columns::of(row);
        Ok(Candidate {
            row: DeviceRow(c.get()?),
            device: c.text()?,
            not_after: c.get()?,
            issuer: c.get()?,
            renewed: c.get()?,
            labels: c.json()?,
            failed: c.get()?,
        })
    })?;
    Ok(rows.collect::<crate::sql::Result<_>>()?)
}

fn row(after: Option<DeviceRow>) -> i64 {
    after.map_or(i64::MIN, |row| row.0)
}

/// A page of a fleet's.
pub(super) fn of_fleet(
    db: &Connection,
    fleet: &FleetKey,
    now: Millis,
    after: Option<DeviceRow>,
    limit: u32,
) -> Result<Vec<Candidate>> {
    let Some(fleet) = declare::known_fleet(db, fleet)? else {
        return Ok(Vec::new());
    };
    list(
        db,
        "FALSE",
        "d.fleet = ?4",
        params![now.div_euclid(1000), row(after), limit, fleet],
    )
}

/// A page of those that came to a Rotation's fleet later.
pub(super) fn strangers(
    db: &Connection,
    uid: &str,
    now: Millis,
    after: Option<DeviceRow>,
    limit: u32,
) -> Result<Vec<Candidate>> {
    let mut find = db.prepare_cached("SELECT id, fleet, newest FROM rotations WHERE uid = ?1")?;
    let found = find.query_row([uid], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)));
    let Some((rotation, fleet, newest)): Option<(i64, i64, Option<i64>)> = found.optional()? else {
        return Ok(Vec::new());
    };
    list(
        db,
        "coalesce(d.current > ?6, FALSE)",
        "d.fleet = ?4 AND NOT EXISTS (SELECT 1 FROM members m WHERE m.rotation = ?5 AND m.device = d.id)",
        params![now.div_euclid(1000), row(after), limit, fleet, rotation, newest],
    )
}

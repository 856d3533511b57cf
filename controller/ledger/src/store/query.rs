//! Looking for devices, and counting them.

use crate::sql::{Connection, ToSql, params};
use certwave_core::model::{Device, Identity, Millis};
use certwave_core::revocation::Bar;
use certwave_protocol::ids::BrokerId;

use super::column::Columns;
use super::{declare, device};
use crate::{CountQuery, DueQuery, FleetCounts, FleetKey, Result};

/// Identities by a query that answers broker and device.
pub(super) fn identities(db: &Connection, sql: &str, params: &[&dyn ToSql]) -> Result<Vec<Identity>> {
    let mut get = db.prepare_cached(sql)?;
    let rows = get.query_map(params, |row| Columns::of(row).identity())?;
    Ok(rows.collect::<crate::sql::Result<_>>()?)
}

/// That the pause after a failure is over at `now`, of a device by this name in a query. One that began in the future did so by a clock that
/// was put back since; nobody knows when it would be over.
pub(super) fn rested(device: &str, now: &str) -> String {
    format!("({device}.not_before IS NULL OR {device}.not_before <= {now} OR {device}.job_since > {now})")
}

/// Devices whose time has come.
pub(super) fn overdue(db: &Connection, broker: &BrokerId, now: Millis, limit: u32) -> Result<Vec<Identity>> {
    identities(
        db,
        "SELECT broker, device FROM devices WHERE broker = ?1 AND wake_at <= ?2 ORDER BY wake_at LIMIT ?3",
        params![broker.as_str(), now, limit],
    )
}

/// Devices whose deadlines were set by a clock that was ahead.
pub(super) fn dated_ahead(db: &Connection, broker: &BrokerId, now: Millis, limit: u32) -> Result<Vec<Identity>> {
    identities(
        db,
        "SELECT broker, device FROM devices
         WHERE broker = ?1 AND wake_at > ?2 AND job_since > ?2 AND job_state <> 'Queued' AND job_kind <> 'enrol'
         ORDER BY wake_at DESC LIMIT ?3",
        params![broker.as_str(), now, limit],
    )
}

/// Devices that need a job.
pub(super) fn due(db: &Connection, fleet: &FleetKey, query: &DueQuery) -> Result<Vec<Identity>> {
    let Some(fleet) = declare::known_fleet(db, fleet)? else {
        return Ok(Vec::new());
    };
    identities(
        db,
        &format!(
            "SELECT broker, device FROM devices
             WHERE fleet = ?1 AND declared = 1 AND job_open = 0 AND bar IS NULL AND not_after > ?2 AND not_after < ?3
                 AND {}
                 AND (not_after < ?5 OR job_state IS NULL OR job_state NOT IN ('Rejected', 'Failed', 'RolledBack', 'TimedOut', 'Lost')
                     OR job_state IN ('TimedOut', 'Lost') AND last_seen > job_since)
             ORDER BY not_after, device LIMIT ?6",
            rested("devices", "?4")
        ),
        params![
            fleet,
            query.now.div_euclid(1000),
            query.expires_before_s,
            query.now,
            query.failed_before_s,
            query.limit
        ],
    )
}

/// Devices that are waited for.
pub(super) fn queued(db: &Connection, fleet: &FleetKey, limit: u32) -> Result<Vec<Identity>> {
    let Some(fleet) = declare::known_fleet(db, fleet)? else {
        return Ok(Vec::new());
    };
    identities(
        db,
        "SELECT broker, device FROM devices
         WHERE fleet = ?1 AND job_open = 1 AND job_state = 'Queued' AND declared = 1 AND bar IS NULL ORDER BY job_since LIMIT ?2",
        params![fleet, limit],
    )
}

/// Slots in use. An enrolment holds none: its device may lie in a store-room for months before it proves itself.
pub(super) fn in_flight(db: &Connection, fleet: &FleetKey) -> Result<u32> {
    let Some(fleet) = declare::known_fleet(db, fleet)? else {
        return Ok(0);
    };
    let mut count = db.prepare_cached(
        "SELECT count(*) FROM devices
         WHERE fleet = ?1 AND job_open = 1 AND job_kind <> 'enrol'
             AND job_state IN ('Sent', 'Accepted', 'Issued', 'Committing')",
    )?;
    Ok(count.query_row([fleet], |row| row.get(0))?)
}

/// Devices in flight for anything but one Rotation, by the value of a label.
pub(super) fn groups_elsewhere(
    db: &Connection,
    fleet: &FleetKey,
    uid: Option<&str>,
    label: &str,
) -> Result<Vec<(String, u32)>> {
    let Some(fleet) = declare::known_fleet(db, fleet)? else {
        return Ok(Vec::new());
    };
    let mut get = db.prepare_cached(
        "SELECT coalesce((SELECT value FROM json_each(d.labels) WHERE key = ?2), '') AS grp, count(*) FROM devices d
         WHERE d.fleet = ?1 AND d.job_open = 1 AND d.job_kind <> 'enrol'
             AND d.job_state IN ('Sent', 'Accepted', 'Issued', 'Committing') AND d.job_rotation IS DISTINCT FROM ?3
         GROUP BY grp ORDER BY grp",
    )?;
    // No Rotation has no uid.
    let rows = get.query_map(params![fleet, label, uid.unwrap_or_default()], |row| {
        Ok((row.get(0)?, row.get(1)?))
    })?;
    Ok(rows.collect::<crate::sql::Result<_>>()?)
}

/// Counts by state, as [`Device::state`] tells it.
pub(super) fn counts(db: &Connection, fleet: &FleetKey, query: CountQuery) -> Result<FleetCounts> {
    let Some(fleet) = declare::known_fleet(db, fleet)? else {
        return Ok(FleetCounts::default());
    };
    let mut count = db.prepare_cached(
        "SELECT CASE
                 WHEN not_after IS NULL AND job_kind = 'enrol'
                     AND job_state IN ('Queued', 'Sent', 'Accepted', 'Issued', 'Committing') THEN 'enrolling'
                 WHEN not_after IS NULL THEN 'declared'
                 WHEN not_after * 1000 <= ?2 THEN 'expired'
                 WHEN job_state IN ('Sent', 'Accepted', 'Issued', 'Committing') THEN 'rotating'
                 WHEN job_state IN ('Rejected', 'Failed', 'TimedOut', 'RolledBack', 'Lost') THEN 'failed'
                 ELSE 'active'
             END AS state,
             count(*),
             count(*) FILTER (WHERE job_state = 'Queued'),
             count(*) FILTER (WHERE job_kind <> 'enrol' AND job_state IN ('Sent', 'Accepted', 'Issued', 'Committing')),
             count(*) FILTER (WHERE last_seen >= ?3),
             count(*) FILTER (WHERE job_state = 'Lost'),
             count(*) FILTER (WHERE not_after * 1000 > ?2 AND not_after < ?4 AND bar IS NULL),
             min(not_after) FILTER (WHERE not_after * 1000 > ?2)
         FROM devices WHERE fleet = ?1 AND declared = 1 GROUP BY state",
    )?;
    let mut rows = count.query(params![fleet, query.now, query.online_after, query.expiring_before_s])?;
    let mut counts = FleetCounts::default();
    while let Some(row) = rows.next()? {
        let mut c = Columns::of(&row);
        let (state, devices): (String, u32) = (c.get()?, c.get()?);
        let place = match state.as_str() {
            "declared" => &mut counts.declared,
            "enrolling" => &mut counts.enrolling,
            "expired" => &mut counts.expired,
            "rotating" => &mut counts.rotating,
            "failed" => &mut counts.failed,
            _ => &mut counts.active,
        };
        *place = devices;
        counts.total += devices;
        counts.offline += c.get::<u32>()?;
        counts.in_flight += c.get::<u32>()?;
        counts.online += c.get::<u32>()?;
        counts.lost += c.get::<u32>()?;
        counts.expiring += c.get::<u32>()?;
        let next: Option<i64> = c.get()?;
        counts.next_expiry = counts.next_expiry.into_iter().chain(next).min();
    }
    let mut barred = db.prepare_cached(
        "SELECT bar, count(*) FROM devices INDEXED BY devices_barred
         WHERE fleet = ?1 AND declared = 1 AND bar IS NOT NULL GROUP BY bar",
    )?;
    let mut rows = barred.query([fleet])?;
    while let Some(row) = rows.next()? {
        let mut c = Columns::of(&row);
        match c.word()? {
            Bar::Revoked => counts.revoked = c.get()?,
            Bar::Held => counts.held = c.get()?,
        }
    }
    Ok(counts)
}

/// Devices whose objects do not show their last change.
pub(super) fn unprojected(db: &Connection, broker: &BrokerId, limit: u32, before: Millis) -> Result<Vec<Device>> {
    device::list(
        db,
        "WHERE d.broker = ?1 AND d.project_rev > d.projected_rev AND d.declared = 1
             AND (d.changed_at < ?2 OR d.job_open = 0 AND d.job_state IS NOT NULL)
         ORDER BY d.changed_at LIMIT ?3",
        params![broker.as_str(), before, limit],
    )
}

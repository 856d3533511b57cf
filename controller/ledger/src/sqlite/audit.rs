//! Epochs and the audit.

use certwave_core::model::{Identity, Millis};
use certwave_protocol::ids::Epoch;
use rusqlite::{Connection, params};

use super::column::{Columns, count, int};
use super::declare;
use crate::{AuditEntry, FleetKey, Result};

/// The present epoch, 0 before the first.
pub(super) fn epoch(db: &Connection) -> Result<Epoch> {
    let mut get = db.prepare_cached("SELECT coalesce(max(epoch), 0) FROM epochs")?;
    Ok(get.query_row([], |row| Columns::of(row).unsigned())?)
}

/// Begins the next one.
pub(super) fn take_epoch(db: &Connection, holder: &str, now: Millis) -> Result<Epoch> {
    let next = (epoch(db)? + 1).max(u64::try_from(now).unwrap_or(0));
    db.prepare_cached("INSERT INTO epochs (epoch, holder, taken_at) VALUES (?1, ?2, ?3)")?
        .execute(params![int(next)?, holder, now])?;
    Ok(next)
}

/// Adds lines.
pub(super) fn append(db: &Connection, entries: &[AuditEntry]) -> Result<()> {
    if entries.is_empty() {
        return Ok(());
    }
    let mut insert = db.prepare_cached(
        "INSERT INTO audit (at, who, what, broker, device, job, detail) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?;
    for e in entries {
        let (broker, device) = e
            .identity
            .as_ref()
            .map(|i| (i.broker.as_str(), i.device.as_str()))
            .unzip();
        insert.execute(params![
            e.at,
            e.who,
            e.what,
            broker,
            device,
            e.job.map(|j| *j.as_bytes()),
            e.detail
        ])?;
    }
    Ok(())
}

/// How many jobs of a fleet's devices were sent since a time: looked for from the end, as far back as that.
pub(super) fn jobs_sent(db: &Connection, fleet: &FleetKey, since: Millis) -> Result<u32> {
    let Some(fleet) = declare::known_fleet(db, fleet)? else {
        return Ok(0);
    };
    let mut get = db.prepare_cached(
        "SELECT a.at, a.what = 'job-sent' AND d.fleet = ?1 FROM audit a
             LEFT JOIN devices d ON d.broker = a.broker AND d.device = a.device ORDER BY a.id DESC",
    )?;
    let mut rows = get.query([fleet])?;
    let mut sent = 0;
    while let Some(row) = rows.next()? {
        let mut c = Columns::of(row);
        if c.get::<Millis>()? < since {
            break;
        }
        sent += usize::from(c.get::<Option<bool>>()?.unwrap_or(false));
    }
    count(sent)
}

/// The latest lines about a device.
pub(super) fn of_device(db: &Connection, identity: &Identity, limit: u32) -> Result<Vec<AuditEntry>> {
    let mut get = db.prepare_cached(
        "SELECT at, who, what, broker, device, job, detail FROM audit
         WHERE broker = ?1 AND device = ?2 ORDER BY id DESC LIMIT ?3",
    )?;
    let rows = get.query_map(
        params![identity.broker.as_str(), identity.device.as_str(), limit],
        |row| {
            let mut c = Columns::of(row);
            Ok(AuditEntry {
                at: c.get()?,
                who: c.get()?,
                what: c.get()?,
                identity: c.optional_identity()?,
                job: c.optional_job_id()?,
                detail: c.get()?,
            })
        },
    )?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

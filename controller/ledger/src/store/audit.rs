//! The audit.

use crate::sql::{Connection, OptionalExtension as _, params};
use certwave_core::model::{Identity, Millis};
use certwave_protocol::ids::Fingerprint;

use super::column::{Columns, count, int};
use super::declare;
use crate::{AuditEntry, FleetKey, LedgerError, Result, chain};

/// Lines that are read at a time where the whole audit is.
const PAGE: i64 = 10_000;

/// Adds lines.
pub(super) fn append(db: &Connection, entries: &[AuditEntry]) -> Result<()> {
    if entries.is_empty() {
        return Ok(());
    }
    let mut insert = db.prepare_cached(
        "INSERT INTO audit (id, at, who, what, broker, device, job, detail, hash)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    )?;
    let mut last = db.prepare_cached("SELECT id, hash FROM audit ORDER BY id DESC LIMIT 1")?;
    let last = last.query_row([], |row| {
        let mut c = Columns::of(row);
        Ok((c.get::<i64>()?, c.fingerprint()?))
    });
    let (mut id, mut hash) = last.optional()?.unwrap_or((0, chain::START));
    for e in entries {
        id += 1;
        // What stands in the chain must be read back as it is, and PostgreSQL's text holds no NUL.
        let e = &AuditEntry {
            detail: e.detail.as_ref().map(|d| d.replace('\0', "\u{fffd}")),
            ..e.clone()
        };
        hash = chain::link(&hash, id, e);
        let (broker, device) = e
            .identity
            .as_ref()
            .map(|i| (i.broker.as_str(), i.device.as_str()))
            .unzip();
        insert.execute(params![
            id,
            e.at,
            e.who,
            e.what,
            broker,
            device,
            e.job.map(|j| *j.as_bytes()),
            e.detail,
            hash.0
        ])?;
    }
    Ok(())
}

/// The hash of a line.
pub(super) fn hash(db: &Connection, line: u64) -> Result<Option<Fingerprint>> {
    let mut get = db.prepare_cached("SELECT hash FROM audit WHERE id = ?1")?;
    let found = get.query_row([int(line)?], |row| Columns::of(row).optional_fingerprint());
    Ok(found.optional()?.flatten())
}

/// A line, from its time on.
fn line(c: &mut Columns<'_>) -> crate::sql::Result<AuditEntry> {
    Ok(AuditEntry {
        at: c.get()?,
        who: c.get()?,
        what: c.get()?,
        identity: c.optional_identity()?,
        job: c.optional_job_id()?,
        detail: c.get()?,
    })
}

/// Gives their hashes to the lines of a ledger of before the chain.
pub(crate) fn chain_all(db: &Connection) -> Result<()> {
    let mut get = db.prepare_cached(
        "SELECT id, at, who, what, broker, device, job, detail FROM audit WHERE id > ?1 ORDER BY id LIMIT ?2",
    )?;
    let mut put = db.prepare_cached("UPDATE audit SET hash = ?2 WHERE id = ?1")?;
    let (mut id, mut hash) = (i64::MIN, chain::START);
    loop {
        let rows = get.query_map([id, PAGE], |row| {
            let mut c = Columns::of(row);
            Ok((c.get::<i64>()?, line(&mut c)?))
        })?;
        let page = rows.collect::<crate::sql::Result<Vec<_>>>()?;
        for (next, entry) in &page {
            hash = chain::link(&hash, *next, entry);
            put.execute(params![next, hash.0])?;
        }
        match page.last() {
            Some((last, _)) => id = *last,
            None => return Ok(()),
        }
    }
}

/// A part of the chain: how many lines were looked at, the last one's number, and its hash.
#[derive(Clone, Copy)]
pub(super) struct Checked {
    pub(super) lines: u64,
    pub(super) last: i64,
    pub(super) hash: Fingerprint,
}

impl Checked {
    pub(super) const START: Self = Self {
        lines: 0,
        last: i64::MIN,
        hash: chain::START,
    };
}

/// Checks the lines that follow; `None` once there are no more.
pub(super) fn check(db: &Connection, mut so_far: Checked) -> Result<Option<Checked>> {
    let mut get = db.prepare_cached(
        "SELECT id, hash, at, who, what, broker, device, job, detail FROM audit WHERE id > ?1 ORDER BY id LIMIT ?2",
    )?;
    let mut rows = get.query([so_far.last, PAGE])?;
    let before = so_far.lines;
    while let Some(row) = rows.next()? {
        let mut c = Columns::of(&row);
        let (id, said) = (c.get()?, c.optional_fingerprint()?);
        let entry = line(&mut c)?;
        let hash = chain::link(&so_far.hash, id, &entry);
        if said != Some(hash) {
            return Err(LedgerError::Corrupt(format!(
                "line {id} of the audit ({} by {}) does not fit the chain: it was changed, or a line before it is missing",
                entry.what, entry.who
            )));
        }
        so_far = Checked {
            lines: so_far.lines + 1,
            last: id,
            hash,
        };
    }
    Ok((so_far.lines > before).then_some(so_far))
}

/// How many jobs of a fleet's devices were sent since a time: looked for from the end, as far back as that.
pub(super) fn jobs_sent(db: &Connection, fleet: &FleetKey, since: Millis) -> Result<u32> {
    let Some(fleet) = declare::known_fleet(db, fleet)? else {
        return Ok(0);
    };
    let mut get = db.prepare_cached(
        "SELECT a.id, a.at, a.what = 'job-sent' AND d.fleet = ?1 FROM audit a
             LEFT JOIN devices d ON d.broker = a.broker AND d.device = a.device
         WHERE a.id < ?2 ORDER BY a.id DESC LIMIT ?3",
    )?;
    let (mut sent, mut before) = (0, i64::MAX);
    loop {
        let first = before;
        let mut rows = get.query([fleet, before, PAGE])?;
        while let Some(row) = rows.next()? {
            let mut c = Columns::of(&row);
            before = c.get()?;
            if c.get::<Millis>()? < since {
                return count(sent);
            }
            sent += usize::from(c.get::<Option<bool>>()?.unwrap_or(false));
        }
        if before == first {
            return count(sent);
        }
    }
}

/// The latest lines about a device.
pub(super) fn of_device(db: &Connection, identity: &Identity, limit: u32) -> Result<Vec<AuditEntry>> {
    let mut get = db.prepare_cached(
        "SELECT at, who, what, broker, device, job, detail FROM audit
         WHERE broker = ?1 AND device = ?2 ORDER BY id DESC LIMIT ?3",
    )?;
    let rows = get.query_map(
        params![identity.broker.as_str(), identity.device.as_str(), limit],
        |row| line(&mut Columns::of(row)),
    )?;
    Ok(rows.collect::<crate::sql::Result<_>>()?)
}

//! Retiring old certificates.

use crate::sql::{Connection, OptionalExtension as _, Row, ToSql, params};
use certwave_core::model::{Identity, Millis};
use certwave_core::retire::{Phase, Retirement, RetirementCounts, Why};
use certwave_core::revocation::Holder;
use certwave_protocol::ids::BrokerId;

use super::column::{Columns, Word};
use super::{outcome, revocation};
use crate::{Act, LedgerError, Mark, Marked, Result, Target};

const SELECT: &str =
    "SELECT job, broker, device, rotation, old, new, phase, since, wake, nonce, attempt, why FROM retirements";

fn stored(row: &Row<'_>) -> crate::sql::Result<Retirement> {
    let mut c = Columns::of(row);
    Ok(Retirement {
        job: c.job_id()?,
        identity: c.identity()?,
        rotation: c.get()?,
        old: c.fingerprint()?,
        new: c.fingerprint()?,
        phase: c.word()?,
        since: c.get()?,
        wake: c.get()?,
        nonce: c.optional_nonce()?,
        attempt: c.get()?,
        why: c.optional_word()?,
    })
}

/// A device's retirement that has not ended.
pub(super) fn open(db: &Connection, identity: &Identity) -> Result<Option<Retirement>> {
    let mut get = db.prepare_cached(&format!(
        "{SELECT} WHERE broker = ?1 AND device = ?2 AND phase NOT IN ('Revoked', 'Released')"
    ))?;
    let names = [identity.broker.as_str(), identity.device.as_str()];
    Ok(get.query_row(names, stored).optional()?)
}

/// That a device, by this name in a query, has no certificate on hold for a retirement. In the words of the index on open ones.
pub(super) fn unheld(device: &str) -> String {
    format!(
        "NOT EXISTS (SELECT 1 FROM retirements h WHERE h.broker = {device}.broker AND h.device = {device}.device
             AND h.phase NOT IN ('Revoked', 'Released') AND h.phase <> 'Waiting')"
    )
}

/// Those whose time has come.
pub(super) fn due(
    db: &Connection,
    broker: &BrokerId,
    holding: bool,
    now: Millis,
    limit: u32,
) -> Result<Vec<Retirement>> {
    let phases = if holding {
        "phase IN ('Held', 'Asked')"
    } else {
        "phase = 'Waiting'"
    };
    let mut get = db.prepare_cached(&format!(
        "{SELECT} WHERE broker = ?1 AND wake <= ?2 AND {phases} ORDER BY wake LIMIT ?3"
    ))?;
    let rows = get.query_map(params![broker.as_str(), now, limit], stored)?;
    Ok(rows.collect::<crate::sql::Result<_>>()?)
}

/// How many have certificates on hold.
pub(super) fn holding(db: &Connection, broker: &BrokerId) -> Result<u32> {
    let mut get =
        db.prepare_cached("SELECT count(*) FROM retirements WHERE broker = ?1 AND phase IN ('Held', 'Asked')")?;
    Ok(get.query_row([broker.as_str()], |row| row.get(0))?)
}

/// Begins one; an open one of the same device ends.
pub(super) fn begin(db: &Connection, now: Millis, retirement: &Retirement) -> Result<()> {
    if let Some(before) = open(db, &retirement.identity)?
        && before.job != retirement.job
    {
        let release = Mark {
            target: Target::Certificate(before.old),
            act: Act::Release(Holder::Retirement(before.job)),
            requested_at: now,
            who: "controller".to_owned(),
            detail: Some("another certificate is retired".to_owned()),
            revocation: None,
        };
        let holds = before.phase.holds();
        let ended = Retirement {
            phase: Phase::Released,
            since: now,
            wake: None,
            why: Some(Why::Overtaken),
            ..before
        };
        put(db, &ended)?;
        if holds {
            revocation::own(db, now, &release)?;
        }
    }
    let names: [&dyn ToSql; 1] = [retirement.job.as_bytes()];
    let known = db
        .prepare_cached("SELECT 1 FROM retirements WHERE job = ?1")?
        .exists(names)?;
    if known { Ok(()) } else { put(db, retirement) }
}

fn put(db: &Connection, r: &Retirement) -> Result<()> {
    db.prepare_cached(
        "INSERT INTO retirements (job, broker, device, rotation, old, new, phase, since, wake, nonce, attempt, why)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)
         ON CONFLICT (job) DO UPDATE SET phase = excluded.phase, since = excluded.since, wake = excluded.wake,
             nonce = excluded.nonce, attempt = excluded.attempt, why = excluded.why",
    )?
    .execute(params![
        r.job.as_bytes(),
        r.identity.broker.as_str(),
        r.identity.device.as_str(),
        r.rotation,
        r.old.0,
        r.new.0,
        r.phase.word(),
        r.since,
        r.wake.filter(|_| !r.phase.ended()),
        r.nonce.map(|n| n.0),
        r.attempt,
        r.why.map(Word::word)
    ])?;
    Ok(())
}

/// Stores a step, with its mark.
pub(super) fn step(
    db: &Connection,
    now: Millis,
    before: (Phase, Millis),
    after: &Retirement,
    mark: Option<&Mark>,
) -> Result<Vec<Marked>> {
    let mut get = db.prepare_cached(&format!("{SELECT} WHERE job = ?1"))?;
    let present = get
        .query_row([after.job.as_bytes()], stored)
        .optional()?
        .ok_or(LedgerError::NotFound("such retirement"))?;
    if (present.phase, present.since) != before {
        return Err(LedgerError::Conflict);
    }
    if present.identity != after.identity || present.old != after.old {
        return Err(LedgerError::Invalid("the retirement is another device's".to_owned()));
    }
    // A job has come since it was looked at.
    if after.phase == Phase::Held && works(db, &after.identity)? {
        return Err(LedgerError::Conflict);
    }
    put(db, after)?;
    let mut changed = Vec::new();
    if let Some(mark) = mark {
        changed = revocation::own(db, now, mark)?;
    }
    if after.phase == Phase::Revoked {
        let forgotten = db
            .prepare_cached(
                "UPDATE devices SET previous = NULL WHERE broker = ?1 AND device = ?2
                     AND previous = (SELECT id FROM certificates WHERE fingerprint = ?3)",
            )?
            .execute(params![
                after.identity.broker.as_str(),
                after.identity.device.as_str(),
                after.old.0
            ])?;
        if forgotten > 0 && changed.is_empty() {
            revocation::touch(db, &after.identity, now)?;
        }
    }
    if after.phase == Phase::Released
        && after.why.is_some_and(Why::counts)
        && let Some(uid) = &after.rotation
    {
        outcome::probation_failed(db, &after.identity, uid, now)?;
    }
    Ok(changed)
}

/// Whether the device has a job.
fn works(db: &Connection, identity: &Identity) -> Result<bool> {
    let mut open = db.prepare_cached("SELECT 1 FROM devices WHERE broker = ?1 AND device = ?2 AND job_open = 1")?;
    Ok(open.exists([identity.broker.as_str(), identity.device.as_str()])?)
}

/// How those of a Rotation stand.
pub(super) fn counts(db: &Connection, uid: &str) -> Result<RetirementCounts> {
    let mut get = db.prepare_cached("SELECT phase, count(*) FROM retirements WHERE rotation = ?1 GROUP BY phase")?;
    let mut rows = get.query([uid])?;
    let mut counts = RetirementCounts::default();
    while let Some(row) = rows.next()? {
        let mut c = Columns::of(&row);
        let place = match c.word()? {
            Phase::Waiting => &mut counts.waiting,
            Phase::Held => &mut counts.held,
            Phase::Asked => &mut counts.asked,
            Phase::Revoked => &mut counts.revoked,
            Phase::Released => &mut counts.released,
        };
        *place = c.get()?;
    }
    Ok(counts)
}

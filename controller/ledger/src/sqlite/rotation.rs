//! Rotations and their members.

use std::collections::BTreeMap;

use certwave_core::model::{Identity, Job, JobState, Millis};
use rusqlite::{Connection, OptionalExtension as _, params};

use super::column::{Columns, Word as _};
use super::{declare, query};
use crate::{
    LedgerError, MemberOutcome, Result, RotationCounts, RotationExample, RotationOutcome, RotationRecord,
    StoredRotation,
};

/// Begins one, with its members.
pub(super) fn start(db: &Connection, r: &RotationRecord, selector: &BTreeMap<String, String>) -> Result<u32> {
    if let Some(stored) = get(db, &r.uid)? {
        return Ok(stored.members);
    }
    let selector = serde_json::to_string(selector).map_err(|e| LedgerError::Invalid(e.to_string()))?;
    let fleet = declare::fleet_id(db, &r.fleet)?;
    db.prepare_cached(
        "INSERT INTO rotations (uid, namespace, name, fleet, reason, issuer, started, members)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 0)",
    )?
    .execute(params![
        r.uid,
        r.object.namespace,
        r.object.name,
        fleet,
        r.reason,
        r.issuer,
        r.started
    ])?;
    let rotation = db.last_insert_rowid();
    // No label of the selector is without its like among the device's.
    let members = db
        .prepare_cached(
            "INSERT INTO members (rotation, device, wave, ordinal, outcome)
             SELECT ?1, d.id, 0, row_number() OVER (ORDER BY d.not_after, d.device) - 1, 'Planned' FROM devices d
             WHERE d.fleet = ?2 AND d.declared = 1 AND d.not_after IS NOT NULL
                 AND NOT EXISTS (SELECT 1 FROM json_each(?3) s WHERE NOT EXISTS
                     (SELECT 1 FROM json_each(d.labels) l WHERE l.key = s.key AND l.value = s.value))",
        )?
        .execute(params![rotation, fleet, selector])?;
    let members = u32::try_from(members).map_err(|_| LedgerError::Invalid("too many members".to_owned()))?;
    db.prepare_cached("UPDATE rotations SET members = ?2 WHERE id = ?1")?
        .execute(params![rotation, members])?;
    skip_expired(db, &r.uid, r.started)?;
    Ok(members)
}

/// One Rotation.
pub(super) fn get(db: &Connection, uid: &str) -> Result<Option<StoredRotation>> {
    let mut get = db.prepare_cached(
        "SELECT r.uid, r.namespace, r.name, f.namespace, f.name, r.reason, r.issuer, r.started, r.members, r.ended,
             r.outcome
         FROM rotations r JOIN fleets f ON f.id = r.fleet WHERE r.uid = ?1",
    )?;
    let found = get.query_row([uid], |row| {
        let mut c = Columns::of(row);
        Ok(StoredRotation {
            record: RotationRecord {
                uid: c.get()?,
                object: c.object()?,
                fleet: c.fleet()?,
                reason: c.get()?,
                issuer: c.get()?,
                started: c.get()?,
            },
            members: c.get()?,
            ended: c.get::<Option<Millis>>()?.zip(c.optional_word()?),
        })
    });
    Ok(found.optional()?)
}

/// Whose turn it is.
pub(super) fn next_members(db: &Connection, uid: &str, now: Millis, limit: u32) -> Result<Vec<Identity>> {
    query::identities(
        db,
        "SELECT d.broker, d.device FROM members m JOIN devices d ON d.id = m.device
         WHERE m.rotation = (SELECT id FROM rotations WHERE uid = ?1) AND m.outcome = 'Planned'
             AND d.declared = 1 AND d.job_open = 0 AND (d.not_before IS NULL OR d.not_before <= ?2)
             AND d.not_after > ?4
         ORDER BY m.wave, m.ordinal LIMIT ?3",
        params![uid, now, limit, now.div_euclid(1000)],
    )
}

/// Planned members that cannot connect any more.
pub(super) fn skip_expired(db: &Connection, uid: &str, now: Millis) -> Result<u32> {
    let skipped = db
        .prepare_cached(
            "UPDATE members SET outcome = 'Skipped'
             WHERE rotation = (SELECT id FROM rotations WHERE uid = ?1) AND outcome = 'Planned'
                 AND device IN (SELECT d.id FROM devices d JOIN rotations r ON r.fleet = d.fleet
                     WHERE r.uid = ?1 AND d.declared = 1 AND d.job_open = 0 AND d.not_after <= ?2)",
        )?
        .execute(params![uid, now.div_euclid(1000)])?;
    u32::try_from(skipped).map_err(|_| LedgerError::Invalid("too many members".to_owned()))
}

/// How the members stand.
pub(super) fn counts(db: &Connection, uid: &str) -> Result<RotationCounts> {
    let mut counts = RotationCounts::default();
    let mut get = db.prepare_cached(
        "SELECT outcome, count(*) FROM members WHERE rotation = (SELECT id FROM rotations WHERE uid = ?1) GROUP BY outcome",
    )?;
    let mut rows = get.query([uid])?;
    while let Some(row) = rows.next()? {
        let mut c = Columns::of(row);
        let (outcome, members): (_, u32) = (c.word()?, c.get()?);
        counts.members += members;
        *match outcome {
            MemberOutcome::Planned => &mut counts.planned,
            MemberOutcome::Running => &mut counts.in_flight,
            MemberOutcome::Confirmed => &mut counts.confirmed,
            MemberOutcome::Rejected => &mut counts.rejected,
            MemberOutcome::Failed => &mut counts.failed,
            MemberOutcome::TimedOut => &mut counts.timed_out,
            MemberOutcome::RolledBack => &mut counts.rolled_back,
            MemberOutcome::Lost => &mut counts.lost,
            MemberOutcome::Skipped => &mut counts.skipped,
        } = members;
    }
    let mut waiting = db.prepare_cached(
        "SELECT count(*) FROM devices WHERE job_rotation = ?1 AND job_state = 'Queued' AND job_open = 1",
    )?;
    let waiting: u32 = waiting.query_row([uid], |row| row.get(0))?;
    counts.offline = waiting.min(counts.in_flight);
    counts.in_flight -= counts.offline;
    // Those that another job waits for are offline as well: their turn does not come before that has ended.
    let mut elsewhere = db.prepare_cached(
        "SELECT count(*) FROM members m JOIN devices d ON d.id = m.device
         WHERE m.rotation = (SELECT id FROM rotations WHERE uid = ?1) AND m.outcome = 'Planned'
             AND d.job_open = 1 AND d.job_state = 'Queued'",
    )?;
    let elsewhere: u32 = elsewhere.query_row([uid], |row| row.get(0))?;
    counts.planned -= elsewhere.min(counts.planned);
    counts.offline += elsewhere;
    Ok(counts)
}

/// Members that went wrong.
pub(super) fn examples(db: &Connection, uid: &str, limit: u32) -> Result<Vec<RotationExample>> {
    let mut get = db.prepare_cached(
        "SELECT d.broker, d.device, d.namespace, d.name, m.outcome, j.code, j.detail
         FROM members m INDEXED BY members_outcome JOIN devices d ON d.id = m.device LEFT JOIN jobs j ON j.id = m.job
         WHERE m.rotation = (SELECT id FROM rotations WHERE uid = ?1)
             AND m.outcome IN ('Rejected', 'Failed', 'TimedOut', 'RolledBack', 'Lost')
         ORDER BY m.wave, m.ordinal LIMIT ?2",
    )?;
    let rows = get.query_map(params![uid, limit], |row| {
        let mut c = Columns::of(row);
        Ok(RotationExample {
            identity: c.identity()?,
            object: c.object()?,
            outcome: c.word()?,
            code: c.optional_text()?,
            detail: c.get()?,
        })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Ends one.
pub(super) fn end(db: &Connection, uid: &str, outcome: RotationOutcome, now: Millis) -> Result<()> {
    if get(db, uid)?
        .ok_or(LedgerError::NotFound("such Rotation"))?
        .ended
        .is_some()
    {
        return Ok(());
    }
    db.prepare_cached("UPDATE rotations SET ended = ?2, outcome = ?3 WHERE uid = ?1")?
        .execute(params![uid, now, outcome.word()])?;
    db.prepare_cached(
        "UPDATE members SET outcome = 'Skipped'
         WHERE rotation = (SELECT id FROM rotations WHERE uid = ?1) AND outcome = 'Planned'",
    )?
    .execute([uid])?;
    Ok(())
}

/// How a member stands by its job.
fn by_job(state: JobState) -> MemberOutcome {
    match state {
        JobState::Queued | JobState::Sent | JobState::Accepted | JobState::Issued | JobState::Committing => {
            MemberOutcome::Running
        }
        JobState::Confirmed => MemberOutcome::Confirmed,
        JobState::Rejected => MemberOutcome::Rejected,
        JobState::Failed => MemberOutcome::Failed,
        JobState::TimedOut => MemberOutcome::TimedOut,
        JobState::RolledBack => MemberOutcome::RolledBack,
        JobState::Cancelled => MemberOutcome::Skipped,
        JobState::Lost => MemberOutcome::Lost,
    }
}

/// The device gets another job: the one it has (its row names it still) will not end any more if it has not by now, as when
/// an enrolment takes its place.
pub(super) fn superseded(db: &Connection, device: i64) -> Result<()> {
    db.prepare_cached(
        "UPDATE members SET outcome = 'Skipped'
         WHERE device = ?1 AND outcome = 'Running' AND rotation = (SELECT r.id FROM rotations r
             JOIN devices d ON d.job_rotation = r.uid WHERE d.id = ?1)",
    )?
    .execute([device])?;
    Ok(())
}

/// A member's job has changed. In a Rotation that has ended nobody's turn is to come.
pub(super) fn note(db: &Connection, device: i64, job: &Job, given: Option<MemberOutcome>) -> Result<()> {
    let Some(uid) = &job.rotation else { return Ok(()) };
    let outcome = given.unwrap_or_else(|| by_job(job.state));
    db.prepare_cached(
        "UPDATE members SET job = ?4, outcome = CASE
             WHEN ?3 = 'Planned' AND EXISTS (SELECT 1 FROM rotations WHERE uid = ?1 AND ended IS NOT NULL) THEN 'Skipped'
             ELSE ?3 END
         WHERE rotation = (SELECT id FROM rotations WHERE uid = ?1) AND device = ?2",
    )?
    .execute(params![uid, device, outcome.word(), job.id.as_bytes()])?;
    Ok(())
}

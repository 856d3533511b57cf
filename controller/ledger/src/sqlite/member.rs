//! Members of Rotations: how they stand, and who comes next.

use certwave_core::model::{Identity, Job, JobKind, JobState, Millis};
use rusqlite::{Connection, OptionalExtension as _, ToSql, params};

use super::column::{Columns, Word as _, count};
use super::query;
use crate::{LedgerError, Member, MemberOutcome, NewMember, Result, Retry, Revert, RotationExample};

/// Adds members; answers how many were none before. Who is not in the fleet any more, or has expired, is skipped at once.
pub(super) fn insert(db: &Connection, rotation: i64, members: &[NewMember], now: Millis) -> Result<u32> {
    let mut insert = db.prepare_cached(
        "INSERT INTO members (rotation, device, wave, ordinal, grp, windows, changed, outcome)
         SELECT ?1, d.id, ?3, ?4, ?5, ?6, ?7, CASE
             WHEN d.declared = 1 AND d.not_after > ?8 AND d.fleet = (SELECT fleet FROM rotations WHERE id = ?1) THEN 'Planned'
             ELSE 'Skipped' END
         FROM devices d WHERE d.id = ?2
             AND NOT EXISTS (SELECT 1 FROM members m WHERE m.rotation = ?1 AND m.device = ?2)",
    )?;
    let mut added = 0;
    for m in members {
        let n = insert.execute(params![
            rotation,
            m.row.0,
            m.wave,
            m.ordinal,
            m.group,
            m.windows.cast_signed(),
            now,
            now.div_euclid(1000)
        ])?;
        if n == 0 && !exists(db, m.row.0)? {
            return Err(LedgerError::NotFound("such device"));
        }
        added += n;
    }
    count(added)
}

fn exists(db: &Connection, device: i64) -> Result<bool> {
    let mut get = db.prepare_cached("SELECT EXISTS (SELECT 1 FROM devices WHERE id = ?1)")?;
    Ok(get.query_row([device], |row| row.get(0))?)
}

/// Members of Rotation `?1` by a condition on `m` and `d`.
pub(super) fn list(db: &Connection, condition: &str, params: &[&dyn ToSql]) -> Result<Vec<Member>> {
    let mut get = db.prepare_cached(&format!(
        "SELECT d.broker, d.device, m.wave, m.ordinal, m.grp, m.windows, coalesce(d.not_after, 0), m.outcome
         FROM members m JOIN devices d ON d.id = m.device
         WHERE m.rotation = (SELECT id FROM rotations WHERE uid = ?1) AND {condition}"
    ))?;
    let rows = get.query_map(params, |row| {
        let mut c = Columns::of(row);
        Ok(Member {
            identity: c.identity()?,
            wave: c.get()?,
            ordinal: c.get()?,
            group: c.get()?,
            windows: c.get::<i64>()?.cast_unsigned(),
            not_after: c.get()?,
            outcome: c.word()?,
        })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// One member.
pub(super) fn get(db: &Connection, uid: &str, identity: &Identity) -> Result<Option<Member>> {
    let found = list(
        db,
        "m.device = (SELECT id FROM devices WHERE broker = ?2 AND device = ?3)",
        params![uid, identity.broker.as_str(), identity.device.as_str()],
    )?;
    Ok(found.into_iter().next())
}

/// Timed-out members that have been heard again.
pub(super) fn retryable(
    db: &Connection,
    uid: &str,
    now: Millis,
    max_retries: u32,
    limit: u32,
) -> Result<Vec<Identity>> {
    // A timed-out job loses its deadline, after which it would be lost, when its device is heard.
    query::identities(
        db,
        "SELECT d.broker, d.device
         FROM members m JOIN devices d ON d.id = m.device JOIN jobs j ON j.id = m.job
         WHERE m.rotation = (SELECT id FROM rotations WHERE uid = ?1) AND m.outcome = 'TimedOut'
             AND d.declared = 1 AND d.job_open = 0 AND (d.not_before IS NULL OR d.not_before <= ?2) AND d.not_after > ?5
             AND j.committed = 0 AND j.attempt <= ?3 AND (j.deadline IS NULL OR d.last_seen > j.since)
         ORDER BY m.wave, m.ordinal LIMIT ?4",
        params![uid, now, max_retries, limit, now.div_euclid(1000)],
    )
}

/// Members that are to be sent back and have no job for it.
pub(super) fn reverting(db: &Connection, uid: &str, now: Millis, limit: u32) -> Result<Vec<Identity>> {
    query::identities(
        db,
        "SELECT d.broker, d.device FROM members m JOIN devices d ON d.id = m.device
         WHERE m.rotation = (SELECT id FROM rotations WHERE uid = ?1) AND m.outcome = 'Reverting'
             AND d.declared = 1 AND d.job_open = 0 AND (d.not_before IS NULL OR d.not_before <= ?2)
         ORDER BY m.wave, m.ordinal LIMIT ?3",
        params![uid, now, limit],
    )
}

/// Members that have still to be rotated and whose certificates end soon.
pub(super) fn expiring(db: &Connection, uid: &str, before_s: i64, limit: u32) -> Result<Vec<Identity>> {
    query::identities(
        db,
        "SELECT d.broker, d.device FROM devices d INDEXED BY devices_counts
             JOIN members m ON m.rotation = (SELECT id FROM rotations WHERE uid = ?1) AND m.device = d.id
         WHERE d.fleet = (SELECT fleet FROM rotations WHERE uid = ?1) AND d.declared = 1 AND d.not_after < ?2
             AND (m.outcome = 'Planned' OR m.outcome = 'Running' AND d.job_state = 'Queued')
         ORDER BY d.not_after, d.device LIMIT ?3",
        params![uid, before_s, limit],
    )
}

/// Members that went wrong.
pub(super) fn examples(db: &Connection, uid: &str, limit: u32) -> Result<Vec<RotationExample>> {
    let mut get = db.prepare_cached(
        "SELECT d.broker, d.device, d.namespace, d.name, m.outcome, j.code, j.detail
         FROM members m INDEXED BY members_outcome JOIN devices d ON d.id = m.device LEFT JOIN jobs j ON j.id = m.job
         WHERE m.rotation = (SELECT id FROM rotations WHERE uid = ?1)
             AND m.outcome IN ('Rejected', 'Failed', 'TimedOut', 'RolledBack', 'Lost', 'Unreverted')
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

/// Members that cannot be helped any more: planned ones that have expired, and those whose way back has.
pub(super) fn skip_expired(db: &Connection, uid: &str, now: Millis) -> Result<u32> {
    let now_s = now.div_euclid(1000);
    let skipped = db
        .prepare_cached(
            "UPDATE members SET outcome = 'Skipped', changed = ?3
             WHERE rotation = (SELECT id FROM rotations WHERE uid = ?1) AND outcome = 'Planned'
                 AND device IN (SELECT d.id FROM devices d JOIN rotations r ON r.fleet = d.fleet
                     WHERE r.uid = ?1 AND d.declared = 1 AND d.job_open = 0 AND d.not_after <= ?2)",
        )?
        .execute(params![uid, now_s, now])?;
    let stuck = db
        .prepare_cached(
            "UPDATE members SET outcome = 'Unreverted', changed = ?3
             WHERE rotation = (SELECT id FROM rotations WHERE uid = ?1) AND outcome = 'Reverting'
                 AND EXISTS (SELECT 1 FROM devices d LEFT JOIN certificates p ON p.id = d.previous
                     WHERE d.id = members.device AND d.job_open = 0 AND coalesce(p.not_after <= ?2, 1))",
        )?
        .execute(params![uid, now_s, now])?;
    count(skipped + stuck)
}

/// Puts members back in line.
pub(super) fn retry(db: &Connection, rotation: i64, retry: Retry, now: Millis) -> Result<()> {
    db.prepare_cached(
        "UPDATE members SET outcome = 'Planned', changed = ?5
         WHERE rotation = ?1 AND wave <= ?2
             AND (?3 AND outcome IN ('Failed', 'Rejected', 'RolledBack') OR ?4 AND outcome = 'Reverted')
             AND EXISTS (SELECT 1 FROM devices d JOIN rotations r ON r.fleet = d.fleet
                 WHERE r.id = ?1 AND d.id = members.device AND d.declared = 1)",
    )?
    .execute(params![rotation, retry.through_wave, retry.failed, retry.reverted, now])?;
    if retry.reverted {
        // Nobody sends them back any more: they start from the new certificate as they did.
        db.prepare_cached(
            "UPDATE members SET outcome = 'Confirmed', changed = ?3
             WHERE rotation = ?1 AND wave <= ?2 AND outcome = 'Reverting'",
        )?
        .execute(params![rotation, retry.through_wave, now])?;
    }
    Ok(())
}

/// Moves the member last heard of those whose turn would come later into a wave.
pub(super) fn substitute(db: &Connection, rotation: i64, wave: u32, now: Millis) -> Result<()> {
    db.prepare_cached(
        "UPDATE members SET wave = ?2, changed = ?3
         WHERE rotation = ?1 AND device = (SELECT m.device FROM members m JOIN devices d ON d.id = m.device
             WHERE m.rotation = ?1 AND m.outcome = 'Planned' AND m.wave > ?2 AND d.declared = 1 AND d.job_open = 0
             ORDER BY d.last_seen DESC NULLS LAST, m.wave, m.ordinal LIMIT 1)",
    )?
    .execute(params![rotation, wave, now])?;
    Ok(())
}

/// Marks confirmed members to be sent back, and names those that cannot or should not be.
pub(super) fn revert(db: &Connection, rotation: i64, revert: &Revert, now: Millis) -> Result<()> {
    // The previous certificate is the one from before this Rotation only while the member's job is the device's last one.
    db.prepare_cached(
        "UPDATE members SET changed = ?6, outcome = CASE WHEN EXISTS (SELECT 1
                 FROM devices d JOIN certificates p ON p.id = d.previous JOIN certificates c ON c.id = d.current
                 WHERE d.id = members.device AND d.declared = 1 AND d.job = members.job AND d.job_open = 0
                     AND d.fleet = (SELECT fleet FROM rotations WHERE id = ?1)
                     AND p.not_after >= ?4 AND c.confirmed_at >= ?5)
             THEN 'Reverting' ELSE 'Unreverted' END
         WHERE rotation = ?1 AND outcome = 'Confirmed' AND wave BETWEEN ?2 AND ?3",
    )?
    .execute(params![
        rotation,
        revert.from_wave,
        revert.through_wave,
        revert.min_not_after_s,
        revert.confirmed_after,
        now
    ])?;
    Ok(())
}

/// The Rotation ends: no turn of anybody's comes any more.
pub(super) fn end(db: &Connection, rotation: i64, now: Millis) -> Result<()> {
    db.prepare_cached(
        "UPDATE members SET outcome = 'Skipped', changed = ?2 WHERE rotation = ?1 AND outcome = 'Planned'",
    )?
    .execute(params![rotation, now])?;
    db.prepare_cached(
        "UPDATE members SET outcome = 'Unreverted', changed = ?2
         WHERE rotation = ?1 AND outcome = 'Reverting'
             AND EXISTS (SELECT 1 FROM devices d WHERE d.id = members.device AND d.job_open = 0)",
    )?
    .execute(params![rotation, now])?;
    Ok(())
}

/// The device leaves its fleet, and with it the turns it had in the fleet's Rotations. An open job goes on.
pub(super) fn leave(db: &Connection, device: i64, now: Millis) -> Result<()> {
    db.prepare_cached(
        "UPDATE members SET outcome = 'Skipped', changed = ?2 WHERE device = ?1 AND outcome = 'Planned'",
    )?
    .execute(params![device, now])?;
    db.prepare_cached(
        "UPDATE members SET outcome = 'Unreverted', changed = ?2
         WHERE device = ?1 AND outcome = 'Reverting'
             AND EXISTS (SELECT 1 FROM devices d WHERE d.id = ?1 AND d.job_open = 0)",
    )?
    .execute(params![device, now])?;
    Ok(())
}

/// The device is withdrawn, and its job cancelled before it was sent.
pub(super) fn cancelled(db: &Connection, device: i64, now: Millis) -> Result<()> {
    db.prepare_cached(
        "UPDATE members SET outcome = iif(outcome = 'Reverting', 'Unreverted', 'Skipped'), changed = ?2
         WHERE device = ?1 AND outcome IN ('Running', 'Reverting') AND rotation = (SELECT r.id FROM rotations r
             JOIN devices d ON d.job_rotation = r.uid WHERE d.id = ?1)",
    )?
    .execute(params![device, now])?;
    Ok(())
}

/// The device gets another job. The one it has (its row names it still) will not end any more if it has not by now, as when
/// an enrolment takes its place; and its previous certificate will be another one, which nobody is to be sent back to.
pub(super) fn superseded(db: &Connection, device: i64, job: &Job, now: Millis) -> Result<()> {
    db.prepare_cached(
        "UPDATE members SET outcome = 'Skipped', changed = ?2
         WHERE device = ?1 AND outcome = 'Running' AND rotation = (SELECT r.id FROM rotations r
             JOIN devices d ON d.job_rotation = r.uid WHERE d.id = ?1)",
    )?
    .execute(params![device, now])?;
    db.prepare_cached(
        "UPDATE members SET outcome = 'Unreverted', changed = ?2
         WHERE device = ?1 AND outcome = 'Reverting'
             AND NOT (?3 AND rotation = coalesce((SELECT id FROM rotations WHERE uid = ?4), -1))",
    )?
    .execute(params![device, now, job.kind == JobKind::Rollback, job.rotation])?;
    Ok(())
}

/// A member's job has changed.
pub(super) fn note(db: &Connection, device: i64, job: &Job, given: Option<MemberOutcome>, now: Millis) -> Result<()> {
    let Some(uid) = &job.rotation else { return Ok(()) };
    let mut find = db.prepare_cached(
        "SELECT m.rotation, m.outcome, m.job, r.ended IS NOT NULL FROM rotations r
         JOIN members m ON m.rotation = r.id AND m.device = ?2 WHERE r.uid = ?1",
    )?;
    let found = find.query_row(params![uid, device], |row| {
        let mut c = Columns::of(row);
        Ok((c.get::<i64>()?, c.word()?, c.optional_job_id()?, c.get()?))
    });
    let Some((rotation, before, last, ended)) = found.optional()? else {
        return Ok(());
    };
    // Its way back was called off before it began.
    if before == MemberOutcome::Confirmed && job.kind == JobKind::Rollback && job.state == JobState::Cancelled {
        return Ok(());
    }
    if vanished(before) && last != Some(job.id) && !heard_of(job.state) {
        return Ok(());
    }
    let after = in_line(given.unwrap_or_else(|| by_job(job)), job, ended);
    db.prepare_cached(
        "UPDATE members SET job = ?3, outcome = ?4, changed = iif(outcome = ?4, changed, ?5)
         WHERE rotation = ?1 AND device = ?2",
    )?
    .execute(params![rotation, device, job.id.as_bytes(), after.word(), now])?;
    Ok(())
}

/// True for those that count as gone until they accept another job.
fn vanished(outcome: MemberOutcome) -> bool {
    matches!(outcome, MemberOutcome::TimedOut | MemberOutcome::Lost)
}

/// True where the device has answered the job, or had the chance to.
fn heard_of(state: JobState) -> bool {
    !matches!(state, JobState::Queued | JobState::Sent | JobState::Cancelled)
}

/// How a member stands by its job.
fn by_job(job: &Job) -> MemberOutcome {
    match (job.state, &job.kind) {
        (
            JobState::Queued | JobState::Sent | JobState::Accepted | JobState::Issued | JobState::Committing,
            JobKind::Rollback,
        ) => MemberOutcome::Reverting,
        (JobState::Confirmed, JobKind::Rollback) => MemberOutcome::Reverted,
        (_, JobKind::Rollback) => MemberOutcome::Unreverted,
        // A trust job is the way to the leaf, not the end of it.
        (JobState::Confirmed, JobKind::Trust(_)) => MemberOutcome::Planned,
        (JobState::Queued | JobState::Sent | JobState::Accepted | JobState::Issued | JobState::Committing, _) => {
            MemberOutcome::Running
        }
        (JobState::Confirmed, _) => MemberOutcome::Confirmed,
        (JobState::Rejected, _) => MemberOutcome::Rejected,
        (JobState::Failed, _) => MemberOutcome::Failed,
        (JobState::TimedOut, _) => MemberOutcome::TimedOut,
        (JobState::RolledBack, _) => MemberOutcome::RolledBack,
        (JobState::Cancelled, _) => MemberOutcome::Skipped,
        (JobState::Lost, _) => MemberOutcome::Lost,
    }
}

/// Whoever is in line again is so for the same thing; in a Rotation that has ended nobody is.
fn in_line(outcome: MemberOutcome, job: &Job, ended: bool) -> MemberOutcome {
    match (outcome, job.kind == JobKind::Rollback, ended) {
        (MemberOutcome::Planned, true, false) => MemberOutcome::Reverting,
        (MemberOutcome::Planned, true, true) => MemberOutcome::Unreverted,
        (MemberOutcome::Planned, false, true) => MemberOutcome::Skipped,
        _ => outcome,
    }
}

//! How a member stands, as its device goes its way.

use crate::sql::{Connection, OptionalExtension as _, params};
use certwave_core::model::{Identity, Job, JobKind, JobState, Millis};

use super::column::{Columns, Word as _};
use crate::{LedgerError, MemberOutcome, Result};

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
        "UPDATE members SET outcome = CASE WHEN outcome = 'Reverting' THEN 'Unreverted' ELSE 'Skipped' END, changed = ?2
         WHERE device = ?1 AND outcome IN ('Running', 'Reverting') AND rotation = (SELECT r.id FROM rotations r
             JOIN devices d ON d.job_rotation = r.uid WHERE d.id = ?1)",
    )?
    .execute(params![device, now])?;
    Ok(())
}

/// The device gets another job. The one it has (its row names it still) will not end any more if it has not by now, as when
/// an enrolment takes its place; and its previous certificate will be another one, which nobody is to be sent back to.
///
/// # Errors
/// [`LedgerError::Conflict`] where it is a way back, and the device went that way by itself: its previous certificate is the newer one.
pub(super) fn superseded(db: &Connection, device: i64, job: &Job, now: Millis) -> Result<()> {
    if job.kind == JobKind::Rollback {
        let mut forward = db.prepare_cached("SELECT coalesce(previous > current, FALSE) FROM devices WHERE id = ?1")?;
        if forward.query_row([device], |row| row.get(0))? {
            return Err(LedgerError::Conflict);
        }
    }
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

/// A confirmed member did not come back by its new certificate alone.
pub(super) fn probation_failed(db: &Connection, identity: &Identity, uid: &str, now: Millis) -> Result<()> {
    db.prepare_cached(
        "UPDATE members SET outcome = 'ProbationFailed', changed = ?4
         WHERE device = (SELECT id FROM devices WHERE broker = ?1 AND device = ?2)
             AND rotation = (SELECT id FROM rotations WHERE uid = ?3) AND outcome = 'Confirmed'",
    )?
    .execute(params![identity.broker.as_str(), identity.device.as_str(), uid, now])?;
    Ok(())
}

/// A member's job has changed.
pub(super) fn note(db: &Connection, device: i64, job: &Job, given: Option<MemberOutcome>, now: Millis) -> Result<()> {
    let Some(uid) = &job.rotation else { return Ok(()) };
    let mut find = db.prepare_cached(
        "SELECT m.rotation, m.outcome, m.job, r.ended IS NOT NULL OR d.declared = 0 OR d.bar IS NOT NULL OR d.fleet <> r.fleet
         FROM rotations r JOIN members m ON m.rotation = r.id AND m.device = ?2 JOIN devices d ON d.id = ?2
         WHERE r.uid = ?1",
    )?;
    let found = find.query_row(params![uid, device], |row| {
        let mut c = Columns::of(row);
        Ok((c.get::<i64>()?, c.word()?, c.optional_job_id()?, c.get()?))
    });
    let Some((rotation, before, last, over)) = found.optional()? else {
        return Ok(());
    };
    // Its way back was called off before it began.
    if before == MemberOutcome::Confirmed && job.kind == JobKind::Rollback && job.state == JobState::Cancelled {
        return Ok(());
    }
    if vanished(before) && last != Some(job.id) && !heard_of(job.state) {
        return Ok(());
    }
    let after = in_line(given.unwrap_or_else(|| by_job(job)), job, over);
    db.prepare_cached(
        "UPDATE members SET job = ?3, outcome = ?4, changed = CASE WHEN outcome = ?4 THEN changed ELSE ?5 END
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

/// Whoever is in line again is so for the same thing; once the Rotation has ended or the device has left, it is `over`.
fn in_line(outcome: MemberOutcome, job: &Job, over: bool) -> MemberOutcome {
    match (outcome, job.kind == JobKind::Rollback, over) {
        (MemberOutcome::Planned, true, false) => MemberOutcome::Reverting,
        (MemberOutcome::Planned, true, true) => MemberOutcome::Unreverted,
        (MemberOutcome::Planned, false, true) => MemberOutcome::Skipped,
        _ => outcome,
    }
}

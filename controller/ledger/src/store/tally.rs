//! Members, counted.

use crate::sql::{Connection, OptionalExtension as _};
use certwave_core::model::Millis;
use certwave_core::rollout::run::WaveCounts;

use super::column::Columns;
use crate::{MemberOutcome, Result};

/// Running members whose job the device has been sent, by wave.
const IN_FLIGHT: &str = "SELECT m.wave, count(*) FROM devices d
    CROSS JOIN members m ON m.rotation = (SELECT id FROM rotations WHERE uid = ?1) AND m.device = d.id
    WHERE d.job_rotation = ?1 AND d.job_state IN ('Sent', 'Accepted', 'Issued', 'Committing') AND d.job_open = 1
        AND m.outcome = 'Running'
    GROUP BY m.wave";
/// Members to be sent back whose job waits for them, by wave.
const AWAY: &str = "SELECT m.wave, count(*) FROM devices d
    CROSS JOIN members m ON m.rotation = (SELECT id FROM rotations WHERE uid = ?1) AND m.device = d.id
    WHERE d.job_rotation = ?1 AND d.job_state = 'Queued' AND d.job_kind = 'rollback' AND d.job_open = 1
        AND m.outcome = 'Reverting'
    GROUP BY m.wave";
/// Planned members for which a job of something else waits, by wave. Ranges in place of an inequality, which no index serves,
/// lead past the many that wait for this Rotation.
const ELSEWHERE: &str = "WITH waits AS NOT MATERIALIZED (SELECT id, job_rotation FROM devices INDEXED BY devices_queued
        WHERE fleet = (SELECT fleet FROM rotations WHERE uid = ?1) AND job_open = 1 AND job_state = 'Queued')
    SELECT m.wave, count(*) FROM (
        SELECT id FROM waits WHERE job_rotation IS NULL
        UNION ALL SELECT id FROM waits WHERE job_rotation < ?1
        UNION ALL SELECT id FROM waits WHERE job_rotation > ?1) d
    CROSS JOIN members m ON m.rotation = (SELECT id FROM rotations WHERE uid = ?1) AND m.device = d.id
    WHERE m.outcome = 'Planned'
    GROUP BY m.wave";

/// How the members of each wave stand.
pub(super) fn waves(db: &Connection, uid: &str) -> Result<Vec<WaveCounts>> {
    let mut waves = tallies(db, uid)?;
    // Those that another job waits for are offline as well: their turn does not come before that has ended.
    if waves.iter().any(|wave| wave.planned > 0) {
        each(db, ELSEWHERE, uid, &mut waves, |wave, n| {
            wave.planned -= n;
            wave.offline += n;
        })?;
    }
    Ok(waves)
}

/// The same, whatever else planned members wait for.
pub(super) fn tallies(db: &Connection, uid: &str) -> Result<Vec<WaveCounts>> {
    let mut find =
        db.prepare_cached("SELECT id, coalesce(json_array_length(plan, '$.waves'), 1) FROM rotations WHERE uid = ?1")?;
    let found = find.query_row([uid], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    let Some((rotation, planned)): Option<(i64, u32)> = found else {
        return Ok(Vec::new());
    };
    let mut waves = vec![WaveCounts::default(); planned as usize];
    let mut get = db.prepare_cached("SELECT wave, outcome, n, changed FROM tallies WHERE rotation = ?1")?;
    let mut rows = get.query([rotation])?;
    while let Some(row) = rows.next()? {
        let mut c = Columns::of(&row);
        let wave = at(&mut waves, c.get()?);
        add(wave, c.word()?, c.get()?, c.get()?);
    }
    // Of those that run, few have been asked at a time: these are looked at, the rest is offline.
    each(db, IN_FLIGHT, uid, &mut waves, |wave, n| {
        wave.offline -= n;
        wave.in_flight += n;
    })?;
    if waves.iter().any(|wave| wave.reverting > 0) {
        each(db, AWAY, uid, &mut waves, |wave, n| {
            wave.reverting -= n;
            wave.offline += n;
        })?;
    }
    Ok(waves)
}

fn at(waves: &mut Vec<WaveCounts>, wave: u32) -> &mut WaveCounts {
    let index = wave as usize;
    if waves.len() <= index {
        waves.resize(index + 1, WaveCounts::default());
    }
    &mut waves[index]
}

/// Adds a tally. Running members are offline until they are found in flight.
fn add(wave: &mut WaveCounts, outcome: MemberOutcome, n: u32, changed: Millis) {
    wave.members += n;
    wave.changed = wave.changed.max(changed);
    *match outcome {
        MemberOutcome::Planned => &mut wave.planned,
        MemberOutcome::Running => &mut wave.offline,
        MemberOutcome::Confirmed => &mut wave.confirmed,
        MemberOutcome::Rejected => &mut wave.rejected,
        MemberOutcome::Failed => &mut wave.failed,
        MemberOutcome::TimedOut => &mut wave.timed_out,
        MemberOutcome::RolledBack => &mut wave.rolled_back,
        MemberOutcome::Lost => &mut wave.lost,
        MemberOutcome::Skipped => &mut wave.skipped,
        MemberOutcome::Reverting => &mut wave.reverting,
        MemberOutcome::Reverted => &mut wave.reverted,
        MemberOutcome::Unreverted => &mut wave.unreverted,
        MemberOutcome::ProbationFailed => &mut wave.probation_failed,
    } += n;
}

fn each(
    db: &Connection,
    sql: &str,
    uid: &str,
    waves: &mut Vec<WaveCounts>,
    mut then: impl FnMut(&mut WaveCounts, u32),
) -> Result<()> {
    let mut get = db.prepare_cached(sql)?;
    let mut rows = get.query([uid])?;
    while let Some(row) = rows.next()? {
        let mut c = Columns::of(&row);
        then(at(waves, c.get()?), c.get()?);
    }
    Ok(())
}

/// Members in flight or timed out, by group.
pub(super) fn groups_in_use(db: &Connection, uid: &str) -> Result<Vec<(String, u32)>> {
    // A timed-out member may be asked again while it counts as timed out, hence the second half's last condition.
    let mut get = db.prepare_cached(
        "SELECT b.grp, count(*) FROM (
             SELECT m.bucket AS bucket FROM devices d
                 CROSS JOIN members m ON m.rotation = (SELECT id FROM rotations WHERE uid = ?1) AND m.device = d.id
                 WHERE d.job_rotation = ?1 AND d.job_state IN ('Sent', 'Accepted', 'Issued', 'Committing') AND d.job_open = 1
                     AND m.outcome <> 'TimedOut'
             UNION ALL
             SELECT bucket FROM members WHERE rotation = (SELECT id FROM rotations WHERE uid = ?1) AND outcome = 'TimedOut') m
         JOIN buckets b ON b.id = m.bucket GROUP BY b.grp ORDER BY b.grp",
    )?;
    let rows = get.query_map([uid], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.collect::<crate::sql::Result<_>>()?)
}

/// Members that have still to be rotated, by the hour in which their certificates end.
pub(super) fn remaining(db: &Connection, uid: &str) -> Result<Vec<(i64, u32)>> {
    let mut get = db.prepare_cached(
        "SELECT d.not_after / 3600 * 3600 AS hour, count(*)
         FROM members m INDEXED BY members_outcome JOIN devices d ON d.id = m.device
         WHERE m.rotation = (SELECT id FROM rotations WHERE uid = ?1) AND d.not_after IS NOT NULL
             AND m.outcome IN ('Planned', 'Running') AND (m.outcome = 'Planned' OR d.job_state = 'Queued')
         GROUP BY hour ORDER BY hour",
    )?;
    let rows = get.query_map([uid], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.collect::<crate::sql::Result<_>>()?)
}

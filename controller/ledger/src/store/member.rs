//! Members of Rotations: who comes next, and what is done to many at once.

use crate::sql::{Connection, OptionalExtension as _, ToSql, params};
use certwave_core::model::{Identity, Millis};

use super::column::{Columns, count};
use super::{query, retirement};
use crate::{Member, Result, Retry, Revert, RotationExample};

/// The previous certificate `p` is neither on hold nor revoked: a device may go back to it.
const UNMARKED: &str = "NOT EXISTS (SELECT 1 FROM marks k WHERE k.issuer = p.issuer AND k.serial = p.serial
    AND (k.held_at IS NOT NULL OR k.revoked_at IS NOT NULL))";

/// Of a member `m` and its device `d`: it went back by itself, to a certificate of before the Rotation or of before its last one. Then its
/// previous one is the newer one, which nobody is sent to (`outcome::superseded`).
const BACK: &str = "(coalesce(d.current <= m.held, FALSE) OR coalesce(d.previous > d.current, FALSE))";

/// The Rotation's row.
pub(super) fn rotation(db: &Connection, uid: &str) -> Result<Option<i64>> {
    let mut get = db.prepare_cached("SELECT id FROM rotations WHERE uid = ?1")?;
    Ok(get.query_row([uid], |row| row.get(0)).optional()?)
}

/// Members by what stands behind `FROM` and `WHERE`: `members m`, `buckets b` and `devices d`.
pub(super) fn list(db: &Connection, from: &str, condition: &str, params: &[&dyn ToSql]) -> Result<Vec<Member>> {
    let mut get = db.prepare_cached(&format!(
        "SELECT d.broker, d.device, m.wave, m.ordinal, b.grp, b.windows, coalesce(d.not_after, 0), m.outcome
         FROM {from} WHERE {condition}"
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
    Ok(rows.collect::<crate::sql::Result<_>>()?)
}

/// One member.
pub(super) fn get(db: &Connection, uid: &str, identity: &Identity) -> Result<Option<Member>> {
    let found = list(
        db,
        "devices d CROSS JOIN members m ON m.device = d.id CROSS JOIN buckets b ON b.id = m.bucket",
        "d.broker = ?2 AND d.device = ?3 AND m.rotation = (SELECT id FROM rotations WHERE uid = ?1)",
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
        &format!("SELECT d.broker, d.device
         FROM rotations r CROSS JOIN members m ON m.rotation = r.id CROSS JOIN devices d ON d.id = m.device
             CROSS JOIN jobs j ON j.id = m.job
         WHERE r.uid = ?1 AND m.outcome = 'TimedOut' AND d.declared = 1 AND d.bar IS NULL AND d.fleet = r.fleet AND d.job_open = 0
             AND {} AND {} AND d.not_after > ?5
             AND j.committed = 0 AND j.attempt <= ?3 AND (j.deadline IS NULL OR d.last_seen > j.since)
         ORDER BY m.wave, m.ordinal LIMIT ?4", query::rested("d", "?2"), retirement::unheld("d")),
        params![uid, now, max_retries, limit, now.div_euclid(1000)],
    )
}

/// Members that are to be sent back and have no job for it.
pub(super) fn reverting(db: &Connection, uid: &str, now: Millis, limit: u32) -> Result<Vec<Identity>> {
    query::identities(
        db,
        &format!(
            "SELECT d.broker, d.device FROM members m JOIN devices d ON d.id = m.device LEFT JOIN certificates p ON p.id = d.previous
             WHERE m.rotation = (SELECT id FROM rotations WHERE uid = ?1) AND m.outcome = 'Reverting'
                 AND d.declared = 1 AND d.bar IS NULL AND d.job_open = 0 AND {}
                 AND {UNMARKED} AND NOT {BACK}
             ORDER BY m.wave, m.ordinal LIMIT ?3",
            query::rested("d", "?2")
        ),
        params![uid, now, limit],
    )
}

/// Members that have still to be rotated and whose certificates end soon.
pub(super) fn expiring(db: &Connection, uid: &str, before_s: i64, limit: u32) -> Result<Vec<Identity>> {
    query::identities(
        db,
        "SELECT d.broker, d.device FROM devices d INDEXED BY devices_counts
             CROSS JOIN members m ON m.rotation = (SELECT id FROM rotations WHERE uid = ?1) AND m.device = d.id
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
             AND m.outcome IN ('Rejected', 'Failed', 'TimedOut', 'RolledBack', 'Lost', 'Unreverted', 'ProbationFailed')
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
    Ok(rows.collect::<crate::sql::Result<_>>()?)
}

/// Members that cannot be helped any more: planned ones that have expired, and those whose way back has. Or that need no help any more, as
/// they went back by themselves.
pub(super) fn skip_expired(db: &Connection, uid: &str, now: Millis) -> Result<u32> {
    let now_s = now.div_euclid(1000);
    // The empty text keeps the database from going through all planned members in place of the expired devices.
    let skipped = db
        .prepare_cached(
            "UPDATE members SET outcome = 'Skipped', changed = ?3
             WHERE rotation = (SELECT id FROM rotations WHERE uid = ?1) AND outcome || '' = 'Planned'
                 AND device IN (SELECT d.id FROM devices d JOIN rotations r ON r.fleet = d.fleet
                     WHERE r.uid = ?1 AND d.declared = 1 AND d.job_open = 0 AND d.not_after <= ?2)",
        )?
        .execute(params![uid, now_s, now])?;
    let back = db
        .prepare_cached(&format!(
            "UPDATE members AS m SET outcome = 'Reverted', changed = ?2
             WHERE m.rotation = (SELECT id FROM rotations WHERE uid = ?1) AND m.outcome = 'Reverting'
                 AND EXISTS (SELECT 1 FROM devices d WHERE d.id = m.device AND d.job_open = 0 AND {BACK})"
        ))?
        .execute(params![uid, now])?;
    let stuck = db
        .prepare_cached(&format!(
            "UPDATE members SET outcome = 'Unreverted', changed = ?3
             WHERE rotation = (SELECT id FROM rotations WHERE uid = ?1) AND outcome = 'Reverting'
                 AND EXISTS (SELECT 1 FROM devices d LEFT JOIN certificates p ON p.id = d.previous
                     WHERE d.id = members.device AND d.job_open = 0
                         AND (coalesce(p.not_after <= ?2, TRUE) OR NOT {UNMARKED}))"
        ))?
        .execute(params![uid, now_s, now])?;
    count(skipped + back + stuck)
}

/// Puts members back in line.
pub(super) fn retry(db: &Connection, rotation: i64, retry: Retry, now: Millis) -> Result<()> {
    if retry.failed {
        // A person's word, not the pause after a failure, says when: whoever has read the device before must read it again.
        db.prepare_cached(
            "UPDATE devices SET not_before = NULL, revision = revision + 1
             WHERE not_before IS NOT NULL AND declared = 1 AND job_open = 0
                 AND fleet = (SELECT fleet FROM rotations WHERE id = ?1)
                 AND id IN (SELECT device FROM members WHERE rotation = ?1 AND wave <= ?2
                     AND outcome IN ('Failed', 'Rejected', 'RolledBack', 'ProbationFailed'))",
        )?
        .execute(params![rotation, retry.through_wave])?;
    }
    db.prepare_cached(
        "UPDATE members SET outcome = 'Planned', changed = ?5
         WHERE rotation = ?1 AND outcome IN ('Failed', 'Rejected', 'RolledBack', 'ProbationFailed', 'Reverted')
             AND wave <= ?2
             AND CASE WHEN outcome = 'Reverted' THEN CAST(?4 AS BOOLEAN) ELSE CAST(?3 AS BOOLEAN) END
             AND EXISTS (SELECT 1 FROM devices d JOIN rotations r ON r.fleet = d.fleet
                 WHERE r.id = ?1 AND d.id = members.device AND d.declared = 1 AND d.bar IS NULL)",
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
    let mut find = db.prepare_cached(&format!(
        "SELECT m.device, b.grp, b.windows FROM members m JOIN devices d ON d.id = m.device JOIN buckets b ON b.id = m.bucket
         WHERE m.rotation = ?1 AND m.outcome = 'Planned' AND m.wave > ?2 AND d.declared = 1 AND d.bar IS NULL AND d.job_open = 0
             AND d.not_after > ?3 AND {}
         ORDER BY d.last_seen DESC NULLS LAST, m.wave, m.ordinal LIMIT 1",
        retirement::unheld("d")
    ))?;
    let found = find.query_row(params![rotation, wave, now.div_euclid(1000)], |row| {
        Ok((row.get::<i64>(0)?, row.get::<String>(1)?, row.get::<i64>(2)?))
    });
    let Some((device, group, windows)) = found.optional()? else {
        return Ok(());
    };
    db.prepare_cached(
        "INSERT INTO buckets (rotation, wave, grp, windows, planned) VALUES (?1, ?2, ?3, ?4, 0) ON CONFLICT DO NOTHING",
    )?
    .execute(params![rotation, wave, group, windows])?;
    db.prepare_cached(
        "UPDATE members SET wave = ?3, changed = ?6, bucket = (SELECT id FROM buckets
             WHERE rotation = ?1 AND wave = ?3 AND grp = ?4 AND windows = ?5)
         WHERE rotation = ?1 AND device = ?2",
    )?
    .execute(params![rotation, device, wave, group, windows, now])?;
    Ok(())
}

/// Marks confirmed members to be sent back, and names those that cannot or should not be.
pub(super) fn revert(db: &Connection, rotation: i64, revert: &Revert, now: Millis) -> Result<()> {
    // The previous certificate is the one from before this Rotation only while the member's job is the device's last one.
    db.prepare_cached(&format!(
        "UPDATE members AS m SET changed = ?6, outcome = CASE WHEN EXISTS (SELECT 1
                 FROM devices d WHERE d.id = m.device AND d.job = m.job AND d.job_open = 0 AND {BACK})
             THEN 'Reverted' WHEN EXISTS (SELECT 1
                 FROM devices d JOIN certificates p ON p.id = d.previous JOIN certificates c ON c.id = d.current
                 WHERE d.id = m.device AND d.declared = 1 AND d.bar IS NULL AND d.job = m.job AND d.job_open = 0
                     AND {UNMARKED}
                     AND d.fleet = (SELECT fleet FROM rotations WHERE id = ?1)
                     AND p.not_after >= ?4 AND c.confirmed_at >= ?5)
             THEN 'Reverting' ELSE 'Unreverted' END
         WHERE m.rotation = ?1 AND m.outcome = 'Confirmed' AND m.wave BETWEEN ?2 AND ?3"
    ))?
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

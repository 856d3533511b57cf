//! Whose turn it is.

use std::cmp::Ordering;
use std::collections::HashSet;

use crate::sql::{Connection, ToSql, params};

use super::column::{Columns, to_json};
use super::member;
use super::query::rested;
use super::retirement::unheld;
use crate::{Member, MemberQuery, Result};

/// For each one that is asked for, so many members are looked at one after the other;
const NEAREST: u32 = 4;
/// where too few of them are wanted, so many in all; and where that is not enough, buckets tell where the others are.
const NEAR: u32 = 1000;
/// To look into a bucket takes as long as going past so many members.
const BUCKET: u32 = 256;
/// What keeps a planned member from starting whatever its bucket, with the present time as `?1` and, in seconds, `?2`.
fn ready() -> String {
    let (rested, unheld) = (rested("d", "?1"), unheld("d"));
    format!("d.declared = 1 AND d.bar IS NULL AND d.job_open = 0 AND {rested} AND d.not_after > ?2 AND {unheld}")
}
const ONE_BY_ONE: &str = "members m CROSS JOIN devices d ON d.id = m.device CROSS JOIN buckets b ON b.id = m.bucket";

/// Planned members that may start now.
pub(super) fn members(db: &Connection, uid: &str, q: &MemberQuery) -> Result<Vec<Member>> {
    let Some(rotation) = member::rotation(db, uid)? else {
        return Ok(Vec::new());
    };
    let mut found = if q.windows == 0 {
        Vec::new()
    } else {
        wanted(db, rotation, q)?
    };
    if q.windows != u64::MAX
        && let Some(before) = q.override_before_s
    {
        found.extend(urgent(db, rotation, q, before)?);
    }
    found.sort_by(|a, b| (a.wave, a.ordinal, &a.identity).cmp(&(b.wave, b.ordinal, &b.identity)));
    found.dedup();
    found.truncate(q.limit as usize);
    Ok(found)
}

/// Those with an open window.
fn wanted(db: &Connection, rotation: i64, q: &MemberQuery) -> Result<Vec<Member>> {
    let full = to_json(&q.full_groups)?;
    let (windows, (wave, ordinal)) = (q.windows.cast_signed(), q.from);
    let nearest = q.limit.saturating_mul(NEAREST).min(NEAR);
    let mut near = Vec::new();
    for next in [nearest, NEAR] {
        near = query(
            db,
            q,
            "(SELECT device, wave, ordinal, bucket, outcome FROM members
                 WHERE rotation = ?4 AND outcome = 'Planned' AND wave <= ?5 AND (wave, ordinal) >= (?9, ?10)
                 ORDER BY wave, ordinal LIMIT ?6) m
             CROSS JOIN buckets b ON b.id = m.bucket CROSS JOIN devices d ON d.id = m.device",
            "(CAST(?7 AS BIGINT) = -1 OR b.windows & ?7 <> 0) AND b.grp NOT IN (SELECT value FROM json_each(?8))
                 ORDER BY m.wave, m.ordinal",
            &[&rotation, &q.through_wave, &next, &windows, &full, &wave, &ordinal],
        )?;
        if near.len() >= q.limit as usize {
            return Ok(near);
        }
    }
    let (open, closed) = buckets(db, rotation, q)?;
    let planned = |buckets: &[Bucket]| buckets.iter().map(|b| b.planned).sum::<u64>();
    if planned(&open) + planned(&closed) <= u64::from(NEAR) {
        return Ok(near);
    }
    // Either way only costs time: past all members of closed buckets, or into each of the open ones.
    if planned(&closed) < open.len() as u64 * u64::from(q.limit.max(BUCKET)) {
        let closed: Vec<_> = closed.iter().map(|b| b.id).collect();
        return query(
            db,
            q,
            ONE_BY_ONE,
            "m.rotation = ?4 AND m.outcome = 'Planned' AND m.wave <= ?5 AND (m.wave, m.ordinal) >= (?7, ?8)
                 AND m.bucket NOT IN (SELECT CAST(value AS BIGINT) FROM json_each(?6))
             ORDER BY m.wave, m.ordinal",
            &[&rotation, &q.through_wave, &to_json(&closed)?, &wave, &ordinal],
        );
    }
    let mut found = Vec::new();
    for served in open.chunk_by(|a, b| a.wave == b.wave) {
        for bucket in served {
            let first = match bucket.wave.cmp(&wave) {
                Ordering::Less => continue,
                Ordering::Equal => ordinal,
                Ordering::Greater => 0,
            };
            found.extend(query(
                db,
                q,
                ONE_BY_ONE,
                "m.bucket = ?4 AND m.outcome = 'Planned' AND m.ordinal >= ?5 ORDER BY m.ordinal",
                &[&bucket.id, &first],
            )?);
        }
        if found.len() >= q.limit as usize {
            break;
        }
    }
    Ok(found)
}

/// Those whose certificates end so soon that they need not wait for a window.
fn urgent(db: &Connection, rotation: i64, q: &MemberQuery, before: i64) -> Result<Vec<Member>> {
    query(
        db,
        q,
        "devices d INDEXED BY devices_expiry CROSS JOIN members m ON m.rotation = ?4 AND m.device = d.id
         CROSS JOIN buckets b ON b.id = m.bucket",
        "d.fleet = (SELECT fleet FROM rotations WHERE id = ?4) AND d.not_after < ?5
             AND m.outcome = 'Planned' AND m.wave <= ?6 AND b.grp NOT IN (SELECT value FROM json_each(?7))
             AND (m.wave, m.ordinal) >= (?8, ?9)
         ORDER BY m.wave, m.ordinal",
        &[
            &rotation,
            &before,
            &q.through_wave,
            &to_json(&q.full_groups)?,
            &q.from.0,
            &q.from.1,
        ],
    )
}

fn query(db: &Connection, q: &MemberQuery, from: &str, condition: &str, values: &[&dyn ToSql]) -> Result<Vec<Member>> {
    let now_s = q.now.div_euclid(1000);
    let first: [&dyn ToSql; 3] = [&q.now, &now_s, &q.limit];
    let values: Vec<_> = first.iter().chain(values).copied().collect();
    member::list(db, from, &format!("{} AND {condition} LIMIT ?3", ready()), &values)
}

/// A bucket with planned members.
struct Bucket {
    id: i64,
    wave: u32,
    planned: u64,
}

/// Those of which somebody is wanted, by wave, and the others.
fn buckets(db: &Connection, rotation: i64, q: &MemberQuery) -> Result<(Vec<Bucket>, Vec<Bucket>)> {
    let full: HashSet<&str> = q.full_groups.iter().map(String::as_str).collect();
    let mut get = db.prepare_cached(
        "SELECT id, wave, planned, grp, windows FROM buckets
         WHERE rotation = ?1 AND wave <= ?2 AND planned > 0 ORDER BY wave",
    )?;
    let mut rows = get.query(params![rotation, q.through_wave])?;
    let (mut open, mut closed) = (Vec::new(), Vec::new());
    while let Some(row) = rows.next()? {
        let mut c = Columns::of(&row);
        let bucket = Bucket {
            id: c.get()?,
            wave: c.get()?,
            planned: c.unsigned()?,
        };
        let (group, windows): (String, i64) = (c.get()?, c.get()?);
        let shut = q.windows != u64::MAX && windows.cast_unsigned() & q.windows == 0;
        if shut || full.contains(group.as_str()) {
            closed.push(bucket);
        } else {
            open.push(bucket);
        }
    }
    Ok((open, closed))
}

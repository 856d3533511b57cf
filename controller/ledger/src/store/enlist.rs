//! Adding members.

use std::collections::HashMap;

use crate::sql::{Connection, OptionalExtension as _, params};
use certwave_core::model::Millis;

use super::column::{Columns, Word as _, count};
use crate::{LedgerError, MemberOutcome, NewMember, Result};

/// Adds members; answers how many were none before. Who is not in the fleet any more, has expired or is barred is skipped at
/// once.
pub(super) fn members(db: &Connection, rotation: i64, members: &[NewMember], now: Millis) -> Result<u32> {
    let mut insert = db.prepare_cached(
        "INSERT INTO members (rotation, device, wave, ordinal, bucket, changed, held, outcome)
         SELECT ?1, d.id, ?3, ?4, ?5, ?6, d.current, CASE WHEN d.declared = 1 AND d.bar IS NULL AND d.not_after > ?7 AND d.fleet = r.fleet
             THEN 'Planned' ELSE 'Skipped' END
         FROM devices d, rotations r WHERE d.id = ?2 AND r.id = ?1
         ON CONFLICT DO NOTHING RETURNING outcome",
    )?;
    let mut buckets = Buckets::new(rotation);
    let mut tallies: HashMap<(u32, MemberOutcome), u32> = HashMap::new();
    // The table's order, not the plan's, which is spread all over it.
    let mut ordered: Vec<_> = members.iter().collect();
    ordered.sort_unstable_by_key(|m| m.row);
    for m in ordered {
        let bucket = buckets.of(db, m)?;
        let values = params![rotation, m.row.0, m.wave, m.ordinal, bucket, now, now.div_euclid(1000)];
        let added = insert.query_row(values, |row| Columns::of(row).word()).optional()?;
        match added {
            Some(outcome) => {
                *tallies.entry((m.wave, outcome)).or_default() += 1;
                if outcome == MemberOutcome::Planned {
                    buckets.plan(bucket);
                }
            }
            None if exists(db, m.row.0)? => {}
            None => return Err(LedgerError::NotFound("such device")),
        }
    }
    buckets.store(db)?;
    let mut tally = db.prepare_cached(
        "INSERT INTO tallies (rotation, wave, outcome, n, changed) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (rotation, wave, outcome) DO UPDATE SET n = tallies.n + excluded.n,
             changed = max(tallies.changed, excluded.changed)",
    )?;
    for ((wave, outcome), n) in &tallies {
        tally.execute(params![rotation, wave, outcome.word(), n, now])?;
    }
    count(tallies.values().map(|n| *n as usize).sum())
}

fn exists(db: &Connection, device: i64) -> Result<bool> {
    let mut get = db.prepare_cached("SELECT EXISTS (SELECT 1 FROM devices WHERE id = ?1)")?;
    Ok(get.query_row([device], |row| row.get(0))?)
}

/// A Rotation's buckets, as far as they have been needed.
struct Buckets<'m> {
    rotation: i64,
    known: HashMap<(u32, &'m str, u64), i64>,
    /// Planned members that have been added.
    planned: HashMap<i64, u32>,
}

impl<'m> Buckets<'m> {
    fn new(rotation: i64) -> Self {
        Self {
            rotation,
            known: HashMap::new(),
            planned: HashMap::new(),
        }
    }

    /// A member's; made when it is first needed.
    fn of(&mut self, db: &Connection, m: &'m NewMember) -> Result<i64> {
        let key = (m.wave, m.group.as_str(), m.windows);
        if let Some(id) = self.known.get(&key) {
            return Ok(*id);
        }
        let values = params![self.rotation, m.wave, m.group, m.windows.cast_signed()];
        let mut find = db
            .prepare_cached("SELECT id FROM buckets WHERE rotation = ?1 AND wave = ?2 AND grp = ?3 AND windows = ?4")?;
        let id = if let Some(id) = find.query_row(values, |row| row.get(0)).optional()? {
            id
        } else {
            db.prepare_cached(
                "INSERT INTO buckets (rotation, wave, grp, windows, planned) VALUES (?1, ?2, ?3, ?4, 0) RETURNING id",
            )?
            .query_row(values, |row| row.get(0))?
        };
        self.known.insert(key, id);
        Ok(id)
    }

    fn plan(&mut self, bucket: i64) {
        *self.planned.entry(bucket).or_default() += 1;
    }

    fn store(&self, db: &Connection) -> Result<()> {
        let mut update = db.prepare_cached("UPDATE buckets SET planned = planned + ?2 WHERE id = ?1")?;
        for (bucket, n) in &self.planned {
            update.execute(params![bucket, n])?;
        }
        Ok(())
    }
}

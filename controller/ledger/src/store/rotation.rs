//! Rotations: their beginning, their steps and their end.

use crate::sql::{Connection, OptionalExtension as _, params};
use certwave_core::model::{Millis, ObjectRef};
use certwave_core::rollout::run::{Plan, PlannedWave};
use certwave_core::rollout::strategy::{Strategy, Wave};
use certwave_protocol::ids::BrokerId;

use super::column::{Columns, Word as _, to_json};
use super::{audit, declare, enlist, member};
use crate::{
    AuditEntry, FleetKey, LedgerError, NewMember, Result, RotationOutcome, RotationRecord, RunWrite, StoredRotation,
    TemplateBlock, TemplateChange,
};

const UNKNOWN: LedgerError = LedgerError::NotFound("such Rotation");

/// Begins one, with its members.
pub(super) fn begin(db: &Connection, r: &RotationRecord, members: &[NewMember]) -> Result<u32> {
    if let Some(stored) = get(db, &r.uid)? {
        return Ok(stored.members);
    }
    let fleet = declare::fleet_id(db, &r.fleet)?;
    let mut insert = db.prepare_cached(
        "INSERT INTO rotations (uid, namespace, name, fleet, reason, issuer, started, members, strategy, plan, newest)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 0, ?8, ?9, (SELECT coalesce(max(id), 0) FROM certificates)) RETURNING id",
    )?;
    let values = params![
        r.uid,
        r.object.namespace,
        r.object.name,
        fleet,
        r.reason,
        r.issuer,
        r.started,
        to_json(&r.strategy)?,
        to_json(&r.plan)?
    ];
    let rotation = insert.query_row(values, |row| row.get(0))?;
    join(db, rotation, members, r.started)
}

/// Adds those that are not members yet; answers how many.
fn join(db: &Connection, rotation: i64, members: &[NewMember], now: Millis) -> Result<u32> {
    let added = enlist::members(db, rotation, members, now)?;
    db.prepare_cached("UPDATE rotations SET members = members + ?2 WHERE id = ?1")?
        .execute(params![rotation, added])?;
    Ok(added)
}

/// What a Rotation without waves went by.
fn one_wave(size: u32) -> (Strategy, Plan) {
    let wave = Wave::percent("rest", 100, 0);
    let planned = PlannedWave {
        name: wave.name.clone(),
        size,
        max_failed: u32::try_from(u64::from(size) * u64::from(wave.thresholds.max_failed_percent) / 100)
            .unwrap_or(size),
        max_lost: wave.thresholds.max_lost,
    };
    let strategy = Strategy {
        waves: vec![wave],
        ..Strategy::default()
    };
    let plan = Plan {
        waves: vec![planned],
        hash: String::new(),
    };
    (strategy, plan)
}

/// One Rotation.
pub(super) fn get(db: &Connection, uid: &str) -> Result<Option<StoredRotation>> {
    let mut get = db.prepare_cached(
        "SELECT r.uid, r.namespace, r.name, f.namespace, f.name, r.reason, r.issuer, r.started, r.members, r.strategy,
             r.plan, r.run, r.ended, r.outcome
         FROM rotations r JOIN fleets f ON f.id = r.fleet WHERE r.uid = ?1",
    )?;
    let found = get.query_row([uid], |row| {
        let mut c = Columns::of(row);
        let (uid, object, fleet) = (c.get()?, c.object()?, c.fleet()?);
        let (reason, issuer, started) = (c.get()?, c.get()?, c.get()?);
        let members = c.get()?;
        let (strategy, plan) = c
            .optional_json()?
            .zip(c.optional_json()?)
            .unwrap_or_else(|| one_wave(members));
        Ok(StoredRotation {
            record: RotationRecord {
                uid,
                object,
                fleet,
                reason,
                issuer,
                started,
                strategy,
                plan,
            },
            members,
            run: c.json()?,
            ended: c.get::<Option<Millis>>()?.zip(c.optional_word()?),
        })
    });
    Ok(found.optional()?)
}

/// Stores a step of a run.
pub(super) fn write_run(db: &Connection, uid: &str, now: Millis, w: &RunWrite) -> Result<()> {
    let mut find = db.prepare_cached("SELECT id, fleet, ended FROM rotations WHERE uid = ?1")?;
    let (rotation, fleet, ended): (i64, i64, Option<Millis>) = find
        .query_row([uid], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .optional()?
        .ok_or(UNKNOWN)?;
    if ended.is_some() {
        return Err(LedgerError::Ended);
    }
    let plan = w.plan.as_ref().map(to_json).transpose()?;
    db.prepare_cached("UPDATE rotations SET run = ?2, plan = coalesce(?3, plan) WHERE id = ?1")?
        .execute(params![rotation, to_json(&w.run)?, plan])?;
    join(db, rotation, &w.join, now)?;
    if let Some(retry) = w.retry {
        member::retry(db, rotation, retry, now)?;
    }
    if let Some(revert) = &w.revert {
        member::revert(db, rotation, revert, now)?;
    }
    if let Some(wave) = w.substitute {
        member::substitute(db, rotation, wave, now)?;
    }
    match &w.template {
        Some(TemplateChange::Block { template }) => block(db, fleet, template, rotation, now)?,
        Some(TemplateChange::Clear) => {
            db.prepare_cached("DELETE FROM template_blocks WHERE fleet = ?1")?
                .execute([fleet])?;
        }
        None => {}
    }
    if let Some(outcome) = w.end {
        end(db, uid, outcome, now)?;
    }
    audit::append(db, &w.audit)
}

/// Ends one.
pub(super) fn end(db: &Connection, uid: &str, outcome: RotationOutcome, now: Millis) -> Result<()> {
    let mut find = db.prepare_cached("SELECT id, ended FROM rotations WHERE uid = ?1")?;
    let (rotation, ended): (i64, Option<Millis>) = find
        .query_row([uid], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?
        .ok_or(UNKNOWN)?;
    if ended.is_some() {
        return Ok(());
    }
    db.prepare_cached("UPDATE rotations SET ended = ?2, outcome = ?3 WHERE id = ?1")?
        .execute(params![rotation, now, outcome.word()])?;
    member::end(db, rotation, now)
}

/// Blocks a template. The same Rotation's word again changes nothing.
fn block(db: &Connection, fleet: i64, template: &str, rotation: i64, now: Millis) -> Result<()> {
    db.prepare_cached(
        "INSERT INTO template_blocks (fleet, template, rotation, at) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (fleet) DO UPDATE SET template = excluded.template, rotation = excluded.rotation, at = excluded.at
             WHERE template_blocks.template <> excluded.template OR template_blocks.rotation <> excluded.rotation",
    )?
    .execute(params![fleet, template, rotation, now])?;
    Ok(())
}

/// Blocks a template by what showed after a Rotation was complete; answers whether it is news. A later Rotation that has ended says
/// more, and a block of this one's stays as it is.
pub(super) fn block_late(db: &Connection, uid: &str, template: &str, now: Millis, line: AuditEntry) -> Result<bool> {
    let mut find = db.prepare_cached(
        "SELECT r.id, r.fleet FROM rotations r WHERE r.uid = ?1 AND r.outcome = 'Succeeded'
             AND NOT EXISTS (SELECT 1 FROM rotations l WHERE l.fleet = r.fleet AND l.ended > r.ended)
             AND NOT EXISTS (SELECT 1 FROM template_blocks b WHERE b.rotation = r.id)",
    )?;
    let found = find.query_row([uid], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    let Some((rotation, fleet)): Option<(i64, i64)> = found else {
        return Ok(false);
    };
    block(db, fleet, template, rotation, now)?;
    audit::append(db, &[line])?;
    Ok(true)
}

/// Those that have not ended.
pub(super) fn open(db: &Connection) -> Result<Vec<(String, ObjectRef, Option<BrokerId>)>> {
    let mut get = db.prepare_cached(
        "SELECT r.uid, r.namespace, r.name, (SELECT d.broker FROM devices d WHERE d.id =
             (SELECT m.device FROM members m WHERE m.rotation = r.id LIMIT 1))
         FROM rotations r WHERE r.ended IS NULL",
    )?;
    let rows = get.query_map([], |row| {
        let mut c = Columns::of(row);
        Ok((c.get()?, c.object()?, c.optional_text()?))
    })?;
    Ok(rows.collect::<crate::sql::Result<_>>()?)
}

/// The one of a fleet that ended last.
pub(super) fn last(db: &Connection, fleet: &FleetKey) -> Result<Option<ObjectRef>> {
    let Some(fleet) = declare::known_fleet(db, fleet)? else {
        return Ok(None);
    };
    let mut get = db.prepare_cached(
        "SELECT namespace, name FROM rotations WHERE fleet = ?1 AND ended IS NOT NULL ORDER BY ended DESC, id DESC LIMIT 1",
    )?;
    Ok(get.query_row([fleet], |row| Columns::of(row).object()).optional()?)
}

/// The template that is blocked for a fleet.
pub(super) fn template_block(db: &Connection, fleet: &FleetKey) -> Result<Option<TemplateBlock>> {
    let Some(fleet) = declare::known_fleet(db, fleet)? else {
        return Ok(None);
    };
    let mut get = db.prepare_cached(
        "SELECT b.template, r.namespace, r.name, r.outcome = 'Succeeded', b.at FROM template_blocks b JOIN rotations r ON r.id = b.rotation
         WHERE b.fleet = ?1",
    )?;
    let found = get.query_row([fleet], |row| {
        let mut c = Columns::of(row);
        Ok(TemplateBlock {
            template: c.get()?,
            rotation: c.object()?,
            late: c.get::<Option<bool>>()?.unwrap_or(false),
            at: c.get()?,
        })
    });
    Ok(found.optional()?)
}

//! What objects declare.

use std::collections::HashMap;

use crate::sql::{Connection, OptionalExtension as _, params};
use certwave_core::model::{Identity, JobState, Millis, ObjectRef};
use certwave_protocol::code::Code;
use certwave_protocol::ids::{BrokerId, DeviceId};

use super::column::Columns;
use super::outcome;
use crate::{Declaration, Declared, DeclaredObject, FleetKey, LedgerError, Result};

/// A Fleet's row; made when it is first heard of.
pub(super) fn fleet_id(db: &Connection, fleet: &FleetKey) -> Result<i64> {
    if let Some(id) = known_fleet(db, fleet)? {
        return Ok(id);
    }
    let mut insert = db.prepare_cached("INSERT INTO fleets (namespace, name) VALUES (?1, ?2) RETURNING id")?;
    Ok(insert.query_row([&fleet.namespace, &fleet.name], |row| row.get(0))?)
}

/// A Fleet's row, if anything was ever heard of it.
pub(super) fn known_fleet(db: &Connection, fleet: &FleetKey) -> Result<Option<i64>> {
    let mut get = db.prepare_cached("SELECT id FROM fleets WHERE namespace = ?1 AND name = ?2")?;
    Ok(get
        .query_row([&fleet.namespace, &fleet.name], |row| row.get(0))
        .optional()?)
}

/// What the ledger holds of a declared identity.
struct Held {
    id: i64,
    declared: bool,
    object: ObjectRef,
    uid: String,
    fleet: i64,
    labels: String,
    reenrol: Option<String>,
    /// Has, or may have, a certificate that is of use.
    certified: bool,
}

fn held(db: &Connection, identity: &Identity, now: Millis) -> Result<Option<Held>> {
    let mut get = db.prepare_cached(
        "SELECT d.id, d.declared, d.namespace, d.name, d.uid, d.fleet, d.labels, d.reenrol,
             d.current IS NOT NULL OR d.previous IS NOT NULL OR coalesce(n.not_after * 1000 > ?3, FALSE)
         FROM devices d LEFT JOIN certificates n ON n.id = d.pending
         WHERE d.broker = ?1 AND d.device = ?2",
    )?;
    let found = get.query_row(
        params![identity.broker.as_str(), identity.device.as_str(), now],
        |row| {
            let mut c = Columns::of(row);
            Ok(Held {
                id: c.get()?,
                declared: c.get()?,
                object: c.object()?,
                uid: c.get()?,
                fleet: c.get()?,
                labels: c.get()?,
                reenrol: c.get()?,
                certified: c.get()?,
            })
        },
    );
    Ok(found.optional()?)
}

/// Takes over a batch.
///
/// Who looks after one broker only (`only`) withdraws no device of another one.
pub(super) fn declare(
    db: &Connection,
    now: Millis,
    declarations: &[Declaration],
    only: Option<&str>,
) -> Result<Vec<Declared>> {
    let mut fleets = HashMap::new();
    declarations
        .iter()
        .map(|declaration| {
            let key = (&declaration.object.namespace, &declaration.fleet);
            let fleet = if let Some(id) = fleets.get(&key) {
                *id
            } else {
                let id = fleet_id(
                    db,
                    &FleetKey {
                        namespace: key.0.clone(),
                        name: key.1.clone(),
                    },
                )?;
                fleets.insert(key, id);
                id
            };
            one(db, now, declaration, fleet, only)
        })
        .collect()
}

fn one(db: &Connection, now: Millis, d: &Declaration, fleet: i64, only: Option<&str>) -> Result<Declared> {
    let labels = serde_json::to_string(&d.labels).map_err(|e| LedgerError::Invalid(e.to_string()))?;
    let held = held(db, &d.identity, now)?;
    if let Some(other) = row_of(db, &d.object)?
        && held.as_ref().is_none_or(|h| h.id != other)
    {
        let before = identity_of(db, other)?;
        if only.is_some_and(|only| only != before.broker.as_str()) {
            return Ok(Declared::Elsewhere { broker: before.broker });
        }
        withdraw_row(db, now, other)?;
    }
    let Some(held) = held else {
        insert(db, now, d, fleet, &labels)?;
        return Ok(Declared::New);
    };
    let ours = held.object == d.object;
    if held.declared && !ours || !held.declared && held.certified && held.object.namespace != d.object.namespace {
        return Ok(Declared::Duplicate { holder: held.object });
    }
    let reenrol = match &d.reenrol {
        Some(permit) if was_used(db, held.id, permit)? => None,
        permit => permit.as_ref(),
    };
    let anew = !held.declared || held.uid != d.uid;
    let moved = held.fleet != fleet;
    if !anew && !moved && held.labels == labels && held.reenrol.as_ref() == reenrol {
        return Ok(Declared::Unchanged);
    }
    if moved {
        outcome::leave(db, held.id, now)?;
    }
    // A new object shows nothing yet. What another one said of a hold is not its word: it is released by whoever is told to.
    db.prepare_cached(
        "UPDATE devices SET declared = 1, namespace = ?2, name = ?3, uid = ?4, fleet = ?5, labels = ?6, reenrol = ?7,
             revision = revision + 1,
             project_rev = CASE WHEN ?8 THEN revision + 1 ELSE project_rev END,
             projected_rev = CASE WHEN ?8 THEN 0 ELSE projected_rev END,
             changed_at = CASE WHEN ?8 THEN ?9 ELSE changed_at END,
             revocation = CASE WHEN ?10 AND revocation LIKE 'hold %' THEN NULL ELSE revocation END
         WHERE id = ?1",
    )?
    .execute(params![
        held.id,
        d.object.namespace,
        d.object.name,
        d.uid,
        fleet,
        labels,
        reenrol,
        anew,
        now,
        !ours
    ])?;
    Ok(if held.declared {
        Declared::Changed
    } else {
        Declared::New
    })
}

/// Whether the word was a permit of the device before, and was used or voided.
fn was_used(db: &Connection, device: i64, permit: &str) -> Result<bool> {
    let mut get = db.prepare_cached("SELECT 1 FROM used_permits WHERE device = ?1 AND permit = ?2")?;
    Ok(get.exists(params![device, permit])?)
}

fn insert(db: &Connection, now: Millis, d: &Declaration, fleet: i64, labels: &str) -> Result<()> {
    db.prepare_cached(
        "INSERT INTO devices (broker, device, namespace, name, uid, declared, fleet, labels, reenrol, revision,
             project_rev, changed_at, projected_rev, job_open)
         VALUES (?1, ?2, ?3, ?4, ?5, 1, ?6, ?7, ?8, 1, 1, ?9, 0, 0)",
    )?
    .execute(params![
        d.identity.broker.as_str(),
        d.identity.device.as_str(),
        d.object.namespace,
        d.object.name,
        d.uid,
        fleet,
        labels,
        d.reenrol,
        now
    ])?;
    Ok(())
}

fn row_of(db: &Connection, object: &ObjectRef) -> Result<Option<i64>> {
    let mut get = db.prepare_cached("SELECT id FROM devices WHERE namespace = ?1 AND name = ?2 AND declared = 1")?;
    Ok(get
        .query_row([&object.namespace, &object.name], |row| row.get(0))
        .optional()?)
}

/// An object is gone, or none of the broker's (`only`) that is asked for.
pub(super) fn withdraw(
    db: &Connection,
    now: Millis,
    object: &ObjectRef,
    only: Option<&str>,
) -> Result<Option<Identity>> {
    let Some(id) = row_of(db, object)? else { return Ok(None) };
    let identity = identity_of(db, id)?;
    if only.is_some_and(|only| only != identity.broker.as_str()) {
        return Ok(None);
    }
    withdraw_row(db, now, id)?;
    Ok(Some(identity))
}

fn identity_of(db: &Connection, id: i64) -> Result<Identity> {
    let mut get = db.prepare_cached("SELECT broker, device FROM devices WHERE id = ?1")?;
    Ok(get.query_row([id], |row| Columns::of(row).identity())?)
}

fn withdraw_row(db: &Connection, now: Millis, id: i64) -> Result<()> {
    let cancelled = JobState::Cancelled.as_str();
    let stopped = db
        .prepare_cached(
            "UPDATE jobs SET state = ?2, since = ?3, deadline = NULL, code = ?4
             WHERE id = (SELECT job FROM devices WHERE id = ?1) AND state = 'Queued'",
        )?
        .execute(params![id, cancelled, now, Code::Cancelled.as_str()])?;
    if stopped == 1 {
        outcome::cancelled(db, id, now)?;
        db.prepare_cached(
            "UPDATE devices SET job_open = 0, job_state = ?2, job_since = ?3, wake_at = NULL WHERE id = ?1",
        )?
        .execute(params![id, cancelled, now])?;
    }
    outcome::leave(db, id, now)?;
    db.prepare_cached(
        "UPDATE devices SET declared = 0, revision = revision + 1, projected_rev = project_rev WHERE id = ?1",
    )?
    .execute([id])?;
    Ok(())
}

/// Objects that are gone, whose devices' revocations were declared.
pub(super) fn withdrawn_revocations(db: &Connection, broker: &BrokerId) -> Result<Vec<(ObjectRef, DeviceId)>> {
    let mut get = db.prepare_cached(
        "SELECT namespace, name, broker, device FROM devices WHERE declared = 0 AND broker = ?1 AND revocation IS NOT NULL",
    )?;
    let rows = get.query_map([broker.as_str()], |row| {
        let mut c = Columns::of(row);
        Ok((c.object()?, c.identity()?.device))
    })?;
    Ok(rows.collect::<crate::sql::Result<_>>()?)
}

/// A page of the objects that declare a broker's devices.
pub(super) fn objects(
    db: &Connection,
    broker: &BrokerId,
    after: Option<&ObjectRef>,
    limit: u32,
) -> Result<Vec<DeclaredObject>> {
    let mut get = db.prepare_cached(
        "SELECT namespace, name, uid, broker, device, revocation IS NOT NULL FROM devices
         WHERE declared = 1 AND (namespace, name) > (?1, ?2) AND broker = ?4 ORDER BY namespace, name LIMIT ?3",
    )?;
    // No name is empty, so the empty one comes before all.
    let (namespace, name) = after.map_or(("", ""), |o| (o.namespace.as_str(), o.name.as_str()));
    let rows = get.query_map(params![namespace, name, limit, broker.as_str()], |row| {
        let mut c = Columns::of(row);
        Ok(DeclaredObject {
            object: c.object()?,
            uid: c.get()?,
            identity: c.identity()?,
            revocation: c.get()?,
        })
    })?;
    Ok(rows.collect::<crate::sql::Result<_>>()?)
}

//! Whose certificates are marked, and what that means for the device.

use crate::sql::{Connection, OptionalExtension as _, Params, params};
use certwave_core::model::{Identity, JobState, Millis, ObjectRef};
use certwave_core::revocation::{Bar, Holder, Reason};
use certwave_protocol::code::Code;

use super::column::{Columns, Word as _};
use super::mark::{self, CERTIFICATE, Certificate, Changes, Deed, certificate, holder_text};
use super::{audit, outcome};
use crate::{Act, AuditEntry, Author, DeclaredRevocation, LedgerError, Mark, Marked, Result, Target};

/// Serial numbers that a line of the audit names at most.
const NAMED: usize = 8;

/// Changes the standing of certificates.
pub(super) fn mark(db: &Connection, now: Millis, marks: &[Mark]) -> Result<Vec<Vec<Marked>>> {
    let mut sequence = Changes::begin(db, now)?;
    let answers = marks
        .iter()
        .map(|mark| one(db, now, mark, by_person(&mark.act), &mut sequence))
        .collect::<Result<_>>()?;
    sequence.end(db)?;
    Ok(answers)
}

/// False for retirement.
fn by_person(act: &Act) -> bool {
    !matches!(
        act,
        Act::Hold(Holder::Retirement(_)) | Act::Release(Holder::Retirement(_))
    )
}

/// A device's row as far as its marks concern it.
struct Owner {
    row: i64,
    identity: Identity,
    current: Option<i64>,
    bar: Option<Bar>,
}

fn owner(db: &Connection, identity: &Identity) -> Result<Option<Owner>> {
    let mut get = db.prepare_cached("SELECT id, current, bar FROM devices WHERE broker = ?1 AND device = ?2")?;
    let found = get.query_row([identity.broker.as_str(), identity.device.as_str()], |row| {
        let mut c = Columns::of(row);
        Ok(Owner {
            row: c.get()?,
            identity: identity.clone(),
            current: c.get()?,
            bar: c.optional_word()?,
        })
    });
    Ok(found.optional()?)
}

fn certificates(db: &Connection, condition: &str, values: impl Params) -> Result<Vec<Certificate>> {
    let mut get = db.prepare_cached(&format!(
        "SELECT {CERTIFICATE} FROM certificates c WHERE {condition} ORDER BY c.id"
    ))?;
    let rows = get.query_map(values, certificate)?;
    Ok(rows.collect::<crate::sql::Result<_>>()?)
}

/// The certificates that a mark is about, and the device whose they are.
fn targets(db: &Connection, now: Millis, mark: &Mark) -> Result<(Vec<Certificate>, Option<Owner>)> {
    const DEVICE: LedgerError = LedgerError::NotFound("such device");
    const OF: &str = "c.broker = ?1 AND c.device = ?2 AND c.kind = 'Device'";
    // A hold is released whatever has expired meanwhile.
    let ended = if matches!(mark.act, Act::Release(_)) {
        i64::MIN
    } else {
        now.div_euclid(1000)
    };
    match &mark.target {
        Target::Device(id) => {
            let names = params![id.broker.as_str(), id.device.as_str(), ended];
            let found = certificates(db, &format!("{OF} AND c.not_after > ?3"), names)?;
            Ok((found, Some(owner(db, id)?.ok_or(DEVICE)?)))
        }
        Target::DeviceIssuedBy(id, issuer) => {
            let names = params![id.broker.as_str(), id.device.as_str(), ended, issuer];
            let found = certificates(db, &format!("{OF} AND c.not_after > ?3 AND c.issuer = ?4"), names)?;
            Ok((found, Some(owner(db, id)?.ok_or(DEVICE)?)))
        }
        Target::DeviceSerial(id, serial) => {
            let names = params![id.broker.as_str(), id.device.as_str(), serial];
            let found = certificates(db, &format!("{OF} AND c.serial = ?3"), names)?;
            if found.is_empty() {
                return Err(LedgerError::NotFound("such certificate of this device"));
            }
            Ok((found, Some(owner(db, id)?.ok_or(DEVICE)?)))
        }
        Target::Authority(key_id) => {
            let condition = "c.kind = 'Authority' AND c.holder = ?1 AND c.not_after > ?2";
            let found = certificates(db, condition, params![key_id, ended])?;
            if found.is_empty() {
                return Err(LedgerError::NotFound("such CA"));
            }
            Ok((found, None))
        }
        Target::Certificate(fingerprint) => {
            let found = certificates(db, "c.fingerprint = ?1", [fingerprint.0])?;
            let first = found.first().ok_or(LedgerError::NotFound("such certificate"))?;
            let owner = match &first.identity {
                Some(identity) => owner(db, identity)?,
                None => None,
            };
            Ok((found, owner))
        }
    }
}

/// A mark that belongs to a device's own step: it has left the certificate by itself, so that no session is to be closed.
pub(super) fn own(db: &Connection, now: Millis, mark: &Mark) -> Result<Vec<Marked>> {
    let mut sequence = Changes::begin(db, now)?;
    let changed = one(db, now, mark, false, &mut sequence)?;
    sequence.end(db)?;
    Ok(changed)
}

/// One mark, as part of a transaction. With `sessions`, those of certificates that are not good any more are to be closed.
fn one(db: &Connection, now: Millis, mark: &Mark, sessions: bool, sequence: &mut Changes) -> Result<Vec<Marked>> {
    let (found, owner) = targets(db, now, mark)?;
    let current = |c: &Certificate| c.row.is_some() && c.row == owner.as_ref().and_then(|o| o.current);
    let device = !matches!(mark.target, Target::Certificate(_) | Target::Authority(_));
    let author = match &mark.revocation {
        _ if !sessions => Author::Controller,
        Some(uid) => Author::Revocation(uid.clone()),
        None => Author::Person,
    };
    let mut changed = Vec::new();
    for certificate in &found {
        let session = sessions && certificate.identity.is_some() && (device || current(certificate));
        let deed = Deed {
            act: &mark.act,
            requested_at: mark.requested_at,
            session,
            author: &author,
        };
        if sequence.act(db, certificate, &deed)? {
            changed.push(certificate);
            if let Some(uid) = &mark.revocation {
                name(db, uid, certificate)?;
            }
        }
    }
    let barred = match &owner {
        Some(owner) => {
            let whole = matches!(mark.target, Target::Device(_)) || found.iter().any(current);
            bar(db, owner, now, &mark.act, whole, &changed)?
        }
        None => false,
    };
    if let Some(owner) = owner.as_ref().filter(|_| barred || !changed.is_empty()) {
        touch(db, &owner.identity, now)?;
    }
    if barred || !changed.is_empty() {
        audit::append(db, &[line(now, mark, owner.as_ref(), &changed)])?;
    }
    let marked = changed.iter().map(|c| mark::get(db, &c.key));
    Ok(marked.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
}

fn name(db: &Connection, uid: &str, certificate: &Certificate) -> Result<()> {
    db.prepare_cached(
        "INSERT INTO named_marks (revocation, issuer, serial) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING",
    )?
    .execute([uid, &certificate.key.issuer, &certificate.key.serial])?;
    Ok(())
}

fn line(now: Millis, mark: &Mark, owner: Option<&Owner>, changed: &[&Certificate]) -> AuditEntry {
    let what = match &mark.act {
        Act::Revoke { .. } => "revoked",
        Act::Hold(_) => "held",
        Act::Release(_) => "released",
    };
    let mut detail = match &mark.act {
        Act::Revoke { reason, .. } => format!("{reason:?}"),
        Act::Hold(holder) | Act::Release(holder) => holder_text(holder),
    };
    let mut say = |parts: [&str; 2]| parts.into_iter().for_each(|part| detail.push_str(part));
    for certificate in changed.iter().take(NAMED) {
        say([", serial ", &certificate.key.serial]);
    }
    if changed.len() > NAMED {
        say([" and more, together ", &changed.len().to_string()]);
    }
    if let Some(said) = &mark.detail {
        say([": ", said]);
    }
    AuditEntry {
        at: now,
        who: mark.who.clone(),
        what: what.to_owned(),
        identity: owner.map(|o| o.identity.clone()),
        job: None,
        detail: Some(detail),
    }
}

/// What the act means for the device; `whole` where it is about all of it, or what it starts from. Answers whether anything
/// of that changed.
fn bar(db: &Connection, owner: &Owner, now: Millis, act: &Act, whole: bool, changed: &[&Certificate]) -> Result<bool> {
    match act {
        Act::Revoke { .. } => {
            // Nobody is to go back to it.
            for certificate in changed {
                db.prepare_cached("UPDATE devices SET previous = NULL WHERE id = ?1 AND previous = ?2")?
                    .execute(params![owner.row, certificate.row])?;
            }
            if whole { shut_out(db, owner, now) } else { Ok(false) }
        }
        Act::Hold(Holder::Retirement(_)) | Act::Release(Holder::Retirement(_)) => Ok(false),
        Act::Hold(holder) => {
            if !whole || owner.bar == Some(Bar::Revoked) {
                return Ok(false);
            }
            let added = db
                .prepare_cached("INSERT INTO device_holds (device, holder) VALUES (?1, ?2) ON CONFLICT DO NOTHING")?
                .execute(params![owner.row, holder_text(holder)])?;
            if owner.bar.is_none() {
                close(db, owner, now, Bar::Held)?;
            }
            Ok(added == 1)
        }
        Act::Release(holder) => {
            // What is not whole leaves the device barred while its current certificate is held on.
            if !whole && current_held(db, owner, holder)? {
                return Ok(false);
            }
            let gone = db
                .prepare_cached("DELETE FROM device_holds WHERE device = ?1 AND holder = ?2")?
                .execute(params![owner.row, holder_text(holder)])?;
            let kept = db
                .prepare_cached("SELECT 1 FROM device_holds WHERE device = ?1")?
                .exists([owner.row])?;
            if !kept {
                db.prepare_cached("UPDATE devices SET bar = NULL WHERE id = ?1 AND bar = ?2")?
                    .execute(params![owner.row, Bar::Held.word()])?;
            }
            Ok(gone == 1)
        }
    }
}

/// The device is revoked: no permit that it has counts any more. Answers whether anything changed.
fn shut_out(db: &Connection, owner: &Owner, now: Millis) -> Result<bool> {
    db.prepare_cached("DELETE FROM device_holds WHERE device = ?1")?
        .execute([owner.row])?;
    let voided = db
        .prepare_cached(
            "UPDATE devices SET reenrol_used = reenrol, reenrol = NULL WHERE id = ?1 AND reenrol IS NOT NULL",
        )?
        .execute([owner.row])?;
    if owner.bar == Some(Bar::Revoked) {
        return Ok(voided == 1);
    }
    close(db, owner, now, Bar::Revoked)?;
    Ok(true)
}

/// After a restore: bars a device whose current certificate turns out to be revoked, or on hold. One that was only superseded says nothing
/// against the device, which has a newer one that the ledger hears of when the device speaks.
pub(super) fn bar_taken_in(db: &Connection, now: Millis, identity: &Identity) -> Result<()> {
    let Some(owner) = owner(db, identity)?.filter(|owner| owner.bar != Some(Bar::Revoked)) else {
        return Ok(());
    };
    let revoked = db
        .prepare_cached(
            "SELECT 1 FROM certificates c JOIN marks m ON m.issuer = c.issuer AND m.serial = c.serial
             WHERE c.id = ?1 AND m.revoked_at IS NOT NULL AND m.reason <> ?2",
        )?
        .exists(params![owner.current, Reason::Superseded.code()])?;
    let changed = if revoked {
        shut_out(db, &owner, now)?
    } else if current_held(db, &owner, &Holder::Person)? {
        bar(db, &owner, now, &Act::Hold(Holder::Person), true, &[])?
    } else {
        false
    };
    if changed {
        touch(db, identity, now)?;
    }
    Ok(())
}

fn current_held(db: &Connection, owner: &Owner, holder: &Holder) -> Result<bool> {
    let mut get = db.prepare_cached(
        "SELECT 1 FROM certificates c JOIN holds h ON h.issuer = c.issuer AND h.serial = c.serial
         WHERE c.id = ?1 AND h.holder = ?2",
    )?;
    Ok(get.exists(params![owner.current, holder_text(holder)])?)
}

/// The device gets no certificate any more: what was not accepted is called off, and no Rotation waits for it.
fn close(db: &Connection, owner: &Owner, now: Millis, bar: Bar) -> Result<()> {
    let cancelled = JobState::Cancelled.as_str();
    let stopped = db
        .prepare_cached(
            "UPDATE jobs SET state = ?2, since = ?3, deadline = NULL, code = ?4
             WHERE id = (SELECT job FROM devices WHERE id = ?1) AND state IN ('Queued', 'Sent')",
        )?
        .execute(params![owner.row, cancelled, now, Code::Cancelled.as_str()])?;
    if stopped == 1 {
        outcome::cancelled(db, owner.row, now)?;
        db.prepare_cached(
            "UPDATE devices SET job_open = 0, job_state = ?2, job_since = ?3, wake_at = NULL WHERE id = ?1",
        )?
        .execute(params![owner.row, cancelled, now])?;
    }
    outcome::leave(db, owner.row, now)?;
    db.prepare_cached("UPDATE devices SET bar = ?2 WHERE id = ?1")?
        .execute(params![owner.row, bar.word()])?;
    Ok(())
}

/// The device has changed: whoever has read it reads it again, and its object's status is due.
pub(super) fn touch(db: &Connection, identity: &Identity, now: Millis) -> Result<()> {
    db.prepare_cached(
        "UPDATE devices SET revision = revision + 1, project_rev = CASE WHEN declared = 1 THEN revision + 1 ELSE project_rev END,
             changed_at = CASE WHEN declared = 1 THEN ?3 ELSE changed_at END
         WHERE broker = ?1 AND device = ?2",
    )?
    .execute(params![identity.broker.as_str(), identity.device.as_str(), now])?;
    Ok(())
}

/// What a device's object has said, as it is kept to tell what is new. Of revocations every serial number that was named stays, and
/// `all`: neither another reason or date, nor a serial that is put in and taken out again, revokes what the device got later.
fn heard(before: Option<&str>, wanted: &DeclaredRevocation) -> String {
    let serial = wanted.serial.as_deref().unwrap_or("all");
    match &wanted.act {
        Act::Revoke { .. } => match before.filter(|before| before.starts_with("revoke ")) {
            Some(before) if before.split(' ').any(|word| word == serial) => before.to_owned(),
            Some(before) => format!("{before} {serial}"),
            None => format!("revoke {serial}"),
        },
        Act::Hold(holder) => format!("hold {serial} {}", holder_text(holder)),
        Act::Release(holder) => format!("release {serial} {}", holder_text(holder)),
    }
}

/// Takes over what `spec.revocation` says.
pub(super) fn declare(
    db: &Connection,
    now: Millis,
    object: &ObjectRef,
    wanted: Option<&DeclaredRevocation>,
    who: &str,
) -> Result<Vec<Marked>> {
    let mut find = db.prepare_cached(
        "SELECT id, broker, device, revocation FROM devices WHERE namespace = ?1 AND name = ?2 AND declared = 1",
    )?;
    let found = find.query_row([&object.namespace, &object.name], |row| {
        let mut c = Columns::of(row);
        Ok((c.get::<i64>()?, c.identity()?, c.get::<Option<String>>()?))
    });
    let (row, identity, before) = found.optional()?.ok_or(LedgerError::NotFound("such device"))?;
    let after = wanted.map(|wanted| heard(before.as_deref(), wanted));
    if before == after {
        return Ok(Vec::new());
    }
    let said = |target, act| Mark {
        target,
        act,
        requested_at: wanted.map_or(now, |wanted| wanted.requested_at),
        who: who.to_owned(),
        detail: Some("spec.revocation".to_owned()),
        revocation: None,
    };
    let mut sequence = Changes::begin(db, now)?;
    let mut changed = Vec::new();
    if let Some(DeclaredRevocation { act, serial, .. }) = wanted {
        let target = match serial {
            Some(serial) => Target::DeviceSerial(identity.clone(), serial.clone()),
            None => Target::Device(identity.clone()),
        };
        changed = one(db, now, &said(target, act.clone()), true, &mut sequence)?;
    }
    // What a person held before and does not any more.
    let release = Act::Release(Holder::Person);
    match wanted.map(|w| (&w.act, &w.serial)) {
        Some((Act::Hold(Holder::Person), None)) => {}
        Some((Act::Hold(Holder::Person), Some(serial))) => {
            for held in held_by_person(db, &identity)?.into_iter().filter(|held| held != serial) {
                let target = Target::DeviceSerial(identity.clone(), held);
                changed.extend(one(db, now, &said(target, release.clone()), true, &mut sequence)?);
            }
        }
        _ => {
            let target = Target::Device(identity.clone());
            changed.extend(one(db, now, &said(target, release), true, &mut sequence)?);
        }
    }
    sequence.end(db)?;
    db.prepare_cached("UPDATE devices SET revocation = ?2 WHERE id = ?1")?
        .execute(params![row, after])?;
    Ok(changed)
}

fn held_by_person(db: &Connection, identity: &Identity) -> Result<Vec<String>> {
    let mut get = db.prepare_cached(
        "SELECT m.serial FROM marks m JOIN holds h ON h.issuer = m.issuer AND h.serial = m.serial
         WHERE m.broker = ?1 AND m.device = ?2 AND h.holder = ?3",
    )?;
    let rows = get.query_map(
        params![
            identity.broker.as_str(),
            identity.device.as_str(),
            holder_text(&Holder::Person)
        ],
        |row| row.get(0),
    )?;
    Ok(rows.collect::<crate::sql::Result<_>>()?)
}

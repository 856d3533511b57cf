//! A ledger that comes from a backup: what was lost is taken in again before anything is issued.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use crate::sql::{Connection, OptionalExtension as _, params};
use certwave_core::model::{Identity, Millis};
use certwave_core::revocation::{Holder, Reason, Standing};
use certwave_protocol::ids::{Epoch, Fingerprint};

use super::column::{Columns, count, int};
use super::mark::{CERTIFICATE, Certificate, Changes, Standings, certificate, holder_text};
use super::{audit, revocation, term};
use crate::{AuditEntry, Author, Held, LedgerError, Provenance, Result, SerialKey, TakenIn, Totals};

/// What `devices.revocation` says of a hold that was taken in: whatever the object declares is new then.
const TAKEN_IN: &str = "taken in";

/// Which ledger this is.
pub(super) fn provenance(db: &Connection) -> Result<Provenance> {
    // Lines are numbered without a gap.
    let mut get = db.prepare_cached(
        "SELECT id, restored_at, (SELECT coalesce(max(id), 0) FROM audit), (SELECT hash FROM audit ORDER BY id DESC LIMIT 1)
         FROM ledger",
    )?;
    Ok(get.query_row([], |row| {
        let mut c = Columns::of(row);
        Ok(Provenance {
            id: c.get()?,
            restored_at: c.get()?,
            lines: c.unsigned()?,
            head: c.optional_fingerprint()?,
        })
    })?)
}

/// What the ledger holds.
pub(super) fn totals(db: &Connection) -> Result<Totals> {
    let mut get = db.prepare_cached(
        "SELECT (SELECT coalesce(max(epoch), 0) FROM epochs), (SELECT count(*) FROM devices),
             (SELECT count(*) FROM certificates), (SELECT count(*) FROM archived_certificates),
             (SELECT count(*) FROM marks WHERE held_at IS NOT NULL),
             (SELECT count(*) FROM marks WHERE revoked_at IS NOT NULL), (SELECT count(*) FROM audit)",
    )?;
    Ok(get.query_row([], |row| {
        let mut c = Columns::of(row);
        Ok(Totals {
            epoch: c.unsigned()?,
            devices: c.unsigned()?,
            certificates: c.unsigned()?,
            archived: c.unsigned()?,
            held: c.unsigned()?,
            revoked: c.unsigned()?,
            audit: c.unsigned()?,
        })
    })?)
}

/// Refuses to issue while it is not known what was lost.
pub(super) fn whole(db: &Connection) -> Result<()> {
    match provenance(db)?.restored_at {
        None => Ok(()),
        Some(_) => Err(LedgerError::Restoring),
    }
}

/// It comes from a backup: whoever wrote to what it is a copy of must not go on with this.
pub(super) fn restored(db: &Connection, last: Epoch, now: Millis) -> Result<()> {
    let present = term::last(db)?;
    if present != last {
        return Err(LedgerError::StaleEpoch { given: last, present });
    }
    term::end_all(db, "restored", now)?;
    // Whoever keeps answers by the number of a change has seen numbers that the backup has not.
    db.prepare_cached("UPDATE ledger SET restored_at = ?1, last_change = max(last_change, ?1)")?
        .execute([now])?;
    audit::append(db, &[line(now, "ledger-restored", None)])
}

/// All that could be taken in has been.
pub(super) fn recovered(db: &Connection, now: Millis) -> Result<()> {
    let ended = db
        .prepare_cached("UPDATE ledger SET restored_at = NULL WHERE restored_at IS NOT NULL")?
        .execute([])?;
    if ended == 0 {
        return Ok(());
    }
    audit::append(db, &[line(now, "ledger-recovered", None)])
}

fn line(now: Millis, what: &str, detail: Option<String>) -> AuditEntry {
    AuditEntry {
        at: now,
        who: "controller".to_owned(),
        what: what.to_owned(),
        identity: None,
        job: None,
        detail,
    }
}

/// Takes in what was lost; answers how many certificates are new.
pub(super) fn take_in(
    db: &Connection,
    now: Millis,
    certificates: &[TakenIn],
    numbers: &[(String, String, u64)],
) -> Result<u32> {
    for (issuer, partition, number) in numbers {
        db.prepare_cached(
            "INSERT INTO crl_floors (issuer, partition, number) VALUES (?1, ?2, ?3)
             ON CONFLICT (issuer, partition) DO UPDATE SET number = max(crl_floors.number, excluded.number)",
        )?
        .execute(params![issuer, partition, int(*number)?])?;
    }
    // By the order of rows it is told which of a device's certificates is the newer one.
    let mut certificates: Vec<&TakenIn> = certificates.iter().collect();
    certificates.sort_by_key(|taken| (taken.validity.0, taken.holder.as_ref().map(|(_, held)| age(*held))));
    let mut sequence = Changes::begin(db, now)?;
    let mut new: BTreeMap<&SerialKey, &TakenIn> = BTreeMap::new();
    let mut behind: HashSet<&Identity> = HashSet::new();
    let mut marked: BTreeSet<Identity> = BTreeSet::new();
    for taken in certificates.iter().copied() {
        let known = known(db, &taken.key)?;
        if known.is_none() {
            let row = insert(db, taken, now)?;
            new.insert(&taken.key, taken);
            behind.extend(row.and(taken.holder.as_ref()).map(|(identity, _)| identity));
        }
        marked.extend(mark(db, now, taken, &mut sequence)?);
    }
    sequence.end(db)?;
    for taken in certificates {
        if let (Some((identity, held)), Some(fingerprint)) = (&taken.holder, &taken.fingerprint)
            && behind.contains(identity)
        {
            hand(db, now, identity, *held, fingerprint)?;
        }
    }
    // Once it is known what each device starts from.
    for identity in &marked {
        revocation::bar_taken_in(db, now, identity)?;
    }
    if !new.is_empty() {
        let detail = format!("{} certificates", new.len());
        audit::append(db, &[line(now, "taken-in", Some(detail))])?;
    }
    count(new.len())
}

/// Where two of a device begin in the same second.
const fn age(held: Held) -> u8 {
    match held {
        Held::Previous => 0,
        Held::Current => 1,
        Held::Pending => 2,
    }
}

/// Whether the ledger knows a certificate: its device's, if it is a device's.
fn known(db: &Connection, key: &SerialKey) -> Result<Option<()>> {
    let mut get = db.prepare_cached(
        "SELECT 1 FROM certificates WHERE issuer = ?1 AND serial = ?2
         UNION ALL SELECT 1 FROM marks WHERE issuer = ?1 AND serial = ?2
         UNION ALL SELECT 1 FROM archived_certificates WHERE issuer = ?1 AND serial = ?2",
    )?;
    Ok(get.exists([&key.issuer, &key.serial])?.then_some(()))
}

/// Adds the certificate, as far as it is known; its DER is lost.
fn insert(db: &Connection, t: &TakenIn, now: Millis) -> Result<Option<i64>> {
    let (Some(fingerprint), Some(public_key), Some((identity, held))) = (&t.fingerprint, &t.public_key, &t.holder)
    else {
        return Ok(None);
    };
    let spki = Fingerprint::of(public_key);
    let mut add = db.prepare_cached(
        "INSERT INTO certificates (fingerprint, issuer, serial, spki, public_key, not_before, not_after, kind, holder,
                 broker, device, issued_at, sent_at, confirmed_at, der)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 'Device', ?8, ?9, ?8, ?10, ?10, ?11, ?12) ON CONFLICT DO NOTHING
             RETURNING id",
    )?;
    let values = params![
        fingerprint.0,
        t.key.issuer,
        t.key.serial,
        spki.0,
        public_key,
        t.validity.0,
        t.validity.1,
        identity.device.as_str(),
        identity.broker.as_str(),
        now,
        (*held != Held::Pending).then_some(now),
        Vec::<u8>::new()
    ];
    Ok(add.query_row(values, |row| row.get(0)).optional()?)
}

/// Marks it as told, unless the ledger knows more. Answers whose certificate is revoked or on hold by that.
fn mark(db: &Connection, now: Millis, t: &TakenIn, sequence: &mut Changes) -> Result<Option<Identity>> {
    let mut find = db.prepare_cached(&format!(
        "SELECT {CERTIFICATE} FROM certificates c WHERE c.issuer = ?1 AND c.serial = ?2"
    ))?;
    let stored = find.query_row([&t.key.issuer, &t.key.serial], certificate).optional()?;
    let mut present =
        db.prepare_cached("SELECT held_at, revoked_at IS NOT NULL FROM marks WHERE issuer = ?1 AND serial = ?2")?;
    let present: Option<(Option<i64>, bool)> = present
        .query_row([&t.key.issuer, &t.key.serial], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let archived = db
        .prepare_cached("SELECT 1 FROM archived_certificates WHERE issuer = ?1 AND serial = ?2")?
        .exists([&t.key.issuer, &t.key.serial])?;
    let (held_at, revoked) = present.unwrap_or_default();
    let good = t.standing == Standing::Good;
    let held_again = matches!(t.standing, Standing::Held { .. }) && held_at.is_some();
    // What is good and has a row needs no mark; without a row, a mark tells that its serial number was given.
    if revoked || archived || held_again || good && (stored.is_some() || present.is_some()) {
        return Ok(None);
    }
    let certificate = stored.unwrap_or_else(|| Certificate {
        row: None,
        fingerprint: t.fingerprint,
        key: t.key.clone(),
        identity: t.holder.as_ref().map(|(identity, _)| identity.clone()),
        not_after: t.validity.1,
        partition: t.partition.clone(),
    });
    let held = match t.standing {
        Standing::Held { since } => Some(since),
        _ => None,
    };
    let revoked = match t.standing {
        Standing::Revoked { since, reason } => Some((since, reason)),
        _ => None,
    };
    let by_person = revoked.is_some_and(|(_, reason)| reason != Reason::Superseded);
    let put = Standings {
        held_at: held,
        released_at: None,
        revoked,
        invalid_since: t.invalid_since,
        requested_at: now,
        session: certificate.identity.is_some() && by_person,
        // A person holds what nobody is known to hold.
        author: if by_person || held.is_some() {
            Author::Person
        } else {
            Author::Controller
        },
    };
    sequence.put(db, &certificate, &put)?;
    let SerialKey { issuer, serial } = &t.key;
    if revoked.is_some() {
        db.prepare_cached("DELETE FROM holds WHERE issuer = ?1 AND serial = ?2")?
            .execute([issuer, serial])?;
    }
    if held.is_some() {
        // Nobody knows who held it; a person can let go of it, by the device's object.
        db.prepare_cached("INSERT INTO holds (issuer, serial, holder) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING")?
            .execute([issuer, serial, &holder_text(&Holder::Person)])?;
    }
    let Some(identity) = certificate.identity else {
        return Ok(None);
    };
    if held.is_some() {
        db.prepare_cached(
            "UPDATE devices SET revocation = ?3 WHERE broker = ?1 AND device = ?2 AND revocation IS NULL",
        )?
        .execute([identity.broker.as_str(), identity.device.as_str(), TAKEN_IN])?;
    }
    if revoked.is_some() {
        db.prepare_cached("UPDATE devices SET previous = NULL WHERE broker = ?1 AND device = ?2 AND previous = ?3")?
            .execute(params![
                identity.broker.as_str(),
                identity.device.as_str(),
                certificate.row
            ])?;
    }
    revocation::touch(db, &identity, now)?;
    Ok((revoked.is_some() || held.is_some()).then_some(identity))
}

/// The device held the certificate as this: what the ledger has in its place is older.
fn hand(db: &Connection, now: Millis, identity: &Identity, held: Held, fingerprint: &Fingerprint) -> Result<()> {
    let column = match held {
        Held::Current => "current = c.id, not_after = c.not_after, issuer = c.issuer, pending = nullif(pending, c.id)",
        Held::Previous => "previous = c.id, pending = nullif(pending, c.id)",
        Held::Pending => "pending = c.id",
    };
    db.prepare_cached(&format!(
        "UPDATE devices SET {column} FROM certificates c
         WHERE devices.broker = ?1 AND devices.device = ?2 AND c.fingerprint = ?3
             AND c.broker = ?1 AND c.device = ?2
             AND NOT (?4 AND EXISTS (SELECT 1 FROM marks m
                 WHERE m.issuer = c.issuer AND m.serial = c.serial AND m.revoked_at IS NOT NULL))"
    ))?
    .execute(params![
        identity.broker.as_str(),
        identity.device.as_str(),
        fingerprint.0,
        held == Held::Previous
    ])?;
    revocation::touch(db, identity, now)
}

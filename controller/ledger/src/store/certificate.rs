//! Certificates.

use crate::sql::{Connection, OptionalExtension as _, Row, params};
use certwave_core::model::{Identity, Millis, ObjectRef};
use certwave_protocol::ids::Fingerprint;

use super::column::{Columns, Word as _};
use super::recover;
use crate::{CertificateKind, CertificateRecord, LedgerError, Result, StoredCertificate};

const SELECT: &str =
    "SELECT fingerprint, serial, issuer, spki, public_key, not_before, not_after, kind, holder, broker,
    device, job, der, issued_at, sent_at, confirmed_at FROM certificates";

fn stored(row: &Row<'_>) -> crate::sql::Result<StoredCertificate> {
    let mut c = Columns::of(row);
    Ok(StoredCertificate {
        record: CertificateRecord {
            fingerprint: c.fingerprint()?,
            serial: c.get()?,
            issuer: c.get()?,
            spki: c.fingerprint()?,
            public_key: c.get()?,
            not_before: c.get()?,
            not_after: c.get()?,
            kind: c.word()?,
            holder: c.get()?,
            identity: c.optional_identity()?,
            job: c.optional_job_id()?,
            der: c.get()?,
            issued_at: c.get()?,
        },
        sent_at: c.get()?,
        confirmed_at: c.get()?,
    })
}

/// One certificate.
pub(super) fn by_fingerprint(db: &Connection, fingerprint: &Fingerprint) -> Result<Option<StoredCertificate>> {
    let mut get = db.prepare_cached(&format!("{SELECT} WHERE fingerprint = ?1"))?;
    Ok(get.query_row([fingerprint.0], stored).optional()?)
}

/// The latest with this key.
pub(super) fn by_key(db: &Connection, spki: &Fingerprint) -> Result<Option<StoredCertificate>> {
    let mut get = db.prepare_cached(&format!("{SELECT} WHERE spki = ?1 ORDER BY id DESC LIMIT 1"))?;
    Ok(get.query_row([spki.0], stored).optional()?)
}

/// The latest of the CA with this key id.
pub(super) fn authority(db: &Connection, key_id: &str) -> Result<Option<StoredCertificate>> {
    let mut get = db.prepare_cached(&format!(
        "{SELECT} WHERE kind = 'Authority' AND holder = ?1 ORDER BY id DESC LIMIT 1"
    ))?;
    Ok(get.query_row([key_id], stored).optional()?)
}

/// The key that a CA's object has.
pub(super) fn authority_key(db: &Connection, object: &ObjectRef) -> Result<Option<String>> {
    let mut get = db.prepare_cached("SELECT key_id FROM authorities WHERE namespace = ?1 AND name = ?2")?;
    Ok(get
        .query_row(params![object.namespace, object.name], |row| row.get(0))
        .optional()?)
}

/// Notes it, once and for all.
pub(super) fn note_authority_key(db: &Connection, object: &ObjectRef, key_id: &str) -> Result<()> {
    db.prepare_cached("INSERT INTO authorities (namespace, name, key_id) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING")?
        .execute(params![object.namespace, object.name, key_id])?;
    match authority_key(db, object)? {
        Some(noted) if noted == key_id => Ok(()),
        _ => Err(LedgerError::Conflict),
    }
}

/// Where a certificate stands, and whether it is there.
pub(super) fn id(db: &Connection, fingerprint: &Fingerprint) -> Result<Option<i64>> {
    let mut get = db.prepare_cached("SELECT id FROM certificates WHERE fingerprint = ?1")?;
    Ok(get.query_row([fingerprint.0], |row| row.get(0)).optional()?)
}

/// Where a device's certificate stands.
pub(super) fn id_of_device(db: &Connection, identity: &Identity, fingerprint: &Fingerprint) -> Result<i64> {
    let mut get =
        db.prepare_cached("SELECT id FROM certificates WHERE fingerprint = ?1 AND broker = ?2 AND device = ?3")?;
    get.query_row(
        params![fingerprint.0, identity.broker.as_str(), identity.device.as_str()],
        |row| row.get(0),
    )
    .optional()?
    .ok_or(LedgerError::NotFound("such certificate of this device"))
}

/// Records a certificate, unless it is there already.
pub(super) fn insert(db: &Connection, r: &CertificateRecord) -> Result<i64> {
    if let Some(id) = id(db, &r.fingerprint)? {
        return Ok(id);
    }
    recover::whole(db)?;
    if (r.kind == CertificateKind::Device) != r.identity.is_some() {
        return Err(LedgerError::Invalid(
            "a device's certificate, and no other, names a device".to_owned(),
        ));
    }
    fresh_key(db, r)?;
    let mut same_serial = db.prepare_cached(
        "SELECT 1 FROM certificates WHERE issuer = ?1 AND serial = ?2
         UNION ALL SELECT 1 FROM marks WHERE issuer = ?1 AND serial = ?2
         UNION ALL SELECT 1 FROM archived_certificates WHERE issuer = ?1 AND serial = ?2",
    )?;
    if same_serial.exists(params![r.issuer, r.serial])? {
        return Err(LedgerError::SerialReused);
    }
    let (broker, device) = r
        .identity
        .as_ref()
        .map(|i| (i.broker.as_str(), i.device.as_str()))
        .unzip();
    let mut insert = db.prepare_cached(
        "INSERT INTO certificates (fingerprint, issuer, serial, spki, public_key, not_before, not_after, kind, holder,
             broker, device, job, issued_at, der)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)
         RETURNING id",
    )?;
    let values = params![
        r.fingerprint.0,
        r.issuer,
        r.serial,
        r.spki.0,
        r.public_key,
        r.not_before,
        r.not_after,
        r.kind.word(),
        r.holder,
        broker,
        device,
        r.job.map(|j| *j.as_bytes()),
        r.issued_at,
        r.der
    ];
    Ok(insert.query_row(values, |row| row.get(0))?)
}

/// A device's key is for one certificate; CAs, claims and the controller may renew with the key they have.
fn fresh_key(db: &Connection, r: &CertificateRecord) -> Result<()> {
    let reused = if r.kind == CertificateKind::Device {
        db.prepare_cached(
            "SELECT 1 FROM certificates WHERE spki = ?1 UNION ALL SELECT 1 FROM archived_certificates WHERE spki = ?1",
        )?
        .exists([r.spki.0])?
    } else {
        db.prepare_cached(
            "SELECT 1 FROM certificates WHERE spki = ?1 AND (kind <> ?2 OR holder <> ?3)
             UNION ALL SELECT 1 FROM archived_certificates WHERE spki = ?1 AND (kind <> ?2 OR holder <> ?3)",
        )?
        .exists(params![r.spki.0, r.kind.word(), r.holder])?
    };
    let claimed = r.kind != CertificateKind::Claim
        && db
            .prepare_cached("SELECT 1 FROM claims WHERE spki = ?1")?
            .exists([r.spki.0])?;
    if reused || claimed {
        Err(LedgerError::KeyReused)
    } else {
        Ok(())
    }
}

/// From now on it may be out there.
pub(super) fn mark_sent(db: &Connection, id: i64, now: Millis) -> Result<()> {
    db.prepare_cached("UPDATE certificates SET sent_at = ?2 WHERE id = ?1 AND sent_at IS NULL")?
        .execute([id, now])?;
    Ok(())
}

/// The device has proven it.
pub(super) fn mark_confirmed(db: &Connection, id: i64, now: Millis) -> Result<()> {
    db.prepare_cached("UPDATE certificates SET confirmed_at = ?2 WHERE id = ?1 AND confirmed_at IS NULL")?
        .execute([id, now])?;
    Ok(())
}

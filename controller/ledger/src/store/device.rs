//! Reading devices and jobs.

use certwave_core::model::{Credential, Device, Identity, Job, JobKind, ObjectRef};
use certwave_protocol::ids::JobId;
use certwave_protocol::message::Subject;

use crate::sql::{Connection, Error, OptionalExtension as _, Row, ToSql};

use super::column::Columns;
use crate::Result;

const CREDENTIAL_COLUMNS: usize = 7;
const JOB_COLUMNS: &str =
    "j.id, j.kind, j.bundle, j.rotation, j.claim, j.state, j.attempt, j.nonce, j.epoch, j.created,
    j.since, j.deadline, j.job_deadline, j.csr_key, j.subject_kind, j.subject, j.committed, j.code, j.detail";

fn select(condition: &str) -> String {
    format!(
        "SELECT d.broker, d.device, d.namespace, d.name, f.name, d.labels, d.bundle, d.session, d.last_seen, d.reenrol,
             d.reenrol_used, d.bar, d.not_before, d.revision,
             c.fingerprint, c.spki, c.serial, c.issuer, c.not_before, c.not_after, c.public_key,
             p.fingerprint, p.spki, p.serial, p.issuer, p.not_before, p.not_after, p.public_key,
             n.fingerprint, n.spki, n.serial, n.issuer, n.not_before, n.not_after, n.public_key,
             {JOB_COLUMNS}
         FROM devices d
         JOIN fleets f ON f.id = d.fleet
         LEFT JOIN certificates c ON c.id = d.current
         LEFT JOIN certificates p ON p.id = d.previous
         LEFT JOIN certificates n ON n.id = d.pending
         LEFT JOIN jobs j ON j.id = d.job
         {condition}"
    )
}

fn device(row: &Row<'_>) -> crate::sql::Result<Device> {
    let mut c = Columns::of(row);
    Ok(Device {
        id: c.identity()?,
        object: c.object()?,
        fleet: c.get()?,
        labels: c.json()?,
        bundle: c.optional_fingerprint()?,
        session: c.optional_nonce()?,
        last_seen: c.get()?,
        reenrol: c.get()?,
        reenrol_used: c.get()?,
        bar: c.optional_word()?,
        not_before: c.get()?,
        revision: c.unsigned()?,
        current: credential(&mut c)?,
        previous: credential(&mut c)?,
        pending: credential(&mut c)?,
        job: job(&mut c)?,
    })
}

fn credential(c: &mut Columns<'_>) -> crate::sql::Result<Option<Credential>> {
    let Some(fingerprint) = c.optional_fingerprint()? else {
        c.skip(CREDENTIAL_COLUMNS - 1);
        return Ok(None);
    };
    Ok(Some(Credential {
        fingerprint,
        spki: c.fingerprint()?,
        serial: c.get()?,
        issuer: c.get()?,
        not_before: c.get()?,
        not_after: c.get()?,
        public_key: c.get()?,
    }))
}

/// The job in the following columns, which are the last ones of a row.
fn job(c: &mut Columns<'_>) -> crate::sql::Result<Option<Job>> {
    let Some(id) = c.optional_job_id()? else {
        return Ok(None);
    };
    let (kind, bundle): (String, _) = (c.get()?, c.optional_fingerprint()?);
    Ok(Some(Job {
        id,
        kind: match (kind.as_str(), bundle) {
            ("enrol", _) => JobKind::Enrol,
            ("rotate", _) => JobKind::Rotate,
            ("rollback", _) => JobKind::Rollback,
            ("trust", Some(bundle)) => JobKind::Trust(bundle),
            _ => {
                return Err(Error::column(0, format!("job kind {kind}")));
            }
        },
        rotation: c.get()?,
        claim: c.optional_text()?,
        state: c.word()?,
        attempt: c.get()?,
        nonce: c.nonce()?,
        epoch: c.unsigned()?,
        created: c.get()?,
        since: c.get()?,
        deadline: c.get()?,
        job_deadline: c.get()?,
        csr_key: c.optional_fingerprint()?,
        subject: {
            let (kind, hash): (Option<String>, _) = (c.get()?, c.optional_fingerprint()?);
            match (kind.as_deref(), hash) {
                (None, _) => None,
                (Some("certificate"), Some(hash)) => Some(Subject::Certificate(hash)),
                (Some("bundle"), Some(hash)) => Some(Subject::Bundle(hash)),
                (Some(other), _) => {
                    return Err(Error::column(0, format!("subject {other}")));
                }
            }
        },
        committed: c.get()?,
        code: c.optional_text()?,
        detail: c.get()?,
    }))
}

/// A job's kind as stored.
pub(super) fn kind_word(kind: &JobKind) -> &'static str {
    match kind {
        JobKind::Enrol => "enrol",
        JobKind::Rotate => "rotate",
        JobKind::Rollback => "rollback",
        JobKind::Trust(_) => "trust",
    }
}

/// A job, and the device (by row) that it is for.
pub(super) fn stored_job(db: &Connection, id: &JobId) -> Result<Option<(i64, Job)>> {
    let mut get = db.prepare_cached(&format!("SELECT j.device, {JOB_COLUMNS} FROM jobs j WHERE j.id = ?1"))?;
    let found = get.query_row([id.as_bytes()], |row| {
        let mut c = Columns::of(row);
        Ok((c.get()?, job(&mut c)?))
    });
    Ok(found.optional()?.and_then(|(device, job)| Some((device, job?))))
}

/// One device.
pub(super) fn by_identity(db: &Connection, identity: &Identity) -> Result<Option<Device>> {
    let mut get = db.prepare_cached(&select("WHERE d.broker = ?1 AND d.device = ?2"))?;
    Ok(get
        .query_row([identity.broker.as_str(), identity.device.as_str()], device)
        .optional()?)
}

/// The device that an object declares.
pub(super) fn by_object(db: &Connection, object: &ObjectRef) -> Result<Option<Device>> {
    let mut get = db.prepare_cached(&select("WHERE d.namespace = ?1 AND d.name = ?2 AND d.declared = 1"))?;
    Ok(get.query_row([&object.namespace, &object.name], device).optional()?)
}

/// Devices by a condition on `d`.
pub(super) fn list(db: &Connection, condition: &str, params: &[&dyn ToSql]) -> Result<Vec<Device>> {
    let mut get = db.prepare_cached(&select(condition))?;
    let rows = get.query_map(params, device)?;
    Ok(rows.collect::<crate::sql::Result<_>>()?)
}

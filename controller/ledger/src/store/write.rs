//! Storing a decision.

use crate::sql::{Connection, OptionalExtension as _, params};
use certwave_core::model::{Credential, Device, Identity, Job, JobKind, JobState, Millis};
use certwave_core::revocation::Bar;
use certwave_protocol::code::Code;
use certwave_protocol::message::Subject;

use super::column::{Columns, Word, int};
use super::{audit, certificate, claim, device, outcome, retirement, revocation};
use crate::{CertificateKind, LedgerError, Result, Write};

/// Stores one decision and answers the new revision.
pub(super) fn write(db: &Connection, mut w: Write) -> Result<u64> {
    let identity = &w.device.id;
    let mut find =
        db.prepare_cached("SELECT id, revision, declared, bar FROM devices WHERE broker = ?1 AND device = ?2")?;
    let (row, revision, declared, bar): (i64, i64, bool, Option<Bar>) = find
        .query_row([identity.broker.as_str(), identity.device.as_str()], |r| {
            let mut c = Columns::of(r);
            Ok((c.get()?, c.get()?, c.get()?, c.optional_word()?))
        })
        .optional()?
        .ok_or(LedgerError::NotFound("such device"))?;
    if revision != int(w.device.revision)? {
        return Err(LedgerError::Conflict);
    }
    if let Some(issued) = &w.certificate {
        if issued.kind != CertificateKind::Device || issued.identity.as_ref() != Some(identity) {
            return Err(LedgerError::Invalid("the certificate is not for the device".to_owned()));
        }
        if barred(bar, &w.device) {
            return Err(LedgerError::Barred);
        }
        certificate::insert(db, issued)?;
    }
    if let Some(fingerprint) = &w.sent_certificate {
        certificate::mark_sent(db, certificate::id_of_device(db, identity, fingerprint)?, w.now)?;
    }
    let [current, previous, pending] = [&w.device.current, &w.device.previous, &w.device.pending].map(|c| {
        c.as_ref()
            .map(|c| certificate::id_of_device(db, identity, &c.fingerprint))
            .transpose()
    });
    let current = current?;
    if let Some(id) = current {
        certificate::mark_confirmed(db, id, w.now)?;
    }
    if let Some(job) = &mut w.device.job {
        if !declared && job.state == JobState::Queued {
            cancel(job, w.now);
            w.member = None;
        }
        let changed = store_job(db, row, identity, job, w.now)?;
        if changed || w.member.is_some() {
            outcome::note(db, row, job, w.member, w.now)?;
        }
    }
    if let Some(used) = &w.claim_use {
        if used.device != identity.device || used.broker != identity.broker {
            return Err(LedgerError::Invalid("the claim is used by another device".to_owned()));
        }
        claim::count_use(db, used)?;
    }
    if let Some(begun) = &w.retirement {
        if begun.identity != *identity {
            return Err(LedgerError::Invalid("the retirement is another device's".to_owned()));
        }
        retirement::begin(db, w.now, begun)?;
    }
    if let Some(mark) = &w.mark {
        revocation::own(db, w.now, mark)?;
    }
    audit::append(db, &w.audit)?;
    update(db, row, &w, [current, previous?, pending?], declared && w.project)
}

/// Whether the device is to get no certificate: `stored` is why it did not before. Only an enrolment, whose permit was checked,
/// takes a revocation back; a hold ends by its release.
fn barred(stored: Option<Bar>, device: &Device) -> bool {
    let enrols = device.job.as_ref().is_some_and(|job| job.kind == JobKind::Enrol);
    match stored {
        None => device.bar.is_some(),
        Some(Bar::Held) => true,
        Some(Bar::Revoked) => device.bar.is_some() || !enrols,
    }
}

/// Nobody declares the device any more, so nothing is sent to it.
fn cancel(job: &mut Job, now: Millis) {
    job.state = JobState::Cancelled;
    job.code = Some(Code::Cancelled);
    job.since = now;
    job.deadline = None;
}

fn update(db: &Connection, row: i64, w: &Write, certificates: [Option<i64>; 3], project: bool) -> Result<u64> {
    let d = &w.device;
    let job = d.job.as_ref();
    Ok(db.prepare_cached(
        "UPDATE devices SET current = ?2, previous = ?3, pending = ?4, bundle = ?5, session = ?6, last_seen = ?7,
             reenrol = ?8, reenrol_used = ?9, job = ?10, not_before = ?11, not_after = ?12, issuer = ?13, job_open = ?14,
             job_state = ?15, job_kind = ?16, job_since = ?17, job_rotation = ?18, wake_at = ?19, bar = ?22,
             revision = revision + 1,
             project_rev = CASE WHEN ?20 THEN revision + 1 ELSE project_rev END,
             changed_at = CASE WHEN ?20 THEN ?21 ELSE changed_at END
         WHERE id = ?1 RETURNING revision",
    )?
    .query_row(params![
        row,
        certificates[0],
        certificates[1],
        certificates[2],
        d.bundle.map(|f| f.0),
        d.session.map(|s| s.0),
        d.last_seen,
        d.reenrol,
        d.reenrol_used,
        job.map(|j| *j.id.as_bytes()),
        d.not_before,
        d.current.as_ref().map(|c: &Credential| c.not_after),
        d.current.as_ref().map(|c| c.issuer.as_str()),
        d.open_job().is_some(),
        job.map(|j| j.state.as_str()),
        job.map(|j| device::kind_word(&j.kind)),
        job.map(|j| j.since),
        job.and_then(|j| j.rotation.as_deref()),
        job.and_then(wake_at),
        project,
        w.now,
        d.bar.map(Word::word)
    ], |row| Columns::of(row).unsigned())?)
}

/// When somebody must look at the job: at its deadlines, or when a timed-out one counts as lost.
fn wake_at(job: &Job) -> Option<Millis> {
    match job.state {
        JobState::TimedOut => job.deadline,
        state if state.ended() => None,
        _ => job.deadline.into_iter().chain(job.job_deadline).min(),
    }
}

/// Stores a job; answers whether it differs from the stored one.
fn store_job(db: &Connection, row: i64, identity: &Identity, job: &Job, now: Millis) -> Result<bool> {
    match device::stored_job(db, &job.id)? {
        Some((owner, _)) if owner != row => {
            return Err(LedgerError::Invalid("the job belongs to another device".to_owned()));
        }
        Some((_, stored)) if stored == *job => return Ok(false),
        Some(_) => {}
        None => {
            // While one of its certificates is on hold nobody knows which of the two it starts from, and a job empties the other's slot.
            let held = || retirement::open(db, identity).map(|open| open.is_some_and(|r| r.phase.holds()));
            if job.kind != JobKind::Enrol && !job.state.ended() && held()? {
                return Err(LedgerError::Conflict);
            }
            outcome::superseded(db, row, job, now)?;
        }
    }
    let bundle = match job.kind {
        JobKind::Trust(bundle) => Some(bundle.0),
        _ => None,
    };
    let (subject_kind, subject) = match job.subject {
        Some(Subject::Certificate(hash)) => (Some("certificate"), Some(hash.0)),
        Some(Subject::Bundle(hash)) => (Some("bundle"), Some(hash.0)),
        None => (None, None),
    };
    db.prepare_cached(
        "INSERT INTO jobs (id, device, kind, bundle, rotation, claim, state, attempt, nonce, epoch, created, since, deadline,
             job_deadline, csr_key, subject_kind, subject, committed, code, detail)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20)
         ON CONFLICT (id) DO UPDATE SET kind = excluded.kind, bundle = excluded.bundle, rotation = excluded.rotation,
             claim = excluded.claim, state = excluded.state, attempt = excluded.attempt, nonce = excluded.nonce,
             epoch = excluded.epoch, created = excluded.created, since = excluded.since, deadline = excluded.deadline,
             job_deadline = excluded.job_deadline, csr_key = excluded.csr_key, subject_kind = excluded.subject_kind,
             subject = excluded.subject, committed = excluded.committed, code = excluded.code, detail = excluded.detail",
    )?
    .execute(params![
        job.id.as_bytes(),
        row,
        device::kind_word(&job.kind),
        bundle,
        job.rotation,
        job.claim.as_ref().map(AsRef::<str>::as_ref),
        job.state.as_str(),
        job.attempt,
        job.nonce.0,
        int(job.epoch)?,
        job.created,
        job.since,
        job.deadline,
        job.job_deadline,
        job.csr_key.map(|f| f.0),
        subject_kind,
        subject,
        job.committed,
        job.code.map(Code::as_str),
        job.detail
    ])?;
    Ok(true)
}

/// The objects show these revisions.
pub(super) fn projected(db: &Connection, shown: &[(Identity, u64)]) -> Result<()> {
    let mut update = db.prepare_cached(
        "UPDATE devices SET projected_rev = ?3 WHERE broker = ?1 AND device = ?2 AND projected_rev < ?3",
    )?;
    for (identity, revision) in shown {
        update.execute(params![
            identity.broker.as_str(),
            identity.device.as_str(),
            int(*revision)?
        ])?;
    }
    Ok(())
}

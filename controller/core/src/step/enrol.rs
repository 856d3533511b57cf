//! From a claim to a first certificate.

use certwave_protocol::code::Code;
use certwave_protocol::ids::{ClaimName, Fingerprint, JobId, Nonce};
use certwave_protocol::message::Subject;

use crate::model::{Credential, Device, Job, JobKind, JobState};
use crate::revocation::Bar;

use super::event::Context;

/// True where the pending certificate was committed and nothing was heard of it since.
pub(super) fn undecided(device: &Device) -> bool {
    device.job.as_ref().is_some_and(|job| {
        left_over(device) || (job.committed && matches!(job.state, JobState::TimedOut | JobState::Lost))
    })
}

/// True where the pending certificate is that of an earlier job than the present one: it was committed there.
pub(super) fn left_over(device: &Device) -> bool {
    match (&device.job, &device.pending) {
        (Some(job), Some(pending)) => job.subject != Some(Subject::Certificate(pending.fingerprint)),
        _ => false,
    }
}

/// Whether a claim may enrol `device` with the key `key`, and by which job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Enrolment {
    /// The same request as before: the same certificate again.
    Again,
    /// A new enrolment, in place of an unconfirmed one where there is one.
    New,
    /// Not now.
    Refused(Code),
}

/// Decides on an `enrol` message: until the first certificate is confirmed the same key gets the same certificate and
/// another key replaces it; afterwards only a permit opens enrolment again, once. One that a person has revoked needs a permit in
/// any case (the ledger voids those given before), and one on hold gets nothing.
pub fn enrolment(device: &Device, key: Fingerprint) -> Enrolment {
    let permitted = device.reenrol.is_some() && device.reenrol != device.reenrol_used;
    match device.bar {
        Some(Bar::Revoked) if permitted => return Enrolment::New,
        Some(Bar::Held | Bar::Revoked) => return Enrolment::Refused(Code::Revoked),
        None => {}
    }
    let open = device.open_job();
    if let Some(job) = open
        && job.kind == JobKind::Enrol
        && job.csr_key == Some(key)
        && device.pending.is_some()
    {
        return Enrolment::Again;
    }
    // Once commit is sent only forward: somebody else's key must not take the place of one that may be in use.
    let enrolling = open.is_some_and(|j| j.kind == JobKind::Enrol);
    if enrolling && open.is_some_and(|j| j.committed) && !permitted {
        return Enrolment::Refused(Code::AlreadyEnrolled);
    }
    if !device.enrolled() || permitted || enrolling {
        Enrolment::New
    } else {
        Enrolment::Refused(Code::AlreadyEnrolled)
    }
}

/// The change that records an enrolment's certificate, issued for `key` by `claim`. It lifts the bar of a device that was revoked,
/// and forgets what that held: somebody else may have those keys, and nothing signed with them may move the device again.
pub fn enrolled(
    ctx: &Context<'_>,
    device: &Device,
    id: JobId,
    nonce: Nonce,
    claim: ClaimName,
    credential: Credential,
) -> Device {
    let mut next = device.clone();
    if next.bar.take() == Some(Bar::Revoked) {
        next.current = None;
        next.previous = None;
        next.session = None;
    }
    let mut job = Job {
        id,
        kind: JobKind::Enrol,
        rotation: None,
        claim: Some(claim),
        state: JobState::Sent,
        attempt: 1,
        nonce,
        epoch: ctx.epoch,
        created: ctx.now,
        since: ctx.now,
        deadline: None,
        job_deadline: None,
        csr_key: Some(credential.spki),
        subject: Some(Subject::Certificate(credential.fingerprint)),
        committed: false,
        code: None,
        detail: None,
    };
    job.enter(JobState::Issued, ctx.now, ctx.policy);
    // A device in a store-room may fetch its certificate long before it is switched on again: the certificate's own
    // end is the deadline.
    job.deadline = Some(credential.not_after.saturating_mul(1000));
    job.job_deadline = job.deadline;
    next.pending = Some(credential);
    next.job = Some(job);
    if next.reenrol.is_some() {
        next.reenrol_used.clone_from(&next.reenrol);
    }
    next
}

//! One event for one device: what the ledger shall hold, and what shall be said.
//!
//! Nothing here sends or stores. The engine writes the device of [`Decision::Change`] in one transaction and only then sends
//! what it asks to send; when the write is refused because somebody else was faster, it reads and asks again.

mod answers;
mod deadline;
mod enrol;
mod event;
mod hello;
mod outcome;

use certwave_protocol::code::Code;
use certwave_protocol::ids::SessionId;
use certwave_protocol::message::Subject;

use crate::model::{Credential, Device, Job, JobKind, JobState};

pub use enrol::{Enrolment, enrolled, enrolment};
pub use event::{Context, Decision, Event, JobMark, NewJob, Report, Send, Signer};
pub use outcome::will_retry;

use answers::{on_csr, on_status, on_tested};
use deadline::{on_cancel, on_deadline, on_offer, on_postpone};
use enrol::undecided;
use hello::on_hello;
use outcome::{barred, change, end, end_of_life, heed_way_back, later, wrong_key};

/// Gives `device` a queued job. It is offered when the device is online and there is room.
pub fn start(ctx: &Context<'_>, device: &Device, new: NewJob) -> Decision {
    if device.bar.is_some() {
        return barred();
    }
    if device.open_job().is_some() {
        return Decision::Refuse(Code::Busy, "another job is under way");
    }
    let subject = match &new.kind {
        JobKind::Trust(bundle) => Some(Subject::Bundle(*bundle)),
        JobKind::Rollback => match &device.previous {
            Some(p) => Some(Subject::Certificate(p.fingerprint)),
            None => return Decision::Refuse(Code::RollbackImpossible, "there is no previous certificate"),
        },
        JobKind::Rotate | JobKind::Enrol => None,
    };
    let attempt = match &device.job {
        Some(last) if last.state.went_wrong() && last.rotation == new.rotation && last.kind == new.kind => {
            last.attempt.saturating_add(1)
        }
        _ => 1,
    };
    let mut next = device.clone();
    // What was committed may be what the device starts from by now, its word of it lost: that key stays known.
    if !undecided(device) {
        next.pending = None;
    }
    next.not_before = None;
    next.job = Some(Job {
        id: later(device, new.id),
        kind: new.kind,
        rotation: new.rotation,
        claim: None,
        state: JobState::Queued,
        attempt,
        nonce: new.nonce,
        epoch: ctx.epoch,
        created: ctx.now,
        since: ctx.now,
        deadline: end_of_life(device),
        job_deadline: None,
        csr_key: None,
        subject,
        committed: false,
        code: None,
        detail: None,
    });
    change(next, None)
}

/// The change that records a rotation's certificate; `signer` signed the request.
pub fn issued(
    ctx: &Context<'_>,
    device: &Device,
    signer: Signer,
    session: SessionId,
    credential: Credential,
) -> Decision {
    if device.bar.is_some() {
        return barred();
    }
    let mut next = device.clone();
    let Some(job) = next
        .job
        .as_mut()
        .filter(|j| j.state == JobState::Accepted || j.state == JobState::Sent)
    else {
        return Decision::Refuse(Code::OutOfOrder, "no certificate is awaited");
    };
    job.csr_key = Some(credential.spki);
    job.subject = Some(Subject::Certificate(credential.fingerprint));
    job.enter(JobState::Issued, ctx.now, ctx.policy);
    next.pending = Some(credential);
    next.session = Some(session);
    heed_way_back(&mut next, signer);
    change(next, Some(Send::Certificate))
}

/// Decides on one event for one device. What a device says that a person has revoked or put on hold changes nothing: the one who
/// says it may be the thief.
pub fn step(ctx: &Context<'_>, device: &Device, event: &Event) -> Decision {
    if device.bar.is_some() {
        return match event {
            Event::Offer => Decision::Same(None),
            Event::Deadline | Event::Postpone => on_deadline(ctx, device),
            Event::Cancel => on_cancel(ctx, device),
            Event::Hello { .. }
            | Event::Status { .. }
            | Event::Csr { .. }
            | Event::CsrRefused { .. }
            | Event::Tested { .. } => barred(),
        };
    }
    match event {
        Event::Hello { hello, signer, session } => on_hello(ctx, device, hello, *signer, *session),
        Event::Offer => on_offer(ctx, device),
        Event::Deadline => on_deadline(ctx, device),
        Event::Postpone => on_postpone(ctx, device),
        Event::Cancel => on_cancel(ctx, device),
        Event::Status { mark, report } => match check(ctx, device, mark) {
            Err(refusal) => refusal,
            Ok(job) => on_status(ctx, device, job, report),
        },
        Event::Csr {
            mark,
            signer,
            session,
            key,
        } => match check(ctx, device, mark) {
            Err(refusal) => refusal,
            Ok(job) => on_csr(ctx, device, job, *signer, *session, *key),
        },
        Event::CsrRefused {
            mark,
            signer,
            code,
            detail,
        } => match check(ctx, device, mark) {
            Err(refusal) => refusal,
            Ok(_) if *signer == Signer::Pending => wrong_key(),
            // `accepted` may have been lost, here as for a good request.
            Ok(job) if job.kind == JobKind::Rotate && matches!(job.state, JobState::Sent | JobState::Accepted) => {
                let mut next = device.clone();
                heed_way_back(&mut next, *signer);
                end(ctx, &next, JobState::Failed, *code, Some(detail))
            }
            Ok(_) => Decision::Refuse(*code, "the request was refused"),
        },
        Event::Tested {
            mark,
            signer,
            session,
            subject,
        } => match check(ctx, device, mark) {
            Err(refusal) => refusal,
            Ok(job) => on_tested(ctx, device, job, *signer, *session, *subject),
        },
    }
}

/// Checks job, nonce and epoch of a message against the ledger.
fn check<'d>(ctx: &Context<'_>, device: &'d Device, mark: &JobMark) -> Result<&'d Job, Decision> {
    let Some(job) = device.job.as_ref().filter(|j| j.id == mark.id) else {
        return Err(Decision::Refuse(Code::UnknownJob, "not this device's present job"));
    };
    if mark.nonce != Some(job.nonce) {
        return Err(Decision::Refuse(Code::WrongNonce, "not the job's nonce"));
    }
    match mark.epoch {
        Some(e) if e >= job.epoch && e <= ctx.epoch => Ok(job),
        _ => Err(Decision::Refuse(Code::WrongEpoch, "older than the job, or never taken")),
    }
}

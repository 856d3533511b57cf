//! How jobs end.

use certwave_protocol::code::Code;
use certwave_protocol::ids::{JobId, SessionId};

use crate::backoff;
use crate::model::{Device, Job, JobKind, JobState, Millis};
use crate::policy::JobPolicy;

use super::event::{Context, Decision, Send, Signer};

pub(super) fn carries_certificate(job: &Job) -> bool {
    matches!(job.kind, JobKind::Rotate | JobKind::Enrol)
}

/// What a device waits for that has the job: said again where it may have been lost.
pub(super) fn awaited(job: &Job) -> Option<Send> {
    match job.state {
        JobState::Issued if carries_certificate(job) => Some(Send::Certificate),
        JobState::Sent | JobState::Accepted | JobState::Issued => Some(Send::Job),
        JobState::Committing | JobState::TimedOut | JobState::Lost if job.committed => Some(Send::Commit),
        _ => None,
    }
}

/// The key that must sign `tested` and `committed` of this job.
pub(super) fn trial_signer(job: &Job, signer: Signer) -> bool {
    match job.kind {
        JobKind::Rotate | JobKind::Enrol => signer == Signer::Pending,
        JobKind::Rollback => signer == Signer::Previous,
        JobKind::Trust(_) => signer != Signer::Pending,
    }
}

pub(super) fn heard(ctx: &Context<'_>, device: &Device, session: SessionId) -> Device {
    let mut next = device.clone();
    next.session = Some(session);
    next.last_seen = Some(ctx.now);
    next
}

pub(super) fn confirm(ctx: &Context<'_>, next: &mut Device) {
    let Some(job) = next.job.as_mut() else { return };
    job.enter(JobState::Confirmed, ctx.now, ctx.policy);
    job.code = None;
    job.detail = None;
    next.not_before = None;
    match &job.kind {
        JobKind::Rotate | JobKind::Enrol => promote(next),
        JobKind::Rollback => std::mem::swap(&mut next.current, &mut next.previous),
        JobKind::Trust(bundle) => next.bundle = Some(*bundle),
    }
}

/// A job id that devices take for newer than the last one's, even where this leader's clock is behind its predecessor's:
/// they compare `UUIDv7`s.
pub(super) fn later(device: &Device, fresh: JobId) -> JobId {
    match &device.job {
        Some(last) if last.id >= fresh => JobId::from_u128(last.id.as_u128().saturating_add(1)),
        _ => fresh,
    }
}

/// When the device's current certificate ends: no job can wait for it longer.
pub(super) fn end_of_life(device: &Device) -> Option<Millis> {
    device.current.as_ref().map(|c| c.not_after.saturating_mul(1000))
}

/// Within its rotation the device speaks by its previous certificate: it went back by itself before, and the new key goes into the other slot.
/// So that is the one to forget.
pub(super) fn heed_way_back(next: &mut Device, signer: Signer) {
    let rotates = next.job.as_ref().is_some_and(|job| job.kind == JobKind::Rotate);
    if signer == Signer::Previous && rotates && next.previous.is_some() {
        std::mem::swap(&mut next.current, &mut next.previous);
    }
}

/// The pending certificate is what the device starts from.
pub(super) fn promote(next: &mut Device) {
    if let Some(new) = next.pending.take() {
        next.previous = next.current.replace(new);
    }
}

pub(super) fn end(
    ctx: &Context<'_>,
    device: &Device,
    state: JobState,
    code: Code,
    detail: Option<&String>,
) -> Decision {
    finish(ctx, device.clone(), state, code, detail.cloned())
}

/// Ends the job and says when the device may be asked again.
pub(super) fn finish(
    ctx: &Context<'_>,
    mut next: Device,
    state: JobState,
    code: Code,
    detail: Option<String>,
) -> Decision {
    let Some(job) = next.job.as_mut() else {
        return Decision::Same(None);
    };
    job.enter(state, ctx.now, ctx.policy);
    job.code = Some(code);
    job.detail = detail;
    if state.went_wrong() {
        let (high, low) = job.id.as_u64_pair();
        let pause = backoff::pause(ctx.policy.retry_backoff, job.attempt, high ^ low);
        next.not_before = Some(ctx.now.saturating_add(pause));
    }
    change(next, None)
}

/// True where a rotation tries this device again by itself: the job failed for no will of a person or timed out before anything was committed,
/// and attempts are left.
pub fn will_retry(policy: &JobPolicy, job: &Job) -> bool {
    let kind = match job.state {
        JobState::Failed => policy.retry_failed,
        JobState::TimedOut => policy.retry_timed_out,
        _ => false,
    };
    kind && !job.committed && job.code != Some(Code::Revoked) && job.attempt <= policy.max_retries
}

pub(super) fn change(device: Device, send: Option<Send>) -> Decision {
    Decision::Change {
        device: Box::new(device),
        send,
    }
}

pub(super) fn barred() -> Decision {
    Decision::Refuse(Code::Revoked, "a person has revoked the device or put it on hold")
}

pub(super) fn wrong_key() -> Decision {
    Decision::Refuse(Code::WrongKey, "this message is signed by another key of the device")
}

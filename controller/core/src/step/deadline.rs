//! What happens without a word of the device: deadlines, offers, cancellation.

use certwave_protocol::code::Code;

use crate::model::{Device, Job, JobKind, JobState, Millis};
use crate::revocation::Bar;

use super::event::{Context, Decision, Send};
use super::outcome::{awaited, change, end, end_of_life, finish};

pub(super) fn on_offer(ctx: &Context<'_>, device: &Device) -> Decision {
    if device.session.is_none() || device.job.as_ref().is_none_or(|j| j.state != JobState::Queued) {
        return Decision::Same(None);
    }
    let mut next = device.clone();
    if let Some(job) = next.job.as_mut() {
        job.enter(JobState::Sent, ctx.now, ctx.policy);
    }
    change(next, Some(Send::Job))
}

pub(super) fn on_deadline(ctx: &Context<'_>, device: &Device) -> Decision {
    let Some(job) = &device.job else {
        return Decision::Same(None);
    };
    let Some(deadline) = job.next_deadline() else {
        return Decision::Same(None);
    };
    // One that came to its state in the future did so by a clock that was put back since: who is barred gets no time anew.
    let ahead = device.bar.is_some() && job.since > ctx.now;
    if deadline > ctx.now && !ahead {
        return Decision::Same(None);
    }
    let expiry = end_of_life(device);
    if device.bar.is_some() {
        return end_barred(ctx, device, job);
    }
    let over = job.job_deadline.is_some_and(|d| d <= ctx.now);
    let mut next = device.clone();
    let Some(job) = next.job.as_mut() else {
        return Decision::Same(None);
    };
    match job.state {
        // Once its certificate has ended the device cannot connect: only a permit and a claim help, and no job.
        JobState::Queued => {
            let why = "the certificate ended before the device was heard".to_owned();
            finish(ctx, next, JobState::Cancelled, Code::Cancelled, Some(why))
        }
        JobState::Sent if ctx.now.saturating_sub(job.since) >= ctx.policy.offline_after => {
            job.enter(JobState::Queued, ctx.now, ctx.policy);
            job.deadline = expiry;
            // Not asked again on a connection that did not answer.
            next.session = None;
            change(next, None)
        }
        JobState::Sent => {
            job.rearm(ctx.now, ctx.policy);
            change(next, Some(Send::Job))
        }
        // Only forward: what was committed is said again until the job's own time is over.
        JobState::Committing if !over => {
            job.rearm(ctx.now, ctx.policy);
            change(next, Some(Send::Commit))
        }
        JobState::Accepted | JobState::Issued | JobState::Committing => {
            finish(ctx, next, JobState::TimedOut, Code::TimedOut, None)
        }
        JobState::TimedOut => finish(ctx, next, JobState::Lost, Code::Lost, None),
        _ => Decision::Same(None),
    }
}

/// The job of a device that was revoked or put on hold meanwhile. A hold that is released before the job's deadline lets it go on.
fn end_barred(ctx: &Context<'_>, device: &Device, job: &Job) -> Decision {
    let state = match job.state {
        JobState::Queued | JobState::Sent => JobState::Cancelled,
        // What was committed may be what the device starts from: that key stays known, for when the hold is released.
        JobState::Committing if device.bar == Some(Bar::Held) => JobState::TimedOut,
        JobState::TimedOut if device.bar == Some(Bar::Held) && job.committed => JobState::Lost,
        JobState::Accepted | JobState::Issued | JobState::Committing | JobState::TimedOut => JobState::Failed,
        _ => return Decision::Same(None),
    };
    let why = "the device was revoked or put on hold meanwhile".to_owned();
    finish(ctx, device.clone(), state, Code::Revoked, Some(why))
}

pub(super) fn on_postpone(ctx: &Context<'_>, device: &Device) -> Decision {
    let mut next = device.clone();
    match next.job.as_mut() {
        // Their deadline is the end of a certificate.
        Some(job) if job.kind == JobKind::Enrol || job.state == JobState::Queued => on_deadline(ctx, device),
        // The job may never have left, and a device that stayed connected has no reason to say hello: it is asked again.
        Some(job) if job.state == JobState::Sent => {
            job.since = ctx.now;
            job.rearm(ctx.now, ctx.policy);
            change(next, Some(Send::Job))
        }
        Some(job) if let Some(deadline) = job.next_deadline() => {
            // It came to its state by a clock that was put back since: nobody knows how much of its time is over.
            let anew = (job.since > ctx.now).then(|| ctx.now.saturating_add(ctx.policy.job_timeout));
            // With the deadline, or nobody would see that one was set by a clock ahead which is put back after this. Since when a device has been
            // silent is another matter.
            if job.state != JobState::TimedOut || anew.is_some() {
                job.since = ctx.now;
            }
            job.rearm(ctx.now, ctx.policy);
            job.job_deadline = job
                .job_deadline
                .map(|before| anew.unwrap_or(before).max(job.deadline.unwrap_or(Millis::MIN)));
            // Its own word may have been lost meanwhile: whoever has connected anew since, and said so to nobody, says it again when it is asked.
            // In its time a device does so by itself.
            let asked = if deadline <= ctx.now { awaited(job) } else { None };
            change(next, asked)
        }
        _ => Decision::Same(None),
    }
}

pub(super) fn on_cancel(ctx: &Context<'_>, device: &Device) -> Decision {
    match &device.job {
        Some(j) if matches!(j.state, JobState::Queued | JobState::Sent) => {
            end(ctx, device, JobState::Cancelled, Code::Cancelled, None)
        }
        _ => Decision::Same(None),
    }
}

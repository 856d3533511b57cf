//! What a device's `hello` proves, and what it is told then.

use certwave_protocol::code::Code;
use certwave_protocol::ids::SessionId;
use certwave_protocol::message::{Hello, Progress, Subject};

use crate::model::{Device, Job, JobKind, JobState};

use super::enrol::left_over;
use super::event::{Context, Decision, Send, Signer};
use super::outcome::{awaited, change, confirm, end_of_life, finish, heed_way_back, promote};

pub(super) fn on_hello(
    ctx: &Context<'_>,
    device: &Device,
    hello: &Hello,
    mut signer: Signer,
    session: SessionId,
) -> Decision {
    let said = match signer {
        Signer::Current => device.current.as_ref(),
        Signer::Previous => device.previous.as_ref(),
        Signer::Pending => device.pending.as_ref(),
    };
    if said.map(|c| c.fingerprint) != hello.slots.get(hello.active) {
        return Decision::Refuse(Code::WrongKey, "hello is signed by the key of the active slot");
    }
    let mut next = device.clone();
    next.session = Some(session);
    next.bundle = Some(hello.bundle);
    next.last_seen = Some(ctx.now);
    // A device starts from what was committed only: it obeyed an earlier job's commit, and its word of that was lost.
    if signer == Signer::Pending && left_over(device) {
        promote(&mut next);
        signer = Signer::Current;
    }
    // A timed-out device that speaks is not lost.
    if let Some(job) = next.job.as_mut().filter(|j| j.state == JobState::TimedOut) {
        job.deadline = None;
    }
    let Some(job) = &device.job else {
        return change(next, None);
    };
    let progress = hello.job.as_ref().filter(|v| v.id == job.id).map(|v| v.progress);
    let forward = job.committed && matches!(job.state, JobState::Committing | JobState::TimedOut | JobState::Lost);
    if forward && proves(job, device, hello, signer, progress) {
        confirm(ctx, &mut next);
        return change(next, None);
    }
    if signer == Signer::Previous && !forward && went_back(ctx, device, job, hello, progress) {
        std::mem::swap(&mut next.current, &mut next.previous);
        return change(next, None);
    }
    // Only a device that has nothing else yet speaks with a certificate on trial.
    if signer == Signer::Pending && job.kind != JobKind::Enrol {
        return Decision::Refuse(Code::WrongKey, "not committed yet");
    }
    let gone = matches!(job.state, JobState::Accepted | JobState::Issued | JobState::Committing) || forward;
    let ends = match progress {
        Some(Progress::RolledBack) if gone => Some((JobState::RolledBack, Code::TestFailed)),
        Some(Progress::Failed) if gone => Some((JobState::Failed, Code::Other)),
        _ => None,
    };
    if let Some((state, code)) = ends {
        heed_way_back(&mut next, signer);
        return finish(ctx, next, state, code, None);
    }
    // The trial is under way, or it is over and `tested` was lost: the same answer starts it again.
    let waits = !matches!(progress, Some(Progress::Stored | Progress::Trial));
    // A claim's certificate was taken already: the device tests it by itself.
    let send = awaited(job).filter(|send| job.kind != JobKind::Enrol && waits || *send == Send::Commit);
    change(next, send)
}

/// True where hello, signed by the previous certificate's key, shows that the device has gone back by itself since `job` ended: that certificate
/// is the one to renew in time.
fn went_back(ctx: &Context<'_>, device: &Device, job: &Job, hello: &Hello, progress: Option<Progress>) -> bool {
    let after = matches!(
        progress,
        Some(Progress::Committed | Progress::RolledBack | Progress::Failed)
    );
    let unnamed = || matches!(job.state, JobState::Cancelled | JobState::Rejected) && has_obeyed(device, hello);
    // From one that has ended nobody starts.
    let over = || end_of_life(device).is_some_and(|end| end <= ctx.now);
    job.state.ended() && (after || unnamed() || over())
}

/// True where hello shows that the device had the certificate which it is known to start from, and had obeyed its commit: for after a job that
/// the device has not accepted, and so does not name. A `hello` from before that is said again has no such certificate in its slots; where the
/// device was sent back to an older one it has.
fn has_obeyed(device: &Device, hello: &Hello) -> bool {
    let (Some(current), Some(previous)) = (&device.current, &device.previous) else {
        return false;
    };
    let held = [hello.slots.a, hello.slots.b].contains(&Some(current.fingerprint));
    let committed = hello
        .job
        .as_ref()
        .is_some_and(|view| view.progress == Progress::Committed);
    held && committed && current.not_before > previous.not_before
}

/// True where hello shows that what was committed is active and off trial.
pub(super) fn proves(job: &Job, device: &Device, hello: &Hello, signer: Signer, progress: Option<Progress>) -> bool {
    match (&job.kind, job.subject) {
        (JobKind::Rotate | JobKind::Enrol, _) => {
            signer == Signer::Pending && matches!(progress, None | Some(Progress::Committed))
        }
        (JobKind::Rollback, Some(Subject::Certificate(to))) => {
            signer == Signer::Previous
                && progress == Some(Progress::Committed)
                && device.previous.as_ref().is_some_and(|p| p.fingerprint == to)
        }
        (JobKind::Trust(bundle), _) => hello.bundle == *bundle && progress == Some(Progress::Committed),
        (JobKind::Rollback, _) => false,
    }
}

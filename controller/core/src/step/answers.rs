//! What a device says within its job: `status`, `csr`, `tested`.

use certwave_protocol::code::Code;
use certwave_protocol::ids::{Fingerprint, SessionId};
use certwave_protocol::message::{Step, Subject};

use crate::model::{Device, Job, JobKind, JobState};

use super::event::{Context, Decision, Report, Send, Signer};
use super::outcome::{carries_certificate, change, confirm, end, heard, heed_way_back, trial_signer, wrong_key};

pub(super) fn on_status(ctx: &Context<'_>, device: &Device, job: &Job, report: &Report) -> Decision {
    use JobState::{Accepted, Committing, Issued, Lost, Queued, Sent, TimedOut};
    let Report {
        signer, session, step, ..
    } = *report;
    let ends = |state, code: Code| {
        let mut heard = heard(ctx, device, session);
        // Whoever rejects a job may have gone forward since: that empties no slot.
        if state != JobState::Rejected {
            heed_way_back(&mut heard, signer);
        }
        end(ctx, &heard, state, report.code.unwrap_or(code), report.detail.as_ref())
    };
    if step == Step::Committed {
        let again = job.state == JobState::Confirmed && signer == Signer::Current;
        if !again && !trial_signer(job, signer) {
            return wrong_key();
        }
        return match job.state {
            JobState::Confirmed => Decision::Same(None),
            Committing | TimedOut | Lost if job.committed => {
                let mut next = heard(ctx, device, session);
                confirm(ctx, &mut next);
                change(next, None)
            }
            _ => Decision::Refuse(Code::OutOfOrder, "nothing was committed"),
        };
    }
    if signer == Signer::Pending {
        return wrong_key();
    }
    match (step, job.state) {
        (Step::Accepted, Sent) => {
            let mut next = heard(ctx, device, session);
            heed_way_back(&mut next, signer);
            if let Some(job) = next.job.as_mut() {
                let to = if carries_certificate(job) { Accepted } else { Issued };
                job.enter(to, ctx.now, ctx.policy);
            }
            change(next, None)
        }
        // Its slot was given back meanwhile: it is offered again when there is room.
        (Step::Accepted, Queued) => Decision::Refuse(Code::TryLater, "the job is queued again"),
        (Step::Rejected, Queued | Sent | Accepted) => ends(JobState::Rejected, Code::Refused),
        (Step::Failed, Sent | Accepted | Issued | Committing | TimedOut | Lost) => ends(JobState::Failed, Code::Other),
        // `accepted` may have been lost, here as for a failure.
        (Step::RolledBack, Sent | Accepted | Issued | Committing | TimedOut | Lost) => {
            ends(JobState::RolledBack, Code::TestFailed)
        }
        (Step::Accepted, Accepted | Issued | Committing)
        | (Step::Rejected, JobState::Rejected)
        | (Step::Failed, JobState::Failed)
        | (Step::RolledBack, JobState::RolledBack) => Decision::Same(None),
        _ => Decision::Refuse(Code::OutOfOrder, "not possible in the job's present state"),
    }
}

pub(super) fn on_csr(
    ctx: &Context<'_>,
    device: &Device,
    job: &Job,
    signer: Signer,
    session: SessionId,
    key: Fingerprint,
) -> Decision {
    if signer == Signer::Pending {
        return wrong_key();
    }
    if job.kind != JobKind::Rotate {
        return Decision::Refuse(Code::OutOfOrder, "this job asks for no certificate");
    }
    match job.state {
        // `accepted` may have been lost; a request says as much.
        JobState::Sent | JobState::Accepted => Decision::Issue,
        JobState::Issued | JobState::Committing if job.csr_key == Some(key) => Decision::Same(Some(Send::Certificate)),
        JobState::Issued => end(
            ctx,
            &heard(ctx, device, session),
            JobState::Failed,
            Code::CsrChanged,
            Some(&"another request for the same job".to_owned()),
        ),
        JobState::Committing => Decision::Refuse(Code::CsrChanged, "another request for the same job"),
        JobState::Queued => Decision::Refuse(Code::TryLater, "the job is queued again"),
        _ => Decision::Refuse(Code::OutOfOrder, "the job has ended"),
    }
}

pub(super) fn on_tested(
    ctx: &Context<'_>,
    device: &Device,
    job: &Job,
    signer: Signer,
    session: SessionId,
    subject: Subject,
) -> Decision {
    match job.state {
        // A late proof is a proof: the device may have nothing else to connect with by now.
        JobState::Issued | JobState::Committing | JobState::TimedOut | JobState::Lost => {}
        JobState::Confirmed => return Decision::Same(None),
        _ => return Decision::Refuse(Code::OutOfOrder, "nothing is on trial"),
    }
    if !trial_signer(job, signer) {
        return wrong_key();
    }
    if job.subject != Some(subject) {
        return Decision::Refuse(Code::CertificateInvalid, "not what this job put on trial");
    }
    let mut next = heard(ctx, device, session);
    if let Some(job) = next.job.as_mut() {
        job.committed = true;
        if job.state == JobState::Issued {
            job.enter(JobState::Committing, ctx.now, ctx.policy);
        }
    }
    change(next, Some(Send::Commit))
}

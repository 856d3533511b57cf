//! One event for one device: what the ledger shall hold, and what shall be said.
//!
//! Nothing here sends or stores. The engine writes the device of [`Decision::Change`] in one transaction and only then sends
//! what it asks to send; when the write is refused because somebody else was faster, it reads and asks again.

use certwave_protocol::code::Code;
use certwave_protocol::ids::{ClaimName, Epoch, Fingerprint, JobId, Nonce, SessionId};
use certwave_protocol::message::{Hello, Progress, Step, Subject};

use crate::backoff;
use crate::model::{Credential, Device, Job, JobKind, JobState, Millis};
use crate::policy::JobPolicy;

/// What every decision depends on.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// The controller's clock.
    pub now: Millis,
    /// The controller's epoch.
    pub epoch: Epoch,
    /// How jobs run.
    pub policy: &'a JobPolicy,
}

/// Which of a device's recorded keys signed a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Signer {
    /// The certificate confirmed last.
    Current,
    /// The one before it: the device went back by itself.
    Previous,
    /// The one issued and not yet proven.
    Pending,
}

/// What a job's messages bear beside their body; checked against the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct JobMark {
    /// The job's id.
    pub id: JobId,
    /// Its nonce.
    pub nonce: Option<Nonce>,
    /// The epoch that the device echoes.
    pub epoch: Option<Epoch>,
}

/// Something that happened to a device. Signatures are checked before; who signed is part of the event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The device said where it stands.
    Hello {
        /// What it said.
        hello: Hello,
        /// With which key.
        signer: Signer,
        /// On which connection.
        session: SessionId,
    },
    /// The device reported a step of a job.
    Status {
        /// For which job.
        mark: JobMark,
        /// With which key.
        signer: Signer,
        /// On which connection.
        session: SessionId,
        /// The step.
        step: Step,
        /// Why.
        code: Option<Code>,
        /// In words.
        detail: Option<String>,
    },
    /// The device asks for a certificate; the request itself is sound, its key is this.
    Csr {
        /// For which job.
        mark: JobMark,
        /// With which key.
        signer: Signer,
        /// On which connection.
        session: SessionId,
        /// SHA-256 of the request's public key.
        key: Fingerprint,
    },
    /// The request was not sound.
    CsrRefused {
        /// For which job.
        mark: JobMark,
        /// With which key.
        signer: Signer,
        /// Why.
        code: Code,
        /// In words.
        detail: String,
    },
    /// The device connected with what is on trial.
    Tested {
        /// For which job.
        mark: JobMark,
        /// With which key.
        signer: Signer,
        /// On which connection.
        session: SessionId,
        /// What it tested.
        subject: Subject,
    },
    /// The device is online and there is room: send it the job that it has queued.
    Offer,
    /// A deadline may have passed.
    Deadline,
    /// The device could not be heard or served, for a fault that is not its own: the present state gets its time again.
    Postpone,
    /// A person or a change of plan ends the job, where it has not been accepted.
    Cancel,
}

/// Something to say to the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Send {
    /// The job.
    Job,
    /// The pending certificate.
    Certificate,
    /// The commit.
    Commit,
}

/// What follows from an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Nothing changes; perhaps something is said again.
    Same(Option<Send>),
    /// The ledger changes first, then something is said.
    Change {
        /// What the ledger shall hold.
        device: Box<Device>,
        /// What to say afterwards.
        send: Option<Send>,
    },
    /// A certificate is to be issued for this job; [`issued`] makes the change.
    Issue,
    /// The message is refused and changes nothing.
    Refuse(Code, &'static str),
}

/// A job as the scheduler makes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewJob {
    /// A fresh `UUIDv7`.
    pub id: JobId,
    /// 128 random bits.
    pub nonce: Nonce,
    /// What it is for.
    pub kind: JobKind,
    /// The Rotation it belongs to.
    pub rotation: Option<String>,
}

/// Gives `device` a queued job. It is offered when the device is online and there is room.
pub fn start(ctx: &Context<'_>, device: &Device, new: NewJob) -> Decision {
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
        id: new.id,
        kind: new.kind,
        rotation: new.rotation,
        claim: None,
        state: JobState::Queued,
        attempt,
        nonce: new.nonce,
        epoch: ctx.epoch,
        created: ctx.now,
        since: ctx.now,
        deadline: None,
        job_deadline: None,
        csr_key: None,
        subject,
        committed: false,
        code: None,
        detail: None,
    });
    change(next, None)
}

/// True where the pending certificate was committed and nothing was heard of it since.
fn undecided(device: &Device) -> bool {
    device.job.as_ref().is_some_and(|job| {
        left_over(device) || (job.committed && matches!(job.state, JobState::TimedOut | JobState::Lost))
    })
}

/// True where the pending certificate is that of an earlier job than the present one: it was committed there.
fn left_over(device: &Device) -> bool {
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
/// another key replaces it; afterwards only a permit opens enrolment again, once.
pub fn enrolment(device: &Device, key: Fingerprint) -> Enrolment {
    let open = device.open_job();
    if let Some(job) = open
        && job.kind == JobKind::Enrol
        && job.csr_key == Some(key)
        && device.pending.is_some()
    {
        return Enrolment::Again;
    }
    let permitted = device.reenrol.is_some() && device.reenrol != device.reenrol_used;
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

/// The change that records an enrolment's certificate, issued for `key` by `claim`.
pub fn enrolled(
    ctx: &Context<'_>,
    device: &Device,
    id: JobId,
    nonce: Nonce,
    claim: ClaimName,
    credential: Credential,
) -> Device {
    let mut next = device.clone();
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

/// The change that records a rotation's certificate.
pub fn issued(ctx: &Context<'_>, device: &Device, session: SessionId, credential: Credential) -> Decision {
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
    change(next, Some(Send::Certificate))
}

/// Decides on one event for one device.
pub fn step(ctx: &Context<'_>, device: &Device, event: &Event) -> Decision {
    match event {
        Event::Hello { hello, signer, session } => on_hello(ctx, device, hello, *signer, *session),
        Event::Offer => on_offer(ctx, device),
        Event::Deadline => on_deadline(ctx, device),
        Event::Postpone => on_postpone(ctx, device),
        Event::Cancel => on_cancel(ctx, device),
        Event::Status {
            mark,
            signer,
            session,
            step,
            code,
            detail,
        } => match check(ctx, device, mark) {
            Err(refusal) => refusal,
            Ok(job) => on_status(ctx, device, job, *signer, *session, *step, *code, detail.as_ref()),
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
                end(ctx, device, JobState::Failed, *code, Some(detail))
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

fn on_hello(ctx: &Context<'_>, device: &Device, hello: &Hello, mut signer: Signer, session: SessionId) -> Decision {
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
    // Since that job's end the device has gone back by itself: the certificate it starts from is the one to renew in time.
    let after = matches!(
        progress,
        Some(Progress::Committed | Progress::RolledBack | Progress::Failed)
    );
    if signer == Signer::Previous && after && job.state.ended() && !forward {
        std::mem::swap(&mut next.current, &mut next.previous);
        return change(next, None);
    }
    // Only a device that has nothing else yet speaks with a certificate on trial.
    if signer == Signer::Pending && job.kind != JobKind::Enrol {
        return Decision::Refuse(Code::WrongKey, "not committed yet");
    }
    let gone = matches!(job.state, JobState::Accepted | JobState::Issued | JobState::Committing) || forward;
    match progress {
        Some(Progress::RolledBack) if gone => return finish(ctx, next, JobState::RolledBack, Code::TestFailed, None),
        Some(Progress::Failed) if gone => return finish(ctx, next, JobState::Failed, Code::Other, None),
        _ => {}
    }
    let waits = !matches!(progress, Some(Progress::Stored | Progress::Trial));
    let send = match job.state {
        JobState::Sent | JobState::Accepted if waits => Some(Send::Job),
        // A claim's certificate was taken already: the device tests it by itself.
        JobState::Issued if job.kind == JobKind::Enrol => None,
        // The trial is under way, or it is over and `tested` was lost: the same answer starts it again.
        JobState::Issued if waits => Some(if carries_certificate(job) {
            Send::Certificate
        } else {
            Send::Job
        }),
        _ if forward => Some(Send::Commit),
        _ => None,
    };
    change(next, send)
}

/// True where hello shows that what was committed is active and off trial.
fn proves(job: &Job, device: &Device, hello: &Hello, signer: Signer, progress: Option<Progress>) -> bool {
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

fn carries_certificate(job: &Job) -> bool {
    matches!(job.kind, JobKind::Rotate | JobKind::Enrol)
}

/// The key that must sign `tested` and `committed` of this job.
fn trial_signer(job: &Job, signer: Signer) -> bool {
    match job.kind {
        JobKind::Rotate | JobKind::Enrol => signer == Signer::Pending,
        JobKind::Rollback => signer == Signer::Previous,
        JobKind::Trust(_) => signer != Signer::Pending,
    }
}

fn on_offer(ctx: &Context<'_>, device: &Device) -> Decision {
    if device.session.is_none() || device.job.as_ref().is_none_or(|j| j.state != JobState::Queued) {
        return Decision::Same(None);
    }
    let mut next = device.clone();
    if let Some(job) = next.job.as_mut() {
        job.enter(JobState::Sent, ctx.now, ctx.policy);
    }
    change(next, Some(Send::Job))
}

#[allow(clippy::too_many_arguments)]
fn on_status(
    ctx: &Context<'_>,
    device: &Device,
    job: &Job,
    signer: Signer,
    session: SessionId,
    step: Step,
    code: Option<Code>,
    detail: Option<&String>,
) -> Decision {
    use JobState::{Accepted, Committing, Issued, Lost, Queued, Sent, TimedOut};
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
            // It went back by itself, and the new key goes into the other slot: that is the one to forget.
            if signer == Signer::Previous && job.kind == JobKind::Rotate && next.previous.is_some() {
                std::mem::swap(&mut next.current, &mut next.previous);
            }
            if let Some(job) = next.job.as_mut() {
                let to = if carries_certificate(job) { Accepted } else { Issued };
                job.enter(to, ctx.now, ctx.policy);
            }
            change(next, None)
        }
        // Its slot was given back meanwhile: it is offered again when there is room.
        (Step::Accepted, Queued) => Decision::Refuse(Code::TryLater, "the job is queued again"),
        (Step::Rejected, Queued | Sent | Accepted) => end(
            ctx,
            &heard(ctx, device, session),
            JobState::Rejected,
            code.unwrap_or(Code::Refused),
            detail,
        ),
        (Step::Failed, Sent | Accepted | Issued | Committing | TimedOut | Lost) => end(
            ctx,
            &heard(ctx, device, session),
            JobState::Failed,
            code.unwrap_or(Code::Other),
            detail,
        ),
        (Step::RolledBack, Accepted | Issued | Committing | TimedOut | Lost) => end(
            ctx,
            &heard(ctx, device, session),
            JobState::RolledBack,
            code.unwrap_or(Code::TestFailed),
            detail,
        ),
        (Step::Accepted, Accepted | Issued | Committing)
        | (Step::Rejected, JobState::Rejected)
        | (Step::Failed, JobState::Failed)
        | (Step::RolledBack, JobState::RolledBack) => Decision::Same(None),
        _ => Decision::Refuse(Code::OutOfOrder, "not possible in the job's present state"),
    }
}

fn on_csr(
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

fn on_tested(
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

fn on_deadline(ctx: &Context<'_>, device: &Device) -> Decision {
    let Some(job) = &device.job else {
        return Decision::Same(None);
    };
    if job.next_deadline().is_none_or(|d| d > ctx.now) {
        return Decision::Same(None);
    }
    let over = job.job_deadline.is_some_and(|d| d <= ctx.now);
    let mut next = device.clone();
    let Some(job) = next.job.as_mut() else {
        return Decision::Same(None);
    };
    match job.state {
        JobState::Sent if ctx.now.saturating_sub(job.since) >= ctx.policy.offline_after => {
            job.enter(JobState::Queued, ctx.now, ctx.policy);
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

fn on_postpone(ctx: &Context<'_>, device: &Device) -> Decision {
    let mut next = device.clone();
    match next.job.as_mut() {
        // Its deadline is the end of its certificate.
        Some(job) if job.kind == JobKind::Enrol => on_deadline(ctx, device),
        Some(job) if job.next_deadline().is_some() => {
            job.rearm(ctx.now, ctx.policy);
            job.job_deadline = job.job_deadline.map(|d| job.deadline.map_or(d, |state| state.max(d)));
            change(next, None)
        }
        _ => Decision::Same(None),
    }
}

fn on_cancel(ctx: &Context<'_>, device: &Device) -> Decision {
    match &device.job {
        Some(j) if matches!(j.state, JobState::Queued | JobState::Sent) => {
            end(ctx, device, JobState::Cancelled, Code::Cancelled, None)
        }
        _ => Decision::Same(None),
    }
}

fn heard(ctx: &Context<'_>, device: &Device, session: SessionId) -> Device {
    let mut next = device.clone();
    next.session = Some(session);
    next.last_seen = Some(ctx.now);
    next
}

fn confirm(ctx: &Context<'_>, next: &mut Device) {
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

/// The pending certificate is what the device starts from.
fn promote(next: &mut Device) {
    if let Some(new) = next.pending.take() {
        next.previous = next.current.replace(new);
    }
}

fn end(ctx: &Context<'_>, device: &Device, state: JobState, code: Code, detail: Option<&String>) -> Decision {
    finish(ctx, device.clone(), state, code, detail.cloned())
}

/// Ends the job and says when the device may be asked again.
fn finish(ctx: &Context<'_>, mut next: Device, state: JobState, code: Code, detail: Option<String>) -> Decision {
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

/// True where a rotation tries this device again by itself: the job failed or timed out before anything was committed,
/// and attempts are left.
pub fn will_retry(policy: &JobPolicy, job: &Job) -> bool {
    matches!(job.state, JobState::Failed | JobState::TimedOut) && !job.committed && job.attempt <= policy.max_retries
}

fn change(device: Device, send: Option<Send>) -> Decision {
    Decision::Change {
        device: Box::new(device),
        send,
    }
}

fn wrong_key() -> Decision {
    Decision::Refuse(Code::WrongKey, "this message is signed by another key of the device")
}

//! The controller around its own transition functions: what the engine and the ledger do with what they decide.

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};

use certwave_core::due::{self, Target};
use certwave_core::model::{Device, JobKind, JobState};
use certwave_core::policy::JobPolicy;
use certwave_core::retire::{self, Act, Retirement};
use certwave_core::revocation::Bar;
use certwave_core::step::{self, Context, Decision, Event, JobMark, NewJob, Report, Send, Signer};
use certwave_protocol::code::Code;
use certwave_protocol::message::{Hello, JobView, Slots, Subject, Type};

use crate::breach::Breach;
use crate::ledger::{Ledger, Marks, Retiring};
use crate::message::{About, ByRank, Down, Net, Said, Told, Up, What};
use crate::mutant::Mutant;
use crate::symbols::{self, Leaf, NOW, PAST, PRESENT};

/// A step and a trial: what passes when a deadline does.
pub const STEP: i64 = 10;
/// Longer than everything but a certificate's life.
pub const LONG: i64 = 1_000_000;
const OFFLINE: i64 = 100;

static POLICY: LazyLock<JobPolicy> = LazyLock::new(|| JobPolicy {
    step_timeout: STEP,
    trial_timeout: 0,
    job_timeout: 10_000,
    offline_after: OFFLINE,
    lost_after: 10_000,
    retry_backoff: 0,
    ..JobPolicy::default()
});

/// What a person does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Deed {
    /// Revokes the device.
    Revoke,
    /// Puts it on hold.
    Hold,
    /// Releases it.
    Release,
    /// Calls the job off.
    Cancel,
}

/// One controller at work.
pub struct Engine<'a> {
    /// The ledger.
    pub ledger: &'a mut Ledger,
    /// The network.
    pub net: &'a mut Net,
    /// What the door goes by.
    pub shut: &'a BTreeSet<Leaf>,
    /// What went wrong.
    pub breach: &'a mut Option<Breach>,
    /// The device has come in with the new certificate while the door refused the one being retired.
    pub came_in: &'a mut bool,
    /// What is done wrong on purpose.
    pub mutant: Option<Mutant>,
    /// The epoch that this one believes in.
    pub epoch: u8,
    /// Whether old certificates are retired.
    pub retires: bool,
}

impl Engine<'_> {
    pub(crate) fn deposed(&self) -> bool {
        self.epoch != self.ledger.epoch
    }

    fn ctx(&self, after: i64) -> Context<'static> {
        Context {
            now: NOW + after,
            epoch: u64::from(self.epoch),
            policy: &POLICY,
        }
    }

    pub(crate) fn wrong(&mut self, breach: Breach) {
        self.breach.get_or_insert(breach);
    }

    /// Takes in one message.
    pub fn hear(&mut self, up: &Up) {
        let before = Arc::clone(&self.ledger.device);
        let Some(signer) = self.signer(up) else {
            // What an unverified message claims is not repeated.
            return;
        };
        let event = event(up, signer);
        let event = match self.mutant {
            Some(mutant) => mutant.heard(event, &before),
            None => event,
        };
        let ctx = self.ctx(0);
        let mut decision = match self.mutant {
            Some(mutant) => mutant.decide(&ctx, &before, &event),
            None => step::step(&ctx, &before, &event),
        };
        let mut issued = None;
        if let (Decision::Issue, Said::Csr(key)) = (&decision, up.said) {
            if self.ledger.issued.contains_key(&key) {
                self.happen(&refused_request(up, signer), 0);
                return self.reject(up, Code::KeyReused);
            }
            issued = Some(key);
            let mut credential = symbols::credential(key);
            // Each begins later than the one before, though the clock stands still.
            credential.not_before += i64::from(self.ledger.jobs);
            decision = step::issued(&ctx, &before, signer, session(up.present), credential);
        }
        if let Some(mutant) = self.mutant {
            mutant.decided(&before, &event, &mut decision);
        }
        if let Decision::Refuse(code, _) = decision {
            return self.reject(up, code);
        }
        let ended = matches!(&decision, Decision::Change { device, .. }
            if device.job.as_ref().is_some_and(|j| j.code == Some(Code::CsrChanged) && j.state.ended()));
        self.check_heard(up, &before, &decision);
        if !self.carry_out(decision, issued) {
            return;
        }
        if ended {
            self.reject(up, Code::CsrChanged);
        }
        if let Said::Hello { echo, .. } = up.said {
            self.came_back(up.signer, echo);
        }
    }

    /// Whose key this is, as the engine tells it.
    fn signer(&self, up: &Up) -> Option<Signer> {
        let device = &self.ledger.device;
        let of = symbols::fingerprint(up.signer);
        let candidates = [
            (Signer::Current, &device.current),
            (Signer::Pending, &device.pending),
            (Signer::Previous, &device.previous),
        ];
        let found = candidates
            .into_iter()
            .find(|(_, c)| c.as_ref().is_some_and(|c| c.fingerprint == of));
        let (role, _) = found?;
        let marks = self.ledger.marks(up.signer);
        let refused = role != Signer::Current && (marks.held || marks.person || marks.revoked);
        (!refused).then_some(role)
    }

    /// Nothing that is not about the present job moves the job or the certificates, and nobody who is barred moves anything.
    fn check_heard(&mut self, up: &Up, before: &Device, decision: &Decision) {
        let Decision::Change { device, .. } = decision else {
            return;
        };
        if before.bar.is_some() {
            self.wrong(Breach::BarredMovedLedger);
        }
        let own = before
            .job
            .as_ref()
            .map(|j| (symbols::job_number(j.id), u8::try_from(j.epoch).unwrap_or(0)));
        let fits = match (up.about, own) {
            (Some(About { job, epoch }), Some((present, since))) => job == present && epoch >= since,
            (Some(_), None) => false,
            // A hello belongs to no job; what it proves is core's business, and the other properties'.
            (None, _) => true,
        };
        if !fits && **device != *before {
            self.wrong(Breach::ForeignMovedLedger);
        }
    }

    /// Writes and speaks; false where the ledger refused.
    fn carry_out(&mut self, decision: Decision, issued: Option<Leaf>) -> bool {
        match decision {
            Decision::Same(Some(send)) => self.send(send),
            Decision::Change { device, send } => {
                let mut device = *device;
                rest(&mut device);
                if device != *self.ledger.device || issued.is_some() {
                    let fenced = self.mutant != Some(Mutant::LedgerIgnoresEpoch);
                    if self.deposed() && fenced {
                        return false;
                    }
                    if self.deposed() {
                        self.wrong(Breach::DeposedWrote);
                    }
                    self.write(device, issued);
                }
                if let Some(send) = send {
                    self.send(send);
                }
            }
            Decision::Same(None) | Decision::Refuse(..) | Decision::Issue => {}
        }
        true
    }

    /// One transaction.
    fn write(&mut self, device: Device, issued: Option<Leaf>) {
        let before = std::mem::replace(&mut self.ledger.device, Arc::new(device));
        let after = Arc::clone(&self.ledger.device);
        self.check_written(&before, &after);
        if let Some(leaf) = issued {
            self.ledger.issued.insert(leaf, Marks::default());
        }
        if self.retires
            && let Some(retirement) = Retirement::of(NOW, &before, &after, 0)
        {
            // An open one of the same device ends.
            if let Some(open) = self.ledger.retirement.take() {
                self.mark(&open.0, Act::Release);
            }
            self.ledger.retirement = Some(Retiring(retirement));
            self.ledger.watched = true;
        }
        let void = match self.mutant {
            Some(mutant) => mutant.void(&before, &after),
            None => retire::refused(&before, &after),
        };
        if let Some(of) = void {
            let leaf = symbols::leaf(&of);
            self.ledger.issued.entry(leaf).or_default().revoked = true;
            self.forget_previous(leaf);
        }
    }

    fn check_written(&mut self, before: &Device, after: &Device) {
        let (Some(was), Some(is)) = (&before.job, &after.job) else {
            return;
        };
        if was.id != is.id {
            if !was.state.ended() {
                self.wrong(Breach::TwoJobs);
            }
            return;
        }
        if was.state != is.state && !was.state.row().next.contains(&is.state) {
            self.wrong(Breach::NotInTable);
        }
        if was.committed && (!is.committed || was.subject != is.subject || was.csr_key != is.csr_key) {
            self.wrong(Breach::CommitChanged);
        }
    }

    /// Nobody is to go back to a revoked certificate.
    pub(crate) fn forget_previous(&mut self, leaf: Leaf) {
        let of = symbols::fingerprint(leaf);
        if self
            .ledger
            .device
            .previous
            .as_ref()
            .is_some_and(|p| p.fingerprint == of)
        {
            Arc::make_mut(&mut self.ledger.device).previous = None;
        }
    }

    fn send(&mut self, send: Send) {
        let device = &self.ledger.device;
        let (Some(job), Some(session)) = (&device.job, device.session) else {
            return;
        };
        let told = match send {
            Send::Commit => match job.subject {
                Some(subject) => Told::Commit(what(subject)),
                None => return,
            },
            Send::Certificate => match &device.pending {
                Some(pending) => Told::Certificate(symbols::leaf(&pending.fingerprint)),
                None => return,
            },
            Send::Job => match &job.kind {
                JobKind::Rotate | JobKind::Enrol => Told::Rotate,
                JobKind::Rollback => match &device.previous {
                    Some(previous) => Told::Rollback(symbols::leaf(&previous.fingerprint)),
                    None => return,
                },
                JobKind::Trust(bundle) => Told::Trust(symbols::bundle_number(bundle)),
            },
        };
        let job = Some(symbols::job_number(job.id));
        self.say(told, session == PRESENT, job);
    }

    pub(crate) fn say(&mut self, told: Told, present: bool, job: Option<u8>) {
        self.net.down.insert(Down {
            told,
            present,
            job,
            epoch: self.epoch,
        });
    }

    fn reject(&mut self, up: &Up, code: Code) {
        let of = match up.said {
            Said::Hello { .. } => Type::Hello,
            Said::Csr(_) => Type::Csr,
            Said::Tested(_) => Type::Tested,
            Said::Status(..) => Type::Status,
        };
        // A refused hello bears no job, and the device does nothing about it.
        if up.about.is_some() {
            self.say(Told::Rejected(ByRank(of), code), up.present, up.about.map(|a| a.job));
        }
    }

    /// Lets something happen that nobody said, `after` so long.
    pub fn happen(&mut self, event: &Event, after: i64) {
        let ctx = self.ctx(after);
        let before = Arc::clone(&self.ledger.device);
        let mut decision = step::step(&ctx, &before, event);
        if let Some(mutant) = self.mutant {
            mutant.decided(&before, event, &mut decision);
        }
        self.carry_out(decision, None);
    }

    /// Offers the job that waits.
    pub fn offer(&mut self) {
        if due::may_offer(NOW, &self.ledger.device) && self.lets_in() {
            self.happen(&Event::Offer, 0);
        }
    }

    /// The door goes by it that the device's certificates are released, those of them that were on hold.
    fn lets_in(&self) -> bool {
        let device = &self.ledger.device;
        let mut leaves = device.current.iter().chain(&device.previous);
        let awaited = leaves.any(|credential| {
            let leaf = symbols::leaf(&credential.fingerprint);
            self.ledger.marks(leaf).good() && self.shut.contains(&leaf)
        });
        !awaited || self.heedless()
    }

    fn heedless(&self) -> bool {
        self.mutant == Some(Mutant::StartsAmidHold)
    }

    /// Gives the device the job that it needs, or one back.
    pub fn start(&mut self, back: bool, bundle: u8) {
        let device = Arc::clone(&self.ledger.device);
        let target = Target {
            issuer: "",
            bundle: symbols::bundle(bundle),
            renew_before: None,
        };
        let holds = self.ledger.retirement.as_ref().is_some_and(|r| r.0.phase.holds());
        if holds && !self.heedless() {
            return;
        }
        let hasty = self.mutant == Some(Mutant::StartsWhileBusy);
        let kind = if back {
            let confirmed = device
                .job
                .as_ref()
                .is_some_and(|j| j.state == JobState::Confirmed && j.kind == JobKind::Rotate);
            confirmed.then_some(JobKind::Rollback)
        } else if hasty {
            Some(JobKind::Rotate)
        } else {
            due::next_job(NOW, &device, &target)
        };
        let Some(kind) = kind else { return };
        let number = self.ledger.jobs + 1;
        let new = NewJob {
            id: symbols::job_id(number),
            nonce: symbols::nonce(number),
            kind,
            rotation: None,
        };
        let ctx = self.ctx(0);
        let decision = if hasty {
            let mut idle = (*device).clone();
            idle.job = None;
            step::start(&ctx, &idle, new)
        } else {
            step::start(&ctx, &device, new)
        };
        if matches!(decision, Decision::Change { .. }) {
            self.ledger.jobs = number;
            self.carry_out(decision, None);
        }
    }

    /// A person does something, as the ledger carries it out.
    pub fn person(&mut self, deed: Deed) {
        if deed == Deed::Cancel {
            return self.happen(&Event::Cancel, 0);
        }
        for marks in self.ledger.issued.values_mut() {
            match deed {
                Deed::Revoke => marks.person = true,
                Deed::Hold => marks.held = true,
                Deed::Release => marks.held = false,
                Deed::Cancel => {}
            }
        }
        let device = Arc::make_mut(&mut self.ledger.device);
        match deed {
            Deed::Revoke => {
                device.previous = None;
                device.bar = Some(Bar::Revoked);
            }
            Deed::Hold if device.bar.is_none() => device.bar = Some(Bar::Held),
            Deed::Release if device.bar == Some(Bar::Held) => device.bar = None,
            _ => {}
        }
        if device.bar.is_some()
            && let Some(job) = device
                .job
                .as_mut()
                .filter(|j| matches!(j.state, JobState::Queued | JobState::Sent))
        {
            job.state = JobState::Cancelled;
            job.deadline = None;
            job.code = Some(Code::Cancelled);
        }
    }
}

/// Times as they are when nothing passes: a state's deadline is one step away, a job's many.
fn rest(device: &mut Device) {
    device.last_seen = None;
    device.not_before = None;
    let Some(job) = device.job.as_mut() else { return };
    job.attempt = 1;
    job.detail = None;
    job.created = NOW;
    job.since = NOW;
    if job.state != JobState::Queued {
        job.deadline = job.deadline.map(|_| NOW + STEP);
    }
    job.job_deadline = job.job_deadline.map(|_| NOW + 10_000);
}

fn what(subject: Subject) -> What {
    match subject {
        Subject::Certificate(of) => What::Leaf(symbols::leaf(&of)),
        Subject::Bundle(of) => What::Bundle(symbols::bundle_number(&of)),
    }
}

fn session(present: bool) -> certwave_protocol::ids::SessionId {
    if present { PRESENT } else { PAST }
}

fn mark_of(up: &Up) -> JobMark {
    let About { job, epoch } = up.about.unwrap_or(About { job: 0, epoch: 0 });
    JobMark {
        id: symbols::job_id(job),
        nonce: Some(symbols::nonce(job)),
        epoch: Some(u64::from(epoch)),
    }
}

fn refused_request(up: &Up, signer: Signer) -> Event {
    Event::CsrRefused {
        mark: mark_of(up),
        signer,
        code: Code::KeyReused,
        detail: String::new(),
    }
}

fn event(up: &Up, signer: Signer) -> Event {
    let (mark, session) = (mark_of(up), session(up.present));
    let leaf = |n: Leaf| (n != 0).then(|| symbols::fingerprint(n));
    match up.said {
        Said::Hello {
            active,
            slots: [a, b],
            job,
            bundle,
            echo,
        } => Event::Hello {
            hello: Hello {
                agent: String::new(),
                active,
                slots: Slots { a: leaf(a), b: leaf(b) },
                job: job.map(|(id, progress)| JobView {
                    id: symbols::job_id(id),
                    progress: progress.0,
                }),
                clock: 0,
                bundle: symbols::bundle(bundle),
                reconnect: echo.map(symbols::nonce),
                alert: None,
            },
            signer,
            session,
        },
        Said::Csr(key) => Event::Csr {
            mark,
            signer,
            session,
            key: symbols::spki(key),
        },
        Said::Tested(what) => Event::Tested {
            mark,
            signer,
            session,
            subject: match what {
                What::Leaf(leaf) => Subject::Certificate(symbols::fingerprint(leaf)),
                What::Bundle(bundle) => Subject::Bundle(symbols::bundle(bundle)),
            },
        },
        Said::Status(step, code) => Event::Status {
            mark,
            report: Report {
                signer,
                session,
                step: step.0,
                code,
                detail: None,
            },
        },
    }
}

//! What a device says.

use certwave_protocol::code::Code;
use certwave_protocol::message::{Body, Csr, Enrol, Hello, Slot, Status, Step, Subject, Tested};

use super::{Credential, Echo, Effect, Link, Machine, Reference, Signer, Timer, Via, Wait};
use crate::journal::{Goal, Phase};

/// Seconds within which one message of another connection is answered.
const MUTE: u32 = 5;
/// Seconds before what was not answered is said again; doubled each time, up to the second value.
const REPEAT: (u32, u32) = (15, 300);

impl Machine<'_> {
    fn publish(&mut self, body: Body, signer: Signer, about: Reference) {
        if let Link::Up(..) = self.state.link {
            self.emit(Effect::Publish { body, signer, about });
        }
    }

    /// Says something about the latest job.
    fn say(&mut self, body: Body, signer: Slot) {
        if let Some(about) = self.job().map(Reference::from) {
            self.publish(body, Signer::Slot(signer), about);
        }
    }

    pub(super) fn say_hello(&mut self) {
        let Some(active) = self.state.journal.active else {
            return;
        };
        let Link::Up(via, _) = self.state.link else { return };
        let reconnect = match self.state.echo {
            // Only a hello over the active credential proves that it opens the door.
            Echo::Ready(nonce) if !via.trial => {
                self.state.echo = Echo::None;
                Some(nonce)
            }
            _ => None,
        };
        let other = match via.credential {
            Credential::Slot(slot) => slot.other(),
            Credential::Claim => active.other(),
        };
        let hello = Hello {
            agent: self.config.agent.clone(),
            active,
            slots: self.state.journal.leaves(),
            job: self.state.journal.view(self.state.trial),
            clock: self.now,
            bundle: self.state.journal.bundle(),
            reconnect,
            alert: self.state.alerts.get(other).clone(),
        };
        self.publish(Body::Hello(hello), Signer::Slot(active), Reference::default());
    }

    pub(super) fn say_enrol(&mut self) {
        let Some((nonce, Some(csr))) = self.state.journal.enrolment.as_ref().map(|e| (e.nonce, e.csr.clone())) else {
            return;
        };
        let about = Reference {
            nonce: Some(nonce),
            ..Reference::default()
        };
        self.publish(Body::Enrol(Enrol { csr }), Signer::Claim, about);
    }

    pub(super) fn say_csr(&mut self) {
        let (Some(active), Some(csr)) = (self.state.journal.active, self.job().and_then(|j| j.csr.clone())) else {
            return;
        };
        self.say(Body::Csr(Csr { csr }), active);
    }

    /// `tested`, by the key on trial: the new slot's, or the active one's when a bundle is on trial.
    pub(super) fn say_tested(&mut self) {
        let Some(subject) = self.subject() else { return };
        let slot = self.job().and_then(|j| j.goal.slot()).or(self.state.journal.active);
        if let Some(slot) = slot {
            self.say(Body::Tested(Tested { subject }), slot);
        }
    }

    /// What the latest job puts on trial.
    pub(super) fn subject(&self) -> Option<Subject> {
        let job = self.job()?;
        match job.goal {
            Goal::Trust { bundle, .. } => Some(Subject::Bundle(bundle)),
            goal => self
                .state
                .journal
                .held(goal.slot()?)
                .map(|h| Subject::Certificate(h.leaf)),
        }
    }

    pub(super) fn say_status(&mut self, step: Step, code: Option<Code>) {
        self.say_more(step, code, None, None);
    }

    fn say_more(&mut self, step: Step, code: Option<Code>, detail: Option<String>, alert: Option<String>) {
        if let Some(active) = self.state.journal.active {
            let status = Status {
                step,
                code,
                detail,
                alert,
            };
            self.say(Body::Status(status), active);
        }
    }

    /// Rejects a job that the journal does not know, and never will.
    pub(super) fn reject(&mut self, about: Reference, code: Code, detail: &str) {
        self.emit(Effect::Ignored(code));
        if let Some(active) = self.state.journal.active {
            let detail = (!detail.is_empty()).then(|| detail.to_owned());
            let status = Status {
                step: Step::Rejected,
                code: Some(code),
                detail,
                alert: None,
            };
            self.publish(Body::Status(status), Signer::Slot(active), about);
        }
    }

    /// Tells how the latest job ended, if that is still to be told.
    pub(super) fn say_end(&mut self) {
        if std::mem::take(&mut self.state.announce) {
            self.repeat_end();
        }
    }

    /// Tells how the latest job ended; says nothing while it has not.
    pub(super) fn repeat_end(&mut self) {
        match self.job().map(|j| j.phase.clone()) {
            Some(Phase::Committed) => self.say_status(Step::Committed, None),
            Some(Phase::RolledBack { code, alert }) => {
                let detail = self.why_back(code);
                self.say_more(Step::RolledBack, Some(code), detail, alert);
            }
            Some(Phase::Failed { code }) => self.say_status(Step::Failed, Some(code)),
            _ => {}
        }
    }

    /// Something valid came for another connection: the controller has yet to hear of this one.
    pub(super) fn answer_stranger(&mut self) {
        let Link::Up(via, _) = self.state.link else { return };
        if std::mem::replace(&mut self.state.muted, true) {
            return;
        }
        self.emit(Effect::StartTimer(Timer::Unmute, Wait::Exactly(MUTE)));
        match via.credential {
            Credential::Claim => {}
            Credential::Slot(_) if via.trial => self.say_tested(),
            Credential::Slot(_) => self.say_hello(),
        }
    }

    pub(super) fn start_repeat(&mut self) {
        let seconds = (REPEAT.0 << self.state.repeats.min(5)).min(REPEAT.1);
        self.emit(Effect::StartTimer(Timer::Repeat, Wait::About(seconds)));
    }

    /// What was asked was not answered: ask again.
    pub(super) fn repeat(&mut self) {
        let Link::Up(via, _) = self.state.link else { return };
        match (via.credential, self.job().map(|j| &j.phase)) {
            (Credential::Claim, _) => self.say_enrol(),
            (Credential::Slot(_), Some(Phase::Tested)) if via.trial => self.say_tested(),
            (Credential::Slot(_), Some(Phase::Accepted)) if !via.trial => self.say_csr(),
            _ => return,
        }
        self.state.repeats = self.state.repeats.saturating_add(1);
        self.start_repeat();
    }

    pub(super) fn beat(&mut self) {
        if let Link::Up(
            Via {
                trial: false,
                credential: Credential::Slot(_),
                ..
            },
            _,
        ) = self.state.link
        {
            self.state.failures = 0;
            self.say_hello();
            self.emit(Effect::StartTimer(Timer::Beat, Wait::About(self.config.beat)));
        }
    }
}

//! Which way to connect comes next, and what a connection made, refused or lost means.

use certwave_protocol::code::Code;
use certwave_protocol::ids::SessionId;
use certwave_protocol::message::Slot;

use super::{Credential, Echo, Effect, Failure, Link, Machine, Timer, Via, Wait};
use crate::journal::{Goal, Phase};

/// Refusals in a row, over all own credentials, after which a claim is tried as well.
pub(super) const REFUSALS_BEFORE_CLAIM: u8 = 6;

impl Machine<'_> {
    pub(super) fn start(&mut self) {
        match self.job().map(|j| (j.phase.clone(), j.goal, j.csr.is_none(), j.id)) {
            // The key may be half made. Nobody has seen a request for it: make it anew.
            Some((Phase::Accepted, Goal::Rotate { slot, algorithm }, true, id)) => {
                self.emit(Effect::MakeKey {
                    slot,
                    algorithm,
                    job: Some(id),
                });
            }
            Some((Phase::Stored | Phase::Tested, ..)) => return self.begin_trial(),
            _ => {}
        }
        self.connect_next();
    }

    /// The ways to connect, the likeliest first. The active slot stands twice: one refusal may be a mistake.
    fn ways(&self) -> Vec<Via> {
        let journal = &self.state.journal;
        let plain = |slot| Via {
            credential: Credential::Slot(slot),
            trust: journal.trust,
            trial: false,
        };
        let target = self.trial_via();
        if self.state.trial {
            return target.into_iter().collect();
        }
        let mut ways = Vec::with_capacity(4);
        if let Some(active) = journal.active {
            ways.extend([plain(active), plain(active)]);
            let on_trial = target.is_some_and(|t| t.credential == Credential::Slot(active.other()));
            if journal.is_confirmed(active.other()) && !on_trial {
                ways.push(plain(active.other()));
            }
        }
        ways.extend(target);
        let refused = self.state.refusals >= REFUSALS_BEFORE_CLAIM;
        if self.config.claim && (journal.active.is_none() || refused) {
            ways.push(Via {
                credential: Credential::Claim,
                trust: journal.trust,
                trial: false,
            });
        }
        ways
    }

    /// The way that tries out what the latest job stored, while that is undecided.
    pub(super) fn trial_via(&self) -> Option<Via> {
        let journal = &self.state.journal;
        let job = journal.job.as_ref().filter(|j| j.phase.is_undecided())?;
        let (slot, trust) = match job.goal {
            Goal::Trust { place, .. } => (journal.active?, place),
            Goal::Rotate { slot, .. } | Goal::Enrol { slot } | Goal::Rollback { slot } => (slot, journal.trust),
        };
        journal.held(slot)?;
        Some(Via {
            credential: Credential::Slot(slot),
            trust,
            trial: true,
        })
    }

    pub(super) fn connect_next(&mut self) {
        let ways = self.ways();
        if ways.is_empty() {
            return;
        }
        let via = ways[usize::from(self.state.turn) % ways.len()];
        if via.credential == Credential::Claim && !self.enrolment_ready() {
            return;
        }
        self.connect(via);
    }

    /// Ends the present connection, if any, and makes another.
    pub(super) fn connect(&mut self, via: Via) {
        self.hang_up();
        self.emit(Effect::StopTimer(Timer::Retry));
        self.state.link = Link::Connecting(via);
        self.emit(Effect::Connect(via));
    }

    pub(super) fn hang_up(&mut self) {
        if self.state.link != Link::Down {
            self.emit(Effect::Disconnect);
            self.quiet();
            self.state.link = Link::Down;
        }
    }

    /// Without a connection nothing is said.
    fn quiet(&mut self) {
        self.emit(Effect::StopTimer(Timer::Beat));
        self.emit(Effect::StopTimer(Timer::Repeat));
    }

    /// Connects from the start of the list.
    pub(super) fn connect_active(&mut self) {
        self.state.turn = 0;
        self.state.failures = 0;
        self.connect_next();
    }

    pub(super) fn connected(&mut self, session: SessionId) {
        let Link::Connecting(via) = self.state.link else { return };
        self.state.link = Link::Up(via, session);
        self.state.repeats = 0;
        if let Credential::Slot(slot) = via.credential {
            *self.state.alerts.get_mut(slot) = None;
            self.state.refusals = 0;
            // What works comes first again: refusals count in a row only.
            self.state.turn = 0;
        }
        match via.credential {
            Credential::Claim => {
                self.say_enrol();
                self.start_repeat();
            }
            Credential::Slot(_) if via.trial => self.trial_connected(),
            Credential::Slot(slot) => self.connected_with(slot),
        }
    }

    fn connected_with(&mut self, slot: Slot) {
        let mut changed = false;
        if self.state.journal.active != Some(slot) {
            // The active one is refused and this one, confirmed once, is not: what works is what counts. Else the next
            // job would take the only slot that works for the free one.
            self.state.journal.active = Some(slot);
            changed = true;
        }
        if !self.state.trial {
            changed |= self.trial_failed();
        }
        if changed {
            self.persist();
        }
        self.say_end();
        self.say_hello();
        if self
            .job()
            .is_some_and(|j| j.phase == Phase::Accepted && j.csr.is_some())
        {
            self.say_csr();
            self.start_repeat();
        }
        self.emit(Effect::StartTimer(Timer::Beat, Wait::About(self.config.beat)));
    }

    /// Connected the old way after a trial in which the new one never worked: that is the verdict.
    fn trial_failed(&mut self) -> bool {
        let journal = &mut self.state.journal;
        let Some(job) = journal.job.as_mut().filter(|j| j.phase == Phase::Stored) else {
            return false;
        };
        let alert = job.goal.slot().and_then(|slot| self.state.alerts.get(slot).clone());
        job.phase = Phase::RolledBack {
            code: Code::TestFailed,
            alert,
        };
        self.state.announce = true;
        true
    }

    pub(super) fn connect_failed(&mut self, failure: Failure) {
        let Link::Connecting(via) = self.state.link else { return };
        self.state.link = Link::Down;
        match failure {
            // Not the credential's fault: stay with it.
            Failure::Unreachable => {}
            Failure::Refused(alert) => {
                if let Credential::Slot(slot) = via.credential {
                    *self.state.alerts.get_mut(slot) = alert;
                    self.state.refusals = self.state.refusals.saturating_add(1);
                }
                self.state.turn = self.state.turn.wrapping_add(1);
            }
            Failure::Untrusted => self.state.turn = self.state.turn.wrapping_add(1),
        }
        self.retry_later();
    }

    pub(super) fn disconnected(&mut self) {
        match self.state.link {
            Link::Down => return,
            // A broker that shuts the door after opening it is no reason to leave the slot, but one to wait.
            Link::Up(..) | Link::Connecting(_) => self.state.link = Link::Down,
        }
        self.quiet();
        self.retry_later();
    }

    pub(super) fn retry_later(&mut self) {
        // A trial is short: several attempts must fit.
        let cap = self
            .state
            .trial
            .then(|| self.job().map_or(60, |j| j.trial_timeout) / 6)
            .map(|s| s.max(1));
        let attempt = self.state.failures;
        self.state.failures = attempt.saturating_add(1);
        self.emit(Effect::StartTimer(Timer::Retry, Wait::Backoff { attempt, cap }));
    }

    /// The controller asked for a new connection, and the moment has come.
    pub(super) fn come_again(&mut self) {
        let Echo::Due(nonce) = self.state.echo else { return };
        match self.state.link {
            Link::Up(via, _) if via.trial => {
                self.emit(Effect::StartTimer(Timer::Reconnect, Wait::Exactly(10)));
            }
            Link::Up(..) => {
                self.state.echo = Echo::Ready(nonce);
                self.connect_active();
            }
            Link::Down | Link::Connecting(_) => self.state.echo = Echo::Ready(nonce),
        }
    }
}

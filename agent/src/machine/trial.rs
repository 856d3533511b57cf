//! The trial: connecting with what a job stored, and what becomes of it.

use certwave_protocol::code::Code;
use certwave_protocol::ids::Fingerprint;
use certwave_protocol::message::{Commit, Slot, Step};

use super::enrol::SLOWLY;
use super::{Effect, Link, Machine, Timer, TrustedBy, Wait};
use crate::journal::{Goal, Phase};

impl Machine<'_> {
    /// Starts the trial's time and connects with what is on trial.
    pub(super) fn begin_trial(&mut self) {
        let Some(via) = self.trial_via() else {
            return self.connect_active();
        };
        self.state.trial = true;
        self.state.turn = 0;
        self.state.failures = 0;
        self.start_trial_time();
        self.connect(via);
    }

    fn start_trial_time(&mut self) {
        let seconds = self.job().map_or(60, |j| j.trial_timeout);
        self.emit(Effect::StartTimer(Timer::Trial, Wait::Exactly(seconds)));
    }

    fn end_trial_time(&mut self) {
        self.state.trial = false;
        self.emit(Effect::StopTimer(Timer::Trial));
        self.emit(Effect::StopTimer(Timer::Repeat));
    }

    /// Connected with what is on trial.
    pub(super) fn trial_connected(&mut self) {
        if !std::mem::replace(&mut self.state.trial, true) {
            // Found open while the old way was shut: another chance for the commit.
            self.start_trial_time();
        }
        if let Some(job) = self.state.journal.job.as_mut()
            && matches!(job.phase, Phase::Stored | Phase::TrialOver)
        {
            job.phase = Phase::Tested;
            self.persist();
        }
        self.say_tested();
        self.start_repeat();
    }

    /// The trial's time is over without a commit.
    pub(super) fn trial_ended(&mut self) {
        if !std::mem::replace(&mut self.state.trial, false) {
            return;
        }
        self.emit(Effect::StopTimer(Timer::Trial));
        if self.state.journal.active.is_none() {
            // Nothing to go back to. Stay if connected; else ask for the same certificate again.
            if matches!(self.state.link, Link::Up(..)) {
                self.state.trial = true;
                self.start_trial_time();
            } else {
                self.ask_claim_again();
            }
            return;
        }
        if let Some(job) = self.state.journal.job.as_mut()
            && job.phase == Phase::Tested
        {
            job.phase = Phase::TrialOver;
            self.persist();
        }
        self.connect_active();
    }

    /// The controller does not know what is on trial. With an old credential to go back to, the trial's end is soon
    /// enough: to go at once would only come back at once. Without one the claim brings what the controller does know.
    pub(super) fn trial_denied(&mut self) {
        if self.state.journal.active.is_none() {
            self.end_trial_time();
            self.ask_claim_again();
        }
    }

    /// Before the first commit the claim is the only other way.
    fn ask_claim_again(&mut self) {
        self.hang_up();
        self.state.turn = 1;
        self.state.failures = self.state.failures.max(SLOWLY);
        self.retry_later();
    }

    pub(super) fn commit(&mut self, commit: &Commit, by: TrustedBy) {
        let Some(job) = self.job() else { return };
        let goal = job.goal;
        let phase = job.phase.clone();
        if let Goal::Trust { place, .. } = goal
            && !by.place(place)
        {
            return self.emit(Effect::Ignored(Code::UntrustedControl));
        }
        match phase {
            Phase::Tested | Phase::TrialOver => {
                if self.subject() != Some(commit.subject) {
                    return self.commit_impossible();
                }
                self.take_over(goal);
            }
            Phase::Committed if self.subject() != Some(commit.subject) => self.commit_impossible(),
            Phase::Committed => match goal.slot() {
                // Fell back to the old one meanwhile. The controller only goes forward: try once more.
                Some(slot) if self.state.journal.active != Some(slot) => self.take_over(goal),
                _ => self.repeat_end(),
            },
            Phase::RolledBack { .. } | Phase::Failed { .. } => self.repeat_end(),
            // Never tested: the controller cannot mean this.
            Phase::Accepted | Phase::Stored => self.emit(Effect::Ignored(Code::OutOfOrder)),
        }
    }

    /// Starts from the new one for good.
    fn take_over(&mut self, goal: Goal) {
        let journal = &mut self.state.journal;
        match goal {
            Goal::Trust { place, .. } => journal.trust = place,
            Goal::Rotate { slot, .. } | Goal::Enrol { slot } | Goal::Rollback { slot } => {
                journal.active = Some(slot);
                if let Some(held) = journal.slots.get_mut(slot) {
                    held.confirmed = true;
                }
                if matches!(goal, Goal::Enrol { .. }) {
                    journal.enrolment = None;
                }
            }
        }
        if let Some(job) = journal.job.as_mut() {
            job.phase = Phase::Committed;
        }
        self.persist();
        self.end_trial_time();
        self.state.announce = true;
        self.state.failures = 0;
        self.state.turn = 0;
        match self.state.link {
            Link::Up(mut via, session) if via.trial => {
                via.trial = false;
                self.state.link = Link::Up(via, session);
                self.say_end();
                self.say_hello();
                self.emit(Effect::StartTimer(Timer::Beat, Wait::About(self.config.beat)));
            }
            _ => self.connect_active(),
        }
    }

    fn commit_impossible(&mut self) {
        self.emit(Effect::Ignored(Code::CommitImpossible));
        self.say_status(Step::Failed, Some(Code::CommitImpossible));
    }

    /// In words, why the latest job went back with this code.
    pub(super) fn why_back(&self, code: Code) -> Option<String> {
        let job = self.job().filter(|_| code == Code::TestFailed)?;
        Some(format!("no connection within {} s", job.trial_timeout))
    }

    /// A rollback job: the slot that holds a confirmed certificate with this fingerprint.
    pub(super) fn slot_of(&self, leaf: Fingerprint) -> Option<Slot> {
        [Slot::A, Slot::B].into_iter().find(|s| {
            self.state
                .journal
                .held(*s)
                .is_some_and(|h| h.leaf == leaf && h.confirmed)
        })
    }
}

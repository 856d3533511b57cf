//! Jobs: taking them on, and the certificate or bundle that they bring.

use certwave_protocol::code::Code;
use certwave_protocol::ids::{Fingerprint, JobId, Nonce};
use certwave_protocol::message::{Certificate, Der, Job, Slot, Step, Task};

use super::{Credential, Effect, Link, Machine, Reference};
use crate::algorithm::Algorithm;
use crate::journal::{Goal, Held, JobEntry, Phase};

/// The shortest and longest trial, seconds, whatever a job says.
const TRIAL: std::ops::RangeInclusive<u32> = 2..=3600;

fn trial_time(seconds: u32) -> u32 {
    seconds.clamp(*TRIAL.start(), *TRIAL.end())
}

impl Machine<'_> {
    pub(super) fn take_job(&mut self, about: Reference, job: Job) {
        let (Some(id), Some(nonce), Some(epoch)) = (about.job, about.nonce, about.epoch) else {
            return self.emit(Effect::Ignored(Code::Malformed));
        };
        if let Some(latest) = self.job() {
            if id < latest.id {
                return self.emit(Effect::Ignored(Code::UnknownJob));
            }
            if id == latest.id {
                if self.within_job(about) {
                    self.same_job_again(job.task);
                }
                return;
            }
            if matches!(latest.phase, Phase::Stored | Phase::Tested) {
                return self.reject(about, Code::Busy, "a trial is running");
            }
        }
        let Some(active) = self.state.journal.active else {
            return self.emit(Effect::Ignored(Code::OutOfOrder));
        };
        let entry = JobEntry {
            id,
            nonce,
            epoch,
            // Set below; each kind of job knows its own.
            goal: Goal::Rollback { slot: active },
            phase: Phase::Accepted,
            csr: None,
            trial_timeout: trial_time(job.trial_timeout),
        };
        match job.task {
            Task::Rotate { .. } if !self.config.accepts_jobs => {
                self.reject(about, Code::Refused, "the device's owner does not let jobs run now");
            }
            Task::Rotate { algorithms } => match Algorithm::choose(&algorithms, &self.config.algorithms) {
                Some(algorithm) => self.take_rotate(entry, active.other(), algorithm),
                None => self.reject(
                    about,
                    Code::Unsupported,
                    "no key algorithm of the job's list is supported",
                ),
            },
            Task::Rollback { to } => self.take_rollback(entry, to),
            Task::Trust { anchors, bundle } => self.take_trust(entry, anchors, bundle),
            Task::Unknown => self.reject(about, Code::UnknownType, "unknown kind of job"),
        }
    }

    fn take_rotate(&mut self, entry: JobEntry, slot: Slot, algorithm: Algorithm) {
        let job = Some(entry.id);
        let journal = &mut self.state.journal;
        journal.job = Some(JobEntry {
            goal: Goal::Rotate { slot, algorithm },
            ..entry
        });
        // From here on the free slot holds nothing that counts, so that its files may be overwritten.
        *journal.slots.get_mut(slot) = None;
        journal.enrolment = None;
        self.persist();
        self.state.repeats = 0;
        *self.state.alerts.get_mut(slot) = None;
        self.say_status(Step::Accepted, None);
        self.emit(Effect::MakeKey { slot, algorithm, job });
    }

    fn take_rollback(&mut self, entry: JobEntry, to: Fingerprint) {
        let Some(slot) = self.slot_of(to) else {
            return self.reject(
                Reference::from(&entry),
                Code::RollbackImpossible,
                "no slot holds that certificate",
            );
        };
        self.state.journal.job = Some(JobEntry {
            goal: Goal::Rollback { slot },
            phase: Phase::Stored,
            ..entry
        });
        self.persist();
        self.say_status(Step::Accepted, None);
        self.begin_trial();
    }

    fn take_trust(&mut self, entry: JobEntry, anchors: Vec<Der>, bundle: Fingerprint) {
        if Fingerprint::of_bundle(&anchors) != bundle {
            return self.reject(
                Reference::from(&entry),
                Code::Malformed,
                "the anchors do not hash to the bundle",
            );
        }
        let journal = &mut self.state.journal;
        let place = journal.trust.other();
        let job = entry.id;
        journal.job = Some(JobEntry {
            goal: Goal::Trust { place, bundle },
            ..entry
        });
        *journal.bundles.get_mut(place) = None;
        self.persist();
        self.emit(Effect::StoreBundle { place, job, anchors });
    }

    pub(super) fn bundle_stored(&mut self, job: JobId, result: Result<(), Code>) {
        let journal = &mut self.state.journal;
        let Some(entry) = journal
            .job
            .as_mut()
            .filter(|j| j.id == job && j.phase == Phase::Accepted)
        else {
            return;
        };
        let Goal::Trust { place, bundle } = entry.goal else {
            return;
        };
        match result {
            Ok(()) => {
                entry.phase = Phase::Stored;
                *journal.bundles.get_mut(place) = Some(bundle);
                self.persist();
                self.say_status(Step::Accepted, None);
                self.begin_trial();
            }
            Err(code) => self.fail_job(code, true),
        }
    }

    /// The same job again gets the same answers.
    fn same_job_again(&mut self, task: Task) {
        let Some((phase, goal)) = self.job().map(|j| (j.phase.clone(), j.goal)) else {
            return;
        };
        let on_trial = matches!(self.state.link, Link::Up(via, _) if via.trial);
        match (phase, goal) {
            (Phase::Accepted, Goal::Trust { place, bundle }) => match task {
                // A power cut came before the anchors were stored.
                Task::Trust { anchors, bundle: again } if again == bundle => {
                    if let Some(job) = self.job().map(|j| j.id) {
                        self.emit(Effect::StoreBundle { place, job, anchors });
                    }
                }
                _ => self.emit(Effect::Ignored(Code::Malformed)),
            },
            (Phase::Accepted | Phase::Stored | Phase::Tested | Phase::TrialOver, _) if on_trial => self.say_tested(),
            (Phase::TrialOver, Goal::Rollback { .. } | Goal::Trust { .. }) => {
                self.say_status(Step::Accepted, None);
                self.begin_trial();
            }
            (Phase::Accepted | Phase::Stored | Phase::Tested | Phase::TrialOver, _) => {
                self.say_status(Step::Accepted, None);
                self.say_csr();
            }
            (Phase::Committed | Phase::RolledBack { .. } | Phase::Failed { .. }, _) => self.repeat_end(),
        }
    }

    pub(super) fn key_made(&mut self, job: Option<JobId>, csr: Der, nonce: Nonce) {
        let Some(id) = job else {
            return self.enrolment_key_made(csr, nonce);
        };
        let Some(entry) = self
            .state
            .journal
            .job
            .as_mut()
            .filter(|j| j.id == id && j.phase == Phase::Accepted)
        else {
            return;
        };
        entry.csr = Some(csr);
        self.persist();
        self.say_csr();
        self.start_repeat();
    }

    pub(super) fn key_failed(&mut self, job: Option<JobId>) {
        match job {
            Some(id) if self.job().is_some_and(|j| j.id == id && j.phase == Phase::Accepted) => {
                self.fail_job(Code::Storage, true);
            }
            Some(_) => {}
            None => self.retry_later(),
        }
    }

    /// Ends the job before any trial.
    pub(super) fn fail_job(&mut self, code: Code, tell: bool) {
        if let Some(job) = self.state.journal.job.as_mut() {
            job.phase = Phase::Failed { code };
            self.persist();
        }
        if tell {
            match self.state.link {
                Link::Up(via, _) if !via.trial => self.repeat_end(),
                _ => self.state.announce = true,
            }
        }
    }

    pub(super) fn certificate(&mut self, certificate: Certificate) {
        let Some(job) = self.state.journal.job.as_mut() else {
            return;
        };
        let (id, goal, phase) = (job.id, job.goal, job.phase.clone());
        let Some(slot) = goal.slot() else {
            return self.emit(Effect::Ignored(Code::OutOfOrder));
        };
        let known = |held: Option<&Held>| held.is_some_and(|h| h.leaf == Fingerprint::of(certificate.leaf.as_ref()));
        match phase {
            Phase::Accepted if job.csr.is_some() => {
                job.trial_timeout = trial_time(certificate.trial_timeout);
                let Certificate { leaf, chain, .. } = certificate;
                self.emit(Effect::StoreCertificate {
                    slot,
                    job: id,
                    leaf,
                    chain,
                });
            }
            Phase::Stored | Phase::Tested | Phase::TrialOver if known(self.state.journal.held(slot)) => {
                match self.state.link {
                    Link::Up(via, _) if via.trial => self.say_tested(),
                    _ => self.begin_trial(),
                }
            }
            Phase::Committed | Phase::RolledBack { .. } | Phase::Failed { .. } => self.repeat_end(),
            _ => self.emit(Effect::Ignored(Code::OutOfOrder)),
        }
    }

    pub(super) fn stored(&mut self, job: JobId, result: Result<Held, Code>) {
        let journal = &mut self.state.journal;
        let Some(entry) = journal
            .job
            .as_mut()
            .filter(|j| j.id == job && j.phase == Phase::Accepted)
        else {
            return;
        };
        let Some(slot) = entry.goal.slot() else { return };
        let enrolling = matches!(self.state.link, Link::Up(via, _) if via.credential == Credential::Claim);
        match result {
            Ok(held) => {
                entry.phase = Phase::Stored;
                *journal.slots.get_mut(slot) = Some(Held {
                    confirmed: false,
                    ..held
                });
                self.persist();
                self.begin_trial();
            }
            Err(code) if enrolling => {
                self.fail_job(code, false);
                self.enrol_later();
            }
            Err(code) => self.fail_job(code, true),
        }
    }
}

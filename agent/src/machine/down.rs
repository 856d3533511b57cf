//! Messages from the controller: which of them are for this device, this connection and this job.

use std::cmp::Ordering;

use certwave_protocol::VERSION;
use certwave_protocol::code::Code;
use certwave_protocol::ids::{Epoch, Nonce};
use certwave_protocol::message::{Body, Payload, Rejected, Type};

use super::{Credential, Echo, Effect, Link, Machine, Reference, Timer, TrustedBy, Wait};
use crate::journal::{Goal, Phase};

impl Machine<'_> {
    /// A message with a good signature. Whatever does not fit changes nothing.
    pub(super) fn down(&mut self, payload: Payload, by: TrustedBy) {
        if let Err(code) = self.admit(&payload, by) {
            self.emit(Effect::Ignored(code));
            if code == Code::WrongSession {
                self.answer_stranger();
            }
            return;
        }
        // The controller hears this device: the connection is a good one.
        self.state.failures = 0;
        let about = Reference {
            job: payload.job,
            nonce: payload.nonce,
            epoch: payload.epoch,
        };
        let claim = matches!(self.state.link, Link::Up(via, _) if via.credential == Credential::Claim);
        match payload.body {
            Body::Certificate(certificate) if claim => self.enrol_certificate(about, certificate),
            Body::Rejected(rejected) if claim => self.enrol_rejected(&rejected),
            Body::Job(job) if !claim => self.take_job(about, job),
            Body::Certificate(certificate) if !claim => {
                if self.within_job(about) {
                    self.certificate(certificate);
                }
            }
            Body::Commit(commit) if !claim => {
                if self.within_job(about) {
                    self.commit(&commit, by);
                }
            }
            Body::Rejected(rejected) => self.rejected(about, &rejected),
            Body::Reconnect(reconnect) if !claim => self.asked_to_reconnect(about.nonce, reconnect.within),
            _ => self.emit(Effect::Ignored(Code::UnknownType)),
        }
    }

    fn admit(&self, payload: &Payload, by: TrustedBy) -> Result<(), Code> {
        let Link::Up(via, session) = self.state.link else {
            return Err(Code::WrongSession);
        };
        if payload.v != VERSION {
            return Err(Code::UnsupportedVersion);
        }
        if payload.broker != self.config.broker {
            return Err(Code::WrongBroker);
        }
        if payload.device != self.config.device {
            return Err(Code::WrongDevice);
        }
        let trust = self.state.journal.trust;
        if !by.place(trust) && !by.place(via.trust) && !self.commits_trust(payload, by) {
            return Err(Code::UntrustedControl);
        }
        if payload.session != session {
            return Err(Code::WrongSession);
        }
        if payload.epoch.is_none() {
            return Err(Code::Malformed);
        }
        Ok(())
    }

    /// A commit of a trust job may come after the controller's own certificate has moved to the new bundle.
    fn commits_trust(&self, payload: &Payload, by: TrustedBy) -> bool {
        matches!(payload.body, Body::Commit(_))
            && self.job().is_some_and(|j| {
                Some(j.id) == payload.job && matches!(j.goal, Goal::Trust { place, .. } if by.place(place))
            })
    }

    /// Whether a message belongs to the latest job; takes over its epoch if that is newer.
    pub(super) fn within_job(&mut self, about: Reference) -> bool {
        let verdict = match (self.job(), about.epoch) {
            (Some(job), Some(epoch)) => match () {
                () if about.job != Some(job.id) => Err(Code::UnknownJob),
                () if about.nonce != Some(job.nonce) => Err(Code::WrongNonce),
                () => match epoch.cmp(&job.epoch) {
                    Ordering::Less => Err(Code::WrongEpoch),
                    Ordering::Equal => Ok(None),
                    Ordering::Greater => Ok(Some(epoch)),
                },
            },
            _ => Err(Code::UnknownJob),
        };
        match verdict {
            Ok(newer) => {
                if let Some(epoch) = newer {
                    self.raise_epoch(epoch);
                }
                true
            }
            Err(code) => {
                self.emit(Effect::Ignored(code));
                false
            }
        }
    }

    fn raise_epoch(&mut self, epoch: Epoch) {
        if let Some(job) = self.state.journal.job.as_mut() {
            job.epoch = epoch;
        }
        self.persist();
    }

    fn asked_to_reconnect(&mut self, nonce: Option<Nonce>, within: u32) {
        let Some(nonce) = nonce else {
            return self.emit(Effect::Ignored(Code::Malformed));
        };
        if matches!(self.state.echo, Echo::Due(due) if due == nonce) {
            return;
        }
        self.state.echo = Echo::Due(nonce);
        self.emit(Effect::StartTimer(Timer::Reconnect, Wait::Within(within.min(3600))));
    }

    /// The controller refused a message of ours.
    fn rejected(&mut self, about: Reference, rejected: &Rejected) {
        self.emit(Effect::Ignored(rejected.code));
        if rejected.code == Code::TryLater || about.job.is_none() || !self.within_job(about) {
            return;
        }
        let phase = self.job().map(|j| j.phase.clone());
        match (rejected.of, phase) {
            (Type::Csr, Some(Phase::Accepted)) => {
                // The job is over for the controller, or this request will never do.
                let ended = matches!(rejected.code, Code::UnknownJob | Code::OutOfOrder);
                self.fail_job(rejected.code, !ended);
            }
            (Type::Status, Some(Phase::Accepted)) if rejected.code == Code::UnknownJob => {
                self.fail_job(rejected.code, false);
            }
            // Not the end: a commit that is under way is still obeyed.
            (Type::Tested, Some(Phase::Tested)) if rejected.code != Code::OutOfOrder => self.trial_denied(),
            _ => {}
        }
    }
}

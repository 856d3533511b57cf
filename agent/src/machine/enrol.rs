//! Enrolment: from a claim to the first certificate of one's own.

use certwave_protocol::code::Code;
use certwave_protocol::ids::Nonce;
use certwave_protocol::message::{Certificate, Der, Rejected, Slot};

use super::{Effect, Link, Machine, Reference};
use crate::algorithm::Algorithm;
use crate::journal::{Enrolment, Goal, JobEntry, Phase};

/// Failed attempts that a refused enrolment counts as: it is tried again slowly.
pub(super) const SLOWLY: u8 = 4;

impl Machine<'_> {
    /// Whether there is a request to send; else has the key for it made.
    pub(super) fn enrolment_ready(&mut self) -> bool {
        if self.state.journal.enrolment.as_ref().is_some_and(|e| e.csr.is_some()) {
            return true;
        }
        let journal = &mut self.state.journal;
        let slot = journal.active.map_or(Slot::A, Slot::other);
        if journal.enrolment.is_none() {
            journal.enrolment = Some(Enrolment {
                slot,
                nonce: Nonce([0; 16]),
                csr: None,
            });
            *journal.slots.get_mut(slot) = None;
            if let Some(job) = journal
                .job
                .as_mut()
                .filter(|j| j.phase.is_undecided() && j.goal.slot() == Some(slot))
            {
                // Its certificate was refused many times, and its slot is needed.
                job.phase = Phase::RolledBack {
                    code: Code::TestFailed,
                    alert: None,
                };
            }
            self.persist();
        }
        let algorithm = self.config.algorithms.first().copied().unwrap_or(Algorithm::EcdsaP256);
        self.emit(Effect::MakeKey {
            slot,
            algorithm,
            job: None,
        });
        false
    }

    pub(super) fn enrolment_key_made(&mut self, csr: Der, nonce: Nonce) {
        let Some(enrolment) = self.state.journal.enrolment.as_mut().filter(|e| e.csr.is_none()) else {
            return;
        };
        enrolment.csr = Some(csr);
        enrolment.nonce = nonce;
        self.persist();
        if self.state.link == Link::Down {
            self.connect_next();
        }
    }

    /// The answer to `enrol`. It comes as part of a job, which ends like any other.
    pub(super) fn enrol_certificate(&mut self, about: Reference, certificate: Certificate) {
        let (Some(id), Some(nonce), Some(epoch)) = (about.job, about.nonce, about.epoch) else {
            return self.emit(Effect::Ignored(Code::Malformed));
        };
        let journal = &mut self.state.journal;
        let Some((slot, csr)) = journal.enrolment.as_ref().map(|e| (e.slot, e.csr.clone())) else {
            return self.emit(Effect::Ignored(Code::OutOfOrder));
        };
        if let Some(latest) = &journal.job {
            let same = latest.id == id && matches!(latest.goal, Goal::Enrol { .. });
            if id < latest.id || (latest.id == id && !same) {
                return self.emit(Effect::Ignored(Code::UnknownJob));
            }
            if same {
                if epoch < latest.epoch {
                    return self.emit(Effect::Ignored(Code::WrongEpoch));
                }
                if latest.phase.is_undecided() && self.within_job(about) {
                    return self.certificate(certificate);
                }
            }
        }
        let trial_timeout = certificate.trial_timeout.clamp(2, 3600);
        self.state.journal.job = Some(JobEntry {
            id,
            nonce,
            epoch,
            goal: Goal::Enrol { slot },
            phase: Phase::Accepted,
            csr,
            trial_timeout,
        });
        let Certificate { leaf, chain, .. } = certificate;
        self.emit(Effect::StoreCertificate {
            slot,
            job: id,
            leaf,
            chain,
        });
    }

    pub(super) fn enrol_rejected(&mut self, rejected: &Rejected) {
        self.emit(Effect::Ignored(rejected.code));
        match rejected.code {
            // The question will be repeated on this connection.
            Code::TryLater => return,
            // Another key may be taken where this one is not.
            Code::KeyReused | Code::CsrChanged | Code::CsrInvalid | Code::KeyWeak => {
                self.state.journal.enrolment = None;
                self.persist();
            }
            _ => {}
        }
        self.enrol_later();
    }

    pub(super) fn enrol_later(&mut self) {
        self.hang_up();
        self.state.turn = self.state.turn.wrapping_add(1);
        self.state.failures = self.state.failures.max(SLOWLY);
        self.retry_later();
    }
}

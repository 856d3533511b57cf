//! What a device remembers over a power cut: one small value, replaced as a whole.
//!
//! Keys, certificates and trust bundles lie in files of their own; the journal says which of them count. Nothing
//! that it names is ever overwritten before a journal that no longer names it is on the disk, so each step of a job
//! takes effect at one instant: when the new journal replaces the old one.

use certwave_protocol::code::Code;
use certwave_protocol::ids::{Epoch, Fingerprint, JobId, Nonce};
use certwave_protocol::message::{Der, JobView, Progress, Slot, Slots};
use serde::{Deserialize, Serialize};

use crate::algorithm::Algorithm;

/// One value for each of the two slots.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PerSlot<T> {
    /// For slot A.
    #[serde(rename = "A")]
    pub a: T,
    /// For slot B.
    #[serde(rename = "B")]
    pub b: T,
}

impl<T> PerSlot<T> {
    /// The value for `slot`.
    pub fn get(&self, slot: Slot) -> &T {
        match slot {
            Slot::A => &self.a,
            Slot::B => &self.b,
        }
    }

    /// The value for `slot`, to change it.
    pub fn get_mut(&mut self, slot: Slot) -> &mut T {
        match slot {
            Slot::A => &mut self.a,
            Slot::B => &mut self.b,
        }
    }
}

/// A certificate in a slot, beside its key.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Held {
    /// SHA-256 of the leaf.
    pub leaf: Fingerprint,
    /// The leaf's notBefore, Unix seconds.
    pub not_before: i64,
    /// The leaf's notAfter, Unix seconds.
    pub not_after: i64,
    /// Whether a commit made it a credential to start from, at any time.
    pub confirmed: bool,
}

/// A request for a first certificate that is under way.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Enrolment {
    /// Where the key is and the certificate will be.
    pub slot: Slot,
    /// The device's own nonce for it; the null nonce until the key is made.
    pub nonce: Nonce,
    /// The request; the same bytes are sent however often it takes.
    pub csr: Option<Der>,
}

/// What the latest job wants to reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Goal {
    /// A fresh key and a certificate for it in `slot`.
    Rotate {
        /// The free slot when the job was accepted.
        slot: Slot,
        /// The algorithm chosen from the job's list.
        algorithm: Algorithm,
    },
    /// A first certificate in `slot`.
    Enrol {
        /// The slot that enrolment made the key in.
        slot: Slot,
    },
    /// Back to the certificate in `slot`.
    Rollback {
        /// The slot to start from again.
        slot: Slot,
    },
    /// Trust the bundle in `place`.
    Trust {
        /// Which of the two places for bundles holds the new one.
        place: Slot,
        /// Its hash.
        bundle: Fingerprint,
    },
}

impl Goal {
    /// The slot that is to be the active one; `None` for a trust job.
    pub fn slot(self) -> Option<Slot> {
        match self {
            Self::Rotate { slot, .. } | Self::Enrol { slot } | Self::Rollback { slot } => Some(slot),
            Self::Trust { .. } => None,
        }
    }
}

/// How far the latest job is, as far as a power cut must not undo it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "kebab-case")]
pub enum Phase {
    /// Taken on; key, request and certificate are under way.
    Accepted,
    /// What is to be tried is stored; no connection with it has succeeded.
    Stored,
    /// Connected with it at least once, so `tested` may be known to the controller.
    Tested,
    /// The trial ended after `tested` without a commit; a commit is still obeyed.
    TrialOver,
    /// The device starts from it.
    Committed,
    /// Given up for good; no commit is obeyed any more.
    RolledBack {
        /// Why.
        code: Code,
        /// The TLS alert received, by its name in RFC 8446 6.
        #[serde(default)]
        alert: Option<String>,
    },
    /// Failed before any trial; nothing changed.
    Failed {
        /// Why.
        code: Code,
    },
}

impl Phase {
    /// Stored and still without a verdict: a connection with it is a trial.
    pub fn is_undecided(&self) -> bool {
        matches!(self, Self::Stored | Self::Tested | Self::TrialOver)
    }
}

/// The latest job that the device took on. It stays when it has ended, so that repeats get the same answers.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct JobEntry {
    /// `UUIDv7`; a lower one is an older job.
    pub id: JobId,
    /// The job's nonce.
    pub nonce: Nonce,
    /// The highest epoch seen within this job.
    pub epoch: Epoch,
    /// What it wants.
    pub goal: Goal,
    /// How far it is.
    pub phase: Phase,
    /// The request, once made; always the same bytes.
    pub csr: Option<Der>,
    /// How long a trial lasts, seconds.
    pub trial_timeout: u32,
}

/// The form of the journal that this version writes.
pub const JOURNAL_VERSION: u32 = 1;

/// The persisted part of a device's state.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Journal {
    /// [`JOURNAL_VERSION`].
    pub version: u32,
    /// The slot to start from; `None` before the first certificate is committed.
    pub active: Option<Slot>,
    /// The certificates that count.
    pub slots: PerSlot<Option<Held>>,
    /// Which of the two places for trust bundles is in force.
    pub trust: Slot,
    /// Hashes of the bundles in both places.
    pub bundles: PerSlot<Option<Fingerprint>>,
    /// The latest job.
    pub job: Option<JobEntry>,
    /// A first certificate that is being asked for.
    pub enrolment: Option<Enrolment>,
}

impl Journal {
    /// A device without any certificate that trusts the bundle in place A.
    pub fn new(bundle: Fingerprint) -> Self {
        Self {
            version: JOURNAL_VERSION,
            active: None,
            slots: PerSlot { a: None, b: None },
            trust: Slot::A,
            bundles: PerSlot {
                a: Some(bundle),
                b: None,
            },
            job: None,
            enrolment: None,
        }
    }

    /// The certificate in `slot`.
    pub fn held(&self, slot: Slot) -> Option<&Held> {
        self.slots.get(slot).as_ref()
    }

    /// Whether `slot` holds a certificate that was committed once.
    pub fn is_confirmed(&self, slot: Slot) -> bool {
        self.held(slot).is_some_and(|h| h.confirmed)
    }

    /// Hash of the trust bundle in force.
    pub fn bundle(&self) -> Fingerprint {
        self.bundles.get(self.trust).unwrap_or(Fingerprint([0; 32]))
    }

    /// The leaves in both slots, as `hello` tells them.
    pub fn leaves(&self) -> Slots {
        Slots {
            a: self.held(Slot::A).map(|h| h.leaf),
            b: self.held(Slot::B).map(|h| h.leaf),
        }
    }

    /// The time before which it cannot be, Unix seconds: the newest notBefore of a confirmed certificate. A clock that
    /// says less is wrong.
    pub fn clock_floor(&self) -> i64 {
        [Slot::A, Slot::B]
            .iter()
            .filter_map(|s| self.held(*s))
            .filter(|h| h.confirmed)
            .map(|h| h.not_before)
            .max()
            .unwrap_or(0)
    }

    /// The latest job as `hello` tells it; `on_trial` when its trial is running.
    pub fn view(&self, on_trial: bool) -> Option<JobView> {
        let job = self.job.as_ref()?;
        let progress = match &job.phase {
            Phase::Accepted => Progress::Accepted,
            Phase::Stored if on_trial => Progress::Trial,
            Phase::Stored => Progress::Stored,
            Phase::Tested => Progress::Trial,
            Phase::TrialOver => Progress::TrialOver,
            Phase::Committed => Progress::Committed,
            Phase::RolledBack { .. } => Progress::RolledBack,
            Phase::Failed { .. } => Progress::Failed,
        };
        Some(JobView { id: job.id, progress })
    }
}

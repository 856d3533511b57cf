//! Retiring the old certificate after a rotation (`retire: Revoke`), in two phases: on hold, and revoked for good only when the
//! device has come back while nothing but its new certificate could let it in.
//!
//! An honest device may have proven the new certificate over a connection that the old one had opened. So the proof is asked
//! for once more, when the old one opens nothing any more; and should it not come, the device is let in again.
//!
//! ```text
//! Waiting ──▶ Held ──▶ Asked ──▶ Revoked
//!    ▲         │         │
//!    └─────────┴─────────┤ a fault of ours: let go, and tried again later
//!                        └──▶ Released
//! ```

mod step;

use certwave_protocol::ids::{Fingerprint, JobId, Nonce};

use crate::model::{Device, Identity, Job, JobKind, JobState, Millis};

pub use step::{Act, Admission, Decision, Event, Heard, MAX_ATTEMPTS, PAUSE, Policy, Seen, Speaker, step};

/// How far a retirement is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Phase {
    /// The device may still be sent back to its old certificate (`grace`), or has to wait for its turn.
    Waiting,
    /// The old certificate is on hold; not every node of the broker has loaded that.
    Held,
    /// The device was asked to come again, with a nonce.
    Asked,
    /// It came back with its new key: the old certificate is revoked as superseded. Ends the retirement.
    Revoked,
    /// It did not come back in time, or something else came between: the hold is released. Ends the retirement.
    Released,
}

impl Phase {
    /// Every phase, in their order.
    pub const ALL: [Self; 5] = [Self::Waiting, Self::Held, Self::Asked, Self::Revoked, Self::Released];

    /// Nothing follows.
    pub const fn ended(self) -> bool {
        matches!(self, Self::Revoked | Self::Released)
    }

    /// The old certificate is on hold for it.
    pub const fn holds(self) -> bool {
        matches!(self, Self::Held | Self::Asked)
    }

    /// Its name, in the ledger and in metric labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "Waiting",
            Self::Held => "Held",
            Self::Asked => "Asked",
            Self::Revoked => "Revoked",
            Self::Released => "Released",
        }
    }
}

/// Why the old certificate was let go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Why {
    /// The device was asked, could have been heard, and did not come back by its new certificate within the probation time.
    NoHello,
    /// The device speaks with its old key.
    WentBack,
    /// A node of the broker did not load the hold in time, again and again.
    NotLoaded,
    /// The device could not have been heard, by a fault of ours, again and again.
    NotHeard,
    /// Another job, or another enrolment, came between.
    Overtaken,
    /// A person has put the device on hold or revoked it.
    Barred,
    /// The device is not declared any more.
    Withdrawn,
    /// The old certificate has ended, or a person has revoked it.
    Ended,
}

impl Why {
    /// Every cause.
    pub const ALL: [Self; 8] = [
        Self::NoHello,
        Self::WentBack,
        Self::NotLoaded,
        Self::NotHeard,
        Self::Overtaken,
        Self::Barred,
        Self::Withdrawn,
        Self::Ended,
    ];

    /// Its name, in the ledger, the audit and metric labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoHello => "no-hello",
            Self::WentBack => "went-back",
            Self::NotLoaded => "not-loaded",
            Self::NotHeard => "not-heard",
            Self::Overtaken => "overtaken",
            Self::Barred => "barred",
            Self::Withdrawn => "withdrawn",
            Self::Ended => "ended",
        }
    }

    /// Whether it is a failure of the device, which its wave has to hear of. Faults of ours and what people do are not.
    pub const fn counts(self) -> bool {
        matches!(self, Self::NoHello | Self::WentBack)
    }
}

/// One retirement: of the certificate that a job replaced. Begun in the transaction that confirms the job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retirement {
    /// The job that replaced it.
    pub job: JobId,
    /// The device.
    pub identity: Identity,
    /// The Rotation (object uid) that the job belongs to.
    pub rotation: Option<String>,
    /// The certificate to be retired.
    pub old: Fingerprint,
    /// The one that replaced it.
    pub new: Fingerprint,
    /// How far it is.
    pub phase: Phase,
    /// Since when.
    pub since: Millis,
    /// When somebody must look at it again; ended ones have none.
    pub wake: Option<Millis>,
    /// In the `reconnect` that the device got, and in the `hello` that is awaited.
    pub nonce: Option<Nonce>,
    /// How often the hold was let go by a fault of ours.
    pub attempt: u32,
    /// Why it was released.
    pub why: Option<Why>,
}

impl Retirement {
    /// The retirement that begins with the step from `before` to `after`, if it confirms a job that has replaced a certificate.
    /// `grace`: for how long the device may be sent back; one that was sent back is not sent forward again.
    pub fn of(now: Millis, before: &Device, after: &Device, grace: Millis) -> Option<Self> {
        let confirmed = |job: &&Job| job.state == JobState::Confirmed;
        let job = after.job.as_ref().filter(confirmed)?;
        if before.job.as_ref().filter(confirmed).is_some_and(|b| b.id == job.id) {
            return None;
        }
        let grace = match job.kind {
            JobKind::Rotate => grace,
            JobKind::Rollback => 0,
            // After an enrolment nobody knows what became of the key before: a person revokes it.
            JobKind::Enrol | JobKind::Trust(_) => return None,
        };
        let (old, new) = (after.previous.as_ref()?, after.current.as_ref()?);
        (old.not_after.saturating_mul(1000) > now).then(|| Self {
            job: job.id,
            identity: after.id.clone(),
            rotation: job.rotation.clone(),
            old: old.fingerprint,
            new: new.fingerprint,
            phase: Phase::Waiting,
            since: now,
            wake: Some(now.saturating_add(grace)),
            nonce: None,
            attempt: 0,
            why: None,
        })
    }
}

/// The certificate that this step shows to be of no use: the device got it in this job and has gone back from it, by its own
/// signed word, and obeys no later commit of the job. Any other certificate that was not proven ends by itself, as nobody can
/// say that the device does not start from it.
pub fn refused(before: &Device, after: &Device) -> Option<Fingerprint> {
    let job = after.job.as_ref()?;
    let same = before
        .job
        .as_ref()
        .is_some_and(|b| b.id == job.id && b.state == JobState::RolledBack);
    let here = job.kind == JobKind::Rotate && job.state == JobState::RolledBack && !same;
    let pending = after.pending.as_ref().filter(|_| here)?;
    (job.csr_key == Some(pending.spki)).then_some(pending.fingerprint)
}

/// Whether the device is at work on a job, or may come back to one: a way back that was committed and has timed out is still
/// obeyed and confirmed when the device is heard again, so the certificate that it leads to must not go.
pub fn working(device: &Device) -> bool {
    device.job.as_ref().is_some_and(|job| match job.state {
        JobState::Accepted | JobState::Issued | JobState::Committing => true,
        JobState::TimedOut | JobState::Lost => job.committed && job.kind == JobKind::Rollback,
        _ => false,
    })
}

/// A Rotation's retirements, counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RetirementCounts {
    /// [`Phase::Waiting`].
    pub waiting: u32,
    /// [`Phase::Held`].
    pub held: u32,
    /// [`Phase::Asked`].
    pub asked: u32,
    /// [`Phase::Revoked`].
    pub revoked: u32,
    /// [`Phase::Released`].
    pub released: u32,
}

impl RetirementCounts {
    /// Those that have not ended.
    pub const fn open(&self) -> u32 {
        self.waiting + self.held + self.asked
    }
}

//! What the ledger knows of a device. Times are Unix milliseconds unless a name says otherwise.

use std::collections::BTreeMap;

use certwave_protocol::code::Code;
use certwave_protocol::ids::{BrokerId, ClaimName, DeviceId, Epoch, Fingerprint, JobId, Nonce, SessionId};
use certwave_protocol::message::Subject;
use serde::{Deserialize, Serialize};

use crate::revocation::Bar;

/// Unix milliseconds.
pub type Millis = i64;

/// (broker id, deviceId): unique in the ledger, whoever claims it first.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity {
    /// The broker.
    pub broker: BrokerId,
    /// The device below it.
    pub device: DeviceId,
}

/// A Kubernetes object by name; `core` only compares it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ObjectRef {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// Where a device stands, for counting and for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum DeviceState {
    /// Declared, no certificate confirmed yet.
    Declared,
    /// A first certificate is issued and awaits its proof.
    Enrolling,
    /// Holds a confirmed certificate; no job.
    Active,
    /// A job is under way.
    Rotating,
    /// Its last job did not succeed; the old certificate is still good.
    Failed,
    /// Its current certificate has expired.
    Expired,
}

/// What the ledger keeps of a certificate on a device. The DER stands in the certificates' table.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Credential {
    /// SHA-256 of the leaf.
    pub fingerprint: Fingerprint,
    /// SHA-256 of the subject public key info.
    pub spki: Fingerprint,
    /// Serial number, lower-case hexadecimal.
    pub serial: String,
    /// The issuer's key id, lower-case hexadecimal.
    pub issuer: String,
    /// Start of validity, Unix seconds.
    pub not_before: i64,
    /// End of validity, Unix seconds.
    pub not_after: i64,
    /// Public key (subject public key info, DER): verifies the device's messages.
    pub public_key: Vec<u8>,
}

/// A device's identity and credentials, with the job that concerns it last.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Device {
    /// Its identity.
    pub id: Identity,
    /// The `DeviceCertificate` that declares it.
    pub object: ObjectRef,
    /// The fleet's name, in the object's namespace.
    pub fleet: String,
    /// Labels of the declaration (site, model, ring): the certificate template and selectors use them.
    pub labels: BTreeMap<String, String>,
    /// The certificate that the device starts from, as proven.
    pub current: Option<Credential>,
    /// The one before, until it expires.
    pub previous: Option<Credential>,
    /// Issued, not yet proven.
    pub pending: Option<Credential>,
    /// Hash of the trust bundle the device last confirmed or said hello with.
    pub bundle: Option<Fingerprint>,
    /// The connection last heard of in a signed message.
    pub session: Option<SessionId>,
    /// When a signed message was last heard.
    pub last_seen: Option<Millis>,
    /// A one-time permit that a person gave and that has not been used.
    pub reenrol: Option<String>,
    /// The last permit that was used up.
    pub reenrol_used: Option<String>,
    /// Why it gets no certificate, if a person has said so.
    pub bar: Option<Bar>,
    /// The latest job, ended or not.
    pub job: Option<Job>,
    /// No new attempt before this time.
    pub not_before: Option<Millis>,
    /// Rises with each write; a write names the one it read.
    pub revision: u64,
}

impl Device {
    /// A device as first declared.
    pub fn declared(id: Identity, object: ObjectRef, fleet: String) -> Self {
        Self {
            id,
            object,
            fleet,
            labels: BTreeMap::new(),
            current: None,
            previous: None,
            pending: None,
            bundle: None,
            session: None,
            last_seen: None,
            reenrol: None,
            reenrol_used: None,
            bar: None,
            job: None,
            not_before: None,
            revision: 0,
        }
    }

    /// Enrolled means: a certificate was confirmed.
    pub fn enrolled(&self) -> bool {
        self.current.is_some()
    }

    /// The job, if it has not ended.
    pub fn open_job(&self) -> Option<&Job> {
        self.job.as_ref().filter(|j| !j.state.ended())
    }

    /// The state for people at `now`.
    pub fn state(&self, now: Millis) -> DeviceState {
        let open = self.open_job();
        match (&self.current, open) {
            (None, Some(j)) if j.kind == JobKind::Enrol => DeviceState::Enrolling,
            (None, _) => DeviceState::Declared,
            (Some(c), _) if c.not_after.saturating_mul(1000) <= now => DeviceState::Expired,
            (Some(_), Some(j)) if j.state.in_flight() => DeviceState::Rotating,
            (Some(_), _) if self.job.as_ref().is_some_and(|j| j.state.went_wrong()) => DeviceState::Failed,
            _ => DeviceState::Active,
        }
    }
}

/// What a job is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum JobKind {
    /// A first certificate by this job's claim.
    Enrol,
    /// A fresh key and a new certificate.
    Rotate,
    /// Back to the previous certificate.
    Rollback,
    /// New trust anchors, whose hash is this.
    Trust(Fingerprint),
}

/// A job's state; [`crate::job::TABLE`] tells deadlines and next states.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum JobState {
    /// In the ledger; the device has not been asked, or has not answered: waits, holds no slot.
    Queued,
    /// Sent, not yet accepted.
    Sent,
    /// Accepted; the request is awaited.
    Accepted,
    /// The certificate is issued (rotate, enrol) or the trial is awaited (rollback, trust).
    Issued,
    /// `tested` seen; commit is sent; only forward from here.
    Committing,
    /// Proven. Ends the job.
    Confirmed,
    /// The device refused the job. Ends the job.
    Rejected,
    /// It failed. Ends the job.
    Failed,
    /// A deadline passed. Ends the job, but a late proof still confirms what was committed.
    TimedOut,
    /// The device went back, by its signed word. Ends the job.
    RolledBack,
    /// A person or a change of plan ended it before it was sent. Ends the job.
    Cancelled,
    /// Timed out and silent ever since. Ends the job, but a late proof still confirms what was committed.
    Lost,
}

/// One job of one device.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Job {
    /// `UUIDv7`, in the ledger before the first send.
    pub id: JobId,
    /// What it is for.
    pub kind: JobKind,
    /// The Rotation it belongs to (object uid), if any.
    pub rotation: Option<String>,
    /// The claim it enrols by.
    pub claim: Option<ClaimName>,
    /// Its state.
    pub state: JobState,
    /// 1 for the first attempt.
    pub attempt: u32,
    /// Random; in every message of the job.
    pub nonce: Nonce,
    /// The epoch in which it was made; no message of the job may bear an older one.
    pub epoch: Epoch,
    /// When it was made.
    pub created: Millis,
    /// When its state last changed, or was given its time again for a fault of ours.
    pub since: Millis,
    /// When the present state times out; `None` where it waits for good.
    pub deadline: Option<Millis>,
    /// When the job as a whole times out, from acceptance on.
    pub job_deadline: Option<Millis>,
    /// SHA-256 of the request's public key; another one fails the job (`csr-changed`).
    pub csr_key: Option<Fingerprint>,
    /// What a trial must prove and a commit makes permanent.
    pub subject: Option<Subject>,
    /// True from the moment that commit may have been sent.
    pub committed: bool,
    /// Why it ended.
    pub code: Option<Code>,
    /// For people.
    pub detail: Option<String>,
}

impl JobState {
    /// True for states that nothing leaves by itself.
    pub fn ended(self) -> bool {
        !matches!(
            self,
            Self::Queued | Self::Sent | Self::Accepted | Self::Issued | Self::Committing
        )
    }

    /// True while the device works on the job.
    pub fn in_flight(self) -> bool {
        matches!(self, Self::Sent | Self::Accepted | Self::Issued | Self::Committing)
    }

    /// True for ends other than success and cancellation.
    pub fn went_wrong(self) -> bool {
        matches!(
            self,
            Self::Rejected | Self::Failed | Self::TimedOut | Self::RolledBack | Self::Lost
        )
    }

    /// The state's name, as in status and metric labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "Queued",
            Self::Sent => "Sent",
            Self::Accepted => "Accepted",
            Self::Issued => "Issued",
            Self::Committing => "Committing",
            Self::Confirmed => "Confirmed",
            Self::Rejected => "Rejected",
            Self::Failed => "Failed",
            Self::TimedOut => "TimedOut",
            Self::RolledBack => "RolledBack",
            Self::Cancelled => "Cancelled",
            Self::Lost => "Lost",
        }
    }
}

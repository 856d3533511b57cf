//! The messages of version 1. Unknown fields are ignored; a field's absence is `None`.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::code::Code;
use crate::ids::{BrokerId, DeviceId, Epoch, Fingerprint, JobId, Nonce, SessionId, pattern_schema};

/// What a message says; the last level of its topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Type {
    /// Birth and last will; unsigned and retained.
    Online,
    /// After each connect and on a beat.
    Hello,
    /// A claim asks for a first certificate.
    Enrol,
    /// PKCS#10 for a fresh key.
    Csr,
    /// Proof: connected with the new credential.
    Tested,
    /// Progress and end of a job, as the device sees it.
    Status,
    /// What is to be done.
    Job,
    /// Leaf and chain.
    Certificate,
    /// The new slot is the one to start from.
    Commit,
    /// Come again, with this nonce.
    Reconnect,
    /// A message of the device was refused.
    Rejected,
}

impl Type {
    /// Every type, in the order of the specification.
    pub const ALL: [Self; 11] = [
        Self::Online,
        Self::Hello,
        Self::Enrol,
        Self::Csr,
        Self::Tested,
        Self::Status,
        Self::Job,
        Self::Certificate,
        Self::Commit,
        Self::Reconnect,
        Self::Rejected,
    ];

    /// The type as it stands in topics and payloads.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Online => "online",
            Self::Hello => "hello",
            Self::Enrol => "enrol",
            Self::Csr => "csr",
            Self::Tested => "tested",
            Self::Status => "status",
            Self::Job => "job",
            Self::Certificate => "certificate",
            Self::Commit => "commit",
            Self::Reconnect => "reconnect",
            Self::Rejected => "rejected",
        }
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
impl FromStr for Type {
    type Err = Code;
    fn from_str(s: &str) -> Result<Self, Code> {
        Self::ALL.into_iter().find(|t| t.as_str() == s).ok_or(Code::UnknownType)
    }
}

/// DER bytes; standard base64 with padding in JSON (RFC 4648 4).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Der(pub Vec<u8>);

pattern_schema!(Der, "^[A-Za-z0-9+/]+={0,2}$");

impl TryFrom<String> for Der {
    type Error = base64::DecodeError;
    fn try_from(s: String) -> Result<Self, Self::Error> {
        STANDARD.decode(s).map(Self)
    }
}
impl From<Der> for String {
    fn from(v: Der) -> String {
        STANDARD.encode(v.0)
    }
}
impl AsRef<[u8]> for Der {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}
impl fmt::Debug for Der {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Der({} bytes)", self.0.len())
    }
}

/// One of a device's two places for a credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum Slot {
    /// Slot A.
    A,
    /// Slot B.
    B,
}

impl Slot {
    /// The other slot.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

/// `online`, unsigned and retained: a hint, nothing more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Online {
    /// Protocol version.
    pub v: u32,
    /// True in the birth, false in the last will.
    pub online: bool,
    /// The connection that this is about; a late will ends only its own.
    pub session: SessionId,
}

/// How far a device is with a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Progress {
    /// Accepted; a key is being made or the request is under way.
    Accepted,
    /// The new credential or bundle is stored, not yet on trial.
    Stored,
    /// Connected, or connecting, with it on trial.
    Trial,
    /// The trial ended without a commit; the old one is active, the new one kept.
    TrialOver,
    /// Committed: the new one is active and off trial.
    Committed,
    /// Given up; the device stays on its old credential.
    RolledBack,
    /// Failed before any trial.
    Failed,
}

/// The device's own view of its latest job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct JobView {
    /// The job's id.
    pub id: JobId,
    /// How far it is.
    pub progress: Progress,
}

/// Fingerprints of the leaves in both slots.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Slots {
    /// Leaf in slot A.
    #[serde(rename = "A", default, skip_serializing_if = "Option::is_none")]
    pub a: Option<Fingerprint>,
    /// Leaf in slot B.
    #[serde(rename = "B", default, skip_serializing_if = "Option::is_none")]
    pub b: Option<Fingerprint>,
}

impl Slots {
    /// The leaf in `slot`.
    pub fn get(&self, slot: Slot) -> Option<Fingerprint> {
        match slot {
            Slot::A => self.a,
            Slot::B => self.b,
        }
    }
}

/// `hello`: where the device stands. Signed by the key of the active slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Hello {
    /// Name and version of the agent, at most 64 characters.
    #[schemars(length(max = 64))]
    pub agent: String,
    /// The slot that the device starts from. While on trial this is still the old one.
    pub active: Slot,
    /// The leaves in both slots.
    pub slots: Slots,
    /// The latest job, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobView>,
    /// The device's clock, Unix seconds; may be years off.
    pub clock: i64,
    /// Hash of the trust bundle (SHA-256 over the sorted fingerprints of its anchors).
    pub bundle: Fingerprint,
    /// Echo of the latest `reconnect`'s nonce, once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reconnect: Option<Nonce>,
    /// The TLS alert that last refused the other slot, by its name in RFC 8446 6.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub alert: Option<String>,
}

/// `enrol`: a device with a claim asks for its first certificate. Signed by the claim's key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Enrol {
    /// PKCS#10 (RFC 2986) with the device's own key.
    pub csr: Der,
}

/// `csr`: a request for a fresh key. Signed by the current key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Csr {
    /// PKCS#10 (RFC 2986).
    pub csr: Der,
}

/// What a trial proved or a commit makes permanent: exactly one of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Subject {
    /// The leaf with this fingerprint (rotate, rollback, enrolment).
    Certificate(Fingerprint),
    /// The trust bundle with this hash (trust).
    Bundle(Fingerprint),
}

/// `tested`: sent while connected with what is on trial. Signed by the key on trial.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Tested {
    /// What was tested.
    pub subject: Subject,
}

/// `commit`: start from it for good. Signed by the control key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Commit {
    /// What is committed.
    pub subject: Subject,
}

/// A step that a device reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// The job is taken on.
    Accepted,
    /// The job is not taken on; nothing changed.
    Rejected,
    /// The job failed before its trial; nothing changed.
    Failed,
    /// The device starts from the new one from now on.
    Committed,
    /// The device is back for good: it will not obey a commit of this job any more.
    RolledBack,
}

/// `status`: signed by the current key, `committed` by the new one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Status {
    /// The step.
    pub step: Step,
    /// Why, for `rejected`, `failed` and `rolled-back`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<Code>,
    /// For people, at most 256 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub detail: Option<String>,
    /// The TLS alert received, by its name in RFC 8446 6.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub alert: Option<String>,
}

/// What a job asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Task {
    /// Make a fresh key and take a new certificate for it.
    Rotate {
        /// Key algorithms to choose from, the first the preferred one: 1 to 8 of `ECDSA-P256`, `ECDSA-P384`, `Ed25519`,
        /// `RSA-2048`, `RSA-3072` and `RSA-4096`. A device passes over names that it does not know.
        #[schemars(length(min = 1, max = 8), inner(length(min = 1, max = 32)))]
        algorithms: Vec<String>,
    },
    /// Go back to a certificate that one of the slots still holds.
    Rollback {
        /// Its fingerprint.
        to: Fingerprint,
    },
    /// Take over these trust anchors in place of the present ones.
    Trust {
        /// Anchors: 1 to 16 certificates, DER.
        #[schemars(length(min = 1, max = 16))]
        anchors: Vec<Der>,
        /// Their hash (SHA-256 over the sorted fingerprints of its anchors).
        bundle: Fingerprint,
    },
    /// A kind of a later version; a device rejects such a job with [`Code::UnknownType`]. Never sent.
    #[serde(other)]
    #[schemars(skip)]
    Unknown,
}

/// `job`: durations only, never times, as devices' clocks are wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Job {
    /// What is to be done.
    #[serde(flatten)]
    pub task: Task,
    /// 1 for the first attempt.
    pub attempt: u32,
    /// How long the device may take for its next step, seconds.
    pub step_timeout: u32,
    /// How long a trial lasts at most, seconds.
    pub trial_timeout: u32,
}

/// `certificate`: answers `csr` and `enrol`; the same request always gets the same answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Certificate {
    /// The leaf.
    pub leaf: Der,
    /// Intermediates towards the root, the issuer first, without the root; at most 5.
    #[schemars(length(max = 5))]
    pub chain: Vec<Der>,
    /// How long the trial lasts at most, seconds.
    pub trial_timeout: u32,
}

/// `reconnect`: come again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Reconnect {
    /// Within how many seconds; the device picks a moment at random.
    pub within: u32,
}

/// `rejected`: a message of the device was refused and changed nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Rejected {
    /// The type of the refused message.
    pub of: Type,
    /// Why.
    pub code: Code,
    /// For people, at most 256 characters.
    #[schemars(length(max = 256))]
    pub message: String,
    /// The job's state in the ledger, if the message belonged to one; at most 32 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub job_state: Option<String>,
}

/// A message's type and body together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "body", rename_all = "kebab-case")]
pub enum Body {
    /// See [`Hello`].
    Hello(Hello),
    /// See [`Enrol`].
    Enrol(Enrol),
    /// See [`Csr`].
    Csr(Csr),
    /// See [`Tested`].
    Tested(Tested),
    /// See [`Status`].
    Status(Status),
    /// See [`Job`].
    Job(Job),
    /// See [`Certificate`].
    Certificate(Certificate),
    /// See [`Commit`].
    Commit(Commit),
    /// See [`Reconnect`].
    Reconnect(Reconnect),
    /// See [`Rejected`].
    Rejected(Rejected),
}

impl Body {
    /// The body's type.
    pub fn kind(&self) -> Type {
        match self {
            Self::Hello(_) => Type::Hello,
            Self::Enrol(_) => Type::Enrol,
            Self::Csr(_) => Type::Csr,
            Self::Tested(_) => Type::Tested,
            Self::Status(_) => Type::Status,
            Self::Job(_) => Type::Job,
            Self::Certificate(_) => Type::Certificate,
            Self::Commit(_) => Type::Commit,
            Self::Reconnect(_) => Type::Reconnect,
            Self::Rejected(_) => Type::Rejected,
        }
    }
}

/// What an envelope's signature covers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Payload {
    /// Protocol version, 1.
    pub v: u32,
    /// The broker's id.
    pub broker: BrokerId,
    /// The device that speaks or is spoken to.
    pub device: DeviceId,
    /// The device's connection: up the present one, down the one that the controller last heard a signed message from.
    pub session: SessionId,
    /// The job; absent outside of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobId>,
    /// The job's nonce; in `reconnect` its own, in `enrol` the device's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nonce: Option<Nonce>,
    /// Down: the controller's epoch. Up within a job: the highest epoch seen in this job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<Epoch>,
    /// Type and body.
    #[serde(flatten)]
    pub body: Body,
}

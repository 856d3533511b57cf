//! The closed list of codes that either side gives for a refusal or failure.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Why something was refused or failed. A code that this version does not know reads as `other`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Code {
    // Envelope.
    /// Not JSON, not a JWS, or a field is missing or of the wrong type.
    Malformed,
    /// Larger than 32768 bytes.
    TooLarge,
    /// A protocol version that this side does not speak.
    UnsupportedVersion,
    /// A message type or job kind that this side does not know.
    UnknownType,
    /// The signature does not verify.
    BadSignature,
    /// The JWS algorithm is not the one that belongs to the key.
    BadAlgorithm,
    /// The signing key is not one that may sign this message for this device now.
    WrongKey,
    /// The control certificate is not trusted: chain, extended key usage, broker or validity.
    UntrustedControl,
    /// The message is for another device, or came on another's topic.
    WrongDevice,
    /// The message is for another broker.
    WrongBroker,
    /// The message belongs to another connection than the present one.
    WrongSession,
    /// The job's nonce, or a reconnect's, is not the expected one.
    WrongNonce,
    /// The epoch is older than one already seen, or newer than any ever taken.
    WrongEpoch,
    // Jobs.
    /// Not the device's present job, or one that has ended.
    UnknownJob,
    /// Not possible in the job's present state.
    OutOfOrder,
    /// Another job is under way on this device.
    Busy,
    /// The device's owner or policy refuses this job now.
    Refused,
    /// The job asks for what this device cannot do (key algorithm, slot, kind).
    Unsupported,
    // Certificate signing requests.
    /// Not a PKCS#10 request.
    CsrInvalid,
    /// The request is not signed by the key that it carries.
    CsrSignature,
    /// The request names another device.
    CsrSubject,
    /// The key is too weak.
    KeyWeak,
    /// The key's algorithm is not allowed for this fleet.
    KeyAlgorithm,
    /// The key has been used before, by this or another device.
    KeyReused,
    /// Another request than the first for the same job.
    CsrChanged,
    // The device's side of a job.
    /// The device could not make or keep a key or certificate.
    Storage,
    /// The certificate sent is not for the device's key, name or time.
    CertificateInvalid,
    /// The broker refused the new certificate, or could not be reached with it, while the old one works.
    TestFailed,
    /// The trial ended without a commit.
    TrialExpired,
    /// The commit is for a certificate that this device no longer has.
    CommitImpossible,
    /// The slot to go back to holds no usable certificate.
    RollbackImpossible,
    // Enrolment.
    /// The claim is not known, suspended, used up or past its end.
    ClaimRefused,
    /// No such device is declared in the claim's fleet.
    NotDeclared,
    /// The device is enrolled already and has no `reenrol` permit.
    AlreadyEnrolled,
    /// A person has revoked the device or put it on hold.
    Revoked,
    // The controller's side.
    /// The controller cannot answer now (CA, ledger or broker); ask again later.
    TryLater,
    /// A step or the job took longer than it may.
    TimedOut,
    /// The device has not been heard of since its job timed out.
    Lost,
    /// A person or a change of plan ended the job.
    Cancelled,
    /// Anything else, and codes of later versions.
    #[serde(other)]
    Other,
}

impl Code {
    /// The code as it stands in messages, statuses and metric labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::TooLarge => "too-large",
            Self::UnsupportedVersion => "unsupported-version",
            Self::UnknownType => "unknown-type",
            Self::BadSignature => "bad-signature",
            Self::BadAlgorithm => "bad-algorithm",
            Self::WrongKey => "wrong-key",
            Self::UntrustedControl => "untrusted-control",
            Self::WrongDevice => "wrong-device",
            Self::WrongBroker => "wrong-broker",
            Self::WrongSession => "wrong-session",
            Self::WrongNonce => "wrong-nonce",
            Self::WrongEpoch => "wrong-epoch",
            Self::UnknownJob => "unknown-job",
            Self::OutOfOrder => "out-of-order",
            Self::Busy => "busy",
            Self::Refused => "refused",
            Self::Unsupported => "unsupported",
            Self::CsrInvalid => "csr-invalid",
            Self::CsrSignature => "csr-signature",
            Self::CsrSubject => "csr-subject",
            Self::KeyWeak => "key-weak",
            Self::KeyAlgorithm => "key-algorithm",
            Self::KeyReused => "key-reused",
            Self::CsrChanged => "csr-changed",
            Self::Storage => "storage",
            Self::CertificateInvalid => "certificate-invalid",
            Self::TestFailed => "test-failed",
            Self::TrialExpired => "trial-expired",
            Self::CommitImpossible => "commit-impossible",
            Self::RollbackImpossible => "rollback-impossible",
            Self::ClaimRefused => "claim-refused",
            Self::NotDeclared => "not-declared",
            Self::AlreadyEnrolled => "already-enrolled",
            Self::Revoked => "revoked",
            Self::TryLater => "try-later",
            Self::TimedOut => "timed-out",
            Self::Lost => "lost",
            Self::Cancelled => "cancelled",
            Self::Other => "other",
        }
    }
}

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
impl std::str::FromStr for Code {
    type Err = std::convert::Infallible;
    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let de = serde::de::value::StrDeserializer::<serde::de::value::Error>::new(s);
        Ok(Self::deserialize(de).unwrap_or(Self::Other))
    }
}

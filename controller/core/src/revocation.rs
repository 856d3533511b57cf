//! What may become of a certificate before its end: put on hold, released, revoked for good.

use certwave_protocol::ids::JobId;
use serde::{Deserialize, Serialize};

/// Why a certificate is revoked (RFC 5280, 5.3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Reason {
    /// No reason is given; nothing is encoded.
    Unspecified,
    /// The key is known to somebody else.
    KeyCompromise,
    /// A CA's key is known to somebody else.
    CaCompromise,
    /// The device has moved to somebody else.
    AffiliationChanged,
    /// A newer certificate has replaced it.
    Superseded,
    /// The device is out of use.
    CessationOfOperation,
    /// On hold; may be released.
    CertificateHold,
    /// A privilege was withdrawn.
    PrivilegeWithdrawn,
}

impl Reason {
    /// Every reason, by its code.
    pub const ALL: [Self; 8] = [
        Self::Unspecified,
        Self::KeyCompromise,
        Self::CaCompromise,
        Self::AffiliationChanged,
        Self::Superseded,
        Self::CessationOfOperation,
        Self::CertificateHold,
        Self::PrivilegeWithdrawn,
    ];

    /// The value of `CRLReason`.
    pub const fn code(self) -> u8 {
        match self {
            Self::Unspecified => 0,
            Self::KeyCompromise => 1,
            Self::CaCompromise => 2,
            Self::AffiliationChanged => 3,
            Self::Superseded => 4,
            Self::CessationOfOperation => 5,
            Self::CertificateHold => 6,
            Self::PrivilegeWithdrawn => 9,
        }
    }

    /// The reason with this value of `CRLReason`; `None` for `removeFromCRL`, `aACompromise` and values without a meaning.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.code() == code)
    }
}

/// Who keeps a certificate on hold. A hold ends when its last holder lets go.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Holder {
    /// A person, by the `DeviceCertificate`.
    Person,
    /// A person, by a `Revocation` object with this uid.
    Revocation(String),
    /// The retirement of an old certificate after this job.
    Retirement(JobId),
}

/// How a certificate stands, whatever its dates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Standing {
    /// Neither on hold nor revoked.
    Good,
    /// On hold.
    Held {
        /// Since when, Unix seconds.
        since: i64,
    },
    /// Revoked for good.
    Revoked {
        /// Since when, Unix seconds; of a certificate that was on hold before, since then (RFC 5280, 5.3.1).
        since: i64,
        /// Why.
        reason: Reason,
    },
}

/// Why a device gets no certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Bar {
    /// A person has put it on hold: until it is released.
    Held,
    /// A person has revoked it: until a `reenrol` permit given later is used.
    Revoked,
}

//! Reasons and what a CRL's line says (RFC 5280, 5.3.1).

use crate::Serial;

/// Why a certificate is revoked (RFC 5280, 5.3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
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

    /// The code that is encoded: none for [`Unspecified`](Self::Unspecified), which shall be left out.
    pub(crate) const fn encoded(self) -> Option<u8> {
        match self {
            Self::Unspecified => None,
            other => Some(other.code()),
        }
    }
}

/// What a line of a CRL says about a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mark {
    /// It is revoked, or on hold.
    Revoked(Reason),
    /// `removeFromCRL`, in delta CRLs only: it was in the base, and is no longer, as it was released or has expired.
    Removed,
}

/// The value of `CRLReason` for [`Mark::Removed`].
const REMOVE_FROM_CRL: u8 = 8;

impl Mark {
    pub(crate) const fn encoded(self) -> Option<u8> {
        match self {
            Self::Revoked(reason) => reason.encoded(),
            Self::Removed => Some(REMOVE_FROM_CRL),
        }
    }

    pub(crate) fn from_code(code: u8) -> Option<Self> {
        if code == REMOVE_FROM_CRL {
            Some(Self::Removed)
        } else {
            Reason::from_code(code).map(Self::Revoked)
        }
    }
}

/// One line of a CRL. A value of 40 bytes without allocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listed {
    /// The certificate's serial number.
    pub serial: Serial,
    /// When it was revoked, or released, Unix seconds.
    pub at: i64,
    /// What is said of it.
    pub mark: Mark,
}

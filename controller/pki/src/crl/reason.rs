//! Reasons and what a CRL's line says (RFC 5280, 5.3.1).

pub use certwave_core::revocation::Reason;

use crate::Serial;

/// The code that is encoded: none for [`Reason::Unspecified`], which shall be left out.
pub(crate) const fn encoded(reason: Reason) -> Option<u8> {
    match reason {
        Reason::Unspecified => None,
        other => Some(other.code()),
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
            Self::Revoked(reason) => encoded(reason),
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

/// One line of a CRL. A value of 56 bytes without allocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listed {
    /// The certificate's serial number.
    pub serial: Serial,
    /// When it was revoked, or released, Unix seconds; not after the CRL's `this_update`.
    pub at: i64,
    /// What is said of it.
    pub mark: Mark,
    /// Since when the key may have been misused, Unix seconds (`invalidityDate`, RFC 5280, 5.3.2); it may lie before `at`.
    pub invalid_since: Option<i64>,
}

//! Why the ledger refused or could not answer.

use certwave_core::model::ObjectRef;
use certwave_protocol::ids::Epoch;

/// What an operation on the ledger answers.
pub type Result<T> = std::result::Result<T, LedgerError>;

/// Why an operation did not happen. Except where a variant says otherwise, nothing of it was stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LedgerError {
    /// Another leader has taken over: stop acting.
    #[error("epoch {given} is not the ledger's present epoch {present}: another leader has taken over")]
    StaleEpoch {
        /// The writer's.
        given: Epoch,
        /// The ledger's.
        present: Epoch,
    },
    /// The device has changed since it was read: read again and decide again.
    #[error("the device changed since it was read")]
    Conflict,
    /// The device, certificate, claim or rotation that a write names is not in the ledger.
    #[error("the ledger has no {0}")]
    NotFound(&'static str),
    /// The public key belongs to another certificate, device or claim already.
    #[error("the public key has been used before")]
    KeyReused,
    /// The issuer has given this serial number to another certificate (RFC 5280 4.1.2.2).
    #[error("the issuer has used the serial number before")]
    SerialReused,
    /// The name is taken by another object.
    #[error("the name is held by {}/{}", .holder.namespace, .holder.name)]
    Duplicate {
        /// Who holds it: of a claim, the Fleet.
        holder: ObjectRef,
    },
    /// The device is on hold or revoked: it gets no certificate.
    #[error("the device is on hold or revoked")]
    Barred,
    /// The ledger comes from a backup, and what was lost has not been taken in again: nothing is issued until then.
    #[error("the ledger was restored from a backup, and what was issued since has not been taken in again")]
    Restoring,
    /// The claim's quota of devices is used up.
    #[error("the claim's quota is used up")]
    ClaimExhausted,
    /// The claim is suspended, past its end, or bound to another device.
    #[error("the claim is suspended, past its end, or bound to another device")]
    ClaimClosed,
    /// The CRL's number is not greater than the one published last in its scope (RFC 5280 5.2.3).
    #[error("CRL number {given} is not greater than {present}, the last one published")]
    CrlNumber {
        /// The new CRL's.
        given: u64,
        /// The stored CRL's.
        present: u64,
    },
    /// The Rotation has ended: nothing of it changes any more.
    #[error("the Rotation has ended")]
    Ended,
    /// A write contradicts itself or the ledger: a fault of the program, not of the data.
    #[error("the write is inconsistent: {0}")]
    Invalid(String),
    /// No space left. Works again as soon as there is some.
    #[error("no space left for the ledger")]
    Full,
    /// The file was written by a newer version of this program; nothing was changed.
    #[error("the ledger's schema {found} is newer than {supported}, which this version knows; start the newer version")]
    Newer {
        /// In the file.
        found: i64,
        /// The newest that this program knows.
        supported: i64,
    },
    /// What is stored cannot be read.
    #[error("the ledger is damaged: {0}")]
    Corrupt(String),
    /// The database cannot be reached or has failed. The write may or may not have happened; repeating it is safe.
    #[error("the ledger is not available: {0}")]
    Unavailable(String),
}

impl LedgerError {
    /// The categories of faults of the ledger itself ([`is_outage`](Self::is_outage)).
    pub const OUTAGES: [&str; 5] = ["restoring", "full", "newer", "corrupt", "unavailable"];

    /// A short word of a closed set, for metric labels.
    pub fn category(&self) -> &'static str {
        match self {
            Self::StaleEpoch { .. } => "stale-epoch",
            Self::Conflict => "conflict",
            Self::NotFound(_) => "not-found",
            Self::KeyReused => "key-reused",
            Self::SerialReused => "serial-reused",
            Self::Duplicate { .. } => "duplicate",
            Self::Barred => "barred",
            Self::Restoring => "restoring",
            Self::ClaimExhausted => "claim-exhausted",
            Self::ClaimClosed => "claim-closed",
            Self::CrlNumber { .. } => "crl-number",
            Self::Ended => "ended",
            Self::Invalid(_) => "invalid",
            Self::Full => "full",
            Self::Newer { .. } => "newer",
            Self::Corrupt(_) => "corrupt",
            Self::Unavailable(_) => "unavailable",
        }
    }

    /// True for faults of the ledger itself, which pause work and never count against a device.
    pub fn is_outage(&self) -> bool {
        matches!(
            self,
            Self::Restoring | Self::Full | Self::Newer { .. } | Self::Corrupt(_) | Self::Unavailable(_)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_categories_of_outages_are_those_of_outages() {
        let unavailable = LedgerError::Unavailable(String::new());
        let corrupt = LedgerError::Corrupt(String::new());
        let newer = LedgerError::Newer { found: 2, supported: 1 };
        for error in [
            LedgerError::Restoring,
            LedgerError::Full,
            newer,
            corrupt,
            unavailable,
            LedgerError::Conflict,
            LedgerError::Barred,
            LedgerError::Ended,
        ] {
            assert_eq!(LedgerError::OUTAGES.contains(&error.category()), error.is_outage());
        }
    }
}

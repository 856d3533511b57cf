//! Certificate revocation lists (RFC 5280, 5), one per CA and partition.
//!
//! [`CrlEncoder`] takes one line after the other, as pages come from the ledger, and holds nothing but the list that it
//! makes. [`Crl`] reads one back, for the monitor that looks at what is served and for companions of brokers.

mod encode;
mod extensions;
mod read;
mod reason;

pub use encode::{CrlEncoder, CrlHead, CrlKind};
pub use read::{Crl, CrlReadError, Entries};
pub(crate) use reason::encoded;
pub use reason::{Listed, Mark, Reason};

use crate::{CertificateAuthority, KeyError, pem};

/// The largest CRL that is made or read, in bytes of DER: some twenty million entries.
pub const MAX_CRL_BYTES: usize = 1 << 30;

/// One revoked certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The serial number in hex, as [`Issued::serial`](crate::Issued::serial) gives it.
    pub serial: String,
    /// When it was revoked, Unix seconds.
    pub revoked_at: i64,
    /// Why it was revoked.
    pub reason: Reason,
}

impl TryFrom<&Entry> for Listed {
    type Error = CrlError;

    fn try_from(entry: &Entry) -> Result<Self, CrlError> {
        Ok(Self {
            serial: entry
                .serial
                .parse()
                .map_err(|_| CrlError::Serial(entry.serial.clone()))?,
            at: entry.revoked_at,
            mark: Mark::Revoked(entry.reason),
            invalid_since: None,
        })
    }
}

/// Why a CRL cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CrlError {
    /// `next_update` is not after `this_update`.
    #[error("the CRL would end at or before its beginning")]
    NoValidity,
    /// A serial number that is not 1 to 20 bytes of hex, or zero.
    #[error("{0:?} is not a serial number in hex")]
    Serial(String),
    /// A scope that is not a URL in ASCII.
    #[error("{0:?} is not a URL in ASCII")]
    Scope(String),
    /// A delta CRL whose number is not above its base's.
    #[error("a delta CRL with the number {number} cannot have the base {base}")]
    Base {
        /// The CRL number.
        number: u64,
        /// The number of the base.
        base: u64,
    },
    /// A removal in a complete CRL, where it has no meaning.
    #[error("only a delta CRL can say that a certificate is no longer listed")]
    Removal,
    /// Longer than [`MAX_CRL_BYTES`].
    #[error("the CRL would have more than {MAX_CRL_BYTES} bytes")]
    TooLarge,
    /// The CA's key cannot sign.
    #[error(transparent)]
    Key(#[from] KeyError),
}

impl CrlError {
    /// A short name from a closed set, for metric labels.
    pub const fn category(&self) -> &'static str {
        match self {
            Self::NoValidity => "no-validity",
            Self::Serial(_) => "serial",
            Self::Scope(_) => "scope",
            Self::Base { .. } => "base",
            Self::Removal => "removal",
            Self::TooLarge => "too-large",
            Self::Key(error) => error.category(),
        }
    }
}

/// What one complete CRL says.
#[derive(Debug, Clone, Copy)]
pub struct CrlRequest<'a> {
    /// The URL of the scope, the very one that stands in the certificates' CDP; goes into the critical IDP.
    pub scope_url: &'a str,
    /// The CRL number, strictly increasing in the scope.
    pub number: u64,
    /// When it is made, Unix seconds.
    pub this_update: i64,
    /// By when the next one is there, Unix seconds.
    pub next_update: i64,
    /// What is revoked. With none, `revokedCertificates` is absent (RFC 5280, 5.1.2.6).
    pub entries: &'a [Entry],
}

/// Makes and signs a DER CRL with AKI, CRL number and a critical IDP that has no further restrictions: [`CrlEncoder`] for
/// lists that are in memory.
pub fn encode(issuer: &CertificateAuthority, request: &CrlRequest<'_>) -> Result<Vec<u8>, CrlError> {
    let head = CrlHead {
        scope_url: Some(request.scope_url),
        number: request.number,
        this_update: request.this_update,
        next_update: request.next_update,
        kind: CrlKind::Complete { freshest: None },
    };
    let mut encoder = CrlEncoder::new(issuer, &head, request.entries.len())?;
    for entry in request.entries {
        encoder.push(&entry.try_into()?)?;
    }
    encoder.sign()
}

/// A DER CRL as PEM (RFC 7468, 6).
pub fn to_pem(der: &[u8]) -> String {
    pem::encode("X509 CRL", der)
}

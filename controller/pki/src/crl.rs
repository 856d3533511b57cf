//! Certificate revocation lists (RFC 5280, 5), one per CA and partition.

use rcgen::{
    CertificateRevocationListParams, CrlDistributionPoint, CrlIssuingDistributionPoint, RevocationReason,
    RevokedCertParams, SerialNumber,
};

use crate::{CertificateAuthority, KeyError, time::date_time};

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
    const fn rcgen(self) -> RevocationReason {
        match self {
            Self::Unspecified => RevocationReason::Unspecified,
            Self::KeyCompromise => RevocationReason::KeyCompromise,
            Self::CaCompromise => RevocationReason::CaCompromise,
            Self::AffiliationChanged => RevocationReason::AffiliationChanged,
            Self::Superseded => RevocationReason::Superseded,
            Self::CessationOfOperation => RevocationReason::CessationOfOperation,
            Self::CertificateHold => RevocationReason::CertificateHold,
            Self::PrivilegeWithdrawn => RevocationReason::PrivilegeWithdrawn,
        }
    }
}

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

/// Why a CRL cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CrlError {
    /// `next_update` is not after `this_update`.
    #[error("the CRL would end at or before its beginning")]
    NoValidity,
    /// A serial number that is not 1 to 20 bytes of hex.
    #[error("{0:?} is not a serial number in hex")]
    Serial(String),
    /// A scope that is not a URL in ASCII.
    #[error("{0:?} is not a URL in ASCII")]
    Scope(String),
    /// The CA's key cannot sign.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The encoder refused.
    #[error("the CRL cannot be encoded: {0}")]
    Encode(String),
}

impl CrlError {
    /// A short name from a closed set, for metric labels.
    pub const fn category(&self) -> &'static str {
        match self {
            Self::NoValidity => "no-validity",
            Self::Serial(_) => "serial",
            Self::Scope(_) => "scope",
            Self::Key(error) => error.category(),
            Self::Encode(_) => "encode",
        }
    }
}

/// What one CRL says.
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

/// Makes and signs a DER CRL with AKI, CRL number and a critical IDP that has no further restrictions.
pub fn encode(issuer: &CertificateAuthority, request: &CrlRequest<'_>) -> Result<Vec<u8>, CrlError> {
    if request.next_update <= request.this_update {
        return Err(CrlError::NoValidity);
    }
    let url = request.scope_url;
    if !url.starts_with("http") || !url.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(CrlError::Scope(url.to_owned()));
    }
    let revoked_certs = request.entries.iter().map(revoked).collect::<Result<_, _>>()?;
    let params = CertificateRevocationListParams {
        this_update: date_time(request.this_update),
        next_update: date_time(request.next_update),
        crl_number: SerialNumber::from(request.number),
        issuing_distribution_point: Some(CrlIssuingDistributionPoint {
            distribution_point: CrlDistributionPoint {
                uris: vec![url.to_owned()],
            },
            scope: None,
        }),
        revoked_certs,
        key_identifier_method: issuer.key_id().rcgen(),
    };
    let crl = params.signed_by(&issuer.issuer).map_err(|error| match error {
        rcgen::Error::RemoteKeyError => CrlError::Key(KeyError::Crypto("sign")),
        other => CrlError::Encode(other.to_string()),
    })?;
    Ok(crl.der().to_vec())
}

fn revoked(entry: &Entry) -> Result<RevokedCertParams, CrlError> {
    let serial = hex::decode(&entry.serial)
        .ok()
        .filter(|bytes| (1..=20).contains(&bytes.len()))
        .ok_or_else(|| CrlError::Serial(entry.serial.clone()))?;
    Ok(RevokedCertParams {
        serial_number: SerialNumber::from_slice(&serial),
        revocation_time: date_time(entry.revoked_at),
        reason_code: Some(entry.reason.rcgen()),
        invalidity_date: None,
    })
}

//! Certificates as a device looks at them: names, dates, keys, and whether one sent by the controller is its own.

use std::time::Duration;

use certwave_protocol::control::subject_common_name;
use certwave_protocol::ids::{DeviceId, Fingerprint};
use rustls_pki_types::{CertificateDer, UnixTime};
use webpki::{ALL_VERIFICATION_ALGS, EndEntityCert, KeyUsage, anchor_from_trusted_cert};
use x509_cert::Certificate;
use x509_cert::der::{Decode as _, Encode as _};

/// Why a certificate is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// Not a DER certificate (RFC 5280 4.1).
    #[error("not a certificate: {0}")]
    Unreadable(String),
    /// For another key than the one in the slot.
    #[error("the certificate is for another key")]
    Key,
    /// For another name.
    #[error("the certificate's common name is {0:?}, not the deviceId")]
    Name(String),
    /// It ends before it begins.
    #[error("the certificate's notAfter is not after its notBefore")]
    Dates,
    /// Its chain does not lead from one certificate to the next.
    #[error("the certificate's chain is not its own: {0}")]
    Chain(String),
}

/// What a device wants to know of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaf {
    /// SHA-256 of the DER.
    pub fingerprint: Fingerprint,
    /// The serial number, lower-case hexadecimal.
    pub serial: String,
    /// The subject's only common name; empty where it has none or several.
    pub common_name: String,
    /// The issuer's name, as text.
    pub issuer: String,
    /// Unix seconds.
    pub not_before: i64,
    /// Unix seconds.
    pub not_after: i64,
    /// DER `SubjectPublicKeyInfo`.
    pub spki: Vec<u8>,
}

impl Leaf {
    /// Reads a DER certificate.
    pub fn read(der: &[u8]) -> Result<Self, CertificateError> {
        let unreadable = |e: x509_cert::der::Error| CertificateError::Unreadable(e.to_string());
        let certificate = Certificate::from_der(der).map_err(unreadable)?;
        let tbs = certificate.tbs_certificate();
        let seconds = |t: x509_cert::time::Time| i64::try_from(t.to_unix_duration().as_secs()).unwrap_or(i64::MAX);
        Ok(Self {
            fingerprint: Fingerprint::of(der),
            serial: hex::encode(tbs.serial_number().as_bytes()),
            common_name: subject_common_name(&certificate).unwrap_or_default(),
            issuer: tbs.issuer().to_string(),
            not_before: seconds(tbs.validity().not_before),
            not_after: seconds(tbs.validity().not_after),
            spki: tbs.subject_public_key_info().to_der().map_err(unreadable)?,
        })
    }
}

/// Checks a certificate for this device and the key with this `SubjectPublicKeyInfo`, and that its chain is one.
///
/// Whether a broker will let it in only the trial can tell: its CA need not be the one that the device trusts the broker
/// by. Dates are not compared to the device's clock, which may be years off.
pub fn check(
    leaf: &[u8],
    chain: &[impl AsRef<[u8]>],
    device: &DeviceId,
    spki: &[u8],
) -> Result<Leaf, CertificateError> {
    let read = Leaf::read(leaf)?;
    if read.spki != spki {
        return Err(CertificateError::Key);
    }
    if read.common_name != device.as_str() {
        return Err(CertificateError::Name(read.common_name));
    }
    if read.not_after <= read.not_before {
        return Err(CertificateError::Dates);
    }
    let chain: Vec<CertificateDer<'_>> = chain.iter().map(|der| CertificateDer::from(der.as_ref())).collect();
    if let Some((top, between)) = chain.split_last() {
        let refused = |e: webpki::Error| CertificateError::Chain(e.to_string());
        let anchor = anchor_from_trusted_cert(top).map_err(refused)?;
        let der = CertificateDer::from(leaf);
        let end_entity = EndEntityCert::try_from(&der).map_err(refused)?;
        let at = UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(read.not_before).unwrap_or(0)));
        // Backdated leaves may begin before a young issuer: only signatures and names count here.
        match end_entity.verify_for_usage(
            ALL_VERIFICATION_ALGS,
            &[anchor],
            between,
            at,
            KeyUsage::client_auth(),
            None,
            None,
        ) {
            Ok(_) | Err(webpki::Error::CertNotValidYet { .. }) => {}
            Err(error) => return Err(refused(error)),
        }
    }
    Ok(read)
}

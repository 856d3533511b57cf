//! What a certificate says.

use certwave_protocol::control::sole_common_name;
use rustls_pki_types::CertificateDer;
use x509_cert::{
    Certificate,
    der::{Decode, Encode, asn1::ObjectIdentifier, oid::AssociatedOid},
    ext::pkix::{BasicConstraints, ExtendedKeyUsage, KeyUsage, SubjectKeyIdentifier},
};

use crate::{KeyId, PublicKeyError, SubjectPublicKey, certificates_from_pem, public_key::sha256, signature::Signed};

/// Why a certificate cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Not a DER certificate.
    #[error("not a DER X.509 certificate: {0}")]
    Certificate(String),
    /// No, or a damaged, certificate in a PEM text.
    #[error("no readable certificate in the PEM text")]
    Pem,
    /// A public key that is not supported or too weak.
    #[error(transparent)]
    PublicKey(#[from] PublicKeyError),
}

impl ParseError {
    /// A short name from a closed set, for metric labels.
    pub const fn category(&self) -> &'static str {
        match self {
            Self::Certificate(_) => "certificate",
            Self::Pem => "pem",
            Self::PublicKey(error) => error.category(),
        }
    }
}

impl From<x509_cert::der::Error> for ParseError {
    fn from(error: x509_cert::der::Error) -> Self {
        Self::Certificate(error.to_string())
    }
}

/// What people, the ledger and conditions want to know of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateInfo {
    /// The subject's only common name; none where it has several.
    pub common_name: Option<String>,
    /// The subject by RFC 4514.
    pub subject: String,
    /// The issuer by RFC 4514.
    pub issuer: String,
    /// The serial number: lower-case hex of its bytes without a sign byte.
    pub serial: String,
    /// Start of validity, Unix seconds.
    pub not_before: i64,
    /// Last second of validity, Unix seconds.
    pub not_after: i64,
    /// SHA-256 of the DER, 64 lower-case hex digits.
    pub sha256: String,
    /// SHA-256 of the `SubjectPublicKeyInfo`, 64 lower-case hex digits.
    pub spki_sha256: String,
    /// Whether `basicConstraints` makes it a CA.
    pub is_ca: bool,
    /// The subject key identifier; by RFC 7093, method 1, when the certificate has none.
    pub key_id: KeyId,
}

/// Reads a DER certificate. Its signature is not checked.
pub fn parse_certificate_info(der: &[u8]) -> Result<CertificateInfo, ParseError> {
    Ok(Parsed::from_der(der)?.info())
}

/// Reads the first certificate of a PEM text. Its signature is not checked.
pub fn parse_certificate_info_pem(pem: &str) -> Result<CertificateInfo, ParseError> {
    let first = certificates_from_pem(pem)
        .and_then(|all| all.into_iter().next())
        .ok_or(ParseError::Pem)?;
    parse_certificate_info(&first)
}

/// What a CA certificate's `basicConstraints` say.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CaConstraints {
    /// How many CAs may follow below; `None` for any number.
    pub(crate) path_len: Option<u8>,
}

/// A certificate with the fields that building and checking chains needs.
#[derive(Debug, Clone)]
pub(crate) struct Parsed {
    pub(crate) der: CertificateDer<'static>,
    pub(crate) public_key: SubjectPublicKey,
    pub(crate) subject: Vec<u8>,
    pub(crate) issuer: Vec<u8>,
    pub(crate) not_before: i64,
    pub(crate) not_after: i64,
    /// `Some` when `basicConstraints` makes it a CA.
    pub(crate) ca: Option<CaConstraints>,
    pub(crate) key_usage: Option<KeyUsage>,
    pub(crate) extended_key_usage: Option<Vec<ObjectIdentifier>>,
    pub(crate) subject_key_id: Option<KeyId>,
    /// Critical extensions besides those that are understood, and name constraints even when not critical.
    pub(crate) not_understood: Option<ObjectIdentifier>,
    certificate: Certificate,
}

impl Parsed {
    pub(crate) fn from_der(der: &[u8]) -> Result<Self, ParseError> {
        let certificate = Certificate::from_der(der)?;
        let tbs = certificate.tbs_certificate();
        let validity = tbs.validity();
        let seconds =
            |time: &x509_cert::time::Time| i64::try_from(time.to_unix_duration().as_secs()).unwrap_or(i64::MAX);
        let ca = tbs.get_extension::<BasicConstraints>()?.and_then(|(_, constraints)| {
            constraints.ca.then_some(CaConstraints {
                path_len: constraints.path_len_constraint,
            })
        });
        Ok(Self {
            public_key: SubjectPublicKey::from_spki_der(&tbs.subject_public_key_info().to_der()?)?,
            subject: tbs.subject().to_der()?,
            issuer: tbs.issuer().to_der()?,
            not_before: seconds(&validity.not_before),
            not_after: seconds(&validity.not_after),
            ca,
            key_usage: tbs.get_extension::<KeyUsage>()?.map(|(_, usage)| usage),
            extended_key_usage: tbs.get_extension::<ExtendedKeyUsage>()?.map(|(_, usage)| usage.0),
            subject_key_id: tbs
                .get_extension::<SubjectKeyIdentifier>()?
                .map(|(_, id)| KeyId::from_bytes(id.0.as_bytes())),
            not_understood: not_understood(&certificate),
            der: CertificateDer::from(der.to_vec()),
            certificate,
        })
    }

    pub(crate) fn key_id(&self) -> KeyId {
        self.subject_key_id.clone().unwrap_or_else(|| self.public_key.key_id())
    }

    pub(crate) fn is_self_issued(&self) -> bool {
        self.subject == self.issuer
    }

    /// Whether it names this extended key usage.
    pub(crate) fn is_for(&self, usage: &ObjectIdentifier) -> bool {
        self.extended_key_usage
            .as_ref()
            .is_some_and(|usages| usages.contains(usage))
    }

    pub(crate) fn has_extension(&self, id: &ObjectIdentifier) -> bool {
        let extensions = self.certificate.tbs_certificate().extensions();
        extensions.is_some_and(|extensions| extensions.iter().any(|e| e.extn_id == *id))
    }

    /// Whether `issuer` issued this: names match byte for byte and the signature is by its key.
    pub(crate) fn is_issued_by(&self, issuer: &Self) -> bool {
        self.issuer == issuer.subject
            && Signed::from_der(&self.der).is_ok_and(|signed| signed.is_signed_by(&issuer.public_key))
    }

    pub(crate) fn subject_text(&self) -> String {
        self.certificate.tbs_certificate().subject().to_string()
    }

    fn info(&self) -> CertificateInfo {
        let tbs = self.certificate.tbs_certificate();
        let serial = tbs.serial_number().as_bytes();
        CertificateInfo {
            common_name: sole_common_name(tbs.subject()),
            subject: tbs.subject().to_string(),
            issuer: tbs.issuer().to_string(),
            serial: hex::encode(serial.strip_prefix(&[0]).unwrap_or(serial)),
            not_before: self.not_before,
            not_after: self.not_after,
            sha256: hex::encode(sha256(&self.der)),
            spki_sha256: self.public_key.spki_sha256_hex(),
            is_ca: self.ca.is_some(),
            key_id: self.key_id(),
        }
    }
}

fn not_understood(certificate: &Certificate) -> Option<ObjectIdentifier> {
    const NAME_CONSTRAINTS: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.30");
    const CERTIFICATE_POLICIES: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.32");
    let understood = [
        BasicConstraints::OID,
        KeyUsage::OID,
        ExtendedKeyUsage::OID,
        CERTIFICATE_POLICIES,
    ];
    let extensions = certificate.tbs_certificate().extensions()?;
    extensions
        .iter()
        .find(|e| e.extn_id == NAME_CONSTRAINTS || (e.critical && !understood.contains(&e.extn_id)))
        .map(|e| e.extn_id)
}

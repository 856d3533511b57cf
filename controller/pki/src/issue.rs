//! Leaf certificates.

use std::time::Duration;

use aws_lc_rs::rand;
use rcgen::{
    CertificateParams, CrlDistributionPoint, CustomExtension, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose,
    SerialNumber,
};
use rustls_pki_types::CertificateDer;
use x509_cert::{
    der::{
        self, Encode,
        asn1::{Ia5String, ObjectIdentifier},
    },
    ext::pkix::{AccessDescription, AuthorityInfoAccessSyntax, name::GeneralName},
};

use crate::{
    CertificateAuthority, KeyError, KeyId, LeafSubject, NameError, Publication, SubjectPublicKey,
    asn1::NULL,
    partition_of,
    public_key::sha256,
    time::{after, before, date_time},
};

/// The extended key usage of control certificates, which sign the controller's messages to devices: an arc below 2.25
/// that is small enough for parsers with 31-bit arcs.
pub const CONTROL_EKU: &str = "2.25.1129791830.1";

const CONTROL: ObjectIdentifier = ObjectIdentifier::new_unwrap(CONTROL_EKU);
pub(crate) const CLIENT_AUTH: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.2");
const SERVER_AUTH: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.1");
const AUTHORITY_INFORMATION_ACCESS: [u64; 9] = [1, 3, 6, 1, 5, 5, 7, 1, 1];
const CA_ISSUERS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.48.2");
pub(crate) const OCSP_SIGNING: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.9");
/// id-pkix-ocsp-nocheck (RFC 6960, 4.2.2.2.1); its value is NULL.
pub(crate) const OCSP_NO_CHECK: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.48.1.5");
const OCSP: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.48.1");

/// What a leaf is for. It decides the extended key usage, and which common names are allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LeafUsage {
    /// A device: clientAuth; the common name is its id and does not begin with `~`.
    Device,
    /// A claim: clientAuth; `~claim.<name>`.
    Claim,
    /// The controller at the broker: clientAuth; `~controller`.
    Controller,
    /// The key that signs messages to devices: [`CONTROL_EKU`]; `~control.<brokerId>`.
    Control,
    /// A broker: serverAuth; needs at least one SAN.
    Server,
    /// The delegated OCSP responder (RFC 6960, 4.2.2.2): id-kp-OCSPSigning and id-pkix-ocsp-nocheck; `~ocsp`. As nobody checks
    /// its revocation it should live for weeks at most.
    OcspSigner,
}

impl LeafUsage {
    const fn purpose(self) -> ObjectIdentifier {
        match self {
            Self::Device | Self::Claim | Self::Controller => CLIENT_AUTH,
            Self::Control => CONTROL,
            Self::Server => SERVER_AUTH,
            Self::OcspSigner => OCSP_SIGNING,
        }
    }

    fn rcgen(self) -> ExtendedKeyUsagePurpose {
        match self {
            Self::Device | Self::Claim | Self::Controller => ExtendedKeyUsagePurpose::ClientAuth,
            Self::Server => ExtendedKeyUsagePurpose::ServerAuth,
            Self::OcspSigner => ExtendedKeyUsagePurpose::OcspSigning,
            Self::Control => ExtendedKeyUsagePurpose::Other(CONTROL.arcs().map(u64::from).collect()),
        }
    }

    /// The last line of defence against a device that is given a name of the system's, or the other way round.
    fn check(self, subject: &LeafSubject) -> Result<(), IssueError> {
        let name = subject.cn();
        let longer_than = |prefix: &str| name.strip_prefix(prefix).is_some_and(|rest| !rest.is_empty());
        let right = match self {
            Self::Device => {
                name.starts_with(|c: char| c.is_ascii_alphanumeric())
                    && name.len() <= 56
                    && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
            }
            Self::Claim => longer_than("~claim."),
            Self::Controller => name == "~controller",
            Self::OcspSigner => name == "~ocsp",
            Self::Control => longer_than("~control."),
            Self::Server => !name.starts_with('~'),
        };
        if !right {
            return Err(IssueError::WrongName {
                name: name.to_owned(),
                usage: self,
            });
        }
        if self == Self::Server && !subject.has_sans() {
            return Err(IssueError::NoServerName);
        }
        Ok(())
    }
}

/// What to issue. Nothing of it comes from a CSR but the key.
#[derive(Debug, Clone, Copy)]
pub struct LeafRequest<'a> {
    /// Subject and SANs.
    pub subject: &'a LeafSubject,
    /// The key to certify.
    pub public_key: &'a SubjectPublicKey,
    /// What the leaf is for.
    pub usage: LeafUsage,
    /// How long it is valid from now on; cut to the end of the CA and those above.
    pub validity: Duration,
    /// How far its validity reaches back, for devices with slow clocks; cut to the start of the CA and those above.
    pub backdate: Duration,
}

/// A certificate that was issued, with what the ledger records of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// The certificate.
    pub der: CertificateDer<'static>,
    /// The serial number: 34 lower-case hex digits.
    pub serial: String,
    /// SHA-256 of the DER, 64 lower-case hex digits.
    pub sha256: String,
    /// SHA-256 of the `SubjectPublicKeyInfo`, 64 lower-case hex digits.
    pub spki_sha256: String,
    /// Start of validity, Unix seconds.
    pub not_before: i64,
    /// Last second of validity, Unix seconds.
    pub not_after: i64,
    /// The CRL partition that covers it, as `YYYY-MM`.
    pub partition: String,
}

/// Why a leaf is not issued.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IssueError {
    /// The CA, or one above it, is not valid yet.
    #[error("the CA is not valid before {0} (Unix seconds)")]
    CaNotYetValid(i64),
    /// The CA, or one above it, has expired.
    #[error("the CA has expired at {0} (Unix seconds)")]
    CaExpired(i64),
    /// No validity was asked for.
    #[error("the certificate would have no validity")]
    NoValidity,
    /// The common name belongs to another kind of certificate.
    #[error("a certificate of usage {usage:?} cannot have the common name {name:?}")]
    WrongName {
        /// The common name.
        name: String,
        /// The usage asked for.
        usage: LeafUsage,
    },
    /// A server certificate without a name that clients could check.
    #[error("a server certificate needs a DNS name or IP address")]
    NoServerName,
    /// The extended key usage of the CA, or of one above it, excludes this usage.
    #[error("the CA may not issue certificates of usage {0:?}")]
    UsageNotAllowed(LeafUsage),
    /// The key to certify is the CA's own.
    #[error("the key is the CA's own")]
    KeyOfCa,
    /// The subject is not valid.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The CA's key cannot sign, or there is no randomness.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The encoder refused.
    #[error("the certificate cannot be encoded: {0}")]
    Encode(String),
}

impl IssueError {
    /// A short name from a closed set, for metric labels.
    pub const fn category(&self) -> &'static str {
        match self {
            Self::CaNotYetValid(_) => "ca-not-yet-valid",
            Self::CaExpired(_) => "ca-expired",
            Self::NoValidity => "no-validity",
            Self::WrongName { .. } | Self::NoServerName | Self::Name(_) => "name",
            Self::UsageNotAllowed(_) => "usage",
            Self::KeyOfCa => "key-of-ca",
            Self::Key(error) => error.category(),
            Self::Encode(_) => "encode",
        }
    }
}

impl From<rcgen::Error> for IssueError {
    fn from(error: rcgen::Error) -> Self {
        match error {
            rcgen::Error::RemoteKeyError => Self::Key(KeyError::Crypto("sign")),
            other => Self::Encode(other.to_string()),
        }
    }
}

impl CertificateAuthority {
    /// Issues a leaf: SKI, AKI, critical KU and basicConstraints, one EKU, and with a publication CDP and AIA
    /// (the control certificate and the OCSP signer excepted).
    ///
    /// The serial number has 17 bytes with at least 128 random bits, never zero or negative, always of one width.
    pub fn issue(&self, request: &LeafRequest<'_>, now: i64) -> Result<Issued, IssueError> {
        request.usage.check(request.subject)?;
        if !self.allows_purpose(&request.usage.purpose()) {
            return Err(IssueError::UsageNotAllowed(request.usage));
        }
        if request.public_key == self.public_key() {
            return Err(IssueError::KeyOfCa);
        }
        let (not_before, not_after) = self.validity(request, now)?;
        let serial = random_serial()?;
        let partition = partition_of(not_after);

        let mut params = CertificateParams::default();
        params.distinguished_name = request.subject.distinguished_name()?;
        params.subject_alt_names = request.subject.san_types();
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        params.not_before = date_time(not_before);
        params.not_after = date_time(not_after);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        if request.usage == LeafUsage::Server && request.public_key.algorithm().is_rsa() {
            // For TLS 1.2 with RSA key exchange.
            params.key_usages.push(KeyUsagePurpose::KeyEncipherment);
        }
        params.extended_key_usages = vec![request.usage.rcgen()];
        params.key_identifier_method = request.public_key.key_id().rcgen();
        params.use_authority_key_identifier_extension = true;
        // The control certificate travels in every message to a device and is looked at by devices alone, which fetch no
        // CRLs: without both extensions every message stays below 5 KB.
        // Nor does anybody check the OCSP signer.
        if let Some(publication) = self
            .publication
            .as_ref()
            .filter(|_| !matches!(request.usage, LeafUsage::Control | LeafUsage::OcspSigner))
        {
            params.crl_distribution_points = distribution_point(publication.crl_url(self.key_id(), &partition));
            params.custom_extensions = vec![
                authority_information_access(publication, self.key_id())
                    .map_err(|e| IssueError::Encode(e.to_string()))?,
            ];
        }
        if request.usage == LeafUsage::OcspSigner {
            let arcs: Vec<_> = OCSP_NO_CHECK.arcs().map(u64::from).collect();
            params.custom_extensions = vec![CustomExtension::from_oid_content(&arcs, vec![NULL, 0])];
        }
        let der = CertificateDer::from(params.signed_by(request.public_key, &self.issuer)?);
        Ok(Issued {
            serial: hex::encode(serial),
            sha256: hex::encode(sha256(&der)),
            spki_sha256: request.public_key.spki_sha256_hex(),
            not_before,
            not_after,
            partition,
            der,
        })
    }

    fn validity(&self, request: &LeafRequest<'_>, now: i64) -> Result<(i64, i64), IssueError> {
        if now < self.not_before() {
            return Err(IssueError::CaNotYetValid(self.not_before()));
        }
        if now >= self.not_after() {
            return Err(IssueError::CaExpired(self.not_after()));
        }
        let not_before = before(now, request.backdate).max(self.not_before());
        let not_after = after(now, request.validity).min(self.not_after());
        if not_after <= now {
            return Err(IssueError::NoValidity);
        }
        Ok((not_before, not_after))
    }
}

/// 17 bytes whose first is between 0x40 and 0x7f: positive without a sign byte, and fixed in width, also in CRLs.
pub(crate) fn random_serial() -> Result<[u8; 17], KeyError> {
    let mut serial = [0; 17];
    rand::fill(&mut serial).map_err(|_| KeyError::Crypto("make random numbers"))?;
    serial[0] = serial[0] & 0x3f | 0x40;
    Ok(serial)
}

pub(crate) fn distribution_point(url: String) -> Vec<CrlDistributionPoint> {
    vec![CrlDistributionPoint { uris: vec![url] }]
}

/// The AIA extension (RFC 5280, 4.2.2.1).
pub(crate) fn authority_information_access(publication: &Publication, issuer: &KeyId) -> der::Result<CustomExtension> {
    let access = |method, url: &str| {
        Ok::<_, der::Error>(AccessDescription {
            access_method: method,
            access_location: GeneralName::UniformResourceIdentifier(Ia5String::new(url)?),
        })
    };
    let mut descriptions = Vec::with_capacity(2);
    if let Some(url) = publication.ocsp_url(issuer) {
        descriptions.push(access(OCSP, &url)?);
    }
    descriptions.push(access(CA_ISSUERS, &publication.ca_issuers_url(issuer))?);
    let content = AuthorityInfoAccessSyntax(descriptions).to_der()?;
    Ok(CustomExtension::from_oid_content(
        &AUTHORITY_INFORMATION_ACCESS,
        content,
    ))
}

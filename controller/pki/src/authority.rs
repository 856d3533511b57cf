//! Certificate authorities: roots, subordinates, and requests for certificates signed outside.

use std::{fmt, time::Duration};

use rcgen::{BasicConstraints, CertificateParams, CustomExtension, IsCa, Issuer, KeyUsagePurpose, SerialNumber};
use rustls_pki_types::CertificateDer;
use x509_cert::der::asn1::ObjectIdentifier;

use crate::{
    CA_PARTITION, CaSubject, KeyAlgorithm, KeyError, KeyId, NameError, ParseError, PrivateKey, Publication,
    SubjectPublicKey,
    certificate::Parsed,
    issue::{authority_information_access, distribution_point, random_serial},
    time::{after, before, date_time},
};

/// What a CA certificate shall say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaProfile {
    /// The CA's subject.
    pub subject: CaSubject,
    /// How many CAs may follow below this one (RFC 5280, 4.2.1.9). `None`: as many as its issuer allows.
    pub path_len: Option<u8>,
    /// How long it is valid from now on; cut to the issuer's own end.
    pub validity: Duration,
    /// How far its validity reaches back, for devices with slow clocks.
    pub backdate: Duration,
}

impl CaProfile {
    /// Ten years of validity, backdated by an hour, no path length constraint.
    pub fn named(common_name: impl Into<String>) -> Self {
        Self {
            subject: CaSubject::named(common_name),
            path_len: None,
            validity: Duration::from_hours(10 * 365 * 24),
            backdate: Duration::from_hours(1),
        }
    }

    fn params(&self, public_key: &SubjectPublicKey) -> Result<CertificateParams, CaError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = self.subject.distinguished_name()?;
        params.key_identifier_method = public_key.key_id().rcgen();
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(SerialNumber::from_slice(&random_serial().map_err(CaError::Key)?));
        params.is_ca = IsCa::Ca(
            self.path_len
                .map_or(BasicConstraints::Unconstrained, BasicConstraints::Constrained),
        );
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Ok(params)
    }
}

/// Why a CA certificate or request cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CaError {
    /// The subject is not valid.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The key cannot sign, or there is no randomness.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The validity ends before it begins, or at once.
    #[error("the certificate would have no validity left")]
    NoValidity,
    /// The issuing CA is not valid at this time.
    #[error("the issuing CA is valid from {not_before} to {not_after} (Unix seconds), not now")]
    IssuerNotValid {
        /// Start of the issuer's validity, Unix seconds.
        not_before: i64,
        /// End of the issuer's validity, Unix seconds.
        not_after: i64,
    },
    /// The path length constraint of the issuer, or of a CA above it, does not allow this.
    #[error("the issuing CA allows {} CAs below it", .allowed)]
    PathLen {
        /// How many CAs may follow below the issuer.
        allowed: u8,
    },
    /// The subordinate has the name or key of its issuer.
    #[error("a subordinate needs a subject and a key of its own")]
    SameAsIssuer,
    /// The certificate that was made cannot be read back.
    #[error(transparent)]
    Parse(#[from] ParseError),
    /// The encoder refused.
    #[error("the certificate cannot be encoded: {0}")]
    Encode(String),
}

impl CaError {
    /// A short name from a closed set, for metric labels.
    pub const fn category(&self) -> &'static str {
        match self {
            Self::Name(_) => "name",
            Self::Key(error) => error.category(),
            Self::NoValidity => "no-validity",
            Self::IssuerNotValid { .. } => "issuer-not-valid",
            Self::PathLen { .. } => "path-len",
            Self::SameAsIssuer => "same-as-issuer",
            Self::Parse(error) => error.category(),
            Self::Encode(_) => "encode",
        }
    }
}

impl From<rcgen::Error> for CaError {
    fn from(error: rcgen::Error) -> Self {
        match error {
            rcgen::Error::RemoteKeyError => Self::Key(KeyError::Crypto("sign")),
            other => Self::Encode(other.to_string()),
        }
    }
}

/// A CA that can sign: its key, its certificate, and the certificates above it.
///
/// Everything that issuing needs of the CA's certificate is read once, when it is made or imported.
pub struct CertificateAuthority {
    pub(crate) issuer: Issuer<'static, PrivateKey>,
    certificate: CertificateDer<'static>,
    /// The certificates above this one without the root, nearest first.
    chain: Vec<CertificateDer<'static>>,
    root: Option<CertificateDer<'static>>,
    key_id: KeyId,
    /// The DER subject, which is the issuer in what it signs.
    subject: Vec<u8>,
    not_before: i64,
    not_after: i64,
    own_not_after: i64,
    /// How many CAs may follow below this one, by its own constraint and those above.
    path_len: Option<u8>,
    /// The purposes that this CA and those above are limited to.
    purposes: Option<Vec<ObjectIdentifier>>,
    pub(crate) publication: Option<Publication>,
}

impl CertificateAuthority {
    /// Makes a root: a self-signed CA certificate.
    pub fn self_signed(key: PrivateKey, profile: &CaProfile, now: i64) -> Result<Self, CaError> {
        let mut params = profile.params(key.public_key())?;
        let not_after = after(now, profile.validity);
        set_validity(&mut params, before(now, profile.backdate), not_after, now)?;
        let certificate = Parsed::from_der(params.self_signed(&key)?.der())?;
        Self::assemble(key, &[certificate])
    }

    /// Makes a subordinate of this CA with a key that is at hand. It publishes nothing until told where.
    pub fn subordinate(&self, key: PrivateKey, profile: &CaProfile, now: i64) -> Result<Self, CaError> {
        let certificate = self.sign_subordinate(key.public_key(), profile, now)?;
        let mut path = vec![Parsed::from_der(&certificate)?];
        for above in std::iter::once(&self.certificate).chain(&self.chain).chain(&self.root) {
            if path.last().is_none_or(|last| last.der != *above) {
                path.push(Parsed::from_der(above)?);
            }
        }
        Self::assemble(key, &path)
    }

    /// Signs the certificate of a subordinate whose key is elsewhere: `public_key` comes from its CSR
    /// ([`Csr::public_key`](crate::Csr::public_key)), the rest from `profile`. With a publication it carries AIA and
    /// the CRL distribution point of the partition [`CA_PARTITION`].
    pub fn sign_subordinate(
        &self,
        public_key: &SubjectPublicKey,
        profile: &CaProfile,
        now: i64,
    ) -> Result<CertificateDer<'static>, CaError> {
        if now < self.not_before || now >= self.not_after {
            return Err(CaError::IssuerNotValid {
                not_before: self.not_before,
                not_after: self.not_after,
            });
        }
        let mut profile = profile.clone();
        if let Some(allowed) = self.path_len {
            let Some(longest) = allowed.checked_sub(1) else {
                return Err(CaError::PathLen { allowed });
            };
            if profile.path_len.is_some_and(|wanted| wanted > longest) {
                return Err(CaError::PathLen { allowed });
            }
            profile.path_len.get_or_insert(longest);
        }
        let mut params = profile.params(public_key)?;
        if public_key == self.public_key() {
            return Err(CaError::SameAsIssuer);
        }
        let not_before = before(now, profile.backdate).max(self.not_before);
        set_validity(
            &mut params,
            not_before,
            after(now, profile.validity).min(self.not_after),
            now,
        )?;
        if let Some(publication) = &self.publication {
            params.crl_distribution_points = distribution_point(publication.crl_url(&self.key_id, CA_PARTITION));
            params.custom_extensions = aia(publication, &self.key_id)?;
        }
        let certificate = params.signed_by(public_key, &self.issuer)?;
        // A subordinate with its issuer's name looks self-issued, and chains through it are ambiguous.
        if Parsed::from_der(certificate.der())?.is_self_issued() {
            return Err(CaError::SameAsIssuer);
        }
        Ok(certificate.into())
    }

    /// `path` begins with the CA's own certificate; each next one issued the one before; the last may be a root.
    pub(crate) fn assemble(key: PrivateKey, path: &[Parsed]) -> Result<Self, CaError> {
        let own = path.first().ok_or(ParseError::Pem)?;
        let key_id = own.key_id();
        let root = path
            .last()
            .filter(|last| last.is_self_issued())
            .map(|root| root.der.clone());
        let above = path
            .iter()
            .skip(1)
            .map(|p| p.der.clone())
            .filter(|der| Some(der) != root.as_ref());
        let path_len = (0_u8..)
            .zip(path)
            .filter_map(|(depth, p)| p.ca.and_then(|ca| ca.path_len).map(|limit| limit.saturating_sub(depth)))
            .min();
        Ok(Self {
            issuer: Issuer::from_ca_cert_der(&own.der, key)?,
            certificate: own.der.clone(),
            chain: above.collect(),
            root,
            key_id,
            subject: own.subject.clone(),
            not_before: path.iter().map(|p| p.not_before).max().unwrap_or(own.not_before),
            not_after: path.iter().map(|p| p.not_after).min().unwrap_or(own.not_after),
            own_not_after: own.not_after,
            path_len,
            purposes: common_purposes(path),
            publication: None,
        })
    }

    /// Tells where this CA's certificate and CRLs are published; certificates issued from now on carry these URLs.
    #[must_use]
    pub fn with_publication(mut self, publication: Publication) -> Self {
        self.publication = Some(publication);
        self
    }

    /// Where this CA publishes, when told.
    pub const fn publication(&self) -> Option<&Publication> {
        self.publication.as_ref()
    }

    /// The CA's own certificate.
    pub const fn certificate_der(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// The certificates above this one, nearest first, without the root.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// The root that this CA ends in: itself when self-signed; `None` when only intermediates were brought along.
    pub const fn root_der(&self) -> Option<&CertificateDer<'static>> {
        self.root.as_ref()
    }

    /// Whether this CA is its own root.
    pub fn is_root(&self) -> bool {
        self.root.as_ref() == Some(&self.certificate)
    }

    /// What is sent after a leaf in TLS and to devices: this CA and those above, without the root.
    pub fn issuing_chain(&self) -> impl Iterator<Item = &CertificateDer<'static>> {
        (!self.is_root())
            .then_some(&self.certificate)
            .into_iter()
            .chain(&self.chain)
    }

    /// The subject key identifier of the CA's certificate: its name in URLs and the ledger.
    pub const fn key_id(&self) -> &KeyId {
        &self.key_id
    }

    /// Start of what this CA can vouch for: the latest start among its certificate and those above, Unix seconds.
    pub const fn not_before(&self) -> i64 {
        self.not_before
    }

    /// End of what this CA can vouch for: the earliest end among its certificate and those above, Unix seconds.
    pub const fn not_after(&self) -> i64 {
        self.not_after
    }

    /// End of the CA's own certificate, Unix seconds.
    pub const fn certificate_not_after(&self) -> i64 {
        self.own_not_after
    }

    /// The algorithm of the CA's key.
    pub fn algorithm(&self) -> KeyAlgorithm {
        self.issuer.key().algorithm()
    }

    /// The CA's public key.
    pub fn public_key(&self) -> &SubjectPublicKey {
        self.issuer.key().public_key()
    }

    /// The DER subject of the CA's certificate.
    pub(crate) fn subject_der(&self) -> &[u8] {
        &self.subject
    }

    /// Whether this CA and those above may issue for this extended key usage.
    pub(crate) fn allows_purpose(&self, purpose: &ObjectIdentifier) -> bool {
        self.purposes.as_ref().is_none_or(|allowed| allowed.contains(purpose))
    }
}

impl fmt::Debug for CertificateAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertificateAuthority")
            .field("key_id", &self.key_id)
            .field("algorithm", &self.algorithm())
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

fn set_validity(params: &mut CertificateParams, not_before: i64, not_after: i64, now: i64) -> Result<(), CaError> {
    if not_after <= now {
        return Err(CaError::NoValidity);
    }
    params.not_before = date_time(not_before);
    params.not_after = date_time(not_after);
    Ok(())
}

pub(crate) fn aia(publication: &Publication, issuer: &KeyId) -> Result<Vec<CustomExtension>, CaError> {
    authority_information_access(publication, issuer)
        .map(|extension| vec![extension])
        .map_err(|e| CaError::Encode(e.to_string()))
}

/// Purposes that every certificate of the path allows; `None` when none of them sets limits.
fn common_purposes(path: &[Parsed]) -> Option<Vec<ObjectIdentifier>> {
    const ANY: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.37.0");
    path.iter()
        .filter_map(|p| p.extended_key_usage.clone())
        .filter(|usages| !usages.contains(&ANY))
        .reduce(|common, next| common.into_iter().filter(|usage| next.contains(usage)).collect())
}

/// Makes a DER request for a CA certificate that is signed outside. It asks for `basicConstraints` CA, `keyCertSign`
/// and `cRLSign`; the signed certificate is brought back by [`CertificateAuthority::import`].
pub fn create_ca_csr(key: &PrivateKey, subject: &CaSubject) -> Result<Vec<u8>, CaError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = subject.distinguished_name()?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params.serialize_request(key)?.der().to_vec())
}

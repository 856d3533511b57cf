//! PKCS#10 certification requests (RFC 2986): only the public key is taken, after proof that the sender holds it.

use certwave_protocol::control::{COMMON_NAME, sole_common_name};
use x509_cert::der::{self, Decode as _, Reader, SliceReader, Tag};
use x509_cert::name::Name;

use crate::{
    KeyAlgorithm, KeyError, LeafSubject, NameError, PrivateKey, PublicKeyError, SubjectPublicKey, signature::Signed,
};

/// The largest request that is looked at, in bytes of DER. An RSA-4096 request with many SANs stays below 2 KiB.
pub const MAX_CSR_BYTES: usize = 8 * 1024;

/// Which keys may be certified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CsrPolicy {
    /// The key algorithms that are allowed.
    pub algorithms: Vec<KeyAlgorithm>,
}

impl Default for CsrPolicy {
    /// Every algorithm that Certwave knows.
    fn default() -> Self {
        Self {
            algorithms: KeyAlgorithm::ALL.to_vec(),
        }
    }
}

/// Why a certification request is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CsrError {
    /// Longer than [`MAX_CSR_BYTES`].
    #[error("the request has {0} bytes; at most {MAX_CSR_BYTES} are read")]
    TooLarge(usize),
    /// Not a DER PKCS#10 request.
    #[error("not a DER PKCS#10 request: {0}")]
    Garbage(String),
    /// Several common names: any of them might be another device's.
    #[error("the request's subject has several common names")]
    SeveralNames,
    /// Not signed by the key that it asks to certify, or with an algorithm that proves nothing (SHA-1).
    #[error("the request is not signed by its own key")]
    BadSignature,
    /// A key that protects nothing.
    #[error("the key is too weak: {0}")]
    WeakKey(String),
    /// A key algorithm that is not known or that the policy does not allow.
    #[error("the key algorithm is not allowed: {0}")]
    AlgorithmNotAllowed(String),
}

impl CsrError {
    /// The code by which the protocol tells a device; a closed set, also for metric labels.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::TooLarge(_) | Self::Garbage(_) => "csr-invalid",
            Self::SeveralNames => "csr-subject",
            Self::BadSignature => "csr-signature",
            Self::WeakKey(_) => "key-weak",
            Self::AlgorithmNotAllowed(_) => "key-algorithm",
        }
    }

    /// The same as [`code`](Self::code).
    pub const fn category(&self) -> &'static str {
        self.code()
    }
}

impl From<PublicKeyError> for CsrError {
    fn from(error: PublicKeyError) -> Self {
        match error {
            PublicKeyError::Malformed(why) => Self::Garbage(why),
            PublicKeyError::Unsupported(why) => Self::AlgorithmNotAllowed(why),
            PublicKeyError::Weak(why) => Self::WeakKey(why),
        }
    }
}

impl From<der::Error> for CsrError {
    fn from(error: der::Error) -> Self {
        Self::Garbage(error.to_string())
    }
}

/// A request whose sender has proved to hold the key. Nothing of its subject or attributes goes into a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Csr {
    public_key: SubjectPublicKey,
    common_name: Option<String>,
}

impl Csr {
    /// Reads and checks a DER request: size, structure, key algorithm and strength, policy, self-signature.
    pub fn parse(der: &[u8], policy: &CsrPolicy) -> Result<Self, CsrError> {
        if der.len() > MAX_CSR_BYTES {
            return Err(CsrError::TooLarge(der.len()));
        }
        let signed = Signed::from_der(der)?;
        let public_key = SubjectPublicKey::from_spki_der(spki(signed.body)?)?;
        if !policy.algorithms.contains(&public_key.algorithm()) {
            return Err(CsrError::AlgorithmNotAllowed(public_key.algorithm().to_string()));
        }
        if !signed.is_signed_by(&public_key) {
            return Err(CsrError::BadSignature);
        }
        let common_name = common_name(signed.body)?;
        Ok(Self {
            public_key,
            common_name,
        })
    }

    /// The common name that the request asks for, if any: only good for refusing a request meant for another device.
    pub fn common_name(&self) -> Option<&str> {
        self.common_name.as_deref()
    }

    /// The key to certify.
    pub const fn public_key(&self) -> &SubjectPublicKey {
        &self.public_key
    }

    /// The key's algorithm and size.
    pub const fn algorithm(&self) -> KeyAlgorithm {
        self.public_key.algorithm()
    }

    /// The DER `SubjectPublicKeyInfo`.
    pub fn spki_der(&self) -> &[u8] {
        self.public_key.spki_der()
    }

    /// SHA-256 of [`spki_der`](Self::spki_der).
    pub const fn spki_sha256(&self) -> &[u8; 32] {
        self.public_key.spki_sha256()
    }
}

/// The subject's common name inside a `CertificationRequestInfo`.
fn common_name(info: &[u8]) -> Result<Option<String>, CsrError> {
    let mut reader = SliceReader::new(info)?;
    let subject = reader.sequence(|r| {
        let _version: u8 = r.decode()?;
        let subject = r.tlv_bytes()?;
        while !r.is_finished() {
            r.tlv_bytes()?;
        }
        Ok::<_, der::Error>(subject)
    })?;
    let name = Name::from_der(subject)?;
    if name.iter().filter(|attribute| attribute.oid == COMMON_NAME).count() > 1 {
        return Err(CsrError::SeveralNames);
    }
    Ok(sole_common_name(&name))
}

/// The `subjectPKInfo` inside a `CertificationRequestInfo`.
fn spki(info: &[u8]) -> der::Result<&[u8]> {
    let mut reader = SliceReader::new(info)?;
    let spki = reader.sequence(|r| {
        let version: u8 = r.decode()?;
        if version != 0 {
            return Err(Tag::Integer.value_error().into());
        }
        Tag::Sequence.assert_eq(Tag::peek(r)?)?;
        r.tlv_bytes()?;
        let spki = r.tlv_bytes()?;
        // Attributes are mandatory in RFC 2986, yet some devices leave an empty set out.
        if !r.is_finished() {
            let attributes = Tag::ContextSpecific {
                constructed: true,
                number: der::TagNumber(0),
            };
            attributes.assert_eq(Tag::peek(r)?)?;
            r.tlv_bytes()?;
        }
        Ok::<_, der::Error>(spki)
    })?;
    reader.finish()?;
    Ok(spki)
}

/// Why a request cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CreateCsrError {
    /// The name cannot stand in a certificate.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The key cannot sign.
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// Makes a DER request for a leaf, signed by `key`, with `common_name` as its subject. The CA ignores the subject; it is
/// there for people who look at the request.
pub fn create_leaf_csr(key: &PrivateKey, common_name: &str) -> Result<Vec<u8>, CreateCsrError> {
    let subject = LeafSubject::common_name(common_name)?;
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name = subject.distinguished_name()?;
    let request = params
        .serialize_request(key)
        .map_err(|_| KeyError::Crypto("sign a request"))?;
    Ok(request.der().to_vec())
}

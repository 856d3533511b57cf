//! How a request names the issuer of a certificate (RFC 6960, 4.1.1).

use aws_lc_rs::digest::{Algorithm, SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};

use super::CertId;
use crate::{
    CertificateAuthority, ParseError, Serial,
    asn1::{NULL, OBJECT_IDENTIFIER, OCTET_STRING, SEQUENCE, nested, tlv},
    certificate::Parsed,
};

const SHA1_OID: &[u8] = &[0x2b, 0x0e, 3, 2, 0x1a];
const SHA256_OID: &[u8] = &[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1];

/// By which hash a request names an issuer. SHA-1 is no protection here, only a name that many clients still use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HashAlgorithm {
    /// SHA-1 (RFC 6960, 4.3; RFC 9919, 3.1.1 has clients turn away from it).
    Sha1,
    /// SHA-256 (RFC 9919, 3.1.1).
    Sha256,
}

impl HashAlgorithm {
    /// Both of them.
    pub const ALL: [Self; 2] = [Self::Sha1, Self::Sha256];

    const fn oid(self) -> &'static [u8] {
        match self {
            Self::Sha1 => SHA1_OID,
            Self::Sha256 => SHA256_OID,
        }
    }

    pub(super) fn from_oid(oid: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.oid() == oid)
    }
}

/// The hash of `bytes` by `algorithm`, which is of `N` bytes.
fn hash<const N: usize>(algorithm: &'static Algorithm, bytes: &[u8]) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(digest(algorithm, bytes).as_ref());
    out
}

/// SHA-1 of a public key's bits: how a responder is named by key (RFC 6960, 4.2.1, `KeyHash`).
pub(super) fn key_hash(bits: &[u8]) -> [u8; 20] {
    hash(&SHA1_FOR_LEGACY_USE_ONLY, bits)
}

/// An issuer as requests name it: the hashes of its name and of its key, by each algorithm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuerId {
    sha1: ([u8; 20], [u8; 20]),
    sha256: ([u8; 32], [u8; 32]),
}

impl IssuerId {
    /// Of a CA that is at hand.
    pub fn of(issuer: &CertificateAuthority) -> Self {
        Self::new(issuer.subject_der(), issuer.public_key().bits())
    }

    /// Of a CA whose DER certificate is at hand, as a responder has it that cannot issue.
    pub fn from_certificate(der: &[u8]) -> Result<Self, ParseError> {
        let certificate = Parsed::from_der(der)?;
        Ok(Self::new(&certificate.subject, certificate.public_key.bits()))
    }

    fn new(name: &[u8], key: &[u8]) -> Self {
        Self {
            sha1: (hash(&SHA1_FOR_LEGACY_USE_ONLY, name), key_hash(key)),
            sha256: (hash(&SHA256, name), hash(&SHA256, key)),
        }
    }

    fn hashes(&self, algorithm: HashAlgorithm) -> (&[u8], &[u8]) {
        match algorithm {
            HashAlgorithm::Sha1 => (&self.sha1.0, &self.sha1.1),
            HashAlgorithm::Sha256 => (&self.sha256.0, &self.sha256.1),
        }
    }

    /// Whether a request means this issuer: name and key must both be right, as two CAs may share either.
    pub fn is_named_by(&self, id: &CertId<'_>) -> bool {
        let Some(algorithm) = id.algorithm else {
            return false;
        };
        self.hashes(algorithm) == (id.issuer_name_hash, id.issuer_key_hash)
    }

    /// The DER `CertID` of a certificate of this issuer, as OpenSSL and Go write it: the hash with NULL parameters.
    pub fn cert_id(&self, algorithm: HashAlgorithm, serial: &Serial) -> Vec<u8> {
        let (name, key) = self.hashes(algorithm);
        let mut out = Vec::with_capacity(128);
        nested(&mut out, SEQUENCE, |out| {
            nested(out, SEQUENCE, |out| {
                tlv(out, OBJECT_IDENTIFIER, algorithm.oid());
                tlv(out, NULL, &[]);
            });
            tlv(out, OCTET_STRING, name);
            tlv(out, OCTET_STRING, key);
            serial.write(out);
        });
        out
    }
}

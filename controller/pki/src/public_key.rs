//! Public keys as they stand in certificates and CSRs, checked for algorithm and strength.

use std::fmt;

use aws_lc_rs::{
    digest::{SHA256, digest},
    signature::{ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, ParsedPublicKey},
};
use rcgen::PublicKeyData;
use x509_cert::{
    der::{
        Decode, Reader, SliceReader, Tag, Tagged,
        asn1::{ObjectIdentifier, UintRef},
    },
    spki::SubjectPublicKeyInfoRef,
};

use crate::KeyAlgorithm;

const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const SECP256R1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const SECP384R1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
const RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");

/// The smallest public exponent that is accepted (FIPS 186-5, A.1.1).
const MIN_RSA_EXPONENT: u64 = 65_537;
/// AWS-LC and Go verify exponents of at most 33 and 31 bits; no real key needs more.
const MAX_RSA_EXPONENT: u64 = (1 << 31) - 1;

/// Why a public key is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublicKeyError {
    /// Not a DER `SubjectPublicKeyInfo`.
    #[error("the public key is not a valid SubjectPublicKeyInfo: {0}")]
    Malformed(String),
    /// An algorithm, curve or size that Certwave does not know.
    #[error("the key algorithm is not supported: {0}")]
    Unsupported(String),
    /// A key that does not protect what it signs.
    #[error("the key is too weak: {0}")]
    Weak(String),
}

impl PublicKeyError {
    /// A short name from a closed set, for metric labels.
    pub const fn category(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "malformed",
            Self::Unsupported(_) => "unsupported",
            Self::Weak(_) => "weak",
        }
    }
}

/// A key identifier (RFC 5280, 4.2.1.2): shown and used in URLs as lower-case hex.
///
/// For keys made here it is the leftmost 160 bits of the SHA-256 of the public key's bits (RFC 7093, method 1); a CA
/// that was brought along keeps the one of its certificate.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId(Vec<u8>);

impl KeyId {
    pub(crate) fn from_bytes(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into())
    }

    /// The identifier's bytes, as they stand in SKI and AKI.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub(crate) fn rcgen(&self) -> rcgen::KeyIdMethod {
        rcgen::KeyIdMethod::PreSpecified(self.0.clone())
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(&self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

/// A public key whose algorithm is known and whose strength was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubjectPublicKey {
    algorithm: KeyAlgorithm,
    /// The bits of `subjectPublicKey`.
    bits: Vec<u8>,
    spki: Vec<u8>,
    spki_sha256: [u8; 32],
}

impl SubjectPublicKey {
    /// Reads and checks a DER `SubjectPublicKeyInfo` (RFC 5280, 4.1.2.7).
    ///
    /// EC points must be uncompressed and on the curve; RSA needs an odd modulus of exactly 2048, 3072 or 4096 bits
    /// and an odd exponent between 65537 and 2^31 - 1.
    pub fn from_spki_der(spki: &[u8]) -> Result<Self, PublicKeyError> {
        let malformed = |e: x509_cert::der::Error| PublicKeyError::Malformed(e.to_string());
        let info = SubjectPublicKeyInfoRef::from_der(spki).map_err(malformed)?;
        let bits = info
            .subject_public_key
            .as_bytes()
            .ok_or_else(|| PublicKeyError::Malformed("the key has unused bits".into()))?;
        let parameters = info.algorithm.parameters;
        let algorithm = match info.algorithm.oid {
            EC_PUBLIC_KEY => ec_algorithm(info.algorithm.parameters_oid().ok(), bits)?,
            RSA_ENCRYPTION => {
                // RFC 3279, 2.3.1: the parameters are NULL, and only then is the encoding of a key unique.
                if !parameters.is_some_and(|p| p.tag() == Tag::Null && p.value().is_empty()) {
                    return Err(PublicKeyError::Malformed("RSA parameters must be NULL".into()));
                }
                rsa_algorithm(bits)?
            }
            ED25519 => {
                if parameters.is_some() || bits.len() != 32 {
                    return Err(PublicKeyError::Malformed("not an Ed25519 key".into()));
                }
                KeyAlgorithm::Ed25519
            }
            oid => return Err(PublicKeyError::Unsupported(format!("algorithm {oid}"))),
        };
        Ok(Self {
            algorithm,
            bits: bits.to_vec(),
            spki: spki.to_vec(),
            spki_sha256: sha256(spki),
        })
    }

    /// The key's algorithm and size.
    pub const fn algorithm(&self) -> KeyAlgorithm {
        self.algorithm
    }

    /// The DER `SubjectPublicKeyInfo`.
    pub fn spki_der(&self) -> &[u8] {
        &self.spki
    }

    /// SHA-256 of [`spki_der`](Self::spki_der): what tells keys apart in the ledger.
    pub const fn spki_sha256(&self) -> &[u8; 32] {
        &self.spki_sha256
    }

    /// [`spki_sha256`](Self::spki_sha256) as 64 lower-case hexadecimal digits.
    pub fn spki_sha256_hex(&self) -> String {
        hex::encode(self.spki_sha256)
    }

    /// The key identifier by RFC 7093, method 1.
    pub fn key_id(&self) -> KeyId {
        KeyId(sha256(&self.bits)[..20].to_vec())
    }

    pub(crate) fn bits(&self) -> &[u8] {
        &self.bits
    }
}

impl PublicKeyData for SubjectPublicKey {
    fn der_bytes(&self) -> &[u8] {
        &self.bits
    }

    fn subject_public_key_info(&self) -> Vec<u8> {
        self.spki.clone()
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        self.algorithm.rcgen()
    }
}

fn ec_algorithm(curve: Option<ObjectIdentifier>, point: &[u8]) -> Result<KeyAlgorithm, PublicKeyError> {
    let (algorithm, coordinate, verification) = match curve {
        Some(SECP256R1) => (KeyAlgorithm::EcdsaP256, 32, &ECDSA_P256_SHA256_ASN1),
        Some(SECP384R1) => (KeyAlgorithm::EcdsaP384, 48, &ECDSA_P384_SHA384_ASN1),
        Some(oid) => return Err(PublicKeyError::Unsupported(format!("curve {oid}"))),
        None => return Err(PublicKeyError::Unsupported("a curve without a name".into())),
    };
    match point.first() {
        Some(4) if point.len() == 1 + 2 * coordinate => {}
        Some(2 | 3) if point.len() == 1 + coordinate => {
            return Err(PublicKeyError::Unsupported("a compressed EC point".into()));
        }
        _ => {
            return Err(PublicKeyError::Malformed("the EC point has a wrong form".into()));
        }
    }
    ParsedPublicKey::new(verification, point)
        .map_err(|_| PublicKeyError::Weak("the EC point is not on the curve".into()))?;
    Ok(algorithm)
}

fn rsa_algorithm(key: &[u8]) -> Result<KeyAlgorithm, PublicKeyError> {
    let malformed = |e: x509_cert::der::Error| PublicKeyError::Malformed(format!("RSA key: {e}"));
    let mut reader = SliceReader::new(key).map_err(malformed)?;
    let (modulus, exponent) = reader
        .sequence(|r| Ok::<_, x509_cert::der::Error>((UintRef::decode(r)?, UintRef::decode(r)?)))
        .map_err(malformed)?;
    reader.finish().map_err(malformed)?;

    let modulus = modulus.as_bytes();
    let bits = modulus
        .first()
        .map_or(0, |first| modulus.len() * 8 - first.leading_zeros() as usize);
    if bits < 2048 {
        return Err(PublicKeyError::Weak(format!(
            "RSA with {bits} bits; at least 2048 are needed"
        )));
    }
    if modulus.last().is_none_or(|last| last % 2 == 0) {
        return Err(PublicKeyError::Weak("the RSA modulus is even".into()));
    }
    let exponent = exponent.as_bytes();
    let exponent = exponent
        .iter()
        .try_fold(0_u64, |value, byte| {
            (value >> 56 == 0).then(|| value << 8 | u64::from(*byte))
        })
        .unwrap_or(u64::MAX);
    if exponent % 2 == 0 {
        return Err(PublicKeyError::Weak("the RSA exponent is even".into()));
    }
    if !(MIN_RSA_EXPONENT..=MAX_RSA_EXPONENT).contains(&exponent) {
        return Err(PublicKeyError::Weak(
            "the RSA exponent is not between 65537 and 2^31 - 1".into(),
        ));
    }
    match bits {
        2048 => Ok(KeyAlgorithm::Rsa2048),
        3072 => Ok(KeyAlgorithm::Rsa3072),
        4096 => Ok(KeyAlgorithm::Rsa4096),
        _ => Err(PublicKeyError::Unsupported(format!(
            "RSA with {bits} bits; use 2048, 3072 or 4096"
        ))),
    }
}

pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, bytes).as_ref());
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use x509_cert::der::{Encode, asn1::UintRef};

    use super::*;

    /// An RSA key whose modulus has `bits` bits, all of them set.
    fn rsa(bits: usize, exponent: &[u8]) -> Result<KeyAlgorithm, PublicKeyError> {
        let mut modulus = vec![0xff; bits.div_ceil(8)];
        modulus[0] >>= modulus.len() * 8 - bits;
        let integers = [modulus.as_slice(), exponent].map(|n| UintRef::new(n).unwrap().to_der().unwrap());
        let mut key = vec![0x30, 0x82];
        key.extend(u16::try_from(integers.concat().len()).unwrap().to_be_bytes());
        key.extend(integers.concat());
        rsa_algorithm(&key)
    }

    #[test]
    fn rsa_keys_need_a_known_size_and_a_safe_exponent() {
        let f4 = [1, 0, 1];
        assert_eq!(rsa(2048, &f4), Ok(KeyAlgorithm::Rsa2048));
        assert_eq!(rsa(3072, &f4), Ok(KeyAlgorithm::Rsa3072));
        assert_eq!(rsa(4096, &f4), Ok(KeyAlgorithm::Rsa4096));
        assert!(matches!(rsa(2040, &f4), Err(PublicKeyError::Weak(_))));
        assert!(matches!(rsa(2047, &f4), Err(PublicKeyError::Weak(_))));
        assert!(matches!(rsa(2049, &f4), Err(PublicKeyError::Unsupported(_))));
        assert!(matches!(rsa(8192, &f4), Err(PublicKeyError::Unsupported(_))));
        for weak in [
            &[1][..],
            &[2],
            &[3],
            &[0xff, 0xff],
            &[1, 0, 2],
            &[0x80, 0, 0, 1],
            &[0xff; 9],
        ] {
            assert!(matches!(rsa(2048, weak), Err(PublicKeyError::Weak(_))), "{weak:02x?}");
        }
    }
}

//! Keys that sign and verify envelopes. The algorithm follows from the key, never from a message (RFC 8725 3.1).

use std::fmt;

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED, ECDSA_P384_SHA384_FIXED_SIGNING,
    ED25519, EcdsaKeyPair, Ed25519KeyPair, KeyPair, ParsedPublicKey, RSA_PSS_2048_8192_SHA256, RSA_PSS_SHA256,
    RsaKeyPair, VerificationAlgorithm,
};
use x509_cert::Certificate;
use x509_cert::der::asn1::{ObjectIdentifier, UintRef};
use x509_cert::der::{self, Decode, Encode, Reader, SliceReader};
use x509_cert::spki::SubjectPublicKeyInfoRef;

const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const SECP256R1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const SECP384R1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
const RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const ED25519_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");

/// 2048 bits.
const MIN_RSA_BYTES: usize = 256;

/// A JWS algorithm (RFC 7518 3.1, RFC 8037 3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// ECDSA on P-384 with SHA-384.
    Es384,
    /// Ed25519.
    EdDsa,
    /// RSASSA-PSS with SHA-256, MGF1 with SHA-256 and a salt of 32 bytes.
    Ps256,
}

impl Algorithm {
    /// Every algorithm, in the order of the specification.
    pub const ALL: [Self; 4] = [Self::Es256, Self::Es384, Self::EdDsa, Self::Ps256];

    /// The name in the JOSE header.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::EdDsa => "EdDSA",
            Self::Ps256 => "PS256",
        }
    }

    /// Reads a name as it stands in the JOSE header; `None` for any other.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|a| a.as_str() == name)
    }

    fn of(spki: &SubjectPublicKeyInfoRef<'_>) -> Option<Self> {
        match spki.algorithm.oid {
            EC_PUBLIC_KEY => match spki.algorithm.parameters_oid().ok()? {
                SECP256R1 => Some(Self::Es256),
                SECP384R1 => Some(Self::Es384),
                _ => None,
            },
            RSA_ENCRYPTION => Some(Self::Ps256),
            ED25519_KEY => Some(Self::EdDsa),
            _ => None,
        }
    }

    fn verification(self) -> &'static dyn VerificationAlgorithm {
        match self {
            Self::Es256 => &ECDSA_P256_SHA256_FIXED,
            Self::Es384 => &ECDSA_P384_SHA384_FIXED,
            Self::EdDsa => &ED25519,
            Self::Ps256 => &RSA_PSS_2048_8192_SHA256,
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a key is not taken, or a signature not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The private key is not PKCS#8 of P-256, P-384, Ed25519 or RSA of 2048 bits or more.
    #[error("not a PKCS#8 private key of P-256, P-384, Ed25519 or RSA (2048 bits or more)")]
    PrivateKey,
    /// The public key is not one of P-256, P-384, Ed25519 or RSA of 2048 bits or more.
    #[error("not a public key of P-256, P-384, Ed25519 or RSA (2048 bits or more)")]
    PublicKey,
    /// Not a DER certificate.
    #[error("not a DER certificate")]
    Certificate,
    /// The signature is not this key's over this message.
    #[error("the signature does not verify")]
    Signature,
}

impl KeyError {
    /// A short name from a closed set, for metric labels.
    pub const fn category(&self) -> &'static str {
        match self {
            Self::PrivateKey => "private-key",
            Self::PublicKey => "public-key",
            Self::Certificate => "certificate",
            Self::Signature => "signature",
        }
    }
}

enum Pair {
    Ecdsa(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
    Rsa(RsaKeyPair),
}

/// A private key for envelopes. Parsed once; signing needs `&self` only. `Debug` shows the algorithm alone.
pub struct SigningKey {
    pair: Pair,
    public: VerifyingKey,
}

impl SigningKey {
    /// Reads a DER PKCS#8 private key (RFC 5958).
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, KeyError> {
        let ecdsa = |algorithm| EcdsaKeyPair::from_pkcs8(algorithm, der).ok().map(Pair::Ecdsa);
        let pair = ecdsa(&ECDSA_P256_SHA256_FIXED_SIGNING)
            .or_else(|| ecdsa(&ECDSA_P384_SHA384_FIXED_SIGNING))
            .or_else(|| Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).ok().map(Pair::Ed25519))
            .or_else(|| RsaKeyPair::from_pkcs8(der).ok().map(Pair::Rsa))
            .ok_or(KeyError::PrivateKey)?;
        let spki = match &pair {
            Pair::Ecdsa(key) => spki_of(key.public_key()),
            Pair::Ed25519(key) => spki_of(key.public_key()),
            Pair::Rsa(key) => spki_of(key.public_key()),
        };
        let public = VerifyingKey::from_spki(&spki.ok_or(KeyError::PrivateKey)?)?;
        Ok(Self { pair, public })
    }

    /// The key's JWS algorithm.
    pub fn algorithm(&self) -> Algorithm {
        self.public.algorithm
    }

    /// The public half.
    pub fn public_key(&self) -> &VerifyingKey {
        &self.public
    }

    /// Signs as JWS wants it: ECDSA as r and s of fixed length, one after the other (RFC 7518 3.4).
    ///
    /// # Panics
    /// When the crypto library fails, which for a key that was read means that the machine is out of memory.
    #[allow(clippy::expect_used)]
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        const FAILED: &str = "signing with a checked key fails only without memory";
        match &self.pair {
            Pair::Ecdsa(key) => key.sign(&SystemRandom::new(), message).expect(FAILED).as_ref().to_vec(),
            Pair::Ed25519(key) => key.sign(message).as_ref().to_vec(),
            Pair::Rsa(key) => {
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(&RSA_PSS_SHA256, &SystemRandom::new(), message, &mut signature)
                    .expect(FAILED);
                signature
            }
        }
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey")
            .field("algorithm", &self.algorithm())
            .finish_non_exhaustive()
    }
}

fn spki_of(key: &impl AsDer<PublicKeyX509Der<'static>>) -> Option<Vec<u8>> {
    key.as_der().ok().map(|der| der.as_ref().to_vec())
}

/// Whether the modulus of an `RSAPublicKey` (RFC 8017 A.1.1) is long enough; the library tells only when it verifies.
fn is_strong_rsa(public_key: &[u8]) -> bool {
    let modulus = |reader: &mut SliceReader<'_>| {
        reader.sequence(|r| {
            let modulus = UintRef::decode(r)?;
            UintRef::decode(r)?;
            Ok::<_, der::Error>(modulus.as_bytes().len())
        })
    };
    SliceReader::new(public_key)
        .and_then(|mut reader| modulus(&mut reader))
        .is_ok_and(|bytes| bytes >= MIN_RSA_BYTES)
}

/// A public key for envelopes. Parsed once, cheap to use again and to clone.
#[derive(Clone)]
pub struct VerifyingKey {
    algorithm: Algorithm,
    key: ParsedPublicKey,
    spki: Box<[u8]>,
}

impl VerifyingKey {
    /// Reads a DER `SubjectPublicKeyInfo` (RFC 5280 4.1).
    pub fn from_spki(der: &[u8]) -> Result<Self, KeyError> {
        let spki = SubjectPublicKeyInfoRef::from_der(der).map_err(|_| KeyError::PublicKey)?;
        let algorithm = Algorithm::of(&spki).ok_or(KeyError::PublicKey)?;
        let bits = spki.subject_public_key.raw_bytes();
        if algorithm == Algorithm::Ps256 && !is_strong_rsa(bits) {
            return Err(KeyError::PublicKey);
        }
        let key = ParsedPublicKey::new(algorithm.verification(), bits).map_err(|_| KeyError::PublicKey)?;
        Ok(Self {
            algorithm,
            key,
            spki: der.into(),
        })
    }

    /// Reads the key of a DER certificate (RFC 5280). Checks nothing else of it.
    pub fn from_certificate(der: &[u8]) -> Result<Self, KeyError> {
        let certificate = Certificate::from_der(der).map_err(|_| KeyError::Certificate)?;
        let spki = certificate.tbs_certificate().subject_public_key_info();
        Self::from_spki(&spki.to_der().map_err(|_| KeyError::Certificate)?)
    }

    /// The key's JWS algorithm.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The DER `SubjectPublicKeyInfo`.
    pub fn spki(&self) -> &[u8] {
        &self.spki
    }

    /// Checks a signature in the form of JWS (RFC 7518 3).
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), KeyError> {
        self.key.verify_sig(message, signature).map_err(|_| KeyError::Signature)
    }
}

impl PartialEq for VerifyingKey {
    fn eq(&self, other: &Self) -> bool {
        self.spki == other.spki
    }
}
impl Eq for VerifyingKey {}

impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerifyingKey")
            .field("algorithm", &self.algorithm)
            .finish_non_exhaustive()
    }
}

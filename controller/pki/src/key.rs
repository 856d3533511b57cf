//! Private keys: made, read, written and used; never shown.

use std::fmt;

use aws_lc_rs::{
    encoding::{AsDer, Pkcs8V1Der},
    rand::SystemRandom,
    rsa::KeySize,
    signature::{
        ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm,
        Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair,
    },
};
use rcgen::{PublicKeyData, SigningKey};
use rustls_pki_types::{PrivateKeyDer, pem::PemObject};
use secrecy::SecretString;
use zeroize::Zeroizing;

use crate::{KeyAlgorithm, KeyId, PublicKeyError, SubjectPublicKey, pem};

/// Why a private key cannot be made, read or used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// There is no unencrypted private key in the PEM text.
    #[error("no unencrypted private key (PKCS#8, SEC 1 or PKCS#1) in the PEM text")]
    NoKey,
    /// The key cannot be read, or is of no known algorithm.
    #[error("the private key is damaged or of an algorithm that is not supported")]
    Unreadable,
    /// The key is refused for its algorithm or strength.
    #[error(transparent)]
    Public(#[from] PublicKeyError),
    /// The crypto library failed; this is a fault of the machine.
    #[error("the crypto library failed to {0}")]
    Crypto(&'static str),
}

impl KeyError {
    /// A short name from a closed set, for metric labels.
    pub const fn category(&self) -> &'static str {
        match self {
            Self::NoKey => "no-key",
            Self::Unreadable => "unreadable",
            Self::Public(error) => error.category(),
            Self::Crypto(_) => "crypto",
        }
    }
}

enum Pair {
    Ecdsa(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
    Rsa(RsaKeyPair),
}

/// A private key that can sign certificates, CSRs and CRLs. `Debug` shows its public half only; memory that holds its
/// encoding is wiped when it is dropped.
pub struct PrivateKey {
    pair: Pair,
    public: SubjectPublicKey,
    pkcs8: Zeroizing<Vec<u8>>,
}

impl PrivateKey {
    /// Makes a fresh key.
    pub fn generate(algorithm: KeyAlgorithm) -> Result<Self, KeyError> {
        let failed = |_| KeyError::Crypto("generate a key");
        Self::from_pair(match algorithm {
            KeyAlgorithm::EcdsaP256 => {
                Pair::Ecdsa(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).map_err(failed)?)
            }
            KeyAlgorithm::EcdsaP384 => {
                Pair::Ecdsa(EcdsaKeyPair::generate(&ECDSA_P384_SHA384_ASN1_SIGNING).map_err(failed)?)
            }
            KeyAlgorithm::Ed25519 => Pair::Ed25519(Ed25519KeyPair::generate().map_err(failed)?),
            KeyAlgorithm::Rsa2048 => Pair::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).map_err(failed)?),
            KeyAlgorithm::Rsa3072 => Pair::Rsa(RsaKeyPair::generate(KeySize::Rsa3072).map_err(failed)?),
            KeyAlgorithm::Rsa4096 => Pair::Rsa(RsaKeyPair::generate(KeySize::Rsa4096).map_err(failed)?),
        })
    }

    /// Reads the first private key of a PEM text: PKCS#8 (`PRIVATE KEY`), SEC 1 (`EC PRIVATE KEY`) or PKCS#1
    /// (`RSA PRIVATE KEY`), not encrypted.
    pub fn from_pem(pem: &str) -> Result<Self, KeyError> {
        match PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| KeyError::NoKey)? {
            PrivateKeyDer::Pkcs8(key) => Self::from_pkcs8_der(key.secret_pkcs8_der()),
            PrivateKeyDer::Sec1(key) => Self::from_pair(ecdsa(key.secret_sec1_der()).ok_or(KeyError::Unreadable)?),
            PrivateKeyDer::Pkcs1(key) => {
                let pair = RsaKeyPair::from_der(key.secret_pkcs1_der()).map_err(|_| KeyError::Unreadable)?;
                Self::from_pair(Pair::Rsa(pair))
            }
            _ => Err(KeyError::NoKey),
        }
    }

    /// Reads a DER PKCS#8 key (RFC 5958).
    pub fn from_pkcs8_der(der: &[u8]) -> Result<Self, KeyError> {
        let pair = if let Ok(pair) = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der) {
            Pair::Ed25519(pair)
        } else if let Ok(pair) = RsaKeyPair::from_pkcs8(der) {
            Pair::Rsa(pair)
        } else {
            ecdsa(der).ok_or(KeyError::Unreadable)?
        };
        Self::from_pair(pair)
    }

    fn from_pair(pair: Pair) -> Result<Self, KeyError> {
        let failed = |_| KeyError::Crypto("encode a key");
        // PKCS#8 version 1 for all: OpenSSL and Go do not read version 2 of Ed25519 keys.
        let (pkcs8, algorithm, bits) = match &pair {
            Pair::Ecdsa(key) => {
                let algorithm = if key.algorithm() == &ECDSA_P256_SHA256_ASN1_SIGNING {
                    KeyAlgorithm::EcdsaP256
                } else {
                    KeyAlgorithm::EcdsaP384
                };
                (
                    copy(key.to_pkcs8v1().map_err(failed)?.as_ref()),
                    algorithm,
                    key.public_key().as_ref(),
                )
            }
            Pair::Ed25519(key) => (
                copy(key.to_pkcs8v1().map_err(failed)?.as_ref()),
                KeyAlgorithm::Ed25519,
                key.public_key().as_ref(),
            ),
            Pair::Rsa(key) => {
                let pkcs8 = AsDer::<Pkcs8V1Der<'_>>::as_der(key).map_err(failed)?;
                // All sizes are encoded alike; the size is read from the encoding below.
                (copy(pkcs8.as_ref()), KeyAlgorithm::Rsa2048, key.public_key().as_ref())
            }
        };
        let spki = RawPublicKey { algorithm, bits }.subject_public_key_info();
        let public = SubjectPublicKey::from_spki_der(&spki)?;
        Ok(Self { pair, public, pkcs8 })
    }

    /// The key as PKCS#8 PEM, for a Secret or a file.
    pub fn to_pkcs8_pem(&self) -> SecretString {
        SecretString::from(pem::encode("PRIVATE KEY", &self.pkcs8))
    }

    /// The key as PKCS#8 DER, for example for a TLS configuration. Copies must be wiped.
    pub fn secret_pkcs8_der(&self) -> &[u8] {
        &self.pkcs8
    }

    /// The key's algorithm and size.
    pub const fn algorithm(&self) -> KeyAlgorithm {
        self.public.algorithm()
    }

    /// The public half.
    pub const fn public_key(&self) -> &SubjectPublicKey {
        &self.public
    }

    /// The DER `SubjectPublicKeyInfo`.
    pub fn spki_der(&self) -> &[u8] {
        self.public.spki_der()
    }

    /// The key identifier by RFC 7093, method 1.
    pub fn key_id(&self) -> KeyId {
        self.public.key_id()
    }

    /// Signs as X.509 wants it: ECDSA in ASN.1 form with the curve's hash, RSA PKCS#1 v1.5 with SHA-256, or Ed25519.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        let failed = |_| KeyError::Crypto("sign");
        match &self.pair {
            Pair::Ecdsa(key) => Ok(key
                .sign(&SystemRandom::new(), message)
                .map_err(failed)?
                .as_ref()
                .to_vec()),
            Pair::Ed25519(key) => Ok(key.try_sign(message).map_err(failed)?.as_ref().to_vec()),
            Pair::Rsa(key) => {
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature)
                    .map_err(failed)?;
                Ok(signature)
            }
        }
    }
}

fn copy(der: &[u8]) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(der.to_vec())
}

/// Reads an EC key, as PKCS#8 or SEC 1, of either curve.
fn ecdsa(der: &[u8]) -> Option<Pair> {
    let curves: [&'static EcdsaSigningAlgorithm; 2] =
        [&ECDSA_P256_SHA256_ASN1_SIGNING, &ECDSA_P384_SHA384_ASN1_SIGNING];
    curves
        .into_iter()
        .find_map(|curve| EcdsaKeyPair::from_private_key_der(curve, der).ok())
        .map(Pair::Ecdsa)
}

struct RawPublicKey<'a> {
    algorithm: KeyAlgorithm,
    bits: &'a [u8],
}

impl PublicKeyData for RawPublicKey<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.bits
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        self.algorithm.rcgen()
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrivateKey")
            .field("algorithm", &self.algorithm())
            .field("key_id", &self.key_id())
            .finish_non_exhaustive()
    }
}

impl PublicKeyData for PrivateKey {
    fn der_bytes(&self) -> &[u8] {
        self.public.bits()
    }

    fn subject_public_key_info(&self) -> Vec<u8> {
        self.public.spki_der().to_vec()
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        self.public.algorithm().rcgen()
    }
}

impl SigningKey for PrivateKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        Self::sign(self, message).map_err(|_| rcgen::Error::RemoteKeyError)
    }
}

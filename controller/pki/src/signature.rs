//! Signed DER structures (`SEQUENCE { to be signed, algorithm, signature }`) and the check of their signature.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA384_ASN1, ECDSA_P256_SHA512_ASN1, ECDSA_P384_SHA256_ASN1,
    ECDSA_P384_SHA384_ASN1, ECDSA_P384_SHA512_ASN1, ED25519, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384,
    RSA_PKCS1_2048_8192_SHA512, UnparsedPublicKey, VerificationAlgorithm,
};
use x509_cert::{
    der::{
        self, Decode, Reader, SliceReader, Tag, Tagged,
        asn1::{BitStringRef, ObjectIdentifier},
    },
    spki::AlgorithmIdentifierRef,
};

use crate::{KeyAlgorithm, SubjectPublicKey};

const ECDSA_WITH_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2");
const ECDSA_WITH_SHA384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.3");
const ECDSA_WITH_SHA512: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.4");
const RSA_WITH_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.11");
const RSA_WITH_SHA384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.12");
const RSA_WITH_SHA512: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.13");
const ID_ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");

/// A certificate, CSR or CRL split into what is signed, how, and the signature. The signed bytes are the original
/// ones, never encoded anew.
#[derive(Clone, Copy)]
pub(crate) struct Signed<'a> {
    /// The signed structure with its tag and length.
    pub(crate) body: &'a [u8],
    algorithm: AlgorithmIdentifierRef<'a>,
    signature: &'a [u8],
}

impl<'a> Signed<'a> {
    pub(crate) fn from_der(der: &'a [u8]) -> der::Result<Self> {
        let mut reader = SliceReader::new(der)?;
        let signed = reader.sequence(|r| {
            let body = r.tlv_bytes()?;
            let algorithm = AlgorithmIdentifierRef::decode(r)?;
            let signature = BitStringRef::decode(r)?;
            let signature = signature
                .as_bytes()
                .ok_or_else(|| der::Error::from(Tag::BitString.value_error()))?;
            Ok::<_, der::Error>(Self {
                body,
                algorithm,
                signature,
            })
        })?;
        reader.finish()?;
        Ok(signed)
    }

    /// Whether the signature over [`body`](Self::body) is by `key`. SHA-1 and RSA-PSS never are.
    pub(crate) fn is_signed_by(&self, key: &SubjectPublicKey) -> bool {
        let Some(algorithm) = verification(key.algorithm(), &self.algorithm) else {
            return false;
        };
        UnparsedPublicKey::new(algorithm, key.bits())
            .verify(self.body, self.signature)
            .is_ok()
    }
}

fn verification(
    key: KeyAlgorithm,
    algorithm: &AlgorithmIdentifierRef<'_>,
) -> Option<&'static dyn VerificationAlgorithm> {
    use KeyAlgorithm::{EcdsaP256, EcdsaP384, Ed25519, Rsa2048, Rsa3072, Rsa4096};

    // RFC 5758 and RFC 8410: parameters absent; RFC 4055, 5: NULL for RSA, or, of old, absent.
    let acceptable = match algorithm.parameters {
        None => true,
        Some(parameters) => key.is_rsa() && parameters.tag() == Tag::Null && parameters.value().is_empty(),
    };
    if !acceptable {
        return None;
    }
    Some(match (key, algorithm.oid) {
        (EcdsaP256, ECDSA_WITH_SHA256) => &ECDSA_P256_SHA256_ASN1,
        (EcdsaP256, ECDSA_WITH_SHA384) => &ECDSA_P256_SHA384_ASN1,
        (EcdsaP256, ECDSA_WITH_SHA512) => &ECDSA_P256_SHA512_ASN1,
        (EcdsaP384, ECDSA_WITH_SHA256) => &ECDSA_P384_SHA256_ASN1,
        (EcdsaP384, ECDSA_WITH_SHA384) => &ECDSA_P384_SHA384_ASN1,
        (EcdsaP384, ECDSA_WITH_SHA512) => &ECDSA_P384_SHA512_ASN1,
        (Ed25519, ID_ED25519) => &ED25519,
        (Rsa2048 | Rsa3072 | Rsa4096, RSA_WITH_SHA256) => &RSA_PKCS1_2048_8192_SHA256,
        (Rsa2048 | Rsa3072 | Rsa4096, RSA_WITH_SHA384) => &RSA_PKCS1_2048_8192_SHA384,
        (Rsa2048 | Rsa3072 | Rsa4096, RSA_WITH_SHA512) => &RSA_PKCS1_2048_8192_SHA512,
        _ => return None,
    })
}

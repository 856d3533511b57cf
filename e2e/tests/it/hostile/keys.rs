//! Keys, requests, and envelopes in which everything can be wrong.

use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use certwave_e2e::identity::Identity;
use certwave_protocol::ids::{Fingerprint, Nonce};
use certwave_protocol::jws::SigningKey;
use certwave_protocol::message::{Certificate, Payload};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PublicKeyData, SignatureAlgorithm};
use serde_json::{Value, json};

/// A private key for TLS, requests and envelopes.
pub(super) struct Key {
    pair: KeyPair,
    /// The same key for envelopes.
    pub(super) signing: SigningKey,
}

impl Key {
    pub(super) fn new() -> Self {
        let pair = KeyPair::generate().unwrap();
        let signing = SigningKey::from_pkcs8(pair.serialized_der()).unwrap();
        Self { pair, signing }
    }

    /// A sound request, DER.
    pub(super) fn request(&self, name: &str) -> Vec<u8> {
        request(&self.pair, name)
    }

    /// A certificate for this key by itself, which nobody trusts, DER.
    pub(super) fn self_signed(&self, name: &str) -> Vec<u8> {
        named(name).self_signed(&self.pair).unwrap().der().to_vec()
    }

    /// A request that shows this key and is signed by another.
    pub(super) fn request_signed_by(&self, other: &Key, name: &str) -> Vec<u8> {
        let posing = Posing {
            shown: &self.pair,
            signs: &other.pair,
        };
        request(&posing, name)
    }
}

fn request(key: &impl rcgen::SigningKey, name: &str) -> Vec<u8> {
    named(name).serialize_request(key).unwrap().der().to_vec()
}

fn named(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

struct Posing<'k> {
    shown: &'k KeyPair,
    signs: &'k KeyPair,
}

impl PublicKeyData for Posing<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.shown.der_bytes()
    }
    fn algorithm(&self) -> &'static SignatureAlgorithm {
        PublicKeyData::algorithm(self.shown)
    }
}

impl rcgen::SigningKey for Posing<'_> {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        rcgen::SigningKey::sign(self.signs, message)
    }
}

/// A request as OpenSSL makes it, for keys that no proper library makes any more.
pub(super) fn openssl_request(key: &[&str], name: &str) -> Vec<u8> {
    let output = Command::new("openssl")
        .args(["req", "-new", "-nodes", "-keyout", "/dev/null", "-outform", "DER"])
        .args(["-subj", &format!("/CN={name}"), "-newkey"])
        .args(key)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// A certificate with its key.
pub(super) struct Credential {
    pub(super) key: Key,
    pub(super) fingerprint: Fingerprint,
    pub(super) identity: Identity,
}

impl Credential {
    /// What the controller issued for `key`.
    pub(super) fn new(key: Key, certificate: &Certificate) -> Self {
        let chain = std::iter::once(&certificate.leaf).chain(&certificate.chain);
        let pem = certwave_pki::certificates_to_pem(chain.map(|der| &der.0));
        Self::from_pem(key, Fingerprint::of(&certificate.leaf.0), pem)
    }

    pub(super) fn from_pem(key: Key, fingerprint: Fingerprint, certificate: String) -> Self {
        let identity = Identity {
            certificate,
            key: key.pair.serialize_pem(),
        };
        Self {
            key,
            fingerprint,
            identity,
        }
    }
}

/// 128 random bits.
pub(super) fn nonce() -> Nonce {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).unwrap();
    Nonce(bytes)
}

/// The header that a proper sender writes.
pub(super) fn header(by: &Credential) -> Value {
    let x5t = URL_SAFE_NO_PAD.encode(by.fingerprint.0);
    json!({ "alg": "ES256", "typ": "certwave+jws", "x5t#S256": x5t })
}

/// An envelope of any header and any payload, with a good signature of `key`.
pub(super) fn forge(header: &Value, payload: &str, key: &Key) -> Vec<u8> {
    let covered = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(header.to_string()),
        URL_SAFE_NO_PAD.encode(payload)
    );
    let signature = URL_SAFE_NO_PAD.encode(key.signing.sign(covered.as_bytes()));
    format!("{covered}.{signature}").into_bytes()
}

/// The payload with a field set to something else.
pub(super) fn with(payload: &Payload, field: &str, value: Value) -> String {
    let mut json = serde_json::to_value(payload).unwrap();
    json[field] = value;
    json.to_string()
}

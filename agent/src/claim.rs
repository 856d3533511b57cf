//! The bundle that `certwave claim create` writes: all that a device without a certificate needs to enrol.

use std::path::Path;
use std::sync::Arc;

use certwave_protocol::ids::{BrokerId, ClaimName, DeviceId, Fingerprint};
use certwave_protocol::jws::SigningKey;
use certwave_protocol::message::Der;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;

use crate::mqtt::Address;
use crate::store::read_certificates;

/// Why a bundle is not taken.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// The file.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// Not the JSON of a claim bundle.
    #[error("not a claim bundle: {0}")]
    Json(#[from] serde_json::Error),
    /// Another version.
    #[error("version {0} of claim bundles is not known")]
    Version(u32),
    /// A field of it.
    #[error("{field}: {reason}")]
    Field {
        /// Which field.
        field: &'static str,
        /// What is wrong.
        reason: String,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    version: u32,
    broker_id: BrokerId,
    url: String,
    claims_url: String,
    topic_prefix: String,
    claim: ClaimName,
    device_id: Option<DeviceId>,
    certificate: String,
    private_key: String,
    trust_anchors: String,
}

/// A claim, ready for use.
#[derive(Debug)]
pub struct Claim {
    /// The claim's name.
    pub name: ClaimName,
    /// The broker that it is for.
    pub broker: BrokerId,
    /// Where devices connect.
    pub url: Address,
    /// Where claims connect.
    pub claims_url: Address,
    /// Topic prefix.
    pub prefix: String,
    /// The only device that it can enrol, if it is bound to one.
    pub device: Option<DeviceId>,
    /// The first trust bundle.
    pub anchors: Vec<Der>,
    /// The claim's certificate and its intermediates.
    pub chain: Vec<CertificateDer<'static>>,
    /// SHA-256 of the claim's certificate.
    pub leaf: Fingerprint,
    /// The claim's key, to sign messages.
    pub signer: SigningKey,
    /// The same key, for handshakes.
    pub tls_key: Arc<dyn rustls::sign::SigningKey>,
}

impl Claim {
    /// Reads a bundle.
    pub fn parse(json: &[u8]) -> Result<Self, ClaimError> {
        let file: File = serde_json::from_slice(json)?;
        if file.version != 1 {
            return Err(ClaimError::Version(file.version));
        }
        let wrong = |field| move |reason: String| ClaimError::Field { field, reason };
        let chain = read_certificates(file.certificate.as_bytes()).map_err(wrong("certificate"))?;
        let leaf = chain
            .first()
            .ok_or_else(|| wrong("certificate")("no certificate in it".to_owned()))?;
        let private_key = SecretString::from(file.private_key);
        let key = PrivatePkcs8KeyDer::from_pem_slice(private_key.expose_secret().as_bytes())
            .map_err(|e| wrong("privateKey")(e.to_string()))?;
        let anchors = read_certificates(file.trust_anchors.as_bytes()).map_err(wrong("trustAnchors"))?;
        if anchors.is_empty() {
            return Err(wrong("trustAnchors")("no certificate in it".to_owned()));
        }
        Ok(Self {
            leaf: Fingerprint::of(leaf),
            signer: SigningKey::from_pkcs8(key.secret_pkcs8_der()).map_err(|e| wrong("privateKey")(e.to_string()))?,
            tls_key: rustls::crypto::aws_lc_rs::sign::any_supported_type(&PrivateKeyDer::Pkcs8(key))
                .map_err(|e| wrong("privateKey")(e.to_string()))?,
            name: file.claim,
            broker: file.broker_id,
            url: file
                .url
                .parse()
                .map_err(|e: crate::mqtt::BadUrl| wrong("url")(e.to_string()))?,
            claims_url: file
                .claims_url
                .parse()
                .map_err(|e: crate::mqtt::BadUrl| wrong("claimsUrl")(e.to_string()))?,
            prefix: file.topic_prefix,
            device: file.device_id,
            anchors: anchors.iter().map(|c| Der(c.to_vec())).collect(),
            chain,
        })
    }

    /// Reads a bundle from a file.
    pub fn load(path: &Path) -> Result<Self, ClaimError> {
        Self::parse(&zeroize::Zeroizing::new(std::fs::read(path)?))
    }
}

//! What a device keeps: journal, certificates, trust bundles ([`Storage`]) and keys ([`KeyStore`]).
//!
//! Two traits, as keys may lie elsewhere than the rest: in a file now, behind PKCS#11 or in a TPM later.

use std::io;
use std::sync::Arc;

use certwave_protocol::ids::DeviceId;
use certwave_protocol::jws::SigningKey;
use certwave_protocol::message::{Der, Slot};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PublicKeyData as _, RsaKeySize};
use rustls_pki_types::pem::{PemObject as _, SectionKind};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use zeroize::Zeroizing;

use crate::algorithm::Algorithm;
use crate::disk::{Access, Disk};
use crate::journal::{JOURNAL_VERSION, Journal};

/// Why something could not be kept or read.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk.
    #[error("{file}: {error}")]
    Io {
        /// Which file.
        file: String,
        /// What the system said.
        error: io::Error,
    },
    /// A file is missing.
    #[error("{0} is missing")]
    Missing(String),
    /// A file holds something else than it should.
    #[error("{file}: {reason}")]
    Corrupt {
        /// Which file.
        file: String,
        /// What is wrong.
        reason: String,
    },
    /// A key could not be made or used.
    #[error("key: {0}")]
    Key(String),
}

impl StoreError {
    /// A short name from a closed set, for metric labels.
    pub fn category(&self) -> &'static str {
        match self {
            Self::Io { .. } => "io",
            Self::Missing(_) => "missing",
            Self::Corrupt { .. } => "corrupt",
            Self::Key(_) => "key",
        }
    }
}

/// Journal, certificates and trust bundles. What a method stored is safe from power cuts when it returns.
pub trait Storage: Send {
    /// The journal; `None` on a device that never had one.
    fn journal(&self) -> Result<Option<Journal>, StoreError>;
    /// Replaces the journal.
    fn save_journal(&mut self, journal: &Journal) -> Result<(), StoreError>;
    /// The leaf in `slot` and its intermediates.
    fn certificate(&self, slot: Slot) -> Result<Vec<CertificateDer<'static>>, StoreError>;
    /// Replaces them.
    fn save_certificate(&mut self, slot: Slot, chain: &[CertificateDer<'_>]) -> Result<(), StoreError>;
    /// The trust anchors in `place`.
    fn bundle(&self, place: Slot) -> Result<Vec<Der>, StoreError>;
    /// Replaces them.
    fn save_bundle(&mut self, place: Slot, anchors: &[Der]) -> Result<(), StoreError>;
}

/// The private keys, one in each slot. They never leave.
pub trait KeyStore: Send {
    /// Makes a key in `slot`, over the one that lies there.
    fn make(&mut self, slot: Slot, algorithm: Algorithm) -> Result<(), StoreError>;
    /// A request (PKCS#10, RFC 2986) for the key in `slot`.
    fn request(&self, slot: Slot, device: &DeviceId) -> Result<Der, StoreError>;
    /// The public half, DER `SubjectPublicKeyInfo`.
    fn spki(&self, slot: Slot) -> Result<Vec<u8>, StoreError>;
    /// The key in `slot`, to sign messages.
    fn signer(&self, slot: Slot) -> Result<SigningKey, StoreError>;
    /// The key in `slot`, for handshakes.
    fn tls_key(&self, slot: Slot) -> Result<Arc<dyn rustls::sign::SigningKey>, StoreError>;
}

/// Both, as files on a [`Disk`].
#[derive(Debug)]
pub struct Store<D> {
    disk: D,
}

/// The journal's file.
pub const JOURNAL_FILE: &str = "journal.json";

/// The file of the key in `slot`.
pub fn key_file(slot: Slot) -> &'static str {
    match slot {
        Slot::A => "slot-a.key",
        Slot::B => "slot-b.key",
    }
}

/// The file of the certificate in `slot`.
pub fn certificate_file(slot: Slot) -> &'static str {
    match slot {
        Slot::A => "slot-a.pem",
        Slot::B => "slot-b.pem",
    }
}

/// The file of the trust bundle in `place`.
pub fn bundle_file(place: Slot) -> &'static str {
    match place {
        Slot::A => "trust-a.pem",
        Slot::B => "trust-b.pem",
    }
}

impl<D: Disk> Store<D> {
    /// Keeps everything on `disk`.
    pub fn new(disk: D) -> Self {
        Self { disk }
    }

    fn read(&self, file: &str) -> Result<Zeroizing<Vec<u8>>, StoreError> {
        self.try_read(file)?.ok_or_else(|| StoreError::Missing(file.to_owned()))
    }

    fn try_read(&self, file: &str) -> Result<Option<Zeroizing<Vec<u8>>>, StoreError> {
        self.disk.read(file).map_err(|error| StoreError::Io {
            file: file.to_owned(),
            error,
        })
    }

    fn write(&mut self, file: &str, content: &[u8], access: Access) -> Result<(), StoreError> {
        self.disk
            .replace(file, content, access)
            .map_err(|error| StoreError::Io {
                file: file.to_owned(),
                error,
            })
    }

    fn certificates(&self, file: &str) -> Result<Vec<CertificateDer<'static>>, StoreError> {
        let corrupt = |reason: String| StoreError::Corrupt {
            file: file.to_owned(),
            reason,
        };
        let all = read_certificates(&self.read(file)?).map_err(corrupt)?;
        if all.is_empty() {
            Err(corrupt("no certificate in it".to_owned()))
        } else {
            Ok(all)
        }
    }

    fn pkcs8(&self, slot: Slot) -> Result<PrivatePkcs8KeyDer<'static>, StoreError> {
        let file = key_file(slot);
        PrivatePkcs8KeyDer::from_pem_slice(&self.read(file)?).map_err(|e| StoreError::Corrupt {
            file: file.to_owned(),
            reason: e.to_string(),
        })
    }

    fn pair(&self, slot: Slot) -> Result<KeyPair, StoreError> {
        KeyPair::try_from(&PrivateKeyDer::Pkcs8(self.pkcs8(slot)?)).map_err(|e| key_error(&e))
    }
}

/// Certificates from PEM, in their order.
pub fn read_certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|e| e.to_string())
}

/// Certificates as PEM (RFC 7468).
pub fn write_certificates(certificates: impl IntoIterator<Item = impl AsRef<[u8]>>) -> String {
    certificates
        .into_iter()
        .map(|der| pem(SectionKind::Certificate, der.as_ref()))
        .collect()
}

fn pem(kind: SectionKind, der: &[u8]) -> String {
    use base64::Engine as _;
    let label = match kind {
        SectionKind::PrivateKey => "PRIVATE KEY",
        _ => "CERTIFICATE",
    };
    let text = Zeroizing::new(base64::engine::general_purpose::STANDARD.encode(der));
    let mut out = format!("-----BEGIN {label}-----\n");
    for line in text.as_bytes().chunks(64) {
        out.extend(line.iter().map(|b| char::from(*b)));
        out.push('\n');
    }
    out.push_str("-----END ");
    out.push_str(label);
    out.push_str("-----\n");
    out
}

fn key_error(error: &rcgen::Error) -> StoreError {
    StoreError::Key(error.to_string())
}

fn generate(algorithm: Algorithm) -> Result<KeyPair, rcgen::Error> {
    match algorithm {
        Algorithm::EcdsaP256 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256),
        Algorithm::EcdsaP384 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384),
        Algorithm::Ed25519 => KeyPair::generate_for(&rcgen::PKCS_ED25519),
        Algorithm::Rsa2048 => KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048),
        Algorithm::Rsa3072 => KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_3072),
        Algorithm::Rsa4096 => KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_4096),
    }
}

impl<D: Disk> Storage for Store<D> {
    fn journal(&self) -> Result<Option<Journal>, StoreError> {
        let Some(content) = self.try_read(JOURNAL_FILE)? else {
            return Ok(None);
        };
        let corrupt = |reason: String| StoreError::Corrupt {
            file: JOURNAL_FILE.to_owned(),
            reason,
        };
        let journal: Journal = serde_json::from_slice(&content).map_err(|e| corrupt(e.to_string()))?;
        if journal.version != JOURNAL_VERSION {
            return Err(corrupt(format!("version {} is not known", journal.version)));
        }
        Ok(Some(journal))
    }

    fn save_journal(&mut self, journal: &Journal) -> Result<(), StoreError> {
        let json = serde_json::to_vec(journal).map_err(|e| StoreError::Corrupt {
            file: JOURNAL_FILE.to_owned(),
            reason: e.to_string(),
        })?;
        self.write(JOURNAL_FILE, &json, Access::Public)
    }

    fn certificate(&self, slot: Slot) -> Result<Vec<CertificateDer<'static>>, StoreError> {
        self.certificates(certificate_file(slot))
    }

    fn save_certificate(&mut self, slot: Slot, chain: &[CertificateDer<'_>]) -> Result<(), StoreError> {
        self.write(
            certificate_file(slot),
            write_certificates(chain).as_bytes(),
            Access::Public,
        )
    }

    fn bundle(&self, place: Slot) -> Result<Vec<Der>, StoreError> {
        Ok(self
            .certificates(bundle_file(place))?
            .iter()
            .map(|c| Der(c.to_vec()))
            .collect())
    }

    fn save_bundle(&mut self, place: Slot, anchors: &[Der]) -> Result<(), StoreError> {
        self.write(
            bundle_file(place),
            write_certificates(anchors).as_bytes(),
            Access::Public,
        )
    }
}

impl<D: Disk> KeyStore for Store<D> {
    fn make(&mut self, slot: Slot, algorithm: Algorithm) -> Result<(), StoreError> {
        let pair = generate(algorithm).map_err(|e| key_error(&e))?;
        let content = Zeroizing::new(pem(SectionKind::PrivateKey, pair.serialized_der()));
        self.write(key_file(slot), content.as_bytes(), Access::Secret)
    }

    fn request(&self, slot: Slot, device: &DeviceId) -> Result<Der, StoreError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, device.as_str());
        let request = params.serialize_request(&self.pair(slot)?).map_err(|e| key_error(&e))?;
        Ok(Der(request.der().to_vec()))
    }

    fn spki(&self, slot: Slot) -> Result<Vec<u8>, StoreError> {
        Ok(self.pair(slot)?.subject_public_key_info())
    }

    fn signer(&self, slot: Slot) -> Result<SigningKey, StoreError> {
        SigningKey::from_pkcs8(self.pkcs8(slot)?.secret_pkcs8_der()).map_err(|e| StoreError::Key(e.to_string()))
    }

    fn tls_key(&self, slot: Slot) -> Result<Arc<dyn rustls::sign::SigningKey>, StoreError> {
        rustls::crypto::aws_lc_rs::sign::any_supported_type(&PrivateKeyDer::Pkcs8(self.pkcs8(slot)?))
            .map_err(|e| StoreError::Key(e.to_string()))
    }
}

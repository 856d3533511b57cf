//! Who signs for which CA.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use certwave_pki::ocsp::{OcspRequest, OcspSigner, OcspSignerError};
use certwave_pki::{KeyError, ParseError, PrivateKey, certificates_from_pem, parse_certificate_info};

use super::OcspMetrics;

/// Why there is no signer in what was read.
#[derive(Debug, thiserror::Error)]
pub enum SignerFault {
    /// Text without a certificate.
    #[error("{0} holds no readable certificate in PEM")]
    NoCertificate(&'static str),
    /// The key cannot be read.
    #[error("tls.key: {0}")]
    Key(#[from] KeyError),
    /// The CA's certificate cannot be read.
    #[error("ca.crt: {0}")]
    Issuer(#[from] ParseError),
    /// Key, certificate and CA do not belong together, or the certificate is not one of an OCSP signer.
    #[error(transparent)]
    Signer(#[from] OcspSignerError),
}

impl SignerFault {
    /// A short word of a closed set, for metric labels.
    pub const fn category(&self) -> &'static str {
        match self {
            Self::NoCertificate(_) => "no-certificate",
            Self::Key(error) => error.category(),
            Self::Issuer(error) => error.category(),
            Self::Signer(error) => error.category(),
        }
    }
}

/// The signer of one CA.
pub struct CaSigner {
    /// Signs.
    pub signer: OcspSigner,
    /// The CA's key id, lower-case hexadecimal, as the ledger knows it.
    pub issuer: String,
    /// The CA's number in this process, for the cache.
    pub(super) slot: u32,
}

/// The signers of all CAs. Whoever renews one puts it in place of the one before; answers that are signed already stay good, as
/// both are certified.
pub struct Signers {
    current: RwLock<Arc<Vec<Arc<CaSigner>>>>,
    slots: Mutex<HashMap<String, u32>>,
    complete: AtomicBool,
    metrics: Arc<OcspMetrics>,
}

impl Signers {
    /// None yet.
    pub fn new(metrics: Arc<OcspMetrics>) -> Self {
        Self {
            current: RwLock::default(),
            slots: Mutex::default(),
            complete: AtomicBool::new(false),
            metrics,
        }
    }

    /// Reads a signer as it stands in a Secret: its certificate, its key and the CA's certificate, PEM. Answers the CA's key id
    /// with it.
    pub fn read(certificate: &str, key: &str, issuer: &str) -> Result<(String, OcspSigner), SignerFault> {
        let first = |pem: &str, name| {
            certificates_from_pem(pem)
                .and_then(|all| all.into_iter().next())
                .ok_or(SignerFault::NoCertificate(name))
        };
        let (certificate, issuer) = (first(certificate, "tls.crt")?, first(issuer, "ca.crt")?);
        let signer = OcspSigner::new(PrivateKey::from_pem(key)?, certificate, &issuer)?;
        Ok((parse_certificate_info(&issuer)?.key_id.to_string(), signer))
    }

    /// Puts a signer in place of its CA's one before.
    pub fn set(&self, issuer: &str, signer: OcspSigner) {
        self.metrics
            .show_signer(issuer, Some((signer.not_before(), signer.not_after())));
        let entry = Arc::new(CaSigner {
            signer,
            issuer: issuer.to_owned(),
            slot: self.slot(issuer),
        });
        self.change(|all| {
            all.retain(|other| other.issuer != issuer);
            all.push(entry);
        });
    }

    /// A CA has no signer any more.
    pub fn remove(&self, issuer: &str) {
        self.metrics.show_signer(issuer, None);
        self.change(|all| all.retain(|other| other.issuer != issuer));
    }

    /// All that there are have been read: from now on a CA without one is somebody else's.
    pub fn set_complete(&self) {
        self.complete.store(true, Ordering::Release);
    }

    /// Whether all that there are have been read.
    pub fn is_complete(&self) -> bool {
        self.complete.load(Ordering::Acquire)
    }

    /// All of them.
    pub fn all(&self) -> Arc<Vec<Arc<CaSigner>>> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Who signs the answer: the one CA that all certificates of the request are of, which must be the one that the URL names,
    /// where it names one (key id).
    pub(super) fn find(&self, named: Option<&str>, request: &OcspRequest<'_>) -> Option<Arc<CaSigner>> {
        let all = self.all();
        let possible = || all.iter().filter(|entry| named.is_none_or(|name| entry.issuer == name));
        let place = request.issuer(possible().map(|entry| entry.signer.issuer()))?;
        possible().nth(place).cloned()
    }

    pub(super) fn of(&self, slot: u32) -> Option<Arc<CaSigner>> {
        self.all().iter().find(|entry| entry.slot == slot).cloned()
    }

    /// A CA's number: given once, for as long as this process runs.
    pub(super) fn slot(&self, issuer: &str) -> u32 {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let next = u32::try_from(slots.len()).unwrap_or(u32::MAX);
        *slots.entry(issuer.to_owned()).or_insert(next)
    }

    fn change(&self, act: impl FnOnce(&mut Vec<Arc<CaSigner>>)) {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        let mut all = (**current).clone();
        act(&mut all);
        *current = Arc::new(all);
    }
}

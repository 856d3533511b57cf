//! Trust bundles in use: who is believed to be the broker and who the controller, by a clock that may be wrong.
//!
//! A device's clock may be years off, and a device that refuses its broker for the date is lost. So the clock is held
//! to be at least the newest notBefore of the device's own confirmed certificates (its floor), and where nothing but
//! the time is wrong, a second check is made at the earliest time that is possible: the floor, or the notBefore of what
//! is checked. `hello` tells the controller the device's clock, so a wrong one is seen.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use certwave_protocol::code::Code;
use certwave_protocol::control::{ControlError, ControlTrust};
use certwave_protocol::envelope::Unverified;
use certwave_protocol::ids::{BrokerId, Fingerprint};
use certwave_protocol::jws::VerifyingKey;
use certwave_protocol::message::{Der, Payload};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::{CertificateError, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::certificate::Leaf;
use crate::journal::PerSlot;
use crate::machine::TrustedBy;

/// Why a bundle cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("trust bundle: {0}")]
pub struct TrustError(String);

/// The crypto library, for all handshakes.
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: std::sync::LazyLock<Arc<CryptoProvider>> =
        std::sync::LazyLock::new(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
    Arc::clone(&PROVIDER)
}

/// A device's idea of the time, Unix seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clock {
    /// What its clock says.
    pub now: i64,
    /// What it cannot be before.
    pub floor: i64,
}

impl Clock {
    fn first(self) -> i64 {
        self.now.max(self.floor)
    }

    fn second(self, der: &[u8]) -> Option<i64> {
        Leaf::read(der).ok().map(|leaf| self.floor.max(leaf.not_before))
    }
}

/// A trust bundle, parsed once.
#[derive(Debug)]
pub struct Trust {
    control: ControlTrust,
    server: Arc<WebPkiServerVerifier>,
    /// The latest control certificate that was found good: its hash, broker, the hour by the device's clock, the key.
    known: Mutex<Option<(Fingerprint, BrokerId, i64, VerifyingKey)>>,
}

impl Trust {
    /// Takes DER certificates as anchors.
    pub fn new(anchors: &[Der]) -> Result<Self, TrustError> {
        let refuse = |e: &dyn std::fmt::Display| TrustError(e.to_string());
        let control = ControlTrust::new(anchors).map_err(|e| refuse(&e))?;
        let mut roots = RootCertStore::empty();
        for anchor in anchors {
            roots
                .add(CertificateDer::from(anchor.as_ref()))
                .map_err(|e| refuse(&e))?;
        }
        let server = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider())
            .build()
            .map_err(|e| refuse(&e))?;
        Ok(Self {
            control,
            server,
            known: Mutex::new(None),
        })
    }

    /// Checks a control certificate and gives the key that may sign for the controller of `broker`.
    pub fn control(&self, x5c: &[Der], broker: &BrokerId, clock: Clock) -> Result<VerifyingKey, ControlError> {
        let hour = clock.first() / 3600;
        let hash = Fingerprint::of_bundle(x5c);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((h, b, t, key)) = known.as_ref()
            && *h == hash
            && b == broker
            && *t == hour
        {
            return Ok(key.clone());
        }
        let key = match self.control.verify(x5c, broker, clock.first()) {
            Err(error @ (ControlError::Expired | ControlError::NotYetValid)) => {
                let second = x5c.first().and_then(|leaf| clock.second(leaf.as_ref())).ok_or(error)?;
                self.control.verify(x5c, broker, second)?
            }
            other => other?,
        };
        *known = Some((hash, broker.clone(), hour, key.clone()));
        Ok(key)
    }

    /// A verifier of broker certificates by this device's clock.
    pub fn server_verifier(self: &Arc<Self>, clock: Clock) -> Arc<dyn ServerCertVerifier> {
        Arc::new(BrokerVerifier {
            trust: Arc::clone(self),
            clock,
        })
    }
}

/// Believes a message or does not: its control certificate must chain to one of the device's two bundles and its key
/// must have signed. Tells which of the bundles vouch for it.
pub fn verify(
    message: Unverified,
    trusts: &PerSlot<Option<Arc<Trust>>>,
    broker: &BrokerId,
    clock: Clock,
) -> Result<(Payload, TrustedBy), Code> {
    let mut refusal = Code::UntrustedControl;
    let mut key = None;
    let mut vouches = |trust: &Option<Arc<Trust>>| match trust.as_ref().map(|t| t.control(message.x5c(), broker, clock))
    {
        Some(Ok(found)) => {
            key = Some(found);
            true
        }
        Some(Err(error)) => {
            refusal = error.code();
            false
        }
        None => false,
    };
    let by = TrustedBy {
        a: vouches(&trusts.a),
        b: vouches(&trusts.b),
    };
    let payload = message.verify(&key.ok_or(refusal)?).map_err(|e| e.code())?;
    Ok((payload, by))
}

/// Bundles by their hash, so that thousands of devices in one process share one.
#[derive(Debug, Default)]
pub struct Trusts(Mutex<HashMap<Fingerprint, Arc<Trust>>>);

impl Trusts {
    /// The bundle of these anchors, parsed at most once.
    pub fn of(&self, anchors: &[Der]) -> Result<Arc<Trust>, TrustError> {
        let hash = Fingerprint::of_bundle(anchors);
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(trust) = all.get(&hash) {
            return Ok(Arc::clone(trust));
        }
        let trust = Arc::new(Trust::new(anchors)?);
        all.insert(hash, Arc::clone(&trust));
        Ok(trust)
    }
}

#[derive(Debug)]
struct BrokerVerifier {
    trust: Arc<Trust>,
    clock: Clock,
}

impl ServerCertVerifier for BrokerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let at = |seconds: i64| {
            let now = UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)));
            self.trust
                .server
                .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
        };
        match at(self.clock.first()) {
            Err(rustls::Error::InvalidCertificate(error)) if only_the_time(&error) => {
                let error = rustls::Error::InvalidCertificate(error);
                let second = self.clock.second(end_entity).ok_or(error)?;
                tracing::warn!(
                    clock = self.clock.now,
                    "the broker's certificate is not valid by this clock; checked without it"
                );
                at(second)
            }
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.trust
            .server
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.trust
            .server
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.trust.server.supported_verify_schemes()
    }
}

fn only_the_time(error: &CertificateError) -> bool {
    matches!(
        error,
        CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. }
    )
}

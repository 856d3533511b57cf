//! Certificates that the controller issues to itself and to brokers, kept in Secrets and renewed.

use std::collections::BTreeMap;
use std::time::Duration;

use certwave_crds::Broker;
use certwave_ledger::{CertificateKind, CertificateRecord};
use certwave_pki::{KeyAlgorithm, LeafRequest, LeafSubject, PrivateKey, certificates_to_pem};
use certwave_protocol::ids::Fingerprint;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::Timestamp;
use kube::api::Api;
use kube::{Resource, ResourceExt};
use rustls_pki_types::CertificateDer;
use secrecy::ExposeSecret as _;

use super::Purpose;
use super::credential::Credential;
use crate::clock::{TOLERANCE_S, dating};
use crate::reconcile::authority::Authority;
use crate::reconcile::error::{Error, Result};
use crate::reconcile::secrets::{self, ANCHORS, CERTIFICATE, Content, KEY};
use crate::reconcile::shared::Shared;
use crate::reconcile::status::Verdict;
use crate::reconcile::time::now_ms;

/// What was asked for when the certificate was issued; another request means another certificate.
const REQUEST: &str = "certwave.dev/request";
/// When it is issued anew.
const RENEW_AT: &str = "certwave.dev/renew-at";

/// A certificate to keep in a Secret.
pub(super) struct Wanted<'a> {
    pub(super) purpose: Purpose,
    pub(super) secret: String,
    pub(super) subject: LeafSubject,
    pub(super) validity: Duration,
    pub(super) issuer: &'a Authority,
}

impl Wanted<'_> {
    /// Names everything that the certificate depends on.
    fn request(&self) -> String {
        let issuer = &self.issuer.entry.ca;
        let text = format!(
            "{:?}\n{:?}\n{}\n{}\n{:?}",
            self.purpose,
            self.subject,
            self.validity.as_secs(),
            issuer.key_id(),
            issuer.publication().map(|p| p.ca_issuers_url(issuer.key_id())),
        );
        Fingerprint::of(text.as_bytes()).to_string()
    }
}

/// Why a certificate is issued; `None`: the one that is there stays.
/// `begins` is when the one that is there does, if it can be read; times are Unix seconds.
fn reason_to_issue(request: &str, secret: Option<&Secret>, begins: Option<i64>, now: i64) -> Option<&'static str> {
    let Some(secret) = secret else {
        return Some("first");
    };
    let Some(begins) = begins else {
        return Some("unreadable");
    };
    // Made by a clock that was wrong.
    if begins > now.saturating_add(TOLERANCE_S) {
        return Some("not valid yet");
    }
    if secrets::annotation(secret, REQUEST) != Some(request) {
        return Some("changed");
    }
    let renew_at = secrets::annotation(secret, RENEW_AT).and_then(|text| text.parse::<Timestamp>().ok());
    renew_at.is_none_or(|at| at.as_second() <= now).then_some("due")
}

/// When two thirds of its life are over.
fn renew_at(now: i64, not_after: i64) -> i64 {
    now + (not_after - now) / 3 * 2
}

/// The certificate that stands in the Secret, or a new one when it is due.
pub(super) async fn keep(
    shared: &Shared,
    broker: &Broker,
    wanted: Wanted<'_>,
    now: i64,
) -> Result<std::result::Result<Credential, Verdict>> {
    let api: Api<Secret> = shared.api(&broker.namespace().unwrap_or_default());
    let owner = secrets::owner("broker", &broker.name_any());
    let secret = api.get_opt(&wanted.secret).await?;
    if secret.as_ref().is_some_and(|secret| !secrets::owned_by(secret, &owner)) {
        let message = format!(
            "the Secret {} was not made for this Broker; rename or delete it",
            wanted.secret
        );
        return Ok(Err(Verdict::no("SecretInUse", message)));
    }
    let there = secret.as_ref().map(Credential::read);
    let begins = match &there {
        Some(Ok(credential)) => Some(credential.info.not_before),
        _ => None,
    };
    let request = wanted.request();
    let Some(reason) = reason_to_issue(&request, secret.as_ref(), begins, now) else {
        return Ok(there.unwrap_or_else(|| Err(Verdict::no("SecretNotFound", "the Secret is gone"))));
    };
    tracing::info!(broker = broker.spec.id, purpose = ?wanted.purpose, reason, "issuing a certificate");
    let issued = if wanted.issuer.entry.revoked {
        Err(Error::Pki {
            what: "a broker's certificate",
            why: "the CA's certificate is revoked; let spec.issuerRef name another one".to_owned(),
            category: "ca-revoked",
        })
    } else {
        issue(shared, broker, &wanted, &request, owner, now).await
    };
    let content = match issued {
        Ok(content) => content,
        Err(Error::Pki { why, category, .. }) => {
            let message = format!("the CA cannot issue the certificate for {}: {why}", wanted.secret);
            // Renewal begins long before the end: until then the one that is there serves.
            if let Some(Ok(credential)) = there
                && reason == "due"
                && credential.info.not_after > now
            {
                tracing::warn!(broker = broker.spec.id, message, "a certificate is not renewed");
                return Ok(Ok(credential));
            }
            return Ok(Err(Verdict::no(
                &crate::reconcile::status::camel_case(category),
                message,
            )));
        }
        Err(error) => return Err(error),
    };
    let stored = secrets::apply(&api, content, super::MANAGER).await?;
    Ok(Credential::read(&stored))
}

async fn issue(
    shared: &Shared,
    broker: &Broker,
    wanted: &Wanted<'_>,
    request: &str,
    owner: String,
    now: i64,
) -> Result<Content> {
    let fault = |why: String, category| Error::Pki {
        what: "certificate",
        why,
        category,
    };
    let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).map_err(|e| fault(e.to_string(), e.category()))?;
    let entry = &wanted.issuer.entry;
    let leaf = LeafRequest {
        subject: &wanted.subject,
        public_key: key.public_key(),
        usage: wanted.purpose.usage(),
        validity: wanted.validity,
        backdate: wanted.issuer.backdate,
    };
    let issued = entry
        .ca
        .issue(&leaf, dating() / 1000)
        .map_err(|e| fault(e.to_string(), e.category()))?;
    let record = CertificateRecord {
        fingerprint: Fingerprint::of(&issued.der),
        serial: issued.serial.clone(),
        issuer: entry.ca.key_id().to_string(),
        spki: Fingerprint::of(key.spki_der()),
        public_key: key.spki_der().to_vec(),
        not_before: issued.not_before,
        not_after: issued.not_after,
        kind: match wanted.purpose {
            Purpose::Client => CertificateKind::Controller,
            Purpose::Control => CertificateKind::Control,
            Purpose::Server => CertificateKind::Server,
        },
        holder: broker.spec.id.clone(),
        identity: None,
        job: None,
        der: issued.der.to_vec(),
        issued_at: now_ms(),
    };
    shared.ledger.record(shared.epoch, record).await?;
    shared.ensure_crl(entry, &issued.partition).await?;
    let chain = std::iter::once(&issued.der).chain(entry.ca.issuing_chain());
    let anchor: CertificateDer<'static> = wanted.issuer.anchor();
    let renew = Timestamp::from_second(renew_at(now, issued.not_after)).unwrap_or_default();
    Ok(Content {
        name: wanted.secret.clone(),
        owner,
        kind: "kubernetes.io/tls",
        annotations: BTreeMap::from([
            (REQUEST.to_owned(), request.to_owned()),
            (RENEW_AT.to_owned(), renew.to_string()),
        ]),
        data: BTreeMap::from([
            (CERTIFICATE.to_owned(), certificates_to_pem(chain)),
            (KEY.to_owned(), key.to_pkcs8_pem().expose_secret().to_owned()),
            (ANCHORS.to_owned(), certificates_to_pem([anchor])),
        ]),
        // These keys may go with their Broker: new ones can be issued at any time.
        owner_reference: broker.controller_owner_ref(&()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(request: &str, renew_at: &str) -> Secret {
        let mut secret = Secret::default();
        secret.metadata.annotations = Some(BTreeMap::from([
            (REQUEST.to_owned(), request.to_owned()),
            (RENEW_AT.to_owned(), renew_at.to_owned()),
        ]));
        secret
    }

    #[test]
    fn a_certificate_is_issued_once_and_again_only_with_a_reason() {
        const NOW: i64 = 1_790_000_000;
        const BEGAN: Option<i64> = Some(NOW - 60);
        let later = Timestamp::from_second(NOW + 1).unwrap_or_default().to_string();
        let good = secret("r", &later);
        assert_eq!(reason_to_issue("r", None, None, NOW), Some("first"));
        assert_eq!(reason_to_issue("r", Some(&good), BEGAN, NOW), None);
        assert_eq!(reason_to_issue("r", Some(&good), None, NOW), Some("unreadable"));
        assert_eq!(reason_to_issue("other", Some(&good), BEGAN, NOW), Some("changed"));
        assert_eq!(reason_to_issue("r", Some(&good), BEGAN, NOW + 1), Some("due"));
        assert_eq!(
            reason_to_issue("r", Some(&secret("r", "soon")), BEGAN, NOW),
            Some("due")
        );
    }

    #[test]
    fn what_a_wrong_clock_has_dated_ahead_is_issued_anew() {
        const NOW: i64 = 1_790_000_000;
        let never_due = secret("r", "2100-01-01T00:00:00Z");
        let reason = |begins| reason_to_issue("r", Some(&never_due), Some(begins), NOW);
        assert_eq!(reason(NOW + 365 * 86_400), Some("not valid yet"));
        assert_eq!(reason(NOW + TOLERANCE_S), None, "it is soon");
    }

    #[test]
    fn renewal_leaves_a_third_of_the_life() {
        assert_eq!(renew_at(1000, 1000 + 90), 1060);
        assert!(renew_at(1000, 1002) >= 1000);
    }
}

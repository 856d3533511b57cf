//! A CA's delegated OCSP signer: made, and renewed at half of its life, so that the CA may be away for the other half.
//!
//! It stands in the Secret `<name of the CA>-ocsp`, from where the replicas of `certwave responder` mount it. Answers signed by
//! the one before stay good: both are valid for a while.

use std::collections::BTreeMap;
use std::time::Duration;

use certwave_crds::{CertificateAuthority as Object, OcspSignerStatus};
use certwave_ledger::{CertificateKind, CertificateRecord};
use certwave_pki::ocsp::OcspSigner;
use certwave_pki::{
    IssueError, Issued, KeyAlgorithm, LeafRequest, LeafSubject, LeafUsage, PrivateKey, certificates_to_pem,
    parse_certificate_info,
};
use certwave_protocol::ids::Fingerprint;
use k8s_openapi::api::core::v1::Secret;
use kube::api::Api;
use kube::{Resource, ResourceExt};
use secrecy::ExposeSecret as _;

use super::{Authority, AuthorityState, MANAGER};
use crate::clock::{TOLERANCE_S, dating};
use crate::ocsp::Signers;
use crate::reconcile::error::{Error, Result};
use crate::reconcile::secrets::{self, ANCHORS, CERTIFICATE, Content, KEY};
use crate::reconcile::shared::Shared;
use crate::reconcile::status::{Verdict, camel_case};
use crate::reconcile::time::{now_ms, time};

/// The common name of all OCSP signers.
const NAME: &str = "~ocsp";

/// What there is of a CA's signer.
#[derive(Default)]
pub(super) struct Kept {
    /// What the status shows.
    pub(super) status: Option<OcspSignerStatus>,
    /// Whether it nears its end; `None` where none is wanted.
    pub(super) expiring: Option<Verdict>,
    /// When it is to be renewed, from now.
    pub(super) due_in: Option<Duration>,
}

/// The Secret of a CA's signer.
pub(super) fn secret_name(ca: &str) -> String {
    format!("{ca}-ocsp")
}

/// Reads the signer of a Secret, with its CA's key id.
pub(super) fn read(secret: &Secret) -> Option<(String, OcspSigner)> {
    let text = |key| secrets::text(secret, key);
    match Signers::read(&text(CERTIFICATE)?, &text(KEY)?, &text(ANCHORS)?) {
        Ok(found) => Some(found),
        Err(error) => {
            tracing::warn!(secret = secret.name_any(), %error, "this is no OCSP signer");
            None
        }
    }
}

/// Sees to the CA's signer, and hands it to the responder. `now` in Unix seconds.
pub(super) async fn keep(shared: &Shared, object: &Object, state: &AuthorityState, now: i64) -> Result<Kept> {
    if !wanted(shared, object) {
        return Ok(Kept::default());
    }
    let api: Api<Secret> = shared.api(&object.namespace().unwrap_or_default());
    let name = secret_name(&object.name_any());
    let owner = secrets::owner("ocsp", &object.name_any());
    let secret = api.get_opt(&name).await?;
    if secret.as_ref().is_some_and(|secret| !secrets::owned_by(secret, &owner)) {
        let message = format!("the Secret {name} was not made for this CA; rename or delete it");
        return Ok(Kept {
            expiring: Some(Verdict::yes("SecretInUse", message)),
            ..Kept::default()
        });
    }
    let mut signer = secret.as_ref().and_then(read);
    let mut fault = None;
    let validity = object.spec.ocsp.signer_validity.as_secs();
    match state {
        AuthorityState::Ready(authority) => {
            let own = authority.entry.ca.key_id().to_string();
            signer = signer.filter(|(issuer, signer)| *issuer == own && has_begun(begin(signer), dating() / 1000));
            let there = signer.as_ref().map(|(_, signer)| signer.not_after());
            if is_due(there, validity, authority.entry.ca.not_after(), now) {
                match make(shared, object, authority, owner).await {
                    Ok(content) => signer = read(&secrets::apply(&api, content, MANAGER).await?),
                    Err(Error::Pki { why, category, .. }) => fault = Some((camel_case(category), why)),
                    Err(error) => return Err(error),
                }
            }
        }
        // It signs until its end, whatever has become of the CA.
        AuthorityState::NotReady(why) => fault = Some((why.reason.clone(), why.message.clone())),
    }
    let Some((issuer, signer)) = signer else {
        // Of a CA that never issued anything nobody asks.
        let expiring = was_ready(object).then(|| lacking(fault));
        return Ok(Kept {
            expiring,
            ..Kept::default()
        });
    };
    let end = signer.not_after();
    let status = parse_certificate_info(signer.certificate_der()).ok();
    shared.ocsp.set(&issuer, signer);
    Ok(Kept {
        status: status.map(|info| OcspSignerStatus {
            serial: info.serial,
            not_after: time(end),
        }),
        expiring: Some(ending(end, validity, now, fault)),
        due_in: u64::try_from(end - validity / 2 - now).ok().map(Duration::from_secs),
    })
}

/// Where certificates name OCSP, or the controller publishes by itself.
pub(super) fn wanted(shared: &Shared, object: &Object) -> bool {
    match &object.spec.publication {
        Some(publication) => publication.ocsp,
        None => shared.publication_base.is_some(),
    }
}

fn was_ready(object: &Object) -> bool {
    object.status.as_ref().is_some_and(|status| status.key_id.is_some())
}

/// When a signer's certificate begins, Unix seconds.
fn begin(signer: &OcspSigner) -> i64 {
    parse_certificate_info(signer.certificate_der()).map_or(0, |info| info.not_before)
}

/// Whether it is of use: a clock that was wrong may have dated it ahead.
fn has_begun(begin: i64, now: i64) -> bool {
    begin <= now.saturating_add(TOLERANCE_S)
}

/// Whether a signer is to be made: there is none, or half of the validity is over and the next one lasts longer. Near the CA's own
/// end it does not.
fn is_due(end: Option<i64>, validity: i64, end_of_ca: i64, now: i64) -> bool {
    end.is_none_or(|end| end - now <= validity / 2 && now.saturating_add(validity).min(end_of_ca) > end)
}

fn lacking(fault: Option<(String, String)>) -> Verdict {
    match fault {
        Some((reason, why)) => Verdict::yes(
            &reason,
            format!("OCSP answers tryLater for this CA: it has no OCSP signer, and the CA cannot certify one: {why}"),
        ),
        None => Verdict::yes(
            "NoSigner",
            "OCSP answers tryLater for this CA: its OCSP signer is about to be made",
        ),
    }
}

/// A third of the validity before the end nobody has renewed it: it is time that a person looks.
fn ending(end: i64, validity: i64, now: i64, fault: Option<(String, String)>) -> Verdict {
    if end.saturating_sub(now) > validity / 3 {
        return Verdict::no(
            "EndIsFar",
            format!(
                "the OCSP signer is good until {}, and renewed by itself at half of its validity",
                time(end).0
            ),
        );
    }
    let at = time(end).0;
    let over = if end <= now {
        format!("OCSP answers tryLater since {at}, when its signer's certificate ended")
    } else {
        format!("OCSP answers until {at}, when its signer's certificate ends")
    };
    match fault {
        Some((reason, why)) => Verdict::yes(&reason, format!("{over}; the CA cannot certify another one: {why}")),
        None => Verdict::yes(
            "EndIsNear",
            format!("{over}; no signer can outlast the CA's own certificate: renew that"),
        ),
    }
}

/// A new key with its certificate, recorded before anybody can see it.
async fn make(shared: &Shared, object: &Object, authority: &Authority, owner: String) -> Result<Content> {
    let (key, issued) = issue(object, authority).map_err(|error| Error::Pki {
        what: "the certificate of the OCSP signer",
        why: error.to_string(),
        category: error.category(),
    })?;
    let ca = &authority.entry.ca;
    let record = CertificateRecord {
        fingerprint: Fingerprint::of(&issued.der),
        serial: issued.serial.clone(),
        issuer: ca.key_id().to_string(),
        spki: Fingerprint::of(key.spki_der()),
        public_key: key.spki_der().to_vec(),
        not_before: issued.not_before,
        not_after: issued.not_after,
        kind: CertificateKind::OcspSigner,
        holder: ca.key_id().to_string(),
        identity: None,
        job: None,
        der: issued.der.to_vec(),
        issued_at: now_ms(),
    };
    shared.ledger.record(shared.epoch, record).await?;
    let count = |kind| shared.metrics.certificates_issued.with_label_values(&[kind]);
    count("ocsp-signer").inc();
    tracing::info!(
        ca = object.name_any(),
        serial = issued.serial,
        "an OCSP signer was certified"
    );
    Ok(Content {
        name: secret_name(&object.name_any()),
        owner,
        kind: "kubernetes.io/tls",
        annotations: BTreeMap::new(),
        data: BTreeMap::from([
            (CERTIFICATE.to_owned(), certificates_to_pem([&issued.der])),
            (KEY.to_owned(), key.to_pkcs8_pem().expose_secret().to_owned()),
            (ANCHORS.to_owned(), certificates_to_pem([ca.certificate_der()])),
        ]),
        // This key may go with its CA: nobody trusts it for itself.
        owner_reference: object.controller_owner_ref(&()),
    })
}

/// ECDSA P-256, whatever the CA's key: it is fast, its answers are small, and every client knows it.
fn issue(object: &Object, authority: &Authority) -> Result<(PrivateKey, Issued), IssueError> {
    let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256)?;
    let issued = authority.entry.ca.issue(
        &LeafRequest {
            subject: &LeafSubject::common_name(NAME)?,
            public_key: key.public_key(),
            usage: LeafUsage::OcspSigner,
            validity: object.spec.ocsp.signer_validity.as_std(),
            backdate: authority.backdate,
        },
        dating() / 1000,
    )?;
    Ok((key, issued))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_790_000_000;
    const DAY: i64 = 86_400;

    #[test]
    fn a_signer_is_renewed_at_half_of_its_validity_as_long_as_that_gains_anything() {
        let far = NOW + 3650 * DAY;
        assert!(is_due(None, 14 * DAY, far, NOW));
        assert!(!is_due(Some(NOW + 7 * DAY + 1), 14 * DAY, far, NOW));
        assert!(is_due(Some(NOW + 7 * DAY), 14 * DAY, far, NOW));
        assert!(is_due(Some(NOW - DAY), 14 * DAY, far, NOW));
        let end_of_ca = NOW + DAY;
        assert!(!is_due(Some(end_of_ca), 14 * DAY, end_of_ca, NOW));
        assert!(is_due(Some(end_of_ca - 1), 14 * DAY, end_of_ca, NOW));
    }

    #[test]
    fn a_signer_that_a_wrong_clock_has_dated_ahead_is_of_no_use() {
        assert!(has_begun(NOW - 60, NOW) && has_begun(NOW + 60, NOW));
        assert!(!has_begun(NOW + 365 * DAY, NOW));
    }

    #[test]
    fn a_signer_that_nobody_renewed_is_told_of_while_it_still_signs() {
        let fault = || Some(("KeyLost".to_owned(), "the Secret is gone".to_owned()));
        assert_eq!(ending(NOW + 5 * DAY, 14 * DAY, NOW, fault()).holds, Some(false));
        let near = ending(NOW + 4 * DAY, 14 * DAY, NOW, fault());
        assert_eq!((near.holds, near.reason.as_str()), (Some(true), "KeyLost"));
        assert!(near.message.contains("answers until"), "{}", near.message);
        let over = ending(NOW, 14 * DAY, NOW, None);
        assert_eq!((over.holds, over.reason.as_str()), (Some(true), "EndIsNear"));
        assert!(over.message.contains("tryLater since"), "{}", over.message);
    }
}

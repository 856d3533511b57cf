//! A CA's status.

use certwave_crds::{CertificateAuthority, CertificateAuthorityStatus, CrlObject, CrlStatus, OcspSignerStatus};
use certwave_pki::{CertificateInfo, certificates_to_pem, parse_certificate_info};

use super::{AuthorityState, keys};
use crate::reconcile::status::{Verdict, condition};
use crate::reconcile::time::time;

/// Seconds.
const YEAR: i64 = 365 * 86_400;

/// Whether the certificate's end is near: a third of its life, and not more than a year. Where it renews itself that is long done.
fn ending(object: &CertificateAuthority, info: &CertificateInfo, now: i64) -> Verdict {
    let window = (info.not_after.saturating_sub(info.not_before) / 3).min(YEAR);
    if info.not_after.saturating_sub(now) >= window {
        return Verdict::no("EndIsFar", "the certificate's end is far");
    }
    let spec = &object.spec;
    let advice = if spec.subordinate.is_some() {
        "it is renewed by itself as far as its issuer lasts; see to that one"
    } else if spec.external.is_some() {
        "have status.csr signed again, and bring the certificate back"
    } else if spec.secret.is_some() {
        "renew it with the same key, and replace tls.crt in its Secret"
    } else {
        "create another CertificateAuthority and move the fleets to it by a Rotation with issuerRef"
    };
    let end = time(info.not_after).0;
    Verdict::yes(
        "EndIsNear",
        format!("the certificate ends at {end}, and with it everything that it has issued; {advice}"),
    )
}

/// What a status shows besides the CA itself.
pub(super) struct Shown {
    /// The request to be signed outside, PEM.
    pub(super) request: Option<String>,
    pub(super) crls: Vec<CrlStatus>,
    /// The object that holds CRLs, too.
    pub(super) crl_object: Option<CrlObject>,
    pub(super) signer: Option<OcspSignerStatus>,
    /// Conditions besides those of the CA itself.
    pub(super) aspects: Vec<(&'static str, Verdict)>,
}

/// The whole status. What was known of a CA that is not ready now stays: a lost key must be recognised after a restart.
pub(super) fn status(
    object: &CertificateAuthority,
    state: &AuthorityState,
    shown: Shown,
    now: i64,
) -> CertificateAuthorityStatus {
    let Shown {
        request,
        crls,
        crl_object,
        signer,
        aspects,
    } = shown;
    let before = object.status.clone().unwrap_or_default();
    let generation = object.metadata.generation;
    let mut conditions = vec![condition(
        "Ready",
        &keys::verdict(state),
        generation,
        &before.conditions,
        now,
    )];
    let more = aspects
        .iter()
        .map(|(kind, verdict)| condition(kind, verdict, generation, &before.conditions, now));
    conditions.extend(more);
    let AuthorityState::Ready(authority) = state else {
        return CertificateAuthorityStatus {
            ocsp_signer: signer,
            csr: request.or(before.csr),
            crls,
            crl_object,
            observed_generation: generation,
            conditions,
            ..before
        };
    };
    if authority.entry.revoked && !authority.revoked_above {
        let verdict = Verdict::yes(
            "Revoked",
            "a person has revoked the CA's certificate: its issuer's CRL says so",
        );
        conditions.push(condition("Revoked", &verdict, generation, &before.conditions, now));
    }
    let ca = &authority.entry.ca;
    let info = parse_certificate_info(ca.certificate_der()).ok();
    if let Some(info) = &info {
        let verdict = ending(object, info, now);
        conditions.push(condition("ExpiringSoon", &verdict, generation, &before.conditions, now));
    }
    let above = ca.chain().iter().chain(ca.root_der().filter(|_| !ca.is_root()));
    CertificateAuthorityStatus {
        key_id: Some(ca.key_id().to_string()),
        certificate: Some(certificates_to_pem([ca.certificate_der()])),
        chain: Some(certificates_to_pem(above)).filter(|pem| !pem.is_empty()),
        csr: before.csr,
        not_before: info.as_ref().map(|info| time(info.not_before)),
        not_after: info.as_ref().map(|info| time(info.not_after)),
        serial: info.as_ref().map(|info| info.serial.clone()),
        sha256: info.map(|info| info.sha256),
        crls,
        crl_object,
        ocsp_signer: signer,
        observed_generation: generation,
        conditions,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use certwave_pki::{CaProfile, CertificateAuthority as Ca, KeyAlgorithm, PrivateKey};

    use super::*;

    const NOW: i64 = 1_790_000_000;

    #[test]
    fn the_end_is_near_within_a_third_of_the_life_and_a_year() {
        let object =
            CertificateAuthority::new("root", serde_json::from_value(serde_json::json!({"root": {}})).unwrap());
        for (days, near) in [(30, 10), (10 * 365, 365)] {
            let profile = CaProfile {
                validity: std::time::Duration::from_secs(days * 86_400),
                backdate: std::time::Duration::ZERO,
                ..CaProfile::named("root")
            };
            let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
            let ca = Ca::self_signed(key, &profile, NOW).unwrap();
            let info = parse_certificate_info(ca.certificate_der()).unwrap();
            let begins = info.not_after - near * 86_400;
            assert_eq!(ending(&object, &info, begins - 60).holds, Some(false), "{days} days");
            let verdict = ending(&object, &info, begins + 60);
            assert_eq!(verdict.holds, Some(true), "{days} days");
            assert!(verdict.message.contains("Rotation"), "{}", verdict.message);
        }
    }
}

//! A CA's status.

use certwave_crds::{CertificateAuthority, CertificateAuthorityStatus, CrlStatus};
use certwave_ledger::Ledger;
use certwave_pki::{CertificateInfo, certificates_to_pem, parse_certificate_info};

use super::{AuthorityState, keys};
use crate::reconcile::error::Result;
use crate::reconcile::status::{Verdict, condition};
use crate::reconcile::time::time;

/// As many CRLs as the status shows: those that end last.
const SHOWN: usize = 50;
/// Seconds.
const YEAR: i64 = 365 * 86_400;

/// The CRLs to show, newest partitions first. `nextUpdate` is left out: it would change the status with every renewal.
pub(super) async fn crls(ledger: &dyn Ledger, state: &AuthorityState) -> Result<Vec<CrlStatus>> {
    let AuthorityState::Ready(authority) = state else {
        return Ok(Vec::new());
    };
    let mut numbers = ledger.crl_numbers(&authority.entry.ca.key_id().to_string()).await?;
    numbers.sort_by(|a, b| b.0.cmp(&a.0));
    let shown = numbers.into_iter().take(SHOWN);
    Ok(shown
        .map(|(partition, number)| CrlStatus {
            partition,
            number: i64::try_from(number).unwrap_or(i64::MAX),
            next_update: None,
        })
        .collect())
}

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

/// The whole status. What was known of a CA that is not ready now stays: a lost key must be recognised after a restart.
pub(super) fn status(
    object: &CertificateAuthority,
    state: &AuthorityState,
    request: Option<String>,
    crls: Vec<CrlStatus>,
    now: i64,
) -> CertificateAuthorityStatus {
    let before = object.status.clone().unwrap_or_default();
    let generation = object.metadata.generation;
    let mut conditions = vec![condition(
        "Ready",
        &keys::verdict(state),
        generation,
        &before.conditions,
        now,
    )];
    let AuthorityState::Ready(authority) = state else {
        return CertificateAuthorityStatus {
            csr: request.or(before.csr),
            observed_generation: generation,
            conditions,
            ..before
        };
    };
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

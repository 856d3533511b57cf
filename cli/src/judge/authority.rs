//! CAs: ready, near their end, CRLs and OCSP fresh.

use certwave_crds::{CertificateAuthority, CrlStatus};
use jiff::Timestamp;

use super::{about, by_rules, rule, unseen};
use crate::finding::{Finding, Level};
use crate::time::{exact, from_now};

/// A CRL is made anew this long before its end, and so much later than that is no cause for worry, seconds.
const SLACK: i64 = 600;
/// The certificate for OCSP renews itself at half its life; with less than this share left (one in so many) it has not.
const SIGNER_SHARE: i64 = 4;

const RULES: &[super::Rule] = &[
    rule("Ready", "False", Level::Fault, None),
    rule(
        "CRLFresh",
        "False",
        Level::Fault,
        Some(
            "brokers that check CRLs lock every device out when one is over: see that the controller runs and that the publication URL is served",
        ),
    ),
    rule(
        "OCSPFresh",
        "False",
        Level::Fault,
        Some(
            "brokers that ask OCSP may let nobody in: see that the controller or its responders run, that the publication URL leads there, and OCSPSignerExpiring",
        ),
    ),
    rule("ClockSkew", "True", Level::Fault, None),
    rule("LedgerRestored", "True", Level::Warning, None),
    rule("ExpiringSoon", "True", Level::Warning, None),
    rule("OCSPSignerExpiring", "True", Level::Warning, None),
    rule("CrlTooLargeForConfigMap", "True", Level::Warning, None),
    rule(
        "Revoked",
        "True",
        Level::Warning,
        Some(
            "move its fleets to another CA, if that has not been done: `kubectl certwave rotate FLEET --reason CACompromise --issuer NAME`",
        ),
    ),
];

/// What is to be said of a CA.
pub fn judge(ca: &CertificateAuthority, now: Timestamp) -> Vec<Finding> {
    let about = about("CertificateAuthority", &ca.metadata);
    let status = ca.status.clone().unwrap_or_default();
    let mut findings = by_rules(&about, &status.conditions, RULES);
    findings.extend(unseen(&about, &ca.metadata, status.observed_generation));
    if status.not_after.as_ref().is_some_and(|end| end.0 <= now) {
        let words = format!("its certificate ended {}", from_now(status.not_after.as_ref(), now));
        findings.push(Finding::bad(Level::Fault, &about, words).then("nothing below it works any more: see Ready"));
    }
    let renew_before = ca.spec.crl.renew_before.as_secs();
    findings.extend(
        status
            .crls
            .iter()
            .filter_map(|crl| stale(&about, crl, renew_before, now)),
    );
    if let Some(signer) = &status.ocsp_signer {
        let left = signer.not_after.0.as_second() - now.as_second();
        let late = left < ca.spec.ocsp.signer_validity.as_secs() / SIGNER_SHARE;
        if late {
            let level = if left <= 0 { Level::Fault } else { Level::Warning };
            let words = format!(
                "the certificate that signs OCSP answers ends {} ({}) and should have been renewed",
                from_now(Some(&signer.not_after), now),
                exact(Some(&signer.not_after))
            );
            let remedy = "see that the controller runs and that the CA is Ready; without it OCSP answers tryLater";
            findings.push(Finding::bad(level, &about, words).then(remedy));
        }
    }
    if findings.is_empty() {
        let crls = status
            .crls
            .iter()
            .filter_map(|crl| crl.next_update.as_ref())
            .min_by_key(|end| end.0);
        let words = match crls {
            Some(end) => format!(
                "ready; of {} CRLs the first ends {}",
                status.crls.len(),
                from_now(Some(end), now)
            ),
            None => "ready".to_owned(),
        };
        findings.push(Finding::ok(about, words));
    }
    findings
}

/// A CRL that is over, or that should have been made anew.
fn stale(about: &str, crl: &CrlStatus, renew_before: i64, now: Timestamp) -> Option<Finding> {
    let end = crl.next_update.as_ref()?;
    let left = end.0.as_second() - now.as_second();
    let due = renew_before - SLACK.max(renew_before / 10);
    let remedy = "CRLs are made by the leading controller: see that it runs and that the CA is Ready";
    if left <= 0 {
        let words = format!(
            "CRL {} (number {}) ended {}: brokers that check it lock everybody out",
            crl.partition,
            crl.number,
            from_now(Some(end), now)
        );
        Some(Finding::bad(Level::Fault, about, words).then(remedy))
    } else if left < due {
        let words = format!(
            "CRL {} (number {}) ends {} and should have been made anew",
            crl.partition,
            crl.number,
            from_now(Some(end), now)
        );
        Some(Finding::bad(Level::Warning, about, words).then(remedy))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::{Value, json};

    use super::*;

    const NOW: &str = "2026-11-21T12:00:00Z";

    fn found(status: &Value) -> Vec<Finding> {
        let ca = json!({
            "apiVersion": "certwave.dev/v1alpha1", "kind": "CertificateAuthority",
            "metadata": {"name": "root", "namespace": "plant", "generation": 1},
            "spec": {"root": {}}, "status": status,
        });
        judge(&serde_json::from_value(ca).unwrap(), NOW.parse().unwrap())
    }

    fn crl(next_update: &str) -> Value {
        json!({"observedGeneration": 1, "crls": [{"partition": "2027-01", "number": 7, "nextUpdate": next_update}]})
    }

    #[test]
    fn a_crl_that_was_made_in_time_is_well() {
        // Made anew three days before its end, where nothing else is said.
        let findings = found(&crl("2026-11-24T11:00:00Z"));
        assert_eq!(findings.len(), 1);
        assert_eq!(findings[0].level, Level::Ok, "{findings:?}");
    }

    #[test]
    fn a_crl_that_was_not_made_anew_warns_and_one_that_is_over_is_a_fault() {
        let late = found(&crl("2026-11-22T12:00:00Z"));
        assert_eq!(late[0].level, Level::Warning, "{late:?}");
        assert!(late[0].message.contains("2027-01") && late[0].remedy.is_some());
        let over = found(&crl("2026-11-21T11:59:59Z"));
        assert_eq!(over[0].level, Level::Fault, "{over:?}");
    }

    #[test]
    fn what_the_controller_says_itself_is_told_on() {
        let condition = json!({"type": "CRLFresh", "status": "False", "reason": "Stale", "message": "number 6 is served",
            "lastTransitionTime": NOW});
        let findings = found(&json!({"observedGeneration": 1, "conditions": [condition]}));
        assert_eq!(findings[0].level, Level::Fault);
        assert!(findings[0].message.contains("number 6 is served"));
    }

    #[test]
    fn a_signer_of_ocsp_that_was_not_renewed_warns() {
        let signer = |end: &str| json!({"observedGeneration": 1, "ocspSigner": {"serial": "1", "notAfter": end}});
        assert_eq!(found(&signer("2026-11-29T12:00:00Z"))[0].level, Level::Ok);
        assert_eq!(found(&signer("2026-11-23T12:00:00Z"))[0].level, Level::Warning);
        assert_eq!(found(&signer("2026-11-21T12:00:00Z"))[0].level, Level::Fault);
    }

    #[test]
    fn a_change_that_nobody_took_up_is_said() {
        let findings = found(&json!({}));
        assert!(findings[0].message.contains("no controller has looked"), "{findings:?}");
    }
}

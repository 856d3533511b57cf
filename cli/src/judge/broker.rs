//! Brokers: connected, their nodes current, certificates with life left.

use certwave_crds::{Broker, CertificateStatus};
use jiff::Timestamp;

use super::{about, by_rules, rule, unseen};
use crate::finding::{Finding, Level};
use crate::time::from_now;

/// Certificates renew themselves when a third of their life is left; with less than this share (one in so many) they have not.
const SHARE: i64 = 5;

const RULES: &[super::Rule] = &[
    rule("Ready", "False", Level::Fault, None),
    rule(
        "Connected",
        "False",
        Level::Fault,
        Some("look at the broker's log; no device is served meanwhile, and none is charged for it"),
    ),
    rule(
        "ClaimsConnected",
        "False",
        Level::Fault,
        Some("nobody can enrol by a claim meanwhile: look at the log of the broker behind claimsUrl"),
    ),
];

const DOOR: &str = "DoorCurrent";
const BEHIND: &[super::Rule] = &[rule(
    DOOR,
    "False",
    Level::Fault,
    Some("revoked devices may still get in at such a node: look at the `certwave crl-sync` beside it"),
)];
const UNTOLD: &[super::Rule] = &[rule(
    DOOR,
    "False",
    Level::Warning,
    Some("name the broker's adapter in its spec, or see to it yourself that it refuses who is revoked"),
)];

/// What is to be said of a Broker.
pub fn judge(broker: &Broker, now: Timestamp) -> Vec<Finding> {
    let about = about("Broker", &broker.metadata);
    let status = broker.status.clone().unwrap_or_default();
    let mut findings = by_rules(&about, &status.conditions, RULES);
    // A broker without an adapter is somebody's choice; a node that is behind is nobody's.
    let adapted = super::condition(&status.conditions, DOOR).is_none_or(|door| door.reason != "NoAdapter");
    findings.extend(by_rules(
        &about,
        &status.conditions,
        if adapted { BEHIND } else { UNTOLD },
    ));
    findings.extend(unseen(&about, &broker.metadata, status.observed_generation));
    let certificates = [
        (
            "the certificate that signs what devices are told",
            &status.control_certificate,
        ),
        (
            "the certificate by which the controller connects",
            &status.client_certificate,
        ),
        ("the broker's own certificate", &status.server_certificate),
    ];
    findings.extend(
        certificates
            .iter()
            .filter_map(|(what, certificate)| ending(&about, what, certificate.as_ref()?, now)),
    );
    for node in &status.nodes {
        if let Some(error) = &node.error {
            findings.push(Finding::bad(
                Level::Fault,
                &about,
                format!("node {}: {error}", node.name),
            ));
        }
    }
    if findings.is_empty() {
        findings.push(Finding::ok(about, "connected"));
    }
    findings
}

fn ending(about: &str, what: &str, certificate: &CertificateStatus, now: Timestamp) -> Option<Finding> {
    let (end, begin) = (certificate.not_after.as_ref()?, certificate.not_before.as_ref()?);
    let left = end.0.as_second() - now.as_second();
    let life = end.0.as_second() - begin.0.as_second();
    if left >= life / SHARE {
        return None;
    }
    let level = if left <= 0 { Level::Fault } else { Level::Warning };
    let words = format!("{what} ends {} and was not renewed", from_now(Some(end), now));
    Some(Finding::bad(level, about, words).then(
        "the controller renews what its CA issues: see that the CA is Ready; a certificate of your own you renew in its Secret",
    ))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::{Value, json};

    use super::*;

    fn found(status: &Value) -> Vec<Finding> {
        let broker = json!({
            "apiVersion": "certwave.dev/v1alpha1", "kind": "Broker", "metadata": {"name": "mqtt", "namespace": "plant", "generation": 1},
            "spec": {"id": "mqtt", "url": "mqtts://b:8883", "trust": {"issuerRef": {"name": "root"}}}, "status": status,
        });
        judge(
            &serde_json::from_value(broker).unwrap(),
            "2026-11-21T12:00:00Z".parse().unwrap(),
        )
    }

    #[test]
    fn a_broker_that_is_down_is_a_fault_with_what_to_do() {
        let condition = json!({"type": "Connected", "status": "False", "reason": "ConnectionFailed",
            "message": "connection refused", "lastTransitionTime": "2026-11-21T11:00:00Z"});
        let findings = found(&json!({"observedGeneration": 1, "conditions": [condition]}));
        assert_eq!(findings[0].level, Level::Fault);
        assert!(findings[0].message.contains("connection refused") && findings[0].remedy.is_some());
    }

    #[test]
    fn a_broker_that_nobody_tells_of_revocations_warns_and_one_that_is_behind_is_a_fault() {
        let with = |reason: &str| {
            let condition = json!({"type": "DoorCurrent", "status": "False", "reason": reason, "message": "m",
                "lastTransitionTime": "2026-11-21T11:00:00Z"});
            found(&json!({"observedGeneration": 1, "conditions": [condition]}))[0].level
        };
        assert_eq!(with("NoAdapter"), Level::Warning);
        assert_eq!(with("NodeBehind"), Level::Fault);
    }

    #[test]
    fn a_certificate_that_should_have_been_renewed_warns() {
        let with = |end: &str| json!({"observedGeneration": 1, "serverCertificate": {"notBefore": "2026-09-01T12:00:00Z", "notAfter": end}});
        assert_eq!(found(&with("2026-12-30T12:00:00Z"))[0].level, Level::Ok);
        assert_eq!(found(&with("2026-11-30T12:00:00Z"))[0].level, Level::Warning);
        assert_eq!(found(&with("2026-11-20T12:00:00Z"))[0].level, Level::Fault);
    }
}

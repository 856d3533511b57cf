//! Rotations that a person should look at.

use certwave_crds::{Rotation, RotationPhase};

use super::{about, by_rules, rule};
use crate::finding::{Finding, Level};
use crate::progress::phase;

const RULES: &[super::Rule] = &[
    rule(
        "Planned",
        "False",
        Level::Fault,
        Some("a Rotation's spec cannot be mended: delete it, and create another one"),
    ),
    rule(
        "DeadlineAtRisk",
        "True",
        Level::Fault,
        Some("approve what waits, or abort it and rotate with higher limits: docs/rotations.md, Deadline"),
    ),
];

/// What is to be said of a Rotation; nothing of one that goes well or is over.
pub fn judge(rotation: &Rotation) -> Vec<Finding> {
    let about = about("Rotation", &rotation.metadata);
    let name = rotation.metadata.name.as_deref().unwrap_or_default();
    let status = rotation.status.clone().unwrap_or_default();
    let phase = phase(rotation.status.as_ref());
    if crate::progress::is_over(phase) {
        return Vec::new();
    }
    let mut findings = by_rules(&about, &status.conditions, RULES);
    let wave = status.progress.as_deref().unwrap_or_default();
    match phase {
        RotationPhase::Breached | RotationPhase::RolledBack => {
            let why = status
                .breach
                .as_ref()
                .map_or("a limit was exceeded", |breach| breach.message.as_str());
            let words = format!("stopped in wave {wave}: {why}");
            findings.push(Finding::bad(Level::Fault, &about, words).then(format!(
                "there is time to think: `kubectl certwave watch {name}` shows why; then `retry {name}`, `resume {name}` or `abort {name}`"
            )));
        }
        RotationPhase::RollingBack => {
            findings.push(Finding::bad(
                Level::Warning,
                &about,
                format!("wave {wave} is being sent back"),
            ));
        }
        RotationPhase::WaitingForApproval => {
            findings.push(
                Finding::bad(Level::Warning, &about, format!("waits for approval after wave {wave}"))
                    .then(format!("`kubectl certwave approve {name}`")),
            );
        }
        RotationPhase::Paused | RotationPhase::Pending => {
            // Says by whom or by what, and what Pending waits for.
            let kinds = if phase == RotationPhase::Paused {
                "Progressing"
            } else {
                "Complete"
            };
            let why = super::condition(&status.conditions, kinds);
            let words = why.map_or_else(
                || format!("{phase:?}"),
                |c| format!("{phase:?} ({}): {}", c.reason, c.message),
            );
            findings.push(Finding::bad(Level::Warning, &about, words));
        }
        _ => {}
    }
    findings
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::{Value, json};

    use super::*;

    fn found(status: &Value) -> Vec<Finding> {
        let rotation = json!({
            "apiVersion": "certwave.dev/v1alpha1", "kind": "Rotation", "metadata": {"name": "meters-7", "namespace": "plant"},
            "spec": {"fleetRef": {"name": "meters"}}, "status": status,
        });
        judge(&serde_json::from_value(rotation).unwrap())
    }

    #[test]
    fn a_breach_is_a_fault_and_says_what_may_be_done() {
        let breach = json!({"wave": "canary", "cause": "Failed", "message": "2 devices failed where 0 may",
            "at": "2026-11-21T11:00:00Z"});
        let findings = found(&json!({"phase": "Breached", "progress": "1/3 canary", "breach": breach}));
        assert_eq!(findings[0].level, Level::Fault);
        assert!(findings[0].message.contains("2 devices failed"));
        assert!(findings[0].remedy.as_deref().unwrap().contains("retry meters-7"));
    }

    #[test]
    fn what_goes_well_or_is_over_is_not_mentioned() {
        for phase in ["Running", "Soaking", "Complete", "Aborted", "Previewed"] {
            assert_eq!(found(&json!({"phase": phase})), [], "{phase}");
        }
    }

    #[test]
    fn who_must_approve_is_told_how() {
        let findings = found(&json!({"phase": "WaitingForApproval", "progress": "1/3 canary"}));
        assert!(findings[0].remedy.as_deref().unwrap().contains("approve meters-7"));
    }
}

//! Fleets: served, in time, nothing blocked.

use certwave_crds::Fleet;

use super::{about, by_rules, rule, unseen};
use crate::finding::{Finding, Level};

const RULES: &[super::Rule] = &[
    rule("Ready", "False", Level::Fault, None),
    rule(
        "DeadlineAtRisk",
        "True",
        Level::Fault,
        Some("approve what waits, or abort it and rotate with higher limits: docs/rotations.md, Deadline"),
    ),
    rule(
        "AutomaticRotation",
        "False",
        Level::Warning,
        Some("mend the Fleet's template, or answer the breach: `kubectl certwave resume` or `retry`"),
    ),
    rule("RetireUnavailable", "True", Level::Warning, None),
    rule("ClockSkew", "True", Level::Fault, None),
];

/// What is to be said of a Fleet.
pub fn judge(fleet: &Fleet) -> Vec<Finding> {
    let about = about("Fleet", &fleet.metadata);
    let status = fleet.status.clone().unwrap_or_default();
    let mut findings = by_rules(&about, &status.conditions, RULES);
    findings.extend(unseen(&about, &fleet.metadata, status.observed_generation));
    let counts = status.counts;
    if counts.expired > 0 {
        let words = format!(
            "{} devices have certificates that are over: they cannot connect any more",
            counts.expired
        );
        findings.push(
            Finding::bad(Level::Warning, &about, words)
                .then("each needs a permit (spec.reenrol) and a claim; `kubectl certwave expiring` names them"),
        );
    }
    if findings.is_empty() {
        findings.push(Finding::ok(
            about,
            format!("ready; {} of {} devices enrolled", counts.enrolled, counts.total),
        ));
    }
    findings
}

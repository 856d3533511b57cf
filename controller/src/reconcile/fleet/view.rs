//! A fleet's status.

use certwave_crds::{ClaimStatus, Fleet, FleetCounts as Shown, FleetStatus};
use certwave_ledger::FleetCounts;

use super::resolve::Resolved;
use crate::reconcile::status::{Verdict, condition};
use crate::reconcile::time::time;

/// What was found out besides the spec.
pub(super) struct Observed {
    pub(super) counts: FleetCounts,
    pub(super) claims: Vec<ClaimStatus>,
    /// The Rotation that runs.
    pub(super) rotation: Option<String>,
    /// The one that ended last.
    pub(super) last_rotation: Option<String>,
    /// Whether the devices of the one that runs will have their turn in time.
    pub(super) in_time: Option<Verdict>,
    /// The Rotation whose breach keeps the template from being used by itself.
    pub(super) blocked_by: Option<String>,
    pub(super) connected: bool,
    /// Why the broker is not connected.
    pub(super) error: Option<String>,
    /// Unix seconds.
    pub(super) now: i64,
}

/// The whole status.
pub(super) fn status(fleet: &Fleet, resolved: &Resolved, observed: &Observed) -> FleetStatus {
    let before = fleet
        .status
        .as_ref()
        .map(|status| status.conditions.as_slice())
        .unwrap_or_default();
    let generation = fleet.metadata.generation;
    let ready = match &resolved.entry {
        Err(verdict) => verdict.clone(),
        Ok(_) if observed.connected => Verdict::yes("Ready", "devices are served"),
        Ok(_) => Verdict::no(
            "BrokerNotConnected",
            match &observed.error {
                Some(error) => format!("the controller is not connected to the broker: {error}"),
                None => "the controller is connecting to the broker".to_owned(),
            },
        ),
    };
    let renew_before = fleet.spec.certificate.renew_before.as_secs();
    FleetStatus {
        counts: counts(&observed.counts),
        next_due: observed.counts.next_expiry.map(|end| time(end - renew_before)),
        current_rotation: observed.rotation.clone(),
        last_rotation: observed.last_rotation.clone(),
        trust_bundle: resolved.entry.as_ref().ok().map(|entry| entry.bundle.to_string()),
        claims: observed.claims.clone(),
        observed_generation: generation,
        conditions: [
            ("Ready", ready),
            automatic(resolved, observed),
            deadline(fleet, observed),
        ]
        .iter()
        .map(|(kind, verdict)| condition(kind, verdict, generation, before, observed.now))
        .collect(),
    }
}

/// Whether what is due is rotated without anybody asking.
fn automatic(resolved: &Resolved, observed: &Observed) -> (&'static str, Verdict) {
    let fault = resolved
        .entry
        .as_ref()
        .ok()
        .and_then(|entry| entry.strategy_fault.as_ref());
    let verdict = match (fault, &observed.blocked_by) {
        (Some(fault), _) => Verdict::no(
            "InvalidStrategy",
            format!("nothing is rotated by itself until this is mended: {fault}"),
        ),
        (None, Some(rotation)) => Verdict::no(
            "TemplateBlocked",
            format!(
                "the Rotation {rotation} was stopped: nothing is rotated by itself with the same certificate template \
                 until a person resumes it or sets control.retryFailed, a later Rotation completes, or the template changes"
            ),
        ),
        (None, None) => Verdict::yes(
            "Enabled",
            "what is due by renewBefore is rotated by the Fleet's strategy",
        ),
    };
    ("AutomaticRotation", verdict)
}

/// Whether any device will be too late.
fn deadline(fleet: &Fleet, observed: &Observed) -> (&'static str, Verdict) {
    let due_by = observed.now + fleet.spec.certificate.renew_before.as_secs();
    let due = observed.counts.next_expiry.is_some_and(|end| end < due_by);
    let verdict = match (&observed.in_time, &observed.blocked_by) {
        (Some(verdict), _) => verdict.clone(),
        (None, Some(rotation)) if due => Verdict::yes(
            "TemplateBlocked",
            format!(
                "certificates are due, and nothing is rotated by itself after the breach of the Rotation {rotation}"
            ),
        ),
        _ => Verdict::no("InTime", "no certificate will end before its device has had its turn"),
    };
    ("DeadlineAtRisk", verdict)
}

fn counts(counts: &FleetCounts) -> Shown {
    Shown {
        total: counts.total.into(),
        declared: i64::from(counts.declared) + i64::from(counts.enrolling),
        enrolled: i64::from(counts.total) - i64::from(counts.declared) - i64::from(counts.enrolling),
        rotating: counts.rotating.into(),
        offline: counts.offline.into(),
        failed: counts.failed.into(),
        expired: counts.expired.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn declared_and_enrolled_devices_are_all_devices() {
        let shown = counts(&FleetCounts {
            total: 10,
            declared: 3,
            enrolling: 1,
            active: 4,
            rotating: 1,
            failed: 1,
            ..FleetCounts::default()
        });
        assert_eq!((shown.total, shown.declared, shown.enrolled), (10, 4, 6));
    }
}

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
    pub(super) connected: bool,
    /// Why the broker is not connected.
    pub(super) error: Option<String>,
    /// Unix seconds.
    pub(super) now: i64,
}

/// The whole status.
pub(super) fn status(fleet: &Fleet, resolved: &Resolved, observed: Observed) -> FleetStatus {
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
        current_rotation: observed.rotation,
        last_rotation: None,
        trust_bundle: resolved.entry.as_ref().ok().map(|entry| entry.bundle.to_string()),
        claims: observed.claims,
        observed_generation: generation,
        conditions: vec![condition("Ready", &ready, generation, before, observed.now)],
    }
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

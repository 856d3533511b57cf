//! A fleet's status.

use certwave_crds::{ClaimStatus, Fleet, FleetCounts as Shown, FleetStatus};
use certwave_ledger::{FleetCounts, TemplateBlock};

use super::resolve::Resolved;
use crate::reconcile::authority;
use crate::reconcile::status::{CLOCK_SKEW, Verdict, condition};
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
    /// The breach that keeps the template from being used by itself.
    pub(super) blocked_by: Option<TemplateBlock>,
    /// Old certificates are to be revoked, and the broker does not report what it has loaded.
    pub(super) cannot_retire: bool,
    pub(super) connected: bool,
    /// Why the broker is not connected.
    pub(super) error: Option<String>,
    /// Whether the broker's door is shut to whom it should be; `None` while it is not known.
    pub(super) door: Option<Verdict>,
    /// Whether our clock is wrong, or the API server's.
    pub(super) skew: Verdict,
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
        Ok(entry) if entry.issuer.revoked => authority::revoked(&entry.issuer.object, "spec.issuerRef"),
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
            (CLOCK_SKEW, observed.skew.clone()),
        ]
        .into_iter()
        .chain(observed.door.clone().map(|verdict| ("DoorCurrent", verdict)))
        .chain(observed.cannot_retire.then(retire_unavailable))
        .map(|(kind, verdict)| condition(kind, &verdict, generation, before, observed.now))
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
    let revoked = resolved.entry.as_ref().ok().filter(|entry| entry.issuer.revoked);
    if let Some(entry) = revoked {
        return (
            "AutomaticRotation",
            authority::revoked(&entry.issuer.object, "spec.issuerRef"),
        );
    }
    let verdict = match (fault, &observed.blocked_by) {
        (Some(fault), _) => Verdict::no(
            "InvalidStrategy",
            format!("nothing is rotated by itself until this is mended: {fault}"),
        ),
        (None, Some(block)) => Verdict::no("TemplateBlocked", blocked(block)),
        (None, None) => Verdict::yes(
            "Enabled",
            "what is due by renewBefore is rotated by the Fleet's strategy",
        ),
    };
    ("AutomaticRotation", verdict)
}

fn blocked(block: &TemplateBlock) -> String {
    let rotation = &block.rotation.name;
    let (what, until) = if block.late {
        (
            "is complete, but then more of its devices than it allows did not come back by their new certificates",
            "a later Rotation completes, or the template changes; status.examples of the Rotation names devices",
        )
    } else {
        (
            "was stopped",
            "a person resumes it or sets control.retryFailed, a later Rotation completes, or the template changes",
        )
    };
    format!(
        "the Rotation {rotation} {what}: nothing is rotated by itself with the same certificate template until {until}"
    )
}

/// What is said where old certificates cannot be revoked as they should, on a Fleet and its Rotations.
pub(in crate::reconcile) fn retire_unavailable() -> (&'static str, Verdict) {
    let words = "oldCertificate.retire is Revoke, and the Broker does not report what its nodes have loaded: old certificates \
                 expire by themselves; set up an adapter for the Broker, or set retire to Expire";
    ("RetireUnavailable", Verdict::yes("NotReported", words))
}

/// Whether any device will be too late.
fn deadline(fleet: &Fleet, observed: &Observed) -> (&'static str, Verdict) {
    let due_by = observed.now + fleet.spec.certificate.renew_before.as_secs();
    let due = observed.counts.next_expiry.is_some_and(|end| end < due_by);
    let verdict = match (&observed.in_time, &observed.blocked_by) {
        (Some(verdict), _) => verdict.clone(),
        (None, Some(block)) if due => Verdict::yes(
            "TemplateBlocked",
            format!(
                "certificates are due, and nothing is rotated by itself after the breach of the Rotation {}",
                block.rotation.name
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
        revoked: counts.revoked.into(),
        held: counts.held.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_says_what_went_wrong_and_what_ends_it() {
        let block = |late| TemplateBlock {
            template: String::new(),
            rotation: certwave_core::model::ObjectRef {
                namespace: "plant".to_owned(),
                name: "spring".to_owned(),
            },
            late,
            at: 0,
        };
        assert!(blocked(&block(false)).contains("until a person resumes it"));
        let late = blocked(&block(true));
        assert!(
            late.contains("spring is complete") && !late.contains("resumes"),
            "{late}"
        );
    }

    #[test]
    fn declared_and_enrolled_devices_are_all_devices() {
        let shown = counts(&FleetCounts {
            total: 10,
            declared: 3,
            enrolling: 1,
            active: 4,
            rotating: 1,
            failed: 1,
            revoked: 2,
            held: 1,
            ..FleetCounts::default()
        });
        assert_eq!((shown.total, shown.declared, shown.enrolled), (10, 4, 6));
        assert_eq!((shown.revoked, shown.held), (2, 1));
    }
}

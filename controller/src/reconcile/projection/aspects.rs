//! What a status shows besides what the ledger has: conditions that somebody tells of.

use certwave_core::model::{Device, JobKind, JobState, ObjectRef};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::build::truth;
use crate::reconcile::status::Verdict;

/// A claim was refused for this device.
pub(in crate::reconcile) const ENROLMENT_REFUSED: &str = "EnrolmentRefused";
/// The reason of [`ENROLMENT_REFUSED`] while the device is revoked or on hold.
const REFUSED_AS_BARRED: &str = "Revoked";
/// What the object declares in `spec.revocation` cannot be carried out as it stands there.
pub(in crate::reconcile) const REVOCATION_FAULT: &str = "RevocationFault";
/// The device's clock is wrong.
pub(in crate::reconcile) const CLOCK_SKEW: &str = "ClockSkew";

/// What a status should show besides what the ledger has.
pub(in crate::reconcile) enum Show {
    /// The object declares a device that it may not have.
    Refused {
        /// The object.
        object: ObjectRef,
        /// Why.
        verdict: Verdict,
    },
    /// A further condition.
    Aspect {
        /// The object.
        object: ObjectRef,
        /// The condition.
        kind: &'static str,
        /// What it says.
        verdict: Verdict,
    },
    /// A further condition has ended.
    Settled {
        /// The object.
        object: ObjectRef,
        /// The condition.
        kind: &'static str,
    },
    /// Further conditions that the object shows from before this process began.
    Recalled {
        /// The object.
        object: ObjectRef,
        /// The conditions.
        conditions: Vec<(&'static str, Aspect)>,
    },
    /// What the object declares has changed, and with it perhaps what its status says.
    Looked(ObjectRef),
    /// The object is deleted.
    Gone(ObjectRef),
}

/// Those of an object's conditions that the ledger does not know of: after a restart the object alone remembers them.
pub(in crate::reconcile) fn lasting(conditions: &[Condition]) -> Vec<(&'static str, Aspect)> {
    let known = conditions.iter().filter_map(|condition| {
        let kind = [ENROLMENT_REFUSED, REVOCATION_FAULT, CLOCK_SKEW]
            .into_iter()
            .find(|kind| *kind == condition.type_)?;
        let verdict = Verdict {
            holds: truth(&condition.status),
            reason: condition.reason.clone(),
            message: condition.message.clone(),
        };
        let since = condition.last_transition_time.0.as_second();
        Some((kind, Aspect { verdict, since }))
    });
    known.collect()
}

/// A condition besides Ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::reconcile) struct Aspect {
    pub(super) verdict: Verdict,
    /// Unix seconds.
    pub(super) since: i64,
}

/// What is known of an object besides what the ledger has.
#[derive(Debug, Clone, Default)]
pub(super) struct Aspects {
    /// It declares a device that another object has.
    pub(super) refused: Option<Verdict>,
    conditions: Vec<(&'static str, Aspect)>,
}

impl Aspects {
    /// Sets a condition; `false` when it says so already.
    pub(super) fn set(&mut self, kind: &'static str, aspect: Aspect) -> bool {
        match self.conditions.iter_mut().find(|(other, _)| *other == kind) {
            Some((_, old)) if old.verdict == aspect.verdict => false,
            Some((_, old)) => {
                let since = if old.verdict.holds == aspect.verdict.holds {
                    old.since
                } else {
                    aspect.since
                };
                *old = Aspect { since, ..aspect };
                true
            }
            None => {
                self.conditions.push((kind, aspect));
                true
            }
        }
    }

    /// Ends a condition; `false` when it is not there.
    pub(super) fn end(&mut self, kind: &str) -> bool {
        let before = self.conditions.len();
        self.conditions.retain(|(other, _)| *other != kind);
        self.conditions.len() != before
    }

    /// The conditions, in the order in which they came up.
    pub(super) fn conditions(&self) -> &[(&'static str, Aspect)] {
        &self.conditions
    }

    /// Nothing is left to show.
    pub(super) fn is_empty(&self) -> bool {
        self.refused.is_none() && self.conditions.is_empty()
    }

    /// Takes back what a later success has settled.
    pub(super) fn settle(&mut self, device: &Device) {
        let enrolled = device
            .job
            .as_ref()
            .filter(|job| job.kind == JobKind::Enrol && job.state == JobState::Confirmed)
            .map(|job| job.since / 1000);
        self.conditions.retain(|(kind, aspect)| {
            // Refused as it was barred, and it is not any more.
            let lifted = aspect.verdict.reason == REFUSED_AS_BARRED && device.bar.is_none();
            *kind != ENROLMENT_REFUSED || !lifted && enrolled.is_none_or(|at| at <= aspect.since)
        });
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use certwave_core::model::Identity;
    use certwave_core::revocation::Bar;
    use certwave_protocol::code::Code;

    use super::*;
    use crate::reconcile::status::{camel_case, condition};

    #[test]
    fn a_condition_is_set_once_for_the_same_news() {
        let mut aspects = Aspects::default();
        let refused = |message: &str, since| Aspect {
            verdict: Verdict::yes("AlreadyEnrolled", message),
            since,
        };
        assert!(aspects.set(ENROLMENT_REFUSED, refused("a", 1)));
        assert!(!aspects.set(ENROLMENT_REFUSED, refused("a", 2)));
        assert!(aspects.set(ENROLMENT_REFUSED, refused("b", 3)));
        assert_eq!(aspects.conditions()[0].1.since, 1);
    }

    #[test]
    fn what_an_object_showed_before_a_restart_is_shown_on() {
        let skew = Verdict::yes("ClockSkew", "an hour behind");
        let shown = [
            condition("Ready", &Verdict::yes("CertificateValid", ""), None, &[], 5),
            condition(CLOCK_SKEW, &skew, None, &[], 7),
        ];
        let aspect = Aspect {
            verdict: skew,
            since: 7,
        };
        assert_eq!(lasting(&shown), [(CLOCK_SKEW, aspect)]);
    }

    #[test]
    fn a_refusal_ends_with_the_hold_that_it_was_for() {
        let mut aspects = Aspects::default();
        let reason = camel_case(Code::Revoked.as_str());
        let verdict = Verdict::yes(&reason, "a claim was refused: the device is on hold");
        aspects.set(ENROLMENT_REFUSED, Aspect { verdict, since: 1 });
        let identity = Identity {
            broker: "b".parse().unwrap(),
            device: "pump-1".parse().unwrap(),
        };
        let object = ObjectRef {
            namespace: "n".into(),
            name: "pump-1".into(),
        };
        let mut device = Device::declared(identity, object, "pumps".into());
        device.bar = Some(Bar::Held);
        aspects.settle(&device);
        assert!(!aspects.is_empty(), "it is on hold still");
        device.bar = None;
        aspects.settle(&device);
        assert!(aspects.is_empty());
    }

    #[test]
    fn a_condition_ends_once() {
        let mut aspects = Aspects::default();
        let verdict = Verdict::yes("ClockSkew", "");
        aspects.set(CLOCK_SKEW, Aspect { verdict, since: 1 });
        assert!(!aspects.end(ENROLMENT_REFUSED));
        assert!(aspects.end(CLOCK_SKEW));
        assert!(!aspects.end(CLOCK_SKEW) && aspects.is_empty());
    }
}

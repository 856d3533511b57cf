//! A Revocation's status. Pure.

use certwave_crds::{Revocation, RevocationCounts, RevocationMatch, RevocationPhase, RevocationStatus};
use certwave_ledger::RevocationProgress;
use certwave_protocol::ids::BrokerId;

use super::subject::Plan;
use crate::door::Abilities;
use crate::reconcile::device::invalid_since;
use crate::reconcile::status::{Verdict, condition};
use crate::reconcile::time::time;

/// What brokers can say of it: of those that tell what they go by, and those that close sessions, how far they are.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Doors {
    reporting: RevocationProgress,
    kicking: RevocationProgress,
    /// Certificates of devices at brokers without an adapter.
    deaf: u32,
}

impl Doors {
    /// Of a progress by broker, and what each broker's adapter can do; one that is not known yet is waited for.
    pub(super) fn of(
        at: &[(Option<BrokerId>, RevocationProgress)],
        abilities: impl Fn(&BrokerId) -> Option<Abilities>,
    ) -> Self {
        let known = at
            .iter()
            .filter_map(|(broker, progress)| Some((broker.as_ref()?, *progress)));
        let each: Vec<_> = known
            .map(|(broker, progress)| {
                let unknown = Abilities {
                    reports_loading: true,
                    kicks: true,
                };
                (abilities(broker).unwrap_or(unknown), progress)
            })
            .collect();
        let sum = |which: fn(&Abilities) -> bool| -> RevocationProgress {
            let some = each.iter().filter(|(abilities, _)| which(abilities));
            some.map(|(_, progress)| *progress).sum()
        };
        Self {
            reporting: sum(|abilities| abilities.reports_loading),
            kicking: sum(|abilities| abilities.kicks),
            deaf: sum(|abilities| !abilities.reports_loading && !abilities.kicks).recorded,
        }
    }
}

/// `1 certificate`, `2 certificates`.
fn certificates(count: u32) -> String {
    counted(count, "certificate")
}

fn counted(count: u32, what: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {what}{plural}")
}

/// What was found out.
pub(super) struct Observed {
    phase: RevocationPhase,
    plan: Option<Plan>,
    progress: Option<RevocationProgress>,
    /// The condition Complete.
    complete: Verdict,
}

impl Observed {
    fn new(phase: RevocationPhase, complete: Verdict) -> Self {
        Self {
            phase,
            plan: None,
            progress: None,
            complete,
        }
    }

    pub(super) fn with(self, progress: RevocationProgress) -> Self {
        Self {
            progress: Some(progress),
            ..self
        }
    }

    /// It cannot begin.
    pub(super) fn invalid(verdict: Verdict) -> Self {
        Self::new(RevocationPhase::Invalid, verdict)
    }

    /// It has begun and cannot go on.
    pub(super) fn stuck(verdict: Verdict) -> Self {
        Self::new(RevocationPhase::Running, verdict)
    }

    /// Previewed.
    pub(super) fn ready(plan: Plan, another: bool) -> Self {
        let count = match plan.devices {
            0 => certificates(plan.certificates),
            devices => format!("{} of {}", certificates(plan.certificates), counted(devices, "device")),
        };
        let verdict = if another {
            let message = format!(
                "it would be {count}, and not what spec.planHash was given for: look at it again, and give status.planHash or none"
            );
            Verdict::no("PlanChanged", message)
        } else {
            Verdict::no(
                "Previewed",
                format!("{count}; nothing has changed; set spec.mode to Run to begin"),
            )
        };
        Self {
            plan: Some(plan),
            ..Self::new(RevocationPhase::Ready, verdict)
        }
    }

    pub(super) fn running(plan: Option<Plan>) -> Self {
        let verdict = Verdict::no("Recording", "it is being recorded in the ledger");
        Self {
            plan,
            ..Self::new(RevocationPhase::Running, verdict)
        }
    }

    /// All of it is in the ledger. A CA's certificate is refused by no broker's node: it has no `doors`.
    pub(super) fn recorded(progress: RevocationProgress, doors: Option<&Doors>) -> Self {
        let all = progress.recorded;
        let certificates = certificates(all);
        let doors = doors.copied().unwrap_or_default();
        let (reporting, kicking) = (doors.reporting, doors.kicking);
        let waits = if progress.in_crl < all {
            Some((
                "WaitingForCRLs",
                format!(
                    "in CRLs: {} of {certificates}; if that takes long, look at the conditions of the CertificateAuthority",
                    progress.in_crl
                ),
            ))
        } else if reporting.shut < reporting.recorded {
            Some((
                "WaitingForBrokers",
                format!(
                    "refused by every node of the broker: {} of {certificates}; if that takes long, look at the conditions of the \
                     Broker",
                    reporting.shut
                ),
            ))
        } else if kicking.closed < kicking.recorded {
            Some((
                "WaitingForSessions",
                format!("sessions closed: those of {} of {certificates}", kicking.closed),
            ))
        } else {
            None
        };
        let observed = match waits {
            Some((reason, message)) => Self::new(RevocationPhase::Recorded, Verdict::no(reason, message)),
            None if all == 0 => Self::new(
                RevocationPhase::Complete,
                Verdict::yes("NothingMatched", "there was nothing left to revoke"),
            ),
            None if doors.deaf > 0 => Self::new(
                RevocationPhase::Complete,
                Verdict::yes(
                    "NotRefused",
                    format!(
                        "CRLs and OCSP say so of {certificates}; {} of these are of devices whose broker is told of no revocation \
                         (its condition DoorCurrent): sessions go on there",
                        doors.deaf
                    ),
                ),
            ),
            None => Self::new(
                RevocationPhase::Complete,
                Verdict::yes("Complete", format!("everybody has heard of {certificates}")),
            ),
        };
        observed.with(progress)
    }

    pub(super) fn released() -> Self {
        let verdict = Verdict::yes(
            "Released",
            "what was on hold for this object is good again, unless somebody else holds it",
        );
        Self::new(RevocationPhase::Released, verdict)
    }
}

/// The whole status. `now` in Unix seconds.
pub(super) fn status(object: &Revocation, observed: &Observed, now: i64) -> RevocationStatus {
    let before = object.status.clone().unwrap_or_default();
    let generation = object.metadata.generation;
    let mut conditions = vec![condition(
        "Complete",
        &observed.complete,
        generation,
        &before.conditions,
        now,
    )];
    // Once it is recorded the CRLs say what they say.
    let (_, fault) = invalid_since(object.spec.since.as_ref(), now.saturating_mul(1000));
    conditions.extend(fault.map(|verdict| condition("RevocationFault", &verdict, generation, &before.conditions, now)));
    let recorded = matches!(observed.phase, RevocationPhase::Recorded | RevocationPhase::Complete);
    let over = matches!(observed.phase, RevocationPhase::Complete | RevocationPhase::Released);
    RevocationStatus {
        phase: Some(observed.phase),
        matched: observed.plan.as_ref().map_or(before.matched, |plan| RevocationMatch {
            devices: plan.devices.into(),
            certificates: plan.certificates.into(),
        }),
        plan_hash: observed
            .plan
            .as_ref()
            .map(|plan| plan.hash.clone())
            .or(before.plan_hash),
        progress: observed.progress.map_or(before.progress, |progress| RevocationCounts {
            recorded: progress.recorded.into(),
            in_crl: progress.in_crl.into(),
            shut: progress.shut.into(),
            closed: progress.closed.into(),
        }),
        examples: observed
            .plan
            .as_ref()
            .map_or(before.examples, |plan| plan.examples.clone()),
        recorded_at: before.recorded_at.or_else(|| recorded.then(|| time(now))),
        completed_at: if observed.phase == RevocationPhase::Released {
            Some(time(now))
        } else {
            before.completed_at.or_else(|| over.then(|| time(now)))
        },
        observed_generation: generation,
        conditions,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const ADAPTER: Abilities = Abilities {
        reports_loading: true,
        kicks: true,
    };
    const SILENT: Abilities = Abilities {
        reports_loading: false,
        ..ADAPTER
    };
    const NONE: Abilities = Abilities { kicks: false, ..SILENT };

    /// Of as many, so many in a CRL, shut and closed, at a broker that can do this; `None`: a CA's own certificate.
    fn phase(counts: [u32; 4], abilities: Option<Abilities>) -> (RevocationPhase, String) {
        let [recorded, in_crl, shut, closed] = counts;
        let progress = RevocationProgress {
            recorded,
            in_crl,
            shut,
            closed,
        };
        let at = [(Some("b".parse().unwrap()), progress)];
        let doors = abilities.map(|abilities| Doors::of(&at, |_| Some(abilities)));
        let observed = Observed::recorded(progress, doors.as_ref());
        (observed.phase, observed.complete.reason)
    }

    #[test]
    fn it_is_complete_only_when_everybody_has_heard_of_every_certificate() {
        use RevocationPhase::{Complete, Recorded};
        let said = |phase, reason: &str| (phase, reason.to_owned());
        let at = Some(ADAPTER);
        assert_eq!(phase([3, 2, 0, 0], at), said(Recorded, "WaitingForCRLs"));
        assert_eq!(phase([3, 3, 2, 2], at), said(Recorded, "WaitingForBrokers"));
        assert_eq!(phase([3, 3, 3, 2], at), said(Recorded, "WaitingForSessions"));
        assert_eq!(phase([3, 3, 3, 3], at), said(Complete, "Complete"));
        assert_eq!(phase([1, 0, 0, 0], None), said(Recorded, "WaitingForCRLs"));
        let authority = phase([1, 1, 0, 0], None);
        assert_eq!(authority, said(Complete, "Complete"), "a CA comes to no broker's door");
        assert_eq!(phase([0, 0, 0, 0], at), said(Complete, "NothingMatched"));
    }

    #[test]
    fn nobody_waits_for_what_a_broker_cannot_say() {
        use RevocationPhase::{Complete, Recorded};
        let said = |phase, reason: &str| (phase, reason.to_owned());
        assert_eq!(phase([3, 3, 0, 2], Some(SILENT)), said(Recorded, "WaitingForSessions"));
        assert_eq!(phase([3, 3, 0, 3], Some(SILENT)), said(Complete, "Complete"));
        assert_eq!(phase([3, 2, 0, 0], Some(NONE)), said(Recorded, "WaitingForCRLs"));
        assert_eq!(phase([3, 3, 0, 0], Some(NONE)), said(Complete, "NotRefused"));
        let progress = RevocationProgress {
            recorded: 1,
            in_crl: 1,
            ..RevocationProgress::default()
        };
        let unknown = Doors::of(&[(Some("b".parse().unwrap()), progress)], |_| None);
        let observed = Observed::recorded(progress, Some(&unknown));
        assert_eq!(
            observed.complete.reason, "WaitingForBrokers",
            "a broker that is not known yet"
        );
        let archived = Doors::of(&[(None, progress)], |_| Some(ADAPTER));
        assert_eq!(Observed::recorded(progress, Some(&archived)).phase, Complete);
    }
}

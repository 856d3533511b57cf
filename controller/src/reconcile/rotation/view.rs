//! A Rotation's status.

use certwave_crds::{FailureExample, Rotation, RotationCounts as Shown, RotationPhase, RotationStatus};
use certwave_ledger::{RotationCounts, RotationExample};

use super::Sums as _;
use super::decide::Phase;
use crate::reconcile::status::{Verdict, condition, shorten};
use crate::reconcile::time::time;

/// Whether it has ended; an ended one is never touched again.
pub(super) fn is_over(rotation: &Rotation) -> bool {
    let phase = rotation.status.as_ref().and_then(|status| status.phase);
    matches!(
        phase,
        Some(RotationPhase::Complete | RotationPhase::Failed | RotationPhase::Aborted)
    )
}

/// The whole status. `now` in Unix seconds.
pub(super) fn status(
    object: &Rotation,
    phase: &Phase,
    counts: &RotationCounts,
    examples: &[RotationExample],
    now: i64,
) -> RotationStatus {
    let before = object.status.clone().unwrap_or_default();
    let generation = object.metadata.generation;
    let began = counts.members > 0 || phase.outcome().is_some() || matches!(phase, Phase::Running);
    let over = phase.outcome().is_some();
    let complete = condition(
        "Complete",
        &complete(object, phase, counts),
        generation,
        &before.conditions,
        now,
    );
    let mut conditions = vec![complete];
    if *phase == Phase::Failed {
        // As Jobs do, so that `kubectl wait` can wait for either.
        let failed = Verdict::yes("DevicesFailed", failures(counts));
        conditions.push(condition("Failed", &failed, generation, &before.conditions, now));
    }
    RotationStatus {
        phase: Some(match phase {
            Phase::Waiting(_) => RotationPhase::Pending,
            Phase::Running => RotationPhase::Running,
            Phase::Paused => RotationPhase::Paused,
            Phase::Complete => RotationPhase::Complete,
            Phase::Failed => RotationPhase::Failed,
            Phase::Aborted => RotationPhase::Aborted,
        }),
        counts: shown(counts, over),
        examples: examples.iter().map(example).collect(),
        started_at: before.started_at.or_else(|| began.then(|| time(now))),
        completed_at: before.completed_at.or_else(|| over.then(|| time(now))),
        observed_generation: generation,
        conditions,
        ..RotationStatus::default()
    }
}

fn complete(object: &Rotation, phase: &Phase, counts: &RotationCounts) -> Verdict {
    // Fleets are people's: the controller does not edit their specs.
    let next = object.spec.issuer_ref.as_ref().map_or_else(String::new, |ca| {
        format!(
            "; now set spec.issuerRef of Fleet {} to {}, or the next renewals go back to the CA before",
            object.spec.fleet_ref.name, ca.name
        )
    });
    match phase {
        Phase::Waiting(verdict) => verdict.clone(),
        Phase::Running => Verdict::no("Running", "the rotation goes on"),
        Phase::Paused => Verdict::no("Paused", "spec.control.state is Paused; jobs in flight go on"),
        Phase::Complete if counts.offline > 0 => Verdict::yes(
            "CompleteButOffline",
            format!(
                "every device that was heard is confirmed; {} offline devices follow when they come back{next}",
                counts.offline
            ),
        ),
        Phase::Complete => Verdict::yes(
            "AllConfirmed",
            format!("every device starts from its new certificate{next}"),
        ),
        Phase::Failed => Verdict::no("DevicesFailed", failures(counts)),
        Phase::Aborted => Verdict::no(
            "Aborted",
            "a person stopped the rotation; jobs in flight end by themselves",
        ),
    }
}

fn failures(counts: &RotationCounts) -> String {
    format!(
        "{} of {} devices failed and keep their old certificates; status.examples names some",
        counts.failures(),
        counts.members
    )
}

fn shown(counts: &RotationCounts, over: bool) -> Shown {
    let deferred = if over { counts.offline } else { 0 };
    Shown {
        planned: counts.members.into(),
        waiting: counts.planned.into(),
        in_flight: counts.in_flight.into(),
        confirmed: counts.confirmed.into(),
        failed: counts.failed.into(),
        timed_out: counts.timed_out.into(),
        rejected: counts.rejected.into(),
        lost: counts.lost.into(),
        offline: (counts.offline - deferred).into(),
        rolled_back: counts.rolled_back.into(),
        deferred: deferred.into(),
    }
}

fn example(example: &RotationExample) -> FailureExample {
    FailureExample {
        device_id: example.identity.device.to_string(),
        code: example
            .code
            .map_or("other", certwave_protocol::code::Code::as_str)
            .to_owned(),
        message: example.detail.as_deref().map(|detail| shorten(detail, 1024)),
    }
}

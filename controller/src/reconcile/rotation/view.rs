//! A Rotation's status.

use certwave_core::retire::RetirementCounts;
use certwave_core::rollout::judge::{Judgement, Phase, Waiting};
use certwave_core::rollout::run::{BreachCause as Cause, Plan, Run, WaveCounts};
use certwave_crds::{
    BreachCause, BreachStatus, FailureExample, PlanStatus, Rotation, RotationPhase, RotationStatus, WavePhase,
    WaveStatus,
};
use certwave_ledger::{MemberOutcome, RotationExample};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::outlook::Outlook;
use super::{Stored, counts};
use crate::reconcile::fleet::retire_unavailable;
use crate::reconcile::status::{Verdict, condition, shorten};
use crate::reconcile::time::{time, time_ms};

/// What a status is made of.
#[derive(Default)]
pub(super) struct Observed<'a> {
    /// What is missing before it can begin.
    pub(super) waiting: Option<Verdict>,
    /// What is wrong on our own side.
    pub(super) fault: Option<Verdict>,
    /// How it is over, where the ledger knows nothing of it.
    pub(super) over: Option<RotationPhase>,
    /// How it was judged.
    pub(super) judgement: Option<&'a Judgement>,
    /// Plan and run.
    pub(super) stored: Option<Stored<'a>>,
    /// How the waves stand.
    pub(super) waves: &'a [WaveCounts],
    /// Members that went wrong.
    pub(super) examples: &'a [RotationExample],
    /// Old certificates are to be revoked, and the broker does not report what it has loaded.
    pub(super) cannot_retire: bool,
    /// How the retirements of old certificates stand, where they are revoked.
    pub(super) retirements: Option<RetirementCounts>,
    /// Whether all will be in time.
    pub(super) outlook: Option<Outlook>,
    /// What a preview found; a running one keeps what was shown at its start.
    pub(super) preview: Option<PlanStatus>,
}

impl Observed<'_> {
    pub(super) fn waiting(verdict: Verdict) -> Self {
        Self {
            waiting: Some(verdict),
            ..Self::default()
        }
    }

    pub(super) fn aborted() -> Self {
        Self {
            over: Some(RotationPhase::Aborted),
            ..Self::default()
        }
    }

    /// There is no device to rotate.
    pub(super) fn nobody() -> Self {
        Self {
            over: Some(RotationPhase::Complete),
            ..Self::default()
        }
    }

    fn phase(&self) -> RotationPhase {
        if let Some(over) = self.over {
            return over;
        }
        let Some(judgement) = self.judgement else {
            return RotationPhase::Pending;
        };
        match judgement.phase {
            Phase::Running => RotationPhase::Running,
            Phase::Soaking => RotationPhase::Soaking,
            Phase::WaitingForApproval => RotationPhase::WaitingForApproval,
            Phase::Paused => RotationPhase::Paused,
            Phase::Breached => RotationPhase::Breached,
            Phase::RollingBack => RotationPhase::RollingBack,
            Phase::RolledBack => RotationPhase::RolledBack,
            Phase::Complete => RotationPhase::Complete,
            Phase::Failed => RotationPhase::Failed,
            Phase::Aborted => RotationPhase::Aborted,
        }
    }
}

/// Whether it has ended; an ended one is never touched again.
pub(super) fn is_over(rotation: &Rotation) -> bool {
    over(rotation.status.as_ref().and_then(|status| status.phase))
}

/// Whether its members were chosen.
pub(super) fn began(rotation: &Rotation) -> bool {
    rotation
        .status
        .as_ref()
        .is_some_and(|status| status.started_at.is_some())
}

/// Whether it cannot begin until a person changes something.
pub(super) fn stuck(rotation: &Rotation) -> bool {
    let conditions = rotation.status.iter().flat_map(|status| &status.conditions);
    let mut waiting = conditions.filter(|condition| condition.type_ == "Complete");
    !began(rotation)
        && waiting.any(|condition| matches!(condition.reason.as_str(), "InvalidPlan" | "InvalidStrategy" | "Paused"))
}

/// Whether nothing follows after this phase.
pub(super) fn over(phase: Option<RotationPhase>) -> bool {
    matches!(
        phase,
        Some(RotationPhase::Previewed | RotationPhase::Complete | RotationPhase::Failed | RotationPhase::Aborted)
    )
}

/// The whole status. `now` in Unix seconds.
pub(super) fn status(object: &Rotation, observed: &Observed<'_>, now: i64) -> RotationStatus {
    let before = object.status.clone().unwrap_or_default();
    let phase = observed.phase();
    let ended = over(Some(phase));
    let began = observed.stored.is_some();
    let run = observed.stored.as_ref().map(|stored| stored.run);
    let plan = observed.stored.as_ref().map(|stored| stored.plan);
    let waves: Vec<WaveStatus> = plan
        .map(|plan| plan.waves.iter().enumerate())
        .into_iter()
        .flatten()
        .map(|(number, planned)| {
            let counts = observed.waves.get(number).copied().unwrap_or_default();
            let phase = run.map_or(WavePhase::Pending, |run| wave_phase(run, phase, number));
            counts::wave(planned, phase, &counts, ended)
        })
        .collect();
    let sum = counts::sum(observed.waves);
    let (unreverted, failed): (Vec<_>, Vec<_>) = observed
        .examples
        .iter()
        .partition(|example| example.outcome == MemberOutcome::Unreverted);
    RotationStatus {
        phase: Some(phase),
        progress: plan.zip(run).map(|(plan, run)| progress(plan, run)).or(before.progress),
        eta: observed.outlook.as_ref().and_then(|outlook| outlook.eta).map(time_ms),
        counts: if began {
            counts::shown(&sum, ended)
        } else {
            before.counts
        },
        waves: if began { waves } else { before.waves },
        retirements: observed
            .retirements
            .as_ref()
            .map(counts::retirements)
            .or(before.retirements),
        plan: plan_status(observed, before.plan),
        breach: run.and_then(|run| run.breach.as_ref()).map(|breach| BreachStatus {
            wave: plan
                .and_then(|plan| plan.waves.get(breach.wave as usize))
                .map(|wave| wave.name.clone())
                .unwrap_or_default(),
            cause: match breach.cause {
                Cause::Failed => BreachCause::Failed,
                Cause::Lost => BreachCause::Lost,
                Cause::Success => BreachCause::Success,
                Cause::Gate => BreachCause::Gate,
                Cause::Person => BreachCause::Person,
            },
            message: shorten(&breach.detail, 1024),
            at: time_ms(breach.at),
        }),
        examples: failed.into_iter().take(super::EXAMPLES as usize).map(example).collect(),
        not_rolled_back: unreverted
            .into_iter()
            .take(super::EXAMPLES as usize)
            .map(example)
            .collect(),
        started_at: before.started_at.or_else(|| began.then(|| time(now))),
        completed_at: before.completed_at.or_else(|| ended.then(|| time(now))),
        observed_generation: object.metadata.generation,
        conditions: conditions(object, observed, phase, &sum, &before.conditions, now),
    }
}

fn plan_status(observed: &Observed<'_>, before: Option<PlanStatus>) -> Option<PlanStatus> {
    if observed.preview.is_some() {
        return observed.preview.clone();
    }
    let Some(stored) = &observed.stored else { return before };
    let mut plan = before.unwrap_or_default();
    plan.hash = Some(stored.plan.hash.clone());
    if let Some(outlook) = &observed.outlook {
        plan.eta = plan.eta.or_else(|| outlook.eta.map(time_ms));
        plan.needed_per_minute = outlook.needed_per_minute.into();
        plan.missed = outlook.missed.into();
        plan.first_missed = outlook.first_missed.map(time);
        plan.windows.clone_from(&outlook.windows);
        if outlook.without_window > 0 {
            plan.without_window = outlook.without_window.into();
        }
    }
    Some(plan)
}

fn progress(plan: &Plan, run: &Run) -> String {
    let (wave, all) = (run.wave as usize, plan.waves.len());
    let name = plan.waves.get(wave).map_or("", |wave| wave.name.as_str());
    shorten(&format!("{}/{all} {name}", wave + 1), 64)
}

fn wave_phase(run: &Run, phase: RotationPhase, number: usize) -> WavePhase {
    let present = run.wave as usize;
    if let Some(breach) = run.breach.as_ref().filter(|breach| breach.wave as usize == number) {
        return match phase {
            RotationPhase::RolledBack if !breach.rolling_back => WavePhase::RolledBack,
            _ => WavePhase::Breached,
        };
    }
    match phase {
        _ if number > present => WavePhase::Pending,
        _ if number < present => WavePhase::Done,
        RotationPhase::Complete => WavePhase::Done,
        RotationPhase::Soaking | RotationPhase::WaitingForApproval => WavePhase::Soaking,
        _ => WavePhase::Running,
    }
}

fn example(example: &RotationExample) -> FailureExample {
    let device_id = example.identity.device.to_string();
    if example.outcome == MemberOutcome::ProbationFailed {
        let words = "it confirmed the new certificate, and did not come back by it when the old one was on hold; the hold is \
                     released, and the old one lets it in until it expires";
        return FailureExample {
            device_id,
            code: "probation-failed".to_owned(),
            message: Some(words.to_owned()),
        };
    }
    FailureExample {
        device_id,
        code: example
            .code
            .map_or("other", certwave_protocol::code::Code::as_str)
            .to_owned(),
        message: example.detail.as_deref().map(|detail| shorten(detail, 1024)),
    }
}

fn conditions(
    object: &Rotation,
    observed: &Observed<'_>,
    phase: RotationPhase,
    sum: &WaveCounts,
    before: &[Condition],
    now: i64,
) -> Vec<Condition> {
    let mut said: Vec<(&str, Verdict)> = vec![("Complete", complete(object, observed, phase, sum))];
    if matches!(phase, RotationPhase::Failed) {
        // As Jobs do, so that `kubectl wait` can wait for either.
        said.push(("Failed", Verdict::yes("Breached", breach_words(observed))));
    }
    if let Some(waiting) = &observed.waiting {
        let planned = waiting.reason == "InvalidPlan" || waiting.reason == "InvalidStrategy";
        if planned {
            said.push(("Planned", waiting.clone()));
        }
    } else if observed.stored.is_some() || observed.preview.is_some() {
        let words = format!("{} devices in {} waves", sum.members, observed.waves.len());
        said.push(("Planned", Verdict::yes("Planned", words)));
    }
    if let Some(judgement) = observed.judgement {
        let begun = super::counts::sum(&observed.waves[..observed.waves.len().min(judgement.run.wave as usize + 1)]);
        said.push((
            "Progressing",
            progressing(judgement, phase, observed.fault.as_ref(), &begun),
        ));
        let breached = if judgement.run.breach.is_some() {
            Verdict::yes("LimitExceeded", breach_words(observed))
        } else {
            Verdict::no("WithinLimits", "every wave that has begun is within its limits")
        };
        said.push(("Breached", breached));
        if let Some(approved) = approved(judgement) {
            said.push(("Approved", approved));
        }
    }
    if let Some(risk) = observed.outlook.as_ref().map(Outlook::verdict) {
        said.push(("DeadlineAtRisk", risk));
    }
    if observed.cannot_retire {
        said.push(retire_unavailable());
    }
    let generation = object.metadata.generation;
    said.iter()
        .map(|(kind, verdict)| condition(kind, verdict, generation, before, now))
        .collect()
}

/// What became of the approvals that people gave.
fn approved(judgement: &Judgement) -> Option<Verdict> {
    if let Some(why) = &judgement.refused {
        return Some(Verdict::no("ApprovalRefused", why));
    }
    if judgement.phase == Phase::WaitingForApproval {
        let wave = judgement.run.wave + 1;
        let words = format!(
            "wave {wave} is done; the next one begins when spec.control.approval.throughWave is at least {wave} and \
             planHash is status.plan.hash"
        );
        return Some(Verdict::no("ApprovalNeeded", words));
    }
    let through = judgement.run.approved;
    (through > 0).then(|| Verdict::yes("Approved", format!("approved through wave {through}")))
}

/// What becomes of the waves that have begun.
fn serving(begun: &WaveCounts) -> String {
    let WaveCounts { planned, in_flight, .. } = begun;
    let idle = if *planned > 0 && *in_flight == 0 {
        "; who is in line waits for a window, for others of its group, for the rate, or for the pause after a failure"
    } else {
        ""
    };
    format!("{planned} devices are in line and {in_flight} in flight in the waves that have begun{idle}")
}

fn progressing(judgement: &Judgement, phase: RotationPhase, fault: Option<&Verdict>, begun: &WaveCounts) -> Verdict {
    let reason = match (&judgement.waiting, fault) {
        (Some(Waiting::Fault(_)), Some(fault)) => fault.reason.clone(),
        _ => format!("{phase:?}"),
    };
    let words = match &judgement.waiting {
        None => "it is over".to_owned(),
        Some(Waiting::Devices) => serving(begun),
        Some(Waiting::Proof) => format!(
            "no device of wave {} has proven the new certificate yet; those that are offline are waited for",
            judgement.run.wave + 1
        ),
        Some(Waiting::Soak(until)) => format!("the wave must stay well until {}", time_ms(*until).0),
        Some(Waiting::Gates(why)) => format!("a gate: {why}"),
        Some(Waiting::Approval) => "a person must approve the next wave".to_owned(),
        Some(Waiting::Person) if judgement.run.breach.is_some() => {
            "a limit was exceeded; set spec.control.resume or retryFailed to a new word to go on, or state to Aborted"
                .to_owned()
        }
        Some(Waiting::Person) => "spec.control.state is Paused; jobs in flight go on".to_owned(),
        Some(Waiting::Fault(why)) => format!("nothing is sent, and no device is charged: {why}"),
        Some(Waiting::Another(other)) => format!("the Rotation {other} goes before this one"),
    };
    match phase {
        RotationPhase::Running | RotationPhase::Soaking | RotationPhase::RollingBack => Verdict::yes(&reason, words),
        _ => Verdict::no(&reason, words),
    }
}

fn breach_words(observed: &Observed<'_>) -> String {
    let breach = observed.stored.as_ref().and_then(|stored| stored.run.breach.as_ref());
    breach.map_or_else(String::new, |breach| {
        format!(
            "wave {}: {}; status.examples names some",
            breach.wave + 1,
            breach.detail
        )
    })
}

fn complete(object: &Rotation, observed: &Observed<'_>, phase: RotationPhase, sum: &WaveCounts) -> Verdict {
    if let Some(waiting) = &observed.waiting {
        return waiting.clone();
    }
    // Fleets are people's: the controller does not edit their specs.
    let next = object.spec.issuer_ref.as_ref().map_or_else(String::new, |ca| {
        format!(
            "; now set spec.issuerRef of Fleet {} to {}, or the next renewals go back to the CA before",
            object.spec.fleet_ref.name, ca.name
        )
    });
    let wrong = sum.failures() + sum.vanished();
    match phase {
        RotationPhase::Complete if sum.members == 0 => Verdict::yes("NoDevices", "there was no device to rotate"),
        RotationPhase::Complete if wrong > 0 => Verdict::yes(
            "CompleteWithFailures",
            format!(
                "{} devices are confirmed, {wrong} failed within the limits and keep their old certificates, {} are left \
                 for later{next}",
                sum.confirmed, sum.offline
            ),
        ),
        RotationPhase::Complete if sum.offline > 0 => Verdict::yes(
            "CompleteButOffline",
            format!(
                "every device that was heard is confirmed; {} offline devices follow when they come back{next}",
                sum.offline
            ),
        ),
        RotationPhase::Complete if sum.skipped + sum.reverted > 0 => Verdict::yes(
            "CompleteWithSkipped",
            format!(
                "{} devices are confirmed; {} left the fleet, expired or were renewed otherwise before their turn, {} are back \
                 on their old certificates{next}",
                sum.proven(),
                sum.skipped,
                sum.reverted
            ),
        ),
        RotationPhase::Complete => Verdict::yes(
            "AllConfirmed",
            format!("every device starts from its new certificate{next}"),
        ),
        RotationPhase::Previewed => Verdict::no("Preview", "this was a preview; nothing was changed"),
        RotationPhase::Aborted => Verdict::no(
            "Aborted",
            "a person stopped the rotation; jobs in flight end by themselves",
        ),
        RotationPhase::Failed => Verdict::no("Breached", breach_words(observed)),
        phase => Verdict::no(&format!("{phase:?}"), "the rotation is not over; see Progressing"),
    }
}

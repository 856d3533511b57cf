//! What a person's word means for a rotation as it is: the change, whether to ask first, and what comes of it. Pure.

use certwave_crds::{ControlState, Rotation, RotationMode, RotationPhase, RotationReason};
use kube::ResourceExt as _;
use serde_json::{Value, json};

use crate::output::count;
use crate::progress::{is_over, phase};
use crate::{Error, Result, judge};

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The change of `spec.control`, as a merge patch.
    pub control: Value,
    /// What to ask before.
    pub question: Option<String>,
    /// What was done, in one word or two.
    pub done: &'static str,
    /// What happens next.
    pub next: String,
}

/// The rotation's name and phase, unless it is over.
fn running(rotation: &Rotation) -> Result<(String, RotationPhase)> {
    let (name, phase) = (rotation.name_any(), phase(rotation.status.as_ref()));
    if rotation.spec.mode == RotationMode::Preview {
        return Err(Error::Refused(format!("Rotation {name} is a preview; nothing runs")));
    }
    if is_over(phase) || rotation.spec.control.state == ControlState::Aborted {
        let phase = if is_over(phase) { phase } else { RotationPhase::Aborted };
        return Err(Error::Refused(format!(
            "Rotation {name} is over ({phase:?}), and never touched again; create another one: kubectl certwave rotate {}",
            rotation.spec.fleet_ref.name
        )));
    }
    Ok((name, phase))
}

/// The number of the present wave, from 1, and how many there are, by `2/3 early`.
fn wave(rotation: &Rotation) -> Option<(i32, i32)> {
    let progress = rotation.status.as_ref()?.progress.as_deref()?;
    let (number, rest) = progress.split_once('/')?;
    let whole = rest.split_whitespace().next()?;
    Some((number.parse().ok()?, whole.parse().ok()?))
}

pub(super) fn approve(rotation: &Rotation, through: Option<i32>, seen: Option<&str>) -> Result<Step> {
    let (name, phase) = running(rotation)?;
    let status = rotation.status.clone().unwrap_or_default();
    let plan = status.plan.unwrap_or_default();
    let (Some(hash), Some((present, waves))) = (plan.hash, wave(rotation)) else {
        return Err(Error::Refused(format!(
            "Rotation {name} has no plan yet ({phase:?}): there is nothing to approve"
        )));
    };
    let through = match through {
        Some(through) => through,
        None if phase == RotationPhase::WaitingForApproval => present,
        None => {
            return Err(Error::Refused(format!(
                "Rotation {name} does not wait for approval ({phase:?}, wave {present}/{waves}); --through-wave {present} gives it ahead"
            )));
        }
    };
    let now = &hash[..hash.floor_char_boundary(12)];
    if let Some(seen) = seen.filter(|seen| *seen != hash) {
        let seen = &seen[..seen.floor_char_boundary(12)];
        return Err(Error::Refused(format!(
            "the plan is {now} by now, not {seen}: devices have joined or left; look at it again before you approve it"
        )));
    }
    let index = usize::try_from(present - 1).unwrap_or(0);
    let shown = status.waves.get(index).map_or_else(String::new, |wave| {
        format!(
            "Wave {present}/{waves} {}: {} confirmed of {}, {} failed (of {} allowed), {} lost (of {}), {} offline. ",
            wave.name,
            wave.confirmed,
            wave.planned,
            wave.failures,
            wave.max_failed,
            wave.losses,
            wave.max_lost,
            wave.offline
        )
    });
    let following = usize::try_from(through).ok().and_then(|next| status.waves.get(next));
    let whom = following.map_or_else(String::new, |wave| {
        format!(", {} with {} devices", wave.name, wave.planned)
    });
    Ok(Step {
        control: json!({ "approval": { "throughWave": through, "planHash": hash } }),
        question: Some(format!(
            "{shown}Plan {now}.\nLet {name} go on after wave {through}{whom}? What has begun cannot be called back."
        )),
        done: "approved",
        next: format!("The wave after {through} begins as soon as that one is done, soaked and well by its gates."),
    })
}

pub(super) fn pause(rotation: &Rotation) -> Result<Step> {
    running(rotation)?;
    Ok(Step {
        control: json!({ "state": "Paused" }),
        question: None,
        done: "paused",
        next: format!(
            "Nothing new is sent; {} devices in flight finish. Go on by: kubectl certwave resume {}",
            rotation.status.as_ref().map_or(0, |status| status.counts.in_flight),
            rotation.name_any()
        ),
    })
}

fn devices(number: i64) -> String {
    count(number, "device")
}

/// `word` must not be the one that was carried out before.
fn new_word(word: &str, before: &str) -> Result<()> {
    if word == before {
        return Err(Error::Refused(format!(
            "{word:?} was given before, and each word is carried out once; give another --because"
        )));
    }
    Ok(())
}

const fn is_breach(phase: RotationPhase) -> bool {
    matches!(
        phase,
        RotationPhase::Breached | RotationPhase::RollingBack | RotationPhase::RolledBack
    )
}

/// Whether a breach waits for an answer, also behind a pause.
fn breached(rotation: &Rotation, phase: RotationPhase) -> bool {
    is_breach(phase) || rotation.status.as_ref().is_some_and(|status| status.breach.is_some())
}

pub(super) fn resume(rotation: &Rotation, word: &str) -> Result<Step> {
    let (name, phase) = running(rotation)?;
    let status = rotation.status.clone().unwrap_or_default();
    let control = &rotation.spec.control;
    if breached(rotation, phase) {
        new_word(word, &control.resume)?;
        let counts = status.counts;
        let why = status
            .breach
            .map_or_else(String::new, |breach| format!(" ({}: {})", breach.wave, breach.message));
        return Ok(Step {
            control: json!({ "state": "Running", "resume": word }),
            question: Some(format!(
                "{name} was stopped{why}. To resume writes off {} that failed and {} lost: they keep their old certificates and are \
                 not tried again (`retry` tries those that failed). Go on?",
                devices(counts.failures),
                counts.losses
            )),
            done: "resumed",
            next: "The same wave goes on: it must be done, soak, pass its gates and be approved anew.".to_owned(),
        });
    }
    if control.state == ControlState::Paused {
        return Ok(Step {
            control: json!({ "state": "Running" }),
            question: None,
            done: "resumed",
            next: "Devices are served again, within limits and windows.".to_owned(),
        });
    }
    let why =
        judge::condition(&status.conditions, "Progressing").map_or_else(String::new, |c| format!(": {}", c.message));
    let hint = match phase {
        RotationPhase::WaitingForApproval => format!("; `kubectl certwave approve {name}` lets it go on"),
        RotationPhase::Paused => "; no person has paused it, and it goes on by itself when that is over".to_owned(),
        _ => String::new(),
    };
    Err(Error::Refused(format!(
        "there is nothing to resume: {name} is {phase:?}{why}{hint}"
    )))
}

pub(super) fn abort(rotation: &Rotation) -> Result<Step> {
    let (name, phase) = running(rotation)?;
    let counts = rotation.status.as_ref().map(|status| status.counts).unwrap_or_default();
    let automatic = rotation
        .labels()
        .get("certwave.dev/automatic")
        .is_some_and(|is| is == "true");
    let block = if automatic {
        " It began by itself, so renewals with this template are blocked until the Fleet is mended or rotated by hand; to hold \
          them off for a while, pause it instead."
    } else {
        ""
    };
    Ok(Step {
        control: json!({ "state": "Aborted" }),
        question: Some(format!(
            "Stop {name} ({phase:?}) for good? {} of {} are on new certificates and stay there; {} wait and are left out; {} in flight end by \
             themselves.{block}",
            counts.confirmed,
            devices(counts.planned),
            counts.waiting + counts.offline,
            counts.in_flight
        )),
        done: "aborted",
        next: "Jobs that wait are cancelled; no device is sent back.".to_owned(),
    })
}

pub(super) fn retry(rotation: &Rotation, word: &str) -> Result<Step> {
    let (name, phase) = running(rotation)?;
    new_word(word, &rotation.spec.control.retry_failed)?;
    let counts = rotation.status.as_ref().map(|status| status.counts).unwrap_or_default();
    let breached = breached(rotation, phase);
    if counts.failures == 0 && !breached {
        return Err(Error::Refused(format!("nobody has failed in {name} ({phase:?})")));
    }
    let mut control = json!({ "retryFailed": word });
    if breached {
        control["state"] = json!("Running");
    }
    let lost = if breached && counts.losses > 0 {
        format!(" {} lost are written off, as nobody can ask them.", counts.losses)
    } else {
        String::new()
    };
    Ok(Step {
        control,
        question: breached.then(|| {
            format!(
                "{name} was stopped by a breach. Go on, and let {} that failed try again?{lost}",
                devices(counts.failures)
            )
        }),
        done: "retried",
        next: format!("{} that failed come again, with fresh keys.", devices(counts.failures)),
    })
}

pub(super) fn rollback(rotation: &Rotation, word: &str) -> Result<Step> {
    let (name, phase) = running(rotation)?;
    new_word(word, &rotation.spec.control.rollback)?;
    if rotation.spec.reason == RotationReason::CaCompromise {
        return Err(Error::Refused(format!(
            "{name} replaces what a compromised CA has issued: going back would restore that; pause or abort it"
        )));
    }
    if matches!(phase, RotationPhase::RollingBack | RotationPhase::RolledBack) {
        return Err(Error::Refused(format!("{name} is {phase:?} already")));
    }
    let status = rotation.status.clone().unwrap_or_default();
    let Some((present, waves)) = wave(rotation) else {
        return Err(Error::Refused(format!(
            "{name} has not begun ({phase:?}): nobody is on a new certificate"
        )));
    };
    let index = usize::try_from(present - 1).unwrap_or(0);
    let confirmed = status.waves.get(index).map_or(0, |wave| wave.confirmed);
    Ok(Step {
        // Behind a pause nobody would be sent back.
        control: json!({ "state": "Running", "rollback": word }),
        question: Some(format!(
            "Send {} of wave {present}/{waves} of {name} back to their old certificates? Nothing new is sent meanwhile. Those that were \
             confirmed longer ago than oldCertificate.grace, or whose old certificate ends soon, stay on the new one.",
            devices(confirmed)
        )),
        done: "rolling back",
        next: format!(
            "Each device tries its old certificate and proves that it works. Then {name} waits: resume, retry or abort it. Renewals \
             with this template are blocked meanwhile."
        ),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::from_value;

    use super::*;

    const HASH: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

    fn rotation(spec: &Value, status: &Value) -> Rotation {
        let mut object = json!({
            "apiVersion": "certwave.dev/v1alpha1", "kind": "Rotation", "metadata": {"name": "meters-7", "namespace": "plant"},
            "spec": {"fleetRef": {"name": "meters"}}, "status": status,
        });
        for (key, value) in spec.as_object().unwrap() {
            object["spec"][key] = value.clone();
        }
        from_value(object).unwrap()
    }

    fn in_phase(phase: &str) -> Rotation {
        rotation(
            &json!({}),
            &json!({"phase": phase, "progress": "1/3 canary", "plan": {"hash": HASH}, "counts": {"failures": 2, "losses": 1},
                "waves": [{"name": "canary", "phase": "Running", "planned": 5, "confirmed": 4}, {"name": "early", "phase": "Pending", "planned": 45}]}),
        )
    }

    #[test]
    fn an_approval_names_the_wave_that_waits_and_the_plan_that_is_shown() {
        let step = approve(&in_phase("WaitingForApproval"), None, None).unwrap();
        assert_eq!(step.control, json!({"approval": {"throughWave": 1, "planHash": HASH}}));
        let question = step.question.unwrap();
        assert!(
            question.contains("4 confirmed of 5") && question.contains("early with 45 devices"),
            "{question}"
        );
    }

    #[test]
    fn a_plan_that_has_changed_is_not_approved_unseen() {
        let refused = approve(&in_phase("WaitingForApproval"), None, Some("bb")).unwrap_err();
        assert!(refused.to_string().contains("look at it again"), "{refused}");
        assert!(approve(&in_phase("WaitingForApproval"), None, Some(HASH)).is_ok());
    }

    #[test]
    fn nothing_is_approved_by_accident() {
        assert!(approve(&in_phase("Running"), None, None).is_err());
        let ahead = approve(&in_phase("Running"), Some(2), None).unwrap();
        assert_eq!(ahead.control["approval"]["throughWave"], 2);
    }

    #[test]
    fn a_pause_ends_without_a_word_and_a_breach_needs_a_new_one() {
        let paused = rotation(&json!({"control": {"state": "Paused"}}), &json!({"phase": "Paused"}));
        let step = resume(&paused, "INC-1").unwrap();
        assert_eq!((step.control, step.question), (json!({"state": "Running"}), None));

        let step = resume(&in_phase("Breached"), "INC-1").unwrap();
        assert_eq!(step.control, json!({"state": "Running", "resume": "INC-1"}));
        assert!(step.question.unwrap().contains("writes off 2 devices"));
        let again = rotation(&json!({"control": {"resume": "INC-1"}}), &json!({"phase": "Breached"}));
        assert!(resume(&again, "INC-1").is_err());
        assert!(resume(&in_phase("Running"), "x").is_err());
    }

    #[test]
    fn a_breach_behind_a_pause_is_still_a_breach() {
        let both = rotation(
            &json!({"control": {"state": "Paused"}}),
            &json!({"phase": "Paused", "breach": {"wave": "canary", "cause": "Failed", "message": "m", "at": "2026-11-21T11:00:00Z"}}),
        );
        assert_eq!(resume(&both, "w").unwrap().control["resume"], "w");
    }

    #[test]
    fn what_is_over_is_not_touched() {
        for phase in ["Complete", "Failed", "Aborted"] {
            let over = in_phase(phase);
            for refused in [
                pause(&over),
                abort(&over),
                resume(&over, "w"),
                retry(&over, "w"),
                rollback(&over, "w"),
            ] {
                assert!(refused.unwrap_err().to_string().contains("over"), "{phase}");
            }
        }
    }

    #[test]
    fn what_is_final_is_asked_about() {
        assert!(abort(&in_phase("Running")).unwrap().question.is_some());
        assert!(
            rollback(&in_phase("Soaking"), "w")
                .unwrap()
                .question
                .unwrap()
                .contains("4 devices")
        );
        assert!(pause(&in_phase("Running")).unwrap().question.is_none());
    }

    #[test]
    fn an_abort_of_an_automatic_rotation_says_that_renewals_stop() {
        let mut automatic = in_phase("Running");
        automatic
            .labels_mut()
            .insert("certwave.dev/automatic".to_owned(), "true".to_owned());
        assert!(abort(&automatic).unwrap().question.unwrap().contains("blocked"));
    }

    #[test]
    fn nobody_goes_back_to_what_is_compromised() {
        let compromise = rotation(
            &json!({"reason": "CACompromise", "issuerRef": {"name": "new"}}),
            &json!({"phase": "Running", "progress": "1/1 all"}),
        );
        assert!(
            rollback(&compromise, "w")
                .unwrap_err()
                .to_string()
                .contains("compromised")
        );
    }

    #[test]
    fn a_retry_without_failures_is_refused_and_one_without_a_breach_is_not_asked_about() {
        let none = rotation(&json!({}), &json!({"phase": "Running"}));
        assert!(retry(&none, "w").is_err());
        let some = retry(&in_phase("Running"), "w").unwrap();
        assert_eq!((some.control, some.question), (json!({"retryFailed": "w"}), None));
        let breach = retry(&in_phase("Breached"), "w").unwrap();
        assert_eq!(breach.control["state"], "Running");
        assert!(breach.question.is_some());
    }
}

//! What is to be seen at one time. Pure.

use std::collections::BTreeMap;

use certwave_crds::{FailureExample, Fleet, Rotation, RotationPhase, RotationStatus, WaveStatus};
use jiff::Timestamp;
use kube::ResourceExt as _;

use crate::judge;
use crate::progress::{Rate, is_over, phase};
use crate::time::{age, exact, from_now, length};

/// Rotations that are over stay in sight for so long, seconds.
const LINGER: i64 = 600;

/// All that is to be seen.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Frame {
    /// When.
    pub(super) at: String,
    /// One line each.
    pub(super) fleets: Vec<String>,
    /// Those that run, and those that have just ended.
    pub(super) runs: Vec<Run>,
}

/// A Rotation.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Run {
    pub(super) name: String,
    pub(super) phase: RotationPhase,
    /// Phase, wave, rate, time left.
    pub(super) head: String,
    /// What it waits for.
    pub(super) why: Option<String>,
    pub(super) waves: Vec<WaveStatus>,
    pub(super) examples: Vec<FailureExample>,
    /// What a person may do.
    pub(super) advice: Option<String>,
}

impl Frame {
    /// What is to be seen of these; `None` where the target is not among them.
    pub(super) fn of(
        fleets: &[Fleet],
        rotations: &[Rotation],
        target: Option<&str>,
        rates: &BTreeMap<String, Rate>,
        now: Timestamp,
    ) -> Option<Self> {
        let named = rotations.iter().any(|r| Some(r.name_any().as_str()) == target);
        let fleet = |name: &str| match target {
            None => true,
            Some(target) if named => rotations
                .iter()
                .any(|r| r.name_any() == target && r.spec.fleet_ref.name == name),
            Some(target) => name == target,
        };
        let fleets: Vec<_> = fleets.iter().filter(|f| fleet(&f.name_any())).collect();
        if target.is_some() && !named && fleets.is_empty() {
            return None;
        }
        let shown = |r: &&Rotation| match target {
            Some(target) if named => r.name_any() == target,
            _ => fleet(&r.spec.fleet_ref.name) && in_sight(r, now),
        };
        let mut runs: Vec<&Rotation> = rotations.iter().filter(shown).collect();
        // What runs comes first, the oldest of it before.
        runs.sort_by_key(|r| (is_over(phase(r.status.as_ref())), r.creation_timestamp()));
        Some(Self {
            at: crate::time::at(now),
            fleets: fleets.into_iter().map(|fleet| fleet_line(fleet, now)).collect(),
            runs: runs
                .into_iter()
                .map(|r| run(r, rates.get(&r.uid().unwrap_or_default()), now))
                .collect(),
        })
    }
}

fn in_sight(rotation: &Rotation, now: Timestamp) -> bool {
    let Some(status) = &rotation.status else { return true };
    let over = status.phase.is_some_and(is_over);
    let ended = status.completed_at.as_ref().map_or(0, |at| at.0.as_second());
    !over || now.as_second() - ended < LINGER
}

fn fleet_line(fleet: &Fleet, now: Timestamp) -> String {
    let status = fleet.status.clone().unwrap_or_default();
    let c = status.counts;
    let ready = judge::condition(&status.conditions, "Ready").is_some_and(|c| c.status == "True");
    format!(
        "{}: {}, {} devices, {} enrolled, {} rotating, {} offline, {} failed, {} expired; next due {}",
        fleet.name_any(),
        if ready { "ready" } else { "NOT READY" },
        c.total,
        c.enrolled,
        c.rotating,
        c.offline,
        c.failed,
        c.expired,
        from_now(status.next_due.as_ref(), now)
    )
}

fn run(rotation: &Rotation, rate: Option<&Rate>, now: Timestamp) -> Run {
    let status = rotation.status.clone().unwrap_or_default();
    let (name, phase) = (rotation.name_any(), phase(rotation.status.as_ref()));
    let mut head = format!("{phase:?}");
    if let Some(wave) = &status.progress {
        head = format!("{head}, wave {wave}");
    }
    if status.started_at.is_some() {
        let end = status.completed_at.as_ref().map_or(now, |at| at.0);
        head = format!("{head}, for {}", age(status.started_at.as_ref(), end));
    }
    if !is_over(phase) {
        head = format!("{head}{}", rate.map_or_else(String::new, |rate| pace(rate, &status)));
        if status.eta.is_some() {
            head = format!("{head}, over {}", from_now(status.eta.as_ref(), now));
        }
    }
    let waiting = if phase == RotationPhase::Pending {
        "Complete"
    } else {
        "Progressing"
    };
    let why = status
        .breach
        .as_ref()
        .map(|breach| format!("{:?} in {}: {}", breach.cause, breach.wave, breach.message));
    let why = why.or_else(|| judge::condition(&status.conditions, waiting).map(|c| c.message.clone()));
    Run {
        head,
        why: why.filter(|_| !is_over(phase)),
        advice: advice(&name, phase),
        waves: status.waves,
        examples: status.examples,
        name,
        phase,
    }
}

fn advice(name: &str, phase: RotationPhase) -> Option<String> {
    let command = |verbs: &[&str]| {
        let all: Vec<_> = verbs.iter().map(|verb| format!("{verb} {name}")).collect();
        Some(format!("kubectl certwave {}", all.join(" | ")))
    };
    match phase {
        RotationPhase::WaitingForApproval => command(&["approve", "abort"]),
        RotationPhase::Breached | RotationPhase::RolledBack => command(&["retry", "resume", "abort"]),
        _ => None,
    }
}

/// `, 118/min, 4m left` as seen from here; nothing while nothing is known.
pub(super) fn pace(rate: &Rate, status: &RotationStatus) -> String {
    let c = status.counts;
    let more = c.planned - c.confirmed - c.failures - c.losses - c.offline;
    match (rate.per_minute(), rate.left(more)) {
        (Some(rate), Some(left)) if more > 0 => format!(", {rate}/min, {} left at this rate", length(left)),
        (Some(rate), _) => format!(", {rate}/min"),
        _ => String::new(),
    }
}

/// A Rotation on one line.
pub(super) fn line(name: &str, status: &RotationStatus) -> String {
    let c = status.counts;
    format!(
        "{name} {:?} wave {}: {}/{} confirmed, {} in flight, {} failed, {} lost, {} offline",
        phase(Some(status)),
        status.progress.as_deref().unwrap_or("-"),
        c.confirmed,
        c.planned,
        c.in_flight,
        c.failures,
        c.losses,
        c.offline
    )
}

/// Why it is not complete, and what may be done.
pub(super) fn why_not(name: &str, status: &RotationStatus) -> String {
    let phase = phase(Some(status));
    let breach = status.breach.as_ref().map_or_else(String::new, |b| {
        format!(": wave {}, {} ({})", b.wave, b.message, exact(Some(&b.at)))
    });
    let advice = advice(name, phase).map_or_else(String::new, |advice| format!("; {advice}"));
    format!("Rotation {name} is {phase:?}{breach}{advice}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::{Value, from_value, json};

    use super::*;

    fn now() -> Timestamp {
        "2026-11-21T12:00:00Z".parse().unwrap()
    }

    fn rotation(name: &str, fleet: &str, status: &Value) -> Rotation {
        from_value(json!({
            "apiVersion": "certwave.dev/v1alpha1", "kind": "Rotation", "metadata": {"name": name, "uid": name},
            "spec": {"fleetRef": {"name": fleet}}, "status": status,
        }))
        .unwrap()
    }

    fn fleet(name: &str) -> Fleet {
        from_value(json!({
            "apiVersion": "certwave.dev/v1alpha1", "kind": "Fleet", "metadata": {"name": name},
            "spec": {"issuerRef": {"name": "root"}, "brokerRef": {"name": "mqtt"}},
        }))
        .unwrap()
    }

    fn names(target: Option<&str>) -> Option<Vec<String>> {
        let rotations = [
            rotation(
                "old",
                "meters",
                &json!({"phase": "Complete", "completedAt": "2026-11-21T10:00:00Z"}),
            ),
            rotation(
                "just",
                "meters",
                &json!({"phase": "Complete", "completedAt": "2026-11-21T11:55:00Z"}),
            ),
            rotation("runs", "meters", &json!({"phase": "Running"})),
            rotation("other", "pumps", &json!({"phase": "Running"})),
        ];
        let fleets = [fleet("meters"), fleet("pumps")];
        let frame = Frame::of(&fleets, &rotations, target, &BTreeMap::new(), now())?;
        Some(frame.runs.into_iter().map(|run| run.name).collect())
    }

    #[test]
    fn what_runs_is_seen_and_what_has_just_ended() {
        assert_eq!(names(None).unwrap(), ["runs", "other", "just"]);
        assert_eq!(names(Some("meters")).unwrap(), ["runs", "just"]);
        assert_eq!(names(Some("old")).unwrap(), ["old"], "whoever names one sees it");
        assert_eq!(names(Some("nobody")), None);
    }

    #[test]
    fn rate_and_time_left_are_those_seen_from_here() {
        let mut rate = Rate::default();
        let at = |second| Timestamp::from_second(now().as_second() + second).unwrap();
        rate.saw(at(-60), 100);
        rate.saw(at(0), 160);
        let status = json!({"phase": "Running", "progress": "2/3 early", "startedAt": "2026-11-21T11:50:00Z",
            "counts": {"planned": 500, "confirmed": 155, "failures": 5, "offline": 40}});
        let run = run(&rotation("meters-7", "meters", &status), Some(&rate), now());
        assert_eq!(
            run.head,
            "Running, wave 2/3 early, for 10m, 60/min, 5m left at this rate"
        );
    }

    #[test]
    fn a_breach_says_why_and_what_may_be_done() {
        let status = json!({"phase": "Breached", "progress": "1/3 canary",
            "breach": {"wave": "canary", "cause": "Failed", "message": "2 devices failed where 0 may", "at": "2026-11-21T11:00:00Z"}});
        let run = run(&rotation("meters-7", "meters", &status), None, now());
        assert!(run.why.unwrap().contains("2 devices failed"));
        assert_eq!(
            run.advice.unwrap(),
            "kubectl certwave retry meters-7 | resume meters-7 | abort meters-7"
        );
    }
}

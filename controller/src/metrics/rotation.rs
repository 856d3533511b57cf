//! What is shown of the Rotation that runs over a fleet, and of the last one until the next begins: by fleet and wave, never by
//! device.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use certwave_core::rollout::gate::Verdict;
use certwave_core::rollout::judge::{Judgement, Phase, Waiting};
use certwave_core::rollout::run::{Plan, WaveCounts};
use certwave_ledger::FleetKey;
use prometheus::{GaugeVec, IntCounterVec, IntGaugeVec, Result};

use super::register::{Register, Unit, forget};

const FLEET: [&str; 2] = ["namespace", "fleet"];
const PHASES: [(Phase, &str); 10] = [
    (Phase::Running, "running"),
    (Phase::Soaking, "soaking"),
    (Phase::WaitingForApproval, "waiting_for_approval"),
    (Phase::Paused, "paused"),
    (Phase::Breached, "breached"),
    (Phase::RollingBack, "rolling_back"),
    (Phase::RolledBack, "rolled_back"),
    (Phase::Complete, "complete"),
    (Phase::Failed, "failed"),
    (Phase::Aborted, "aborted"),
];
const WAITED_FOR: [&str; 8] = [
    "devices", "proof", "soak", "gates", "approval", "person", "fault", "another",
];
const GATES: [&str; 4] = ["well", "pending", "bad", "unknown"];

/// Gauges of Rotations by fleet, and counters of how they went.
pub struct RotationMetrics {
    info: IntGaugeVec,
    phase: IntGaugeVec,
    waiting: IntGaugeVec,
    wave: IntGaugeVec,
    waves: IntGaugeVec,
    devices: IntGaugeVec,
    allowed: IntGaugeVec,
    gates: IntGaugeVec,
    windows_open: IntGaugeVec,
    last_change: IntGaugeVec,
    soak_end: IntGaugeVec,
    eta: IntGaugeVec,
    at_risk: IntGaugeVec,
    needed: GaugeVec,
    /// Limits exceeded, by fleet and cause.
    pub breaches: IntCounterVec,
    /// Rotations that ended, by fleet and outcome.
    pub ended: IntCounterVec,
    /// Answers of gates, by fleet, kind of gate and answer.
    pub gate_answers: IntCounterVec,
    /// Which Rotation (uid) is shown of a fleet, and with how many waves.
    shown: Mutex<HashMap<FleetKey, String>>,
}

/// A Rotation as it stands.
pub struct Shown<'a> {
    /// Its fleet.
    pub fleet: &'a FleetKey,
    /// The object's uid.
    pub uid: &'a str,
    /// The object's name.
    pub name: &'a str,
    /// Why it runs.
    pub reason: &'a str,
    /// Its waves.
    pub plan: &'a Plan,
    /// How it was judged.
    pub judgement: &'a Judgement,
    /// How its waves stand.
    pub counts: &'a [WaveCounts],
    /// What its gates say.
    pub gates: &'a [Verdict],
    /// Whether a window is open, or there are none.
    pub windows_open: bool,
    /// What is to be expected, where that is known.
    pub forecast: Option<Forecast>,
}

/// What is to be expected of a Rotation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forecast {
    /// When it will be over, Unix milliseconds, if ever.
    pub eta: Option<i64>,
    /// Devices whose certificates end before their turn.
    pub at_risk: u32,
    /// The rate that would do, jobs a minute.
    pub needed_per_minute: u32,
}

impl RotationMetrics {
    pub(super) fn new(register: &mut Register) -> Result<Self> {
        let mut of_fleet = |name, unit, help, more: &[&'static str]| {
            let labels: Vec<_> = FLEET.iter().chain(more).copied().collect();
            register.gauges(name, unit, help, &labels)
        };
        Ok(Self {
            info: of_fleet(
                "rotation_info",
                Unit::Flag,
                "1 for the Rotation that the fleet's other metrics of rotations are about: the one that runs, or the last one",
                &["rotation", "reason"],
            )?,
            phase: of_fleet(
                "rotation_phase",
                Unit::Flag,
                "1 for the phase that the Rotation is in",
                &["phase"],
            )?,
            waiting: of_fleet(
                "rotation_waiting",
                Unit::Flag,
                "1 for what the Rotation waits for",
                &["for"],
            )?,
            wave: of_fleet("rotation_wave", Unit::Count, "The present wave, from 1", &[])?,
            waves: of_fleet("rotation_waves", Unit::Count, "Waves that the Rotation has", &[])?,
            devices: of_fleet(
                "rotation_devices",
                Unit::Count,
                "Devices of the Rotation by wave, from 1, and state; each is counted once",
                &["wave", "state"],
            )?,
            allowed: of_fleet(
                "rotation_allowed_devices",
                Unit::Count,
                "Devices of a wave that may fail (limit failed) or vanish (limit lost) before it stops",
                &["wave", "limit"],
            )?,
            gates: of_fleet(
                "rotation_gates",
                Unit::Count,
                "Gates of the present wave by what follows from their answers",
                &["state"],
            )?,
            windows_open: of_fleet(
                "rotation_windows_open",
                Unit::Flag,
                "1 while a window is open, or there are none",
                &[],
            )?,
            last_change: of_fleet(
                "rotation_last_change_timestamp_seconds",
                Unit::UnixSeconds,
                "When a device of the waves begun last changed, or the present wave began",
                &[],
            )?,
            soak_end: of_fleet(
                "rotation_soak_end_timestamp_seconds",
                Unit::UnixSeconds,
                "When the soak ends, while it lasts",
                &[],
            )?,
            eta: of_fleet(
                "rotation_eta_timestamp_seconds",
                Unit::UnixSeconds,
                "When the Rotation will be over, as far as can be foreseen",
                &[],
            )?,
            at_risk: of_fleet(
                "rotation_devices_at_risk",
                Unit::Count,
                "Devices whose certificates end before their turn comes, at the present pace",
                &[],
            )?,
            needed: register.fractions(
                "rotation_needed_jobs_per_second",
                Unit::PerSecond,
                "The rate of jobs by which every device would have its turn in time",
                &FLEET,
            )?,
            breaches: register.counters(
                "rotation_breaches_total",
                "Limits exceeded in Rotations",
                &["namespace", "fleet", "cause"],
            )?,
            ended: register.counters(
                "rotations_ended_total",
                "Rotations that ended",
                &["namespace", "fleet", "outcome"],
            )?,
            gate_answers: register.counters(
                "gate_answers_total",
                "Answers of gates",
                &["namespace", "fleet", "kind", "answer"],
            )?,
            shown: Mutex::default(),
        })
    }

    /// Shows a Rotation. One that waits for another one of its fleet is not shown: the other one is.
    pub fn show(&self, shown: &Shown<'_>) {
        let waiting = shown.judgement.waiting.as_ref();
        if matches!(waiting, Some(Waiting::Another(_))) {
            return;
        }
        self.begin(shown);
        let fleet = [shown.fleet.namespace.as_str(), shown.fleet.name.as_str()];
        let set = |metric: &IntGaugeVec, more: &[&str], value: i64| {
            let labels: Vec<&str> = fleet.iter().chain(more).copied().collect();
            metric.with_label_values(&labels).set(value);
        };
        let set_or_hide = |metric: &IntGaugeVec, value: Option<i64>| match value {
            Some(value) => metric.with_label_values(&fleet).set(value),
            // Not there is as good.
            None => drop(metric.remove_label_values(&fleet)),
        };
        set(&self.info, &[shown.name, shown.reason], 1);
        for (phase, word) in PHASES {
            set(&self.phase, &[word], (phase == shown.judgement.phase).into());
        }
        let present = waiting.map(waited_for);
        for word in WAITED_FOR {
            set(&self.waiting, &[word], (present == Some(word)).into());
        }
        set(&self.wave, &[], i64::from(shown.judgement.run.wave) + 1);
        set(
            &self.waves,
            &[],
            i64::try_from(shown.plan.waves.len()).unwrap_or(i64::MAX),
        );
        for (number, counts) in (1_usize..).zip(shown.counts) {
            for (state, count) in states(counts) {
                set(&self.devices, &[&number.to_string(), state], count.into());
            }
        }
        for (number, wave) in (1_usize..).zip(&shown.plan.waves) {
            set(&self.allowed, &[&number.to_string(), "failed"], wave.max_failed.into());
            set(&self.allowed, &[&number.to_string(), "lost"], wave.max_lost.into());
        }
        for state in GATES {
            let count = shown.gates.iter().filter(|verdict| said(verdict) == state).count();
            set(&self.gates, &[state], i64::try_from(count).unwrap_or(i64::MAX));
        }
        set(&self.windows_open, &[], shown.windows_open.into());
        set(&self.last_change, &[], last_change(shown));
        let soak = match waiting {
            Some(Waiting::Soak(until)) => Some(until.div_euclid(1000)),
            _ => None,
        };
        set_or_hide(&self.soak_end, soak);
        let eta = shown.forecast.and_then(|forecast| forecast.eta);
        set_or_hide(&self.eta, eta.map(|at| at.div_euclid(1000)));
        let (at_risk, needed) = shown
            .forecast
            .map_or((0, 0), |forecast| (forecast.at_risk, forecast.needed_per_minute));
        set(&self.at_risk, &[], at_risk.into());
        self.needed.with_label_values(&fleet).set(f64::from(needed) / 60.0);
    }

    /// Makes room for another Rotation of the fleet.
    fn begin(&self, shown: &Shown<'_>) {
        let mut all = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        if all.get(shown.fleet).is_some_and(|uid| uid == shown.uid) {
            return;
        }
        self.hide(shown.fleet);
        all.insert(shown.fleet.clone(), shown.uid.to_owned());
    }

    /// A Rotation's object is gone.
    pub fn forget(&self, uid: &str) {
        let mut all = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let fleet = all
            .iter()
            .find(|(_, shown)| *shown == uid)
            .map(|(fleet, _)| fleet.clone());
        if let Some(fleet) = fleet {
            all.remove(&fleet);
            self.hide(&fleet);
        }
    }

    /// A fleet is gone, and what was counted of it.
    pub fn forget_fleet(&self, fleet: &FleetKey) {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner).remove(fleet);
        self.hide(fleet);
        for metric in [&self.breaches, &self.ended, &self.gate_answers] {
            forget(metric, &of(fleet));
        }
    }

    fn hide(&self, fleet: &FleetKey) {
        for metric in [
            &self.info,
            &self.phase,
            &self.waiting,
            &self.wave,
            &self.waves,
            &self.devices,
            &self.allowed,
            &self.gates,
            &self.windows_open,
            &self.last_change,
            &self.soak_end,
            &self.eta,
            &self.at_risk,
        ] {
            forget(metric, &of(fleet));
        }
        forget(&self.needed, &of(fleet));
    }
}

fn of(fleet: &FleetKey) -> [(&'static str, &str); 2] {
    [("namespace", &fleet.namespace), ("fleet", &fleet.name)]
}

const fn waited_for(waiting: &Waiting) -> &'static str {
    match waiting {
        Waiting::Devices => "devices",
        Waiting::Proof => "proof",
        Waiting::Soak(_) => "soak",
        Waiting::Gates(_) => "gates",
        Waiting::Approval => "approval",
        Waiting::Person => "person",
        Waiting::Fault(_) => "fault",
        Waiting::Another(_) => "another",
    }
}

const fn said(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Well => "well",
        Verdict::Pending => "pending",
        Verdict::Bad(_) => "bad",
        Verdict::Unknown(_) => "unknown",
    }
}

/// A wave's members, each in one state.
fn states(counts: &WaveCounts) -> [(&'static str, u32); 11] {
    [
        ("planned", counts.planned),
        ("in_flight", counts.in_flight + counts.reverting),
        ("confirmed", counts.proven()),
        ("failed", counts.failed),
        ("timed_out", counts.timed_out),
        ("rejected", counts.rejected),
        ("lost", counts.lost),
        ("offline", counts.offline),
        ("probation_failed", counts.probation_failed),
        ("rolled_back", counts.rolled_back + counts.reverted),
        ("skipped", counts.skipped),
    ]
}

/// Unix seconds.
fn last_change(shown: &Shown<'_>) -> i64 {
    let run = &shown.judgement.run;
    let begun = shown.counts.iter().take(run.wave as usize + 1);
    let changed = begun.map(|counts| counts.changed).chain([run.wave_since]).max();
    changed.unwrap_or_default().div_euclid(1000)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use certwave_core::rollout::run::{PlannedWave, Run};

    use super::*;

    fn judged(phase: Phase, waiting: Option<Waiting>) -> Judgement {
        Judgement {
            run: Run {
                wave_since: 1_790_000_000_000,
                ..Run::default()
            },
            phase,
            waiting,
            admits: false,
            reverts: false,
            actions: Vec::new(),
            notes: Vec::new(),
            refused: None,
        }
    }

    fn plan(waves: usize) -> Plan {
        let wave = PlannedWave {
            name: "some".to_owned(),
            size: 10,
            max_failed: 2,
            max_lost: 1,
        };
        Plan {
            waves: vec![wave; waves],
            hash: String::new(),
        }
    }

    /// Shows a Rotation of the fleet `pumps` with so many waves.
    fn show(metrics: &RotationMetrics, uid: &str, waves: usize, judgement: &Judgement) {
        let fleet = FleetKey {
            namespace: "plant".to_owned(),
            name: "pumps".to_owned(),
        };
        metrics.show(&Shown {
            fleet: &fleet,
            uid,
            name: uid,
            reason: "Manual",
            plan: &plan(waves),
            judgement,
            counts: &vec![WaveCounts::default(); waves],
            gates: &[Verdict::Pending],
            windows_open: true,
            forecast: None,
        });
    }

    #[test]
    fn the_next_rotation_takes_the_place_of_the_one_before_with_all_its_waves() {
        let mut register = Register::default();
        let metrics = RotationMetrics::new(&mut register).unwrap();
        show(&metrics, "first", 3, &judged(Phase::Complete, None));
        assert!(
            register.text().contains("wave=\"3\""),
            "the last one stays to be looked at"
        );
        show(&metrics, "second", 1, &judged(Phase::Running, Some(Waiting::Devices)));
        let text = register.text();
        assert!(!text.contains("wave=\"3\"") && !text.contains("first"), "{text}");
        for line in [
            "certwave_rotation_info{fleet=\"pumps\",namespace=\"plant\",reason=\"Manual\",rotation=\"second\"} 1",
            "certwave_rotation_phase{fleet=\"pumps\",namespace=\"plant\",phase=\"running\"} 1",
            "certwave_rotation_phase{fleet=\"pumps\",namespace=\"plant\",phase=\"complete\"} 0",
            "certwave_rotation_waiting{fleet=\"pumps\",for=\"devices\",namespace=\"plant\"} 1",
            "certwave_rotation_allowed_devices{fleet=\"pumps\",limit=\"failed\",namespace=\"plant\",wave=\"1\"} 2",
            "certwave_rotation_gates{fleet=\"pumps\",namespace=\"plant\",state=\"pending\"} 1",
            "certwave_rotation_last_change_timestamp_seconds{fleet=\"pumps\",namespace=\"plant\"} 1790000000",
        ] {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
        metrics.forget("first");
        assert!(register.text().contains("second"), "the one before takes nothing along");
        metrics.forget("second");
        assert!(!register.text().contains("pumps"));
    }

    #[test]
    fn one_that_waits_for_another_is_not_shown_in_its_place() {
        let mut register = Register::default();
        let metrics = RotationMetrics::new(&mut register).unwrap();
        show(
            &metrics,
            "emergency",
            1,
            &judged(Phase::Running, Some(Waiting::Devices)),
        );
        let waits = judged(Phase::Paused, Some(Waiting::Another("emergency".to_owned())));
        show(&metrics, "renewal", 2, &waits);
        let text = register.text();
        assert!(
            text.contains("rotation=\"emergency\"") && !text.contains("renewal"),
            "{text}"
        );
    }

    #[test]
    fn the_end_of_a_soak_is_shown_while_it_lasts() {
        let mut register = Register::default();
        let metrics = RotationMetrics::new(&mut register).unwrap();
        show(
            &metrics,
            "r",
            1,
            &judged(Phase::Soaking, Some(Waiting::Soak(1_790_000_600_000))),
        );
        let line = "certwave_rotation_soak_end_timestamp_seconds{fleet=\"pumps\",namespace=\"plant\"} 1790000600";
        assert!(register.text().contains(line));
        show(&metrics, "r", 1, &judged(Phase::Running, Some(Waiting::Devices)));
        assert!(!register.text().contains("soak_end"));
    }
}

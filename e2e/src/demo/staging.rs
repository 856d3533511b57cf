//! Which device comes when: a canary, an early wave in which all faults are, and the rest.

use serde_json::{Value, json};

use super::FAULTS;
use crate::stack::{Fault, Simulation, objects};

/// The wave in which the faulty devices are; one more fails than may.
pub(super) const EARLY: &str = "early";
const MAX_FAILED: usize = FAULTS.len() - 1;

/// Devices by wave, as numbers from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Staging {
    /// Those that fail, and how; they belong to the early wave.
    pub(super) faults: Vec<(usize, Fault)>,
    /// The first wave.
    pub(super) canary: Vec<usize>,
    /// The second one, faulty devices included.
    pub(super) early: Vec<usize>,
    /// The last one; none in a fleet of fewer than 6, whose last wave is the early one.
    pub(super) rest: Vec<usize>,
}

impl Staging {
    /// A twentieth of the fleet is the canary and a fifth comes early: at least one device, and one that is well beside the
    /// faulty ones. There are at least as many `devices` as that takes.
    pub(super) fn of(devices: usize) -> Self {
        // Spread over the fleet.
        let place = |index: usize| 1 + index * devices / FAULTS.len();
        let faults: Vec<_> = FAULTS
            .iter()
            .enumerate()
            .map(|(index, (fault, _))| (place(index), *fault))
            .collect();
        let is_faulty = |number: &usize| faults.iter().any(|(faulty, _)| faulty == number);
        let (mut early, mut well): (Vec<_>, Vec<_>) = (1..=devices).partition(is_faulty);
        let mut rest = well.split_off((devices / 20).max(1));
        let more = (devices / 5).saturating_sub(early.len()).max(1);
        early.extend(rest.drain(..more.min(rest.len())));
        Self {
            faults,
            canary: well,
            early,
            rest,
        }
    }

    /// All devices, each with the label that says its wave.
    pub(super) fn objects(&self, namespace: &str) -> Vec<Value> {
        let waves = [("canary", &self.canary), (EARLY, &self.early), ("rest", &self.rest)];
        let labelled = |(ring, numbers): (&'static str, &Vec<usize>)| {
            let object = |number: &usize| {
                let mut device = objects::device(namespace, &Simulation::device_id(*number));
                device["spec"]["labels"] = json!({ "ring": ring });
                device
            };
            numbers.iter().map(object).collect::<Vec<_>>()
        };
        waves.into_iter().flat_map(labelled).collect()
    }

    /// The Rotation: no canary may fail, two of the early wave may, and a wave in which more do goes back.
    pub(super) fn rotation(&self, namespace: &str, name: &str) -> Value {
        let ring = |name: &str| json!({ "matchLabels": { "ring": name } });
        let mut waves = vec![json!({
            "name": "canary", "count": self.canary.len(), "selector": ring("canary"), "maxFailed": 0, "soak": "1s",
        })];
        if self.rest.is_empty() {
            waves.push(json!({ "name": EARLY, "percent": 100, "maxFailed": MAX_FAILED }));
        } else {
            waves.push(json!({
                "name": EARLY, "count": self.early.len(), "selector": ring(EARLY), "maxFailed": MAX_FAILED, "soak": "1s",
            }));
            waves.push(json!({ "name": "rest", "percent": 100 }));
        }
        let mut rotation = objects::rotation(namespace, name);
        rotation["spec"]["waves"] = json!(waves);
        // Two of twenty may fail, so nine in ten must be well.
        rotation["spec"]["defaults"] = json!({ "successPercent": 90, "maxLost": 0, "onBreach": "Rollback" });
        // Long enough for the wave to go back, and short enough for the demo.
        rotation["spec"]["oldCertificate"] = json!({
            "retire": "Revoke", "grace": "12s", "probation": "20s", "reconnectsPerSecond": 50,
        });
        // Nobody is tried twice, and the next Rotation need not wait for those that failed.
        rotation["spec"]["device"] = json!({
            "stepTimeout": "10s", "trialTimeout": "5s", "jobTimeout": "30s", "retries": { "max": 0, "backoff": "1s" },
        });
        rotation
    }

    /// `canary 5, early 20, rest 75`.
    pub(super) fn sizes(&self) -> String {
        let rest = match self.rest.len() {
            0 => String::new(),
            rest => format!(", rest {rest}"),
        };
        format!("canary {}, {EARLY} {}{rest}", self.canary.len(), self.early.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hundred_devices_come_in_three_waves_of_which_the_second_has_all_faults() {
        let staging = Staging::of(100);
        assert_eq!(staging.sizes(), "canary 5, early 20, rest 75");
        let faulty: Vec<_> = staging.faults.iter().map(|(number, _)| *number).collect();
        assert_eq!(faulty, [1, 34, 67]);
        assert!(faulty.iter().all(|number| staging.early.contains(number)));
    }

    #[test]
    fn every_device_of_a_small_fleet_is_in_one_wave() {
        for devices in 4..200 {
            let staging = Staging::of(devices);
            let mut all = [staging.canary.clone(), staging.early.clone(), staging.rest.clone()].concat();
            all.sort_unstable();
            assert_eq!(all, (1..=devices).collect::<Vec<_>>());
            assert!(!staging.canary.is_empty(), "{devices}");
            assert!(staging.early.len() > FAULTS.len() || devices == 4, "{devices}");
            assert_eq!(staging.rest.is_empty(), devices < 6, "{devices}");
        }
    }
}

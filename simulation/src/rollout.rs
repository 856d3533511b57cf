//! How a Rotation is to go: drawn from the seed, told to the operator in the Rotation, and to the judge.

use rand::RngExt as _;
use rand::rngs::StdRng;
use serde_json::{Value, json};

use crate::mutant::Mutant;

/// Waves before the rest, by the value of the label `ring`.
const RINGS: [&str; 2] = ["canary", "early"];
/// Devices of which two in five are canaries, two early and one is the rest: less makes a wave that finds nobody.
const FEWEST: usize = 5;
/// Sites, by the value of the label `site`.
const SITES: usize = 2;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rollout {
    /// Devices in flight at once.
    pub in_flight: usize,
    /// Jobs within a minute, where that is a limit that matters.
    pub per_minute: Option<usize>,
    /// Whether of each site only one device may be in flight.
    pub per_site: bool,
    /// The one site that it is for, where it is not for all.
    pub only: Option<usize>,
    /// Its waves; none: all come at once, and whatever fails is forgiven.
    pub stages: Option<Stages>,
}

/// Waves that must prove themselves one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stages {
    /// Seconds that each must stay well before the next one begins.
    pub soak: u32,
    /// Whether a person must approve that the next one begins.
    pub approval: bool,
    /// What no wave forgives, where it forgives nothing.
    pub strict: Option<Strict>,
}

/// A device whose new certificate opens no door, and what is to be done when that shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Strict {
    /// The device.
    pub broken: usize,
    /// As `onBreach` has it.
    pub on_breach: OnBreach,
}

/// As the CRD has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnBreach {
    /// Send nothing new.
    Pause,
    /// And end.
    Abort,
    /// Send the wave's devices back.
    Rollback,
}

impl Rollout {
    /// All at once, and whatever fails is forgiven.
    pub fn plain(in_flight: usize) -> Self {
        Self {
            in_flight,
            per_minute: None,
            per_site: false,
            only: None,
            stages: None,
        }
    }

    /// Whether it is for this device.
    pub fn is_for(&self, device: usize) -> bool {
        self.only.is_none_or(|only| only == site(device))
    }

    /// Draws one for so many devices: every other time a plain one, mostly of some devices, as what goes wrong in that is not hidden by waiting.
    pub fn draw(random: &mut StdRng, devices: usize, in_flight: usize) -> Self {
        let mut rollout = Self::plain(in_flight);
        if devices < FEWEST || random.random_bool(0.5) {
            rollout.only = random.random_bool(0.75).then(|| random.random_range(0..SITES));
            return rollout;
        }
        rollout.per_site = random.random_bool(0.25);
        rollout.per_minute = random
            .random_bool(0.05)
            .then(|| (devices * random.random_range(4..8) / 10).max(1));
        rollout.stages = random.random_bool(0.8).then(|| Stages {
            soak: [0, 2, 6][random.random_range(0..3)],
            approval: random.random_bool(0.5),
            strict: random.random_bool(0.4).then(|| Strict {
                broken: random.random_range(0..devices),
                on_breach: [OnBreach::Pause, OnBreach::Abort, OnBreach::Rollback][random.random_range(0..3)],
            }),
        });
        rollout
    }

    /// What it forbids, as the Rotation has it; a mistake on purpose says less there.
    pub fn spec(&self, fleet: &str, mutant: Option<Mutant>) -> Value {
        let mut told = self.clone();
        match mutant {
            Some(Mutant::LimitIsIgnored) => told.in_flight = 1000,
            Some(Mutant::SiteIsIgnored) => told.per_site = false,
            Some(Mutant::RateIsIgnored) => told.per_minute = None,
            Some(Mutant::SelectorIsIgnored) => told.only = None,
            Some(Mutant::WavesAreIgnored) => told.stages = None,
            _ => {}
        }
        if let Some(stages) = told.stages.as_mut() {
            match mutant {
                Some(Mutant::SoakIsIgnored) => stages.soak = 0,
                Some(Mutant::ApprovalIsIgnored) => stages.approval = false,
                Some(Mutant::BudgetIsIgnored) => stages.strict = None,
                _ => {}
            }
        }
        told.as_written(fleet)
    }

    fn as_written(&self, fleet: &str) -> Value {
        let mut limits = json!({
            "maxInFlight": self.in_flight, "maxPerMinute": self.per_minute.unwrap_or(100_000),
        });
        if self.per_site {
            limits["perGroup"] = json!({ "by": "site", "maxUnavailable": 1 });
        }
        let mut spec = json!({ "fleetRef": { "name": fleet }, "reason": "Manual", "limits": limits });
        if let Some(only) = self.only {
            spec["selector"] = json!({ "matchLabels": { "site": site_name(only) } });
        }
        let Some(stages) = &self.stages else {
            return spec;
        };
        let wave = |name: &str, percent: u8| {
            let soak = format!("{}s", stages.soak);
            json!({
                "name": name, "percent": percent, "selector": { "matchLabels": { "ring": name } },
                "soak": soak, "approval": stages.approval,
            })
        };
        // Shares above what the labels select: each wave takes all that bear its label.
        spec["waves"] = json!([wave(RINGS[0], 60), wave(RINGS[1], 95), { "name": "rest", "percent": 100 }]);
        if let Some(strict) = stages.strict {
            spec["defaults"] = json!({
                "successPercent": 0, "maxFailedPercent": 0, "maxLost": 0, "onBreach": format!("{:?}", strict.on_breach),
            });
            if strict.on_breach == OnBreach::Rollback {
                // Nobody can go back to what is retired.
                spec["oldCertificate"] = json!({
                    "retire": "Revoke", "grace": "40s", "probation": "30s", "reconnectsPerSecond": 50,
                });
            }
        }
        spec
    }
}

/// The wave of a device in a Rotation with [`Stages`], from 0.
pub fn wave(device: usize) -> usize {
    device % 5 / 2
}

/// Waves there are in a Rotation with [`Stages`].
pub const WAVES: usize = RINGS.len() + 1;

/// Where a device stands.
pub fn site(device: usize) -> usize {
    device % SITES
}

fn site_name(site: usize) -> String {
    format!("site-{site}")
}

/// A device's labels.
pub fn labels(device: usize) -> Value {
    let ring = RINGS.get(wave(device)).copied().unwrap_or("rest");
    json!({ "ring": ring, "site": site_name(site(device)) })
}

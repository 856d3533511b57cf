//! Rotations of the whole fleet, one after the other, each with limits of its own.

use std::time::{Duration, Instant};

use anyhow::Result;
use certwave_crds::{Rotation, RotationPhase};
use kube::api::PostParams;
use rand::RngExt as _;
use rand::rngs::StdRng;
use serde_json::json;

use super::history::{Limits, Millis, Reign, now};
use crate::stack::{Stack, objects};

/// An API server that is being restarted must not hold up what else there is to do.
const ANSWER: Duration = Duration::from_secs(2);
/// Between two looks at the Rotation that runs.
const LOOK: Duration = Duration::from_millis(500);

/// See the module.
pub(super) struct Campaign {
    random: StdRng,
    per_minute: usize,
    devices: usize,
    looked: Instant,
    /// The Rotation that is there or about to be, and whether it was created.
    running: Option<(Reign, bool)>,
    /// Rotations that are over.
    pub(super) over: Vec<Reign>,
}

impl Campaign {
    pub(super) fn new(random: StdRng, devices: usize, per_minute: usize) -> Self {
        Self {
            random,
            per_minute,
            devices,
            looked: Instant::now(),
            running: None,
            over: Vec::new(),
        }
    }

    /// Creates the next Rotation where none runs, and looks whether the one that does is over. Whatever the API server does not
    /// answer, the next call asks again.
    pub(super) async fn tick(&mut self, stack: &Stack) {
        if self.running.is_none() {
            let least = super::rig::FLEET_IN_FLIGHT + 1;
            let limits = Limits {
                in_flight: self.random.random_range(least..=(self.devices / 4).max(least)),
                per_minute: self.per_minute,
            };
            self.running = Some((self.reign(limits), false));
        }
        self.go_on(stack).await;
    }

    /// Waits for the end of the Rotation that runs, and has one more, with these limits.
    pub(super) fn last(&mut self, limits: Limits) -> bool {
        if self.running.is_none() {
            self.running = Some((self.reign(limits), false));
            return true;
        }
        false
    }

    /// True while a Rotation is there.
    pub(super) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    fn reign(&self, limits: Limits) -> Reign {
        Reign {
            rotation: format!("round-{}", self.over.len() + 1),
            from: now(),
            until: Millis::MAX,
            limits,
        }
    }

    /// As [`Campaign::tick`], without beginning anything new.
    pub(super) async fn go_on(&mut self, stack: &Stack) {
        let Some((reign, created)) = &mut self.running else {
            return;
        };
        if self.looked.elapsed() < LOOK {
            return;
        }
        self.looked = Instant::now();
        if !*created {
            let made = tokio::time::timeout(ANSWER, create(stack, reign)).await;
            *created = matches!(made, Ok(Ok(())));
            return;
        }
        let Ok(Ok(rotation)) = tokio::time::timeout(ANSWER, stack.rotation(&reign.rotation)).await else {
            return;
        };
        let over = [RotationPhase::Complete, RotationPhase::Failed, RotationPhase::Aborted];
        if rotation
            .status
            .and_then(|s| s.phase)
            .is_some_and(|phase| over.contains(&phase))
        {
            let ended = Reign {
                until: now(),
                ..reign.clone()
            };
            self.over.push(ended);
            self.running = None;
        }
    }

    /// All Rotations so far, the one that runs included.
    pub(super) fn reigns(&self) -> Vec<Reign> {
        let running = self.running.iter().map(|(reign, _)| reign.clone());
        self.over.iter().cloned().chain(running).collect()
    }
}

async fn create(stack: &Stack, reign: &Reign) -> Result<()> {
    let mut rotation = objects::rotation(stack.namespace(), &reign.rotation);
    rotation["spec"]["limits"] = json!({
        "maxInFlight": reign.limits.in_flight, "maxPerMinute": reign.limits.per_minute,
    });
    rotation["spec"]["waves"] = json!([{ "name": "canary", "count": 2 }, { "name": "rest", "percent": 100 }]);
    let object: Rotation = serde_json::from_value(rotation)?;
    match stack.objects().create(&PostParams::default(), &object).await {
        // The answer to an earlier attempt was lost.
        Err(kube::Error::Api(error)) if error.code == 409 => Ok(()),
        other => Ok(other.map(drop)?),
    }
}

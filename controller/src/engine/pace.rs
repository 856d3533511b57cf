//! What rounds remember of each fleet: what was sent in the last minute, and what was told.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use certwave_core::model::Millis;
use certwave_core::rollout::admit::{Rate, Steady};
use certwave_ledger::FleetKey;

/// Jobs sent in the last minute, by fleet.
pub(super) struct Pace {
    began: Instant,
    rates: Mutex<HashMap<FleetKey, Rate>>,
    /// The stillness of each fleet's Rotation that was told last.
    still: Mutex<HashMap<FleetKey, Still>>,
}

/// Nobody of the waves begun is in line or in flight: the Rotation, its wave, and when the last device of them changed.
pub(super) type Still = (String, u32, Millis);

impl Default for Pace {
    fn default() -> Self {
        Self {
            began: Instant::now(),
            rates: Mutex::default(),
            still: Mutex::default(),
        }
    }
}

impl Pace {
    pub(super) fn knows(&self, fleet: &FleetKey) -> bool {
        self.lock().contains_key(fleet)
    }

    /// Remembers that `sent` jobs were sent in the minute before.
    pub(super) fn begin(&self, fleet: &FleetKey, sent: u32) {
        let now = self.now();
        self.lock()
            .entry(fleet.clone())
            .or_insert_with(|| Rate::after(now, sent));
    }

    pub(super) fn with<T>(&self, fleet: &FleetKey, f: impl FnOnce(&mut Rate, Steady) -> T) -> T {
        let now = self.now();
        f(self.lock().entry(fleet.clone()).or_default(), now)
    }

    /// Whether this is not what was told of the fleet last.
    pub(super) fn news(&self, fleet: &FleetKey, still: Still) -> bool {
        let mut told = self.still.lock().unwrap_or_else(PoisonError::into_inner);
        told.insert(fleet.clone(), still.clone()) != Some(still)
    }

    fn now(&self) -> Steady {
        Steady::from(self.began.elapsed())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<FleetKey, Rate>> {
        self.rates.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

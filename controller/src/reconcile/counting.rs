//! Which fleets are to be counted anew as their devices change: a large one not all the time.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use certwave_ledger::FleetKey;

/// How often fleets whose devices have changed are looked for.
pub(super) const COUNTING: Duration = Duration::from_secs(2);
/// Between two counts, for each device: twenty times as long as it takes to count it.
const REST: Duration = Duration::from_micros(40);
/// The longest time between two counts of a fleet whose devices change.
const LONGEST: Duration = Duration::from_secs(30);

/// See the module.
#[derive(Default)]
pub(super) struct Counting(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    marked: HashSet<FleetKey>,
    /// Those that rest, and until when.
    resting: HashMap<FleetKey, Instant>,
}

impl Counting {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something about the fleet's devices has changed: its counts are no longer what its status says.
    pub(super) fn mark(&self, fleet: FleetKey) {
        self.lock().marked.insert(fleet);
    }

    /// So many devices of it were counted at `now`.
    pub(super) fn counted(&self, fleet: &FleetKey, devices: u32, now: Instant) {
        let rest = REST.saturating_mul(devices).min(LONGEST);
        self.lock().resting.insert(fleet.clone(), now + rest);
    }

    /// The fleets that were marked and do not rest.
    pub(super) fn due(&self, now: Instant) -> Vec<FleetKey> {
        let mut inner = self.lock();
        let Inner { marked, resting } = &mut *inner;
        resting.retain(|_, until| *until > now);
        marked.extract_if(|fleet| !resting.contains_key(fleet)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fleet(name: &str) -> FleetKey {
        FleetKey {
            namespace: "plant".to_owned(),
            name: name.to_owned(),
        }
    }

    #[test]
    fn a_large_fleet_rests_and_is_not_forgotten() {
        let (counting, start) = (Counting::default(), Instant::now());
        let second = Duration::from_secs(1);
        counting.counted(&fleet("large"), 100_000, start);
        counting.counted(&fleet("small"), 10_000, start);
        counting.mark(fleet("large"));
        counting.mark(fleet("small"));
        assert_eq!(counting.due(start + second), [fleet("small")]);
        assert_eq!(counting.due(start + second * 3), []);
        assert_eq!(counting.due(start + second * 4), [fleet("large")]);
        assert_eq!(counting.due(start + second * 60), []);
        // Never longer than half a minute.
        counting.counted(&fleet("large"), 10_000_000, start);
        counting.mark(fleet("large"));
        assert_eq!(counting.due(start + second * 30), [fleet("large")]);
    }
}

//! What rounds remember of each fleet: what was sent in the last minute, what was told, and who is first in line.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use certwave_core::model::Millis;
use certwave_core::rollout::admit::{Rate, Steady};
use certwave_ledger::FleetKey;

/// A line of members that is gone past so fast is gone past each time.
const SHORT: Duration = Duration::from_millis(10);
/// The whole of a long one is looked at again after so many times as long as that took, within these bounds.
const AT_MOST_ONE_OF: u32 = 20;
const SOONEST: Duration = Duration::from_secs(2);
const LATEST: Duration = Duration::from_secs(30);

/// Jobs sent in the last minute, by fleet.
pub(super) struct Pace {
    began: Instant,
    rates: Mutex<HashMap<FleetKey, Rate>>,
    /// The stillness of each fleet's Rotation that was told last.
    still: Mutex<HashMap<FleetKey, Still>>,
    /// The first in line of each fleet's Rotation.
    lines: Mutex<HashMap<FleetKey, Line>>,
}

/// Of whom somebody may start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    /// The Rotation's uid.
    pub(super) rotation: String,
    /// Its wave.
    pub(super) through_wave: u32,
    /// The windows that are open.
    pub(super) windows: u64,
    /// Groups of which nobody is.
    pub(super) full_groups: Vec<String>,
}

struct Line {
    wanted: Wanted,
    /// Wave and ordinal.
    first: (u32, u32),
    /// When the whole of it is to be looked at again.
    again: Steady,
}

/// Nobody of the waves begun is in line or in flight: the Rotation, its wave, and when the last device of them changed.
pub(super) type Still = (String, u32, Millis);

impl Default for Pace {
    fn default() -> Self {
        Self {
            began: Instant::now(),
            rates: Mutex::default(),
            still: Mutex::default(),
            lines: Mutex::default(),
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

    /// Where in the order the first member stood that might start, if that was found out not long ago.
    pub(super) fn first(&self, fleet: &FleetKey, wanted: &Wanted) -> Option<(u32, u32)> {
        let lines = self.lines();
        let line = lines.get(fleet)?;
        (line.wanted == *wanted && self.now() < line.again).then_some(line.first)
    }

    /// The first that may start stands here. `took` says how long it took to find out where the whole line was looked at.
    pub(super) fn found(&self, fleet: &FleetKey, wanted: Wanted, first: (u32, u32), took: Option<Duration>) {
        let mut lines = self.lines();
        if let Some(took) = took {
            lines.remove(fleet);
            if took >= SHORT {
                let again = took.saturating_mul(AT_MOST_ONE_OF).clamp(SOONEST, LATEST);
                let again = Steady::from(self.began.elapsed() + again);
                lines.insert(fleet.clone(), Line { wanted, first, again });
            }
        } else if let Some(line) = lines.get_mut(fleet) {
            line.first = first;
        }
    }

    /// A job has ended: whoever waited for another one than this Rotation's may start, while it is still there.
    pub(super) fn freed(&self, fleet: &FleetKey, rotation: Option<&str>) {
        let mut lines = self.lines();
        if lines
            .get(fleet)
            .is_some_and(|line| Some(line.wanted.rotation.as_str()) != rotation)
        {
            lines.remove(fleet);
        }
    }

    fn now(&self) -> Steady {
        Steady::from(self.began.elapsed())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<FleetKey, Rate>> {
        self.rates.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lines(&self) -> MutexGuard<'_, HashMap<FleetKey, Line>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_line_is_looked_at_again_after_a_while_that_grows_with_what_it_takes() {
        let fleet = FleetKey {
            namespace: "plant".to_owned(),
            name: "pumps".to_owned(),
        };
        let of = |through_wave| Wanted {
            rotation: "r".to_owned(),
            through_wave,
            windows: u64::MAX,
            full_groups: Vec::new(),
        };
        let mut pace = Pace::default();
        assert_eq!(pace.first(&fleet, &of(0)), None);
        pace.found(&fleet, of(0), (0, 7), Some(Duration::ZERO));
        assert_eq!(pace.first(&fleet, &of(0)), None, "it costs nothing to look");
        pace.found(&fleet, of(0), (0, 7), Some(SHORT));
        assert_eq!(pace.first(&fleet, &of(0)), Some((0, 7)));
        assert_eq!(pace.first(&fleet, &of(1)), None, "other members may be wanted now");
        pace.found(&fleet, of(0), (0, 9), None);
        assert_eq!(pace.first(&fleet, &of(0)), Some((0, 9)));
        let passes = |pace: &mut Pace, time| pace.began = pace.began.checked_sub(time).unwrap_or(pace.began);
        passes(&mut pace, SOONEST);
        assert_eq!(pace.first(&fleet, &of(0)), None, "who is before may be free by now");
        let second = Duration::from_secs(1);
        pace.found(&fleet, of(0), (0, 9), Some(second));
        passes(&mut pace, second * AT_MOST_ONE_OF / 2);
        assert_eq!(pace.first(&fleet, &of(0)), Some((0, 9)));
        pace.freed(&fleet, Some("r"));
        assert_eq!(
            pace.first(&fleet, &of(0)),
            Some((0, 9)),
            "its own members are behind the place"
        );
        pace.freed(&fleet, Some("before"));
        assert_eq!(pace.first(&fleet, &of(0)), None);
        pace.found(&fleet, of(0), (0, 9), Some(Duration::MAX));
        passes(&mut pace, LATEST);
        assert_eq!(pace.first(&fleet, &of(0)), None);
    }
}

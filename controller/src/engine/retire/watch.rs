//! Since when this process has seen certificates on hold, by a clock that only goes forward: a wall clock that was set must neither
//! charge a device nor keep one out.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use certwave_core::model::Millis;
use certwave_core::retire::{Phase, Retirement};
use certwave_protocol::ids::{BrokerId, JobId};

/// The retirements, by broker, that this process has put on hold or asked about.
#[derive(Default)]
pub(in crate::engine) struct Watch(Mutex<HashMap<BrokerId, HashMap<JobId, Entered>>>);

struct Entered {
    phase: Phase,
    at: Instant,
    /// Nothing is to be looked at before; a `hello` comes by itself.
    quiet_until: Instant,
}

impl Watch {
    /// A phase was entered.
    pub(super) fn enter(&self, next: &Retirement, probation: Millis, now: Instant) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mine = all.entry(next.identity.broker.clone()).or_default();
        if !next.phase.holds() {
            mine.remove(&next.job);
            return;
        }
        let quiet = if next.phase == Phase::Asked { probation / 2 } else { 0 };
        let entered = Entered {
            phase: next.phase,
            at: now,
            quiet_until: now + Duration::from_millis(u64::try_from(quiet).unwrap_or(0)),
        };
        mine.insert(next.job, entered);
    }

    /// For how long this process has seen it in its phase.
    pub(super) fn waited(&self, retirement: &Retirement, now: Instant) -> Option<Millis> {
        self.find(retirement, |entered| {
            Millis::try_from(now.saturating_duration_since(entered.at).as_millis()).unwrap_or(Millis::MAX)
        })
    }

    /// Whether there may be something to do.
    pub(super) fn due(&self, retirement: &Retirement, now: Instant) -> bool {
        self.find(retirement, |entered| now >= entered.quiet_until)
            .unwrap_or(true)
    }

    /// Forgets those of a broker that are on hold no more.
    pub(super) fn keep(&self, broker: &BrokerId, holding: &[Retirement]) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(mine) = all.get_mut(broker) {
            let held: HashSet<JobId> = holding.iter().map(|held| held.job).collect();
            mine.retain(|job, _| held.contains(job));
        }
    }

    fn find<T>(&self, retirement: &Retirement, what: impl FnOnce(&Entered) -> T) -> Option<T> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let entered = all.get(&retirement.identity.broker)?.get(&retirement.job)?;
        (entered.phase == retirement.phase).then(|| what(entered))
    }
}

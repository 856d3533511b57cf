//! How fast devices are put to the test, by broker: a stampede of full handshakes would keep everybody else out.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use certwave_protocol::ids::BrokerId;

/// What may come at once after a pause, as the time that it takes at the given rate.
const BURST: Duration = Duration::from_secs(1);

/// What is limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum What {
    /// Certificates put on hold.
    Hold,
    /// Devices asked to come back.
    Ask,
}

/// When the next one of each kind would come if they came evenly. A new process begins as if it had just spent all.
#[derive(Default)]
pub(in crate::engine) struct Pace(Mutex<HashMap<(BrokerId, What), Instant>>);

impl Pace {
    /// Whether one more may come now.
    pub(super) fn open(&self, broker: &BrokerId, what: What, now: Instant) -> bool {
        let mut next = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *next.entry((broker.clone(), what)).or_insert(now + BURST) < now + BURST
    }

    /// One more has come, at most `per_second` being wanted.
    pub(super) fn spend(&self, broker: &BrokerId, what: What, per_second: u32, now: Instant) {
        let mut next = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = next.entry((broker.clone(), what)).or_insert(now);
        *slot = (*slot).max(now) + Duration::from_secs(1) / per_second.max(1);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn no_second_sees_more_than_the_rate_and_one_burst() {
        let (pace, broker): (_, BrokerId) = (Pace::default(), "plant".parse().unwrap());
        let (start, rate) = (Instant::now(), 10);
        let mut taken = Vec::new();
        for tick in 0..1000 {
            let now = start + Duration::from_millis(10) * tick;
            while pace.open(&broker, What::Ask, now) {
                pace.spend(&broker, What::Ask, rate, now);
                taken.push(now);
            }
        }
        for (first, from) in taken.iter().enumerate() {
            let within = taken[first..].iter().take_while(|at| **at < *from + BURST).count();
            assert!(within <= 20, "{within} within a second");
        }
        assert!((90..=110).contains(&taken.len()), "{} in ten seconds", taken.len());
        assert!(pace.open(&broker, What::Ask, start + Duration::from_secs(20)));
        assert!(
            !pace.open(&"other".parse().unwrap(), What::Ask, start),
            "begins with nothing"
        );
    }
}

//! How far a rotation is, in figures: bars, rates, time left.

use std::collections::VecDeque;

use certwave_crds::{RotationPhase, RotationStatus};
use jiff::Timestamp;

/// Rates are taken over so many seconds.
const WINDOW: i64 = 120;
/// A rate over less says nothing, seconds.
const LEAST: i64 = 5;

/// Whether nothing comes after this phase.
pub const fn is_over(phase: RotationPhase) -> bool {
    matches!(
        phase,
        RotationPhase::Previewed | RotationPhase::Complete | RotationPhase::Failed | RotationPhase::Aborted
    )
}

/// Whether a person has to say something before it goes on.
pub const fn waits_for_a_person(phase: RotationPhase) -> bool {
    matches!(
        phase,
        RotationPhase::WaitingForApproval | RotationPhase::Breached | RotationPhase::RolledBack
    )
}

/// `WaitingForApproval` and so on; `Pending` where the controller has not said anything yet.
pub fn phase(status: Option<&RotationStatus>) -> RotationPhase {
    status.and_then(|status| status.phase).unwrap_or(RotationPhase::Pending)
}

/// Whole percent of `whole`, rounded down, so that 100 means all.
pub fn percent(part: i64, whole: i64) -> i64 {
    if whole <= 0 {
        0
    } else {
        part.clamp(0, whole) * 100 / whole
    }
}

/// A bar of `width` characters: `#` for what is done, `x` for what went wrong, `>` for what is in flight, `.` for the rest. What
/// went wrong is never rounded away.
pub fn bar(done: i64, wrong: i64, in_flight: i64, whole: i64, width: usize) -> String {
    let cells = i64::try_from(width).unwrap_or(i64::MAX);
    let share = |part: i64| {
        if whole <= 0 {
            0
        } else {
            part.clamp(0, whole) * cells / whole
        }
    };
    let at_least = |part: i64| share(part).max(i64::from(part > 0 && cells > 0));
    let x = at_least(wrong).min(cells);
    let done = share(done).min(cells - x);
    let going = at_least(in_flight).min(cells - x - done);
    let part = |c: char, n: i64| std::iter::repeat_n(c, usize::try_from(n).unwrap_or(0));
    part('#', done)
        .chain(part('x', x))
        .chain(part('>', going))
        .chain(part('.', cells - done - x - going))
        .collect()
}

/// How many devices end within a minute, as seen from here.
#[derive(Debug, Clone, Default)]
pub struct Rate {
    seen: VecDeque<(i64, i64)>,
}

impl Rate {
    /// So many had ended at this time. A count that falls, as after a retry, begins anew.
    pub fn saw(&mut self, now: Timestamp, ended: i64) {
        let now = now.as_second();
        if self.seen.back().is_some_and(|&(at, before)| ended < before || at > now) {
            self.seen.clear();
        }
        if self.seen.back().is_none_or(|&(at, _)| at < now) {
            self.seen.push_back((now, ended));
        }
        // One from before the window stays: the rate is taken since then.
        while self.seen.len() > 2 && self.seen.get(1).is_some_and(|&(at, _)| now - at >= WINDOW) {
            self.seen.pop_front();
        }
    }

    /// Devices a minute; none while too little was seen.
    pub fn per_minute(&self) -> Option<i64> {
        let (&(from, before), &(to, after)) = (self.seen.front()?, self.seen.back()?);
        (to - from >= LEAST).then(|| (after - before) * 60 / (to - from))
    }

    /// Seconds until so many more have ended at this rate; none where nothing moves.
    pub fn left(&self, more: i64) -> Option<i64> {
        let rate = self.per_minute().filter(|rate| *rate > 0)?;
        Some(more.max(0) * 60 / rate)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    #[test]
    fn a_single_failure_among_many_is_seen() {
        assert_eq!(bar(99_999, 1, 0, 100_000, 10), "#########x");
        assert_eq!(bar(5, 0, 1, 10, 10), "#####>....");
        assert_eq!(bar(0, 0, 0, 0, 4), "....");
        assert_eq!(percent(999, 1000), 99);
        assert_eq!(percent(1, 0), 0);
    }

    proptest! {
        #[test]
        fn a_bar_is_as_wide_as_it_shall_be(
            done in -5_i64..200, wrong in -5_i64..200, flight in -5_i64..200, whole in -5_i64..200, width in 0_usize..40,
        ) {
            prop_assert_eq!(bar(done, wrong, flight, whole, width).len(), width);
        }
    }

    #[test]
    fn the_rate_is_that_of_the_last_two_minutes() {
        let mut rate = Rate::default();
        rate.saw(at(0), 0);
        assert_eq!(rate.per_minute(), None);
        for second in 1..=600 {
            rate.saw(
                at(second),
                if second <= 300 {
                    second
                } else {
                    300 + (second - 300) * 2
                },
            );
        }
        assert_eq!(rate.per_minute(), Some(120));
        assert_eq!(rate.left(240), Some(120));
        // Devices that try again count as not ended any more.
        rate.saw(at(601), 10);
        assert_eq!((rate.per_minute(), rate.left(5)), (None, None));
    }

    #[test]
    fn nothing_that_moves_leaves_no_time_left() {
        let mut rate = Rate::default();
        rate.saw(at(0), 7);
        rate.saw(at(60), 7);
        assert_eq!(rate.per_minute(), Some(0));
        assert_eq!(rate.left(3), None);
    }
}

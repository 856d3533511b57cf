//! For how long a connection has let devices be heard: a broker that hangs keeps it open and says nothing. The ledger is looked at
//! in the same way: what it could not take in was not heard.
//!
//! MQTT promises an answer to each ping, each publication of `QoS` 1 and each subscription. While one is long due nobody was
//! heard, whatever devices said; and what came in last says how far the time before is certain.

use std::time::{Duration, Instant};

/// Seconds without anything sent after which the broker is pinged.
pub(super) const KEEP_ALIVE: u16 = 20;
/// A connection on which nothing has come in for so long is ended: a ping and its answer fit in twice.
pub(super) const SILENCE: Duration = Duration::from_secs(2 * KEEP_ALIVE as u64);
/// An answer that takes longer was held up, and with it what devices said.
const PROMPT: Duration = Duration::from_secs(5);

/// One connection, from its subscription on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hearing {
    /// Since when devices have been heard without interruption.
    since: Instant,
    /// When something last came in.
    last: Instant,
    /// Since when an answer is due.
    asked: Option<Instant>,
}

/// Whether a device could have been heard through a whole step up to its deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard {
    /// It could, and was not.
    Whole,
    /// Not all the time.
    Broken,
    /// Nothing has come in since the deadline: the next packet, or its absence, will say.
    Unknown,
}

impl Heard {
    /// Heard by both: by the broker's connection and by the ledger.
    pub(super) const fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Broken, _) | (_, Self::Broken) => Self::Broken,
            (Self::Unknown, _) | (_, Self::Unknown) => Self::Unknown,
            (Self::Whole, Self::Whole) => Self::Whole,
        }
    }
}

impl Hearing {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            since: now,
            last: now,
            asked: None,
        }
    }

    /// Something was sent that the broker answers.
    pub(super) fn asked(&mut self, now: Instant) {
        self.asked.get_or_insert(now);
    }

    /// Whether the broker is to be asked something now, so that its answer says whether devices could be heard.
    pub(super) fn asks(&mut self, now: Instant) -> bool {
        let idle = self.asked.is_none();
        self.asked(now);
        idle
    }

    /// Something came in; answers how long it had been held up, if it was.
    pub(super) fn heard(&mut self, now: Instant) -> Option<Duration> {
        let late = |from: Instant, after| {
            let gap = now.saturating_duration_since(from);
            (gap > after).then_some(gap)
        };
        let held_up = self.asked.take().and_then(|asked| late(asked, PROMPT));
        // Not even a ping was sent: this process itself stood still.
        let held_up = held_up.or_else(|| late(self.last, Duration::from_secs(KEEP_ALIVE.into()) + PROMPT));
        if held_up.is_some() {
            self.since = now;
        }
        self.last = now;
        held_up
    }

    /// What was said up to now was not taken in.
    pub(super) fn missed(&mut self, now: Instant) {
        *self = Self::new(now);
    }

    /// When the connection is to be ended, if nothing comes in.
    pub(super) fn ends(&self) -> Instant {
        self.last + SILENCE
    }

    /// Whether a device was without an excuse for a `step` up to a deadline that passed `overdue` ago.
    pub(super) fn through(&self, now: Instant, step: Duration, overdue: Duration) -> Heard {
        if now.saturating_duration_since(self.last) > overdue {
            Heard::Unknown
        } else if self.last.saturating_duration_since(self.since) >= step {
            Heard::Whole
        } else {
            Heard::Broken
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: Duration = Duration::from_secs(20);
    const SECOND: Duration = Duration::from_secs(1);

    /// Up for ten minutes, busy with pings, the last one answered `now`.
    fn quiet() -> (Hearing, Instant) {
        let began = Instant::now();
        let (mut hearing, mut now) = (Hearing::new(began), began);
        while now < began + Duration::from_mins(10) {
            now += Duration::from_secs(KEEP_ALIVE.into());
            hearing.asked(now);
            now += SECOND;
            hearing.heard(now);
        }
        (hearing, now)
    }

    #[test]
    fn a_deadline_on_a_quiet_connection_counts_once_the_broker_has_answered_after_it() {
        let (mut hearing, last) = quiet();
        let deadline = last + 3 * SECOND;
        let now = last + 4 * SECOND;
        assert_eq!(hearing.through(now, STEP, now - deadline), Heard::Unknown);
        assert!(hearing.asks(now), "nobody waits for the next ping");
        assert!(!hearing.asks(now), "one question is enough");
        assert_eq!(hearing.through(now, STEP, now - deadline), Heard::Unknown);
        assert_eq!(hearing.heard(now + SECOND), None);
        let now = now + 2 * SECOND;
        assert_eq!(hearing.through(now, STEP, now - deadline), Heard::Whole);
    }

    #[test]
    fn a_deadline_in_a_new_connection_does_not_count_before_a_whole_step() {
        let began = Instant::now();
        let mut hearing = Hearing::new(began);
        hearing.heard(began + STEP.saturating_sub(SECOND));
        assert_eq!(hearing.through(began + STEP, STEP, SECOND), Heard::Broken);
        hearing.heard(began + STEP);
        assert_eq!(hearing.through(began + STEP, STEP, SECOND), Heard::Whole);
    }

    #[test]
    fn a_silence_charges_nobody_while_it_lasts_nor_when_it_ends() {
        let (mut hearing, last) = quiet();
        // We go on sending, which puts the pings off.
        for second in 1..35 {
            let now = last + second * SECOND;
            hearing.asked(now);
            for deadline in 1..second {
                let overdue = now - (last + deadline * SECOND);
                assert_eq!(hearing.through(now, STEP, overdue), Heard::Unknown);
            }
        }
        let back = last + 35 * SECOND;
        assert!(back < hearing.ends());
        assert_eq!(hearing.heard(back), Some(34 * SECOND));
        assert_eq!(hearing.through(back, STEP, 20 * SECOND), Heard::Broken);
        for second in 1..=20 {
            hearing.heard(back + second * SECOND);
        }
        assert_eq!(hearing.through(back + 20 * SECOND, STEP, SECOND), Heard::Whole);
    }

    #[test]
    fn a_process_that_stood_still_itself_charges_nobody() {
        let (mut hearing, last) = quiet();
        let woken = last + Duration::from_mins(1);
        assert_eq!(hearing.through(woken, STEP, 30 * SECOND), Heard::Unknown);
        hearing.heard(woken);
        assert_eq!(hearing.through(woken, STEP, 30 * SECOND), Heard::Broken);
    }

    #[test]
    fn what_was_not_taken_in_charges_nobody_for_a_whole_step() {
        let (mut hearing, last) = quiet();
        hearing.asked(last + SECOND);
        hearing.missed(last + 2 * SECOND);
        for second in 3..22 {
            hearing.heard(last + second * SECOND);
            let now = last + second * SECOND;
            assert_eq!(hearing.through(now, STEP, SECOND), Heard::Broken, "{second}");
        }
        let now = last + 22 * SECOND;
        hearing.heard(now);
        assert_eq!(hearing.through(now, STEP, SECOND), Heard::Whole);
    }

    #[test]
    fn a_device_was_heard_only_where_both_heard_it() {
        use Heard::{Broken, Unknown, Whole};
        let cases = [
            (Whole, Whole, Whole),
            (Whole, Unknown, Unknown),
            (Unknown, Broken, Broken),
            (Whole, Broken, Broken),
        ];
        for (one, other, both) in cases {
            assert_eq!((one.and(other), other.and(one)), (both, both));
        }
    }

    #[test]
    fn a_connection_ends_when_nothing_comes_in_whatever_is_sent() {
        let (mut hearing, last) = quiet();
        hearing.asked(last + SECOND);
        hearing.asked(last + 30 * SECOND);
        assert_eq!(hearing.ends(), last + SILENCE);
        hearing.heard(last + 31 * SECOND);
        assert_eq!(hearing.ends(), last + 31 * SECOND + SILENCE);
    }
}

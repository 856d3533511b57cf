//! How many devices may start now, and which.
//!
//! Three limits hold at once: devices in flight ([`room`]), jobs sent within any minute ([`Rate`]), and devices of a group
//! ([`choose`]). A limit of 0 is 0: nothing starts.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::strategy::{Limits, Strategy};
use super::window::ALWAYS;
use crate::model::Millis;

/// The span that a rate is counted over, milliseconds.
const MINUTE: u64 = 60_000;
/// Jobs sent within this time of one another are remembered as sent with the last of them, milliseconds: it bounds what is
/// remembered, and errs on the safe side.
const GRAIN: u64 = 100;

/// Milliseconds of a clock that only goes forward, since whenever it began: the wall clock may jump, and a jump must not send
/// two minutes' jobs in one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Steady(pub u64);

impl From<Duration> for Steady {
    fn from(since: Duration) -> Self {
        Self(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
}

/// Jobs sent in the last minute, to keep those of any 60 seconds below a rate.
#[derive(Debug, Clone, Default)]
pub struct Rate {
    sent: VecDeque<Sent>,
    /// The sum of `sent`.
    total: u32,
    /// The latest time seen: one that goes back stands still.
    latest: u64,
}

#[derive(Debug, Clone, Copy)]
struct Sent {
    first: u64,
    last: u64,
    jobs: u32,
}

impl Rate {
    /// Nothing sent in the last minute.
    pub fn new() -> Self {
        Self::default()
    }

    /// The state after a restart: `sent` in the minute before, and as it is not known when, they count as sent just now.
    pub fn after(now: Steady, sent: u32) -> Self {
        let mut rate = Self::new();
        rate.record(now, sent);
        rate
    }

    /// Jobs that may be sent at `now`, after `succeeded` devices were confirmed.
    pub fn allowed(&mut self, now: Steady, limits: &Limits, succeeded: u32) -> u32 {
        self.advance(now);
        per_minute(limits, succeeded).saturating_sub(self.total)
    }

    /// Remembers that `jobs` were sent at `now`.
    pub fn record(&mut self, now: Steady, jobs: u32) {
        self.advance(now);
        if jobs == 0 {
            return;
        }
        self.total = self.total.saturating_add(jobs);
        let at = self.latest;
        match self.sent.back_mut().filter(|sent| at - sent.first < GRAIN) {
            Some(sent) => {
                sent.last = at;
                sent.jobs = sent.jobs.saturating_add(jobs);
            }
            None => self.sent.push_back(Sent {
                first: at,
                last: at,
                jobs,
            }),
        }
    }

    /// When a job may be sent, if not at `now`, should nothing else be sent until then; `None` where the rate is 0.
    pub fn next(&mut self, now: Steady, limits: &Limits, succeeded: u32) -> Option<Steady> {
        self.advance(now);
        let rate = per_minute(limits, succeeded);
        if rate == 0 {
            return None;
        }
        let mut left = self.total;
        let mut free = self.latest;
        for sent in &self.sent {
            if left < rate {
                break;
            }
            left -= sent.jobs.min(left);
            free = free.max(sent.last.saturating_add(MINUTE));
        }
        Some(Steady(free))
    }

    /// Forgets what is a minute old.
    fn advance(&mut self, now: Steady) {
        self.latest = self.latest.max(now.0);
        while let Some(sent) = self.sent.front().copied() {
            if self.latest - sent.last < MINUTE {
                break;
            }
            self.sent.pop_front();
            // Counted anew where the sum had reached its end.
            self.total = match self.total {
                u32::MAX => self.sent.iter().fold(0, |sum, sent| sent.jobs.saturating_add(sum)),
                total => total - sent.jobs,
            };
        }
    }
}

/// Jobs per minute after `succeeded` devices were confirmed: the ramp's first rate multiplied as often as its number of
/// successes is complete, at most [`Limits::max_per_minute`]; `u32::MAX` means no rate.
pub fn per_minute(limits: &Limits, succeeded: u32) -> u32 {
    let most = limits.max_per_minute.unwrap_or(u32::MAX);
    limits.ramp.map_or(most, |ramp| {
        let steps = succeeded / ramp.every_succeeded.max(1);
        ramp.from
            .saturating_mul(ramp.factor.max(1).saturating_pow(steps))
            .min(most)
    })
}

/// Devices that may start while `in_flight` are on their way.
pub fn room(limits: &Limits, in_flight: u32) -> u32 {
    limits.max_in_flight.saturating_sub(in_flight)
}

/// A device whose turn may have come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiting<'a> {
    /// Its wave.
    pub wave: u32,
    /// Its value of the label [`PerGroup::by`](super::strategy::PerGroup::by); empty where it has none.
    pub group: &'a str,
    /// The windows that select it ([`select::windows`](super::select::windows)).
    pub windows: u64,
    /// End of its certificate, Unix seconds.
    pub not_after: i64,
}

/// Who may pass at an instant, whatever the limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Doors {
    /// Waves up to this one have begun.
    pub through_wave: u32,
    /// The windows that are open ([`Calendar::open`](super::window::Calendar::open)).
    pub open: u64,
    /// A certificate that ends before this, Unix seconds, waits for no window; `None` where all do.
    pub override_before: Option<i64>,
}

impl Doors {
    /// For those who wait for nothing.
    pub const WIDE: Self = Self {
        through_wave: u32::MAX,
        open: ALWAYS,
        override_before: Some(i64::MAX),
    };

    /// The doors at `now`, with `open` as the calendar says. In an emergency windows do not count.
    pub fn new(now: Millis, strategy: &Strategy, through_wave: u32, open: u64) -> Self {
        let near = |before: Millis| now.saturating_add(before).saturating_add(999).div_euclid(1000);
        let (open, override_before) = if strategy.emergency {
            (ALWAYS, Some(i64::MAX))
        } else {
            (open, strategy.override_before_expiry.map(near))
        };
        Self {
            through_wave,
            open,
            override_before,
        }
    }

    /// True where `device` may pass.
    pub fn admit(&self, device: &Waiting<'_>) -> bool {
        let urgent = self.override_before.is_some_and(|before| device.not_after < before);
        device.wave <= self.through_wave && (urgent || device.windows & self.open != 0)
    }
}

/// Chooses from `waiting`, in their order, at most `room` devices that may start now, and returns their positions. A device
/// whose group is full is passed over, so that it holds up no other. `unavailable` counts devices by group that are in flight
/// or timed out and not heard again; it grows with those chosen.
pub fn choose<'a>(
    doors: &Doors,
    limits: &Limits,
    room: u32,
    unavailable: &mut BTreeMap<String, u32>,
    waiting: impl IntoIterator<Item = Waiting<'a>>,
) -> Vec<usize> {
    let mut chosen = Vec::new();
    let mut left = room;
    for (position, device) in waiting.into_iter().enumerate() {
        if left == 0 {
            break;
        }
        if doors.admit(&device) && enter(limits, unavailable, device.group) {
            chosen.push(position);
            left -= 1;
        }
    }
    chosen
}

/// Groups of which nobody else may start now: a query need not ask for their devices.
pub fn full_groups(limits: &Limits, unavailable: &BTreeMap<String, u32>) -> Vec<String> {
    limits.per_group.as_ref().map_or_else(Vec::new, |per_group| {
        let full = unavailable
            .iter()
            .filter(|(_, count)| **count >= per_group.max_unavailable);
        full.map(|(group, _)| group.clone()).collect()
    })
}

/// Counts a device into its group, if there is room in it.
fn enter(limits: &Limits, unavailable: &mut BTreeMap<String, u32>, group: &str) -> bool {
    let Some(per_group) = &limits.per_group else {
        return true;
    };
    let count = match unavailable.get_mut(group) {
        Some(count) => count,
        None => unavailable.entry(group.to_owned()).or_default(),
    };
    if *count >= per_group.max_unavailable {
        return false;
    }
    *count += 1;
    true
}

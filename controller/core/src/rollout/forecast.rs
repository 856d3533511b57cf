//! When it will be over, who would be too late, and what rate would do.
//!
//! The devices still to come are taken as a stream in the order of the plan: by end of validity, wave after wave, at the rate
//! that the limits allow to those that are online, while windows are open, with each wave's soak between it and the next. A
//! device near its end waits for no window. Approvals, failures and retries are not foreseen: this is what happens if all goes
//! well, so what it names as too late is too late indeed.

use super::run::{Plan, Run};
use super::strategy::{Limits, Strategy};
use super::timeline::Timeline;
use super::window::Calendar;
use super::{admit, plan};
use crate::model::Millis;

const MINUTES_PER_DAY: u64 = 24 * 60;
const DAY: Millis = 24 * 60 * 60 * 1000;
/// How far windows are looked at, milliseconds; beyond, their average is carried on.
const HORIZON: Millis = 400 * DAY;
/// The highest rate thought of, jobs per minute.
const HIGHEST: u32 = 1 << 30;

/// What a forecast goes by, beside the strategy.
#[derive(Debug, Clone, Copy)]
pub struct Outlook<'a> {
    /// The present.
    pub now: Millis,
    /// The plan.
    pub plan: &'a Plan,
    /// How far it is; [`Run::default`] for one that has not begun.
    pub run: &'a Run,
    /// Devices still to come (waiting or offline): end of validity in Unix seconds, and how many.
    pub remaining: &'a [(i64, u32)],
    /// Devices confirmed so far: the ramp goes by them.
    pub succeeded: u32,
    /// How long a job takes on average, from being sent to its end, milliseconds.
    pub job_time: Millis,
    /// Devices online, of a thousand.
    pub online_permille: u32,
    /// The strategy's windows.
    pub calendar: &'a Calendar,
    /// The windows that the devices may use; all of them where they differ.
    pub windows: u64,
}

/// What is to be expected.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Forecast {
    /// When the last device that is in time is done and the last wave has soaked; `None` where it never is.
    pub eta: Option<Millis>,
    /// Devices whose certificates end before their turn comes.
    pub missed: u32,
    /// The first end of validity among them, Unix seconds.
    pub first_missed: Option<i64>,
    /// The rate at which only those are too late that no rate would help, jobs per minute while windows are open.
    pub needed_per_minute: u32,
    /// The jobs in flight that this rate needs.
    pub needed_in_flight: u32,
}

/// Foresees the rest of a Rotation.
pub fn forecast(strategy: &Strategy, outlook: &Outlook<'_>) -> Forecast {
    let online = outlook.online_permille.min(1000);
    let stream = Stream::new(strategy, outlook);
    let expected = stream.flow(per_day(&strategy.limits, outlook, online));
    // Where nobody is online, what would do if all were.
    let reachable = if online == 0 { 1000 } else { online };
    let needed_per_minute = stream.lowest_rate(reachable);
    Forecast {
        eta: expected.done,
        missed: expected.missed,
        first_missed: expected.first_missed,
        needed_per_minute,
        needed_in_flight: in_flight(needed_per_minute, outlook.job_time),
    }
}

/// Devices a day at the present rate: as many as may be sent or as may be in flight, whichever are fewer, of those online.
fn per_day(limits: &Limits, outlook: &Outlook<'_>, online_permille: u32) -> u64 {
    let sent = u64::from(admit::per_minute(limits, outlook.succeeded)) * MINUTES_PER_DAY;
    let turns = u64::try_from(DAY / outlook.job_time.clamp(1, DAY)).unwrap_or(1);
    sent.min(u64::from(limits.max_in_flight) * turns) * u64::from(online_permille) / 1000
}

/// Jobs in flight at a rate, rounded up.
fn in_flight(per_minute: u32, job_time: Millis) -> u32 {
    let busy = u64::from(per_minute) * u64::try_from(job_time.max(0)).unwrap_or(0);
    u32::try_from(busy.div_ceil(60_000)).unwrap_or(u32::MAX)
}

/// Devices of one wave with the same end.
struct Portion {
    /// Unix seconds.
    not_after: i64,
    devices: u32,
    /// Time that must pass after those before are done: soak, where a wave begins.
    pause: Millis,
}

/// The devices still to come, in the order of their turns.
struct Stream {
    now: Millis,
    portions: Vec<Portion>,
    /// After the last one.
    last_soak: Millis,
    timeline: Timeline,
    override_before: Option<Millis>,
}

/// What becomes of a stream at a rate.
#[derive(Default)]
struct Flow {
    done: Option<Millis>,
    missed: u32,
    first_missed: Option<i64>,
}

impl Stream {
    fn new(strategy: &Strategy, outlook: &Outlook<'_>) -> Self {
        let mut remaining = outlook.remaining.to_vec();
        remaining.sort_unstable();
        let last = remaining.last().map_or(0, |(end, _)| end.saturating_mul(1000));
        let horizon = outlook.now.saturating_add(HORIZON);
        let to = last.clamp(outlook.now.saturating_add(60 * DAY), horizon);
        let (portions, last_soak) = portions(strategy, outlook, &remaining);
        Self {
            now: outlook.now,
            portions,
            last_soak,
            timeline: Timeline::new(outlook.calendar, outlook.windows, outlook.now, to),
            override_before: if strategy.emergency {
                Some(Millis::MAX)
            } else {
                strategy.override_before_expiry
            },
        }
    }

    /// What becomes of it at so many devices a day.
    fn flow(&self, per_day: u64) -> Flow {
        let mut flow = Flow::default();
        let mut at = self.now;
        for portion in &self.portions {
            at = at.saturating_add(portion.pause);
            let end = portion.not_after.saturating_mul(1000);
            match self.serve(at, end, takes(portion.devices, per_day)) {
                Served::By(done) => at = done,
                Served::For(time) => {
                    let served = fitting(time, per_day).min(portion.devices);
                    flow.missed = flow.missed.saturating_add(portion.devices - served);
                    flow.first_missed = flow.first_missed.or(Some(portion.not_after));
                    at = at.max(end);
                }
            }
        }
        let stuck = per_day == 0 && !self.portions.is_empty();
        flow.done = (!stuck).then(|| at.saturating_add(self.last_soak));
        flow
    }

    /// Serves devices that end at `end` from `at` on, which takes `need` milliseconds of open time; near their end, of any.
    fn serve(&self, at: Millis, end: Millis, need: Millis) -> Served {
        let free_from = self
            .override_before
            .map_or(end, |before| end.saturating_sub(before))
            .max(at);
        let passed = self.timeline.passed(at);
        let by_windows = self
            .timeline
            .when(passed.saturating_add(need))
            .filter(|done| *done <= free_from);
        if let Some(done) = by_windows.filter(|done| *done <= end) {
            return Served::By(done.max(at));
        }
        let before = self.timeline.passed(free_from.min(end.max(at))) - passed;
        let done = free_from.saturating_add(need.saturating_sub(before));
        if done <= end {
            return Served::By(done);
        }
        Served::For(before.saturating_add((end - free_from).max(0)))
    }

    /// The lowest rate, jobs per minute, at which no more are too late than at the highest.
    fn lowest_rate(&self, online_permille: u32) -> u32 {
        let missed = |rate: u32| {
            let per_day = u64::from(rate) * MINUTES_PER_DAY * u64::from(online_permille) / 1000;
            self.flow(per_day).missed
        };
        if self.portions.is_empty() {
            return 0;
        }
        let least = missed(HIGHEST);
        let (mut low, mut high) = (0, HIGHEST);
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if missed(middle) <= least {
                high = middle;
            } else {
                low = middle;
            }
        }
        high
    }
}

/// How far a portion came.
enum Served {
    /// All, by then.
    By(Millis),
    /// Not all: there was so much time for them.
    For(Millis),
}

/// The time that so many devices take at a rate, rounded up, milliseconds.
fn takes(devices: u32, per_day: u64) -> Millis {
    let time = u64::from(devices) * DAY.unsigned_abs();
    time.checked_add(per_day.saturating_sub(1))
        .and_then(|time| time.checked_div(per_day))
        .and_then(|time| Millis::try_from(time).ok())
        .unwrap_or(Millis::MAX)
}

/// The devices that fit into a time at a rate.
fn fitting(time: Millis, per_day: u64) -> u32 {
    let devices = u128::from(time.max(0).unsigned_abs()) * u128::from(per_day) / u128::from(DAY.unsigned_abs());
    u32::try_from(devices).unwrap_or(u32::MAX)
}

/// Cuts what remains into waves: the plan's order is by end of validity, so those that remain are its last ones. Returns the
/// soak after the last of them as well.
fn portions(strategy: &Strategy, outlook: &Outlook<'_>, remaining: &[(i64, u32)]) -> (Vec<Portion>, Millis) {
    let waves = &outlook.plan.waves;
    let last = waves.len().saturating_sub(1);
    let all: u64 = waves.iter().map(|wave| u64::from(wave.size)).sum();
    let left: u64 = remaining.iter().map(|(_, devices)| u64::from(*devices)).sum();
    let mut position = all.saturating_sub(left);
    let mut wave = outlook.run.wave as usize;
    let mut wave_ends: u64 = waves.iter().take(wave + 1).map(|wave| u64::from(wave.size)).sum();
    let mut portions = Vec::new();
    let mut pause = 0;
    for &(not_after, devices) in remaining {
        let mut devices = u64::from(devices);
        while devices > 0 {
            while position >= wave_ends && wave < last {
                pause += soak(strategy, outlook, wave);
                wave += 1;
                wave_ends += waves.get(wave).map_or(0, |wave| u64::from(wave.size));
            }
            let room = if wave < last { wave_ends - position } else { devices };
            let taken = devices.min(room);
            portions.push(Portion {
                not_after,
                devices: u32::try_from(taken).unwrap_or(u32::MAX),
                pause: std::mem::take(&mut pause),
            });
            position += taken;
            devices -= taken;
        }
    }
    let rest = (wave..waves.len().min(plan::MOST)).map(|wave| soak(strategy, outlook, wave));
    (portions, rest.sum())
}

/// The soak of a wave that is still to come, milliseconds.
fn soak(strategy: &Strategy, outlook: &Outlook<'_>, wave: usize) -> Millis {
    let empty = outlook.plan.waves.get(wave).is_none_or(|wave| wave.size == 0);
    if strategy.emergency || empty {
        return 0;
    }
    let soak = strategy.waves.get(wave).map_or(0, |wave| wave.soak);
    match outlook.run.soak_since {
        Some(since) if wave == outlook.run.wave as usize => {
            let soaked = outlook.now.saturating_sub(since).clamp(0, soak.max(0));
            soak - soaked
        }
        _ => soak,
    }
}

//! When the doors are open: starts by cron on a wall clock, durations in elapsed time.
//!
//! Cron fields are read as cron(8) and POSIX.1-2024 `crontab` have them (a day matches when day of month *or* day of week
//! does, where both are given); names and rules of time zones are the IANA time zone database's (RFC 6557), embedded, so
//! that a container without one knows them. Where a zone's clock is set forward and a start falls into the hour that does not
//! exist, the window opens at the first instant that does; where it is set back and a start happens twice, at the first. A
//! window is open from its start, inclusive, to its end, exclusive, and lasts as long as it says on both of these days.

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone, TimeZoneDatabase};

use super::plan::MOST;
use super::strategy::Window;
use crate::model::Millis;

/// The mask of a calendar without windows, and of a device in a fleet without them: open to all at all times.
pub const ALWAYS: u64 = u64::MAX;

/// Where the search for a pattern's first starts begins: a leap year, so that a 29 February is found at once.
const EPOCH: DateTime = jiff::civil::date(2000, 1, 1).at(0, 0, 0, 0);
/// How many starts are looked at to find the shortest time between two.
const STARTS: usize = 500;

/// A strategy's windows, ready to be asked.
#[derive(Debug, Clone, Default)]
pub struct Calendar(Vec<Opening>);

/// Why windows are refused. They are numbered from 1, as for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WindowError {
    /// More windows than bits.
    #[error("{0} windows; the most is {MOST}")]
    TooMany(usize),
    /// Not a name of the IANA database.
    #[error("window {number}: there is no time zone {zone:?} in the IANA database")]
    UnknownZone {
        /// From 1.
        number: usize,
        /// As written.
        zone: String,
    },
    /// Not five fields of cron.
    #[error("window {number}: {cron:?} is not a cron pattern of five fields: {reason}")]
    BadCron {
        /// From 1.
        number: usize,
        /// As written.
        cron: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A date that no year has, such as 30 February.
    #[error("window {number}: {cron:?} never fires")]
    NeverFires {
        /// From 1.
        number: usize,
        /// As written.
        cron: String,
    },
    /// A window that is never open.
    #[error("window {number}: the duration must be above 0")]
    NoDuration {
        /// From 1.
        number: usize,
    },
    /// A window that would open again before it closes.
    #[error(
        "window {number}: it lasts {}, and {cron:?} starts it again after {}",
        words(*duration),
        words(*period)
    )]
    Overlaps {
        /// From 1.
        number: usize,
        /// As written.
        cron: String,
        /// As written, milliseconds.
        duration: Millis,
        /// The shortest time between two starts on the wall clock, milliseconds.
        period: Millis,
    },
}

impl Calendar {
    /// Reads `windows`.
    ///
    /// # Errors
    /// When there are too many, or one of them has an unknown zone, a bad pattern, a pattern that never fires, or a duration
    /// of 0 or longer than the shortest time between two of its starts.
    pub fn compile(windows: &[Window]) -> Result<Self, WindowError> {
        if windows.len() > MOST {
            return Err(WindowError::TooMany(windows.len()));
        }
        let openings = (1..).zip(windows).map(|(number, window)| Opening::new(number, window));
        openings.collect::<Result<_, _>>().map(Self)
    }

    /// The windows that are open at `now`: bit i for window i; [`ALWAYS`] where there are none.
    pub fn open(&self, now: Millis) -> u64 {
        if self.0.is_empty() {
            return ALWAYS;
        }
        (0..).zip(&self.0).fold(0, |mask, (bit, opening)| {
            mask | u64::from(opening.until(now).is_some()) << bit
        })
    }

    /// The next instant after `now` at which [`open`](Self::open) may answer differently; `None` where it never will.
    pub fn next_change(&self, now: Millis) -> Option<Millis> {
        let changes = self.0.iter().filter_map(|opening| {
            let next = opening.start_after(now);
            match opening.until(now) {
                Some(end) => Some(next.map_or(end, |next| next.min(end))),
                None => next,
            }
        });
        changes.min()
    }

    /// The first instant at or after `now` at which a window of `mask` is open; `None` where none ever is, as for a device
    /// that no window selects.
    pub fn next_open(&self, now: Millis, mask: u64) -> Option<Millis> {
        if self.0.is_empty() {
            return Some(now);
        }
        let openings = self.chosen(mask).filter_map(|opening| match opening.until(now) {
            Some(_) => Some(now),
            None => opening.start_after(now),
        });
        openings.min()
    }

    /// For how many milliseconds between `from` and `to` a window of `mask` is open, overlaps counted once. Takes time in
    /// proportion to the number of openings.
    pub fn open_time(&self, mask: u64, from: Millis, to: Millis) -> Millis {
        self.spans(mask, from, to).map(|(start, end)| end - start).sum()
    }

    /// When between `from` and `to` a window of `mask` is open: spans from start to end, in order, without overlaps.
    pub fn spans(&self, mask: u64, from: Millis, to: Millis) -> impl Iterator<Item = (Millis, Millis)> {
        let mut at = from;
        std::iter::from_fn(move || {
            let start = self.next_open(at, mask).filter(|start| *start < to)?;
            let mut end = start;
            // A window that is open when another one closes carries on.
            while end < to {
                let Some(later) = self.until(end, mask) else { break };
                end = later;
            }
            at = end.min(to);
            Some((start, at))
        })
    }

    /// When the last of the windows of `mask` that are open at `now` closes.
    fn until(&self, now: Millis, mask: u64) -> Option<Millis> {
        if self.0.is_empty() {
            return Some(Millis::MAX);
        }
        self.chosen(mask).filter_map(|opening| opening.until(now)).max()
    }

    fn chosen(&self, mask: u64) -> impl Iterator<Item = &Opening> {
        let chosen = (0..).zip(&self.0).filter(move |(bit, _)| mask >> bit & 1 == 1);
        chosen.map(|(_, opening)| opening)
    }
}

/// One window.
#[derive(Debug, Clone)]
struct Opening {
    cron: Cron,
    zone: TimeZone,
    /// Milliseconds.
    duration: Millis,
}

impl Opening {
    fn new(number: usize, window: &Window) -> Result<Self, WindowError> {
        let text = || window.cron.clone();
        let zone = TimeZoneDatabase::bundled()
            .get(&window.time_zone)
            .map_err(|_| WindowError::UnknownZone {
                number,
                zone: window.time_zone.clone(),
            })?;
        let cron = parse(&window.cron).map_err(|reason| WindowError::BadCron {
            number,
            cron: text(),
            reason,
        })?;
        if window.duration <= 0 {
            return Err(WindowError::NoDuration { number });
        }
        let first = cron
            .find_next_occurrence(&EPOCH, true)
            .map_err(|_| WindowError::NeverFires { number, cron: text() })?;
        match shortest_period(&cron, first) {
            Some(period) if period < window.duration => Err(WindowError::Overlaps {
                number,
                cron: text(),
                duration: window.duration,
                period,
            }),
            _ => Ok(Self {
                cron,
                zone,
                duration: window.duration,
            }),
        }
    }

    /// When the window that is open at `now` closes; `None` where it is closed. Where two overlap, as a day with an hour less
    /// can make them, the later one counts.
    fn until(&self, now: Millis) -> Option<Millis> {
        let end = self.start_before(now)?.saturating_add(self.duration);
        (end > now).then_some(end)
    }

    /// The last start at or before `now`.
    fn start_before(&self, now: Millis) -> Option<Millis> {
        let wall = self.wall(now);
        let last = self.cron.find_previous_occurrence(&wall, true).ok();
        // The second time that the clock shows an hour, starts later in that hour have been already.
        self.starts_from(wall)
            .take_while(|(_, start)| *start <= now)
            .last()
            .map(|(_, start)| start)
            .or_else(|| last.and_then(|wall| self.instant(wall)))
    }

    /// The first start after `now`.
    fn start_after(&self, now: Millis) -> Option<Millis> {
        let mut starts = self.starts_from(self.wall(now)).map(|(_, start)| start);
        starts.find(|start| *start > now)
    }

    /// Starts whose wall-clock time is after `wall`, on the wall clock and as instants; neither ever goes back.
    fn starts_from(&self, wall: DateTime) -> impl Iterator<Item = (DateTime, Millis)> {
        let next = next_of(&self.cron);
        std::iter::successors(next(&wall), next).map_while(|wall| self.instant(wall).map(|start| (wall, start)))
    }

    /// What the zone's clock shows at `now`; the nearest that can be shown where `now` is beyond the calendar.
    fn wall(&self, now: Millis) -> DateTime {
        let bound = if now < 0 { Timestamp::MIN } else { Timestamp::MAX };
        self.zone.to_datetime(Timestamp::from_millisecond(now).unwrap_or(bound))
    }

    /// When the zone's clock shows `wall` for the first time, or first shows something later.
    fn instant(&self, wall: DateTime) -> Option<Millis> {
        let times = self.zone.to_ambiguous_timestamp(wall);
        let instant = match times.offset() {
            AmbiguousOffset::Unambiguous { .. } | AmbiguousOffset::Fold { .. } => times.earlier().ok()?,
            // As far into the time after the change as `wall` is into the gap: the change is the last one before.
            AmbiguousOffset::Gap { .. } => {
                let after = times
                    .later()
                    .ok()?
                    .checked_add(jiff::SignedDuration::from_secs(1))
                    .ok()?;
                self.zone.preceding(after).next()?.timestamp()
            }
        };
        Some(instant.as_millisecond())
    }
}

/// The start after a start.
fn next_of(cron: &Cron) -> impl Fn(&DateTime) -> Option<DateTime> {
    move |wall| cron.find_next_occurrence(wall, false).ok()
}

fn parse(pattern: &str) -> Result<Cron, String> {
    let fields = pattern.split_whitespace().count();
    if fields != 5 {
        return Err(format!("it has {fields}"));
    }
    CronParser::builder()
        .seconds(Seconds::Disallowed)
        .year(Year::Disallowed)
        .build()
        .parse(pattern)
        .map_err(|error| error.to_string())
}

/// The shortest time between two starts, from `first` on, milliseconds on the wall clock; `None` where there is only one. A
/// pattern with many starts a day shows it within hours, one with few is followed for months; where a stranger one hid it all
/// the same, two of its windows would run together, which does no harm.
fn shortest_period(cron: &Cron, first: DateTime) -> Option<Millis> {
    let mut before = first;
    let periods = std::iter::successors(next_of(cron)(&first), next_of(cron)).map(|start| {
        let period = start.duration_since(before).as_millis();
        before = start;
        Millis::try_from(period).unwrap_or(Millis::MAX)
    });
    periods.take(STARTS).min()
}

/// A duration for people, in the largest unit that leaves no remainder.
fn words(duration: Millis) -> String {
    let units = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)];
    let fitting = units.into_iter().find(|(_, unit)| duration % unit == 0);
    fitting.map_or_else(
        || format!("{duration}ms"),
        |(name, unit)| format!("{}{name}", duration / unit),
    )
}

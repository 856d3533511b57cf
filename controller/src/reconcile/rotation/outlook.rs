//! Whether all will be in time: the core's forecast over what the ledger says is left.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use certwave_core::model::Millis;
use certwave_core::rollout::forecast::{self, forecast};
use certwave_core::rollout::run::{Plan, Run, WaveCounts};
use certwave_core::rollout::strategy::Strategy;
use certwave_core::rollout::window::{ALWAYS, Calendar};
use certwave_crds::WindowStatus;
use certwave_ledger::{CountQuery, FleetCounts, Ledger, StoredRotation};

use crate::reconcile::error::{Error, Result};
use crate::reconcile::status::Verdict;
use crate::reconcile::time::{now_ms, time, time_ms};

/// A forecast is good for this long, milliseconds.
const FRESH: Millis = 15_000;
/// What a job is taken to last, milliseconds: a device makes a key, connects anew and waits for the commit.
const JOB: Millis = 20_000;
/// The broker says who is there within this time of a connection, milliseconds.
const PRESENCE: Millis = 10_000;
/// Windows shown.
const WINDOWS: usize = 5;
/// Devices named.
const NAMED: u32 = 5;

/// What is to be expected of a Rotation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Outlook {
    /// When it will be over, Unix milliseconds.
    pub(super) eta: Option<Millis>,
    /// Devices that will be too late.
    pub(super) missed: u32,
    /// The first end among them, Unix seconds.
    pub(super) first_missed: Option<i64>,
    /// The rate that would do, jobs a minute.
    pub(super) needed_per_minute: u32,
    /// The next windows.
    pub(super) windows: Vec<WindowStatus>,
    /// Devices that no window selects.
    pub(super) without_window: u32,
    /// Some of those that will be too late.
    pub(super) names: Vec<String>,
}

/// What a forecast is about.
pub(super) struct About<'a> {
    pub(super) strategy: &'a Strategy,
    pub(super) calendar: &'a Calendar,
    pub(super) plan: &'a Plan,
    pub(super) run: &'a Run,
    /// What is left, by end of validity in Unix seconds.
    pub(super) remaining: &'a [(i64, u32)],
    pub(super) succeeded: u32,
    pub(super) counts: FleetCounts,
    /// After this, Unix seconds, nobody is served: a compromised CA is cut off.
    pub(super) cutoff: Option<i64>,
}

/// Foresees.
pub(super) fn outlook(now: Millis, about: &About<'_>) -> Outlook {
    let end = |end: i64| about.cutoff.map_or(end, |cutoff| end.min(cutoff));
    let remaining: Vec<_> = about.remaining.iter().map(|(at, n)| (end(*at), *n)).collect();
    let found = forecast(
        about.strategy,
        &forecast::Outlook {
            now,
            plan: about.plan,
            run: about.run,
            remaining: &remaining,
            succeeded: about.succeeded,
            job_time: JOB,
            online_permille: permille(about.counts),
            calendar: about.calendar,
            windows: ALWAYS,
        },
    );
    Outlook {
        eta: found.eta,
        missed: found.missed,
        first_missed: found.first_missed,
        needed_per_minute: found.needed_per_minute,
        windows: windows(about, now),
        without_window: 0,
        names: Vec::new(),
    }
}

/// Devices online, of a thousand; without any device all are.
fn permille(counts: FleetCounts) -> u32 {
    let enrolled = counts.total - counts.declared.min(counts.total);
    let share = u64::from(counts.online.min(enrolled)) * 1000;
    u32::try_from(share.checked_div(u64::from(enrolled)).unwrap_or(1000)).unwrap_or(1000)
}

fn windows(about: &About<'_>, now: Millis) -> Vec<WindowStatus> {
    if about.strategy.windows.is_empty() || about.strategy.emergency {
        return Vec::new();
    }
    let mut found = Vec::new();
    let mut at = now;
    while found.len() < WINDOWS {
        let Some(opens) = about.calendar.next_open(at, ALWAYS) else {
            break;
        };
        let Some(closes) = about.calendar.next_change(opens) else {
            break;
        };
        found.push(WindowStatus {
            opens: time_ms(opens),
            closes: time_ms(closes),
        });
        at = closes;
    }
    found
}

impl Outlook {
    /// The condition `DeadlineAtRisk`.
    pub(super) fn verdict(&self) -> Verdict {
        if self.missed == 0 {
            return Verdict::no(
                "InTime",
                "at the present pace every device has its turn before its certificate ends",
            );
        }
        let first = self
            .first_missed
            .map_or_else(String::new, |at| format!(", the first at {}", time(at).0));
        let names = match self.names.as_slice() {
            [] => String::new(),
            names => format!(": {}", names.join(", ")),
        };
        let words = format!(
            "the certificates of {} devices end before their turn comes{first}{names}; {} jobs a minute would do, see limits, \
             windows and soak",
            self.missed, self.needed_per_minute
        );
        Verdict::yes("TooSlow", words)
    }
}

/// Forecasts and counts that are not made anew each time.
#[derive(Default)]
pub(super) struct Outlooks(Mutex<HashMap<String, Known>>);

#[derive(Default)]
struct Known {
    outlook: Option<(Millis, Outlook)>,
    online: Option<u32>,
    online_at: Option<Millis>,
    /// How many planned members of each wave another job waits for.
    elsewhere: Option<(Millis, Vec<u32>)>,
    /// Since when devices can be heard.
    reachable_since: Option<Millis>,
    /// Whether another Rotation may have gone before it; not known after a restart.
    preempted: Option<bool>,
}

/// How a fleet's devices are counted for a forecast.
pub(super) fn count(strategy: &Strategy, now: Millis) -> CountQuery {
    CountQuery {
        now,
        online_after: now.saturating_sub(strategy.job.offline_after),
        expiring_before_s: 0,
    }
}

fn stale(at: Option<Millis>, now: Millis) -> bool {
    at.is_none_or(|at| now < at || now - at >= FRESH)
}

/// How the waves stand by what was known of planned members that another job waits for, which is as good as offline; none where that is
/// too old, or no device of a wave up to this one has a job under way or goes back.
fn still(
    tallies: &[WaveCounts],
    wave: u32,
    (at, elsewhere): &(Millis, Vec<u32>),
    now: Millis,
) -> Option<Vec<WaveCounts>> {
    let mut begun = tallies.iter().take(wave as usize + 1);
    let busy = begun.any(|wave| wave.in_flight + wave.reverting > 0);
    (busy && !stale(Some(*at), now)).then(|| {
        let mut counts = tallies.to_vec();
        for (wave, elsewhere) in counts.iter_mut().zip(elsewhere) {
            let elsewhere = wave.planned.min(*elsewhere);
            (wave.planned, wave.offline) = (wave.planned - elsewhere, wave.offline + elsewhere);
        }
        counts
    })
}

impl Outlooks {
    fn with<T>(&self, uid: &str, f: impl FnOnce(&mut Known) -> T) -> T {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        f(known.entry(uid.to_owned()).or_default())
    }

    /// What is to be expected of a Rotation that runs.
    pub(super) async fn of(
        &self,
        ledger: &dyn Ledger,
        stored: &StoredRotation,
        waves: &[WaveCounts],
        cutoff: Option<i64>,
        now: Millis,
    ) -> Result<Option<Outlook>> {
        let (record, uid) = (&stored.record, &stored.record.uid);
        let known = self.with(uid, |known| known.outlook.clone());
        if let Some((at, outlook)) = known
            && !stale(Some(at), now)
        {
            return Ok(Some(outlook));
        }
        let remaining = ledger.remaining(uid).await?;
        let calendar = Calendar::compile(&record.strategy.windows).map_err(|e| Error::Strategy(e.to_string()))?;
        let about = About {
            strategy: &record.strategy,
            calendar: &calendar,
            plan: &record.plan,
            run: &stored.run,
            remaining: &remaining,
            succeeded: waves.iter().map(WaveCounts::proven).sum(),
            counts: ledger.counts(&record.fleet, count(&record.strategy, now)).await?,
            cutoff,
        };
        let mut found = outlook(now, &about);
        if let Some(first) = found.first_missed {
            let named = ledger.expiring_members(uid, first.saturating_add(3600), NAMED).await?;
            found.names = named.into_iter().map(|identity| identity.device.to_string()).collect();
        }
        self.with(uid, |known| known.outlook = Some((now_ms(), found.clone())));
        Ok(Some(found))
    }

    /// How the waves stand. Planned members that another job waits for, which may be the whole fleet, are counted each time only where
    /// something depends on them: no wave ends while a device of one that has begun is busy.
    pub(super) async fn counts(
        &self,
        ledger: &dyn Ledger,
        uid: &str,
        wave: u32,
        now: Millis,
    ) -> Result<Vec<WaveCounts>> {
        let tallies = ledger.wave_tallies(uid).await?;
        let known = self.with(uid, |known| known.elsewhere.clone());
        if let Some(counts) = known.and_then(|known| still(&tallies, wave, &known, now)) {
            return Ok(counts);
        }
        let counts = ledger.wave_counts(uid).await?;
        let pairs = tallies.iter().zip(&counts);
        let elsewhere = pairs.map(|(all, left)| all.planned.saturating_sub(left.planned));
        self.with(uid, |known| known.elsewhere = Some((now, elsewhere.collect())));
        Ok(counts)
    }

    /// The forecast that was made last.
    pub(super) fn last(&self, uid: &str) -> Option<Outlook> {
        self.with(uid, |known| known.outlook.as_ref().map(|(_, outlook)| outlook.clone()))
    }

    /// Whether the broker has had the time to say who is there.
    pub(super) fn presence_settled(&self, uid: &str, reachable: bool, now: Millis) -> bool {
        self.with(uid, |known| {
            if !reachable {
                (known.reachable_since, known.online_at) = (None, None);
                return false;
            }
            let since = *known.reachable_since.get_or_insert(now);
            now < since || now - since >= PRESENCE
        })
    }

    /// Remembers whether another Rotation goes before this one; answers whether one may have until now.
    pub(super) fn preempted(&self, uid: &str, now: bool) -> bool {
        self.with(uid, |known| known.preempted.replace(now).unwrap_or(true))
    }

    /// Whether devices online should be counted again.
    pub(super) fn count_online(&self, uid: &str, now: Millis) -> bool {
        self.with(uid, |known| stale(known.online_at, now))
    }

    pub(super) fn online(&self, uid: &str) -> Option<u32> {
        self.with(uid, |known| known.online)
    }

    pub(super) fn set_online(&self, uid: &str, online: Option<u32>, now: Millis) {
        self.with(uid, |known| (known.online, known.online_at) = (online, Some(now)));
    }

    pub(super) fn forget(&self, uid: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_elsewhere_is_counted_anew_where_a_wave_could_end_by_it() {
        let wave = |planned, in_flight, reverting| WaveCounts {
            planned,
            in_flight,
            reverting,
            ..WaveCounts::default()
        };
        let known = (1000, vec![7, 90]);
        let seen = |waves: &[WaveCounts], current, now| {
            let counts = still(waves, current, &known, now)?;
            Some(counts.iter().map(|c| (c.planned, c.offline)).collect::<Vec<_>>())
        };
        let both = Some(vec![(3, 7), (10, 90)]);
        assert_eq!(seen(&[wave(10, 1, 0), wave(100, 0, 0)], 0, 1001), both);
        assert_eq!(seen(&[wave(10, 0, 0), wave(100, 0, 1)], 1, 1001), both);
        // Fewer are left by now.
        assert_eq!(seen(&[wave(2, 1, 0)], 0, 1001), Some(vec![(0, 2)]));
        // Nobody is busy, or nobody of a wave that has begun; it was long ago, or the clock was set back.
        assert_eq!(seen(&[wave(10, 0, 0), wave(100, 0, 0)], 1, 1001), None);
        assert_eq!(seen(&[wave(10, 0, 0), wave(100, 1, 0)], 0, 1001), None);
        assert_eq!(seen(&[wave(10, 1, 0)], 0, 1000 + FRESH), None);
        assert_eq!(seen(&[wave(10, 1, 0)], 0, 999), None);
    }
}

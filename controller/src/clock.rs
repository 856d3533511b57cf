//! What time it is, and whether that is to be trusted: our clock is compared with the API server's, whose answers carry a date.
//!
//! Which of two clocks is wrong nobody can tell. So while they disagree, nothing happens that could not be taken back: nothing
//! is retired, pruned or archived, and all else goes by the earlier one of both ([`now`]): nothing ends, and nothing falls due, by
//! a clock that is ahead alone. What is signed must go on, or everybody is locked out; it is dated by the API server's clock then
//! ([`dating`]), and by that we judge the certificates of others.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use certwave_core::model::Millis;
use jiff::fmt::rfc2822;
use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;
use tokio::sync::watch;

/// How far the clocks may be apart, seconds.
pub const TOLERANCE_S: i64 = 300;
/// A `Date` is in whole seconds.
const RESOLUTION_MS: i64 = 1000;
/// By how much more or less than the time that has passed our clock may go on between two looks, milliseconds. More is a jump.
const JUMP_MS: i64 = 1000;

/// What the process goes by, once it has one.
static RULING: OnceLock<Arc<Clock>> = OnceLock::new();

/// The time, Unix milliseconds: the earlier one of the two clocks where they disagree.
pub fn now() -> Millis {
    RULING
        .get()
        .map_or_else(machine, |clock| earlier(machine(), clock.ahead()))
}

/// The time to put into what is signed, Unix milliseconds: see [`Clock::signing_time`].
pub fn dating() -> Millis {
    RULING.get().map_or_else(machine, |clock| clock.signing_time())
}

/// Unix milliseconds of this machine's clock, right or wrong.
pub(crate) fn machine() -> Millis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Millis::try_from(since.as_millis()).unwrap_or(Millis::MAX)
}

/// Has TLS judge the certificates of others by [`dating`]: a clock that is off does not part us from every broker.
#[derive(Debug)]
pub(crate) struct Judging;

impl TimeProvider for Judging {
    fn current_time(&self) -> Option<UnixTime> {
        let since = Duration::from_millis(u64::try_from(dating()).ok()?);
        Some(UnixTime::since_unix_epoch(since))
    }
}

/// See the module. One for each process.
#[derive(Debug)]
pub struct Clock {
    /// Ours minus the API server's, milliseconds, as far as it cannot be the time that the answer took.
    ahead: AtomicI64,
    trusted: watch::Sender<bool>,
    turns: Mutex<Turns>,
}

/// What is remembered of a clock.
#[derive(Debug, Default)]
struct Turns {
    /// When the two last agreed again or no more, or ours jumped, if they ever disagreed or it ever did; and what ours said then.
    last: Option<(Instant, Millis)>,
    /// Our clock when it was looked at last, and when that was.
    looked: Option<(Millis, Instant)>,
}

/// What one look at our clock tells.
#[derive(Debug, Clone, Copy)]
struct Look {
    at: Instant,
    /// What it said, right or wrong.
    ours: Millis,
    /// The last turn, this look's own among them.
    turned: Option<(Instant, Millis)>,
}

impl Turns {
    /// Looks whether our clock, which says `ours`, has jumped. That need not take it out of [`TOLERANCE_S`], and the API server tells of it later.
    fn look(&mut self, ours: Millis, now: Instant) -> Look {
        let before = self.looked.replace((ours, now));
        let jump = before.map_or(0, |(then, at)| beyond(ours - then, now.saturating_duration_since(at)));
        if jump.abs() > JUMP_MS {
            self.last = Some((now, ours));
            tracing::warn!(
                by_ms = jump,
                "the clock has jumped: what soaks begins anew, and deadlines are put off by a step"
            );
        }
        let (at, turned) = (now, self.last);
        Look { at, ours, turned }
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self {
            ahead: AtomicI64::new(0),
            trusted: watch::Sender::new(true),
            turns: Mutex::default(),
        }
    }
}

impl Clock {
    /// Has the whole process go by this clock from now on. The first call counts.
    pub fn rule(self: &Arc<Self>) {
        let _ = RULING.set(Arc::clone(self));
    }

    fn ahead(&self) -> Millis {
        self.ahead.load(Ordering::Relaxed)
    }

    /// The API server has answered with this `Date` header a request that was sent at `sent` and answered at `heard`, both by our
    /// clock (Unix milliseconds).
    pub fn heard(&self, date: &str, sent: Millis, heard: Millis) {
        let Ok(date) = rfc2822::parse(date) else {
            return;
        };
        let ahead = apart(date.timestamp().as_millisecond(), sent, heard);
        self.ahead.store(ahead, Ordering::Relaxed);
        let trusted = ahead.abs() <= TOLERANCE_S * 1000;
        let turned = self
            .trusted
            .send_if_modified(|before| std::mem::replace(before, trusted) != trusted);
        if turned {
            self.turns().last = Some((Instant::now(), machine()));
        }
        if turned && trusted {
            tracing::info!("the clock agrees with the API server's again");
        } else if turned {
            tracing::error!(
                ahead_seconds = ahead / 1000,
                "the clock disagrees with the API server's: nothing is retired, pruned or archived"
            );
        }
    }

    /// Whether our clock and the API server's agree, as far as it has answered yet.
    pub fn is_trusted(&self) -> bool {
        *self.trusted.borrow()
    }

    /// For how long they have agreed, and ours has not jumped; `None` while they do not. Times that were written down before may be off.
    pub fn agreed_for(&self) -> Option<Duration> {
        self.agreed_as_of(self.look())
    }

    /// When they last agreed again or no more, or ours jumped, by our clock then, right or wrong: to tell one such turn from another. `None` if that
    /// never was.
    pub fn turned(&self) -> Option<Millis> {
        self.now_and_turned().1
    }

    /// The time as [`now`] has it, and [`turned`](Self::turned) as of that very reading.
    pub fn now_and_turned(&self) -> (Millis, Option<Millis>) {
        let look = self.look();
        (earlier(look.ours, self.ahead()), look.turned.map(|(_, said)| said))
    }

    fn agreed_as_of(&self, look: Look) -> Option<Duration> {
        let since = |(turned, _)| look.at.saturating_duration_since(turned);
        self.is_trusted().then(|| look.turned.map_or(Duration::MAX, since))
    }

    fn look(&self) -> Look {
        let mut turns = self.turns();
        // Read under the lock: of two readings the later one must not be taken for the earlier.
        turns.look(machine(), Instant::now())
    }

    fn turns(&self) -> MutexGuard<'_, Turns> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ours minus the API server's, seconds.
    pub fn ahead_s(&self) -> i64 {
        self.ahead() / 1000
    }

    /// Changes when the clocks begin to disagree, or agree again.
    pub fn changes(&self) -> watch::Receiver<bool> {
        self.trusted.subscribe()
    }

    /// The time to put into what is signed, Unix milliseconds: never after the API server's, as relying parties refuse what begins
    /// in the future, and the API server's where ours is behind by more than is tolerated.
    pub fn signing_time(&self) -> Millis {
        corrected(machine(), self.ahead())
    }
}

/// By how many milliseconds a clock that has gone on by so many has gone on by more than time alone.
fn beyond(by: Millis, passed: Duration) -> Millis {
    by.saturating_sub(Millis::try_from(passed.as_millis()).unwrap_or(Millis::MAX))
}

fn earlier(now: Millis, ahead: i64) -> Millis {
    if ahead > TOLERANCE_S * 1000 {
        now.saturating_sub(ahead)
    } else {
        now
    }
}

fn corrected(now: Millis, ahead: i64) -> Millis {
    if (-TOLERANCE_S * 1000..=0).contains(&ahead) {
        now
    } else {
        // By how much exactly is known to a second only.
        now.saturating_sub(ahead).saturating_sub(RESOLUTION_MS)
    }
}

fn apart(theirs: Millis, sent: Millis, heard: Millis) -> i64 {
    if theirs < sent - RESOLUTION_MS {
        sent - RESOLUTION_MS - theirs
    } else if theirs > heard {
        heard - theirs
    } else {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATE: &str = "Mon, 21 Sep 2026 14:13:20 GMT";
    const AT: Millis = 1_790_000_000_000;
    const HOUR: Millis = 3_600_000;

    #[test]
    fn a_slow_answer_is_no_skew() {
        assert_eq!(apart(AT, AT - 30_000, AT + 200), 0);
        assert_eq!(apart(AT, AT + 900, AT + 950), 0, "a date has whole seconds");
    }

    #[test]
    fn clocks_more_than_five_minutes_apart_are_not_trusted_until_they_agree() {
        let clock = Clock::default();
        assert_eq!(clock.agreed_for(), Some(Duration::MAX));
        for (off, trusted) in [
            (HOUR, false),
            (0, true),
            (-HOUR, false),
            (250_000, true),
            (365 * 24 * HOUR, false),
            (-250_000, true),
        ] {
            clock.heard(DATE, AT + off, AT + off);
            assert_eq!(clock.is_trusted(), trusted, "{off}");
            assert_eq!(clock.agreed_for().is_some(), trusted);
        }
        assert!(clock.agreed_for().is_some_and(|time| time < Duration::from_mins(1)));
        clock.heard("yesterday", AT + HOUR, AT + HOUR);
        assert!(clock.is_trusted(), "what is no date says nothing");
    }

    #[test]
    fn what_was_agreed_on_before_a_jump_counts_no_more() {
        let (clock, start) = (Clock::default(), Instant::now());
        let at = |seconds: i64, jump: Millis| {
            let now = start + Duration::from_secs(seconds.unsigned_abs());
            let look = clock.turns().look(AT + seconds * 1000 + jump, now);
            clock.agreed_as_of(look)
        };
        assert_eq!(at(0, 0), Some(Duration::MAX));
        assert_eq!(at(600, 800), Some(Duration::MAX), "a clock is slewed");
        assert_eq!(at(601, 250_000), Some(Duration::ZERO));
        assert_eq!(at(611, 250_000), Some(Duration::from_secs(10)));
        assert_eq!(at(612, 0), Some(Duration::ZERO), "and back");
        let said = clock.turns().last.map(|(_, said)| said);
        assert_eq!(said, Some(AT + 612_000), "what it said then");
    }

    #[test]
    fn nothing_has_ended_by_a_clock_that_is_ahead_and_alone() {
        let year = 365 * 24 * HOUR;
        assert_eq!(earlier(AT + year, year), AT);
        assert_eq!(earlier(AT - HOUR, -HOUR), AT - HOUR);
        assert_eq!(earlier(AT + 60_000, 60_000), AT + 60_000, "as good as the same");
    }

    #[test]
    fn a_crl_never_begins_in_the_api_servers_future() {
        assert_eq!(corrected(AT + HOUR, HOUR), AT - RESOLUTION_MS);
        assert_eq!(corrected(AT + 60_000, 60_000), AT - RESOLUTION_MS);
        assert_eq!(
            corrected(AT - HOUR, -HOUR),
            AT - RESOLUTION_MS,
            "or the CRL would end an hour early"
        );
        assert_eq!(corrected(AT - 60_000, -60_000), AT - 60_000);
    }
}

//! What time it is, and whether that is to be trusted: our clock is compared with the API server's, whose answers carry a date.
//!
//! Which of two clocks is wrong nobody can tell. So while they disagree, nothing happens that could not be taken back: nothing
//! is retired, pruned or archived, and all else goes by the earlier one of both ([`now`]): nothing ends, and nothing falls due, by
//! a clock that is ahead alone. What is signed must go on, or everybody is locked out; it is dated by the API server's clock then
//! ([`dating`]), and by that we judge the certificates of others.
//!
//! A clock that has jumped since the API server last answered may be right or wrong by now: until it answers again, for a minute at most, we go
//! by what ours said then and by the time that has passed since, so that nothing is dated, and nothing ends, in the moment before it tells.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
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
/// The same for what we go by: how far ours is ahead is known to a second, and to the time that an answer took.
const WOBBLE_MS: i64 = 3000;
/// For so long an answer of the API server tells what our clock would say had it not jumped: a machine that slept does not count that time.
const LASTS: Duration = Duration::from_mins(1);

/// What the process goes by, once it has one.
static RULING: OnceLock<Arc<Clock>> = OnceLock::new();

/// The time, Unix milliseconds: the earlier one of the two clocks where they disagree.
pub fn now() -> Millis {
    RULING
        .get()
        .map_or_else(machine, |clock| clock.last_heard().ruling(machine(), Instant::now()))
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
    heard: RwLock<Heard>,
    trusted: watch::Sender<bool>,
    turns: Mutex<Turns>,
}

/// What the API server's last answer told.
#[derive(Debug, Clone, Copy, Default)]
struct Heard {
    /// Ours minus the API server's, milliseconds, as far as it cannot be the time that the answer took.
    ahead: Millis,
    /// When that was, and what ours said; `None` before the first.
    at: Option<(Instant, Millis)>,
}

impl Heard {
    /// What our clock, which says `ours` at `now`, would say had it not jumped since: the answer was about the clock as it was then.
    fn steadied(&self, ours: Millis, now: Instant) -> Millis {
        let Some((at, said)) = self.at else { return ours };
        let passed = now.saturating_duration_since(at);
        let steady = said.saturating_add(millis(passed));
        if passed < LASTS && ours.saturating_sub(steady).saturating_abs() > JUMP_MS {
            steady
        } else {
            ours
        }
    }

    /// What we go by where our clock says `ours` at `now`.
    fn ruling(&self, ours: Millis, now: Instant) -> Millis {
        earlier(self.steadied(ours, now), self.ahead)
    }

    /// What we sign with then.
    fn dating(&self, ours: Millis, now: Instant) -> Millis {
        corrected(self.steadied(ours, now), self.ahead)
    }
}

/// What is remembered of a clock.
#[derive(Debug, Default)]
struct Turns {
    /// When the two last agreed again or no more, ours jumped, or what we go by did, if any of that ever was; and what we went by from then on.
    last: Option<(Instant, Millis)>,
    /// Our clock and what we went by when they were looked at last, and when that was.
    looked: Option<(Millis, Millis, Instant)>,
}

/// What one look at our clock tells.
#[derive(Debug, Clone, Copy)]
struct Look {
    at: Instant,
    /// The time as [`now`] has it.
    now: Millis,
    /// The last turn, this look's own among them.
    turned: Option<(Instant, Millis)>,
}

impl Turns {
    /// Looks whether our clock, which says `ours`, has jumped, or what we go by, `now`: the one need not take us out of [`TOLERANCE_S`], and the
    /// other follows when the API server has told of it.
    fn look(&mut self, ours: Millis, now: Millis, at: Instant) -> Look {
        let (by, ruled_by) = self
            .looked
            .replace((ours, now, at))
            .map_or((0, 0), |(then, ruled, looked)| {
                let passed = at.saturating_duration_since(looked);
                (beyond(ours - then, passed), beyond(now - ruled, passed))
            });
        if by.abs() > JUMP_MS {
            tracing::warn!(
                by_ms = by,
                "the clock has jumped: what soaks begins anew, and deadlines are put off by a step"
            );
        }
        if by.abs() > JUMP_MS || ruled_by.abs() > WOBBLE_MS {
            self.last = Some((at, now));
        }
        let turned = self.last;
        Look { at, now, turned }
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self {
            heard: RwLock::default(),
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

    fn last_heard(&self) -> Heard {
        *self.heard.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The API server has answered with this `Date` header at `heard` by our clock (Unix milliseconds). That took so long by a clock that only
    /// goes forward: ours may have jumped meanwhile.
    pub fn heard(&self, date: &str, heard: Millis, took: Duration) {
        let Ok(date) = rfc2822::parse(date) else {
            return;
        };
        let ahead = apart(date.timestamp().as_millisecond(), beyond(heard, took), heard);
        let trusted = ahead.abs() <= TOLERANCE_S * 1000;
        let at = Instant::now();
        let news = Heard {
            ahead,
            at: Some((at, heard)),
        };
        let before = std::mem::replace(&mut *self.heard.write().unwrap_or_else(PoisonError::into_inner), news);
        let turned = self
            .trusted
            .send_if_modified(|before| std::mem::replace(before, trusted) != trusted);
        // What we go by may jump and return between two looks.
        let now = news.ruling(heard, at);
        if turned || now.saturating_sub(before.ruling(heard, at)).saturating_abs() > WOBBLE_MS {
            self.turns().last = Some((at, now));
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

    /// When they last agreed again or no more, or ours or what we go by jumped, by what we went by from then on: to tell one such turn from
    /// another. `None` if that never was.
    pub fn turned(&self) -> Option<Millis> {
        self.now_and_turned().1
    }

    /// The time as [`now`] has it, and [`turned`](Self::turned) as of that very reading.
    pub fn now_and_turned(&self) -> (Millis, Option<Millis>) {
        let look = self.look();
        (look.now, look.turned.map(|(_, said)| said))
    }

    fn agreed_as_of(&self, look: Look) -> Option<Duration> {
        let since = |(turned, _)| look.at.saturating_duration_since(turned);
        self.is_trusted().then(|| look.turned.map_or(Duration::MAX, since))
    }

    fn look(&self) -> Look {
        let mut turns = self.turns();
        // Read under the lock: of two readings the later one must not be taken for the earlier.
        let (ours, at) = (machine(), Instant::now());
        turns.look(ours, self.last_heard().ruling(ours, at), at)
    }

    fn turns(&self) -> MutexGuard<'_, Turns> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ours minus the API server's, seconds.
    pub fn ahead_s(&self) -> i64 {
        self.last_heard().ahead / 1000
    }

    /// Changes when the clocks begin to disagree, or agree again.
    pub fn changes(&self) -> watch::Receiver<bool> {
        self.trusted.subscribe()
    }

    /// [`signing_time`](Self::signing_time), and the later one of that and our clock: what has begun by neither was dated by a clock that was ahead.
    pub fn signing_and_latest(&self) -> (Millis, Millis) {
        let (heard, ours, at) = (self.last_heard(), machine(), Instant::now());
        let signing = heard.dating(ours, at);
        (signing, signing.max(heard.steadied(ours, at)))
    }

    /// The time to put into what is signed, Unix milliseconds: never after the API server's, as relying parties refuse what begins
    /// in the future, and the API server's where ours is behind by more than is tolerated.
    pub fn signing_time(&self) -> Millis {
        self.signing_and_latest().0
    }
}

/// What is left of so many milliseconds when the time that has passed is taken off.
fn beyond(by: Millis, passed: Duration) -> Millis {
    by.saturating_sub(millis(passed))
}

fn millis(time: Duration) -> Millis {
    Millis::try_from(time.as_millis()).unwrap_or(Millis::MAX)
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
            clock.heard(DATE, AT + off, Duration::ZERO);
            assert_eq!(clock.is_trusted(), trusted, "{off}");
            assert_eq!(clock.agreed_for().is_some(), trusted);
        }
        assert!(clock.agreed_for().is_some_and(|time| time < Duration::from_mins(1)));
        clock.heard("yesterday", AT + HOUR, Duration::ZERO);
        assert!(clock.is_trusted(), "what is no date says nothing");
    }

    #[test]
    fn what_was_agreed_on_before_a_jump_counts_no_more() {
        let (clock, start) = (Clock::default(), Instant::now());
        let at = |seconds: i64, jump: Millis| {
            let now = start + Duration::from_secs(seconds.unsigned_abs());
            let ours = AT + seconds * 1000 + jump;
            let look = clock.turns().look(ours, ours, now);
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
    fn a_clock_that_has_jumped_counts_once_the_api_server_has_answered() {
        let start = Instant::now();
        assert_eq!(Heard::default().steadied(AT, start), AT, "nobody has answered yet");
        let heard = Heard {
            ahead: 0,
            at: Some((start, AT)),
        };
        let later = start + Duration::from_secs(7);
        for jump in [400 * 24 * HOUR, -3 * 24 * HOUR, 60_000] {
            assert_eq!(heard.ruling(AT + 7000 + jump, later), AT + 7000);
            assert_eq!(heard.dating(AT + 7000 + jump, later), AT + 7000);
        }
        assert_eq!(heard.steadied(AT + 7800, later), AT + 7800, "a clock is slewed");
        let much_later = AT + 8 * HOUR;
        assert_eq!(
            heard.steadied(much_later, start + LASTS),
            much_later,
            "it slept, and nobody answers"
        );
        let year = 365 * 24 * HOUR;
        let answered = Heard {
            ahead: year,
            at: Some((later, AT + year)),
        };
        assert_eq!(answered.dating(AT + year, later), AT - RESOLUTION_MS);
        assert_eq!(answered.ruling(AT + year, later), AT);
    }

    #[test]
    fn a_jump_is_a_turn_when_it_happens_and_when_we_begin_to_go_by_it() {
        let (mut turns, start) = (Turns::default(), Instant::now());
        let mut look = |seconds: i64, ours: Millis, now: Millis| {
            let at = start + Duration::from_secs(seconds.unsigned_abs());
            let look = turns.look(AT + seconds * 1000 + ours, AT + seconds * 1000 + now, at);
            look.turned.map(|(_, said)| said)
        };
        assert_eq!(look(0, 0, 0), None);
        assert_eq!(look(1, HOUR, 0), Some(AT + 1000));
        assert_eq!(look(2, HOUR, 0), Some(AT + 1000));
        assert_eq!(look(3, HOUR, HOUR), Some(AT + 3000 + HOUR));
        assert_eq!(look(4, 0, HOUR), Some(AT + 4000 + HOUR));
        assert_eq!(look(5, 0, 0), Some(AT + 5000));
        assert_eq!(look(6, 0, 0), Some(AT + 5000));
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

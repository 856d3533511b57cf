//! What decides when the CRL of a scope is made anew, and by which number: pure.

use certwave_core::model::Millis;
use certwave_pki::{CA_PARTITION, FULL_PARTITION, partition_of};
use jiff::civil::Date;
use jiff::tz::TimeZone;

use crate::clock::{Clock, TOLERANCE_S};
use crate::registry::CrlPolicy;

/// What is appended to a partition's name for its delta CRLs.
const DELTA: &str = ".delta";

/// A CRL that is out. Times are Unix seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// CRL number.
    pub number: u64,
    /// `thisUpdate`.
    pub this_update: i64,
    /// `nextUpdate`.
    pub next_update: i64,
    /// The last change in the ledger that it says.
    pub covers: u64,
    /// How many certificates it lists.
    pub entries: usize,
    /// It names where delta CRLs are (Freshest CRL, RFC 5280, 5.2.6).
    pub names_deltas: bool,
}

/// The time by which CRLs are judged, Unix seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// That which the next one would be dated by.
    pub signing: i64,
    /// The later one of that and our clock.
    pub latest: i64,
}

impl Now {
    /// By this clock.
    pub(crate) fn of(clock: &Clock) -> Self {
        let (signing, latest) = clock.signing_and_latest();
        Self {
            signing: signing / 1000,
            latest: latest / 1000,
        }
    }

    /// By clocks that agree.
    #[cfg(test)]
    pub(crate) const fn at(now: i64) -> Self {
        Self {
            signing: now,
            latest: now,
        }
    }

    /// Whether a CRL has begun. One that has not, by neither clock and by more than clocks may be apart, was dated by a clock that was ahead: relying
    /// parties refuse it, and it says nothing of when the next one is due.
    pub(super) const fn has_begun(self, this_update: i64) -> bool {
        this_update <= self.latest.saturating_add(TOLERANCE_S)
    }
}

impl Stamp {
    /// Relying parties go by it.
    pub(super) const fn holds(&self, now: Now) -> bool {
        now.has_begun(self.this_update) && now.signing < self.next_update
    }

    /// The latest date that any CRL of the scope has had, Unix seconds, as numbers rise by it: see [`next_number`].
    fn latest_date(&self) -> i64 {
        i64::try_from(self.number / 1000).unwrap_or(i64::MAX)
    }
}

/// The scope of a partition's delta CRLs.
pub(super) fn delta_of(partition: &str) -> String {
    format!("{partition}{DELTA}")
}

/// Whether this scope is one of delta CRLs.
pub(super) fn is_delta(scope: &str) -> bool {
    scope.ends_with(DELTA)
}

/// The kind of a scope, as metrics show it: names of partitions would grow without end.
pub fn kind_of(scope: &str) -> &'static str {
    match scope {
        CA_PARTITION => "ca",
        FULL_PARTITION => "full",
        scope if is_delta(scope) => "delta",
        _ => "partition",
    }
}

/// Whether a name is that of a scope: whoever asks for another one need not bother the ledger.
pub(super) fn is_scope(name: &str) -> bool {
    let base = name.strip_suffix(DELTA).unwrap_or(name);
    base == CA_PARTITION || base == FULL_PARTITION || end_of(base).is_some()
}

/// Whether a name may be a CA's key id, for the same reason.
pub(crate) fn is_key_id(name: &str) -> bool {
    !name.is_empty() && name.len() <= 128 && name.bytes().all(|b| b.is_ascii_hexdigit())
}

/// When a month's partition dies, Unix seconds: nothing in it is valid from then on. `None`: never, or not a month.
pub(crate) fn end_of(partition: &str) -> Option<i64> {
    let (year, month) = partition.split_once('-')?;
    if (year.len(), month.len()) != (4, 2) {
        return None;
    }
    let (year, month) = (year.parse().ok()?, month.parse().ok()?);
    let next = Date::new(year, month, 1).ok()?.last_of_month().tomorrow().ok()?;
    let end = next.to_zoned(TimeZone::UTC).ok()?.timestamp().as_second();
    // `+999-01` and the like have a length that fits.
    (partition_of(end - 1) == partition).then_some(end)
}

/// Whether the CRL of a scope is to be made anew for its age alone, or as deltas came to it or are no longer made, or as it was dated by a clock
/// that was ahead. Of that one some relying parties keep a copy (Mosquitto does until it ends) and go by it from its date on: then, too, one is made.
/// A dead partition's is made once more, so that what was
/// revoked stays listed for one CRL after its end (RFC 5280, 3.3), and never again.
pub(super) fn is_due(scope: &str, last: &Stamp, policy: &CrlPolicy, now: Now) -> bool {
    let overtaken = last.this_update < last.latest_date() && last.latest_date() < now.signing;
    if !now.has_begun(last.this_update) || overtaken {
        return true;
    }
    if let Some(end) = end_of(scope)
        && now.signing >= end
    {
        return last.this_update < end;
    }
    last.names_deltas != names_deltas(scope, policy) || last.next_update - renew_before(last, policy) <= now.signing
}

/// Whether a scope's CRL says where its delta CRLs are. The list of everything has none.
pub(super) fn names_deltas(scope: &str, policy: &CrlPolicy) -> bool {
    policy.complete_every.is_some() && !is_delta(scope) && scope != FULL_PARTITION
}

/// How long before its end a CRL is made anew. A `renewBefore` that is not below the validity would renew without pause.
pub(super) fn renew_before(last: &Stamp, policy: &CrlPolicy) -> i64 {
    renewed_before(last.this_update, last.next_update, policy)
}

/// The same by the times in a CRL, Unix seconds.
pub(super) fn renewed_before(this_update: i64, next_update: i64, policy: &CrlPolicy) -> i64 {
    policy.renew_before.min((next_update - this_update) / 2)
}

/// Whether a partition is dead and its last CRL made: nobody needs another one.
pub fn is_over(scope: &str, last: &Stamp, now: Now) -> bool {
    now.has_begun(last.this_update) && end_of(scope).is_some_and(|end| last.this_update >= end && now.signing >= end)
}

/// CRL numbers rise over restarts and restored backups: by the clock, and by one where the clock stands behind.
pub(super) fn next_number(last: u64, now: Millis) -> u64 {
    last.saturating_add(1).max(u64::try_from(now).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-10-01T00:00:00Z
    const OCTOBER: i64 = 1_790_812_800;
    const DAY: i64 = 86_400;
    const POLICY: CrlPolicy = CrlPolicy {
        validity: 7 * DAY,
        renew_before: 3 * DAY,
        complete_every: None,
    };

    fn made(this_update: i64) -> Stamp {
        Stamp {
            number: 1,
            this_update,
            next_update: this_update + POLICY.validity,
            covers: 0,
            entries: 0,
            names_deltas: false,
        }
    }

    #[test]
    fn numbers_rise_whatever_the_clock_says() {
        assert_eq!(next_number(0, 1_790_000_000_000), 1_790_000_000_000);
        assert_eq!(next_number(1_790_000_000_005, 1_790_000_000_000), 1_790_000_000_006);
        assert_eq!(next_number(7, -5), 8);
    }

    #[test]
    fn a_month_dies_when_it_is_over() {
        assert_eq!(end_of("2026-09"), Some(OCTOBER));
        assert_eq!(end_of("2026-12"), Some(OCTOBER + 92 * DAY));
        for no_month in [
            "ca",
            "full",
            "2026-13",
            "2026-9",
            "+026-09",
            "2026-09.delta",
            "2026-+9",
            "",
        ] {
            assert_eq!(end_of(no_month), None, "{no_month}");
        }
    }

    #[test]
    fn names_of_scopes_are_known_by_their_form() {
        for name in ["ca", "full", "2026-09", "2026-09.delta", "ca.delta"] {
            assert!(is_scope(name), "{name}");
        }
        for name in ["", "..", "2026", "ca.delta.delta", "CA", "2026-00"] {
            assert!(!is_scope(name), "{name}");
        }
    }

    #[test]
    fn a_crl_is_made_anew_before_its_end() {
        let crl = made(OCTOBER);
        assert!(!is_due("ca", &crl, &POLICY, Now::at(OCTOBER + 4 * DAY - 1)));
        assert!(is_due("ca", &crl, &POLICY, Now::at(OCTOBER + 4 * DAY)));
        let hasty = CrlPolicy {
            renew_before: 30 * DAY,
            ..POLICY
        };
        assert!(
            !is_due("ca", &crl, &hasty, Now::at(OCTOBER + 3 * DAY)),
            "not in every round"
        );
        assert!(is_due("ca", &crl, &hasty, Now::at(OCTOBER + 4 * DAY)));
    }

    #[test]
    fn a_crl_is_made_anew_when_deltas_come_or_go() {
        let deltas = CrlPolicy {
            complete_every: Some(DAY),
            ..POLICY
        };
        let plain = made(OCTOBER);
        let named = Stamp {
            names_deltas: true,
            ..plain
        };
        for scope in ["ca", "2026-12"] {
            assert!(
                is_due(scope, &plain, &deltas, Now::at(OCTOBER)) && is_due(scope, &named, &POLICY, Now::at(OCTOBER)),
                "{scope}"
            );
            assert!(
                !is_due(scope, &named, &deltas, Now::at(OCTOBER)) && !is_due(scope, &plain, &POLICY, Now::at(OCTOBER)),
                "{scope}"
            );
        }
        for scope in ["full", "2026-12.delta"] {
            assert!(!is_due(scope, &plain, &deltas, Now::at(OCTOBER)), "{scope}");
        }
    }

    #[test]
    fn a_dead_partition_gets_one_more_crl_and_no_other() {
        let before = made(OCTOBER - DAY);
        assert!(!is_due("2026-09", &before, &POLICY, Now::at(OCTOBER - 1)));
        assert!(is_due("2026-09", &before, &POLICY, Now::at(OCTOBER)));
        let last = made(OCTOBER + 5);
        for later in [OCTOBER + 5, OCTOBER + 400 * DAY] {
            assert!(is_over("2026-09", &last, Now::at(later)) && !is_over("2026-09", &before, Now::at(later)));
            assert!(!is_due("2026-09", &last, &POLICY, Now::at(later)));
        }
    }

    #[test]
    fn a_crl_that_was_dated_by_a_clock_far_ahead_is_made_anew_and_is_nobodys_last() {
        let now = OCTOBER - 10 * DAY;
        for scope in ["ca", "full", "2026-09", "2026-12", "2026-12.delta"] {
            for ahead in [TOLERANCE_S + 1, 8 * DAY, 400 * DAY] {
                let made = made(now + ahead);
                assert!(is_due(scope, &made, &POLICY, Now::at(now)), "{scope}, {ahead}");
                assert!(!is_over(scope, &made, Now::at(now)), "{scope}, {ahead}");
                assert!(!made.holds(Now::at(now)), "{scope}, {ahead}");
            }
            let made = made(now + TOLERANCE_S);
            assert!(
                !is_due(scope, &made, &POLICY, Now::at(now)) && made.holds(Now::at(now)),
                "{scope}"
            );
        }
    }

    #[test]
    fn a_crl_stays_while_another_clock_has_fallen_back_behind_it() {
        let now = Now {
            signing: OCTOBER - 400 * DAY,
            latest: OCTOBER,
        };
        let made = made(OCTOBER - DAY);
        assert!(!is_due("2026-12", &made, &POLICY, now), "the next one would have ended");
        assert!(made.holds(now));
    }

    #[test]
    fn a_month_is_not_over_while_our_clock_alone_says_so() {
        let now = Now {
            signing: OCTOBER - 5 * DAY,
            latest: OCTOBER + 400 * DAY,
        };
        let made = made(OCTOBER + 400 * DAY);
        assert!(!is_over("2026-09", &made, now), "a revocation is still to be published");
        assert!(is_over("2026-09", &made, Now::at(OCTOBER + 400 * DAY)));
    }

    #[test]
    fn when_the_date_of_a_crl_has_come_that_was_dated_ahead_another_one_is_made() {
        let ahead = OCTOBER + 7200;
        let after = Stamp {
            number: next_number(ahead.unsigned_abs() * 1000 + 7, OCTOBER * 1000),
            ..made(OCTOBER)
        };
        assert!(!is_due("2026-12", &after, &POLICY, Now::at(ahead)));
        assert!(is_due("2026-12", &after, &POLICY, Now::at(ahead + 1)));
        let then = Stamp {
            number: next_number(after.number, (ahead + 1) * 1000),
            ..made(ahead + 1)
        };
        assert!(!is_due("2026-12", &then, &POLICY, Now::at(ahead + 2)));
    }
}

//! Windows on the wall clocks of the world.

use certwave_core::model::Millis;
use certwave_core::rollout::strategy::{Selector, Window};
use certwave_core::rollout::window::{ALWAYS, Calendar, WindowError};
use jiff::Timestamp;

const MINUTE: Millis = 60_000;
const HOUR: Millis = 60 * MINUTE;

pub(crate) fn at(time: &str) -> Millis {
    time.parse::<Timestamp>().unwrap().as_millisecond()
}

pub(crate) fn window(cron: &str, duration: Millis, zone: &str) -> Window {
    Window {
        cron: cron.to_owned(),
        duration,
        time_zone: zone.to_owned(),
        selector: Selector::new(),
    }
}

pub(crate) fn calendar(cron: &str, duration: Millis, zone: &str) -> Calendar {
    Calendar::compile(&[window(cron, duration, zone)]).unwrap()
}

fn refused(cron: &str, duration: Millis, zone: &str) -> WindowError {
    Calendar::compile(&[window("0 0 * * *", HOUR, "UTC"), window(cron, duration, zone)]).unwrap_err()
}

#[test]
fn a_window_opens_on_its_zones_wall_clock_and_lasts_in_elapsed_time() {
    // cron, hours, zone; asked from; opens; closes.
    for (cron, hours, zone, from, opens, closes) in [
        (
            "0 1 * * *",
            4,
            "UTC",
            "2026-11-21T00:00:00Z",
            "2026-11-21T01:00:00Z",
            "2026-11-21T05:00:00Z",
        ),
        (
            "0 1 * * *",
            4,
            "Europe/Berlin",
            "2026-01-10T12:00:00Z",
            "2026-01-11T00:00:00Z",
            "2026-01-11T04:00:00Z",
        ),
        (
            "0 1 * * *",
            4,
            "Europe/Berlin",
            "2026-07-10T12:00:00Z",
            "2026-07-10T23:00:00Z",
            "2026-07-11T03:00:00Z",
        ),
        // The day of the change: one o'clock is before it, and four hours are four hours.
        (
            "0 1 * * *",
            4,
            "Europe/Berlin",
            "2026-03-28T12:00:00Z",
            "2026-03-29T00:00:00Z",
            "2026-03-29T04:00:00Z",
        ),
        (
            "0 1 * * *",
            4,
            "Europe/Berlin",
            "2026-10-24T12:00:00Z",
            "2026-10-24T23:00:00Z",
            "2026-10-25T03:00:00Z",
        ),
        // 02:30 does not exist: 03:00 is the first that does.
        (
            "30 2 * * *",
            1,
            "Europe/Berlin",
            "2026-03-28T12:00:00Z",
            "2026-03-29T01:00:00Z",
            "2026-03-29T02:00:00Z",
        ),
        // 02:30 happens twice: the first counts.
        (
            "30 2 * * *",
            1,
            "Europe/Berlin",
            "2026-10-24T12:00:00Z",
            "2026-10-25T00:30:00Z",
            "2026-10-25T01:30:00Z",
        ),
        // The day after, in winter time.
        (
            "30 2 * * *",
            1,
            "Europe/Berlin",
            "2026-10-25T01:30:00Z",
            "2026-10-26T01:30:00Z",
            "2026-10-26T02:30:00Z",
        ),
        (
            "30 2 * * *",
            1,
            "America/New_York",
            "2026-03-08T00:00:00Z",
            "2026-03-08T07:00:00Z",
            "2026-03-08T08:00:00Z",
        ),
        (
            "30 1 * * *",
            1,
            "America/New_York",
            "2026-11-01T00:00:00Z",
            "2026-11-01T05:30:00Z",
            "2026-11-01T06:30:00Z",
        ),
        (
            "30 1 * * *",
            1,
            "America/New_York",
            "2026-11-01T06:30:00Z",
            "2026-11-02T06:30:00Z",
            "2026-11-02T07:30:00Z",
        ),
        // Half an hour: 02:15 does not exist in October, 01:45 happens twice in April.
        (
            "15 2 * * *",
            1,
            "Australia/Lord_Howe",
            "2026-10-03T00:00:00Z",
            "2026-10-03T15:30:00Z",
            "2026-10-03T16:30:00Z",
        ),
        (
            "45 1 * * *",
            1,
            "Australia/Lord_Howe",
            "2026-04-04T00:00:00Z",
            "2026-04-04T14:45:00Z",
            "2026-04-04T15:45:00Z",
        ),
        // Over midnight, over a month's end, by weekday and by name.
        (
            "0 22 * * *",
            6,
            "UTC",
            "2026-11-30T12:00:00Z",
            "2026-11-30T22:00:00Z",
            "2026-12-01T04:00:00Z",
        ),
        (
            "0 23 * * 6",
            48,
            "UTC",
            "2026-11-17T00:00:00Z",
            "2026-11-21T23:00:00Z",
            "2026-11-23T23:00:00Z",
        ),
        (
            "0 0 29 FEB *",
            24,
            "UTC",
            "2026-11-21T00:00:00Z",
            "2028-02-29T00:00:00Z",
            "2028-03-01T00:00:00Z",
        ),
        (
            "*/15 9-10 * * MON-FRI",
            0,
            "Asia/Kolkata",
            "2026-11-21T00:00:00Z",
            "2026-11-23T03:30:00Z",
            "2026-11-23T03:35:00Z",
        ),
    ] {
        let duration = if hours == 0 { 5 * MINUTE } else { hours * HOUR };
        let calendar = calendar(cron, duration, zone);
        let (opens, closes) = (at(opens), at(closes));
        let case = format!("{cron} in {zone} from {from}");
        assert_eq!(calendar.next_open(at(from), 1), Some(opens), "{case}");
        assert_eq!(calendar.open(opens - 1), 0, "{case}");
        assert_eq!(calendar.open(opens), 1, "{case}");
        assert_eq!(calendar.open(closes - 1), 1, "{case}");
        assert_eq!(calendar.open(closes), 0, "{case}");
        assert_eq!(calendar.next_change(opens), Some(closes), "{case}");
        assert_eq!(calendar.open_time(1, opens - HOUR, closes + MINUTE), duration, "{case}");
    }
}

#[test]
fn starts_that_fall_into_the_same_missing_hour_open_together() {
    let calendar = calendar("0,30 2 * * *", 30 * MINUTE, "Europe/Berlin");
    let change = at("2026-03-29T01:00:00Z");
    assert_eq!(calendar.next_open(at("2026-03-28T12:00:00Z"), 1), Some(change));
    assert_eq!(calendar.next_change(change), Some(change + 30 * MINUTE));
    assert_eq!(
        calendar.next_open(change + 30 * MINUTE, 1),
        Some(at("2026-03-30T00:00:00Z"))
    );
}

#[test]
fn a_doubled_hour_does_not_open_windows_again_but_later_starts_of_it_have_been() {
    let calendar = calendar("0,30 2 * * *", 10 * MINUTE, "Europe/Berlin");
    // The second 02:00 to 03:00: both starts were an hour before.
    for minute in 0..60 {
        assert_eq!(
            calendar.open(at("2026-10-25T01:00:00Z") + minute * MINUTE),
            0,
            "02:{minute:02} again"
        );
    }
    assert_eq!(calendar.open(at("2026-10-25T00:35:00Z")), 1);
    let long = self::calendar("50 2 * * *", 2 * HOUR, "Europe/Berlin");
    // 02:10 for the second time: 02:50 was 20 minutes ago.
    assert_eq!(long.open(at("2026-10-25T01:10:00Z")), 1);
    assert_eq!(
        long.next_change(at("2026-10-25T01:10:00Z")),
        Some(at("2026-10-25T02:50:00Z"))
    );
}

#[test]
fn each_window_is_a_bit_and_without_windows_all_is_open() {
    let none = Calendar::compile(&[]).unwrap();
    assert_eq!(
        (none.open(5), none.next_change(5), none.next_open(5, 0)),
        (ALWAYS, None, Some(5))
    );
    assert_eq!((none.open_time(ALWAYS, 5, 9), none.open_time(ALWAYS, 9, 5)), (4, 0));
    let night = window("0 1 * * *", 4 * HOUR, "UTC");
    let noon = window("0 4 * * *", 4 * HOUR, "UTC");
    let two = Calendar::compile(&[night, noon]).unwrap();
    let midnight = at("2026-11-21T00:00:00Z");
    let masks: Vec<u64> = (0..9).map(|hour| two.open(midnight + hour * HOUR)).collect();
    assert_eq!(masks, [0, 1, 1, 1, 0b11, 0b10, 0b10, 0b10, 0]);
    assert_eq!(two.next_open(midnight, 0b10), Some(midnight + 4 * HOUR));
    assert_eq!(two.next_open(midnight, 0), None);
    let day = |mask| two.open_time(mask, midnight, midnight + 24 * HOUR);
    assert_eq!(
        [day(0), day(1), day(0b10), day(0b11), day(ALWAYS)],
        [0, 4, 4, 7, 7].map(|h| h * HOUR)
    );
    assert_eq!(two.open_time(0b11, midnight + 2 * HOUR, midnight + 3 * HOUR), HOUR);
}

#[test]
fn a_window_that_lasts_as_long_as_its_period_is_always_open() {
    let calendar = calendar("0 3 * * *", 24 * HOUR, "UTC");
    let from = at("2026-11-21T00:00:00Z");
    assert_eq!(calendar.open_time(1, from, from + 1000 * HOUR), 1000 * HOUR);
    assert!((0..100).all(|hour| calendar.open(from + hour * HOUR) == 1));
}

#[test]
fn bad_windows_are_refused_with_their_number() {
    let number = 2;
    assert_eq!(
        refused("0 1 * * *", HOUR, "Europe/Atlantis"),
        WindowError::UnknownZone {
            number,
            zone: "Europe/Atlantis".to_owned()
        }
    );
    for cron in ["0 0 30 2 *", "0 0 31 4,6,9,11 *"] {
        let expected = WindowError::NeverFires {
            number,
            cron: cron.to_owned(),
        };
        assert_eq!(refused(cron, HOUR, "UTC"), expected);
    }
    for cron in [
        "",
        "0 1 * *",
        "0 0 1 * * *",
        "@daily",
        "60 1 * * *",
        "0 24 * * *",
        "0 1 * * 9",
        "a b c d e",
        "5-1/0 * * * *",
    ] {
        assert!(
            matches!(refused(cron, HOUR, "UTC"), WindowError::BadCron { number: 2, .. }),
            "{cron:?}"
        );
    }
    assert_eq!(refused("0 1 * * *", 0, "UTC"), WindowError::NoDuration { number });
    for (cron, duration, period) in [
        ("0 1 * * *", 25 * HOUR, 24 * HOUR),
        ("0 1,22 * * *", 4 * HOUR, 3 * HOUR),
        ("* * * * *", 2 * MINUTE, MINUTE),
        ("0 0 1 * *", 29 * 24 * HOUR, 28 * 24 * HOUR),
        ("0 0 13 * FRI", 25 * HOUR, 24 * HOUR),
    ] {
        let expected = WindowError::Overlaps {
            number,
            cron: cron.to_owned(),
            duration,
            period,
        };
        assert_eq!(refused(cron, duration, "UTC"), expected);
    }
    let error = refused("0 1 * * *", 25 * HOUR, "UTC").to_string();
    assert_eq!(
        error,
        "window 2: it lasts 25h, and \"0 1 * * *\" starts it again after 1d"
    );
    let many = vec![window("0 1 * * *", HOUR, "UTC"); 65];
    assert_eq!(Calendar::compile(&many).unwrap_err(), WindowError::TooMany(65));
}

#[test]
fn times_beyond_the_calendar_are_answered() {
    let calendar = calendar("0 1 * * *", HOUR, "Europe/Berlin");
    for now in [Millis::MIN, -1, 0, Millis::MAX] {
        calendar.open(now);
        calendar.next_change(now);
        calendar.next_open(now, 1);
    }
}

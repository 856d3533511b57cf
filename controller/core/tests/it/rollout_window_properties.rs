//! Windows against a clock that is read minute by minute.

use certwave_core::model::Millis;
use certwave_core::rollout::window::Calendar;
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::{TimeZone, TimeZoneDatabase};
use proptest::prelude::*;

use crate::rollout_window::{at, calendar, window};

const MINUTE: Millis = 60_000;

/// Whether a window that starts at `minute` of each of `hours` is open, by walking through its last `duration` minute by
/// minute and asking the zone what its clock shows.
fn open_by_hand(zone: &TimeZone, minute: i8, hours: &[i8], minutes: i64, now: Millis) -> bool {
    let matches = |wall: DateTime| wall.minute() == minute && hours.contains(&wall.hour());
    let wall = |at: Millis| zone.to_datetime(Timestamp::from_millisecond(at).unwrap());
    let this_minute = now.div_euclid(MINUTE) * MINUTE;
    // A start is a whole minute; one `minutes` ago has just ended.
    (0..minutes)
        .map(|ago| this_minute - ago * MINUTE)
        .filter(|start| now - start < minutes * MINUTE)
        .any(|start| {
            let first = zone
                .to_ambiguous_timestamp(wall(start))
                .earlier()
                .unwrap()
                .as_millisecond()
                == start;
            let mut skipped = wall(start - MINUTE);
            let mut missed = false;
            // What the clock skipped, or nothing.
            loop {
                skipped = skipped.checked_add(jiff::SignedDuration::from_mins(1)).unwrap();
                if skipped >= wall(start) {
                    break;
                }
                missed |= matches(skipped);
            }
            missed || (first && matches(wall(start)))
        })
}

/// Days on which clocks change, and others; Unix minutes.
fn minutes() -> impl Strategy<Value = i64> {
    let change = prop_oneof![
        Just("2026-03-29T01:00:00Z"),
        Just("2026-10-25T01:00:00Z"),
        Just("2026-03-08T07:00:00Z"),
        Just("2026-11-01T06:00:00Z"),
        Just("2026-04-04T15:00:00Z"),
        Just("2026-10-03T15:30:00Z"),
        Just("2026-06-01T00:00:00Z"),
    ];
    (change, -1800i64..1800).prop_map(|(change, offset)| at(change) / MINUTE + offset)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn windows_are_open_when_the_zones_own_clock_says_so(
        zone in prop_oneof![
            Just("Europe/Berlin"), Just("America/New_York"), Just("Australia/Lord_Howe"), Just("UTC"), Just("Asia/Kolkata")
        ],
        minute in 0i8..60,
        hours in prop::collection::btree_set(0i8..5, 1..4),
        minutes in 1i64..=60,
        start in minutes(),
    ) {
        let hours: Vec<i8> = hours.into_iter().collect();
        let list = hours.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let calendar = calendar(&format!("{minute} {list} * * *"), minutes * MINUTE, zone);
        let zone = TimeZoneDatabase::bundled().get(zone).unwrap();
        let first = start * MINUTE;
        let mut open_minutes = 0;
        for now in (0..120).map(|n| first + n * MINUTE) {
            let expected = open_by_hand(&zone, minute, &hours, minutes, now);
            prop_assert_eq!(calendar.open(now) == 1, expected, "at {}", Timestamp::from_millisecond(now).unwrap());
            open_minutes += i64::from(expected);
        }
        prop_assert_eq!(calendar.open_time(1, first, first + 120 * MINUTE), open_minutes * MINUTE);
    }

    #[test]
    fn nothing_changes_before_the_next_change_and_nothing_opens_before_the_next_opening(
        zone in prop_oneof![Just("Europe/Berlin"), Just("America/New_York"), Just("Australia/Lord_Howe")],
        minute in 0i64..60,
        start in minutes(),
        duration in 1i64..600,
    ) {
        let pair = [
            window(&format!("{minute} 2 * * *"), duration * MINUTE, zone),
            window(&format!("{minute} */6 * * *"), duration.min(360) * MINUTE, "UTC"),
        ];
        let calendar = Calendar::compile(&pair).unwrap();
        let now = start * MINUTE + 1;
        let (mask, change) = (calendar.open(now), calendar.next_change(now).unwrap());
        prop_assert!(change > now);
        let mut between = now;
        while between < change {
            prop_assert_eq!(calendar.open(between), mask);
            between += MINUTE;
        }
        prop_assert_eq!(calendar.open(change - 1), mask);
        for wanted in [0b01, 0b10, 0b11] {
            let next = calendar.next_open(now, wanted).unwrap();
            prop_assert!(calendar.open(next) & wanted != 0);
            prop_assert_eq!(next == now, mask & wanted != 0);
            prop_assert!(next == now || calendar.open(next - 1) & wanted == 0);
            prop_assert_eq!(calendar.open_time(wanted, now, next), 0);
        }
    }
}

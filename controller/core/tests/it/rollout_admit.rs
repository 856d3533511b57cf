//! Limits that hold at once, and who passes.

use std::collections::BTreeMap;

use certwave_core::model::Millis;
use certwave_core::rollout::admit::{Doors, Rate, Steady, Waiting, choose, full_groups, per_minute, room};
use certwave_core::rollout::strategy::{Limits, PerGroup, Ramp, Strategy as Rotation};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::rollout_fleets::limits;

const HOUR: Millis = 3_600_000;

fn unlimited() -> Limits {
    Limits {
        max_in_flight: 10,
        max_per_minute: None,
        ramp: None,
        per_group: None,
    }
}

fn waiting(group: &str) -> Waiting<'_> {
    Waiting {
        wave: 0,
        group,
        windows: 1,
        not_after: 10_000,
    }
}

/// Wave 0 has begun, window 0 is open.
const DOORS: Doors = Doors {
    through_wave: 0,
    open: 1,
    override_before: None,
};

#[test]
fn a_limit_of_nothing_is_nothing() {
    let limits = Limits {
        max_in_flight: 0,
        max_per_minute: Some(0),
        ..unlimited()
    };
    assert_eq!(room(&limits, 0), 0);
    let mut rate = Rate::new();
    assert_eq!(rate.allowed(Steady(0), &limits, 0), 0);
    assert_eq!(rate.next(Steady(0), &limits, 0), None);
    assert_eq!(room(&unlimited(), 12), 0);
    assert_eq!(room(&unlimited(), 4), 6);
}

#[test]
fn a_ramp_begins_low_multiplies_with_success_and_ends_at_the_highest_rate() {
    let ramp = Ramp {
        from: 10,
        factor: 2,
        every_succeeded: 500,
    };
    let limits = Limits {
        max_per_minute: Some(100),
        ramp: Some(ramp),
        ..unlimited()
    };
    for (succeeded, expected) in [
        (0, 10),
        (499, 10),
        (500, 20),
        (999, 20),
        (1_000, 40),
        (1_500, 80),
        (2_000, 100),
        (u32::MAX, 100),
    ] {
        assert_eq!(per_minute(&limits, succeeded), expected, "{succeeded}");
    }
    assert_eq!(per_minute(&unlimited(), 0), u32::MAX);
}

#[test]
fn after_a_restart_what_was_sent_in_the_minute_before_counts_as_sent_just_now() {
    let limits = Limits {
        max_per_minute: Some(100),
        ..unlimited()
    };
    let mut rate = Rate::after(Steady(5_000), 70);
    assert_eq!(rate.allowed(Steady(5_000), &limits, 0), 30);
    assert_eq!(rate.allowed(Steady(64_999), &limits, 0), 30);
    assert_eq!(rate.allowed(Steady(65_000), &limits, 0), 100);
    let mut rate = Rate::after(Steady(5_000), 100);
    assert_eq!(rate.allowed(Steady(5_000), &limits, 0), 0);
    assert_eq!(rate.next(Steady(5_000), &limits, 0), Some(Steady(65_000)));
    assert_eq!(
        Rate::after(Steady(5_000), 100).allowed(Steady(5_000), &unlimited(), 0),
        u32::MAX - 100
    );
}

#[test]
fn a_window_is_waited_for_unless_the_end_is_near_or_it_is_an_emergency() {
    let now = 1_000 * HOUR;
    let near = Waiting {
        not_after: (now + 72 * HOUR) / 1000 - 1,
        ..waiting("")
    };
    let far = Waiting {
        not_after: (now + 72 * HOUR) / 1000,
        ..waiting("")
    };
    let nowhere = Waiting { windows: 0, ..far };
    let mut rotation = Rotation {
        override_before_expiry: Some(72 * HOUR),
        ..Rotation::default()
    };
    let closed = Doors::new(now, &rotation, 0, 0);
    assert_eq!(
        [near, far, nowhere].map(|device| closed.admit(&device)),
        [true, false, false]
    );
    let open = Doors::new(now, &rotation, 0, 1);
    assert_eq!(
        [near, far, nowhere].map(|device| open.admit(&device)),
        [true, true, false]
    );
    rotation.emergency = true;
    let emergency = Doors::new(now, &rotation, 0, 0);
    assert_eq!([near, far, nowhere].map(|device| emergency.admit(&device)), [true; 3]);
    let later = Waiting { wave: 1, ..near };
    assert!(!emergency.admit(&later), "its wave has not begun");
    rotation.emergency = false;
    rotation.override_before_expiry = None;
    assert!(!Doors::new(now, &rotation, 0, 0).admit(&near));
}

#[test]
fn a_full_group_holds_up_no_other() {
    let limits = Limits {
        per_group: Some(PerGroup {
            by: "site".to_owned(),
            max_unavailable: 2,
        }),
        ..unlimited()
    };
    let mut unavailable = BTreeMap::from([("a".to_owned(), 1)]);
    let line = ["a", "a", "b", "a", "b", "b", "", "c"].map(waiting);
    let chosen = choose(&DOORS, &limits, 5, &mut unavailable, line);
    assert_eq!(chosen, [0, 2, 4, 6, 7]);
    assert_eq!(full_groups(&limits, &unavailable), ["a", "b"]);
    assert_eq!(full_groups(&unlimited(), &unavailable), Vec::<String>::new());
}

proptest! {
    #[test]
    fn no_more_are_sent_within_any_60_seconds_than_the_rate_allows(
        limits in limits(),
        steps in vec((0u64..40_000, 0u32..=100, 0u8..100, any::<u16>()), 1..200),
    ) {
        let mut rate = Rate::new();
        let (mut clock, mut latest) = (0u64, 0u64);
        let mut succeeded = 0;
        let mut log: Vec<(u64, u32)> = Vec::new();
        for (pause, percent, chance, back) in steps {
            clock += if chance < 50 { pause % 500 } else { pause };
            let mut shown = Steady(clock);
            match chance {
                // A clock that goes back stands still.
                10 => shown = Steady(clock.saturating_sub(u64::from(back))),
                11 => {
                    let minute = log.iter().filter(|(at, _)| latest.max(clock) - at < 60_000);
                    rate = Rate::after(Steady(latest.max(clock)), minute.map(|(_, sent)| sent).sum());
                }
                _ => {}
            }
            latest = latest.max(shown.0);
            let allowed = rate.allowed(shown, &limits, succeeded);
            let sent = u32::try_from(u64::from(allowed.min(1_000)) * u64::from(percent) / 100).unwrap();
            if sent == 0 {
                continue;
            }
            rate.record(shown, sent);
            log.push((latest, sent));
            succeeded += sent / 2;
            let minute: u32 = log.iter().filter(|(at, _)| latest - at < 60_000).map(|(_, sent)| sent).sum();
            prop_assert!(minute <= per_minute(&limits, u32::MAX));
            prop_assert!(minute <= per_minute(&limits, succeeded));
        }
    }

    #[test]
    fn the_next_time_is_the_first_at_which_one_is_allowed(
        limits in limits(),
        steps in vec((0u64..30_000, 1u32..=100), 1..40),
    ) {
        let mut rate = Rate::new();
        let mut clock = Steady(0);
        for (pause, percent) in steps {
            clock.0 += pause;
            let allowed = rate.allowed(clock, &limits, 0);
            rate.record(clock, u32::try_from(u64::from(allowed.min(1_000)) * u64::from(percent) / 100).unwrap());
            let next = rate.next(clock, &limits, 0).unwrap();
            prop_assert!(rate.clone().allowed(next, &limits, 0) > 0);
            prop_assert!(next == clock || rate.clone().allowed(Steady(next.0 - 1), &limits, 0) == 0);
        }
    }

    #[test]
    fn those_chosen_fit_every_limit_and_nobody_who_fits_is_passed_over(
        limits in limits(),
        line in vec((0u32..3, 0usize..4, 0u64..4, 0i64..100), 0..60),
        room in 0u32..20,
        before in prop::collection::btree_map("[a-d]", 0u32..3, 0..4),
        doors in (0u32..3, 0u64..4, prop::option::of(0i64..100)),
    ) {
        let doors = Doors { through_wave: doors.0, open: doors.1, override_before: doors.2 };
        let line: Vec<Waiting<'_>> = line
            .iter()
            .map(|(wave, group, windows, not_after)| Waiting {
                wave: *wave,
                group: ["a", "b", "c", "d"][*group],
                windows: *windows,
                not_after: *not_after,
            })
            .collect();
        let mut unavailable = before.clone();
        let chosen = choose(&doors, &limits, room, &mut unavailable, line.iter().copied());
        prop_assert!(chosen.len() <= room as usize);
        prop_assert!(chosen.is_sorted());
        let mut by_group = before;
        for position in &chosen {
            prop_assert!(doors.admit(&line[*position]));
            *by_group.entry(line[*position].group.to_owned()).or_default() += 1;
        }
        if let Some(per_group) = &limits.per_group {
            let most = |group: &String| per_group.max_unavailable.max(unavailable[group].min(2));
            prop_assert!(by_group.iter().all(|(group, count)| *count <= most(group)));
            by_group.retain(|_, count| *count > 0);
            unavailable.retain(|_, count| *count > 0);
            prop_assert_eq!(&by_group, &unavailable);
        }
        if chosen.len() < room as usize {
            for (position, device) in line.iter().enumerate().filter(|(position, _)| !chosen.contains(position)) {
                let full = limits.per_group.as_ref().is_some_and(|per_group| {
                    by_group.get(device.group).copied().unwrap_or(0) >= per_group.max_unavailable
                });
                prop_assert!(full || !doors.admit(device), "{} was passed over", position);
            }
        }
    }
}

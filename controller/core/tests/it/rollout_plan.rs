//! Waves resolved to devices.

use std::collections::{BTreeMap, BTreeSet};

use certwave_core::rollout::plan::{Candidate, Fit, Place, PlanError, join, max_failed, plan, plan_fitting};
use certwave_core::rollout::run::Plan;
use certwave_core::rollout::select;
use certwave_core::rollout::strategy::{Size, Strategy, Thresholds, Wave};
use proptest::prelude::*;

use crate::rollout_fleets::{Fleet, fleets, strategies, wave};

const DAY: i64 = 86_400;

/// Devices that end on the same day, and that every wave takes.
fn alike(ids: &[String]) -> Vec<Candidate<'_>> {
    let candidate = |id| Candidate {
        id,
        not_after: 0,
        group: 0,
        waves: u64::MAX,
    };
    ids.iter().map(|id| candidate(id.as_str())).collect()
}

fn ids(count: u32) -> Vec<String> {
    (0..count).map(|n| format!("meter-{n}")).collect()
}

fn of(waves: Vec<Wave>) -> Strategy {
    Strategy {
        waves,
        ..Strategy::default()
    }
}

fn sized(sizes: &[Size]) -> Strategy {
    of(sizes
        .iter()
        .zip(1..)
        .map(|(size, n)| wave(&format!("w{n}"), *size))
        .collect())
}

fn sizes(plan: &Plan) -> Vec<u32> {
    plan.waves.iter().map(|wave| wave.size).collect()
}

fn planned(sizes_wanted: &[Size], devices: u32) -> Vec<u32> {
    sizes(&plan(&sized(sizes_wanted), &alike(&ids(devices))).unwrap().0)
}

fn refused(strategy: &Strategy, devices: u32) -> PlanError {
    plan(strategy, &alike(&ids(devices))).unwrap_err()
}

#[test]
fn percentages_are_cumulative_and_rounded_up_to_at_least_one_device() {
    use Size::{Count, Percent};
    let usual = [Percent(1), Percent(10), Percent(100)];
    for (devices, expected) in [
        (1, [1, 0, 0]),
        (2, [1, 1, 0]),
        (3, [1, 1, 1]),
        (10, [1, 1, 8]),
        (11, [1, 1, 9]),
        (100, [1, 9, 90]),
        (101, [2, 9, 90]),
        (1000, [10, 90, 900]),
        (1001, [11, 90, 900]),
    ] {
        assert_eq!(planned(&usual, devices), expected, "{devices} devices");
    }
    assert_eq!(planned(&[Count(5), Percent(10), Percent(100)], 100), [5, 5, 90]);
    // What the count took is more than the percentage: still one, so that the wave is no empty batch.
    assert_eq!(planned(&[Count(20), Percent(10), Percent(100)], 100), [20, 1, 79]);
    assert_eq!(planned(&[Count(3), Percent(100)], 3), [3, 0]);
    assert_eq!(planned(&[Percent(100)], 7), [7]);
}

#[test]
fn allowances_for_failure_are_rounded_down_and_may_be_nothing() {
    let share = |percent| Thresholds {
        max_failed_percent: percent,
        ..Thresholds::default()
    };
    for (size, percent, expected) in [
        (1, 5, 0),
        (19, 5, 0),
        (20, 5, 1),
        (39, 5, 1),
        (40, 5, 2),
        (7, 100, 7),
        (7, 0, 0),
    ] {
        assert_eq!(max_failed(&share(percent), size), expected, "{percent} % of {size}");
    }
    assert_eq!(max_failed(&share(100), u32::MAX), u32::MAX);
    let explicit = Thresholds {
        max_failed: Some(0),
        ..share(50)
    };
    assert_eq!(max_failed(&explicit, 100), 0);
}

#[test]
fn a_strategy_that_contradicts_itself_is_refused() {
    use Size::{Count, Percent};
    let named = |n: usize| (n, format!("w{n}"));
    for (sizes, expected) in [
        (vec![], PlanError::NoWaves),
        (vec![Count(0), Percent(100)], {
            let (number, name) = named(1);
            PlanError::SizeZero { number, name }
        }),
        (vec![Percent(0), Percent(100)], {
            let (number, name) = named(1);
            PlanError::SizeZero { number, name }
        }),
        (vec![Percent(10), Percent(101)], {
            let (number, name) = named(2);
            PlanError::Over {
                number,
                name,
                percent: 101,
            }
        }),
        (vec![Percent(10), Count(1), Percent(10), Percent(100)], {
            let (number, name) = named(3);
            PlanError::NotRising {
                number,
                name,
                percent: 10,
                before: 10,
            }
        }),
        (vec![Percent(10), Percent(90)], {
            let (number, name) = named(2);
            PlanError::LastNotRest { number, name }
        }),
        (vec![Percent(10), Count(5)], {
            let (number, name) = named(2);
            PlanError::LastNotRest { number, name }
        }),
        (vec![Count(1); 65], PlanError::TooManyWaves(65)),
    ] {
        assert_eq!(refused(&sized(&sizes), 100), expected);
    }
    let mut waves = vec![wave("canary", Percent(10)), wave("rest", Percent(100))];
    waves[1].selector = BTreeMap::from([("ring".to_owned(), "late".to_owned())]);
    assert!(matches!(
        refused(&of(waves), 100),
        PlanError::LastNotRest { number: 2, .. }
    ));
}

#[test]
fn a_wave_that_finds_nobody_or_too_few_is_refused_or_shrunk() {
    use Size::{Count, Percent};
    assert_eq!(refused(&Strategy::default(), 0), PlanError::Nobody);
    let counted = sized(&[Count(4), Percent(100)]);
    assert_eq!(
        refused(&counted, 3),
        PlanError::CountAbove {
            number: 1,
            name: "w1".to_owned(),
            count: 4,
            available: 3
        }
    );
    let names = ids(3);
    let (shrunk, _) = plan_fitting(&counted, &alike(&names), Fit::Shrink).unwrap();
    assert_eq!(sizes(&shrunk), [3, 0]);

    let strategy = sized(&[Percent(10), Percent(100)]);
    let mut nobody = alike(&names);
    for candidate in &mut nobody {
        candidate.waves = 0b10;
    }
    let expected = PlanError::SelectsNobody {
        number: 1,
        name: "w1".to_owned(),
    };
    assert_eq!(plan(&strategy, &nobody).unwrap_err(), expected);
    let (shrunk, _) = plan_fitting(&strategy, &nobody, Fit::Shrink).unwrap();
    assert_eq!(sizes(&shrunk), [0, 3]);
}

#[test]
fn a_wave_takes_only_what_its_selector_matches_and_the_last_takes_the_rest() {
    let names = ids(10);
    let mut candidates = alike(&names);
    for candidate in candidates.iter_mut().take(4) {
        candidate.waves = 0b11;
    }
    for candidate in candidates.iter_mut().skip(4) {
        candidate.waves = 0b10;
    }
    let (plan, places) = plan(&sized(&[Size::Count(3), Size::Percent(100)]), &candidates).unwrap();
    assert_eq!(sizes(&plan), [3, 7]);
    let canary = places.iter().filter(|place| place.wave == 0);
    assert!(canary.clone().all(|place| place.candidate < 4));
    assert_eq!(canary.count(), 3);
}

#[test]
fn devices_of_one_day_are_spread_over_groups() {
    let names = ids(9);
    let mut candidates = alike(&names);
    for (index, candidate) in candidates.iter_mut().enumerate() {
        // Six in group 7, two in group 3, one in group 5.
        candidate.group = [7, 7, 7, 7, 7, 7, 3, 3, 5][index];
        candidate.not_after = DAY + i64::try_from(index).unwrap();
    }
    let (_, places) = plan(&sized(&[Size::Percent(100)]), &candidates).unwrap();
    let groups: Vec<u32> = places.iter().map(|p| candidates[p.candidate as usize].group).collect();
    assert_eq!(groups[..3].iter().collect::<BTreeSet<_>>().len(), 3, "{groups:?}");
    assert_eq!(groups[3..5].iter().collect::<BTreeSet<_>>().len(), 2, "{groups:?}");
    assert_eq!(groups[5..], [7; 4]);
}

#[test]
fn the_order_of_devices_is_the_same_for_ever() {
    // Written down so that a new version that orders otherwise, and so makes another plan of the same fleet, is noticed.
    let names = ids(8);
    let (_, places) = plan(&sized(&[Size::Percent(100)]), &alike(&names)).unwrap();
    let order: Vec<u32> = places.iter().map(|place| place.candidate).collect();
    assert_eq!(order, ORDER);
}

const ORDER: [u32; 8] = [0, 1, 4, 5, 7, 2, 6, 3];

#[test]
fn a_selector_takes_devices_that_bear_all_its_labels() {
    let labels = |pairs: &[(&str, &str)]| {
        let owned = pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        owned.collect::<BTreeMap<_, _>>()
    };
    let mut waves = vec![
        wave("a", Size::Count(1)),
        wave("b", Size::Count(1)),
        wave("c", Size::Count(1)),
    ];
    waves[0].selector = labels(&[("ring", "canary")]);
    waves[1].selector = labels(&[("ring", "canary"), ("site", "x")]);
    assert_eq!(
        select::waves(&waves, &labels(&[("ring", "canary"), ("site", "y")])),
        0b101
    );
    assert_eq!(
        select::waves(&waves, &labels(&[("ring", "canary"), ("site", "x")])),
        0b111
    );
    assert_eq!(select::waves(&waves, &labels(&[])), 0b100);
    assert_eq!(select::windows(&[], &labels(&[])), u64::MAX);
}

/// Who is where.
fn membership(fleet: &Fleet, places: &[Place]) -> Vec<(String, u32, u32)> {
    let of = |place: &Place| (fleet.ids[place.candidate as usize].clone(), place.wave, place.ordinal);
    places.iter().map(of).collect()
}

fn day(fleet: &Fleet, place: &Place) -> i64 {
    fleet.devices[place.candidate as usize].not_after.div_euclid(DAY)
}

proptest! {
    #[test]
    fn every_device_has_exactly_one_place_and_the_plan_says_how_many((strategy, fleet) in (strategies(), fleets())) {
        let (plan, places) = plan_fitting(&strategy, &fleet.candidates(&strategy), Fit::Shrink).unwrap();
        let placed: BTreeSet<u32> = places.iter().map(|place| place.candidate).collect();
        prop_assert_eq!(placed.len(), fleet.ids.len());
        prop_assert_eq!(places.len(), fleet.ids.len());
        prop_assert_eq!(plan.waves.len(), strategy.waves.len());
        for (number, wave) in (0..).zip(&plan.waves) {
            let members: Vec<_> = places.iter().filter(|place| place.wave == number).collect();
            prop_assert_eq!(members.len(), wave.size as usize);
            prop_assert!(members.iter().zip(0..).all(|(place, ordinal)| place.ordinal == ordinal));
        }
    }

    #[test]
    fn a_plan_depends_on_nothing_but_the_fleet_and_the_strategy((strategy, fleet) in (strategies(), fleets()), seed: u64) {
        let (first, places) = plan_fitting(&strategy, &fleet.candidates(&strategy), Fit::Shrink).unwrap();
        let (again, _) = plan_fitting(&strategy, &fleet.candidates(&strategy), Fit::Shrink).unwrap();
        prop_assert_eq!(&first, &again);
        let shuffled = fleet.shuffled(seed);
        let (other, other_places) = plan_fitting(&strategy, &shuffled.candidates(&strategy), Fit::Shrink).unwrap();
        prop_assert_eq!(first, other);
        prop_assert_eq!(membership(&fleet, &places), membership(&shuffled, &other_places));
    }

    #[test]
    fn cumulative_percentages_hold_and_no_wave_is_empty_while_devices_are_left((strategy, fleet) in (strategies(), fleets())) {
        let mut strategy = strategy;
        for wave in &mut strategy.waves {
            wave.selector.clear();
        }
        let (plan, _) = plan_fitting(&strategy, &fleet.candidates(&strategy), Fit::Shrink).unwrap();
        let total = u32::try_from(fleet.ids.len()).unwrap();
        let mut before = 0;
        for (wave, planned) in strategy.waves.iter().zip(&plan.waves) {
            let left = total - before;
            prop_assert!(planned.size > 0 || left == 0);
            let after = before + planned.size;
            match wave.size {
                Size::Percent(percent) => {
                    // Rounded up: at least the share, and less than one device above it, unless it is the one that is due anyway.
                    let share = u32::from(percent) * total;
                    prop_assert!(after * 100 >= share);
                    prop_assert!(after * 100 < share + 100 || planned.size <= 1);
                }
                Size::Count(count) => prop_assert_eq!(planned.size, count.min(left)),
            }
            before = after;
        }
        prop_assert_eq!(before, total);
    }

    #[test]
    fn devices_that_end_earlier_come_earlier_within_a_wave((strategy, fleet) in (strategies(), fleets())) {
        let (_, places) = plan_fitting(&strategy, &fleet.candidates(&strategy), Fit::Shrink).unwrap();
        for pair in places.windows(2).filter(|pair| pair[0].wave == pair[1].wave) {
            prop_assert!(day(&fleet, &pair[0]) <= day(&fleet, &pair[1]));
        }
    }

    #[test]
    fn the_hash_changes_with_membership_wave_and_strategy((strategy, fleet) in (strategies(), fleets()), pick: prop::sample::Index) {
        let (first, places) = plan_fitting(&strategy, &fleet.candidates(&strategy), Fit::Shrink).unwrap();
        let hash = |strategy: &Strategy, fleet: &Fleet| {
            plan_fitting(strategy, &fleet.candidates(strategy), Fit::Shrink).unwrap().0.hash
        };
        let index = pick.index(fleet.ids.len());
        let mut renamed = fleet.clone();
        renamed.ids[index].push('x');
        prop_assert_ne!(&first.hash, &hash(&strategy, &renamed));
        let mut grown = fleet.clone();
        grown.ids.push("another".to_owned());
        grown.devices.push(fleet.devices[index].clone());
        prop_assert_ne!(&first.hash, &hash(&strategy, &grown));
        let mut slower = strategy.clone();
        slower.limits.max_in_flight += 1;
        prop_assert_ne!(&first.hash, &hash(&slower, &fleet));
        // The same devices under the same strategy, one of them in another wave.
        let mut moved = fleet.clone();
        moved.devices[index].not_after += 100 * DAY;
        let (other, other_places) = plan_fitting(&strategy, &moved.candidates(&strategy), Fit::Shrink).unwrap();
        let same = membership(&fleet, &places) == membership(&moved, &other_places);
        prop_assert_eq!(same, first.hash == other.hash);
    }

    #[test]
    fn joiners_are_appended_and_change_nobody_else((strategy, fleet) in (strategies(), fleets()), split: prop::sample::Index) {
        let at = split.index(fleet.ids.len());
        let (mut before, mut joining) = (fleet.clone(), fleet.clone());
        joining.ids = before.ids.split_off(at);
        joining.devices = before.devices.split_off(at);
        prop_assume!(!before.ids.is_empty());
        let (old, _) = plan_fitting(&strategy, &before.candidates(&strategy), Fit::Shrink).unwrap();
        let (new, places) = join(&old, &strategy, &joining.candidates(&strategy));
        let last = old.waves.len() - 1;
        prop_assert_eq!(&old.waves[..last], &new.waves[..last]);
        prop_assert_eq!(new.waves[last].size as usize, old.waves[last].size as usize + joining.ids.len());
        let expected = max_failed(&strategy.waves[last].thresholds, new.waves[last].size);
        prop_assert_eq!(new.waves[last].max_failed, expected);
        let placed: BTreeSet<u32> = places.iter().map(|place| place.candidate).collect();
        prop_assert_eq!(placed.len(), joining.ids.len());
        for (place, ordinal) in places.iter().zip(old.waves[last].size..) {
            prop_assert_eq!((place.wave as usize, place.ordinal), (last, ordinal));
        }
        prop_assert_eq!(old.hash == new.hash, joining.ids.is_empty());
        prop_assert_eq!(join(&old, &strategy, &joining.candidates(&strategy)), (new, places));
    }
}

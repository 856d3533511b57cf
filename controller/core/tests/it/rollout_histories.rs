//! Small fleets, any strategy, any failures, and whatever people, clocks and our own side do meanwhile. What must hold is
//! asserted by the [`World`] at every step.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use certwave_core::model::Millis;
use certwave_core::rollout::judge::{Note, Phase};
use certwave_core::rollout::run::{Ended, WaveCounts};
use certwave_core::rollout::strategy::Strategy as Rotation;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use crate::rollout_fleets::{Fleet, fleets, strategies};
use crate::rollout_world::{Deed, Fate, Pace, World};

const MINUTE: Millis = 60_000;
const HOUR: Millis = 60 * MINUTE;
const DAY: Millis = 24 * HOUR;
/// Longer than anything here takes.
const LONG: Millis = 150 * DAY;

type Fates = Vec<(Fate, Option<Millis>)>;

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        10 => Just(Fate::Good),
        2 => (1u8..6).prop_map(Fate::Fails),
        1 => Just(Fate::Fails(u8::MAX)),
        1 => Just(Fate::Rejects),
        1 => Just(Fate::GoesBack),
        1 => option::of(MINUTE..48 * HOUR).prop_map(Fate::Vanishes),
        1 => (1u8..4).prop_map(Fate::Deaf),
    ]
}

/// Most are online; some come later; some never do.
fn offline() -> impl Strategy<Value = Option<Millis>> {
    prop_oneof![6 => Just(None), 2 => (0..5 * DAY).prop_map(Some), 1 => Just(Some(Millis::MAX))]
}

fn fates() -> impl Strategy<Value = Fates> {
    vec((fate(), offline()), 60)
}

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        2 => (0u8..2).prop_map(Deed::Wish),
        1 => Just(Deed::Wish(2)),
        6 => (1u32..6).prop_map(Deed::Approve),
        1 => Just(Deed::ApproveOther),
        4 => Just(Deed::Resume),
        3 => Just(Deed::Retry),
        1 => Just(Deed::SendBack),
        2 => any::<bool>().prop_map(Deed::Fault),
        2 => any::<bool>().prop_map(Deed::Preempt),
        2 => (0u8..4).prop_map(Deed::Gate),
        3 => Just(Deed::Restart),
        2 => (1u8..5).prop_map(Deed::Join),
    ]
}

fn deeds() -> impl Strategy<Value = Vec<(Millis, Deed)>> {
    // Most happens in the first minutes.
    let after = prop_oneof![0..10 * MINUTE, 0..4 * DAY];
    vec((after, deed()), 0..12)
}

fn world(
    rotation: Rotation,
    fleet: &Fleet,
    fates: &Fates,
    deeds: &[(Millis, Deed)],
    jumps: &[(Millis, Millis)],
) -> World {
    let pace = Pace {
        quantum: 1,
        jumps: !jumps.is_empty(),
    };
    let mut world = World::new(rotation, fleet, |index| fates[index], pace);
    for (after, deed) in deeds {
        world.at(*after, deed.clone());
    }
    for (after, by) in jumps {
        world.at(*after, Deed::Jump(*by));
    }
    world.live(LONG);
    world.assert_over_or_waits();
    world
}

/// Everybody has one state.
fn everybody_is_counted_once(world: &World) -> bool {
    world.counts.iter().all(|counts| {
        let parts = [
            counts.planned,
            counts.offline,
            counts.in_flight,
            counts.confirmed,
            counts.failed,
            counts.rejected,
            counts.rolled_back,
            counts.timed_out,
            counts.lost,
            counts.reverting,
            counts.reverted,
            counts.unreverted,
            counts.skipped,
        ];
        parts.iter().sum::<u32>() == counts.members
    })
}

/// What happened in a history, in a word each.
fn words(world: &World) -> BTreeSet<String> {
    let mut words: BTreeSet<String> = world
        .notes
        .iter()
        .map(|(_, note)| match note {
            Note::Breached(breach) => format!("Breached {:?}", breach.cause),
            Note::Ended(ended) => format!("Ended {ended:?}"),
            other => format!("{other:?}").split('(').next().unwrap_or_default().to_owned(),
        })
        .collect();
    let last = world.last.as_ref().unwrap();
    words.insert(format!("{:?}", last.phase));
    words.extend(last.waiting.iter().map(|waiting| {
        let whole = format!("{waiting:?}");
        format!("waits for {}", whole.split('(').next().unwrap_or_default())
    }));
    let some = |what: &str, count: u32| (count > 0).then(|| what.to_owned());
    words.extend(some("unreverted", world.total(|counts| counts.unreverted)));
    words.extend(some("reverted", world.total(|counts| counts.reverted)));
    words.extend(some("lost", world.total(|counts| counts.lost)));
    words
}

/// What the generated histories must contain, or they would prove little.
const EXPECTED: [&str; 29] = [
    "Aborted",
    "Approved",
    "Breached",
    "Breached Failed",
    "Breached Gate",
    "Breached Lost",
    "Breached Success",
    "Complete",
    "Ended Aborted",
    "Ended Complete",
    "Ended Failed",
    "Failed",
    "Paused",
    "Resumed",
    "Retried",
    "RolledBack",
    "Running",
    "WaitingForApproval",
    "WaveBegan",
    "lost",
    "reverted",
    "unreverted",
    "waits for Another",
    "waits for Approval",
    "waits for Devices",
    "waits for Fault",
    "waits for Gates",
    "waits for Person",
    "waits for Proof",
];

#[test]
fn limits_budgets_and_order_hold_whatever_happens() {
    let seen = RefCell::new(BTreeMap::<String, u32>::new());
    let histories = (
        (strategies(), fleets(), fates()),
        deeds(),
        prop_oneof![Just(Vec::new()), vec((0..4 * DAY, -3 * HOUR..3 * HOUR), 1..4)],
        prop::bool::weighted(0.1),
    );
    let mut runner = TestRunner::new(ProptestConfig {
        cases: 2_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let result = runner.run(&histories, |((rotation, fleet, fates), deeds, jumps, emergency)| {
        let rotation = Rotation { emergency, ..rotation };
        let world = world(rotation, &fleet, &fates, &deeds, &jumps);
        prop_assert!(everybody_is_counted_once(&world), "{:?}", world.counts);
        for word in words(&world) {
            *seen.borrow_mut().entry(word).or_default() += 1;
        }
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
    let seen = seen.into_inner();
    for word in EXPECTED {
        assert!(
            seen.get(word).is_some_and(|count| *count >= 3),
            "too few histories with {word:?}: {seen:?}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn a_fleet_of_good_devices_is_rotated_to_the_last_one_that_is_there(
        (rotation, fleet) in (strategies(), fleets()),
        there in vec(prop::bool::weighted(0.7), 60),
        restarts in vec(0..2 * DAY, 0..3),
    ) {
        let mut rotation = rotation;
        for wave in &mut rotation.waves {
            wave.approval = false;
        }
        // A device that no window selects waits for this.
        rotation.override_before_expiry = rotation.override_before_expiry.or(Some(DAY));
        let fates: Fates = there.iter().map(|there| (Fate::Good, (!there).then_some(Millis::MAX))).collect();
        let deeds: Vec<_> = restarts.iter().map(|after| (*after, Deed::Restart)).collect();
        let waves = rotation.waves.clone();
        let world = world(rotation, &fleet, &fates, &deeds, &[]);
        let online = u32::try_from(there.iter().take(fleet.ids.len()).filter(|there| **there).count()).unwrap();
        if world.run.ended == Some(Ended::Complete) {
            prop_assert_eq!(world.total(|counts| counts.confirmed), online);
            prop_assert_eq!(world.total(|counts| counts.offline), u32::try_from(fleet.ids.len()).unwrap() - online);
        } else {
            // Nobody of this wave is there, and nobody of another may stand in for those that its selector asks for.
            let stuck = world.counts[world.run.wave as usize];
            prop_assert_eq!(stuck.proven(), 0, "{:?} in {:?}", world.phase(), world.counts);
            prop_assert!(stuck.offline > 0);
            let later: u32 = world.counts[world.run.wave as usize + 1..].iter().map(|counts| counts.planned).sum();
            // Or those left are offline as well, and not known to be yet.
            let mine = waves[world.run.wave as usize].selector.is_empty();
            prop_assert!(!mine || later == 0 || world.total(WaveCounts::proven) == online);
        }
    }

    #[test]
    fn a_rotation_of_which_all_fail_stops_at_its_first_wave(
        (rotation, fleet) in (strategies(), fleets()),
        fates in vec(prop_oneof![Just(Fate::Fails(u8::MAX)), Just(Fate::Rejects), Just(Fate::GoesBack), Just(Fate::Vanishes(None))], 60),
    ) {
        let fates: Fates = fates.into_iter().map(|fate| (fate, None)).collect();
        let waves = rotation.waves.len();
        let world = world(rotation, &fleet, &fates, &[], &[]);
        prop_assert_eq!(world.total(WaveCounts::proven), 0);
        if waves > 1 && world.counts[0].members > 0 {
            prop_assert_eq!(world.run.wave, 0);
            prop_assert!(world.run.ended != Some(Ended::Complete));
            let untouched: u32 = world.counts[1..].iter().map(|counts| counts.members - counts.planned).sum();
            prop_assert_eq!(untouched, 0);
        }
        let stopped = matches!(
            world.phase(),
            Phase::Breached | Phase::RolledBack | Phase::Failed | Phase::Running | Phase::Complete
        );
        prop_assert!(stopped, "{:?}", world.phase());
    }
}

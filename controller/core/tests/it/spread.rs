//! The work spread over replicas.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use certwave_core::spread::{PATIENCE, SETTLED, Standing, Step, shares, step};
use proptest::prelude::*;

fn names(prefix: &str, count: usize) -> BTreeSet<String> {
    (0..count).map(|n| format!("{prefix}-{n}")).collect()
}

fn refs(names: &BTreeSet<String>) -> BTreeSet<&str> {
    names.iter().map(String::as_str).collect()
}

fn loads<'a>(shares: &BTreeMap<&'a str, &'a str>) -> BTreeMap<&'a str, usize> {
    let mut loads = BTreeMap::new();
    for replica in shares.values() {
        *loads.entry(*replica).or_default() += 1;
    }
    loads
}

fn some() -> impl Strategy<Value = BTreeSet<String>> {
    proptest::collection::btree_set("[a-z0-9]{1,12}", 1..12)
}

proptest! {
    #[test]
    fn every_broker_has_one_holder_and_nobody_two_more_than_another(brokers in some(), replicas in some()) {
        let (brokers, replicas) = (refs(&brokers), refs(&replicas));
        let shares = shares(&brokers, &replicas);
        prop_assert!(shares.keys().eq(brokers.iter()));
        let loads = loads(&shares);
        let of = |replica: &&str| loads.get(replica).copied().unwrap_or_default();
        let (most, least) = (replicas.iter().map(of).max().unwrap(), replicas.iter().map(of).min().unwrap());
        prop_assert!(most - least <= 1, "{:?}", loads);
    }

    #[test]
    fn nobody_takes_what_another_holds_and_nobody_lets_go_for_nothing(should: bool, seconds in 0_u64..120) {
        let since = Duration::from_secs(seconds);
        prop_assert_eq!(step(Standing::Taken, should, since), Step::Stay);
        prop_assert_eq!(step(Standing::Mine, true, since), Step::Stay);
        prop_assert_ne!(step(Standing::Mine, should, since), Step::Take);
        prop_assert_ne!(step(Standing::Free(since), should, since), Step::HandOver);
    }
}

#[test]
fn nobody_is_chosen_where_nobody_is() {
    assert!(shares(&["main"].into(), &BTreeSet::new()).is_empty());
}

#[test]
fn one_replica_gone_moves_little_beside_its_own_brokers() {
    let (brokers, replicas) = (names("plant", 60), names("replica", 6));
    let before = shares(&refs(&brokers), &refs(&replicas));
    for gone in &replicas {
        let mut left = refs(&replicas);
        left.remove(gone.as_str());
        let after = shares(&refs(&brokers), &left);
        let moved = |(broker, was): &(&&str, &&str)| **was != gone && after[**broker] != **was;
        let others = before.iter().filter(moved).count();
        assert!(others <= 15, "{gone}: {others} of 50");
    }
}

#[test]
fn what_is_free_is_taken_at_once_by_who_should_and_later_by_anybody() {
    let moment = Duration::from_millis(1);
    assert_eq!(step(Standing::Free(Duration::ZERO), true, Duration::ZERO), Step::Take);
    assert_eq!(
        step(Standing::Free(PATIENCE.saturating_sub(moment)), false, Duration::MAX),
        Step::Stay
    );
    assert_eq!(step(Standing::Free(PATIENCE), false, Duration::ZERO), Step::Take);
}

#[test]
fn a_broker_is_handed_over_once_another_one_has_been_there_for_a_while() {
    let moment = Duration::from_millis(1);
    assert_eq!(step(Standing::Mine, false, SETTLED.saturating_sub(moment)), Step::Stay);
    assert_eq!(step(Standing::Mine, false, SETTLED), Step::HandOver);
}

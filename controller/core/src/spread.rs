//! Which replica looks after which broker.
//!
//! Each replica shows that it is there, and comes to the same answer by itself: brokers go to whom they have the highest hash with
//! (rendezvous hashing), and nobody gets two more than another. One that goes or comes moves little beside its own. What keeps two
//! from working side by side is the broker's Lease and its epochs, not this: replicas that see each other differently only wait for
//! longer.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use certwave_protocol::ids::Fingerprint;

/// A Lease that is free is left for so long to the one who should take it.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// A broker is handed over only to one who should have had it for so long: a replica that comes and goes moves nothing.
pub const SETTLED: Duration = Duration::from_secs(15);

/// How a broker's Lease stands, as one replica sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Nobody holds it, for so long: it was released, has run out, or was never there.
    Free(Duration),
    /// Another replica holds it.
    Taken,
    /// This replica holds it.
    Mine,
}

/// What to do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Nothing.
    Stay,
    /// Try to take it.
    Take,
    /// Finish what is being written, and release it.
    HandOver,
}

/// Who of these replicas should hold which broker; nobody where there are none.
pub fn shares<'a>(brokers: &BTreeSet<&'a str>, replicas: &BTreeSet<&'a str>) -> BTreeMap<&'a str, &'a str> {
    let (Some(each), Some(mut more)) = (
        brokers.len().checked_div(replicas.len()),
        brokers.len().checked_rem(replicas.len()),
    ) else {
        return BTreeMap::new();
    };
    let mut pairs: Vec<_> = brokers
        .iter()
        .flat_map(|broker| {
            replicas
                .iter()
                .map(|replica| (rank(broker, replica), *broker, *replica))
        })
        .collect();
    pairs.sort_unstable_by_key(|pair| Reverse(*pair));
    let (mut shares, mut loads) = (BTreeMap::new(), BTreeMap::<&str, usize>::new());
    for (_, broker, replica) in pairs {
        let load = loads.entry(replica).or_default();
        let has_room = *load < each || (*load == each && more > 0);
        if has_room && !shares.contains_key(broker) {
            more -= usize::from(*load == each);
            *load += 1;
            shares.insert(broker, replica);
        }
    }
    shares
}

fn rank(broker: &str, replica: &str) -> [u8; 32] {
    // No name has a line break, so no two pairs are one text.
    Fingerprint::of(format!("{broker}\n{replica}").as_bytes()).0
}

/// What a replica does about a broker. `should`: whether it should hold it, and for how long that has been so.
pub fn step(standing: Standing, should: bool, since: Duration) -> Step {
    match standing {
        Standing::Free(idle) if should || idle >= PATIENCE => Step::Take,
        Standing::Mine if !should && since >= SETTLED => Step::HandOver,
        Standing::Free(_) | Standing::Taken | Standing::Mine => Step::Stay,
    }
}

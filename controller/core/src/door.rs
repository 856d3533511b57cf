//! Whether a broker's door is shut to whom it should be: what its nodes say that they go by, against what is published.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::model::Millis;

/// A CRL's scope: the issuer's key id, and the partition.
pub type Scope = (String, String);

/// What a node of a broker has said of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// As it calls itself.
    pub name: String,
    /// When it was heard last.
    pub heard: Millis,
    /// What keeps it from loading, in its own words.
    pub error: Option<String>,
    /// The number of the CRL that it goes by in each scope.
    pub loaded: BTreeMap<Scope, u64>,
}

/// When a node is late.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Its last word is older than this.
    pub silent_after: Millis,
    /// It has not loaded for so long what was published.
    pub behind_after: Millis,
}

/// How a door stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Every node goes by the CRLs published last, or will in a moment.
    Current,
    /// Fewer nodes than declared have ever spoken to this process.
    Missing {
        /// How many are declared.
        declared: usize,
        /// How many were heard.
        seen: usize,
    },
    /// A node says nothing any more.
    Silent {
        /// Its name.
        node: String,
        /// Since when.
        since: Millis,
    },
    /// A node has not loaded what was published.
    Behind {
        /// Its name.
        node: String,
        /// Of what.
        scope: Scope,
        /// What it has, if anything.
        loaded: Option<u64>,
        /// What is published.
        published: u64,
        /// What it says about that, if anything.
        error: Option<String>,
    },
}

/// The nodes that have to go by a CRL before a door counts as shut. Where at least as many as declared speak, those that fell
/// silent are taken as gone for good, replaced under another name; else they are waited for.
pub fn counted(nodes: &[Node], declared: usize, now: Millis, silent_after: Millis) -> Vec<&Node> {
    let speaks = |node: &&Node| now.saturating_sub(node.heard) <= silent_after;
    let speaking: Vec<&Node> = nodes.iter().filter(speaks).collect();
    if speaking.len() >= declared {
        speaking
    } else {
        nodes.iter().collect()
    }
}

/// Since when nodes have not caught up. A node that lags but moves is not late: it is measured by the number that was published
/// when it was first seen behind.
#[derive(Debug, Default)]
pub struct Lag(HashMap<(String, Scope), (Millis, u64)>);

impl Lag {
    /// Judges the counted nodes of a door against what is published.
    pub fn judge(
        &mut self,
        now: Millis,
        limits: Limits,
        declared: usize,
        counted: &[&Node],
        published: &BTreeMap<Scope, u64>,
    ) -> Verdict {
        self.measure(now, counted, published);
        if counted.len() < declared {
            return Verdict::Missing {
                declared,
                seen: counted.len(),
            };
        }
        let silent = counted
            .iter()
            .filter(|node| now.saturating_sub(node.heard) > limits.silent_after);
        if let Some(node) = silent.min_by_key(|node| node.heard) {
            return Verdict::Silent {
                node: node.name.clone(),
                since: node.heard,
            };
        }
        let late = |(since, _): &(Millis, u64)| now.saturating_sub(*since) > limits.behind_after;
        let behind = self.0.iter().filter(|(_, mark)| late(mark));
        let Some(((name, scope), (_, wanted))) = behind.min_by_key(|(key, mark)| (mark.0, (*key).clone())) else {
            return Verdict::Current;
        };
        let node = counted.iter().find(|node| node.name == *name);
        Verdict::Behind {
            node: name.clone(),
            scope: scope.clone(),
            loaded: node.and_then(|node| node.loaded.get(scope).copied()),
            published: published.get(scope).copied().unwrap_or(*wanted),
            error: node.and_then(|node| node.error.clone()),
        }
    }

    fn measure(&mut self, now: Millis, counted: &[&Node], published: &BTreeMap<Scope, u64>) {
        let mut seen = BTreeSet::new();
        for node in counted {
            for (scope, number) in published {
                let has = node.loaded.get(scope).copied().unwrap_or(0);
                let key = (node.name.clone(), scope.clone());
                let mark = self.0.entry(key.clone()).or_insert((now, *number));
                if has >= mark.1 {
                    *mark = (now, *number);
                }
                if has < *number {
                    seen.insert(key);
                }
            }
        }
        self.0.retain(|key, _| seen.contains(key));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use proptest::prelude::*;

    use super::*;

    const LIMITS: Limits = Limits {
        silent_after: 60_000,
        behind_after: 30_000,
    };

    fn scope() -> Scope {
        ("ca".to_owned(), "2027-01".to_owned())
    }

    fn node(name: &str, heard: Millis, number: u64) -> Node {
        Node {
            name: name.to_owned(),
            heard,
            error: None,
            loaded: BTreeMap::from([(scope(), number)]),
        }
    }

    fn published(number: u64) -> BTreeMap<Scope, u64> {
        BTreeMap::from([(scope(), number)])
    }

    #[test]
    fn a_node_that_was_replaced_is_not_waited_for() {
        let nodes = [node("old", 0, 1), node("new", 100_000, 2)];
        let names = |declared| -> Vec<String> {
            let all = counted(&nodes, declared, 100_000, 60_000);
            all.iter().map(|node| node.name.clone()).collect()
        };
        assert_eq!(names(1), ["new"]);
        assert_eq!(names(2), ["old", "new"]);
    }

    #[test]
    fn a_node_that_says_nothing_or_never_did_is_late() {
        let mut lag = Lag::default();
        let one = node("a", 0, 5);
        assert_eq!(lag.judge(60_000, LIMITS, 1, &[&one], &published(5)), Verdict::Current);
        let verdict = lag.judge(60_001, LIMITS, 1, &[&one], &published(5));
        assert_eq!(
            verdict,
            Verdict::Silent {
                node: "a".to_owned(),
                since: 0
            }
        );
        let verdict = lag.judge(1, LIMITS, 2, &[&one], &published(5));
        assert_eq!(verdict, Verdict::Missing { declared: 2, seen: 1 });
    }

    #[test]
    fn a_node_that_stays_behind_is_late_and_one_that_moves_is_not() {
        let mut stays = Lag::default();
        let mut moves = Lag::default();
        for second in 0..100_i64 {
            let (now, number) = (second * 1000, second.unsigned_abs() + 2);
            let stuck = node("a", now, 1);
            let verdict = stays.judge(now, LIMITS, 1, &[&stuck], &published(number));
            assert_eq!(verdict == Verdict::Current, second <= 30, "{second}: {verdict:?}");
            let slow = node("a", now, number.saturating_sub(10));
            assert_eq!(
                moves.judge(now, LIMITS, 1, &[&slow], &published(number)),
                Verdict::Current,
                "{second}"
            );
        }
    }

    proptest! {
        #[test]
        fn no_door_is_current_while_a_counted_node_lacks_something_for_long(
            loaded in proptest::collection::vec(0..4_u64, 1..5), number in 1..4_u64,
        ) {
            let mut lag = Lag::default();
            let at = |now| -> Vec<Node> {
                loaded.iter().enumerate().map(|(i, has)| node(&i.to_string(), now, *has)).collect()
            };
            let mut judge = |now| {
                let nodes = at(now);
                lag.judge(now, LIMITS, nodes.len(), &nodes.iter().collect::<Vec<_>>(), &published(number))
            };
            prop_assert_eq!(judge(0), Verdict::Current);
            let whole = loaded.iter().all(|has| *has >= number);
            prop_assert_eq!(judge(30_001) == Verdict::Current, whole);
        }
    }
}

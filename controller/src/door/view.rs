//! How a door stands, for the conditions of `Broker` and `Fleet`.

use certwave_core::door::{Node, Verdict};
use certwave_core::model::Millis;

use super::{Abilities, DoorError};

/// How a door stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DoorView {
    /// What its adapter can do.
    pub abilities: Abilities,
    /// What each node says.
    pub nodes: Vec<Node>,
    /// Why somebody may get in, or stay in, who should not.
    pub fault: Option<Fault>,
}

/// A reason in `CamelCase`, and what a person can do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// For programs.
    pub reason: &'static str,
    /// For people. It changes as seldom as possible: each change is a write to the API server.
    pub message: String,
}

impl Fault {
    /// What a verdict means to people; `None` where all is well.
    pub fn of(verdict: &Verdict) -> Option<Self> {
        let (reason, message) = match verdict {
            Verdict::Current => return None,
            Verdict::Missing { declared, seen } => (
                "NodesMissing",
                format!(
                    "{seen} of {declared} nodes (spec.nodes) have spoken: run certwave crl-sync beside each of them, with a --node \
                     of its own; until then nothing counts as refused by the broker, and no leaf of a new partition leaves"
                ),
            ),
            Verdict::Silent { node, since } => (
                "NodeSilent",
                format!(
                    "the node {node} was last heard at {}: see whether its certwave crl-sync runs and reaches its broker; \
                     revoked devices may still get in there",
                    clock(*since)
                ),
            ),
            Verdict::Behind {
                node,
                scope: (issuer, partition),
                loaded,
                error,
                ..
            } => {
                let has = loaded.map_or_else(|| "no CRL".to_owned(), |number| format!("CRL {number}"));
                let why = error
                    .as_ref()
                    .map_or_else(|| "see its log".to_owned(), |error| format!("it says: {error}"));
                (
                    "NodeBehind",
                    format!(
                        "the node {node} goes by {has} of {issuer}/{partition}, which is not the one published last; revoked \
                         devices may still get in there; {why}"
                    ),
                )
            }
        };
        Some(Self { reason, message })
    }

    /// An error of the adapter.
    pub fn untold(error: &DoorError) -> Self {
        Self {
            reason: "CannotBeTold",
            message: format!("the broker {error}; revoked devices may still get in, or stay in"),
        }
    }
}

/// `2027-01-31T12:00:00Z`, of Unix milliseconds.
fn clock(at: Millis) -> String {
    jiff::Timestamp::from_second(at / 1000).map_or_else(|_| "an unknown time".to_owned(), |time| time.to_string())
}

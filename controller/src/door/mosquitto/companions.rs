//! What companions have said, and the orders that wait for their answers.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use certwave_core::door::Node;
use certwave_protocol::ids::{Nonce, SessionId};
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use super::wire::{Kicked, Loaded, NodeName, UpType};
use crate::clock::now;

/// Sessions of a companion that ended are remembered, so that what they said late is not taken for news.
const PAST: usize = 16;
/// More nodes than a broker may have; more names than this are not remembered.
const NODES: usize = 200;

/// See the module.
#[derive(Default)]
pub(super) struct Companions {
    inner: Mutex<Inner>,
    spoke: Notify,
}

#[derive(Default)]
struct Inner {
    nodes: BTreeMap<NodeName, Said>,
    orders: HashMap<Nonce, mpsc::UnboundedSender<Answer>>,
    /// Those that have left an order without an answer, and answered none since.
    mute: BTreeSet<NodeName>,
}

/// Who has answered an order, and why it was not carried out, if so.
type Answer = (NodeName, Result<(), String>);

struct Said {
    session: SessionId,
    sequence: u64,
    past: VecDeque<SessionId>,
    node: Node,
}

impl Companions {
    /// A companion has said something; whether it could be understood.
    pub(super) fn heard(&self, node: &NodeName, kind: UpType, message: &[u8]) -> bool {
        let understood = match kind {
            UpType::Loaded => serde_json::from_slice(message).map(|loaded| self.loaded(node, loaded)),
            UpType::Kicked => serde_json::from_slice(message).map(|kicked| self.kicked(node, kicked)),
        };
        understood.is_ok()
    }

    /// Resolves when somebody has said something new.
    pub(super) async fn spoke(&self) {
        self.spoke.notified().await;
    }

    /// What each node says.
    pub(super) fn nodes(&self) -> Vec<Node> {
        self.lock().nodes.values().map(|said| said.node.clone()).collect()
    }

    /// Begins to wait for the answers of these companions to an order.
    pub(super) fn order(self: &Arc<Self>, order: Nonce, nodes: BTreeSet<NodeName>) -> Answers {
        let (sender, answers) = mpsc::unbounded_channel();
        self.lock().orders.insert(order, sender);
        Answers {
            companions: Arc::clone(self),
            order,
            left: nodes,
            heard: answers,
        }
    }

    fn loaded(&self, name: &NodeName, loaded: Loaded) {
        let mut inner = self.lock();
        if inner.nodes.len() >= NODES && !inner.nodes.contains_key(name) {
            return;
        }
        let before = inner.nodes.remove(name);
        let mut past = VecDeque::new();
        if let Some(before) = before {
            let stale = before.past.contains(&loaded.session)
                || (before.session == loaded.session && before.sequence >= loaded.sequence);
            if stale {
                inner.nodes.insert(name.clone(), before);
                return;
            }
            past = before.past;
            if before.session != loaded.session {
                past.push_back(before.session);
                inner.mute.remove(name);
                if past.len() > PAST {
                    past.pop_front();
                }
            }
        }
        let scopes = loaded.scopes.into_iter();
        let node = Node {
            name: name.as_str().to_owned(),
            heard: now(),
            error: loaded.error,
            loaded: scopes.map(|s| ((s.issuer, s.partition), s.number)).collect(),
        };
        let said = Said {
            session: loaded.session,
            sequence: loaded.sequence,
            past,
            node,
        };
        inner.nodes.insert(name.clone(), said);
        drop(inner);
        self.spoke.notify_one();
    }

    fn kicked(&self, node: &NodeName, kicked: Kicked) {
        let mut inner = self.lock();
        inner.mute.remove(node);
        if let Some(order) = inner.orders.get(&kicked.order) {
            let answer = if kicked.failed.is_empty() {
                Ok(())
            } else {
                Err(kicked.error.unwrap_or_else(|| "no reason given".to_owned()))
            };
            // Nobody waits any more: as good.
            let _ = order.send((node.clone(), answer));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The answers to an order; it is forgotten on drop.
pub(super) struct Answers {
    companions: Arc<Companions>,
    order: Nonce,
    left: BTreeSet<NodeName>,
    heard: mpsc::UnboundedReceiver<Answer>,
}

impl Answers {
    /// Waits for one answer of each, but for so long at most; those that have left an order without one before are not waited
    /// for, or one silent companion would hold up ten thousand orders. Answers who is missing, or why one refuses.
    pub(super) async fn all(mut self, patience: Duration) -> Result<BTreeSet<NodeName>, String> {
        let end = Instant::now() + patience;
        while !self.is_enough() {
            match tokio::time::timeout_at(end, self.heard.recv()).await {
                Ok(Some((node, answer))) => {
                    self.left.remove(&node);
                    answer?;
                }
                Ok(None) | Err(_) => break,
            }
        }
        let left = std::mem::take(&mut self.left);
        self.companions.lock().mute.extend(left.iter().cloned());
        Ok(left)
    }

    fn is_enough(&self) -> bool {
        self.left.is_subset(&self.companions.lock().mute)
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        self.companions.lock().orders.remove(&self.order);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use futures::FutureExt as _;

    use super::*;
    use crate::door::mosquitto::wire::ScopeNumber;

    fn report(session: u8, sequence: u64, number: u64) -> Vec<u8> {
        let loaded = Loaded {
            session: Nonce([session; 16]),
            sequence,
            scopes: vec![ScopeNumber {
                issuer: "ca".to_owned(),
                partition: "2027-01".to_owned(),
                number,
            }],
            error: None,
        };
        serde_json::to_vec(&loaded).unwrap()
    }

    #[test]
    fn what_an_earlier_process_or_message_says_late_is_no_news() {
        let companions = Companions::default();
        let node: NodeName = "a".parse().unwrap();
        let number = || *companions.nodes()[0].loaded.values().next().unwrap();
        for (session, sequence, said, holds) in [(1, 1, 5, 5), (1, 3, 7, 7), (1, 2, 6, 7), (2, 1, 4, 4), (1, 9, 9, 4)] {
            assert!(companions.heard(&node, UpType::Loaded, &report(session, sequence, said)));
            assert_eq!(number(), holds, "{session} {sequence}");
        }
        assert!(!companions.heard(&node, UpType::Loaded, b"{"));
    }

    fn names(names: &[&str]) -> BTreeSet<NodeName> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    fn answered(companions: &Companions, node: &str, order: u8) {
        let good = format!(r#"{{"order":"{}"}}"#, Nonce([order; 16]));
        assert!(companions.heard(&node.parse().unwrap(), UpType::Kicked, good.as_bytes()));
    }

    const PATIENCE: Duration = Duration::from_millis(50);

    #[tokio::test]
    async fn an_order_is_carried_out_when_each_node_has_answered() {
        let companions = Arc::new(Companions::default());
        let order = |n, nodes: &[&str]| companions.order(Nonce([n; 16]), names(nodes));
        let answers = order(1, &["a", "b"]);
        answered(&companions, "a", 1);
        answered(&companions, "a", 1);
        let missing = answers.all(PATIENCE).await;
        assert_eq!(missing, Ok(names(&["b"])), "one that says it twice is not two");
        let answers = order(2, &["a", "b"]);
        answered(&companions, "b", 2);
        answered(&companions, "a", 2);
        assert_eq!(answers.all(PATIENCE).await, Ok(names(&[])));
        let answers = order(3, &["a"]);
        let bad = format!(r#"{{"order":"{}","failed":["d-1"],"error":"gone"}}"#, Nonce([3; 16]));
        assert!(companions.heard(&"a".parse().unwrap(), UpType::Kicked, bad.as_bytes()));
        assert_eq!(answers.all(PATIENCE).await, Err("gone".to_owned()));
        assert!(companions.lock().orders.is_empty());
    }

    #[tokio::test]
    async fn a_companion_that_answers_no_order_is_waited_for_once() {
        let companions = Arc::new(Companions::default());
        let order = |n| {
            let answers = companions.order(Nonce([n; 16]), names(&["a", "b"]));
            answered(&companions, "a", n);
            answers.all(PATIENCE)
        };
        let without_b = Ok(names(&["b"]));
        assert_eq!(order(1).now_or_never(), None, "it may answer in a moment");
        assert_eq!(order(2).await, without_b);
        assert_eq!(order(3).now_or_never(), Some(without_b.clone()));
        answered(&companions, "b", 2);
        assert_eq!(order(4).now_or_never(), None, "it has answered, if late");
        assert_eq!(order(5).await, without_b);
        let b = "b".parse().unwrap();
        for session in [1, 2] {
            assert!(companions.heard(&b, UpType::Loaded, &report(session, 1, 5)));
        }
        assert_eq!(order(6).now_or_never(), None, "it is another process");
    }
}

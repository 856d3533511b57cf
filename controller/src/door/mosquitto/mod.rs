//! Mosquitto, with a companion (`certwave crl-sync`) beside each node.
//!
//! Mosquitto goes by CRLs in a file and reads it when told so by a signal; it says nothing about that, and has no command to
//! end a session. The companion does these: see [`crate::companion`]. This side tells companions that there is something to
//! fetch, hears what they have loaded, and gives orders to close sessions.

pub mod wire;

mod companions;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use certwave_core::door::{Node, Scope, counted};
use certwave_core::model::Millis;
use certwave_ledger::SerialKey;
use certwave_pki::{parse_certificate_info, partition_of};
use certwave_protocol::ids::{DeviceId, Nonce};

use companions::Companions;
use wire::{DownType, Hint, Kick, NodeName, ScopeNumber};

use super::{Abilities, Door, DoorError, Kicked, Published, Voice};
use crate::clock::now;

/// A companion answers an order to close sessions within this time.
const ANSWER: Duration = Duration::from_secs(5);

/// What this adapter can do.
pub(crate) const ABILITIES: Abilities = Abilities {
    reports_loading: true,
    kicks: true,
};

/// The adapter.
pub struct Mosquitto {
    prefix: String,
    nodes: usize,
    late_after: Millis,
    voice: Arc<dyn Voice>,
    companions: Arc<Companions>,
}

impl Mosquitto {
    /// For a broker of `nodes` nodes, which are silent after `late_after`.
    pub fn new(prefix: &str, nodes: usize, late_after: Millis, voice: Arc<dyn Voice>) -> Self {
        Self {
            prefix: prefix.to_owned(),
            nodes,
            late_after,
            voice,
            companions: Arc::default(),
        }
    }

    fn hint(&self, scopes: Vec<ScopeNumber>) -> Result<(), DoorError> {
        self.tell(wire::everybody(&self.prefix), &Hint { scopes })
    }

    fn tell<T: serde::Serialize>(&self, topic: String, message: &T) -> Result<(), DoorError> {
        let message = serde_json::to_vec(message).map_err(|error| DoorError::Refused(error.to_string()))?;
        if self.voice.say(topic, message) {
            Ok(())
        } else {
            Err(DoorError::Unreachable(
                "the controller is not connected to it".to_owned(),
            ))
        }
    }

    fn published(&self, crls: &[Published]) -> Result<(), DoorError> {
        self.hint(
            crls.iter()
                .map(|crl| ScopeNumber {
                    issuer: crl.issuer.clone(),
                    partition: crl.partition.clone(),
                    number: crl.number,
                })
                .collect(),
        )
    }
}

#[async_trait]
impl Door for Mosquitto {
    fn abilities(&self) -> Abilities {
        ABILITIES
    }

    async fn admit(&self, certificate: &SerialKey, der: &[u8]) -> Result<(), DoorError> {
        let info = parse_certificate_info(der).map_err(|error| DoorError::Refused(error.to_string()))?;
        let scope = (certificate.issuer.clone(), partition_of(info.not_after));
        let nodes = self.companions.nodes();
        let counted = counted(&nodes, self.nodes, now(), self.late_after);
        let without = counted.iter().find(|node| !node.loaded.contains_key(&scope));
        let node = match without {
            None if counted.len() >= self.nodes => return Ok(()),
            None => "that has not spoken yet".to_owned(),
            Some(node) => node.name.clone(),
        };
        self.hint(Vec::new())?;
        let scope = format!("{}/{}", scope.0, scope.1);
        Err(DoorError::NotLoaded { node, scope })
    }

    async fn revoke(&self, _: &[SerialKey], crls: &[Published]) -> Result<(), DoorError> {
        self.published(crls)
    }

    async fn hold(&self, _: &[SerialKey], crls: &[Published]) -> Result<(), DoorError> {
        self.published(crls)
    }

    async fn release(&self, _: &[SerialKey], crls: &[Published]) -> Result<(), DoorError> {
        self.published(crls)
    }

    async fn loaded(&self, _: &BTreeMap<Scope, u64>) -> Result<Vec<Node>, DoorError> {
        let nodes = self.companions.nodes();
        if nodes.len() < self.nodes {
            // They answer at once; without that they would be heard on their next beat.
            self.hint(Vec::new())?;
        }
        Ok(nodes)
    }

    async fn kick(&self, device: &DeviceId) -> Result<Kicked, DoorError> {
        let order = Nonce(rand::random());
        let all = self.companions.nodes();
        let counted = counted(&all, self.nodes, now(), self.late_after);
        let nodes: BTreeSet<NodeName> = counted.iter().filter_map(|node| node.name.parse().ok()).collect();
        if nodes.is_empty() {
            return Err(DoorError::Unreachable("no node has spoken".to_owned()));
        }
        let answers = self.companions.order(order, nodes.clone());
        for node in &nodes {
            let kick = Kick {
                order,
                devices: vec![device.clone()],
            };
            self.tell(node.down(&self.prefix, DownType::Kick), &kick)?;
        }
        let silent = answers.all(ANSWER).await.map_err(DoorError::Refused)?;
        match silent.first() {
            Some(_) if silent.len() == nodes.len() => Err(DoorError::Timeout(ANSWER)),
            Some(node) => {
                let node = node.as_str();
                Err(DoorError::Partial(format!(
                    "the companion of the node {node} does not answer"
                )))
            }
            None if nodes.len() < self.nodes => {
                let (spoken, declared) = (nodes.len(), self.nodes);
                Err(DoorError::Partial(format!("{spoken} of {declared} nodes have spoken")))
            }
            // Mosquitto does not say whether there was one.
            None => Ok(Kicked::Closed),
        }
    }

    fn hear(&self, topic: &str, message: &[u8]) -> bool {
        match wire::parse_up(&self.prefix, topic) {
            Some((node, kind)) => self.companions.heard(&node, kind, message),
            None => false,
        }
    }

    async fn changed(&self) {
        self.companions.spoke().await;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Mutex;

    use super::*;
    use wire::{Loaded, UpType};

    /// Keeps what is said.
    #[derive(Default)]
    struct Said(Mutex<Vec<(String, Vec<u8>)>>);

    impl Voice for Said {
        fn say(&self, topic: String, message: Vec<u8>) -> bool {
            self.0.lock().unwrap().push((topic, message));
            true
        }
    }

    #[tokio::test]
    async fn a_session_is_closed_at_the_nodes_that_are_there_while_another_is_missing() {
        let said = Arc::new(Said::default());
        let door = Mosquitto::new("certwave", 2, 60_000, Arc::clone(&said) as Arc<dyn Voice>);
        let device: DeviceId = "d-1".parse().unwrap();
        assert_eq!(door.kick(&device).await.unwrap_err().category(), "unreachable");
        let node: NodeName = "a".parse().unwrap();
        let loaded = Loaded {
            session: Nonce([1; 16]),
            sequence: 1,
            scopes: Vec::new(),
            error: None,
        };
        let up = |kind| node.up("certwave", kind);
        assert!(door.hear(&up(UpType::Loaded), &serde_json::to_vec(&loaded).unwrap()));
        let companion = async {
            loop {
                let first = said.0.lock().unwrap().pop();
                if let Some((topic, message)) = first {
                    assert_eq!(topic, "certwave/~door.a/down/kick");
                    let kick: Kick = serde_json::from_slice(&message).unwrap();
                    let answer = format!(r#"{{"order":"{}"}}"#, kick.order);
                    assert!(door.hear(&up(UpType::Kicked), answer.as_bytes()));
                    return;
                }
                tokio::task::yield_now().await;
            }
        };
        let (kicked, ()) = tokio::join!(door.kick(&device), companion);
        assert_eq!(
            kicked.unwrap_err().category(),
            "partial",
            "the node that never spoke may have one"
        );
    }
}

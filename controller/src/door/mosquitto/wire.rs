//! What controller and companion say to each other, over the companion's own broker:
//! `<prefix>/~door.<node>/down/<type>` and `<prefix>/~door.<node>/up/<type>`, JSON, `QoS` 1, not retained.
//!
//! Only the controller may write down topics and only who reaches the broker's local listener the up topics. A broker that lies
//! could as well let anybody in, so nothing is signed; and the companion believes nothing but the signatures of CRLs.

use certwave_protocol::ids::{DeviceId, SessionId};
use serde::{Deserialize, Serialize};

const USER: &str = "~door.";

/// The name of a node, as its companion gives it: a DNS label of at most 40 characters.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeName(String);

impl std::str::FromStr for NodeName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        let bytes = text.as_bytes();
        let edge = |b: Option<&u8>| b.is_some_and(|b| *b != b'-');
        if bytes.len() <= 40 && bytes.iter().all(|b| inner(*b)) && edge(bytes.first()) && edge(bytes.last()) {
            Ok(Self(text.to_owned()))
        } else {
            Err("a node's name is 1 to 40 lower-case letters, digits and '-', and begins and ends with a letter or digit".to_owned())
        }
    }
}

impl NodeName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The topic of what it says.
    pub fn up(&self, prefix: &str, kind: UpType) -> String {
        let kind = match kind {
            UpType::Loaded => "loaded",
            UpType::Kicked => "kicked",
        };
        format!("{prefix}/{USER}{}/up/{kind}", self.0)
    }

    /// The topic of what is said to it.
    pub fn down(&self, prefix: &str, kind: DownType) -> String {
        let kind = match kind {
            DownType::Crl => "crl",
            DownType::Kick => "kick",
        };
        format!("{prefix}/{USER}{}/down/{kind}", self.0)
    }
}

/// What a companion says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpType {
    /// [`Loaded`].
    Loaded,
    /// [`Kicked`].
    Kicked,
}

/// What a companion is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DownType {
    /// [`Hint`].
    Crl,
    /// [`Kick`].
    Kick,
}

/// The topic where every companion hears [`Hint`]s: the controller need not know their names.
pub fn everybody(prefix: &str) -> String {
    format!("{prefix}/{USER}all/down/crl")
}

/// Whose word on which topic; `None` for topics of anybody else.
pub fn parse_up(prefix: &str, topic: &str) -> Option<(NodeName, UpType)> {
    let rest = topic.strip_prefix(prefix)?.strip_prefix('/')?.strip_prefix(USER)?;
    let (node, kind) = rest.split_once("/up/")?;
    let kind = match kind {
        "loaded" => UpType::Loaded,
        "kicked" => UpType::Kicked,
        _ => return None,
    };
    Some((node.parse().ok()?, kind))
}

/// What type of message stands on a down topic.
pub fn parse_down(topic: &str) -> Option<DownType> {
    match topic.rsplit_once("/down/")?.1 {
        "crl" => Some(DownType::Crl),
        "kick" => Some(DownType::Kick),
        _ => None,
    }
}

/// There may be newer CRLs in these scopes; in all, where none is named. The companion looks, and reports in any case.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Hint {
    /// Which.
    #[serde(default)]
    pub scopes: Vec<ScopeNumber>,
}

/// A CRL of a scope.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScopeNumber {
    /// The issuer's key id.
    pub issuer: String,
    /// The partition.
    pub partition: String,
    /// The CRL's number.
    pub number: u64,
}

/// What a node goes by: said after each change, on a beat, and after each [`Hint`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loaded {
    /// The companion's process.
    pub session: SessionId,
    /// Rises with each report of a session.
    pub sequence: u64,
    /// What Mosquitto has been proven to have loaded.
    pub scopes: Vec<ScopeNumber>,
    /// What keeps it from loading more, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Close the sessions of these devices.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kick {
    /// Comes back in the answer.
    pub order: SessionId,
    /// Whose.
    pub devices: Vec<DeviceId>,
}

/// The answer to a [`Kick`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kicked {
    /// Of the order.
    pub order: SessionId,
    /// Whose sessions could not be closed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failed: Vec<DeviceId>,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_topic_names_its_node_and_no_device_is_one() {
        let node: NodeName = "node-1".parse().unwrap();
        let topic = node.up("certwave", UpType::Loaded);
        assert_eq!(topic, "certwave/~door.node-1/up/loaded");
        assert_eq!(parse_up("certwave", &topic), Some((node, UpType::Loaded)));
        for other in [
            "certwave/d-1/up/loaded",
            "certwave/~door.A/up/loaded",
            "x/~door.a/up/loaded",
            "certwave/~door.a/up/hello",
        ] {
            assert_eq!(parse_up("certwave", other), None, "{other}");
        }
        assert_eq!(certwave_protocol::topic::User::parse("~door.node-1"), None);
    }

    #[test]
    fn a_node_has_a_name_that_a_topic_and_a_status_can_bear() {
        for bad in ["", "-a", "a-", "A", "a/b", "a+", "all#", &"a".repeat(41)] {
            assert!(bad.parse::<NodeName>().is_err(), "{bad}");
        }
    }
}

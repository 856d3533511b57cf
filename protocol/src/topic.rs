//! Topics: `<prefix>/<user>/up/<type>` and `<prefix>/<user>/down/<type>`.
//!
//! `<user>` is the MQTT user: the deviceId, or `~claim.<name>` while enrolling.

use crate::ids::{ClaimName, DeviceId};
use crate::message::Type;

/// The prefix where a broker names none.
pub const DEFAULT_PREFIX: &str = "certwave";

/// Who speaks or is spoken to on a topic.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum User {
    /// A device under its own name.
    Device(DeviceId),
    /// Whoever holds this claim's key.
    Claim(ClaimName),
}

impl User {
    /// The user as it stands in the topic and in the certificate's common name.
    pub fn name(&self) -> String {
        match self {
            Self::Device(id) => id.to_string(),
            Self::Claim(name) => name.user(),
        }
    }

    /// Reads a topic level or common name; `None` when it is neither a deviceId nor a claim.
    pub fn parse(level: &str) -> Option<Self> {
        match level.strip_prefix("~claim.") {
            Some(name) => name.parse().ok().map(Self::Claim),
            None => level.parse().ok().map(Self::Device),
        }
    }
}

/// The topic a device or claim publishes `kind` on.
pub fn up(prefix: &str, user: &User, kind: Type) -> String {
    format!("{prefix}/{}/up/{kind}", user.name())
}

/// The topic the controller publishes `kind` on.
pub fn down(prefix: &str, user: &User, kind: Type) -> String {
    format!("{prefix}/{}/down/{kind}", user.name())
}

/// What a device or claim subscribes to.
pub fn down_filter(prefix: &str, user: &User) -> String {
    format!("{prefix}/{}/down/+", user.name())
}

/// What the controller subscribes to.
pub fn up_filter(prefix: &str) -> String {
    format!("{prefix}/+/up/+")
}

/// What the controller subscribes to where only claims speak.
pub fn enrol_filter(prefix: &str) -> String {
    format!("{prefix}/+/up/{}", Type::Enrol)
}

/// Reads an up topic; `None` for anything that no device or claim of this protocol publishes on.
pub fn parse_up(prefix: &str, topic: &str) -> Option<(User, Type)> {
    parse(prefix, topic, "up")
}

/// Reads a down topic.
pub fn parse_down(prefix: &str, topic: &str) -> Option<(User, Type)> {
    parse(prefix, topic, "down")
}

fn parse(prefix: &str, topic: &str, direction: &str) -> Option<(User, Type)> {
    let rest = topic.strip_prefix(prefix)?.strip_prefix('/')?;
    let mut levels = rest.split('/');
    let (user, dir, kind, end) = (levels.next()?, levels.next()?, levels.next()?, levels.next());
    if dir != direction || end.is_some() {
        return None;
    }
    Some((User::parse(user)?, kind.parse().ok()?))
}

//! Who is online, as births and last wills say: unsigned, so a hint and nothing more.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

use certwave_core::model::Identity;
use certwave_protocol::ids::{BrokerId, SessionId};
use certwave_protocol::message::Online;

/// The connection that each device was last said to have.
#[derive(Default)]
pub struct Presence(RwLock<HashMap<Identity, SessionId>>);

impl Presence {
    /// Takes a birth or last will in. A will ends only the connection that it names.
    pub fn heard(&self, identity: Identity, message: &Online) {
        let mut map = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if message.online {
            map.insert(identity, message.session);
        } else if map.get(&identity) == Some(&message.session) {
            map.remove(&identity);
        }
    }

    /// A new connection: the broker says again who is there.
    pub fn forget(&self, broker: &BrokerId) {
        let mut map = self.0.write().unwrap_or_else(PoisonError::into_inner);
        map.retain(|identity, _| identity.broker != *broker);
    }

    /// True while the device is said to be connected.
    pub fn online(&self, identity: &Identity) -> bool {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .contains_key(identity)
    }
}

//! What is remembered of each `DeviceCertificate` between the watch and the projection: a few dozen bytes, no object.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use certwave_core::model::ObjectRef;
use certwave_protocol::ids::Fingerprint;

/// An object's name, hashed: 16 bytes of SHA-256 of namespace and name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key(u128);

impl Key {
    pub(super) fn of(object: &ObjectRef) -> Self {
        let hash = Fingerprint::of(format!("{}/{}", object.namespace, object.name).as_bytes()).0;
        Self(u128::from_be_bytes(std::array::from_fn(|i| hash[i])))
    }
}

/// A short hash of what an object declares or shows.
pub(super) fn digest(data: &[u8]) -> u64 {
    let hash = Fingerprint::of(data).0;
    u64::from_be_bytes(std::array::from_fn(|i| hash[i]))
}

/// What is remembered of one object.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct View {
    /// Digest of what it declares, as the ledger took it over; 0: not yet.
    pub(super) declared: u64,
    /// Digest of its status; 0: none.
    pub(super) shown: u64,
    /// `metadata.generation`.
    pub(super) generation: u32,
    /// When its condition Ready last changed, Unix seconds (until 2106).
    pub(super) since: u32,
    /// Its condition Ready.
    pub(super) ready: Option<bool>,
    /// The listing that it was last part of.
    pub(super) pass: u16,
    /// It declares a revocation or hold.
    pub(super) revoked: bool,
}

/// All of them.
#[derive(Default)]
pub(super) struct Views(Mutex<HashMap<Key, View>>);

impl Views {
    pub(super) fn get(&self, key: Key) -> Option<View> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&key).copied()
    }

    /// Changes one, which is made if it is not there.
    pub(super) fn update(&self, key: Key, change: impl FnOnce(&mut View)) -> View {
        let mut views = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let view = views.entry(key).or_default();
        change(view);
        *view
    }

    /// Changes one that is there.
    pub(super) fn touch(&self, key: Key, change: impl FnOnce(&mut View)) {
        if let Some(view) = self.0.lock().unwrap_or_else(PoisonError::into_inner).get_mut(&key) {
            change(view);
        }
    }

    pub(super) fn remove(&self, key: Key) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
    }

    /// Forgets all that were not part of the listing `pass`.
    pub(super) fn keep(&self, pass: u16) {
        let mut views = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        views.retain(|_, view| view.pass == pass);
        views.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_costs_less_than_a_hundred_bytes() {
        // A hash map has a byte of control for each slot and is at least 7/16 full after growing.
        let slot = std::mem::size_of::<(Key, View)>() + 1;
        assert!(slot <= 49, "{slot}");
    }

    #[test]
    fn namespace_and_name_both_count() {
        let key = |namespace: &str, name: &str| {
            Key::of(&ObjectRef {
                namespace: namespace.into(),
                name: name.into(),
            })
        };
        assert_ne!(key("a", "b"), key("b", "a"));
        assert_ne!(key("a", "bc"), key("ab", "c"));
    }
}

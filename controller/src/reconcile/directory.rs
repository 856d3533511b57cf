//! What one kind's reconciler has resolved and the others look up, with a signal when it changes.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use certwave_core::model::ObjectRef;
use futures::Stream;
use tokio::sync::watch;

/// Values by object.
pub(super) struct Directory<T> {
    entries: RwLock<HashMap<ObjectRef, Arc<T>>>,
    changed: watch::Sender<u64>,
}

impl<T> Default for Directory<T> {
    fn default() -> Self {
        Self {
            entries: RwLock::default(),
            changed: watch::Sender::new(0),
        }
    }
}

impl<T: PartialEq> Directory<T> {
    pub(super) fn get(&self, object: &ObjectRef) -> Option<Arc<T>> {
        self.entries
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(object)
            .cloned()
    }

    pub(super) fn all(&self) -> Vec<(ObjectRef, Arc<T>)> {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        entries
            .iter()
            .map(|(object, value)| (object.clone(), Arc::clone(value)))
            .collect()
    }

    /// Sets or removes a value; those who look up are told only when it is another one.
    pub(super) fn set(&self, object: &ObjectRef, value: Option<T>) {
        let changed = {
            let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
            match value {
                Some(value) if entries.get(object).is_some_and(|old| **old == value) => false,
                Some(value) => {
                    entries.insert(object.clone(), Arc::new(value));
                    true
                }
                None => entries.remove(object).is_some(),
            }
        };
        if changed {
            self.changed.send_modify(|n| *n = n.wrapping_add(1));
        }
    }

    /// An item for each change from now on; changes that come together may be one item.
    pub(super) fn changes(&self) -> impl Stream<Item = ()> + Send + 'static {
        changes(self.changed.subscribe())
    }
}

/// An item for each change of a watched value.
pub(super) fn changes<V: Send + Sync + 'static>(
    receiver: watch::Receiver<V>,
) -> impl Stream<Item = ()> + Send + 'static {
    futures::stream::unfold(receiver, |mut receiver| async move {
        receiver.changed().await.ok()?;
        Some(((), receiver))
    })
}

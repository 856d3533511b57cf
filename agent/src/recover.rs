//! A device's first start, and a start with a journal that cannot be read.

use certwave_protocol::ids::{DeviceId, Fingerprint};
use certwave_protocol::message::{Der, Slot};

use crate::certificate::check;
use crate::journal::{Held, Journal};
use crate::store::{KeyStore, Storage, StoreError};

/// The journal, made where there is none: from the credentials that lie in the slots, if any fit, and the bundle that
/// is there or `anchors`.
///
/// A journal that cannot be read is made anew in the same way. The device then knows nothing of its latest job, but
/// still has each credential that works.
pub fn journal<S: Storage + KeyStore>(
    store: &mut S,
    device: &DeviceId,
    anchors: &[Der],
) -> Result<Journal, StoreError> {
    match store.journal() {
        Ok(Some(journal)) => return Ok(journal),
        Ok(None) => {}
        Err(error @ StoreError::Corrupt { .. }) => {
            tracing::error!(%error, "the journal cannot be read and is made anew");
        }
        Err(error) => return Err(error),
    }
    if store.bundle(Slot::A).is_err() {
        store.save_bundle(Slot::A, anchors)?;
    }
    let mut journal = Journal::new(Fingerprint::of_bundle(store.bundle(Slot::A)?));
    journal.bundles.b = store.bundle(Slot::B).ok().map(Fingerprint::of_bundle);
    for slot in [Slot::A, Slot::B] {
        *journal.slots.get_mut(slot) = found(store, slot, device);
    }
    journal.active = [Slot::A, Slot::B]
        .into_iter()
        .filter_map(|slot| journal.held(slot).map(|held| (held.not_before, slot)))
        .max()
        .map(|(_, slot)| slot);
    store.save_journal(&journal)?;
    Ok(journal)
}

fn found<S: Storage + KeyStore>(store: &S, slot: Slot, device: &DeviceId) -> Option<Held> {
    let chain = store.certificate(slot).ok()?;
    let (leaf, rest) = chain.split_first()?;
    let leaf = check(leaf, rest, device, &store.spki(slot).ok()?).ok()?;
    let (not_before, not_after) = (leaf.not_before, leaf.not_after);
    Some(Held {
        leaf: leaf.fingerprint,
        not_before,
        not_after,
        confirmed: true,
    })
}

//! Which Rotation runs over a fleet: one at a time, the oldest first, an emergency before all others. One that cannot begin
//! until a person changes something holds up nobody.

use certwave_crds::{Rotation, RotationMode};
use kube::runtime::reflector::Store;
use kube::{Resource, ResourceExt};

use super::view;

/// The Rotation that `object` waits for, if any.
pub(super) fn before(object: &Rotation, store: &Store<Rotation>) -> Option<String> {
    let emergency = |rotation: &Rotation| rotation.spec.mode == RotationMode::Emergency;
    let rank = |rotation: &Rotation| {
        (
            !emergency(rotation),
            !view::began(rotation),
            rotation.meta().creation_timestamp.clone(),
            rotation.name_any(),
        )
    };
    let own = rank(object);
    let others = store.state().into_iter().filter(|other| {
        // What is looked at may be older than what the watch has shown since.
        other.uid() != object.uid()
            && other.namespace() == object.namespace()
            && other.spec.fleet_ref == object.spec.fleet_ref
            && other.spec.mode != RotationMode::Preview
            && !view::is_over(other)
            && !view::stuck(other)
            // An emergency that cannot begin yet stops nobody.
            && (!emergency(other) || view::began(other))
            && rank(other) < own
    });
    others.min_by_key(|other| rank(other)).map(|other| other.name_any())
}

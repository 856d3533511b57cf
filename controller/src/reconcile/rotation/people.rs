//! What people want of a Rotation, and who asked for it.

use certwave_core::rollout::judge::{Control, Wish};
use certwave_crds::{ControlState, Rotation};
use serde_json::Value;

/// What stands in `spec.control`.
pub(super) fn control(object: &Rotation) -> Control<'_> {
    let control = &object.spec.control;
    let approval = control.approval.as_ref();
    Control {
        state: match control.state {
            ControlState::Running => Wish::Running,
            ControlState::Paused => Wish::Paused,
            ControlState::Aborted => Wish::Aborted,
        },
        through_wave: approval.map_or(0, |a| a.through_wave.max(0).unsigned_abs()),
        plan_hash: approval.map_or("", |a| a.plan_hash.as_str()),
        resume: &control.resume,
        retry_failed: &control.retry_failed,
    }
}

/// The field manager that set a part of `spec.control` last; `unknown` where the API server does not say.
pub(super) fn who(object: &Rotation, part: &str) -> String {
    let managed = object.metadata.managed_fields.iter().flatten();
    let owners = managed.filter(|entry| {
        let fields = entry.fields_v1.as_ref().map(|fields| &fields.0);
        let spec = fields.and_then(|fields| fields.get("f:spec"));
        spec.and_then(|spec| spec.get("f:control"))
            .and_then(|control| control.get(format!("f:{part}")))
            .is_some_and(|value| !matches!(value, Value::Null))
    });
    owners
        .max_by_key(|entry| entry.time.as_ref().map(|time| time.0))
        .and_then(|entry| entry.manager.clone())
        .unwrap_or_else(|| "unknown".to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_latest_manager_of_a_part_is_named() {
        let object: Rotation = serde_json::from_value(serde_json::json!({
            "apiVersion": "certwave.dev/v1alpha1", "kind": "Rotation",
            "metadata": {"name": "r", "managedFields": [
                {"manager": "kubectl-create", "operation": "Update", "time": "2026-01-01T00:00:00Z",
                 "fieldsV1": {"f:spec": {"f:control": {"f:state": {}}}}},
                {"manager": "alice", "operation": "Update", "time": "2026-01-02T00:00:00Z",
                 "fieldsV1": {"f:spec": {"f:control": {"f:state": {}, "f:approval": {"f:throughWave": {}}}}}},
            ]},
            "spec": {"fleetRef": {"name": "f"}},
        }))
        .unwrap();
        assert_eq!(who(&object, "state"), "alice");
        assert_eq!(who(&object, "approval"), "alice");
        assert_eq!(who(&object, "resume"), "unknown");
    }
}

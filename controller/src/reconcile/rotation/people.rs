//! What people want of a Rotation, and who asked for it.

use certwave_core::rollout::judge::{Control, Wish};
use certwave_crds::{ControlState, Rotation};

use crate::reconcile::author;

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
        rollback: &control.rollback,
    }
}

/// The field manager that set a part of `spec.control` last; `unknown` where the API server does not say.
pub(super) fn who(object: &Rotation, part: &str) -> String {
    let part = format!("f:{part}");
    let path = ["f:spec", "f:control", part.as_str()];
    // The API server tells whole seconds. Of two who approved within one, the number of waves is the later one's.
    author::all(&object.metadata, &path)
        .max_by_key(|(entry, set)| {
            (
                entry.time.as_ref().map(|time| time.0),
                set.get("f:throughWave").is_some(),
            )
        })
        .and_then(|(entry, _)| entry.manager.clone())
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

    #[test]
    fn of_two_who_approve_within_a_second_the_one_who_set_the_number_of_waves_is_named() {
        let approval = |fields: serde_json::Value| serde_json::json!({"f:spec": {"f:control": {"f:approval": fields}}});
        let object: Rotation = serde_json::from_value(serde_json::json!({
            "apiVersion": "certwave.dev/v1alpha1", "kind": "Rotation",
            "metadata": {"name": "r", "managedFields": [
                {"manager": "alice", "operation": "Update", "time": "2026-01-01T00:00:00Z",
                 "fieldsV1": approval(serde_json::json!({"f:throughWave": {}}))},
                {"manager": "bob", "operation": "Update", "time": "2026-01-01T00:00:00Z",
                 "fieldsV1": approval(serde_json::json!({"f:planHash": {}}))},
            ]},
            "spec": {"fleetRef": {"name": "f"}},
        }))
        .unwrap();
        assert_eq!(who(&object, "approval"), "alice");
    }
}

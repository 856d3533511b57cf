//! Patches.

use serde_json::{Map, Value};

/// A kind of patch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Server-side apply.
    Apply,
    /// RFC 7386.
    Merge,
    /// RFC 6902; additions and replacements.
    Json,
}

impl Kind {
    pub(super) fn of(content_type: &str) -> Option<Self> {
        match content_type {
            "application/apply-patch+yaml" => Some(Self::Apply),
            "application/merge-patch+json" => Some(Self::Merge),
            "application/json-patch+json" => Some(Self::Json),
            _ => None,
        }
    }
}

/// Patches an object.
pub(super) fn patch(kind: Kind, object: &mut Value, change: &Value) {
    match kind {
        // One manager writes the whole of a status, and of a Secret's data.
        Kind::Apply => {
            for whole in ["status", "data"] {
                if let Some(value) = change.get(whole) {
                    object[whole] = value.clone();
                }
            }
            let mut rest = change.clone();
            if let Some(rest) = rest.as_object_mut() {
                rest.retain(|name, _| name != "status" && name != "data");
            }
            merge(object, &rest);
        }
        Kind::Merge => merge(object, change),
        Kind::Json => {
            for operation in change.as_array().into_iter().flatten() {
                let path = operation["path"].as_str().unwrap_or_default();
                let Some((parent, name)) = path.rsplit_once('/') else {
                    continue;
                };
                if let Some(parent) = object.pointer_mut(parent).and_then(Value::as_object_mut) {
                    match operation["op"].as_str() {
                        Some("add" | "replace") => drop(parent.insert(name.to_owned(), operation["value"].clone())),
                        Some("remove") => drop(parent.remove(name)),
                        _ => {}
                    }
                }
            }
        }
    }
}

/// RFC 7386.
pub(super) fn merge(object: &mut Value, change: &Value) {
    let Some(change) = change.as_object() else {
        *object = change.clone();
        return;
    };
    if !object.is_object() {
        *object = Value::Object(Map::new());
    }
    if let Some(object) = object.as_object_mut() {
        for (name, value) in change {
            if value.is_null() {
                object.remove(name);
            } else {
                merge(object.entry(name.clone()).or_insert(Value::Null), value);
            }
        }
    }
}

//! Whether the CRDs of a cluster are those of this program.

use std::fmt;

use serde_json::Value;

/// How one schema differs from the one that a program was built with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Misfit {
    /// The cluster does not know this field: what is written there would be lost.
    Older(String),
    /// The cluster knows this field and the program does not: what people ask for there would not be done.
    Newer(String),
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Older(field) => write!(f, "older than this program: it does not know {field}"),
            Self::Newer(field) => write!(f, "newer than this program, which does not know {field}"),
        }
    }
}

/// The first field in which a cluster's schema (`theirs`) differs from `ours`, where it is older if it is both. Descriptions, limits
/// and rules may differ.
pub fn misfit(ours: &Value, theirs: &Value) -> Option<Misfit> {
    first_missing(ours, theirs, "")
        .map(Misfit::Older)
        .or_else(|| first_missing(theirs, ours, "").map(Misfit::Newer))
}

/// The first field that `one` has and `other` has not.
fn first_missing(one: &Value, other: &Value, path: &str) -> Option<String> {
    for (inner, mark) in [("items", "[]"), ("additionalProperties", "{}")] {
        if let (Some(one), Some(other)) = (one.get(inner), other.get(inner)) {
            return first_missing(one, other, &format!("{path}{mark}"));
        }
    }
    let fields = one.get("properties")?.as_object()?;
    fields.iter().find_map(|(name, one)| {
        // The API server adds these to every kind.
        if path.is_empty() && matches!(name.as_str(), "apiVersion" | "kind" | "metadata") {
            return None;
        }
        let path = if path.is_empty() {
            name.clone()
        } else {
            format!("{path}.{name}")
        };
        match other.get("properties").and_then(|fields| fields.get(name)) {
            None => Some(path),
            Some(other) => first_missing(one, other, &path),
        }
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_schema_is_older_or_newer_by_its_first_field_and_the_same_whatever_else_differs() {
        let whole = json!({ "properties": { "spec": { "description": "d", "properties": {
            "a": { "type": "string" },
            "list": { "items": { "properties": { "b": {}, "c": {} } } },
            "map": { "additionalProperties": { "properties": { "d": {} } } },
        } } } });
        let mut served = whole.clone();
        served["properties"]["metadata"] = json!({ "$ref": "#/x" });
        served["properties"]["spec"]["description"] = json!("other words");
        assert_eq!(misfit(&whole, &served), None);
        for (at, field) in [
            ("/properties/spec/properties/list/items/properties", "c"),
            ("/properties/spec/properties/map/additionalProperties/properties", "d"),
            ("/properties/spec/properties", "a"),
        ] {
            let mut part = whole.clone();
            let fields = part.pointer_mut(at).and_then(Value::as_object_mut);
            assert!(fields.is_some_and(|fields| fields.remove(field).is_some()), "{at}");
            let path = match field {
                "c" => "spec.list[].c",
                "d" => "spec.map{}.d",
                _ => "spec.a",
            };
            assert_eq!(misfit(&whole, &part), Some(Misfit::Older(path.to_owned())));
            assert_eq!(misfit(&part, &whole), Some(Misfit::Newer(path.to_owned())));
        }
    }
}

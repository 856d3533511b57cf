//! Who wrote a part of an object, and when, as the API server remembers it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, ObjectMeta};
use serde_json::Value;

/// Those who set the field at `path` (as in `managedFields`: `f:spec`, `f:control`), each with what it set there.
pub(super) fn all<'a>(
    metadata: &'a ObjectMeta,
    path: &'a [&'a str],
) -> impl Iterator<Item = (&'a ManagedFieldsEntry, &'a Value)> {
    let managed = metadata.managed_fields.iter().flatten();
    managed.filter_map(move |entry| {
        let whole = &entry.fields_v1.as_ref()?.0;
        let set = path.iter().try_fold(whole, |fields, name| fields.get(name))?;
        (!set.is_null()).then_some((entry, set))
    })
}

/// The field manager that set the field last, and when (Unix milliseconds, by whole seconds); `unknown` where the API server does not
/// say.
pub(super) fn last(metadata: &ObjectMeta, path: &[&str]) -> (String, Option<i64>) {
    let entry = all(metadata, path).max_by_key(|(entry, _)| entry.time.as_ref().map(|time| time.0));
    let Some((entry, _)) = entry else {
        return ("unknown".to_owned(), None);
    };
    let who = entry.manager.clone().unwrap_or_else(|| "unknown".to_owned());
    (who, entry.time.as_ref().map(|time| time.0.as_millisecond()))
}

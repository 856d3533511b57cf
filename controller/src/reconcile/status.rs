//! Conditions, and the one way by which a status reaches the API server.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{Api, Patch, PatchParams};
use kube::{Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::time::time;

/// One aspect of an object, before it becomes a condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Verdict {
    /// Whether the aspect holds; `None`: unknown.
    pub holds: Option<bool>,
    /// `CamelCase`, for programs.
    pub reason: String,
    /// For people, with what they can do.
    pub message: String,
}

impl Verdict {
    pub(super) fn yes(reason: &str, message: impl Into<String>) -> Self {
        Self {
            holds: Some(true),
            reason: reason.to_owned(),
            message: message.into(),
        }
    }

    pub(super) fn no(reason: &str, message: impl Into<String>) -> Self {
        Self {
            holds: Some(false),
            reason: reason.to_owned(),
            message: message.into(),
        }
    }

    pub(super) fn unknown(reason: &str, message: impl Into<String>) -> Self {
        Self {
            holds: None,
            reason: reason.to_owned(),
            message: message.into(),
        }
    }

    fn status(&self) -> &'static str {
        match self.holds {
            Some(true) => "True",
            Some(false) => "False",
            None => "Unknown",
        }
    }
}

/// The condition `kind`; its transition time is the one before unless its status changed. `now` in Unix seconds.
pub(super) fn condition(
    kind: &str,
    verdict: &Verdict,
    generation: Option<i64>,
    before: &[Condition],
    now: i64,
) -> Condition {
    let since = before.iter().find(|c| c.type_ == kind && c.status == verdict.status());
    Condition {
        type_: kind.to_owned(),
        status: verdict.status().to_owned(),
        reason: verdict.reason.clone(),
        message: shorten(&verdict.message, 1024),
        observed_generation: generation,
        last_transition_time: since.map_or_else(|| time(now), |c| c.last_transition_time.clone()),
    }
}

/// At most `limit` bytes, cut at a character.
pub(super) fn shorten(text: &str, limit: usize) -> String {
    text[..text.floor_char_boundary(limit)].to_owned()
}

/// `key-mismatch` as `KeyMismatch`: an error's category as a condition's reason.
pub(super) fn camel_case(category: &str) -> String {
    category
        .split(['-', '_'])
        .flat_map(|word| {
            let mut letters = word.chars();
            letters
                .next()
                .map(|first| first.to_ascii_uppercase())
                .into_iter()
                .chain(letters.collect::<Vec<_>>())
        })
        .collect()
}

/// Applies `desired` as the object's whole status, unless the object shows it already. An object that is gone is no error.
pub(super) async fn publish<K, S>(
    api: &Api<K>,
    object: &K,
    manager: &str,
    current: Option<&S>,
    desired: &S,
) -> kube::Result<()>
where
    K: Resource<DynamicType = ()> + DeserializeOwned + Clone + std::fmt::Debug,
    S: Serialize + PartialEq,
{
    if current == Some(desired) {
        return Ok(());
    }
    let patch = json!({
        "apiVersion": K::api_version(&()),
        "kind": K::kind(&()),
        "metadata": {"name": object.name_any()},
        "status": desired,
    });
    let params = PatchParams::apply(manager).force();
    match api
        .patch_status(&object.name_any(), &params, &Patch::Apply(patch))
        .await
    {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        other => other.map(drop),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_transition_time_changes_only_with_the_status() {
        let first = condition("Ready", &Verdict::no("CANotFound", "x"), Some(1), &[], 100);
        assert_eq!(first.last_transition_time, time(100));
        let same = condition(
            "Ready",
            &Verdict::no("CANotReady", "y"),
            Some(2),
            std::slice::from_ref(&first),
            200,
        );
        assert_eq!(
            (same.last_transition_time.clone(), same.reason.as_str()),
            (time(100), "CANotReady")
        );
        let turned = condition("Ready", &Verdict::yes("Ready", ""), Some(2), &[same], 300);
        assert_eq!(turned.last_transition_time, time(300));
    }

    #[test]
    fn categories_become_reasons() {
        assert_eq!(camel_case("key-mismatch"), "KeyMismatch");
        assert_eq!(camel_case("not-ca"), "NotCa");
        assert_eq!(camel_case("expired"), "Expired");
    }

    #[test]
    fn long_messages_are_cut_between_characters() {
        assert_eq!(shorten("aéé", 2), "a");
    }
}

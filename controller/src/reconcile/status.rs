//! Conditions, and the one way by which a status reaches the API server.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{Api, Patch, PatchParams};
use kube::{Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::time::time;
use crate::clock::Clock;
use crate::door::{DoorSettings, DoorView};

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

/// Whether the broker's door refuses whom it should (condition `DoorCurrent`); `None`: the broker is not known yet.
pub(super) fn door_current(settings: Option<&DoorSettings>, door: Option<&DoorView>) -> Option<Verdict> {
    match (settings, door) {
        (None, _) => None,
        (Some(DoorSettings::None), _) => Some(Verdict::no(
            "NoAdapter",
            "the broker is told of no revocation: it refuses revoked devices only as far as it goes by CRLs or OCSP by itself, and \
             their live sessions go on; see docs/brokers for the adapters",
        )),
        (Some(_), None) => Some(Verdict::unknown("Connecting", "the nodes were not asked yet")),
        (Some(_), Some(view)) => Some(match &view.fault {
            Some(fault) => Verdict::no(fault.reason, fault.message.clone()),
            None if !view.abilities.reports_loading => Verdict::yes(
                "NotReported",
                "the broker answers; it does not say which CRLs it has loaded",
            ),
            None => Verdict::yes("Current", "every node goes by the CRLs published last"),
        }),
    }
}

/// Condition of CAs and Fleets: whether our clock and the API server's disagree.
pub(super) const CLOCK_SKEW: &str = "ClockSkew";

/// Whether they do, and what that stops; in steps, so that a clock that drifts does not change the status all the time.
pub(super) fn skew(clock: &Clock) -> Verdict {
    if clock.is_trusted() {
        return Verdict::no("ClocksAgree", "the controller's clock and the API server's agree");
    }
    let ahead = clock.ahead_s();
    let direction = if ahead > 0 { "ahead of" } else { "behind" };
    let amount = match ahead.unsigned_abs() {
        s @ 0..5400 => format!("{} minutes", ((s + 300) / 600 * 10).max(5)),
        s @ 5400..172_800 => format!("{} hours", (s + 1800) / 3600),
        s => format!("{} days", (s + 43_200) / 86_400),
    };
    Verdict::yes(
        "ClockSkew",
        format!(
            "the controller's clock is about {amount} {direction} the API server's: set the one that is wrong. Until then nothing \
             is retired, pruned or archived, and nothing ends or falls due by one of the two alone; certificates, CRLs and OCSP go \
             on, dated by the API server's clock"
        ),
    )
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

//! Changes of a Fleet's claims, and of nothing else in it.
//!
//! The Fleet is read and written as it comes, not as this program knows it: a newer CRD may have fields that would be lost.

use certwave_crds::{Claim, Fleet};
use certwave_protocol::ids::ClaimName;
use jiff::Timestamp;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};

use crate::command::CommandError;

/// Ended claims are dropped from the Fleet after this time, seconds.
const FORGET: i64 = 30 * 24 * 3600;
const TRIES: usize = 10;

/// Reads the Fleet, edits its claims and writes those back; again when somebody else was faster.
pub(super) async fn change(
    client: &Client,
    namespace: &str,
    name: &str,
    edit: impl Fn(&mut Vec<Value>) -> Result<(), CommandError>,
) -> Result<(), CommandError> {
    let kind = ApiResource::erase::<Fleet>(&());
    let fleets: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &kind);
    for _ in 0..TRIES {
        let fleet = fleets.get(name).await?;
        let before = claims_of(&fleet.data);
        let mut claims = before.clone();
        edit(&mut claims)?;
        if claims == before {
            return Ok(());
        }
        let patch = patch(fleet.metadata.resource_version.as_deref(), &claims);
        let params = PatchParams {
            field_manager: Some("certwave-claim".to_owned()),
            ..PatchParams::default()
        };
        match fleets.patch(name, &params, &Patch::Merge(patch)).await {
            Ok(_) => return Ok(()),
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(CommandError::Refused(
        "the Fleet is being changed all the time; try again".to_owned(),
    ))
}

fn claims_of(fleet: &Value) -> Vec<Value> {
    let claims = fleet.pointer("/spec/enrolment/claims").and_then(Value::as_array);
    claims.cloned().unwrap_or_default()
}

/// A merge patch (RFC 7386) replaces lists as a whole; so it counts only for the version that the list was read from.
fn patch(version: Option<&str>, claims: &[Value]) -> Value {
    json!({
        "metadata": { "resourceVersion": version },
        "spec": { "enrolment": { "claims": claims } },
    })
}

fn is(claim: &Value, name: &str) -> bool {
    claim["name"] == name
}

/// Adds a claim, and drops those that ended long ago.
pub(super) fn add(claims: &mut Vec<Value>, claim: &Claim, now: Timestamp) -> Result<(), CommandError> {
    if claims.iter().any(|other| is(other, &claim.name)) {
        return Err(CommandError::Refused(format!(
            "the Fleet has a claim {} already",
            claim.name
        )));
    }
    let over = |claim: &Value| {
        let end = claim["notAfter"]
            .as_str()
            .and_then(|text| text.parse::<Timestamp>().ok());
        end.is_some_and(|end| end.as_second() <= now.as_second() - FORGET)
    };
    claims.retain(|claim| !over(claim));
    claims.push(serde_json::to_value(claim).map_err(|e| CommandError::Refused(e.to_string()))?);
    Ok(())
}

/// Suspends or resumes a claim.
pub(super) fn suspend(claims: &mut [Value], name: &ClaimName, suspended: bool) -> Result<(), CommandError> {
    let Some(claim) = claims.iter_mut().find(|claim| is(claim, name.as_str())) else {
        return Err(CommandError::Refused(format!("the Fleet has no claim {name}")));
    };
    // Left out means false.
    if claim["suspended"].as_bool().unwrap_or(false) != suspended {
        claim["suspended"] = json!(suspended);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn claim(name: &str) -> Claim {
        Claim {
            name: name.to_owned(),
            device_id: Some("d-1".to_owned()),
            quota: None,
            not_after: Time("2026-12-01T00:00:00Z".parse().unwrap()),
            suspended: false,
            csr: "pem".to_owned(),
        }
    }

    #[test]
    fn what_this_program_does_not_know_stays() {
        let mut claims = vec![json!({ "name": "a", "notAfter": "2099-01-01T00:00:00Z", "site": { "hall": 3 } })];
        let before = claims[0].clone();
        add(&mut claims, &claim("b"), at("2026-11-21T00:00:00Z")).unwrap();
        assert_eq!(claims[0], before);
        suspend(&mut claims, &"a".parse().unwrap(), true).unwrap();
        assert_eq!(claims[0]["site"], before["site"]);
        let patch = patch(Some("7"), &claims);
        assert_eq!(patch["metadata"], json!({ "resourceVersion": "7" }));
        assert_eq!(
            patch["spec"].as_object().unwrap().len(),
            1,
            "nothing but claims is written"
        );
    }

    #[test]
    fn a_name_is_taken_once() {
        let mut claims = Vec::new();
        add(&mut claims, &claim("a"), at("2026-11-21T00:00:00Z")).unwrap();
        assert!(add(&mut claims, &claim("a"), at("2026-11-21T00:00:00Z")).is_err());
        assert_eq!(claims.len(), 1);
    }

    #[test]
    fn claims_that_ended_long_ago_are_dropped() {
        let mut claims = vec![
            json!({ "name": "long-ago", "notAfter": "2026-10-21T00:00:00Z" }),
            json!({ "name": "just-now", "notAfter": "2026-11-20T00:00:00Z" }),
            json!({ "name": "unreadable", "notAfter": 3 }),
        ];
        add(&mut claims, &claim("new"), at("2026-11-21T00:00:00Z")).unwrap();
        let names: Vec<_> = claims.iter().map(|claim| claim["name"].clone()).collect();
        assert_eq!(names, ["just-now", "unreadable", "new"]);
    }

    #[test]
    fn resuming_what_was_never_suspended_changes_nothing() {
        let mut claims = vec![json!({ "name": "a" })];
        suspend(&mut claims, &"a".parse().unwrap(), false).unwrap();
        assert_eq!(claims, [json!({ "name": "a" })]);
        assert!(suspend(&mut claims, &"b".parse().unwrap(), true).is_err());
    }
}

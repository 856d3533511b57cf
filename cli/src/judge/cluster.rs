//! The cluster: CRDs, the controller, clocks, the user's own rights.

use certwave_crds::{Broker, Misfit, VERSION};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use serde_json::Value;

use crate::finding::{Finding, Level};
use crate::time::length;

/// Leases are renewed every 5 s; after 15 s another replica takes over. This old, nobody holds one, seconds.
const LEASE_OVER: i64 = 30;
/// A clock that is off by less makes no difference, seconds.
const SKEW: i64 = 30;

/// One of the CRDs as the cluster has it (`None`: it has none), beside the one that this plugin was built with.
pub fn crd(name: &str, built: &Value, found: Option<&Value>) -> Finding {
    let about = format!("CRD {name}");
    let install = "install the CRDs of the controller's version: helm upgrade, or kubectl apply --server-side -f crds/";
    let Some(found) = found else {
        return Finding::bad(Level::Fault, about, "is not installed").then(install);
    };
    let conditions = found.pointer("/status/conditions").and_then(Value::as_array);
    let established = conditions
        .into_iter()
        .flatten()
        .any(|c| c["type"] == "Established" && c["status"] == "True");
    let (theirs, ours) = (schema(found), schema(built));
    match theirs {
        None => Finding::bad(Level::Fault, about, format!("does not serve {VERSION}")).then(install),
        Some(_) if !established => Finding::bad(Level::Fault, about, "is not established: the API server refuses it")
            .then(format!("kubectl describe crd {name} says why")),
        theirs if theirs == ours => Finding::ok(about, "installed"),
        Some(theirs) => {
            let misfit = ours.and_then(|ours| certwave_crds::misfit(ours, theirs));
            let Some(misfit) = misfit else {
                // Descriptions, limits or rules.
                return Finding::bad(Level::Warning, about, "is of another version than this plugin").then(install);
            };
            let remedy = match misfit {
                Misfit::Older(_) => install,
                Misfit::Newer(_) => "use the plugin of the controller's version: kubectl krew upgrade certwave",
            };
            Finding::bad(Level::Warning, about, format!("is {misfit}")).then(remedy)
        }
    }
}

/// The schema of the version that is served.
fn schema(crd: &Value) -> Option<&Value> {
    let versions = crd.pointer("/spec/versions")?.as_array()?;
    let served = versions
        .iter()
        .find(|v| v["name"] == VERSION && v["served"] != Value::Bool(false))?;
    served.pointer("/schema/openAPIV3Schema")
}

/// Whether a controller leads, by its Lease.
pub fn leader(lease: Option<&Lease>, namespace: &str, now: Timestamp) -> Finding {
    let about = "controller";
    let bad = |words: String| Finding::bad(Level::Fault, about, words).then(look(namespace));
    match holder(lease, now) {
        Holder::NoLease => bad(format!(
            "there is no Lease in namespace {namespace}: no controller has run there"
        )),
        Holder::Nobody => bad("nobody holds the Lease: no controller leads".to_owned()),
        Holder::Gone(name, age) => bad(format!(
            "{name} holds the Lease and renewed it {} ago: nobody leads",
            length(age)
        )),
        Holder::There(name) => Finding::ok(about, format!("{name} leads")),
    }
}

/// Whether a replica looks after a broker, by the broker's Lease.
pub fn attended(broker: &Broker, lease: Option<&Lease>, namespace: &str, now: Timestamp) -> Finding {
    let about = super::about("Broker", &broker.metadata);
    let words = match holder(lease, now) {
        Holder::There(name) => return Finding::ok(about, format!("{name} looks after it")),
        Holder::NoLease => format!("nobody looks after it: it has no Lease in namespace {namespace}"),
        Holder::Nobody => "nobody looks after it: nobody holds its Lease".to_owned(),
        Holder::Gone(name, age) => format!(
            "nobody looks after it: {name} holds its Lease and renewed it {} ago",
            length(age)
        ),
    };
    Finding::bad(Level::Fault, about, words).then(look(namespace))
}

fn look(namespace: &str) -> String {
    format!(
        "kubectl -n {namespace} get pods, and their logs; --controller-namespace says where else the controller may be"
    )
}

/// Who holds a Lease.
enum Holder {
    NoLease,
    Nobody,
    /// Who held it, and how long ago it was renewed, seconds.
    Gone(String, i64),
    There(String),
}

fn holder(lease: Option<&Lease>, now: Timestamp) -> Holder {
    let Some(spec) = lease.and_then(|lease| lease.spec.as_ref()) else {
        return Holder::NoLease;
    };
    let name = spec.holder_identity.clone().unwrap_or_default();
    let age = spec
        .renew_time
        .as_ref()
        .map_or(i64::MAX, |time| now.as_second().saturating_sub(time.0.as_second()));
    match name.is_empty() {
        true => Holder::Nobody,
        false if age > LEASE_OVER => Holder::Gone(name, age),
        false => Holder::There(name),
    }
}

/// How far our clock is from the API server's; `server` is the date of its answer, between `sent` and `heard` by ours.
pub fn clock(server: Timestamp, sent: Timestamp, heard: Timestamp) -> Finding {
    // The server tells whole seconds, and the answer may have been made at any time between the two.
    let (early, late) = (
        sent.as_second() - 1 - server.as_second(),
        heard.as_second() - server.as_second(),
    );
    let off = if early > 0 { early } else { late.min(0) };
    if off.abs() < SKEW {
        return Finding::ok("clocks", "this machine's clock and the API server's agree");
    }
    let direction = if off > 0 { "ahead of" } else { "behind" };
    let words = format!(
        "this machine's clock is {} {direction} the API server's",
        length(off.abs())
    );
    Finding::bad(Level::Warning, "clocks", words)
        .then("set the one that is wrong: times in this output are told by this machine's; if it is the API server's, certificates are judged by a wrong clock")
}

/// What a command needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Need {
    /// The command.
    pub command: &'static str,
    /// API group; empty is the core's.
    pub group: &'static str,
    /// Resource, in the plural, with its subresource.
    pub resource: &'static str,
    /// Verb.
    pub verb: &'static str,
}

const fn need(command: &'static str, resource: &'static str, verb: &'static str) -> Need {
    Need {
        command,
        group: certwave_crds::GROUP,
        resource,
        verb,
    }
}

/// What each command needs.
pub const NEEDS: &[Need] = &[
    need("status", "fleets", "list"),
    need("status", "rotations", "list"),
    need("status", "brokers", "list"),
    need("status", "certificateauthorities", "list"),
    need("expiring, export", "devicecertificates", "list"),
    need("inspect", "devicecertificates", "get"),
    need("rotate, preview", "rotations", "create"),
    need("preview", "rotations", "delete"),
    need("approve, pause, resume, abort, retry, rollback", "rotations", "patch"),
    need("revoke, hold, release, import", "devicecertificates", "patch"),
    need("revoke, hold (many)", "revocations", "create"),
    need("revoke, hold, release (many)", "revocations", "patch"),
];

/// What the user may do, from what the API server answered to each need.
pub fn rights(answers: &[(Need, bool)], namespace: &str) -> Finding {
    let about = "your rights";
    let missing: Vec<_> = answers
        .iter()
        .filter(|(_, allowed)| !allowed)
        .map(|(need, _)| *need)
        .collect();
    if missing.is_empty() {
        return Finding::ok(about, format!("every command may be used in namespace {namespace}"));
    }
    let words: Vec<_> = missing
        .iter()
        .map(|need| format!("{} {} ({})", need.verb, need.resource, need.command))
        .collect();
    let may_look = answers.iter().any(|(need, allowed)| *allowed && need.verb == "list");
    // Who only looks on is as it should be; who can see nothing is not.
    let level = if may_look { Level::Ok } else { Level::Fault };
    let finding = Finding::bad(
        level,
        about,
        format!("in namespace {namespace} you may not {}", words.join("; ")),
    );
    if may_look {
        finding
    } else {
        finding.then("have somebody bind you to one of the chart's ClusterRoles (viewer, operator, approver, revoker)")
    }
}

const fn its(group: &'static str, resource: &'static str, verb: &'static str) -> Need {
    Need {
        command: "the controller",
        group,
        resource,
        verb,
    }
}

/// What the controller needs where its objects are: something of each rule that the chart gives it.
pub const CONTROLLER_NEEDS: &[Need] = &[
    its(certwave_crds::GROUP, "certificateauthorities", "watch"),
    its(certwave_crds::GROUP, "brokers", "watch"),
    its(certwave_crds::GROUP, "fleets", "watch"),
    its(certwave_crds::GROUP, "devicecertificates", "watch"),
    its(certwave_crds::GROUP, "rotations", "watch"),
    its(certwave_crds::GROUP, "revocations", "watch"),
    its(certwave_crds::GROUP, "devicecertificates", "get"),
    its(certwave_crds::GROUP, "fleets", "get"),
    its(certwave_crds::GROUP, "certificateauthorities/status", "patch"),
    its(certwave_crds::GROUP, "brokers/status", "patch"),
    its(certwave_crds::GROUP, "fleets/status", "patch"),
    its(certwave_crds::GROUP, "devicecertificates/status", "patch"),
    its(certwave_crds::GROUP, "rotations/status", "patch"),
    its(certwave_crds::GROUP, "revocations/status", "patch"),
    its(certwave_crds::GROUP, "rotations", "create"),
    its("", "secrets", "get"),
    its("", "secrets", "create"),
    its("", "secrets", "patch"),
    its("", "configmaps", "patch"),
    its("events.k8s.io", "events", "create"),
];

/// What the controller may do, from what the API server answered to each need; `account` is its service account.
pub fn controllers_rights(answers: &[(Need, bool)], account: &str, namespace: &str) -> Finding {
    let about = "controller's rights";
    let missing: Vec<_> = answers
        .iter()
        .filter(|(_, allowed)| !allowed)
        .map(|(need, _)| format!("{} {}", need.verb, need.resource))
        .collect();
    if missing.is_empty() {
        return Finding::ok(about, format!("{account} may do its work in namespace {namespace}"));
    }
    let words = format!("in namespace {namespace} {account} may not {}", missing.join(", "));
    Finding::bad(Level::Fault, about, words).then(
        "helm upgrade gives it what it needs; where watchNamespace is set, the controller works in that namespace alone",
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::{from_value, json};

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn installed(schema: &Value) -> Value {
        json!({
            "spec": {"versions": [{"name": "v1alpha1", "served": true, "schema": {"openAPIV3Schema": schema}}]},
            "status": {"conditions": [{"type": "Established", "status": "True"}]},
        })
    }

    #[test]
    fn a_crd_that_is_missing_or_old_is_told_by_its_field() {
        let ours = installed(
            &json!({"properties": {"spec": {"properties": {"a": {}, "list": {"items": {"properties": {"b": {}}}}}}}}),
        );
        assert_eq!(crd("x", &ours, None).level, Level::Fault);
        assert_eq!(crd("x", &ours, Some(&ours)).level, Level::Ok);
        let old = installed(
            &json!({"properties": {"spec": {"properties": {"a": {}, "list": {"items": {"properties": {}}}}}}}),
        );
        let found = crd("x", &ours, Some(&old));
        assert!(
            found.level == Level::Warning && found.message.contains("spec.list[].b"),
            "{found:?}"
        );
        let newer = crd("x", &old, Some(&ours));
        assert!(newer.message.contains("newer"), "{newer:?}");
    }

    #[test]
    fn a_leader_renews_its_lease() {
        let now = at("2026-11-21T12:00:00Z");
        let lease = |holder: &str, renewed: &str| -> Lease {
            from_value(json!({"metadata": {}, "spec": {"holderIdentity": holder, "renewTime": renewed}})).unwrap()
        };
        assert_eq!(leader(None, "certwave-system", now).level, Level::Fault);
        assert_eq!(
            leader(Some(&lease("c-0", "2026-11-21T11:59:55.000000Z")), "s", now).level,
            Level::Ok
        );
        assert_eq!(
            leader(Some(&lease("c-0", "2026-11-21T11:58:00.000000Z")), "s", now).level,
            Level::Fault
        );
        assert_eq!(
            leader(Some(&lease("", "2026-11-21T11:59:55.000000Z")), "s", now).level,
            Level::Fault
        );
    }

    #[test]
    fn a_broker_is_looked_after_by_whoever_holds_its_lease() {
        let now = at("2026-11-21T12:00:00Z");
        let broker: Broker = from_value(json!({
            "metadata": {"namespace": "plant", "name": "main"},
            "spec": {"id": "main", "url": "mqtts://b:8883", "trust": {"issuerRef": {"name": "ca"}}, "issuerRef": {"name": "ca"}},
        }))
        .unwrap();
        let judge = |lease: Option<serde_json::Value>| {
            let lease = lease.map(|spec| from_value(json!({"metadata": {}, "spec": spec})).unwrap());
            attended(&broker, lease.as_ref(), "certwave-system", now)
        };
        let there = judge(Some(
            json!({"holderIdentity": "c-1", "renewTime": "2026-11-21T11:59:55.000000Z"}),
        ));
        assert!(there.level == Level::Ok && there.message.contains("c-1"), "{there:?}");
        for none in [
            None,
            Some(json!({"holderIdentity": "", "renewTime": "2026-11-21T11:59:55.000000Z"})),
            Some(json!({"holderIdentity": "c-1", "renewTime": "2026-11-21T11:58:00.000000Z"})),
        ] {
            let found = judge(none);
            assert!(
                found.level == Level::Fault && found.about.contains("plant/main"),
                "{found:?}"
            );
            assert!(found.message.contains("nobody looks after it"), "{found:?}");
        }
    }

    #[test]
    fn clocks_are_compared_as_far_as_the_answer_allows() {
        let server = at("2026-11-21T12:00:00Z");
        let judge = |sent: &str, heard: &str| clock(server, at(sent), at(heard)).level;
        assert_eq!(judge("2026-11-21T12:00:00Z", "2026-11-21T12:00:01Z"), Level::Ok);
        // A slow answer is no skew.
        assert_eq!(judge("2026-11-21T11:59:00Z", "2026-11-21T12:00:10Z"), Level::Ok);
        assert_eq!(judge("2026-11-21T12:05:00Z", "2026-11-21T12:05:01Z"), Level::Warning);
        assert_eq!(judge("2026-11-21T11:50:00Z", "2026-11-21T11:50:01Z"), Level::Warning);
    }

    #[test]
    fn a_controller_that_may_not_do_its_work_is_told_what() {
        let all: Vec<_> = CONTROLLER_NEEDS.iter().map(|need| (*need, true)).collect();
        assert_eq!(controllers_rights(&all, "certwave", "plant").level, Level::Ok);
        let some: Vec<_> = CONTROLLER_NEEDS
            .iter()
            .map(|need| (*need, need.resource != "secrets"))
            .collect();
        let found = controllers_rights(&some, "certwave", "plant");
        assert!(
            found.level == Level::Fault && found.message.contains("get secrets, create secrets, patch secrets"),
            "{found:?}"
        );
    }

    #[test]
    fn who_only_looks_on_is_well_and_who_sees_nothing_is_not() {
        let some: Vec<_> = NEEDS
            .iter()
            .map(|need| (*need, need.verb == "list" || need.verb == "get"))
            .collect();
        let viewer = rights(&some, "plant");
        assert!(
            viewer.level == Level::Ok && viewer.message.contains("patch rotations (approve"),
            "{viewer:?}"
        );
        let none: Vec<_> = NEEDS.iter().map(|need| (*need, false)).collect();
        assert_eq!(rights(&none, "plant").level, Level::Fault);
    }
}

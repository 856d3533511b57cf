//! Who may do what: the cluster roles for people, and the policy that tells fields apart.

use std::time::Duration;

use anyhow::{Result, ensure};
use certwave_e2e::api::ApiServer;
use certwave_e2e::chart::template;
use certwave_e2e::stack::objects;
use certwave_e2e::{tools, wait_for};
use serde_json::json;

use crate::shared;

const WITHIN: Duration = Duration::from_secs(30);
const APPROVAL: &str = r#"{"spec":{"control":{"approval":{"throughWave":1}}}}"#;
const FURTHER: &str = r#"{"spec":{"control":{"approval":{"throughWave":2}}}}"#;
const TAKEN_BACK: &str = r#"{"spec":{"control":{"approval":null}}}"#;
const ANSWER: &str = r#"{"spec":{"control":{"resume":"INC-4711","approval":null}}}"#;
const PAUSE: &str = r#"{"spec":{"control":{"state":"Paused"}}}"#;
const REVOCATION: &str = r#"{"spec":{"revocation":{"reason":"keyCompromise"}}}"#;
const LABELS: &str = r#"{"spec":{"labels":{"ring":"canary"}}}"#;
const PEOPLE: [&str; 4] = ["viewer", "operator", "approver", "revoker"];

/// Somebody tries something; what kubectl says.
fn attempt(api: &ApiServer, namespace: &str, who: &str, what: &[&str]) -> Result<String> {
    let mut command = api.kubectl_command();
    command.args(["--namespace", namespace, "--as", who]);
    tools::output(command.args(what))
}

fn patch<'a>(object: &'a str, change: &'a str) -> [&'a str; 6] {
    ["patch", object, "--type=merge", "--dry-run=server", "-p", change]
}

/// Whether somebody may do something; nothing but a lack of rights refuses it.
fn may(api: &ApiServer, namespace: &str, who: &str, what: &[&str]) -> bool {
    match attempt(api, namespace, who, what) {
        Ok(_) => true,
        Err(error) => {
            let said = format!("{error:#}").to_lowercase();
            assert!(said.contains("forbidden"), "{who} {what:?}: {said}");
            false
        }
    }
}

/// A namespace with one person of each role, the Rotation `run` and the device `meter-1`, and the policies in force.
async fn people(api: &ApiServer, name: &str) -> String {
    let rendered = tools::output(template().unwrap().args(["--show-only", "templates/people.yaml"])).unwrap();
    api.apply(&rendered).unwrap();
    let namespace = api.namespace(name).await.unwrap();
    for who in PEOPLE {
        let binding = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": { "name": who, "namespace": namespace },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": format!("certwave-{who}") },
            "subjects": [{ "kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": who }],
        });
        api.apply(&binding.to_string()).unwrap();
    }
    let list = objects::list(&[
        objects::rotation(&namespace, "run"),
        objects::device(&namespace, "meter-1"),
    ]);
    api.apply(&list).unwrap();

    // A policy takes a moment to be in force.
    wait_for("the policies to be in force", WITHIN, || async {
        for change in [
            patch("rotation/run", APPROVAL),
            patch("devicecertificate/meter-1", REVOCATION),
        ] {
            ensure!(attempt(api, &namespace, "operator", &change).is_err());
        }
        Ok(())
    })
    .await
    .unwrap();
    namespace
}

#[tokio::test]
async fn approving_revoking_and_operating_can_be_given_to_different_people() {
    let api = shared::api().await;
    let namespace = people(&api, "people").await;
    let may = |who: &str, what: &[&str]| may(&api, &namespace, who, what);
    let attempts: [(&str, Vec<&str>, &[&str]); 6] = [
        ("see", vec!["get", "rotations,devicecertificates"], &PEOPLE),
        ("approve", patch("rotation/run", APPROVAL).to_vec(), &["approver"]),
        ("pause", patch("rotation/run", PAUSE).to_vec(), &["operator"]),
        (
            "revoke",
            patch("devicecertificate/meter-1", REVOCATION).to_vec(),
            &["revoker"],
        ),
        (
            "relabel",
            patch("devicecertificate/meter-1", LABELS).to_vec(),
            &["operator"],
        ),
        (
            "delete",
            vec!["delete", "rotation/run", "--dry-run=server"],
            &["operator"],
        ),
    ];
    for (what, arguments, allowed) in attempts {
        for who in PEOPLE.into_iter().chain(["nobody"]) {
            assert_eq!(may(who, &arguments), allowed.contains(&who), "{who} to {what}");
        }
    }
    for (who, verdict) in [
        ("viewer", "no"),
        ("operator", "no"),
        ("approver", "no"),
        ("revoker", "yes"),
    ] {
        let mut command = api.kubectl_command();
        command.args([
            "--namespace",
            &namespace,
            "--as",
            who,
            "auth",
            "can-i",
            "create",
            "revocations",
        ]);
        let said = command.output().unwrap();
        assert_eq!(String::from_utf8_lossy(&said.stdout).trim(), verdict, "{who}");
    }
    let said = attempt(&api, &namespace, "operator", &patch("rotation/run", APPROVAL)).unwrap_err();
    assert!(said.to_string().contains("certwave-approver"), "{said:#}");

    // Bringing one along at creation is no way round.
    let mut device = objects::device(&namespace, "meter-2");
    device["spec"]["revocation"] = json!({ "reason": "keyCompromise" });
    let file = tempfile::NamedTempFile::with_suffix(".json").unwrap();
    std::fs::write(file.path(), device.to_string()).unwrap();
    let file = file.path().display().to_string();
    assert!(!may("operator", &["create", "--dry-run=server", "-f", &file]));
}

#[tokio::test]
async fn an_approval_is_taken_back_by_whoever_operates_and_changed_by_approvers_alone() {
    let api = shared::api().await;
    let namespace = people(&api, "approved").await;
    let approve = ["patch", "rotation/run", "--type=merge", "-p", APPROVAL];
    attempt(&api, &namespace, "approver", &approve).unwrap();
    // As docs/rotations.md answers a breach.
    let changes: [(&str, &[&str]); 4] = [
        (TAKEN_BACK, &["operator", "approver"]),
        (ANSWER, &["operator"]),
        (FURTHER, &["approver"]),
        (PAUSE, &["operator"]),
    ];
    for (change, allowed) in changes {
        for who in PEOPLE {
            let may = may(&api, &namespace, who, &patch("rotation/run", change));
            assert_eq!(may, allowed.contains(&who), "{who} to {change}");
        }
    }
}

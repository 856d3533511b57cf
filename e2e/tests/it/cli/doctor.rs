//! What is wrong is found, and said with what to do.

use std::process::Stdio;

use anyhow::Context as _;
use certwave_e2e::api::ApiServer;
use certwave_e2e::stack::{Stack, by_clock};
use certwave_e2e::wait_for;
use serde_json::{Value, json};

use super::plugin::Plugin;
use crate::faults::world::{SOON, World};
use crate::shared;

fn findings(checkup: &Value, about: &str) -> Vec<(String, String)> {
    let all = checkup["findings"].as_array().unwrap().iter();
    let text = |finding: &Value, field: &str| finding[field].as_str().unwrap_or_default().to_owned();
    all.filter(|finding| text(finding, "about").starts_with(about))
        .map(|finding| {
            (
                text(finding, "level"),
                format!("{} -> {}", text(finding, "message"), text(finding, "do")),
            )
        })
        .collect()
}

#[tokio::test]
async fn a_stack_that_is_well_is_found_well_and_each_fault_is_named() {
    let mut world = World::new("cli-doctor", 10).await;
    world.enrol("d", 1, &[]).await;
    let plugin = Plugin::of(&world.stack);
    // A change may just be on its way.
    let well = wait_for("nothing to be wrong", SOON, || async {
        let well: Value = serde_json::from_str(&plugin.try_run(&["doctor", "-o", "json"]).out)?;
        let all = well["findings"].as_array().context("no findings")?;
        // The stack's broker has no adapter, which is to be said.
        let untold = |finding: &&Value| {
            finding["message"]
                .as_str()
                .is_some_and(|text| text.contains("NoAdapter"))
        };
        anyhow::ensure!(all.iter().any(|finding| untold(&finding)), "{all:#?}");
        let wrong = |finding: &&Value| finding["level"] != "ok" && !untold(finding);
        let bad: Vec<_> = all.iter().filter(wrong).collect();
        anyhow::ensure!(bad.is_empty(), "{bad:#?}");
        Ok(well.clone())
    });
    let well = world.told(well.await);
    assert_eq!(findings(&well, "CRD ").len(), 6);
    assert!(plugin.run(&["doctor"]).contains("0 faults"));

    // Eight days later, by this machine's clock, and nobody has made CRLs meanwhile.
    let mut command = plugin.command(&["doctor", "-o", "json"]);
    by_clock(&mut command, "+8d").unwrap();
    let late = command.output().unwrap();
    assert_eq!(late.status.code(), Some(7), "{late:?}");
    let late: Value = serde_json::from_slice(&late.stdout).unwrap();
    let ca = findings(&late, "CertificateAuthority");
    assert!(
        ca.iter()
            .any(|(level, words)| level == "fault" && words.contains("CRL") && words.contains("lock everybody out")),
        "{ca:#?}"
    );
    assert_eq!(findings(&late, "clocks")[0].0, "warning");

    // The broker goes, and then the controller.
    world.stack.broker.stop().unwrap();
    let told = wait_for("the broker's fault", SOON, || async {
        let checkup: Value = serde_json::from_str(&plugin.try_run(&["doctor", "-o", "json"]).out)?;
        let broker = findings(&checkup, "Broker");
        anyhow::ensure!(
            broker
                .iter()
                .any(|(level, words)| level == "fault" && words.contains("broker's log")),
            "{broker:?}"
        );
        Ok(())
    });
    world.told(told.await);
    world.stack.stop_controller().unwrap();
    let told = wait_for("nobody to lead", SOON + SOON, || async {
        let checkup: Value = serde_json::from_str(&plugin.try_run(&["doctor", "-o", "json"]).out)?;
        let controller = findings(&checkup, "controller");
        anyhow::ensure!(
            controller[0].0 == "fault" && controller[0].1.contains("get pods"),
            "{controller:?}"
        );
        Ok(())
    });
    told.await.unwrap();
}

#[tokio::test]
async fn crds_that_are_missing_or_old_are_named() {
    let server = ApiServer::start().await.unwrap();
    let run = |arguments: &[&str]| {
        let mut command = std::process::Command::new(certwave_e2e::programs::plugin().unwrap());
        command
            .arg("--kubeconfig")
            .arg(server.kubeconfig())
            .args(arguments)
            .stdin(Stdio::null());
        command.output().unwrap()
    };
    let bare = run(&["doctor", "-o", "json"]);
    assert_eq!(bare.status.code(), Some(7));
    let bare: Value = serde_json::from_slice(&bare.stdout).unwrap();
    let missing = findings(&bare, "CRD ");
    assert_eq!(missing.len(), 6);
    assert!(
        missing
            .iter()
            .all(|(level, words)| level == "fault" && words.contains("crds/")),
        "{missing:#?}"
    );
    assert!(findings(&bare, "controller")[0].1.contains("no controller has run"));
    // Other commands say it, too.
    let status = run(&["status"]);
    assert_eq!(status.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&status.stderr).contains("CRDs are not installed"));

    // CRDs from before a field was there.
    server.apply_crds().unwrap();
    let old = json!([{ "op": "remove",
        "path": "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/cutoff" }]);
    let rule = json!([{ "op": "remove", "path": "/spec/versions/0/schema/openAPIV3Schema/properties/spec/x-kubernetes-validations" }]);
    for change in [rule, old] {
        let (change, crd) = (change.to_string(), "rotations.certwave.dev");
        server
            .kubectl(["patch", "crd", crd, "--type=json", "-p", &change])
            .unwrap();
    }
    let aged: Value = serde_json::from_slice(&run(&["doctor", "-o", "json"]).stdout).unwrap();
    let rotations = findings(&aged, "CRD rotations");
    assert!(
        rotations[0].0 == "warning" && rotations[0].1.contains("spec.cutoff"),
        "{rotations:?}"
    );
}

#[tokio::test]
async fn an_api_server_that_is_not_there_is_told_by_its_exit_code() {
    let api = shared::api().await;
    let text = std::fs::read_to_string(api.kubeconfig()).unwrap();
    let address = text
        .split("https://")
        .nth(1)
        .unwrap()
        .split(['"', '\n', ' '])
        .next()
        .unwrap()
        .to_owned();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("kubeconfig");
    std::fs::write(&file, text.replace(&address, "127.0.0.1:1")).unwrap();
    let mut command = std::process::Command::new(certwave_e2e::programs::plugin().unwrap());
    let output = command.arg("--kubeconfig").arg(&file).arg("status").output().unwrap();
    assert_eq!(output.status.code(), Some(5), "{output:?}");
    let none = std::process::Command::new(certwave_e2e::programs::plugin().unwrap())
        .args(["--kubeconfig", "/nowhere", "status"])
        .output()
        .unwrap();
    assert_eq!(none.status.code(), Some(5), "{none:?}");
}

#[tokio::test]
async fn rights_that_the_controller_lacks_are_named() {
    let mut stack = Stack::on(shared::api().await, "cli-doctor-rights").await.unwrap();
    stack.confine().await.unwrap();
    let world = World::on(stack, 10).await;
    let (namespace, plugin) = (world.stack.namespace(), Plugin::of(&world.stack));
    // The Lease names a pod, and the pod its account.
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "certwave-0", "namespace": namespace },
        "spec": {
            "serviceAccountName": "confined-certwave-controller",
            "containers": [{ "name": "certwave", "image": "certwave:test" }],
        },
    });
    world.stack.api.apply(&pod.to_string()).unwrap();
    let judged = || -> anyhow::Result<Vec<(String, String)>> {
        let said = plugin.try_run(&["doctor", "-o", "json"]);
        Ok(findings(&serde_json::from_str(&said.out)?, "controller's rights"))
    };
    let well = judged().unwrap();
    assert!(matches!(&well[..], [(level, _)] if level == "ok"), "{well:?}");

    let binding = format!("{namespace}-confined-certwave-controller");
    world
        .stack
        .api
        .kubectl(["delete", "rolebinding", &binding, "-n", namespace])
        .unwrap();
    let named = wait_for("the missing rights to be named", SOON, || async {
        let found = judged()?;
        let [(level, words)] = &found[..] else {
            anyhow::bail!("{found:?}")
        };
        anyhow::ensure!(
            level == "fault" && words.contains("may not watch certificateauthorities"),
            "{found:?}"
        );
        Ok(())
    });
    named.await.unwrap();
}

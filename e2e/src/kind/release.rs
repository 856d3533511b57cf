//! The chart's release.

use std::process::Command;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{NAMESPACE, images};
use crate::api::ApiServer;
use crate::chart::{self, RELEASE};
use crate::scratch::Scratch;
use crate::stack::objects::CA;
use crate::tools;

/// The Service of the controllers, and that of the responders.
pub(super) const SERVICES: [&str; 2] = [RELEASE, "certwave-responder"];

/// How the chart is installed here: two replicas on `PostgreSQL`, a responder, and Mosquitto with its companion.
fn values(tag: &str) -> Value {
    json!({
        "image": { "repository": format!("{}/certwave", images::REPOSITORY), "tag": tag },
        "replicas": 2,
        "ledger": {
            "type": "postgres",
            "postgres": {
                // A network of one node, that nobody else is on.
                "url": format!("postgres://certwave@postgres.{NAMESPACE}.svc/certwave?sslmode=disable"),
                "passwordSecret": { "name": "postgres", "key": "password" },
            },
        },
        "publicationBaseURL": publication(),
        "responder": { "enabled": true, "replicas": 1, "authorities": [CA] },
        "mosquitto": {
            "enabled": true,
            "image": { "repository": "certwave-e2e/mosquitto", "tag": images::TAG },
        },
    })
}

/// The base URL of CRLs and OCSP, which devices and broker reach in the cluster.
pub(super) fn publication() -> String {
    format!("http://{RELEASE}.{NAMESPACE}.svc")
}

/// Installs the chart with the image of this tag, or upgrades to it.
///
/// # Errors
/// When Helm refuses.
pub(super) fn install(api: &ApiServer, scratch: &Scratch, tag: &str) -> Result<()> {
    let file = scratch.write("values.json", values(tag).to_string())?;
    let mut install = helm(api)?;
    install.args(["upgrade", "--install", RELEASE]).arg(chart::directory());
    install.arg("--values").arg(file);
    tools::output(&mut install).map(drop)
}

/// Installs what an upgrade comes from: the chart in the directory or package `CERTWAVE_PREVIOUS_CHART`, else this one.
///
/// # Errors
/// When Helm refuses.
pub(super) fn install_previous(api: &ApiServer, scratch: &Scratch) -> Result<()> {
    let chart = std::env::var_os("CERTWAVE_PREVIOUS_CHART").filter(|value| !value.is_empty());
    let file = scratch.write("values.json", values(images::TAG_BEFORE).to_string())?;
    let mut install = helm(api)?;
    install
        .args(["install", RELEASE])
        .arg(chart.unwrap_or_else(|| chart::directory().into()));
    install.arg("--values").arg(file);
    tools::output(&mut install).map(drop)
}

/// Takes the release away.
///
/// # Errors
/// When Helm refuses.
pub(super) fn uninstall(api: &ApiServer) -> Result<()> {
    let mut uninstall = helm(api)?;
    tools::output(uninstall.args(["uninstall", RELEASE, "--wait", "--timeout", "2m"])).map(drop)
}

/// Waits until the controllers run as they were installed last.
///
/// # Errors
/// When they do not get there.
pub(super) fn wait(api: &ApiServer) -> Result<()> {
    let deployment = format!("deployment/{RELEASE}-controller");
    let status = [
        "--namespace",
        NAMESPACE,
        "rollout",
        "status",
        &deployment,
        "--timeout=3m",
    ];
    api.kubectl(status).map(drop).with_context(|| state(api))
}

/// `helm test`: the doctor finds nothing wrong.
///
/// # Errors
/// When it does; with what it says.
pub(super) fn test(api: &ApiServer) -> Result<()> {
    let mut test = helm(api)?;
    tools::output(test.args(["test", RELEASE, "--logs", "--timeout", "2m"])).map(drop)
}

/// What an error message shows of the namespace.
pub(super) fn state(api: &ApiServer) -> String {
    let look = |arguments: &[&str]| {
        let all = ["--namespace", NAMESPACE].into_iter().chain(arguments.iter().copied());
        api.kubectl(all).unwrap_or_else(|error| format!("{error:#}"))
    };
    let mut shown = vec![
        look(&["get", "pods,certwave", "--ignore-not-found", "-o", "wide"])
            .lines()
            .take(60)
            .collect::<Vec<_>>()
            .join("\n"),
        look(&[
            "get",
            "events",
            "--field-selector=type=Warning",
            "--sort-by=.lastTimestamp",
        ]),
    ];
    // One after the other: asked for all at once, kubectl says nothing at all where one has not begun.
    let names =
        "{range .items[*]}{.metadata.name}{range .spec['initContainers','containers'][*]} {.name}{end}{'\\n'}{end}";
    let release = format!("app.kubernetes.io/instance={RELEASE}");
    let pods = look(&[
        "get",
        "pods",
        "--selector",
        &release,
        "-o",
        &format!("jsonpath={names}"),
    ]);
    for pod in pods.lines() {
        let mut words = pod.split_whitespace();
        let Some(name) = words.next() else { continue };
        for container in words {
            let said = look(&["logs", name, "--container", container, "--tail=15"]);
            shown.push(format!("{name} {container}:\n{said}"));
        }
    }
    shown.join("\n")
}

fn helm(api: &ApiServer) -> Result<Command> {
    let mut command = Command::new(tools::helm()?);
    command
        .env("KUBECONFIG", api.kubeconfig())
        .args(["--namespace", NAMESPACE]);
    Ok(command)
}

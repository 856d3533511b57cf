//! A revoked device, as CRL, OCSP, the broker and its live session show it.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;
use std::{env, iter};

use anyhow::{Context, Result, ensure};
use certwave_crds::{CertificateAuthority, DeviceCertificate};
use serde_json::Value;

use super::cluster::Cluster;
use super::objects::Group;
use super::release;
use crate::process::Process;
use crate::screen::Screen;
use crate::stack::objects::CA;
use crate::{ports, programs, tools, wait_for};

const SHOWN: Duration = Duration::from_mins(1);

/// Revokes the device and looks at what follows from it.
pub(super) async fn revoke(cluster: &Cluster, screen: &mut Screen, device: &str, group: Group) -> Result<()> {
    let all = u64::try_from(group.devices)?;
    connected(cluster, group, all).await?;
    let change = r#"{"spec":{"revocation":{"reason":"keyCompromise"}}}"#;
    let target = format!("devicecertificate/{device}");
    cluster.kubectl(&["patch", &target, "--type=merge", "-p", change])?;
    let devices = cluster.objects::<DeviceCertificate>();
    let shown = wait_for("the revocation to take effect", SHOWN, || async {
        let status = devices.get(device).await?.status.and_then(|status| status.revocation);
        let status = status.context("nothing is shown yet")?;
        ensure!(
            status.shut_at.is_some() && status.session_closed_at.is_some(),
            "{status:?}"
        );
        Ok(())
    });
    shown.await.with_context(|| release::state(&cluster.api))?;
    // Its session ended, it does not get in again, and nobody else's ended for good.
    connected(cluster, group, all - 1).await?;
    still_revoked(cluster, device).await?;
    told(cluster, device)?;
    screen.say(&format!(
        "   {device}: in the CRL, revoked by OCSP, shut out by the broker, session closed"
    ));
    Ok(())
}

/// `kubectl certwave inspect` has what the ledger knows of the device, through a port of a controller's pod.
fn told(cluster: &Cluster, device: &str) -> Result<()> {
    let mut inspect = Command::new(programs::in_image("kubectl-certwave")?);
    inspect.args([
        "inspect",
        device,
        "--output",
        "json",
        "--namespace",
        super::NAMESPACE,
        "--kubeconfig",
    ]);
    inspect.arg(cluster.api.kubeconfig());
    if let Some(directory) = tools::kubectl()?.parent() {
        let paths = env::var_os("PATH").unwrap_or_default();
        let paths = iter::once(directory.to_owned()).chain(env::split_paths(&paths));
        inspect.env("PATH", env::join_paths(paths)?);
    }
    let told: Value = serde_json::from_str(&tools::output(&mut inspect)?)?;
    ensure!(told["ledgerNotRead"].is_null(), "{}", told["ledgerNotRead"]);
    let history = told["history"].as_array().context("no history")?;
    let recorded = history.iter().filter(|line| line["source"] == "ledger").count();
    // It has enrolled, rotated, and was revoked.
    ensure!(recorded >= 3, "{device}: {history:#?}");
    Ok(())
}

/// The CRL and OCSP say that the device's certificates are revoked.
pub(super) async fn still_revoked(cluster: &Cluster, device: &str) -> Result<()> {
    let status = cluster
        .objects::<DeviceCertificate>()
        .get(device)
        .await?
        .status
        .unwrap_or_default();
    let revoked = status.revocation.context("no revocation is shown")?;
    let serials: Vec<_> = revoked
        .certificates
        .iter()
        .map(|certificate| certificate.serial.clone())
        .collect();
    ensure!(!serials.is_empty(), "{device} shows no revoked certificate");
    let authority = cluster
        .objects::<CertificateAuthority>()
        .get(CA)
        .await?
        .status
        .unwrap_or_default();
    let key = authority.key_id.context("the CA shows no key id")?;
    let root = cluster.scratch.write(
        "root.pem",
        authority.certificate.context("the CA shows no certificate")?,
    )?;
    let [controllers, responders] = release::SERVICES;
    let controllers = Forward::start(cluster, controllers).await?;
    let responders = Forward::start(cluster, responders).await?;
    let list = list(&controllers.url, &key, &root)?;
    for serial in &serials {
        let serial = serial.to_uppercase();
        ensure!(list.contains(&serial), "the CRL does not list {serial}");
        for base in [&controllers, &responders] {
            let said = ask(&base.url, &key, &root, &serial)?;
            ensure!(said.contains(": revoked"), "{} says of {serial}: {said}", base.service);
        }
    }
    Ok(())
}

async fn connected(cluster: &Cluster, group: Group, expected: u64) -> Result<()> {
    let what = format!("{expected} devices of group {} to be connected", group.name);
    wait_for(&what, SHOWN, || async {
        let now = cluster.simulator(&group, "connected")?;
        ensure!(now == expected, "{now} are connected");
        Ok(())
    })
    .await
}

/// The CRL of all partitions, in OpenSSL's words, its signature verified.
fn list(base: &str, key: &str, root: &PathBuf) -> Result<String> {
    let mut command = Command::new(tools::openssl()?);
    command.args(["crl", "-noout", "-text", "-verify", "-CAfile"]).arg(root);
    tools::output(command.args(["-in", &format!("{base}/crl/{key}/full.crl")]))
}

/// What OCSP says of one serial number, in OpenSSL's words, its signature verified.
fn ask(base: &str, key: &str, root: &PathBuf, serial: &str) -> Result<String> {
    let mut command = Command::new(tools::openssl()?);
    command
        .args(["ocsp", "-no_nonce", "-issuer"])
        .arg(root)
        .arg("-CAfile")
        .arg(root);
    command.args(["-serial", &format!("0x{serial}"), "-url", &format!("{base}/ocsp/{key}")]);
    tools::output(&mut command)
}

/// A Service, on loopback.
struct Forward {
    service: &'static str,
    url: String,
    _process: Process,
}

impl Forward {
    async fn start(cluster: &Cluster, service: &'static str) -> Result<Self> {
        let port = ports::free()?;
        let mut command = cluster.api.kubectl_command();
        command.args([
            "--namespace",
            super::NAMESPACE,
            "port-forward",
            &format!("service/{service}"),
        ]);
        command.arg(format!("{port}:80"));
        let mut process = Process::spawn(
            "port-forward",
            &command,
            &cluster.scratch.path().join(format!("{service}.log")),
        )?;
        process
            .wait_ready(([127, 0, 0, 1], port).into(), "/readyz", SHOWN)
            .await?;
        Ok(Self {
            service,
            url: format!("http://127.0.0.1:{port}"),
            _process: process,
        })
    }
}

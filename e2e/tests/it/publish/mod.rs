//! CRLs as relying parties get them from a controller that runs on its own, and what becomes of them after a restore.

mod full;
mod judges;
mod killed;
mod put_back;
mod skew;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use certwave_crds::CertificateAuthority;
use certwave_e2e::stack::{FleetOptions, Stack, objects};
use certwave_e2e::{http, ports, programs, tools, wait_for};
use k8s_openapi::api::core::v1::Secret;
use serde_json::json;

use crate::cli::plugin::Plugin;
use crate::faults::world::patch;
use crate::shared;

const SOON: Duration = Duration::from_mins(1);
const OPTIONS: FleetOptions = FleetOptions {
    max_in_flight: 5,
    step_timeout: "10s",
    trial_timeout: "5s",
    job_timeout: "30s",
};

/// A stack whose controller has made the broker's certificate, and with it the CRL of its month.
async fn stack() -> Stack {
    let mut stack = Stack::on(shared::api().await, "publish").await.unwrap();
    stack.apply_foundation(&OPTIONS).unwrap();
    stack.start_controller().await.unwrap();
    wait_for("the broker's certificate", SOON, || async {
        Ok(stack.objects::<Secret>().get(objects::SERVER_SECRET).await?)
    })
    .await
    .unwrap();
    stack
}

async fn authority(stack: &Stack) -> Result<CertificateAuthority> {
    Ok(stack.objects::<CertificateAuthority>().get(objects::CA).await?)
}

/// Waits until a condition of the CA has this status; answers the CA.
async fn condition(stack: &Stack, kind: &str, status: &str) -> CertificateAuthority {
    wait_for(&format!("{kind}={status}"), SOON, || async {
        let object = authority(stack).await?;
        let conditions = object.status.as_ref().map(|s| s.conditions.clone()).unwrap_or_default();
        let found = conditions
            .into_iter()
            .find(|c| c.type_ == kind)
            .context("not there yet")?;
        ensure!(found.status == status, "{}: {}", found.reason, found.message);
        Ok(object)
    })
    .await
    .unwrap()
}

/// Number of each CRL by the CA's status.
fn numbers(object: &CertificateAuthority) -> Vec<(String, i64)> {
    let crls = &object.status.as_ref().unwrap().crls;
    crls.iter().map(|crl| (crl.partition.clone(), crl.number)).collect()
}

/// The PEM of a CRL as it is served, in a file.
async fn served(stack: &Stack, object: &CertificateAuthority, scope: &str) -> PathBuf {
    let key_id = object.status.as_ref().unwrap().key_id.clone().unwrap();
    let address = stack.http();
    let (status, pem) = http::get(address, &format!("/crl/{key_id}/{scope}.pem")).await.unwrap();
    assert_eq!(status, 200, "{scope}: {pem}");
    let file = stack.directory().join(format!("{scope}.pem"));
    std::fs::write(&file, pem).unwrap();
    file
}

fn openssl(arguments: &[&str], files: &[&Path]) -> Result<String> {
    let mut command = Command::new("openssl");
    command.args(arguments).args(files);
    tools::output(&mut command)
}

async fn leaf(stack: &Stack) -> (PathBuf, PathBuf) {
    let secret = stack.objects::<Secret>().get(objects::SERVER_SECRET).await.unwrap();
    let data = secret.data.unwrap();
    let file = |key: &str| {
        let file = stack.directory().join(key);
        std::fs::write(&file, &data[key].0).unwrap();
        file
    };
    (file("ca.crt"), file("tls.crt"))
}

#[tokio::test]
async fn openssl_takes_every_crl_that_is_served_and_the_monitor_finds_them_in_order() {
    let stack = stack().await;
    // The month's first CRL was made by who looks after the broker.
    let object = wait_for("the month's CRL to be shown", SOON, || async {
        let object = condition(&stack, "CRLFresh", "True").await;
        ensure!(
            numbers(&object).iter().any(|(scope, _)| scope.starts_with("20")),
            "{:?}",
            object.status
        );
        Ok(object)
    });
    let object = object.await.unwrap();
    let (ca, leaf) = leaf(&stack).await;
    let (ca, scopes) = (ca.to_str().unwrap(), numbers(&object));
    let months: Vec<_> = scopes.iter().filter(|(scope, _)| scope.starts_with("20")).collect();
    for (scope, number) in &scopes {
        let file = served(&stack, &object, scope).await;
        let text = openssl(&["crl", "-noout", "-crlnumber", "-CAfile", ca, "-in"], &[&file]).unwrap();
        assert!(text.contains(&format!("{number:X}")), "{scope}: {number:X}: {text}");
    }
    let whole = served(&stack, &object, "full").await;
    let check = [
        "verify",
        "-x509_strict",
        "-crl_check_all",
        "-CAfile",
        ca,
        "-CRLfile",
        whole.to_str().unwrap(),
    ];
    openssl(&check, &[&leaf]).unwrap();
    let mut covered = 0;
    for (month, _) in months {
        let file = served(&stack, &object, month).await;
        let check = [
            "verify",
            "-crl_check",
            "-CAfile",
            ca,
            "-CRLfile",
            file.to_str().unwrap(),
        ];
        covered += usize::from(openssl(&check, &[&leaf]).is_ok());
    }
    assert_eq!(covered, 1, "a certificate's distribution point names one month's CRL");
    let told = wait_for("the monitor to have looked at each", SOON, || async {
        let metrics = stack.controller_metrics().await?;
        for scope in ["ca", "full", "partition"] {
            let labels = format!("scope=\"{scope}\"");
            let own = format!("namespace=\"{}\"", stack.namespace());
            let found = http::sample(&metrics, "certwave_crl_served_ok", &[&labels, &own]);
            ensure!(found == Some(1.0), "{scope}: {found:?}");
        }
        Ok(())
    });
    told.await.unwrap();
}

#[tokio::test]
async fn ocsp_that_does_not_answer_where_certificates_say_is_told_and_the_doctor_finds_it() {
    let stack = stack().await;
    let publish = async |url: String| {
        let change = json!({ "spec": { "publication": { "baseURL": url, "ocsp": true } } });
        patch::<CertificateAuthority>(&stack, objects::CA, &change).await;
    };
    let here = format!("http://{}", stack.http());
    publish(here.clone()).await;
    condition(&stack, "OCSPFresh", "True").await;
    // Nobody listens there.
    publish(format!("http://127.0.0.1:{}", ports::free().unwrap())).await;
    let object = condition(&stack, "OCSPFresh", "False").await;
    let conditions = object.status.unwrap().conditions;
    let told = conditions.iter().find(|c| c.type_ == "OCSPFresh").unwrap();
    assert_eq!(told.reason, "Unreachable", "{}", told.message);
    let said = Plugin::of(&stack).try_run(&["doctor"]);
    assert!(said.code == 7 && said.out.contains("brokers that ask OCSP"), "{said:?}");
    let events = stack.api.kubectl(["get", "events", "-n", stack.namespace()]).unwrap();
    assert!(events.contains("OCSPUnreachable"), "{events}");
    publish(here).await;
    condition(&stack, "OCSPFresh", "True").await;
}

#[tokio::test]
async fn after_a_restore_crls_go_on_above_the_numbers_that_were_published() {
    let mut stack = stack().await;
    let before = condition(&stack, "CRLFresh", "True").await;
    stack.stop_controller().unwrap();
    let (ledger, backup) = (
        stack.directory().join("ledger.sqlite"),
        stack.directory().join("backup.sqlite"),
    );
    let command = |verb: &str, option: &str| {
        let mut command = Command::new(programs::certwave().unwrap());
        command
            .args(["ledger", verb, "--ledger"])
            .arg(&ledger)
            .arg(option)
            .arg(&backup);
        tools::output(&mut command).unwrap()
    };
    command("backup", "--to");
    command("restore", "--from");
    stack.start_controller().await.unwrap();
    let after = condition(&stack, "LedgerRestored", "False").await;
    condition(&stack, "CRLFresh", "True").await;
    let _ = after;
    wait_for("newer numbers", SOON, || async {
        let after = numbers(&authority(&stack).await?);
        for (scope, number) in numbers(&before) {
            let now = after
                .iter()
                .find(|(other, _)| *other == scope)
                .map(|(_, number)| *number);
            ensure!(now > Some(number), "{scope}: {now:?} after {number}");
        }
        Ok(())
    })
    .await
    .unwrap();
}

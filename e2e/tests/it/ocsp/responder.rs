//! `certwave responder` beside a controller on `SQLite`.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use anyhow::ensure;
use certwave_crds::DeviceCertificate;
use certwave_e2e::process::Process;
use certwave_e2e::stack::{Simulation, Stack, objects};
use certwave_e2e::{http, ports, programs, wait_for};
use k8s_openapi::api::core::v1::Secret;
use kube::api::DeleteParams;
use serde_json::json;

use super::judges::{self, HOLD, KEY_COMPROMISE, Said};
use super::world::{self, Ca, SOON};

/// Puts the signer's Secret into the directory as kubelet does: files are links through one link, which is swapped.
async fn mount(stack: &Stack, directory: &Path) {
    let secret = stack.objects::<Secret>().get("root-ocsp").await.unwrap();
    let version = format!("..{}", secret.metadata.resource_version.unwrap());
    std::fs::create_dir_all(directory.join(&version)).unwrap();
    for (name, content) in secret.data.unwrap() {
        std::fs::write(directory.join(&version).join(&name), content.0).unwrap();
        if !directory.join(&name).is_symlink() {
            symlink(Path::new("..data").join(&name), directory.join(&name)).unwrap();
        }
    }
    symlink(&version, directory.join("..data_tmp")).unwrap();
    std::fs::rename(directory.join("..data_tmp"), directory.join("..data")).unwrap();
}

fn responder(stack: &Stack, address: SocketAddr) -> Process {
    let mut command = Command::new(programs::certwave().unwrap());
    command.args(["responder", "--log-format", "text", "--http", &address.to_string()]);
    command.arg("--ledger").arg(stack.directory().join("ledger.sqlite"));
    command.arg("--signers").arg(stack.directory().join("signers"));
    Process::spawn("responder", &command, &stack.directory().join("responder.log")).unwrap()
}

/// When the signer ends by which the responder at `address` answers.
async fn signer_end(address: SocketAddr) -> Option<f64> {
    let (_, metrics) = http::get(address, "/metrics").await.unwrap();
    http::sample(&metrics, "certwave_ocsp_signer_not_after_timestamp_seconds", &[])
}

#[tokio::test]
async fn a_responder_beside_the_controller_says_the_same_and_goes_on_without_it() {
    let mut stack = world::devices(3).await;
    let ca = world::ca(&stack, objects::CA).await;
    let address: SocketAddr = (Ipv4Addr::LOCALHOST, ports::free().unwrap()).into();
    let mut process = responder(&stack, address);
    // It is alive, but knows nothing before the signers are mounted.
    process.wait_ready(address, "/healthz", SOON).await.unwrap();
    assert_eq!(http::get(address, "/readyz").await.unwrap().0, 503);
    let beside = Ca {
        url: ca.url.replace(&stack.http().to_string(), &address.to_string()),
        ..world::ca(&stack, objects::CA).await
    };
    let ids = [1, 2, 3].map(Simulation::device_id);
    let mut serials = Vec::new();
    for id in &ids {
        serials.push(world::serial(&stack, id).await);
    }
    let asked = beside.asked(&serials[0]);
    assert_eq!(judges::all(asked).unwrap(), judges::try_later());

    let signers = stack.directory().join("signers").join("root");
    mount(&stack, &signers).await;
    process.wait_ready(address, "/readyz", SOON).await.unwrap();
    world::told(asked, Said::Good).await;
    assert_eq!(judges::all(asked).unwrap(), Said::Good);
    for (revocation, expected) in [
        (json!({ "hold": true }), HOLD),
        (json!({ "hold": null, "reason": "keyCompromise" }), KEY_COMPROMISE),
    ] {
        let patch = json!({ "spec": { "revocation": revocation } });
        world::change::<DeviceCertificate>(&stack, &ids[0], &patch).await;
        let after = world::told(asked, expected.clone()).await;
        eprintln!("{expected:?} by the responder {after:?} after it was said");
        assert_eq!(judges::all(asked).unwrap(), expected);
    }

    // Another signer, as after a renewal.
    let before = signer_end(address).await;
    let first = world::signer(&stack, objects::CA).await.unwrap();
    let secrets = stack.objects::<Secret>();
    secrets.delete("root-ocsp", &DeleteParams::default()).await.unwrap();
    world::touch(&stack, objects::CA).await;
    wait_for("another signer", SOON, || async {
        ensure!(world::signer(&stack, objects::CA).await? != first);
        Ok(())
    })
    .await
    .unwrap();
    mount(&stack, &signers).await;
    wait_for("the responder to sign by it", SOON, || async {
        ensure!(judges::openssl(beside.asked(&serials[1]), "sha256", true)? == Said::Good);
        ensure!(signer_end(address).await > before, "the one before");
        Ok(())
    })
    .await
    .unwrap();

    stack.controller().unwrap().kill();
    assert_eq!(judges::all(asked).unwrap(), KEY_COMPROMISE);
    assert_eq!(judges::all(beside.asked(&serials[2])).unwrap(), Said::Good);
    let (_, metrics) = http::get(address, "/metrics").await.unwrap();
    for (name, label) in [
        ("certwave_ocsp_requests_total", "outcome=\"answered\""),
        ("certwave_ocsp_requests_total", "outcome=\"try-later\""),
        ("certwave_ocsp_answers_total", "origin=\"cached\""),
    ] {
        let count = http::sample(&metrics, name, &[label]);
        assert!(count.is_some_and(|count| count > 0.0), "{name} {label}: {count:?}");
    }
    process.check_running().unwrap();
}

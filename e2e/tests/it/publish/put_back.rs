//! A ledger's file that somebody has copied back, without a word to the controller.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use certwave_crds::{CertificateAuthority, DeviceCertificate, DeviceState};
use certwave_e2e::stack::{Stack, objects};
use certwave_e2e::{programs, tools, wait_for};
use certwave_ledger::{Ledger as _, SqliteLedger};
use k8s_openapi::api::core::v1::{ConfigMap, Event};
use kube::api::{DeleteParams, ListParams, PostParams};
use serde_json::json;

use super::{condition, numbers, openssl, served};
use crate::faults::world::{World, patch};

const SOON: Duration = Duration::from_secs(90);
const MAP: &str = "crls";

/// What OpenSSL, asking as a client, is told of a certificate.
fn ocsp(stack: &Stack, object: &CertificateAuthority, serial: &str) -> String {
    let status = object.status.as_ref().unwrap();
    let issuer = stack.directory().join("issuer.pem");
    std::fs::write(&issuer, status.certificate.as_ref().unwrap()).unwrap();
    let mut client = Command::new(tools::openssl().unwrap());
    let (serial, url) = (format!("0x{serial}"), format!("http://{}/ocsp", stack.http()));
    client.args(["ocsp", "-noverify", "-no_nonce", "-issuer"]).arg(&issuer);
    client.args(["-serial", &serial, "-url", &url]);
    let output = client.output().unwrap();
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

/// The lines about a certificate in a CRL as OpenSSL shows it.
fn entry(crl: &Path, serial: &str) -> Option<String> {
    let text = openssl(&["crl", "-noout", "-text", "-in"], &[crl]).unwrap();
    let mut entries = text.split("Serial Number:").skip(1);
    let found = entries.find(|entry| entry.split_whitespace().next() == Some(&serial.to_uppercase()))?;
    Some(found.split("Signature Algorithm").next()?.trim().to_owned())
}

async fn serial_of(stack: &Stack, id: &str) -> String {
    let device = stack.objects::<DeviceCertificate>().get(id).await.unwrap();
    device.status.unwrap().certificates.current.unwrap().serial.unwrap()
}

fn back_up(ledger: &Path, to: &Path) {
    let mut backup = Command::new(programs::certwave().unwrap());
    backup.args(["ledger", "backup", "--ledger"]).arg(ledger);
    tools::output(backup.arg("--to").arg(to)).unwrap();
}

#[tokio::test]
async fn a_ledger_that_was_copied_back_is_found_out_and_completed_before_anything_is_issued() {
    let mut world = World::new("put-back", 5).await;
    let publication = json!({ "spec": { "publication": { "configMapName": MAP } } });
    patch::<CertificateAuthority>(&world.stack, objects::CA, &publication).await;
    let ids = world.enrol("m", 2, &[]).await;
    let directory = world.stack.directory().to_owned();
    let (ledger, copy) = (directory.join("ledger.sqlite"), directory.join("copy.sqlite"));
    // With the controller at work: no epoch ends with it.
    back_up(&ledger, &copy);

    // What the copy does not know: a theft, and a device.
    let stolen = serial_of(&world.stack, &ids[0]).await;
    let revocation = json!({ "spec": { "revocation": { "reason": "keyCompromise" } } });
    patch::<DeviceCertificate>(&world.stack, &ids[0], &revocation).await;
    let later = world.enrol("later", 1, &[]).await;
    let (scope, before, told) = {
        let stack = &world.stack;
        let shown = wait_for("the theft to be shown, listed and written", SOON, || async {
            let device = stack.objects::<DeviceCertificate>().get(&ids[0]).await?;
            let status = device.status.context("no status")?;
            ensure!(status.state == Some(DeviceState::Revoked), "{:?}", status.state);
            let number = status.revocation.and_then(|r| r.crl).context("in no CRL yet")?.number;
            let object = super::authority(stack).await?;
            let scopes = numbers(&object);
            let shown = scopes
                .iter()
                .find(|(scope, shown)| scope.starts_with("20") && *shown >= number);
            let (scope, _) = shown.context("the CA does not show it yet")?;
            let map = stack.objects::<ConfigMap>().get(MAP).await?;
            let file = stack.directory().join("written.crl");
            let crl = map.binary_data.and_then(|mut all| all.remove(&format!("{scope}.crl")));
            std::fs::write(&file, crl.context("not written yet")?.0)?;
            let told = entry(&file, &stolen).context("the written one does not list it")?;
            Ok((scope.clone(), scopes, told))
        });
        world.told(shown.await)
    };
    assert!(told.contains("Key Compromise"), "{told}");
    let later_copy = directory.join("later.sqlite");
    back_up(&ledger, &later_copy);
    let present = SqliteLedger::open(&later_copy)
        .unwrap()
        .provenance()
        .await
        .unwrap()
        .lines;
    world.wait_noted(present).await;

    world.stack.controller().unwrap().kill();
    for ending in ["-wal", "-shm"] {
        let _ = std::fs::remove_file(directory.join(format!("ledger.sqlite{ending}")));
    }
    std::fs::copy(&copy, &ledger).unwrap();
    // Somebody has taken away what it could be completed from.
    let maps = world.stack.objects::<ConfigMap>();
    let written = maps.get(MAP).await.unwrap();
    maps.delete(MAP, &DeleteParams::default()).await.unwrap();
    world.stack.start_controller().await.unwrap();
    let waiting = condition(&world.stack, "LedgerRestored", "True").await;
    let answer = ocsp(&world.stack, &waiting, &stolen);
    assert!(answer.to_lowercase().contains("trylater"), "{answer}");
    assert_eq!(numbers(&waiting), before, "what was published stays shown");
    let new = world.declare("new", 1).await;
    world.switch_on("new", &new, &[]);
    let missing = wait_for("to be told what is missing", SOON, || async {
        let object = super::authority(&world.stack).await?;
        let conditions = object.status.context("no status")?.conditions;
        let found = conditions
            .iter()
            .find(|c| c.type_ == "LedgerRestored")
            .context("none")?;
        ensure!(found.message.contains("accept-lost-crl"), "{}", found.message);
        Ok(())
    });
    world.told(missing.await);
    assert!(!world.certificates().await.contains_key(&new[0]), "nothing is issued");

    let map = ConfigMap {
        metadata: kube::api::ObjectMeta {
            name: Some(MAP.to_owned()),
            ..Default::default()
        },
        binary_data: written.binary_data,
        ..ConfigMap::default()
    };
    maps.create(&PostParams::default(), &map).await.unwrap();
    condition(&world.stack, "LedgerRestored", "False").await;
    let risen = wait_for("numbers above all that were published", SOON, || async {
        let object = super::authority(&world.stack).await?;
        let now = numbers(&object);
        for (scope, number) in &before {
            let risen = now.iter().any(|(other, newer)| other == scope && newer > number);
            ensure!(risen, "{scope}: {number}: {now:?}");
        }
        Ok(object)
    });
    let object = world.told(risen.await);
    // What is served follows within a second.
    let listed = wait_for("the CRL that is served to say its time and reason", SOON, || async {
        let file = served(&world.stack, &object, &scope).await;
        let said = entry(&file, &stolen);
        ensure!(said.as_deref() == Some(told.as_str()), "{said:?} and not {told}");
        Ok(())
    });
    world.told(listed.await);
    let answer = wait_for("OCSP to answer again", SOON, || async {
        let answer = ocsp(&world.stack, &object, &stolen);
        ensure!(!answer.to_lowercase().contains("trylater"), "{answer}");
        Ok(answer)
    });
    let answer = world.told(answer.await);
    assert!(
        answer.contains("revoked") && answer.contains("keyCompromise"),
        "{answer}"
    );
    let events = wait_for("the event", SOON, || async {
        let events = world.stack.objects::<Event>().list(&ListParams::default()).await?;
        let of_ca = |event: &Event| event.involved_object.name.as_deref() == Some(objects::CA);
        let reasons: Vec<_> = events
            .items
            .into_iter()
            .filter(of_ca)
            .filter_map(|event| event.reason)
            .collect();
        ensure!(reasons.iter().any(|reason| reason == "LedgerRecovered"), "{reasons:?}");
        Ok(())
    });
    world.told(events.await);

    // Whoever came since is known by what its object shows; who waited is let in.
    world.wait_enrolled(&new).await;
    let present = world.certificates().await;
    world.rotate("known", &json!({}));
    world.wait_renewed(&[ids[1].clone(), later[0].clone()], &present).await;
    let now = world.stack.objects::<DeviceCertificate>().get(&ids[0]).await.unwrap();
    assert_eq!(now.status.unwrap().state, Some(DeviceState::Revoked));
}

//! Ten thousand devices are revoked by one object, some of them connected.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use certwave_controller::clock::now;
use certwave_crds::{CertificateAuthority, DeviceCertificate, Revocation};
use certwave_e2e::bench::preload;
use certwave_e2e::stack::{Stack, objects};
use certwave_e2e::{device_files, mqtt, tools, wait_for};
use certwave_ledger::{Ledger as _, SqliteLedger};
use serde_json::json;

use crate::faults::world::World;
use crate::shared;

const MANY: usize = 10_000;
/// Those that are really there.
const CONNECTED: usize = 8;
/// One in so many is asked for by OCSP.
const SAMPLED: usize = 500;
const LONG: Duration = Duration::from_mins(3);

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_at_once_are_recorded_listed_revoked_by_ocsp_refused_and_gone() {
    let mut stack = Stack::on(shared::api().await, "door-mass").await.unwrap();
    stack.check_crls().unwrap();
    let mut world = World::on(stack, 4).await;
    let ids = world.enrol("m", CONNECTED, &[]).await;
    let mut connected = Vec::new();
    for id in &ids {
        let sha256 = world.current_of(id).await.unwrap();
        let files = world.stack.directory().join("devices").join(id);
        connected.push(device_files::identity(&files, &sha256).unwrap());
    }
    let ca: CertificateAuthority = world.stack.objects().get(objects::CA).await.unwrap();
    let ca = ca.status.unwrap();
    let issuer = ca.key_id.unwrap();
    world.stack.stop_controller().unwrap();
    let ledger = SqliteLedger::open(world.stack.ledger()).unwrap();
    let epoch = ledger.take_epoch("test", now()).await.unwrap();
    let broker = world.stack.namespace();
    let gone = preload::devices(&ledger, epoch, broker, &issuer, MANY).await.unwrap();
    ledger.close().await;
    world.stack.start_controller().await.unwrap();

    let spec = json!({ "issuerRef": { "name": objects::CA }, "reason": "keyCompromise", "mode": "Run" });
    let object = json!({
        "apiVersion": "certwave.dev/v1alpha1", "kind": "Revocation", "spec": spec,
        "metadata": { "name": "all", "namespace": world.stack.namespace() },
    });
    let begun = Instant::now();
    world.stack.api.apply(&object.to_string()).unwrap();
    let all = i64::try_from(MANY + CONNECTED).unwrap();
    let shut = wait_for("the last one to be refused", LONG, || async {
        let status = world.stack.objects::<Revocation>().get("all").await?.status;
        let progress = status.context("no status")?.progress;
        let counted = [progress.recorded, progress.in_crl, progress.shut];
        ensure!(counted == [all; 3], "{progress:?}");
        Ok(())
    });
    world.told(shut.await);
    println!("the last of {all} was refused after {:?}", begun.elapsed());
    let closed = wait_for("the sessions to be closed", LONG, || async {
        for id in &ids {
            let device = world.stack.objects::<DeviceCertificate>().get(id).await?;
            let shown = device.status.and_then(|status| status.revocation);
            let at = shown.and_then(|shown| shown.session_closed_at);
            at.with_context(|| format!("the session of {id} is not closed"))?;
        }
        Ok(())
    });
    world.told(closed.await);
    println!("the last session was closed after {:?}", begun.elapsed());
    let progress = world.stack.objects::<Revocation>().get("all").await.unwrap();
    println!("by then {:?}", progress.status.unwrap().progress);

    let list = format!("http://{}/crl/{issuer}/full.crl", world.stack.http());
    let mut openssl = Command::new(tools::openssl().unwrap());
    let text = tools::output(openssl.args(["crl", "-noout", "-text", "-in", &list])).unwrap();
    assert_eq!(text.matches("Serial Number:").count(), MANY + CONNECTED);

    let file = world.stack.directory().join("issuer.pem");
    std::fs::write(&file, ca.certificate.unwrap()).unwrap();
    let mut ask = Command::new(tools::openssl().unwrap());
    ask.args([
        "ocsp",
        "-url",
        &format!("http://{}/ocsp", world.stack.http()),
        "-CAfile",
    ]);
    ask.arg(&file).arg("-issuer").arg(&file);
    let sample: Vec<_> = gone.iter().step_by(SAMPLED).collect();
    for (_, serial) in &sample {
        ask.args(["-serial", &format!("0x{serial}")]);
    }
    let said = tools::output(&mut ask).unwrap();
    assert_eq!(said.matches(": revoked").count(), sample.len(), "{said}");

    let (address, roots) = (world.stack.broker.device_address(), world.roots().await);
    for (id, identity) in ids.iter().zip(&connected) {
        assert!(
            mqtt::is_refused(address, &roots, identity).await.unwrap(),
            "{id} gets in"
        );
    }
    world.stack.check_running().unwrap();
}

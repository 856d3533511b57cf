//! Days on which the controller does not start: it says why, touches nothing, and goes on when it can.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use certwave_crds::{DeviceCertificate, Fleet};
use certwave_e2e::api::ApiServer;
use certwave_e2e::postgres::Postgres;
use certwave_e2e::small_disk::SmallDisk;
use certwave_e2e::stack::Stack;
use certwave_e2e::stack::objects::{self, ONE_AT_A_TIME};
use certwave_e2e::{conditions, http, ports, wait_for};
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::ListParams;
use serde_json::{Value, json};

use crate::faults::intact::rotated_once;
use crate::faults::world::{World, patch};
use crate::shared;

const SOON: Duration = Duration::from_secs(30);

/// Waits until `/readyz` refuses, with these words.
async fn says(stack: &mut Stack, words: &str) {
    let address = stack.http();
    let said = wait_for(words, SOON, || async {
        let (status, body) = http::get(address, "/readyz").await?;
        ensure!(status == 503 && body.contains(words), "{status}: {body}");
        Ok(())
    });
    let said = said.await;
    let log = stack.controller().unwrap().log_tail();
    said.unwrap_or_else(|error| panic!("{error:#}\n{log}"));
    assert!(log.contains(words), "the log says it too: {log}");
}

/// Nobody leads, and so nobody writes.
async fn touches_nothing(stack: &Stack) {
    let leases = stack.objects::<Lease>().list(&ListParams::default()).await.unwrap();
    assert!(leases.items.is_empty(), "{leases:?}");
}

/// All CRDs, that of the Fleets with a change: never are they all there and as they should be.
fn changed(change: impl Fn(&mut serde_json::Map<String, Value>)) -> String {
    let mut all = certwave_crds::all().unwrap();
    let fleets = all.iter_mut().find(|crd| crd["spec"]["names"]["kind"] == "Fleet");
    let fields = "/spec/versions/0/schema/openAPIV3Schema/properties/status/properties";
    let fields = fleets.unwrap().pointer_mut(fields).and_then(Value::as_object_mut);
    change(fields.unwrap());
    json!({ "apiVersion": "v1", "kind": "List", "items": all }).to_string()
}

#[tokio::test]
async fn crds_that_are_missing_older_or_newer_are_named_and_nothing_is_touched_until_they_fit() {
    // One of its own: CRDs are the whole server's.
    let api = ApiServer::start().await.unwrap();
    if api.process().is_none() {
        return; // a cluster that is not ours
    }
    let mut stack = Stack::on(Arc::new(api), "start-crds").await.unwrap();
    stack.spawn_controller().unwrap();
    says(&mut stack, "the CRD of CertificateAuthority is not installed").await;
    stack
        .api
        .apply(&changed(|fields| drop(fields.remove("conditions"))))
        .unwrap();
    says(
        &mut stack,
        "the CRD of Fleet is older than this program: it does not know status.conditions",
    )
    .await;
    let more = json!({ "type": "string" });
    stack
        .api
        .apply(&changed(|fields| drop(fields.insert("mood".to_owned(), more.clone()))))
        .unwrap();
    says(
        &mut stack,
        "the CRD of Fleet is newer than this program, which does not know status.mood",
    )
    .await;
    touches_nothing(&stack).await;

    stack.api.apply_crds().unwrap();
    stack.apply_foundation(&ONE_AT_A_TIME).unwrap();
    let address = stack.http();
    stack
        .controller()
        .unwrap()
        .wait_ready(address, "/readyz", SOON)
        .await
        .unwrap();
    let fleets = stack.objects::<Fleet>();
    let seen = wait_for("the Fleet's conditions", SOON, || async {
        conditions::of_fleet(&fleets.get(objects::FLEET).await?)
            .map(drop)
            .context("no status")
    });
    seen.await.unwrap();
}

/// Waits for the controller's end, and answers its log's.
async fn ends(stack: &mut Stack) -> String {
    let controller = stack.controller().unwrap();
    let ended = wait_for("the controller to end", SOON, || {
        let ended = controller.exited();
        async move { ended?.context("it runs") }
    });
    let status = ended.await.unwrap();
    assert!(!status.success(), "{status}");
    stack.controller().unwrap().log_tail()
}

/// Starts it anew, as the kubelet would.
async fn starts(stack: &mut Stack) {
    stack.start_controller().await.unwrap();
    let leases = stack.objects::<Lease>();
    let leads = wait_for("somebody to lead", SOON, || async {
        ensure!(!leases.list(&ListParams::default()).await?.items.is_empty(), "nobody");
        Ok(())
    });
    leads.await.unwrap();
    stack.check_running().unwrap();
}

#[tokio::test]
async fn without_its_database_the_controller_says_so_and_ends() {
    let mut postgres = Postgres::start(ports::free().unwrap(), &[]).unwrap();
    postgres.create_database("ledger").unwrap();
    let url = postgres.tcp_url("ledger");
    postgres.kill().unwrap();
    let mut stack = Stack::on(shared::api().await, "start-db").await.unwrap();
    stack.keep_ledger(url);
    stack.spawn_controller().unwrap();
    let log = ends(&mut stack).await;
    assert!(
        log.contains("cannot be opened") && log.contains("PostgreSQL") && log.contains("refused"),
        "{log}"
    );
    touches_nothing(&stack).await;
    postgres.resume().unwrap();
    starts(&mut stack).await;
    stack.stop_controller().unwrap();
}

#[tokio::test]
async fn on_a_full_volume_the_controller_says_so_and_ends() {
    let mut stack = Stack::on(shared::api().await, "start-disk").await.unwrap();
    let Some(disk) = SmallDisk::mount(&stack.directory().join("disk"), 8).unwrap() else {
        return;
    };
    let ledger = disk.path().join("ledger.sqlite");
    disk.fill().unwrap();
    stack.keep_ledger(ledger.display().to_string());
    stack.spawn_controller().unwrap();
    let log = ends(&mut stack).await;
    assert!(
        log.contains("cannot be opened") && log.contains("no space left"),
        "{log}"
    );
    touches_nothing(&stack).await;
    disk.free().unwrap();
    starts(&mut stack).await;
    stack.stop_controller().unwrap();
    // The disk goes when nobody uses it any more.
    drop(stack);
    drop(disk);
}

#[tokio::test]
async fn with_rights_in_one_namespace_alone_devices_enrol_rotate_and_are_revoked() {
    let mut stack = Stack::on(shared::api().await, "confined").await.unwrap();
    stack.confine().await.unwrap();
    let mut world = World::on(stack, 10).await;
    let ids = world.enrol("m", 2, &[]).await;
    let first = world.certificates().await;
    world.rotate("now", &json!({}));
    rotated_once(&mut world, "now", &ids, &first).await;
    let revoked = json!({ "spec": { "revocation": { "reason": "keyCompromise" } } });
    patch::<DeviceCertificate>(&world.stack, &ids[0], &revoked).await;
    let devices = world.stack.objects::<DeviceCertificate>();
    let recorded = wait_for("the revocation to be recorded", SOON, || async {
        let status = devices.get(&ids[0]).await?.status.context("no status")?;
        status.revocation.and_then(|r| r.ledger_at).context("not in the ledger")
    });
    recorded.await.unwrap();
    // What it may not do it does not try.
    let log = std::fs::read_to_string(world.stack.controller().unwrap().log()).unwrap();
    assert!(!log.to_lowercase().contains("forbidden"), "{log}");
}

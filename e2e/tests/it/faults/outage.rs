//! Broker or API server are gone for a minute, or there and silent.

use std::sync::Arc;
use std::time::Duration;

use certwave_crds::{Fleet, RotationPhase};
use certwave_e2e::api::ApiServer;
use certwave_e2e::http::sample;
use certwave_e2e::proxy::Proxy;
use certwave_e2e::stack::{Stack, objects};
use certwave_e2e::tally::Certificates;
use certwave_e2e::wait_for;
use serde_json::{Value, json};

use super::intact::rotated_once;
use super::world::{SOON, World, patch};

/// How long everything is out: longer than a step of a job, than a trial, than the Lease, than a connection's keep-alive.
const OUTAGE: Duration = Duration::from_secs(65);
/// Devices that take their time, so that the fault finds them at every step.
const SLOW: [&str; 2] = ["--fault", "slow:2s=*"];
/// Status writes that a confirmed rotation may cost.
const WRITES: f64 = 3.0;

/// A rotation that is under way. After an outage devices need a while to come back; those who have not yet are not offline.
async fn under_way(world: &mut World) -> (Vec<String>, Certificates) {
    limit(world, json!({ "offlineAfter": "30s" })).await;
    let ids = world.enrol("m", 16, &SLOW).await;
    let first = world.certificates().await;
    world.rotate("now", &json!({}));
    world
        .when("a device on trial", |history| {
            history.reached("confirmed") > 0 && history.device_in("Issued").is_some()
        })
        .await;
    (ids, first)
}

async fn limit(world: &World, device: Value) {
    let change = json!({ "spec": { "rotation": { "device": device } } });
    patch::<Fleet>(&world.stack, objects::FLEET, &change).await;
}

/// What is out is back: devices and controller find each other again, and the rotation ends as if nothing had been.
async fn recovered(world: &mut World, ids: &[String], first: &Certificates) {
    rotated_once(world, "now", ids, first).await;
    assert!(world.history().peak_in_flight() <= 4);
}

#[tokio::test]
async fn a_broker_that_is_gone_for_a_minute_costs_nobody_anything() {
    let mut world = World::new("broker-gone", 4).await;
    let (ids, first) = under_way(&mut world).await;
    let process = world.stack.controller().unwrap().id();
    world.stack.broker.kill();
    world.lasts(OUTAGE).await;
    assert!(world.history().reached("confirmed") < ids.len());
    world.stack.broker.start().await.unwrap();
    recovered(&mut world, &ids, &first).await;
    assert_eq!(
        world.stack.controller().unwrap().id(),
        process,
        "the controller never ended"
    );
}

#[tokio::test]
async fn a_broker_that_hangs_for_a_minute_costs_nobody_anything() {
    let mut world = World::new("broker-hangs", 4).await;
    // Steps are shorter than it takes to notice that a broker is silent. A trial that meets the outage is another matter: the
    // device goes back by itself.
    limit(
        &world,
        json!({ "stepTimeout": "20s", "trialTimeout": "2m", "jobTimeout": "5m" }),
    )
    .await;
    let (ids, first) = under_way(&mut world).await;
    let process = world.stack.controller().unwrap().id();
    world.stack.broker.pause().unwrap();
    world.lasts(OUTAGE).await;
    assert!(world.history().reached("confirmed") < ids.len());
    world.stack.broker.resume().unwrap();
    recovered(&mut world, &ids, &first).await;
    assert_eq!(
        world.stack.controller().unwrap().id(),
        process,
        "the controller never ended"
    );
}

/// Without the Lease nobody leads; until it ends, devices go on.
async fn api_server_out(name: &str, out: impl Fn(&Proxy)) {
    let (mut world, proxy) = World::behind_proxy(name, 4).await;
    let (ids, first) = under_way(&mut world).await;
    let before = world.history().reached("confirmed");
    out(&proxy);
    world
        .when("devices confirm meanwhile", |history| {
            history.reached("confirmed") > before
        })
        .await;
    world.lasts(OUTAGE).await;
    assert!(world.history().reached("confirmed") < ids.len());
    proxy.mend();
    recovered(&mut world, &ids, &first).await;
}

#[tokio::test]
async fn an_api_server_that_is_gone_for_a_minute_costs_nobody_anything() {
    api_server_out("api-gone", Proxy::cut).await;
}

#[tokio::test]
async fn an_api_server_that_hangs_for_a_minute_costs_nobody_anything() {
    api_server_out("api-hangs", Proxy::hang).await;
}

#[tokio::test]
async fn each_write_is_counted_and_a_restarted_api_server_is_found_again() {
    // One of its own: the other tests want theirs to answer.
    let api = ApiServer::start().await.unwrap();
    if api.process().is_none() {
        return; // a cluster that is not ours
    }
    api.apply_crds().unwrap();
    let stack = Stack::on(Arc::new(api), "api-own").await.unwrap();
    let mut world = World::on(stack, 3).await;
    let ids = world.enrol("m", 12, &["--fault", "slow:1s=#3"]).await;

    let (first, written) = (world.certificates().await, writes(&world, "devicecertificates").await);
    world.rotate("calm", &json!({}));
    rotated_once(&mut world, "calm", &ids, &first).await;
    let each = (writes(&world, "devicecertificates").await - written) / 12.0;
    assert!(each <= WRITES, "{each} status writes for each device");
    for (kind, resource) in [
        ("DeviceCertificate", "devicecertificates"),
        ("Fleet", "fleets"),
        ("Broker", "brokers"),
        ("CertificateAuthority", "certificateauthorities"),
    ] {
        let same = wait_for("writes counted on both sides", SOON, || async {
            let metrics = world.stack.controller_metrics().await?;
            let kind = format!("kind=\"{kind}\"");
            let counted = sample(&metrics, "certwave_api_writes_total", &[&kind]).unwrap_or_default();
            let answered = writes(&world, resource).await;
            anyhow::ensure!(counted > 0.0, "none of {kind}");
            anyhow::ensure!(
                (counted - answered).abs() < 0.5,
                "{kind}: {counted} counted, {answered} answered"
            );
            Ok(())
        });
        world.told(same.await);
    }

    let first = world.certificates().await;
    world.rotate("restarted", &json!({}));
    world.when("it began", |history| history.reached("accepted") > 12).await;
    Arc::get_mut(&mut world.stack.api).unwrap().restart().await.unwrap();
    let status = world.ended("restarted").await;
    assert_eq!(
        (status.phase, status.counts.confirmed),
        (Some(RotationPhase::Complete), 12),
        "{status:#?}\n{}",
        world.log()
    );
    world.wait_renewed(&ids, &first).await;
    world.verify().await;
    assert!(world.history().peak_in_flight() <= 3);
}

/// Writes of statuses that the API server has answered.
async fn writes(world: &World, resource: &str) -> f64 {
    let metrics = world.stack.api.metrics().await.unwrap();
    let resource = format!("resource=\"{resource}\"");
    let of = |verb| {
        let labels = [&resource, "subresource=\"status\"", verb];
        sample(&metrics, "apiserver_request_total", &labels).unwrap_or_default()
    };
    of("verb=\"PATCH\"") + of("verb=\"APPLY\"") + of("verb=\"PUT\"")
}

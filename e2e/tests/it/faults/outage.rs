//! Broker or API server are gone for a while.

use std::sync::Arc;
use std::time::Duration;

use certwave_crds::RotationPhase;
use certwave_e2e::api::ApiServer;
use certwave_e2e::http::sample;
use certwave_e2e::stack::Stack;
use serde_json::json;

use super::world::World;

/// Status writes that a confirmed rotation may cost.
const WRITES: f64 = 3.0;

#[tokio::test]
async fn a_broker_that_dies_and_one_that_hangs_cost_no_device_its_certificate() {
    let mut world = World::new("broker-gone", 4).await;
    let ids = world.enrol("m", 10, &["--fault", "slow:1s=*"]).await;
    let first = world.certificates().await;

    world.rotate("now", &json!({}));
    world
        .when("certificates on the way", |history| history.reached("issued") > 0)
        .await;
    world.stack.broker.kill();
    world.lasts(Duration::from_secs(3)).await;
    world.stack.broker.start().await.unwrap();
    let before = world.history().reached("confirmed");
    world
        .when("it goes on", |history| history.reached("confirmed") > before)
        .await;
    world.stack.broker.pause().unwrap();
    world.lasts(Duration::from_secs(4)).await;
    world.stack.broker.resume().unwrap();

    let status = world.ended("now").await;
    assert_eq!(
        status.phase,
        Some(RotationPhase::Complete),
        "{status:#?}\n{}",
        world.log()
    );
    assert_eq!(status.counts.confirmed, 10);
    world.wait_renewed(&ids, &first).await;
    world.verify().await;
    assert!(world.history().peak_in_flight() <= 4);
}

#[tokio::test]
async fn without_the_api_server_devices_rotate_and_statuses_follow_when_it_is_back() {
    // One of its own: the other tests want theirs to answer.
    let api = ApiServer::start().await.unwrap();
    if api.process().is_none() {
        return; // a cluster that is not ours
    }
    api.apply_crds().unwrap();
    let stack = Stack::on(Arc::new(api), "api-gone").await.unwrap();
    let mut world = World::on(stack, 3).await;
    let ids = world.enrol("m", 12, &["--fault", "slow:1s=#3"]).await;

    let (first, written) = (world.certificates().await, writes(&world).await);
    world.rotate("calm", &json!({}));
    let status = world.ended("calm").await;
    assert_eq!(
        status.phase,
        Some(RotationPhase::Complete),
        "{status:#?}\n{}",
        world.log()
    );
    world.wait_renewed(&ids, &first).await;
    let each = (writes(&world).await - written) / 12.0;
    assert!(each <= WRITES, "{each} status writes for each device");

    let first = world.certificates().await;
    world.rotate("paused", &json!({}));
    world.when("it began", |history| history.reached("accepted") > 12).await;
    world.stack.api.pause().unwrap();
    let before = world.history().reached("confirmed");
    world
        .when("devices confirm meanwhile", |history| {
            history.reached("confirmed") > before + 2
        })
        .await;
    world.lasts(Duration::from_secs(16)).await;
    world.stack.api.resume().unwrap();
    let status = world.ended("paused").await;
    assert_eq!(status.counts.confirmed, 12, "{status:#?}\n{}", world.log());
    world.wait_renewed(&ids, &first).await;

    let first = world.certificates().await;
    world.rotate("restarted", &json!({}));
    world.when("it began", |history| history.reached("accepted") > 24).await;
    Arc::get_mut(&mut world.stack.api).unwrap().restart().await.unwrap();
    let status = world.ended("restarted").await;
    assert_eq!(status.counts.confirmed, 12, "{status:#?}\n{}", world.log());
    world.wait_renewed(&ids, &first).await;
    world.verify().await;
    assert!(world.history().peak_in_flight() <= 3);
}

/// Writes of statuses of `DeviceCertificates` that the API server has answered.
async fn writes(world: &World) -> f64 {
    let metrics = world.stack.api.metrics().await.unwrap();
    let labels = ["resource=\"devicecertificates\"", "subresource=\"status\""];
    let of = |verb| sample(&metrics, "apiserver_request_total", &[labels[0], labels[1], verb]).unwrap_or_default();
    of("verb=\"PATCH\"") + of("verb=\"APPLY\"") + of("verb=\"PUT\"")
}

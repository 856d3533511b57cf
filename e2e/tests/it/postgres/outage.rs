//! The database is gone for a minute, or far away: a fault of ours, which no device is charged with.

use std::time::Duration;

use anyhow::ensure;
use certwave_crds::Fleet;
use certwave_e2e::stack::objects;
use certwave_e2e::{http, wait_for};
use serde_json::json;

use super::world::Shared;
use crate::faults::world::{SOON, patch};

/// Longer than a step of a job, and than a device takes to pass for offline.
const OUTAGE: Duration = Duration::from_mins(1);
/// One way; a transaction of ours goes there and back several times.
const FAR: Duration = Duration::from_millis(15);
/// Devices that take their time, so that the fault finds them at every step.
const SLOW: [&str; 2] = ["--fault", "slow:2s=*"];

/// Steps shorter than the outage. A trial that meets it is another matter: the device goes back by itself.
async fn limit(world: &Shared) {
    let device = json!({ "offlineAfter": "20s", "stepTimeout": "20s", "trialTimeout": "3m", "jobTimeout": "5m" });
    let change = json!({ "spec": { "rotation": { "device": device } } });
    patch::<Fleet>(&world.stack, objects::FLEET, &change).await;
}

#[tokio::test]
async fn a_database_that_is_gone_for_a_minute_costs_nobody_anything() {
    let mut world = Shared::new("pg-gone").await;
    limit(&world).await;
    let ids = world.enrol("m", 8, &SLOW).await;
    let (first, process) = (world.certificates().await, world.stack.controller().unwrap().id());

    world.rotate("now", &json!({}));
    world.wait_reached("confirmed", 1).await;
    world.server.kill().unwrap();
    // How long it lasts is part of the fault.
    world.lasts(OUTAGE).await;
    let (lives, _) = http::get(world.stack.http(), "/healthz").await.unwrap();
    assert_eq!(lives, 200, "it waits");
    world.server.resume().unwrap();
    assert!(world.reached("confirmed") < ids.len(), "it was in the middle");

    world.rotated_once("now", &ids).await;
    assert_eq!(
        world.stack.controller().unwrap().id(),
        process,
        "the controller never ended"
    );
    world.wait_renewed(&ids, &first).await;
    world.verify().await;
}

#[tokio::test]
async fn a_database_that_is_slow_costs_time_and_nobody_his_certificate() {
    let (mut world, wire) = Shared::far("pg-slow").await;
    limit(&world).await;
    let ids = world.enrol("m", 3, &[]).await;
    let (first, process) = (world.certificates().await, world.stack.controller().unwrap().id());
    wire.slow(FAR);
    world.rotate("now", &json!({}));
    world.rotated_once("now", &ids).await;
    world.wait_renewed(&ids, &first).await;
    world.verify().await;

    world.revoke(&ids[0]).await;
    let said = wait_for("the CRL to say so", SOON, || async {
        let listed = world.sql("SELECT count(*) FROM marks WHERE crl_number IS NOT NULL AND revoked_at IS NOT NULL")?;
        ensure!(listed != "0", "none is listed");
        Ok(())
    });
    world.told(said.await);
    assert_eq!(
        world.stack.controller().unwrap().id(),
        process,
        "the controller never ended"
    );
}

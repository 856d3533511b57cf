//! The controller dies, the broker restarts, the companion stands still: nobody is charged, nobody is kept out for good, and what
//! was begun is ended.

use serde_json::json;

use super::world::{Retiring, all, revoking};
use crate::rollout::world::{MAX_IN_FLIGHT, fleet};

#[tokio::test]
async fn killed_while_certificates_are_on_hold_and_while_devices_are_asked_the_controller_ends_what_it_began() {
    let mut world = Retiring::new("retire-killed").await;
    let ids = world.enrol("m", &fleet(6, 1, &["north"]), &[]).await;
    // One after the other, so that there is something to be killed in for a while.
    let slowly = json!({ "reconnectsPerSecond": 1 });
    world.rotate("run", &revoking(&json!({}), &slowly));
    world.when("a hold", |history| history.staged("Held") > 0).await;
    world.kill_controller().await;
    world.when("a question", |history| history.staged("Asked") > 0).await;
    world.kill_controller().await;
    world.when("an end", |history| history.staged("Revoked") > 0).await;
    world.kill_controller().await;
    world.when("all ends", |history| history.staged("Revoked") == 6).await;
    for id in &ids {
        world.wait_said(&world.history().old(id), Some("Superseded")).await;
    }
    assert_eq!(
        world.status("run").await.counts.probation_failed,
        0,
        "our faults are nobody's"
    );
    world.sound(MAX_IN_FLIGHT, MAX_IN_FLIGHT).await;
}

#[tokio::test]
async fn a_broker_that_restarts_in_between_charges_nobody() {
    let mut world = Retiring::new("retire-broker").await;
    let ids = world.enrol("m", &fleet(6, 1, &["north"]), &[]).await;
    world.rotate("run", &revoking(&json!({}), &json!({ "reconnectsPerSecond": 1 })));
    world.when("a hold", |history| history.staged("Held") > 0).await;
    world.stack.broker.restart().await.unwrap();
    world.when("a question", |history| history.staged("Asked") > 0).await;
    world.stack.broker.kill();
    world.stack.broker.start().await.unwrap();
    world.when("all ends", |history| history.staged("Revoked") == 6).await;
    assert!(all(&world, &ids, "Revoked"));
    assert_eq!(
        world.status("run").await.counts.probation_failed,
        0,
        "our faults are nobody's"
    );
    world.sound(MAX_IN_FLIGHT, MAX_IN_FLIGHT).await;
}

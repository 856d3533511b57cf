//! Holders of the same hold count for themselves.

use certwave_crds::Revocation;
use certwave_e2e::wait_for;
use serde_json::{Value, json};

use super::world::{Retiring, revoking};
use crate::faults::world::{SOON, patch};
use crate::rollout::world::fleet;

/// A `Revocation` that holds what the stack's CA has issued.
fn hold(world: &Retiring) -> Value {
    let spec = json!({ "fleetRef": { "name": certwave_e2e::stack::objects::FLEET }, "hold": true, "mode": "Run" });
    json!({
        "apiVersion": "certwave.dev/v1alpha1", "kind": "Revocation", "spec": spec,
        "metadata": { "name": "inquiry", "namespace": world.stack.namespace() },
    })
}

/// Who holds a certificate, by the ledger.
fn holders(world: &Retiring, serial: &str) -> Vec<String> {
    let history = world.history();
    let mut get = history
        .0
        .prepare("SELECT holder FROM holds WHERE serial = ?1 ORDER BY holder")
        .unwrap();
    let rows = get.query_map([serial], |row| row.get(0)).unwrap();
    rows.collect::<rusqlite::Result<_>>().unwrap()
}

#[tokio::test]
async fn what_a_revocation_holds_stays_on_hold_when_the_retirement_lets_go() {
    let mut world = Retiring::new("beside").await;
    let ids = world
        .enrol("m", &fleet(1, 1, &["north"]), &["--fault", "old-door=m-1"])
        .await;
    // It takes the wrong door, so it would be let go at the end of this.
    world.rotate("run", &revoking(&json!({}), &json!({ "probation": "20s" })));
    world
        .when("a hold", |history| history.staged("Held") + history.staged("Asked") > 0)
        .await;
    let old = world.history().old(&ids[0]);
    // It may make another key in its place: a claim is the last that it tries.
    let stolen = world.identity(&ids[0], &old.sha256);
    // It is asked once the door goes by the hold.
    world.when("a question", |history| history.staged("Asked") > 0).await;
    assert_eq!(holders(&world, &old.serial).len(), 1);
    world.stack.api.apply(&hold(&world).to_string()).unwrap();
    world
        .when("both holders", |_| holders(&world, &old.serial).len() == 2)
        .await;
    // The device is barred: that ends the retirement, and nobody is charged.
    world
        .when("the retirement's end", |history| history.staged("Released") == 1)
        .await;
    let left = holders(&world, &old.serial);
    assert!(left.len() == 1 && left[0].starts_with("revocation "), "{left:?}");
    world.wait_said(&old, Some("Certificate Hold")).await;
    assert!(!world.admits(&ids[0], &stolen).await);
    assert_eq!(
        world.status("run").await.counts.probation_failed,
        0,
        "it was not the device"
    );

    patch::<Revocation>(&world.stack, "inquiry", &json!({ "spec": { "release": true } })).await;
    world.wait_said(&old, None).await;
    assert_eq!(holders(&world, &old.serial), [""; 0]);
    let (id, world, stolen) = (&ids[0], &world, &stolen);
    let open = wait_for("the door to open", SOON, async || {
        anyhow::ensure!(world.admits(id, stolen).await, "refused");
        Ok(())
    });
    world.told(open.await);
}

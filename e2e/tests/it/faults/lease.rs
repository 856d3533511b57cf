//! The Lease cannot be renewed: for a moment the leader goes on, for longer it ends before anyone else may begin.

use std::time::{Duration, Instant};

use certwave_e2e::http::sample;
use certwave_e2e::proxy::{Requests, Share};
use certwave_e2e::wait_for;
use http::{Method, StatusCode};
use serde_json::json;

use super::intact::rotated_once;
use super::world::{SOON, World};

/// How long a Lease holds without a renewal.
const HOLDS: Duration = Duration::from_secs(15);
const SLOW: [&str; 2] = ["--fault", "slow:2s=*"];

fn renewals() -> Requests {
    Requests::to(Method::PUT, "/leases/")
}

async fn leads(world: &World) -> bool {
    let metrics = world.stack.controller_metrics().await.unwrap();
    sample(&metrics, "certwave_leader", &[]) == Some(1.0)
}

#[tokio::test]
async fn a_leader_whose_renewals_fail_for_less_than_the_lease_goes_on() {
    let (mut world, proxy) = World::behind_proxy("lease-short", 2).await;
    let ids = world.enrol("m", 10, &SLOW).await;
    let (first, process) = (world.certificates().await, world.stack.controller().unwrap().id());

    world.rotate("now", &json!({}));
    // Our own late renewal looks like somebody else's write.
    let overtaken = proxy.refuse(renewals(), Share::First(1), StatusCode::CONFLICT);
    let noticed = wait_for("a renewal that was overtaken", HOLDS, || async {
        anyhow::ensure!(overtaken.refused() == 1, "none yet");
        Ok(())
    });
    world.told(noticed.await);
    let again = wait_for("the next renewal", HOLDS, || async {
        anyhow::ensure!(overtaken.matched() > 1, "none yet");
        Ok(())
    });
    world.told(again.await);
    let failing = proxy.refuse(renewals(), Share::All, StatusCode::INTERNAL_SERVER_ERROR);
    let noticed = wait_for("renewals that fail", HOLDS, || async {
        anyhow::ensure!(failing.refused() >= 3, "{} yet", failing.refused());
        Ok(())
    });
    world.told(noticed.await);
    drop(failing);

    rotated_once(&mut world, "now", &ids, &first).await;
    assert!(leads(&world).await);
    assert_eq!(
        world.stack.controller().unwrap().id(),
        process,
        "the controller never ended"
    );
}

#[tokio::test]
async fn a_leader_whose_renewals_fail_for_longer_ends_and_the_next_waits_for_the_lease() {
    let (mut world, proxy) = World::behind_proxy("lease-long", 2).await;
    let ids = world.enrol("m", 10, &SLOW).await;
    let first = world.certificates().await;
    world.rotate("now", &json!({}));
    world
        .when("a device in flight", |history| history.reached("accepted") > 0)
        .await;

    let failing = proxy.refuse(renewals(), Share::All, StatusCode::INTERNAL_SERVER_ERROR);
    let since = Instant::now();
    let ended = loop {
        if let Some(status) = world.stack.controller().unwrap().exited().unwrap() {
            break status;
        }
        assert!(since.elapsed() < HOLDS, "still there\n{}", world.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert!(!ended.success(), "it ended, but not well");

    // Kubernetes starts it again; without the Lease it waits.
    world.stack.start_controller().await.unwrap();
    let (steps, tries) = (world.history().steps(), failing.refused());
    let waited = wait_for("two more tries to take the Lease", SOON, || async {
        anyhow::ensure!(failing.refused() >= tries + 2, "not yet");
        Ok(())
    });
    world.told(waited.await);
    assert!(!leads(&world).await, "nobody may lead");
    assert_eq!(world.history().steps(), steps, "nobody moves a job");
    assert!(
        world.history().reached("confirmed") < ids.len(),
        "the fault came too late to be one"
    );

    drop(failing);
    let process = world.stack.controller().unwrap().id();
    rotated_once(&mut world, "now", &ids, &first).await;
    assert_eq!(world.stack.controller().unwrap().id(), process, "the second one stayed");
}

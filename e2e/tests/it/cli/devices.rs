//! Single devices: hold, release, revoke, their history, and what ends soon.

use certwave_crds::{DeviceState, Revocation, RevocationPhase};
use certwave_e2e::wait_for;
use kube::api::ListParams;
use serde_json::json;

use super::plugin::Plugin;
use crate::faults::world::SOON;
use crate::rollout::world::{Staged, fleet};

#[tokio::test]
async fn devices_are_held_released_revoked_and_inspected() {
    let mut world = Staged::revoking("cli-revoke").await;
    let ids = world.enrol("m", &fleet(4, 0, &["north", "south"]), &[]).await;
    let plugin = Plugin::of(&world.stack);

    // On hold and back: nobody asks, as it can be undone.
    assert_eq!(
        plugin.run(&["hold", "m-1", "-o", "name"]),
        "devicecertificate.certwave.dev/m-1\n"
    );
    wait_state(&world, "m-1", DeviceState::Held).await;
    assert!(plugin.run(&["hold", "m-1"]).contains("on hold already"));
    assert_eq!(
        plugin.run(&["release", "m-1"]),
        "devicecertificate.certwave.dev/m-1 released\n"
    );
    wait_state(&world, "m-1", DeviceState::Active).await;
    assert!(plugin.fails(1, &["release", "m-1"]).contains("no hold"));

    // For good, and waited for: ledger, CRL, door, session.
    assert!(
        plugin
            .fails(6, &["revoke", "m-2", "--reason", "keyCompromise"])
            .contains("m-2")
    );
    assert!(
        plugin
            .fails(3, &["revoke", "m-3", "nobody", "--yes"])
            .contains("nobody")
    );
    let steps = plugin.run(&["revoke", "m-2", "--reason", "keyCompromise", "--yes", "--wait"]);
    for step in [
        "in the ledger",
        "in a CRL",
        "refused by every node",
        "live session closed",
    ] {
        assert!(steps.contains(step), "{step}: {steps}");
    }
    let states = world.states().await;
    assert_eq!(
        states["m-3"],
        Some(DeviceState::Active),
        "a name that is mistyped leaves the others alone"
    );
    assert!(
        plugin
            .run(&["revoke", "m-2", "--reason", "keyCompromise", "--yes"])
            .contains("revoked already")
    );
    assert!(plugin.fails(1, &["release", "m-2"]).contains("final"));

    // Its whole history.
    let told = plugin.json(&["inspect", "m-2"]);
    let what: Vec<_> = told["history"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|h| h["source"] == "ledger")
        .map(|h| h["what"].as_str().unwrap())
        .collect();
    assert!(what.len() >= 3 && told.get("ledgerNotRead").is_none(), "{told:#}");
    assert_eq!(told["device"]["status"]["state"], "Revoked");
    let text = plugin.run(&["inspect", "m-2"]);
    assert!(text.contains("Revoked:") && text.contains("KeyCompromise"), "{text}");
    // Where the controller is out of reach the rest is still told.
    let far = plugin.try_run(&["inspect", "m-2", "--history-address", "127.0.0.1:1"]);
    assert_eq!(far.code, 0, "{far:?}");
    assert!(far.err.contains("pods/portforward"), "{far:?}");
    assert!(plugin.fails(3, &["inspect", "nobody"]).contains("deviceId nobody"));

    // Many, after a preview of how many.
    let refused = plugin.fails(6, &["revoke", "--fleet", "meters", "-l", "site=south"]);
    assert!(
        refused.contains("1 certificate of 1 device,") && refused.contains("m-4"),
        "{refused}"
    );
    let revocations = world.stack.objects::<Revocation>();
    assert_eq!(
        revocations.list(&ListParams::default()).await.unwrap().items.len(),
        0,
        "nothing of a preview stays"
    );
    assert!(
        plugin
            .fails(6, &["hold", "--fleet", "meters", "-l", "site=north"])
            .contains("on hold")
    );
    let held = plugin.run(&[
        "hold",
        "--fleet",
        "meters",
        "-l",
        "site=north",
        "--yes",
        "--wait",
        "-o",
        "name",
    ]);
    let name = held.lines().next().unwrap().to_owned();
    wait_state(&world, "m-1", DeviceState::Held).await;
    assert!(plugin.fails(1, &["release", "m-1"]).contains("revocation/NAME"));
    plugin.run(&["release", &name.replace("revocation.certwave.dev", "revocation")]);
    wait_state(&world, "m-1", DeviceState::Active).await;
    let object = revocations.list(&ListParams::default()).await.unwrap().items.remove(0);
    let released = wait_for("the release", SOON, || async {
        let now = revocations.get(object.metadata.name.as_deref().unwrap()).await?;
        let phase = now.status.and_then(|status| status.phase);
        anyhow::ensure!(phase == Some(RevocationPhase::Released), "{phase:?}");
        Ok(())
    });
    world.told(released.await);

    // Certificates live for 30 days here, brokers' own and the CA longer.
    assert!(
        plugin
            .run(&["expiring", "--within", "1d", "--fleet", "meters"])
            .contains("nothing ends")
    );
    let soon = plugin.json(&["expiring", "--within", "31d", "--fleet", "meters"]);
    let names: Vec<_> = soon["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|line| line["name"].clone())
        .collect();
    assert_eq!(names.len(), ids.len() - 1, "what is revoked does not end: {soon:#}");
    assert!(plugin.run(&["expiring", "--within", "400d"]).contains("Broker"));
    let one = plugin.json(&["expiring", "--within", "31d", "-l", "site=south", "--limit", "1"]);
    assert_eq!(one["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_device_is_found_by_its_id_and_what_nobody_runs_is_said() {
    let world = Staged::new("cli-id").await;
    let mut device = certwave_e2e::stack::objects::device(world.stack.namespace(), "pump-7");
    device["spec"]["deviceId"] = json!("Pump_7");
    world.stack.api.apply(&device.to_string()).unwrap();
    let plugin = Plugin::of(&world.stack);
    let told = plugin.json(&["inspect", "Pump_7"]);
    assert_eq!(told["device"]["metadata"]["name"], "pump-7");

    // kubectl's completion asks for candidates.
    let offered = plugin.run(&["__complete", "rotate", ""]);
    assert!(
        offered.lines().any(|line| line == "meters") || offered.contains(":4"),
        "{offered}"
    );
    let script = plugin.run(&["completion", "bash"]);
    assert!(script.contains("kubectl-certwave"), "{script}");
}

async fn wait_state(world: &Staged, name: &str, wanted: DeviceState) {
    let what = format!("{name} to be {wanted:?}");
    let reached = wait_for(&what, SOON, || async {
        let states = world.states().await;
        anyhow::ensure!(states.get(name) == Some(&Some(wanted)), "{states:?}");
        Ok(())
    });
    world.told(reached.await);
}

//! The whole way: from a person's word to a closed session, with the controller between.

use std::time::{Duration, Instant};

use certwave_crds::{Broker, DeviceCertificate, Fleet};
use certwave_e2e::stack::{FleetOptions, Simulation, Stack, objects};
use certwave_e2e::wait::wait_for;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::shared;

const FLEET: FleetOptions = FleetOptions {
    max_in_flight: 5,
    step_timeout: "20s",
    trial_timeout: "10s",
    job_timeout: "60s",
};
const LONG: Duration = Duration::from_secs(90);

async fn stack(devices: usize) -> Stack {
    let mut stack = Stack::on(shared::api().await, "door").await.unwrap();
    stack.check_crls().unwrap();
    stack.apply_foundation(&FLEET).unwrap();
    stack.start_controller().await.unwrap();
    stack.start_broker().await.unwrap();
    let simulation = Simulation {
        devices,
        state: None,
        report: None,
        claim: stack.create_claim(devices).unwrap(),
        seed: 7,
        connect_rate: 100,
        faults: Vec::new(),
    };
    stack.declare_devices(simulation.device_ids()).await.unwrap();
    stack.start_devices(&simulation).unwrap();
    let enrolled = wait_for("the devices to be enrolled", LONG, || async {
        let devices = stack.devices().await?;
        let with = devices
            .iter()
            .filter(|d| d.status.as_ref().is_some_and(|s| s.certificates.current.is_some()));
        let with = with.count();
        anyhow::ensure!(with == devices.len(), "{with} are");
        Ok(())
    });
    enrolled.await.unwrap();
    stack
}

fn door(conditions: &[k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition]) -> Option<(String, String, String)> {
    let found = conditions.iter().find(|c| c.type_ == "DoorCurrent")?;
    Some((found.status.clone(), found.reason.clone(), found.message.clone()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_device_is_out_within_seconds_and_a_late_companion_shows() {
    let mut stack = stack(3).await;
    let devices = stack.objects::<DeviceCertificate>();
    let thief = Simulation::device_id(1);
    let patch = json!({ "spec": { "revocation": { "reason": "keyCompromise" } } });
    let begun = Instant::now();
    devices
        .patch(&thief, &PatchParams::default(), &Patch::Merge(&patch))
        .await
        .unwrap();
    let closed = wait_for("the session to be closed", LONG, || async {
        let status = devices.get(&thief).await?.status.and_then(|status| status.revocation);
        let status = status.ok_or_else(|| anyhow::anyhow!("nothing is shown yet"))?;
        anyhow::ensure!(status.session_closed_at.is_some(), "{status:?}");
        Ok(status)
    });
    let status = closed.await.unwrap();
    eprintln!("shown as closed after {:?}: {status:?}", begun.elapsed());

    // Nobody keeps the door current any more: a person hears of it, and with whom to begin.
    stack.companion.as_mut().unwrap().kill();
    let late = wait_for("the late companion to show", LONG, || async {
        let broker = stack
            .objects::<Broker>()
            .get(objects::BROKER)
            .await?
            .status
            .unwrap_or_default();
        let fleet = stack
            .objects::<Fleet>()
            .get(objects::FLEET)
            .await?
            .status
            .unwrap_or_default();
        for conditions in [broker.conditions, fleet.conditions] {
            let Some((status, reason, message)) = door(&conditions) else {
                anyhow::bail!("no condition");
            };
            anyhow::ensure!(
                status == "False" && reason == "NodeSilent",
                "{status} {reason}: {message}"
            );
            anyhow::ensure!(message.contains("node-1"), "{message}");
        }
        Ok(())
    });
    late.await.unwrap();
    stack.companion.as_mut().unwrap().start().unwrap();
    let again = wait_for("the door to be current again", LONG, || async {
        let broker = stack
            .objects::<Broker>()
            .get(objects::BROKER)
            .await?
            .status
            .unwrap_or_default();
        let found = door(&broker.conditions);
        anyhow::ensure!(found.as_ref().is_some_and(|(status, ..)| status == "True"), "{found:?}");
        anyhow::ensure!(
            broker.nodes.len() == 1 && !broker.nodes[0].crls.is_empty(),
            "{:?}",
            broker.nodes
        );
        Ok(())
    });
    again.await.unwrap();
    stack.check_running().unwrap();
}

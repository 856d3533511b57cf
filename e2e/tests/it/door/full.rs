//! The disk of the companion's file is full.

use anyhow::{Context as _, Result, ensure};
use certwave_crds::{Broker, DeviceCertificate, DeviceRevocationStatus};
use certwave_e2e::identity::Identity;
use certwave_e2e::small_disk::SmallDisk;
use certwave_e2e::stack::{Stack, objects};
use certwave_e2e::{device_files, mqtt, wait_for};
use serde_json::json;

use crate::faults::world::{ENDS, World, patch};
use crate::shared;

async fn revoke(world: &World, id: &str) {
    let revocation = json!({ "spec": { "revocation": { "reason": "keyCompromise" } } });
    patch::<DeviceCertificate>(&world.stack, id, &revocation).await;
}

async fn revocation(world: &World, id: &str) -> Result<DeviceRevocationStatus> {
    let device = world.stack.objects::<DeviceCertificate>().get(id).await?;
    let shown = device.status.and_then(|status| status.revocation);
    shown.context("nothing is shown yet")
}

/// Waits until every node refuses a device, as its object says.
async fn shut(world: &World, id: &str) {
    let shut = wait_for("the door to be shut", ENDS, || async {
        let shown = revocation(world, id).await?;
        ensure!(shown.shut_at.is_some(), "{shown:?}");
        Ok(())
    });
    world.told(shut.await);
}

/// Waits until the Broker says this of its door; the message.
async fn door(world: &World, status: &str, reason: &str) -> String {
    let told = wait_for("the door to be shown so", ENDS, || async {
        let broker = world.stack.objects::<Broker>().get(objects::BROKER).await?;
        let conditions = broker.status.unwrap_or_default().conditions;
        let found = conditions.into_iter().find(|c| c.type_ == "DoorCurrent");
        let found = found.context("no condition")?;
        let so = (found.status.as_str(), found.reason.as_str()) == (status, reason);
        ensure!(so, "{} {}: {}", found.status, found.reason, found.message);
        Ok(found.message)
    });
    world.told(told.await)
}

#[tokio::test]
async fn on_a_full_disk_mosquitto_goes_on_with_the_file_that_it_has_and_people_are_told() {
    let mut stack = Stack::on(shared::api().await, "door-full").await.unwrap();
    stack.check_crls().unwrap();
    let file = stack.broker.files().crl.clone();
    let Some(disk) = SmallDisk::mount(file.parent().unwrap(), 1).unwrap() else {
        return;
    };
    let mut world = World::on(stack, 4).await;
    let ids = world.enrol("m", 3, &[]).await;
    let mut identities: Vec<Identity> = Vec::new();
    for id in &ids {
        let sha256 = world.current_of(id).await.unwrap();
        let files = world.stack.directory().join("devices").join(id);
        identities.push(device_files::identity(&files, &sha256).unwrap());
    }
    let (address, roots) = (world.stack.broker.device_address(), world.roots().await);
    let refused = async |device: usize| mqtt::is_refused(address, &roots, &identities[device]).await.unwrap();
    revoke(&world, &ids[0]).await;
    shut(&world, &ids[0]).await;
    let before = std::fs::read(&file).unwrap();

    disk.fill().unwrap();
    revoke(&world, &ids[1]).await;
    let said = door(&world, "False", "NodeBehind").await;
    assert!(said.contains("No space left") && said.contains("node-1"), "{said}");
    assert_eq!(std::fs::read(&file).unwrap(), before, "the file is as it was");
    let files: Vec<_> = std::fs::read_dir(disk.path())
        .unwrap()
        .map(|file| file.unwrap().file_name())
        .collect();
    assert_eq!(files.len(), 2, "nothing half written lies about: {files:?}");
    assert!(revocation(&world, &ids[1]).await.unwrap().shut_at.is_none());
    assert!(refused(0).await, "what it knew it knows");
    assert!(!refused(2).await, "and the others get in");
    // One that is started anew reads the same.
    world.stack.broker.restart().await.unwrap();
    assert!(refused(0).await && !refused(2).await);

    disk.free().unwrap();
    shut(&world, &ids[1]).await;
    door(&world, "True", "Current").await;
    assert!(refused(0).await && refused(1).await && !refused(2).await);
    drop(world);
    drop(disk);
}

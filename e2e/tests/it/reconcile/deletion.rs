//! What deleting a `DeviceCertificate` revokes: nothing, unless its Fleet says so, goes on, and somebody saw it.

use std::sync::Arc;

use certwave_crds::{Broker, DeviceCertificate, Fleet};
use certwave_ledger::Ledger;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::events::v1::Event;
use kube::api::{Api, DeleteParams, ListParams};
use serde_json::json;

use super::revocation::{holds, identity};
use super::{Place, Running, broker_spec, device_spec, fleet_spec, until};

/// Devices with certificates, in a fleet with this policy.
async fn fleet(place: &Place, running: &Running, policy: &str, devices: &[&str]) {
    place.foundation().await;
    let mut spec = fleet_spec();
    spec["deletionPolicy"] = json!(policy);
    place.apply::<Fleet>("pumps", spec).await;
    place.ready::<Fleet>("pumps", "BrokerNotConnected").await;
    for device in devices {
        place.apply::<DeviceCertificate>(device, device_spec(device)).await;
        holds(running, &identity(place, device), "aa").await;
    }
}

/// Waits until the object is withdrawn, and answers how many of the device's certificates are marked.
async fn gone(place: &Place, ledger: &Arc<dyn Ledger>, device: &str) -> usize {
    let object = certwave_core::model::ObjectRef {
        namespace: place.namespace.clone(),
        name: device.to_owned(),
    };
    until("the withdrawal", async || {
        Ok(ledger.device_by_object(&object).await?.is_none())
    })
    .await;
    ledger.marked(&identity(place, device), 10).await.unwrap().len()
}

/// Waits for an event with this reason.
async fn told(place: &Place, reason: &str) {
    let events: Api<Event> = place.api();
    until(reason, async || {
        let all = events.list(&ListParams::default()).await?;
        Ok(all.items.iter().any(|event| event.reason.as_deref() == Some(reason)))
    })
    .await;
}

#[tokio::test]
async fn by_default_a_deleted_object_revokes_nothing() {
    let place = Place::new("keep").await;
    let ledger = &place.world.running.ledger;
    fleet(&place, &place.world.running, "Keep", &["pump-1"]).await;
    place.delete::<DeviceCertificate>("pump-1").await;
    assert_eq!(gone(&place, ledger, "pump-1").await, 0);
}

#[tokio::test]
async fn where_the_fleet_says_so_the_device_is_revoked_and_a_duplicate_never() {
    let place = Place::new("revoke").await;
    let ledger = &place.world.running.ledger;
    fleet(&place, &place.world.running, "Revoke", &["pump-1"]).await;
    place.apply::<DeviceCertificate>("another", device_spec("pump-1")).await;
    place.ready::<DeviceCertificate>("another", "DuplicateDeviceId").await;
    place.delete::<DeviceCertificate>("another").await;
    // Deletions are taken over in order.
    place.apply::<DeviceCertificate>("pump-2", device_spec("pump-2")).await;
    holds(&place.world.running, &identity(&place, "pump-2"), "aa").await;
    assert!(ledger.marked(&identity(&place, "pump-1"), 10).await.unwrap().is_empty());
    place.delete::<DeviceCertificate>("pump-1").await;
    assert_eq!(gone(&place, ledger, "pump-1").await, 1);
    told(&place, "RevokedByDeletion").await;
    assert!(ledger.marked(&identity(&place, "pump-2"), 10).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_deletion_is_witnessed_while_another_broker_joins() {
    let place = Place::apart("revoke").await;
    let own = Running::start(place.client.clone(), Some(place.namespace.clone()));
    let devices: Vec<String> = (0..20).map(|number| format!("pump-{number}")).collect();
    let names: Vec<&str> = devices.iter().map(String::as_str).collect();
    fleet(&place, &own, "Revoke", &names).await;
    let another = format!("{}-another", place.namespace);
    place.apply::<Broker>("another", broker_spec(&another)).await;
    let joined = Some(another.parse().unwrap());
    until("another part", async || {
        Ok(own.epochs.lock().unwrap().contains_key(&joined))
    })
    .await;
    // It lists all devices within the next moments, as they go.
    for device in names {
        place.delete::<DeviceCertificate>(device).await;
        assert_eq!(gone(&place, &own.ledger, device).await, 1, "{device}");
    }
}

#[tokio::test]
async fn a_fleet_that_is_deleted_too_revokes_nothing_and_an_event_says_so() {
    let place = Place::new("revoke").await;
    let ledger = &place.world.running.ledger;
    fleet(&place, &place.world.running, "Revoke", &["pump-1"]).await;
    // It waits for somebody, and is being deleted meanwhile.
    let patch = json!({"metadata": {"finalizers": ["example.com/wait"]}});
    let fleets = place.api::<Fleet>();
    let merge = |patch| kube::api::Patch::Merge(patch);
    fleets
        .patch("pumps", &kube::api::PatchParams::default(), &merge(patch))
        .await
        .unwrap();
    place.delete::<Fleet>("pumps").await;
    place.delete::<DeviceCertificate>("pump-1").await;
    assert_eq!(gone(&place, ledger, "pump-1").await, 0);
    told(&place, "NotRevoked").await;
    let patch = json!({"metadata": {"finalizers": null}});
    fleets
        .patch("pumps", &kube::api::PatchParams::default(), &merge(patch))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_namespace_that_is_deleted_revokes_nothing() {
    let place = Place::new("revoke").await;
    let ledger = &place.world.running.ledger;
    fleet(&place, &place.world.running, "Revoke", &["pump-1"]).await;
    let namespaces: Api<Namespace> = Api::all(place.client.clone());
    namespaces
        .delete(&place.namespace, &DeleteParams::default())
        .await
        .unwrap();
    // What its controller would do, which does not run here.
    place.delete::<DeviceCertificate>("pump-1").await;
    assert_eq!(gone(&place, ledger, "pump-1").await, 0);
}

#[tokio::test]
async fn a_deletion_that_nobody_saw_revokes_nothing() {
    let place = Place::apart("revoke").await;
    let scope = Some(place.namespace.clone());
    let client = place.client.clone();
    let own = Running::start(client.clone(), scope.clone());
    fleet(&place, &own, "Revoke", &["pump-1"]).await;
    let (ledger, scratch) = own.stop().await;
    place.delete::<DeviceCertificate>("pump-1").await;
    let again = Running::start_with(client, scope, ledger, scratch);
    assert_eq!(gone(&place, &again.ledger, "pump-1").await, 0);
    told(&place, "NotRevoked").await;
}

//! `DeviceCertificate`: what reaches the ledger, and who may declare a device.

use std::sync::Arc;
use std::time::Duration;

use certwave_core::model::Identity;
use certwave_crds::{Broker, CertificateAuthority, DeviceCertificate, DeviceState, Fleet};
use serde_json::json;

use super::{Place, Running, broker_spec, device_spec, fleet_spec, message};

fn identity(place: &Place, device: &str) -> Identity {
    Identity {
        broker: place.namespace.parse().unwrap(),
        device: device.parse().unwrap(),
    }
}

#[tokio::test]
async fn devices_that_come_before_their_fleet_are_taken_over_when_it_comes() {
    let place = Place::new("device").await;
    place.apply::<DeviceCertificate>("pump-1", device_spec("pump-1")).await;
    place.apply::<CertificateAuthority>("root", json!({"root": {}})).await;
    place.apply::<Broker>("mqtt", broker_spec(&place.namespace)).await;
    place.apply::<Fleet>("pumps", fleet_spec()).await;
    let shown = place.ready::<DeviceCertificate>("pump-1", "NotEnrolled").await;
    assert_eq!(shown.status.unwrap().state, Some(DeviceState::Declared));

    super::until("the fleet's count", async || {
        let status = place.api::<Fleet>().get("pumps").await?.status.unwrap_or_default();
        Ok((status.counts.total, status.counts.declared) == (1, 1))
    })
    .await;
    place.delete::<DeviceCertificate>("pump-1").await;
    super::until("the fleet's count without it", async || {
        Ok(place
            .api::<Fleet>()
            .get("pumps")
            .await?
            .status
            .unwrap_or_default()
            .counts
            .total
            == 0)
    })
    .await;
}

#[tokio::test]
async fn devices_that_come_in_the_very_moment_of_their_fleet_are_declared() {
    let place = Place::new("device").await;
    place.foundation().await;
    let names: Vec<_> = (0..40).map(|n| format!("moment-{n}")).collect();
    for name in &names {
        let mut device = device_spec(name);
        device["fleetRef"]["name"] = json!(name);
        let fleet = async {
            // A little before or after: which it is, is up to chance.
            tokio::time::sleep(Duration::from_micros(rand::random_range(0..4000))).await;
            place.apply::<Fleet>(name, fleet_spec()).await;
        };
        tokio::join!(place.apply::<DeviceCertificate>(name, device), fleet);
    }
    let ledger = &place.world.running.ledger;
    super::until("all of them to be declared", async || {
        let mut declared = 0;
        for name in &names {
            declared += usize::from(ledger.device(&identity(&place, name)).await?.is_some());
        }
        Ok(declared == names.len())
    })
    .await;
}

#[tokio::test]
async fn a_device_whose_fleet_is_missing_says_so_until_it_comes() {
    let place = Place::new("device").await;
    place.apply::<DeviceCertificate>("pump-1", device_spec("pump-1")).await;
    let waiting = place.ready::<DeviceCertificate>("pump-1", "FleetNotReady").await;
    assert!(message(&waiting).contains("pumps"));
    place.foundation().await;
    place.ready::<DeviceCertificate>("pump-1", "NotEnrolled").await;
}

#[tokio::test]
async fn a_device_id_belongs_to_the_object_that_declared_it_first_and_then_to_the_next() {
    let place = Place::new("device").await;
    place.foundation().await;
    place.apply::<DeviceCertificate>("first", device_spec("pump-1")).await;
    place.ready::<DeviceCertificate>("first", "NotEnrolled").await;
    place.apply::<DeviceCertificate>("second", device_spec("pump-1")).await;
    let refused = place.ready::<DeviceCertificate>("second", "DuplicateDeviceId").await;
    assert!(message(&refused).contains("/first"));
    assert_eq!(refused.status.unwrap().state, Some(DeviceState::Refused));
    place.ready::<DeviceCertificate>("first", "NotEnrolled").await;

    place.delete::<DeviceCertificate>("first").await;
    place.ready::<DeviceCertificate>("second", "NotEnrolled").await;
}

#[tokio::test]
async fn a_device_id_is_the_next_objects_when_the_one_that_held_it_moves_to_another_brokers_fleet() {
    let place = Place::new("device").await;
    place.foundation().await;
    place
        .apply::<Broker>("elsewhere", broker_spec(&format!("{}-2", place.namespace)))
        .await;
    let fleet = json!({"issuerRef": {"name": "root"}, "brokerRef": {"name": "elsewhere"}});
    place.apply::<Fleet>("others", fleet).await;
    place.ready::<Fleet>("others", "BrokerNotConnected").await;
    place.apply::<DeviceCertificate>("first", device_spec("pump-1")).await;
    place.ready::<DeviceCertificate>("first", "NotEnrolled").await;
    place.apply::<DeviceCertificate>("second", device_spec("pump-1")).await;
    place.ready::<DeviceCertificate>("second", "DuplicateDeviceId").await;

    let mut moved = device_spec("pump-1");
    moved["fleetRef"]["name"] = json!("others");
    place.apply::<DeviceCertificate>("first", moved).await;
    place.ready::<DeviceCertificate>("second", "NotEnrolled").await;
    place.ready::<DeviceCertificate>("first", "NotEnrolled").await;
}

#[tokio::test]
async fn a_device_id_is_unique_over_the_namespaces_of_a_broker() {
    let (home, guest) = (Place::new("home").await, Place::new("guest").await);
    home.foundation().await;
    let mut broker = broker_spec(&home.namespace);
    broker["allowedNamespaces"] = json!({"from": "All"});
    home.apply::<Broker>("mqtt", broker).await;
    guest.apply::<CertificateAuthority>("root", json!({"root": {}})).await;
    let spec = json!({"issuerRef": {"name": "root"}, "brokerRef": {"name": "mqtt", "namespace": home.namespace}});
    guest.apply::<Fleet>("pumps", spec).await;
    guest.ready::<Fleet>("pumps", "BrokerNotConnected").await;

    home.apply::<DeviceCertificate>("pump-1", device_spec("pump-1")).await;
    home.ready::<DeviceCertificate>("pump-1", "NotEnrolled").await;
    guest.apply::<DeviceCertificate>("pump-1", device_spec("pump-1")).await;
    let refused = guest.ready::<DeviceCertificate>("pump-1", "DuplicateDeviceId").await;
    assert!(message(&refused).contains(&home.namespace));
    let known = home
        .world
        .running
        .ledger
        .device(&identity(&home, "pump-1"))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(known.object.namespace, home.namespace);
}

#[tokio::test]
async fn what_was_deleted_while_nobody_watched_is_withdrawn_at_the_start() {
    let place = Place::new("device").await;
    let scope = Some(place.namespace.clone());
    let client = place.world.api.client().await.unwrap();
    let own = Running::start(client.clone(), scope.clone());
    place.foundation().await;
    for name in ["pump-1", "pump-2"] {
        place.apply::<DeviceCertificate>(name, device_spec(name)).await;
    }
    let broker = place.namespace.parse().unwrap();
    let declared = async |ledger: &Arc<dyn certwave_ledger::Ledger>| {
        let all = ledger.declared_objects(&broker, None, 100).await.unwrap();
        all.into_iter().map(|declared| declared.object.name).collect::<Vec<_>>()
    };
    super::until("both devices in the ledger", async || {
        Ok(declared(&own.ledger).await.len() == 2)
    })
    .await;
    let (ledger, scratch) = own.stop().await;
    place.delete::<DeviceCertificate>("pump-1").await;
    let again = Running::start_with(client, scope, ledger, scratch);
    super::until("the withdrawal", async || {
        Ok(declared(&again.ledger).await == ["pump-2"])
    })
    .await;
}

//! Somebody between the companion and the CA, or on the broker.

use std::collections::BTreeSet;
use std::time::Duration;

use certwave_e2e::mqtt::Connection;

use super::world::{World, crl, new_ca};

#[tokio::test]
async fn lists_of_another_signer_another_scope_or_the_same_second_are_not_believed() {
    let mut world = World::new().await;
    let device = world.device("d");
    let number = world.revoke([device.serial.clone()]);
    world.loaded(number).await;
    let (partition, url, at) = (world.partition().to_owned(), world.scope_url(), world.made());
    let stranger = new_ca(world.base_url());
    let nothing = BTreeSet::new();
    let other_scope = url.replace(&partition, "2099-01");
    let cases = [
        (
            crl(&stranger, &url, number + 1, at + 1, 36_000, &nothing),
            "not by this CA",
        ),
        (
            crl(&world.ca, &other_scope, number + 1, at + 1, 36_000, &nothing),
            "scope",
        ),
        (crl(&world.ca, &url, number + 1, at, 36_000, &nothing), "same second"),
        (b"<html>a captive portal</html>".to_vec(), "not a DER CRL"),
    ];
    for (der, fault) in cases {
        world.publisher.publish(&partition, number + 1, der);
        let report = world.fault(fault).await;
        assert_eq!(report.scopes[0].number, number, "{fault}");
        assert!(world.connect(&device).await.is_err(), "{fault}");
    }
}

#[tokio::test]
async fn no_device_hears_orders_or_reports_in_a_nodes_name() {
    let mut world = World::new().await;
    let device = world.device("d");
    let mut connection: Connection = world.connect(&device).await.unwrap();
    connection.subscribe("certwave/~door.node-1/down/+").await.unwrap();
    connection.subscribe("certwave/~door.all/down/+").await.unwrap();
    let forged = br#"{"session":"AAAAAAAAAAAAAAAAAAAAAA","sequence":99,"scopes":[]}"#;
    connection
        .publish("certwave/~door.node-1/up/loaded", forged, false)
        .await
        .unwrap();
    world.hint().await;
    let report = world.report().await;
    assert_ne!(report.sequence, 99);
    assert_eq!(connection.next(Duration::from_millis(300)).await.unwrap(), None);
}

//! What the protocol needs of an MQTT broker, and who may say what.

use std::time::Duration;

use certwave_e2e::mqtt::{Connection, Message};

use super::SOON;
use super::world::World;

/// How long a message that must not come is given to come.
const NEVER: Duration = Duration::from_millis(300);

#[tokio::test]
async fn a_device_reaches_the_controller_and_nobody_else() {
    let world = World::start().await;
    let [controller, d17, d18] = ["~controller", "pump-17", "pump-18"].map(|name| world.device(name));
    let mut controller = world.connect(&controller).await.unwrap();
    let (mut d17, mut d18) = (world.connect(&d17).await.unwrap(), world.connect(&d18).await.unwrap());
    assert!(controller.subscribe("certwave/+/up/#").await.unwrap());
    assert!(d17.subscribe("certwave/pump-17/down/#").await.unwrap());
    for foreign in [
        "certwave/pump-17/#",
        "certwave/pump-17/down/#",
        "$MQTT/sub/#",
        "$MQTT/#",
        "#",
    ] {
        // What NATS grants here and delivers not is as good as refused.
        let _ = d18.subscribe(foreign).await;
    }
    let _ = d18.publish("certwave/pump-17/up/hello", b"posing", false).await;
    d17.publish("certwave/pump-17/up/hello", b"me", false).await.unwrap();
    let heard = controller.next(SOON).await.unwrap().unwrap();
    assert_eq!(
        (heard.topic.as_str(), heard.payload.as_slice()),
        ("certwave/pump-17/up/hello", &b"me"[..])
    );
    controller
        .publish("certwave/pump-17/down/job", b"work", false)
        .await
        .unwrap();
    assert_eq!(d17.next(SOON).await.unwrap().unwrap().payload, b"work");
    assert!(!matches!(d18.next(NEVER).await, Ok(Some(_))));
}

#[tokio::test]
async fn retained_presence_and_last_wills_are_delivered() {
    let world = World::start().await;
    let (controller, device) = (world.device("~controller"), world.device("pump-17"));
    let topic = "certwave/pump-17/up/online";
    let will = Message {
        topic: topic.to_owned(),
        payload: b"off".to_vec(),
    };
    let mut session = Connection::open_with_will(
        world.nats.mqtt_address(),
        &world.server_ca,
        Some(&device.identity),
        "pump-17",
        Some(&will),
    )
    .await
    .unwrap();
    session.publish(topic, b"on", true).await.unwrap();
    let mut controller = world.connect(&controller).await.unwrap();
    assert!(controller.subscribe("certwave/+/up/#").await.unwrap());
    assert_eq!(controller.next(SOON).await.unwrap().unwrap().payload, b"on");
    drop(session);
    assert_eq!(controller.next(SOON).await.unwrap().unwrap().payload, b"off");
}

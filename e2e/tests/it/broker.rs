//! The harness's broker: who gets in, and who reads and writes what.

use std::time::Duration;

use certwave_e2e::identity::{Authority, Identity};
use certwave_e2e::mosquitto::Mosquitto;
use certwave_e2e::mqtt::Connection;

const SOON: Duration = Duration::from_secs(5);
/// How long a message that must not come is given to come; the broker needs less than a millisecond.
const NEVER: Duration = Duration::from_millis(300);

async fn broker() -> (Authority, String, Mosquitto) {
    let authority = Authority::new("fleet").unwrap();
    let server = authority.server("broker").unwrap();
    let broker = Mosquitto::run(&authority.certificate(), &server).await.unwrap();
    let trust = authority.certificate();
    (authority, trust, broker)
}

fn client(authority: &Authority, name: &str) -> Identity {
    authority.client(name, None).unwrap()
}

#[tokio::test]
async fn only_certificates_of_the_trusted_ca_get_in() {
    let (authority, trust, broker) = broker().await;
    let stranger = Authority::new("fleet").unwrap();
    for address in [broker.device_address(), broker.claim_address()] {
        Connection::open(address, &trust, Some(&client(&authority, "d1")), "d1")
            .await
            .unwrap();
        assert!(
            Connection::open(address, &trust, Some(&client(&stranger, "d1")), "d1")
                .await
                .is_err()
        );
        assert!(Connection::open(address, &trust, None, "d1").await.is_err());
    }
}

#[tokio::test]
async fn a_device_reaches_the_controller_and_nobody_else() {
    let (authority, trust, broker) = broker().await;
    let open = async |name: &str| {
        Connection::open(broker.device_address(), &trust, Some(&client(&authority, name)), name)
            .await
            .unwrap()
    };
    let (mut controller, mut d1, mut d2) = (open("~controller").await, open("d1").await, open("d2").await);
    assert!(controller.subscribe("certwave/+/up/#").await.unwrap());
    d1.subscribe("certwave/d1/down/#").await.unwrap();
    d2.subscribe("certwave/d1/#").await.unwrap();
    d2.subscribe("#").await.unwrap();

    d2.publish("certwave/d1/up/hello", b"posing", false).await.unwrap();
    d2.publish("certwave/d1/down/job", b"posing", false).await.unwrap();
    d1.publish("certwave/d1/up/hello", b"me", false).await.unwrap();
    let heard = controller.next(SOON).await.unwrap().unwrap();
    assert_eq!(
        (heard.topic.as_str(), heard.payload.as_slice()),
        ("certwave/d1/up/hello", &b"me"[..])
    );

    controller
        .publish("certwave/d1/down/job", b"work", false)
        .await
        .unwrap();
    assert_eq!(d1.next(SOON).await.unwrap().unwrap().payload, b"work");
    assert_eq!(d2.next(NEVER).await.unwrap(), None);
}

#[tokio::test]
async fn a_device_cannot_take_over_anothers_session() {
    let (authority, trust, broker) = broker().await;
    let address = broker.device_address();
    let mut d1 = Connection::open(address, &trust, Some(&client(&authority, "d1")), "d1")
        .await
        .unwrap();
    // It may say any client id; the broker puts the certificate's name in its place.
    let _d2 = Connection::open(address, &trust, Some(&client(&authority, "d2")), "d1").await;
    d1.publish("certwave/d1/up/hello", b"still here", false).await.unwrap();
}

#[tokio::test]
async fn a_broker_comes_back_on_its_ports_after_a_kill() {
    let (authority, trust, mut broker) = broker().await;
    let identity = client(&authority, "d1");
    broker.kill();
    assert!(
        Connection::open(broker.device_address(), &trust, Some(&identity), "d1")
            .await
            .is_err()
    );
    broker.start().await.unwrap();
    Connection::open(broker.device_address(), &trust, Some(&identity), "d1")
        .await
        .unwrap();
    broker.restart().await.unwrap();
    Connection::open(broker.device_address(), &trust, Some(&identity), "d1")
        .await
        .unwrap();
}

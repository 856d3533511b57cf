//! Who gets in, and who stays in.

use std::time::Duration;

use super::world::World;

#[tokio::test]
async fn a_revoked_device_is_refused_at_the_handshake_and_the_others_are_not() {
    let mut world = World::new().await;
    let (thief, honest) = (world.device("thief"), world.device("honest"));
    world.connect(&thief).await.unwrap();
    let number = world.revoke([thief.serial.clone()]);
    world.hint().await;
    world.loaded(number).await;
    assert!(world.connect(&thief).await.is_err());
    world.connect(&honest).await.unwrap();
}

#[tokio::test]
async fn what_was_on_hold_gets_in_again_once_it_is_released() {
    let mut world = World::new().await;
    let device = world.device("held");
    let number = world.revoke([device.serial.clone()]);
    world.loaded(number).await;
    assert!(world.connect(&device).await.is_err());
    let number = world.release(&device.serial);
    world.loaded(number).await;
    world.connect(&device).await.unwrap();
}

#[tokio::test]
async fn a_live_session_is_closed_on_order_and_nobody_elses() {
    let mut world = World::new().await;
    let (thief, honest) = (world.device("thief"), world.device("honest"));
    let (mut stolen, mut other) = (
        world.connect(&thief).await.unwrap(),
        world.connect(&honest).await.unwrap(),
    );
    assert!(stolen.subscribe("certwave/thief/down/+").await.unwrap());
    let number = world.revoke([thief.serial.clone()]);
    world.loaded(number).await;
    // The door alone ends nothing that is there already.
    stolen
        .publish("certwave/thief/up/hello", b"still here", false)
        .await
        .unwrap();
    let kicked = world.kick(&[&thief]).await;
    assert_eq!((kicked.failed, kicked.error), (Vec::new(), None));
    assert!(
        stolen.next(Duration::from_secs(5)).await.is_err(),
        "the session goes on"
    );
    other.publish("certwave/honest/up/hello", b"me", false).await.unwrap();
    assert!(world.connect(&thief).await.is_err());
    // A second order finds no session, and does no harm.
    assert_eq!(world.kick(&[&thief, &honest]).await.failed, Vec::new());
}

#[tokio::test]
async fn ten_thousand_revocations_at_once_are_one_list() {
    let mut world = World::new().await;
    let device = world.device("last");
    let mut serials: Vec<String> = (0..10_000_u32)
        .map(|n| format!("{:032x}", u128::from(n) + (1 << 100)))
        .collect();
    serials.push(device.serial.clone());
    let begun = std::time::Instant::now();
    let number = world.revoke(serials);
    world.hint().await;
    world.loaded(number).await;
    eprintln!("10,001 revocations loaded after {:?}", begun.elapsed());
    assert!(world.connect(&device).await.is_err());
    assert!(begun.elapsed() < Duration::from_secs(15));
}

#[tokio::test]
async fn without_a_hint_the_companion_finds_out_by_itself() {
    let mut world = World::new().await;
    let device = world.device("d");
    let number = world.revoke([device.serial.clone()]);
    world.loaded(number).await;
    assert!(world.connect(&device).await.is_err());
}

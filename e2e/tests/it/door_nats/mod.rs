//! NATS's door, against a real server with the configuration of `docs/examples/nats`.

mod messages;
mod resumption;
mod world;

use std::time::Duration;

use certwave_controller::door::nats::Login;
use certwave_controller::door::{Door as _, DoorError, Hidden, Kicked};
use certwave_e2e::wait::wait_for;
use certwave_pki::crl::Reason;

use world::{World, login};

const SOON: Duration = Duration::from_secs(5);

#[tokio::test]
async fn a_revoked_device_is_refused_at_its_next_handshake() {
    let world = World::start().await;
    let (stolen, good) = (world.device("pump-17"), world.device("pump-18"));
    world.connect(&stolen).await.unwrap();
    world.connect(&good).await.unwrap();
    world.responder.revoke(&stolen, Reason::KeyCompromise);
    let refused = world.connect(&stolen).await;
    assert!(refused.is_err());
    world.connect(&good).await.unwrap();
    // Each handshake asks: nothing old is gone by.
    let before = world.responder.asked();
    world.connect(&good).await.unwrap();
    assert_eq!(world.responder.asked(), before + 1);
}

#[tokio::test]
async fn a_device_on_hold_is_refused_and_let_in_again_after_its_release() {
    let world = World::start().await;
    let device = world.device("pump-17");
    for _ in 0..2 {
        world.connect(&device).await.unwrap();
        world.responder.revoke(&device, Reason::CertificateHold);
        assert!(world.connect(&device).await.is_err());
        world.responder.release(&device);
    }
    world.connect(&device).await.unwrap();
}

#[tokio::test]
async fn who_was_never_issued_is_refused() {
    let world = World::start().await;
    let device = world.device("pump-17");
    world.responder.forget(&device);
    assert!(world.connect(&device).await.is_err());
}

#[tokio::test]
async fn nobody_new_is_let_in_while_no_responder_answers_and_live_sessions_go_on() {
    let world = World::start().await;
    let (live, new) = (world.device("pump-17"), world.device("pump-18"));
    let mut session = world.connect(&live).await.unwrap();
    world.responder.set_down(true);
    assert!(world.connect(&new).await.is_err());
    session
        .publish("certwave/pump-17/up/hello", b"still here", false)
        .await
        .unwrap();
    // Sessions can be closed all the same: the client port does not ask.
    let kicked = world.adapter(login()).kick(&"pump-17".parse().unwrap()).await;
    assert_eq!(kicked, Ok(Kicked::Closed));
    world.responder.set_down(false);
    world.connect(&new).await.unwrap();
}

#[tokio::test]
async fn the_live_session_of_a_revoked_device_is_closed_and_no_other() {
    let world = World::start().await;
    let (stolen, good) = (world.device("pump-17"), world.device("pump-18"));
    let mut theirs = world.connect(&stolen).await.unwrap();
    let mut ours = world.connect(&good).await.unwrap();
    let adapter = world.adapter(login());
    world.responder.revoke(&stolen, Reason::KeyCompromise);
    let device = "pump-17".parse().unwrap();
    assert_eq!(adapter.kick(&device).await, Ok(Kicked::Closed));
    assert!(theirs.next(SOON).await.is_err(), "the session goes on");
    ours.publish("certwave/pump-18/up/hello", b"here", false).await.unwrap();
    let gone = wait_for("the session to be gone", SOON, || async {
        anyhow::ensure!(adapter.kick(&device).await? == Kicked::None, "there is one");
        Ok(())
    });
    gone.await.unwrap();
}

#[tokio::test]
async fn a_thief_who_chooses_another_client_id_is_found_by_the_user() {
    let world = World::start().await;
    let stolen = world.device("pump-17");
    let mut theirs = world.connect_as(&stolen, "somebody-else").await.unwrap();
    let kicked = world.adapter(login()).kick(&"pump-17".parse().unwrap()).await;
    assert_eq!(kicked, Ok(Kicked::Closed));
    assert!(theirs.next(SOON).await.is_err(), "the session goes on");
}

#[tokio::test]
async fn a_wrong_login_is_told_apart_from_one_of_another_account_and_from_no_server() {
    let world = World::start().await;
    let device = "pump-17".parse().unwrap();
    let wrong = Login::Password {
        user: "certwave".to_owned(),
        password: Hidden::from("wrong".to_owned()),
    };
    let said = world.adapter(wrong).kick(&device).await.unwrap_err();
    assert!(
        matches!(&said, DoorError::Refused(text) if text.contains("does not take the login")),
        "{said:?}"
    );
    let creds = Login::Credentials(Hidden::from("nonsense".to_owned()));
    let said = world.adapter(creds).kick(&device).await.unwrap_err();
    assert!(
        matches!(&said, DoorError::Refused(text) if text.contains(".creds")),
        "{said:?}"
    );
    let other = Login::Password {
        user: "monitor".to_owned(),
        password: Hidden::from(certwave_e2e::nats::PASSWORD.to_owned()),
    };
    let said = world.adapter(other).kick(&device).await.unwrap_err();
    assert!(
        matches!(&said, DoorError::Refused(text) if text.contains("system account")),
        "{said:?}"
    );

    let adapter = world.adapter(login());
    drop(world);
    let said = adapter.kick(&device).await.unwrap_err();
    assert!(matches!(said, DoorError::Unreachable(_)), "{said:?}");
}

#[tokio::test]
async fn servers_that_do_not_answer_are_told_of_after_the_others_closed_what_they_have() {
    let world = World::start().await;
    let device = world.device("pump-17");
    let mut session = world.connect(&device).await.unwrap();
    let said = world
        .adapter_of(login(), 3)
        .kick(&"pump-17".parse().unwrap())
        .await
        .unwrap_err();
    assert!(said.to_string().contains("1 of the 3 servers"), "{said}");
    assert!(session.next(SOON).await.is_err());
}

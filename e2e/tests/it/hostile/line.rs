//! One connection to the broker, and what is said on it.

use std::net::SocketAddr;
use std::time::Duration;

use certwave_e2e::identity::Identity;
use certwave_e2e::mqtt::Connection;
use certwave_protocol::code::Code;
use certwave_protocol::control::ControlTrust;
use certwave_protocol::envelope::Unverified;
use certwave_protocol::ids::SessionId;
use certwave_protocol::message::{Body, Payload, Rejected, Type};
use certwave_protocol::topic::{self, DEFAULT_PREFIX, User};
use serde_json::json;

use super::keys::nonce;
use super::plant::{self, World};

const ANSWER: Duration = Duration::from_secs(15);

/// A connection with a session of its own.
pub(super) struct Line {
    world: &'static World,
    user: User,
    /// The session of this connection.
    pub(super) session: SessionId,
    connection: Connection,
}

impl Line {
    /// Connects, subscribes to what is said to `user`.
    pub(super) async fn open(world: &'static World, user: User, identity: &Identity) -> Self {
        let session = nonce();
        let (address, client_id): (SocketAddr, String) = match &user {
            User::Device(id) => (world.stack.broker.device_address(), id.to_string()),
            User::Claim(claim) => (
                world.stack.broker.claim_address(),
                format!("{}.{session}", claim.user()),
            ),
        };
        let mut connection = Connection::open(address, &world.anchors_pem, Some(identity), &client_id)
            .await
            .unwrap();
        assert!(
            connection
                .subscribe(&topic::down_filter(DEFAULT_PREFIX, &user))
                .await
                .unwrap()
        );
        let mut line = Self {
            world,
            user,
            session,
            connection,
        };
        if matches!(line.user, User::Device(_)) {
            line.online().await;
        }
        line
    }

    async fn online(&mut self) {
        let birth = json!({ "v": 1, "online": true, "session": self.session.to_string() });
        let topic = topic::up(DEFAULT_PREFIX, &self.user, Type::Online);
        self.connection
            .publish(&topic, birth.to_string().as_bytes(), true)
            .await
            .unwrap();
    }

    /// Publishes bytes as a message of this kind.
    pub(super) async fn publish(&mut self, kind: Type, message: &[u8]) {
        let topic = topic::up(DEFAULT_PREFIX, &self.user, kind);
        self.connection.publish(&topic, message, false).await.unwrap();
    }

    /// Publishes on a topic that is no message's.
    pub(super) async fn publish_on(&mut self, topic: &str, message: &[u8]) {
        self.connection.publish(topic, message, false).await.unwrap();
    }

    /// Publishes where the broker may end the connection because of it.
    pub(super) async fn publish_unheard(&mut self, kind: Type, message: &[u8]) {
        let topic = topic::up(DEFAULT_PREFIX, &self.user, kind);
        let _ = self.connection.publish(&topic, message, false).await;
    }

    /// The next message to this connection; its signature is the controller's.
    pub(super) async fn answer(&mut self) -> Payload {
        loop {
            let message = self.connection.next(ANSWER).await.unwrap();
            let message = message.unwrap_or_else(|| panic!("no answer for {}", self.user.name()));
            let envelope = Unverified::parse(&message.payload).unwrap();
            let trust = ControlTrust::new(&self.world.anchors).unwrap();
            let key = trust.verify(envelope.x5c(), &self.world.broker, plant::now()).unwrap();
            let payload = envelope.verify(&key).unwrap();
            if payload.session == self.session {
                return payload;
            }
        }
    }

    /// The next message refuses the last one, with this code.
    pub(super) async fn refused(&mut self, what: &str, of: Type, code: Code) -> Rejected {
        let answer = self.answer().await;
        let Body::Rejected(rejected) = answer.body else {
            panic!("{what}: {answer:?} in place of a refusal");
        };
        assert_eq!((rejected.of, rejected.code), (of, code), "{what}: {}", rejected.message);
        rejected
    }

    /// The same, where jobs may come in between.
    pub(super) async fn refused_at_last(&mut self, what: &str, of: Type, code: Code) {
        loop {
            let answer = self.answer().await;
            match answer.body {
                Body::Job(_) => {}
                Body::Rejected(rejected) => {
                    assert_eq!((rejected.of, rejected.code), (of, code), "{what}: {}", rejected.message);
                    return;
                }
                other => panic!("{what}: {other:?} in place of a refusal"),
            }
        }
    }

    /// Nothing of what was said before gets an answer: the controller takes one user's messages in their order, and the
    /// next thing it says to this device refuses a message of an unknown version.
    pub(super) async fn silent(&mut self, what: &str) {
        let User::Device(id) = &self.user else {
            panic!("only a device's refusals name it");
        };
        let later = json!({ "v": 99, "broker": self.world.broker, "device": id, "session": self.session.to_string() });
        let envelope = super::keys::forge(
            &json!({ "alg": "ES256", "typ": "certwave+jws" }),
            &later.to_string(),
            &super::keys::Key::new(),
        );
        self.publish(Type::Hello, &envelope).await;
        self.refused(what, Type::Hello, Code::UnsupportedVersion).await;
    }
}

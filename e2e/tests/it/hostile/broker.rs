//! A broker is not trusted: whoever runs it hears everything and may say anything to everybody.

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use certwave_crds::RotationPhase;
use certwave_e2e::mosquitto::Door;
use certwave_e2e::mqtt::{Connection, Message};
use certwave_protocol::message::Type;
use serde_json::{Value, json};

use super::keys::{Key, forge};
use crate::faults::intact::rotated_once;
use crate::faults::world::{World, device_limits};

/// Nothing more is on its way then.
const QUIET: Duration = Duration::from_millis(500);
/// Devices that take their time, so that there is some to lie in.
const SLOW: [&str; 4] = ["--fault", "slow:1s=*", "--beat", "3"];

/// Whoever runs the broker.
struct Hostile {
    line: Connection,
    /// A key of its own: it has no other.
    key: Key,
    /// All that others said, in order.
    heard: Vec<Message>,
    /// What it said itself comes back to it.
    said: HashSet<Vec<u8>>,
}

impl Hostile {
    async fn enter(door: SocketAddr, server_ca: &str) -> Self {
        // The last listener of its configuration: it opens after those that a start waits for.
        let open = || Connection::open(door, server_ca, None, "mallory");
        let mut line = certwave_e2e::wait_for("the door for anybody", QUIET * 20, open)
            .await
            .unwrap();
        assert!(line.subscribe("#").await.unwrap());
        Self {
            line,
            key: Key::new(),
            heard: Vec::new(),
            said: HashSet::new(),
        }
    }

    /// The next message of somebody else; `None` when all is quiet.
    async fn hear(&mut self) -> Option<Message> {
        loop {
            let message = self.line.next(QUIET).await.unwrap()?;
            if !self.said.contains(&message.payload) {
                self.heard.push(message.clone());
                return Some(message);
            }
        }
    }

    async fn say(&mut self, topic: &str, payload: Vec<u8>, retain: bool) {
        self.line.publish(topic, &payload, retain).await.unwrap();
        self.said.insert(payload);
    }

    /// What can be made of a message that somebody else signed: everything but the signature.
    fn forgeries(&self, message: &Message) -> Vec<Vec<u8>> {
        let Some((header, payload)) = open(&message.payload) else {
            return Vec::new();
        };
        let mut payloads = vec![payload.clone()];
        match payload["type"].as_str().unwrap() {
            "csr" | "enrol" => payloads = vec![with_request(&payload, &self.key)],
            "status" => {
                for step in ["committed", "rolled-back", "failed", "rejected"] {
                    let mut other = payload.clone();
                    other["body"]["step"] = json!(step);
                    payloads.push(other);
                }
            }
            _ => {}
        }
        let mut headers = vec![header.clone()];
        if header.get("x5c").is_some() {
            // A certificate that nobody trusts, for the very key that signs.
            let name = format!("~control.{}", payload["broker"].as_str().unwrap());
            let own = self.key.self_signed(&name);
            let mut other = header;
            other["x5c"] = json!([STANDARD.encode(own)]);
            headers.push(other);
        }
        let forged = headers.iter().flat_map(|header| {
            let one = |payload: &Value| forge(header, &payload.to_string(), &self.key);
            payloads.iter().map(one)
        });
        forged.collect()
    }

    /// Says everything again that was ever said, and all that can be made of it; to devices so that they hear it whenever they come.
    async fn say_all_again(&mut self) {
        for message in self.heard.clone() {
            let retain = message.topic.contains("/down/");
            for forged in self.forgeries(&message) {
                self.say(&message.topic, forged, retain).await;
            }
            self.say(&message.topic, message.payload, retain).await;
        }
    }

    /// Answers each message of others with lies about it, for ever.
    async fn lie(&mut self) {
        loop {
            let Some(message) = self.hear().await else { continue };
            for forged in self.forgeries(&message) {
                self.say(&message.topic, forged, false).await;
            }
            let says = |kind: Type| message.topic.ends_with(&format!("/{kind}"));
            if says(Type::Enrol) || says(Type::Csr) || says(Type::Tested) || says(Type::Status) {
                self.say(&message.topic, message.payload, false).await;
            }
        }
    }
}

/// Header and payload of an envelope; `None` for what is none.
fn open(envelope: &[u8]) -> Option<(Value, Value)> {
    let text = std::str::from_utf8(envelope).ok()?;
    let mut parts = text.split('.').map(|part| URL_SAFE_NO_PAD.decode(part));
    let mut json = || serde_json::from_slice(&parts.next()?.ok()?).ok();
    Some((json()?, json()?))
}

/// The same message with a request for another key.
fn with_request(payload: &Value, key: &Key) -> Value {
    let mut other = payload.clone();
    let request = key.request(payload["device"].as_str().unwrap());
    other["body"]["csr"] = json!(STANDARD.encode(request));
    other
}

/// Somebody who may hear and say anything behind this door of the world's broker.
async fn behind(world: &mut World, door: Door) -> Hostile {
    let broker = &mut world.stack.broker;
    let door = broker.let_in_anybody(door).unwrap();
    broker.restart().await.unwrap();
    let server_ca = std::fs::read_to_string(&broker.files().ca).unwrap();
    Hostile::enter(door, &server_ca).await
}

/// All of it is said again, to devices that are there and to devices that come: it changes nothing, and each has had these jobs.
async fn changes_nothing_said_again(world: &mut World, broker: &mut Hostile, ids: &[String], jobs: &[&str]) {
    let (certificates, issued) = (world.certificates().await, world.history().issued());
    broker.say_all_again().await;
    world.cut_power("m");
    world.switch_on("m", ids, &SLOW);
    world.verify().await;
    assert_eq!(world.history().issued(), issued, "a certificate was issued");
    assert_eq!(world.certificates().await, certificates);
    for id in ids {
        assert_eq!(world.history().kinds(id), jobs, "{id}");
    }
}

#[tokio::test]
async fn a_hostile_broker_gets_no_certificate_confirms_for_nobody_and_parts_no_device_from_its_own() {
    let mut world = World::new("hostile-broker", 10).await;
    let mut broker = behind(&mut world, Door::Devices).await;
    let ids = world.enrol("m", 3, &SLOW).await;
    let first = world.certificates().await;
    world.rotate("watched", &json!({}));
    rotated_once(&mut world, "watched", &ids, &first).await;
    while broker.hear().await.is_some() && broker.heard.len() < 500 {}
    let mut kinds = BTreeMap::new();
    for message in &broker.heard {
        let kind = message.topic.rsplit('/').next().unwrap();
        *kinds.entry(kind.to_owned()).or_insert(0) += 1;
    }
    for kind in ["hello", "job", "csr", "certificate", "tested", "commit", "status"] {
        assert!(kinds.contains_key(kind), "{kind} was not heard: {kinds:?}");
    }

    changes_nothing_said_again(&mut world, &mut broker, &ids, &["enrol", "rotate"]).await;
    let (second, issued) = (world.certificates().await, world.history().issued());

    // And in the middle of a rotation: each word that is said is followed by lies about it.
    // Devices that are slow, on a machine that is busy, are not offline: they are all to be rotated in it.
    let mut limits = device_limits();
    limits["offlineAfter"] = json!("1m");
    world.rotate("lied-about", &json!({ "device": limits }));
    let ended = tokio::select! {
        () = broker.lie() => unreachable!("it never ends"),
        ended = world.ended("lied-about") => ended,
    };
    assert!(broker.said.len() > 50, "there was little to lie about");
    assert_eq!(
        ended.phase,
        Some(RotationPhase::Complete),
        "{ended:#?}\n{}",
        world.log()
    );
    assert_eq!(ended.counts.confirmed, 3, "{ended:#?}");
    world.wait_renewed(&ids, &second).await;
    world.verify().await;
    assert_eq!(world.history().went_wrong(), 0, "{}", world.log());
    assert_eq!(
        world.history().issued(),
        issued + ids.len(),
        "a certificate was issued for somebody else"
    );
}

#[tokio::test]
async fn behind_the_claims_door_a_hostile_broker_enrols_nobody_and_keeps_nobody_out() {
    let mut world = World::new("hostile-claims", 10).await;
    let mut broker = behind(&mut world, Door::Claims).await;

    // Each word of an enrolment is followed by lies about it, and said again.
    let ids = tokio::select! {
        () = broker.lie() => unreachable!("it never ends"),
        ids = world.enrol("m", 3, &SLOW) => ids,
    };
    for kind in ["enrol", "certificate"] {
        let heard = broker
            .heard
            .iter()
            .filter(|message| message.topic.ends_with(kind))
            .count();
        assert!(heard >= ids.len(), "{kind} was heard {heard} times");
    }
    assert!(broker.said.len() > 2 * ids.len(), "there was little to lie about");
    assert_eq!(
        world.history().issued(),
        ids.len(),
        "a certificate was issued for another key"
    );
    let first = world.certificates().await;
    changes_nothing_said_again(&mut world, &mut broker, &ids, &["enrol"]).await;
    // And they rotate as ever.
    world.rotate("after", &json!({}));
    rotated_once(&mut world, "after", &ids, &first).await;
}

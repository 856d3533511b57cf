//! The connections to each broker, one through each [`Door`]: mutual TLS as `~controller`, `QoS` 1, clean session.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use certwave_protocol::code::Code;
use certwave_protocol::envelope;
use certwave_protocol::ids::BrokerId;
use certwave_protocol::message::{Payload, Type};
use certwave_protocol::topic::{self, User};
use futures::FutureExt as _;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tracing::Instrument as _;

use super::Engine;
use super::dial::{Destination, Happened, Outbox};
use super::door::Door;
use super::hearing::{Hearing, SILENCE};
use crate::gate::Gate;
use crate::metrics::Waits;
use crate::registry::{BrokerEntry, Link};

/// Messages are handled in so many lines; one device's messages stay in one line and so in their order.
const LANES: usize = 16;
/// Messages that wait in one lane before the connection is read no further.
const LANE: usize = 256;
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LAST_PAUSE: Duration = Duration::from_secs(30);

/// The connections there are now.
#[derive(Default)]
pub(super) struct Links(RwLock<HashMap<BrokerId, Speaker>>);

/// Says things to devices of one broker.
#[derive(Clone)]
pub(super) struct Speaker {
    /// The broker.
    pub(super) entry: Arc<BrokerEntry>,
    outbox: Arc<dyn Outbox>,
    gate: Arc<Gate>,
    hearing: Arc<Mutex<Hearing>>,
}

impl Links {
    /// The connection to `broker`, if there is one.
    pub(super) fn get(&self, broker: &BrokerId) -> Option<Speaker> {
        let map = self.0.read().unwrap_or_else(PoisonError::into_inner);
        map.get(broker).cloned()
    }

    fn set(&self, broker: &BrokerId, speaker: Option<Speaker>) {
        let mut map = self.0.write().unwrap_or_else(PoisonError::into_inner);
        match speaker {
            Some(s) => map.insert(broker.clone(), s),
            None => map.remove(broker),
        };
    }
}

impl Speaker {
    /// How good the connection has been.
    pub(super) fn hearing(&self) -> Hearing {
        *self.hearing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the broker answer something, if no answer is due already. It acknowledges the end of a subscription that there is
    /// not, too (MQTT 3.1.1, 3.10.4); a ping cannot be had at will.
    pub(super) fn ask(&self) {
        if self.gate.is_open() && self.note(Hearing::asks) {
            // Where the outbox is full, much is asked as it is.
            self.outbox.unsubscribe(format!("{}/~nothing", self.entry.prefix));
        }
    }

    /// Something happened on the connection.
    fn note<T>(&self, what: impl FnOnce(&mut Hearing, Instant) -> T) -> T {
        let mut hearing = self.hearing.lock().unwrap_or_else(PoisonError::into_inner);
        what(&mut hearing, Instant::now())
    }

    /// Publishes to somebody beside the broker, who believes nothing that is not signed otherwise.
    pub(super) fn say_plainly(&self, topic: String, message: Vec<u8>) -> bool {
        self.gate.is_open() && self.outbox.publish(topic, message)
    }

    /// Signs and publishes; answers whether it was handed over. What is lost here is asked for again by the device's next
    /// `hello`. A deposed leader says nothing: not even that it will not.
    pub(super) fn say(&self, to: &User, payload: &Payload) -> bool {
        if !self.gate.is_open() {
            return false;
        }
        let message = envelope::sign_down(payload, &self.entry.control_key, &self.entry.control_chain);
        let topic = topic::down(&self.entry.prefix, to, payload.body.kind());
        let handed = self.outbox.publish(topic, message);
        if !handed {
            tracing::warn!(broker = %self.entry.id, "a message was not handed over");
        }
        handed
    }
}

/// A message as it came.
struct Heard {
    user: User,
    kind: Type,
    bytes: Vec<u8>,
    at: Instant,
    /// Until it is answered.
    _waits: Waits,
}

/// Keeps a task for each door of each broker of the registry, for ever.
pub(super) async fn supervise(engine: Arc<Engine>) {
    let mut tasks: HashMap<BrokerId, (String, Vec<Guard>)> = HashMap::new();
    let registry = Arc::clone(&engine.registry);
    loop {
        let mut changed = std::pin::pin!(registry.brokers_changed());
        changed.as_mut().enable();
        let wanted = registry.brokers();
        tasks.retain(|id, (version, _)| {
            let same = wanted.iter().any(|b| b.id == *id && b.version == *version);
            if !same {
                engine.links.set(id, None);
                engine.metrics.brokers.forget_links(id);
            }
            same
        });
        for entry in wanted {
            if !tasks.contains_key(&entry.id) {
                let keep = |door| tokio::spawn(keep(Arc::clone(&engine), Arc::clone(&entry), door)).abort_handle();
                let guards = Door::of(&entry).map(|door| Guard(keep(door))).collect();
                tasks.insert(entry.id.clone(), (entry.version.clone(), guards));
            }
        }
        changed.await;
    }
}

/// Ends its task when dropped.
pub(super) struct Guard(pub(super) AbortHandle);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Connects again and again, with growing pauses.
async fn keep(engine: Arc<Engine>, entry: Arc<BrokerEntry>, door: Door) {
    let mut pause = FIRST_PAUSE;
    while engine.gate.is_open() {
        let began = Instant::now();
        let error = once(&engine, &entry, door).await;
        tracing::warn!(broker = %entry.id, ?door, %error, "not connected");
        engine.report(&entry, door, Err(error));
        if began.elapsed() > LAST_PAUSE {
            pause = FIRST_PAUSE;
        }
        // Full jitter, so that replicas and brokers that came back do not march in step.
        tokio::time::sleep(pause.mul_f64(rand::random_range(0.5..1.0))).await;
        pause = (pause * 2).min(LAST_PAUSE);
    }
}

impl Engine {
    /// Lets everybody know of a connection's beginning or end.
    fn report(&self, entry: &BrokerEntry, door: Door, outcome: Result<Speaker, String>) {
        let link = Link {
            connected: outcome.is_ok(),
            error: outcome.as_ref().err().cloned(),
        };
        let (gauge, speaker) = match door {
            Door::Devices => (&self.metrics.brokers.connected, Some(outcome.ok())),
            Door::Claims => (&self.metrics.brokers.claims_connected, None),
        };
        gauge
            .with_label_values(&[entry.id.as_str()])
            .set(i64::from(link.connected));
        match speaker {
            Some(speaker) => {
                self.links.set(&entry.id, speaker);
                self.registry.set_link(entry.id.clone(), link);
            }
            None => self.registry.set_claims_link(entry.id.clone(), link),
        }
    }
}

/// One connection from its beginning to its end; says why it ended.
async fn once(engine: &Arc<Engine>, entry: &Arc<BrokerEntry>, door: Door) -> String {
    let (host, port) = door.address(entry);
    let destination = Destination {
        host: &host,
        port,
        client_id: door.client_id(),
        anchors: &entry.anchors,
        chain: &entry.client_chain,
        key: &entry.client_key,
    };
    let (outbox, mut events) = match engine.dial.dial(destination) {
        Ok(opened) => opened,
        Err(error) => return format!("the controller's credential for the broker cannot be used: {error}"),
    };
    let speaker = Speaker {
        entry: Arc::clone(entry),
        outbox: Arc::clone(&outbox),
        gate: Arc::clone(&engine.gate),
        hearing: Arc::new(Mutex::new(Hearing::new(Instant::now()))),
    };
    let lanes = lanes(engine, &speaker);
    let filter = door.filter(entry);
    loop {
        let happened = tokio::select! {
            // First: what waits in the outbox must not leave either.
            biased;
            () = engine.gate.closed() => return "this process no longer leads".to_owned(),
            happened = events.next() => happened,
            // The client's own watch is put off by each thing it sends.
            () = tokio::time::sleep_until(speaker.hearing().ends().into()) => {
                return format!("the broker has said nothing for {} s", SILENCE.as_secs());
            }
        };
        let happened = match happened {
            Ok(happened) => happened,
            Err(error) => return error,
        };
        match &happened {
            Happened::Connected | Happened::Subscribed(_) | Happened::Message { .. } | Happened::Answered => {
                if let Some(gap) = speaker.note(Hearing::heard) {
                    let seconds = gap.as_secs();
                    tracing::warn!(broker = %entry.id, ?door, seconds, "held up; devices get their time again");
                }
            }
            Happened::Asked => speaker.note(Hearing::asked),
            Happened::Nothing => {}
        }
        match happened {
            Happened::Connected => {
                if door == Door::Devices {
                    engine.registry.presence.forget(&entry.id);
                }
                if !outbox.subscribe(&filter) {
                    return "the subscription could not be sent".to_owned();
                }
            }
            Happened::Subscribed(false) => {
                return format!("the broker refuses the subscription to {filter}; check its ACL");
            }
            Happened::Subscribed(true) => {
                speaker.note(|hearing, now| *hearing = Hearing::new(now));
                engine.report(entry, door, Ok(speaker.clone()));
                engine.registry.nudge();
                tracing::info!(broker = %entry.id, ?door, host, port, "connected");
            }
            Happened::Message { topic, payload } => {
                let Some((lane, heard)) = sorted(engine, entry, door, &topic, &payload) else {
                    continue;
                };
                if lanes[lane].send(heard).await.is_err() {
                    return "a lane ended".to_owned();
                }
            }
            Happened::Answered | Happened::Asked | Happened::Nothing => {}
        }
    }
}

/// A message, and the lane that it goes into; `None` where it is none of ours, or for the broker's adapter.
fn sorted(engine: &Engine, entry: &BrokerEntry, door: Door, topic: &Bytes, payload: &Bytes) -> Option<(usize, Heard)> {
    let topic = std::str::from_utf8(topic).ok()?;
    let Some((user, kind)) = topic::parse_up(&entry.prefix, topic) else {
        let adapter = engine.registry.door(&entry.id);
        if !adapter.is_some_and(|adapter| adapter.hear(topic, payload)) {
            let messages = &engine.metrics.brokers.messages;
            messages.with_label_values(&["none", "unknown-type"]).inc();
        }
        return None;
    };
    if !door.answers(entry, &user) {
        return None;
    }
    let mut hasher = DefaultHasher::new();
    user.hash(&mut hasher);
    let lane = usize::try_from(hasher.finish() % LANES as u64).unwrap_or(0);
    let heard = Heard {
        user,
        kind,
        bytes: payload.to_vec(),
        at: Instant::now(),
        _waits: engine.metrics.brokers.waits(&entry.id),
    };
    Some((lane, heard))
}

fn lanes(engine: &Arc<Engine>, speaker: &Speaker) -> Vec<mpsc::Sender<Heard>> {
    (0..LANES)
        .map(|_| {
            let (tx, mut rx) = mpsc::channel::<Heard>(LANE);
            let (engine, speaker) = (Arc::clone(engine), speaker.clone());
            tokio::spawn(async move {
                while let Some(heard) = rx.recv().await {
                    let kind = heard.kind;
                    // Whoever finds a message that brings its handling down must not take the lane's other devices along.
                    let span = tracing::debug_span!(
                        "message",
                        broker = %speaker.entry.id,
                        from = heard.user.name(),
                        %kind,
                        outcome = tracing::field::Empty,
                    );
                    let hearing = engine.hear(&speaker, &heard.user, kind, &heard.bytes);
                    let hearing = AssertUnwindSafe(hearing.instrument(span.clone()));
                    let outcome = hearing.catch_unwind().await.unwrap_or_else(|_| {
                        tracing::error!(user = heard.user.name(), %kind, "a fault of the program: handling a message panicked");
                        Code::Other.as_str()
                    });
                    span.record("outcome", outcome);
                    let metrics = &engine.metrics.brokers;
                    metrics.messages.with_label_values(&[kind.as_str(), outcome]).inc();
                    metrics.message_duration.observe(heard.at.elapsed().as_secs_f64());
                }
            });
            tx
        })
        .collect()
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used)]
    use certwave_protocol::VERSION;
    use certwave_protocol::ids::Nonce;
    use certwave_protocol::message::{Body, Rejected};

    use super::*;
    use crate::engine::door::tests::entry;

    /// Takes whatever is said.
    struct Taken;

    impl Outbox for Taken {
        fn publish(&self, _: String, _: Vec<u8>) -> bool {
            true
        }

        fn subscribe(&self, _: &str) -> bool {
            true
        }

        fn unsubscribe(&self, _: String) -> bool {
            true
        }
    }

    /// A connection on which nothing leaves: what is handed over goes nowhere.
    fn speaker(gate: &Arc<Gate>) -> Speaker {
        Speaker {
            entry: Arc::new(entry(None)),
            outbox: Arc::new(Taken),
            gate: Arc::clone(gate),
            hearing: Arc::new(Mutex::new(Hearing::new(Instant::now()))),
        }
    }

    /// Lets the engine take its broker for connected.
    pub(in crate::engine) fn connect(engine: &Engine) {
        let speaker = speaker(&engine.gate);
        let broker = speaker.entry.id.clone();
        engine.links.set(&broker, Some(speaker));
    }

    #[tokio::test]
    async fn a_deposed_leader_hands_nothing_over() {
        let gate = Gate::open();
        let speaker = speaker(&gate);
        let user = User::Device("d-1".parse().unwrap());
        let payload = Payload {
            v: VERSION,
            broker: "b".parse().unwrap(),
            device: "d-1".parse().unwrap(),
            session: Nonce([1; 16]),
            job: None,
            nonce: None,
            epoch: Some(1),
            body: Body::Rejected(Rejected {
                of: Type::Hello,
                code: Code::TryLater,
                message: String::new(),
                job_state: None,
            }),
        };
        assert!(speaker.say(&user, &payload));
        gate.close();
        assert!(!speaker.say(&user, &payload));
    }
}

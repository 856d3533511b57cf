//! The connections to each broker, one through each [`Door`]: mutual TLS as `~controller`, `QoS` 1, clean session.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use certwave_protocol::code::Code;
use certwave_protocol::ids::BrokerId;
use certwave_protocol::message::{Payload, Type};
use certwave_protocol::topic::{self, User};
use certwave_protocol::{MAX_MESSAGE, envelope};
use futures::FutureExt as _;
use rumqttc::{AsyncClient, Event, Incoming, MqttOptions, Outgoing, PublishOptions, QoS, TlsConfiguration, Transport};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tracing::Instrument as _;

use super::Engine;
use super::door::Door;
use super::hearing::{Hearing, KEEP_ALIVE, SILENCE};
use crate::causes::causes;
use crate::gate::Gate;
use crate::metrics::Waits;
use crate::registry::{BrokerEntry, Link};
use crate::tls;

/// Messages are handled in so many lines; one device's messages stay in one line and so in their order.
const LANES: usize = 16;
/// Messages that wait in one lane before the connection is read no further.
const LANE: usize = 256;
/// Messages that wait for a broker which takes them slowly; those beyond it are lost, and asked for again.
const OUTBOX: usize = 8192;
/// A packet larger than this ends the connection. Devices may send 32 KiB and are told when it was more; the broker should
/// stop what is much larger (the generated configuration does), or a hostile device could end the connection at will.
const MAX_PACKET: usize = 2 * 1024 * 1024;
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
    client: AsyncClient,
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
            let _ = self.client.try_unsubscribe(format!("{}/~nothing", self.entry.prefix));
        }
    }

    /// Something happened on the connection.
    fn note<T>(&self, what: impl FnOnce(&mut Hearing, Instant) -> T) -> T {
        let mut hearing = self.hearing.lock().unwrap_or_else(PoisonError::into_inner);
        what(&mut hearing, Instant::now())
    }

    /// Publishes to somebody beside the broker, who believes nothing that is not signed otherwise.
    pub(super) fn say_plainly(&self, topic: String, message: Vec<u8>) -> bool {
        let options = PublishOptions::new(QoS::AtLeastOnce);
        self.gate.is_open() && self.client.try_publish(topic, message, options).is_ok()
    }

    /// Signs and publishes; answers whether it was handed over. What is lost here is asked for again by the device's next
    /// `hello`. A deposed leader says nothing: not even that it will not.
    pub(super) fn say(&self, to: &User, payload: &Payload) -> bool {
        if !self.gate.is_open() {
            return false;
        }
        let message = envelope::sign_down(payload, &self.entry.control_key, &self.entry.control_chain);
        let topic = topic::down(&self.entry.prefix, to, payload.body.kind());
        let handed = self
            .client
            .try_publish(topic, message, PublishOptions::new(QoS::AtLeastOnce));
        if let Err(error) = &handed {
            tracing::warn!(broker = %self.entry.id, %error, "a message was not handed over");
        }
        handed.is_ok()
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
    let tls = match tls::mutual(&entry.anchors, &entry.client_chain, &entry.client_key) {
        Ok(tls) => tls,
        Err(error) => return format!("the controller's credential for the broker cannot be used: {error}"),
    };
    let (host, port) = door.address(entry);
    let mut options = MqttOptions::new(door.client_id(), (host.clone(), port));
    options.set_transport(Transport::Tls(TlsConfiguration::Rustls(Arc::new(tls))));
    options.set_keep_alive(KEEP_ALIVE);
    options.set_clean_session(true);
    options.set_inflight(1000);
    options.set_max_packet_size(MAX_PACKET, MAX_MESSAGE + 1024);
    let (client, mut events) = AsyncClient::builder(options).capacity(OUTBOX).build();
    let speaker = Speaker {
        entry: Arc::clone(entry),
        client: client.clone(),
        gate: Arc::clone(&engine.gate),
        hearing: Arc::new(Mutex::new(Hearing::new(Instant::now()))),
    };
    let lanes = lanes(engine, &speaker);
    let filter = door.filter(entry);
    loop {
        let event = tokio::select! {
            // First: what waits in the outbox must not leave either.
            biased;
            () = engine.gate.closed() => return "this process no longer leads".to_owned(),
            event = events.poll() => event,
            // The client's own watch is put off by each thing it sends.
            () = tokio::time::sleep_until(speaker.hearing().ends().into()) => {
                return format!("the broker has said nothing for {} s", SILENCE.as_secs());
            }
        };
        match &event {
            Ok(Event::Incoming(_)) => {
                if let Some(gap) = speaker.note(Hearing::heard) {
                    let seconds = gap.as_secs();
                    tracing::warn!(broker = %entry.id, ?door, seconds, "held up; devices get their time again");
                }
            }
            Ok(Event::Outgoing(Outgoing::Publish(_) | Outgoing::Subscribe(_) | Outgoing::PingReq)) => {
                speaker.note(Hearing::asked);
            }
            _ => {}
        }
        match event {
            Ok(Event::Incoming(Incoming::ConnAck(_))) => {
                if door == Door::Devices {
                    engine.registry.presence.forget(&entry.id);
                }
                if let Err(error) = client.try_subscribe(&filter, QoS::AtLeastOnce) {
                    return error.to_string();
                }
            }
            Ok(Event::Incoming(Incoming::SubAck(ack))) => {
                if ack
                    .return_codes
                    .iter()
                    .any(|c| matches!(c, rumqttc::SubscribeReasonCode::Failure))
                {
                    return format!("the broker refuses the subscription to {filter}; check its ACL");
                }
                speaker.note(|hearing, now| *hearing = Hearing::new(now));
                engine.report(entry, door, Ok(speaker.clone()));
                engine.registry.nudge();
                tracing::info!(broker = %entry.id, ?door, host, port, "connected");
            }
            Ok(Event::Incoming(Incoming::Publish(message))) => {
                let Ok(topic) = std::str::from_utf8(&message.topic) else {
                    continue;
                };
                let Some((user, kind)) = topic::parse_up(&entry.prefix, topic) else {
                    let adapter = engine.registry.door(&entry.id);
                    if adapter.is_some_and(|adapter| adapter.hear(topic, &message.payload)) {
                        continue;
                    }
                    let messages = &engine.metrics.brokers.messages;
                    messages.with_label_values(&["none", "unknown-type"]).inc();
                    continue;
                };
                if !door.answers(entry, &user) {
                    continue;
                }
                let mut hasher = DefaultHasher::new();
                user.hash(&mut hasher);
                let lane = usize::try_from(hasher.finish() % LANES as u64).unwrap_or(0);
                let heard = Heard {
                    user,
                    kind,
                    bytes: message.payload.to_vec(),
                    at: Instant::now(),
                    _waits: engine.metrics.brokers.waits(&entry.id),
                };
                if lanes[lane].send(heard).await.is_err() {
                    return "a lane ended".to_owned();
                }
            }
            Ok(_) => {}
            Err(error) => return causes(&error),
        }
    }
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

    /// A connection on which nothing leaves: nobody polls, what is handed over stays in the outbox.
    fn speaker(gate: &Arc<Gate>) -> (Speaker, rumqttc::EventLoop) {
        let options = MqttOptions::new("test", ("localhost".to_owned(), 1));
        let (client, outbox) = AsyncClient::builder(options).capacity(8).build();
        let speaker = Speaker {
            entry: Arc::new(entry(None)),
            client,
            gate: Arc::clone(gate),
            hearing: Arc::new(Mutex::new(Hearing::new(Instant::now()))),
        };
        (speaker, outbox)
    }

    /// Lets the engine take its broker for connected as long as what this returns lives.
    pub(in crate::engine) fn connect(engine: &Engine) -> rumqttc::EventLoop {
        let (speaker, outbox) = speaker(&engine.gate);
        let broker = speaker.entry.id.clone();
        engine.links.set(&broker, Some(speaker));
        outbox
    }

    #[tokio::test]
    async fn a_deposed_leader_hands_nothing_over() {
        let gate = Gate::open();
        let (speaker, _outbox) = speaker(&gate);
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

//! One connection to each broker: mutual TLS as `~controller`, `QoS` 1, clean session.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use certwave_protocol::code::Code;
use certwave_protocol::ids::BrokerId;
use certwave_protocol::message::{Payload, Type};
use certwave_protocol::topic::{self, User};
use certwave_protocol::{MAX_MESSAGE, envelope};
use futures::FutureExt as _;
use rumqttc::{AsyncClient, Event, Incoming, MqttOptions, PublishOptions, QoS, TlsConfiguration, Transport};
use rustls::{ClientConfig, RootCertStore};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::Engine;
use crate::registry::{BrokerEntry, Link};

/// The controller's MQTT user.
const USER: &str = "~controller";
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

/// The connections there are now, and since when.
#[derive(Default)]
pub(super) struct Links(RwLock<HashMap<BrokerId, (Speaker, Instant)>>);

/// Says things to devices of one broker.
#[derive(Clone)]
pub(super) struct Speaker {
    /// The broker.
    pub(super) entry: Arc<BrokerEntry>,
    client: AsyncClient,
}

impl Links {
    /// The connection to `broker`, if there is one.
    pub(super) fn get(&self, broker: &BrokerId) -> Option<Speaker> {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(broker)
            .map(|(speaker, _)| speaker.clone())
    }

    /// For how long there has been a connection to `broker`.
    pub(super) fn up_for(&self, broker: &BrokerId) -> Option<Duration> {
        let map = self.0.read().unwrap_or_else(PoisonError::into_inner);
        map.get(broker).map(|(_, since)| since.elapsed())
    }

    fn set(&self, broker: &BrokerId, speaker: Option<Speaker>) {
        let mut map = self.0.write().unwrap_or_else(PoisonError::into_inner);
        match speaker {
            Some(s) => map.insert(broker.clone(), (s, Instant::now())),
            None => map.remove(broker),
        };
    }
}

impl Speaker {
    /// Signs and publishes. What is lost here is asked for again by the device's next `hello`.
    pub(super) fn say(&self, to: &User, payload: &Payload) {
        let message = envelope::sign_down(payload, &self.entry.control_key, &self.entry.control_chain);
        let topic = topic::down(&self.entry.prefix, to, payload.body.kind());
        if let Err(error) = self
            .client
            .try_publish(topic, message, PublishOptions::new(QoS::AtLeastOnce))
        {
            tracing::warn!(broker = %self.entry.id, %error, "a message was not handed over");
        }
    }
}

/// A message as it came.
struct Heard {
    user: User,
    kind: Type,
    bytes: Vec<u8>,
    at: Instant,
}

/// Keeps one task for each broker of the registry, for ever.
pub(super) async fn supervise(engine: Arc<Engine>) {
    let mut tasks: HashMap<BrokerId, (String, Guard)> = HashMap::new();
    let registry = Arc::clone(&engine.registry);
    loop {
        let mut changed = std::pin::pin!(registry.brokers_changed());
        changed.as_mut().enable();
        let wanted = registry.brokers();
        tasks.retain(|id, (version, _)| {
            let same = wanted.iter().any(|b| b.id == *id && b.version == *version);
            if !same {
                engine.links.set(id, None);
            }
            same
        });
        for entry in wanted {
            if !tasks.contains_key(&entry.id) {
                let task = tokio::spawn(keep(Arc::clone(&engine), Arc::clone(&entry)));
                tasks.insert(entry.id.clone(), (entry.version.clone(), Guard(task.abort_handle())));
            }
        }
        changed.await;
    }
}

/// Ends its task when dropped.
struct Guard(AbortHandle);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Connects again and again, with growing pauses.
async fn keep(engine: Arc<Engine>, entry: Arc<BrokerEntry>) {
    let mut pause = FIRST_PAUSE;
    loop {
        let began = Instant::now();
        let error = once(&engine, &entry).await;
        engine.links.set(&entry.id, None);
        engine
            .metrics
            .broker_connected
            .with_label_values(&[entry.id.as_str()])
            .set(0);
        tracing::warn!(broker = %entry.id, %error, "not connected");
        engine.registry.set_link(
            entry.id.clone(),
            Link {
                connected: false,
                error: Some(error),
            },
        );
        if began.elapsed() > LAST_PAUSE {
            pause = FIRST_PAUSE;
        }
        // Full jitter, so that replicas and brokers that came back do not march in step.
        tokio::time::sleep(pause.mul_f64(rand::random_range(0.5..1.0))).await;
        pause = (pause * 2).min(LAST_PAUSE);
    }
}

/// One connection from its beginning to its end; says why it ended.
async fn once(engine: &Arc<Engine>, entry: &Arc<BrokerEntry>) -> String {
    let tls = match tls(entry) {
        Ok(tls) => tls,
        Err(error) => return format!("the controller's credential for the broker cannot be used: {error}"),
    };
    let mut options = MqttOptions::new(USER, (entry.host.clone(), entry.port));
    options.set_transport(Transport::Tls(TlsConfiguration::Rustls(Arc::new(tls))));
    options.set_keep_alive(20);
    options.set_clean_session(true);
    options.set_inflight(1000);
    options.set_max_packet_size(MAX_PACKET, MAX_MESSAGE + 1024);
    let (client, mut events) = AsyncClient::builder(options).capacity(OUTBOX).build();
    let speaker = Speaker {
        entry: Arc::clone(entry),
        client: client.clone(),
    };
    let lanes = lanes(engine, &speaker);
    let filter = topic::up_filter(&entry.prefix);
    loop {
        match events.poll().await {
            Ok(Event::Incoming(Incoming::ConnAck(_))) => {
                engine.registry.presence.forget(&entry.id);
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
                engine.links.set(&entry.id, Some(speaker.clone()));
                engine
                    .metrics
                    .broker_connected
                    .with_label_values(&[entry.id.as_str()])
                    .set(1);
                engine.registry.set_link(
                    entry.id.clone(),
                    Link {
                        connected: true,
                        error: None,
                    },
                );
                engine.registry.nudge();
                tracing::info!(broker = %entry.id, host = %entry.host, port = entry.port, "connected");
            }
            Ok(Event::Incoming(Incoming::Publish(message))) => {
                let Ok(topic) = std::str::from_utf8(&message.topic) else {
                    continue;
                };
                let Some((user, kind)) = topic::parse_up(&entry.prefix, topic) else {
                    engine
                        .metrics
                        .messages
                        .with_label_values(&["none", "unknown-type"])
                        .inc();
                    continue;
                };
                let mut hasher = DefaultHasher::new();
                user.hash(&mut hasher);
                let lane = usize::try_from(hasher.finish() % LANES as u64).unwrap_or(0);
                let heard = Heard {
                    user,
                    kind,
                    bytes: message.payload.to_vec(),
                    at: Instant::now(),
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
                    let hearing = AssertUnwindSafe(engine.hear(&speaker, &heard.user, kind, &heard.bytes));
                    let outcome = hearing.catch_unwind().await.unwrap_or_else(|_| {
                        tracing::error!(user = heard.user.name(), %kind, "a fault of the program: handling a message panicked");
                        Code::Other.as_str()
                    });
                    engine
                        .metrics
                        .messages
                        .with_label_values(&[kind.as_str(), outcome])
                        .inc();
                    engine.metrics.message_seconds.observe(heard.at.elapsed().as_secs_f64());
                }
            });
            tx
        })
        .collect()
}

fn tls(entry: &BrokerEntry) -> Result<ClientConfig, rustls::Error> {
    let mut roots = RootCertStore::empty();
    for anchor in &entry.anchors {
        roots.add(anchor.clone())?;
    }
    ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_client_auth_cert(entry.client_chain.clone(), entry.client_key.clone_key())
}

/// An error with its sources: the TLS alert is the deepest.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let next = error.to_string();
        if !text.contains(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        source = error.source();
    }
    text
}

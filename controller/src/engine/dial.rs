//! How a connection to a broker is opened, and what is said and heard on it: MQTT over mutual TLS.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use certwave_protocol::MAX_MESSAGE;
use rumqttc::{
    AsyncClient, Event, EventLoop, Incoming, MqttOptions, Outgoing, PublishOptions, QoS, SubscribeReasonCode,
    TlsConfiguration, Transport,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::hearing::KEEP_ALIVE;
use crate::causes::causes;
use crate::tls;

/// Messages that wait for a broker which takes them slowly; those beyond it are lost, and asked for again.
const OUTBOX: usize = 8192;
/// A packet larger than this ends the connection. Devices may send 32 KiB and are told when it was more; the broker should
/// stop what is much larger (the generated configuration does), or a hostile device could end the connection at will.
const MAX_PACKET: usize = 2 * 1024 * 1024;

/// Where to connect, and as whom.
pub struct Destination<'a> {
    /// Host name or IP address.
    pub host: &'a str,
    /// TCP port.
    pub port: u16,
    /// MQTT client id.
    pub client_id: String,
    /// What the broker's certificate must chain to.
    pub anchors: &'a [CertificateDer<'static>],
    /// Our certificate and those above it.
    pub chain: &'a [CertificateDer<'static>],
    /// Its key.
    pub key: &'a PrivateKeyDer<'static>,
}

/// Both ends of a connection.
pub type Opened = (Arc<dyn Outbox>, Box<dyn Line>);

/// Opens connections.
pub trait Dial: Send + Sync {
    /// Begins to connect: what becomes of that, the line says.
    ///
    /// # Errors
    /// When the credential cannot be used.
    fn dial(&self, to: Destination<'_>) -> Result<Opened, String>;
}

/// What is said on a connection. Nothing waits: what cannot be taken now is lost, and `false` says so.
pub trait Outbox: Send + Sync {
    /// Publishes with `QoS` 1, not retained.
    fn publish(&self, topic: String, message: Vec<u8>) -> bool;
    /// Subscribes with `QoS` 1.
    fn subscribe(&self, filter: &str) -> bool;
    /// Ends a subscription, which is answered even where there was none (MQTT 3.1.1, 3.10.4).
    fn unsubscribe(&self, filter: String) -> bool;
}

/// What happens on a connection.
#[async_trait]
pub trait Line: Send {
    /// The next thing. Safe to cancel.
    ///
    /// # Errors
    /// Why the connection was not made, or ended.
    async fn next(&mut self) -> Result<Happened, String>;
}

/// See [`Line`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Happened {
    /// Connected.
    Connected,
    /// The subscription was answered; whether it was granted.
    Subscribed(bool),
    /// A message came.
    Message {
        /// On this topic.
        topic: Bytes,
        /// This one.
        payload: Bytes,
    },
    /// Something else came.
    Answered,
    /// Something left that the broker answers.
    Asked,
    /// Nothing that matters.
    Nothing,
}

/// The real thing.
#[derive(Debug, Clone, Copy)]
pub struct Mqtt;

impl Dial for Mqtt {
    fn dial(&self, to: Destination<'_>) -> Result<Opened, String> {
        let tls = tls::mutual(to.anchors, to.chain, to.key).map_err(|error| error.to_string())?;
        let mut options = MqttOptions::new(to.client_id, (to.host.to_owned(), to.port));
        options.set_transport(Transport::Tls(TlsConfiguration::Rustls(Arc::new(tls))));
        options.set_keep_alive(KEEP_ALIVE);
        options.set_clean_session(true);
        options.set_inflight(1000);
        options.set_max_packet_size(MAX_PACKET, MAX_MESSAGE + 1024);
        let (client, events) = AsyncClient::builder(options).capacity(OUTBOX).build();
        Ok((Arc::new(Client(client)), Box::new(Events(events))))
    }
}

struct Client(AsyncClient);

impl Outbox for Client {
    fn publish(&self, topic: String, message: Vec<u8>) -> bool {
        let handed = self
            .0
            .try_publish(topic, message, PublishOptions::new(QoS::AtLeastOnce));
        handed.is_ok()
    }

    fn subscribe(&self, filter: &str) -> bool {
        self.0.try_subscribe(filter, QoS::AtLeastOnce).is_ok()
    }

    fn unsubscribe(&self, filter: String) -> bool {
        self.0.try_unsubscribe(filter).is_ok()
    }
}

struct Events(EventLoop);

#[async_trait]
impl Line for Events {
    async fn next(&mut self) -> Result<Happened, String> {
        let event = self.0.poll().await.map_err(|error| causes(&error))?;
        Ok(match event {
            Event::Incoming(Incoming::ConnAck(_)) => Happened::Connected,
            Event::Incoming(Incoming::SubAck(ack)) => {
                let refused = |code: &_| matches!(code, SubscribeReasonCode::Failure);
                Happened::Subscribed(!ack.return_codes.iter().any(refused))
            }
            Event::Incoming(Incoming::Publish(message)) => Happened::Message {
                topic: message.topic,
                payload: message.payload,
            },
            Event::Incoming(_) => Happened::Answered,
            Event::Outgoing(Outgoing::Publish(_) | Outgoing::Subscribe(_) | Outgoing::PingReq) => Happened::Asked,
            Event::Outgoing(_) => Happened::Nothing,
        })
    }
}

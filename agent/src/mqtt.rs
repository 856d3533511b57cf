//! One MQTT 3.1.1 connection over mutual TLS: birth, last will, subscription, messages both ways.
//!
//! Each connection has a TLS configuration of its own and resumes nothing: a ticket of another credential's session would
//! let a device in without the one that is on trial.

use std::error::Error;
use std::fmt::Debug;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use certwave_protocol::MAX_MESSAGE;
use certwave_protocol::VERSION;
use certwave_protocol::ids::SessionId;
use certwave_protocol::message::{Online, Type};
use certwave_protocol::topic::{self, User};
use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v4::{ConnectReturnCode, LastWill, SubscribeReasonCode};
use rumqttc::{AsyncClient, ConnectionError, Event, EventLoop, MqttOptions, Packet, PublishOptions, Transport};
use rustls::client::Resumption;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{AlertDescription, ClientConfig};
use rustls_pki_types::CertificateDer;

use crate::machine::Failure;
use crate::trust::{Clock, Trust, provider};

const CONNECT_TIME: Duration = Duration::from_secs(30);
const CLOSE_TIME: Duration = Duration::from_secs(3);
/// A device says a handful of things at a time; channels and windows are kept small for the simulator's thousands.
const WINDOW: u16 = 16;

/// A broker's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// Host name or IP address; also what the broker's certificate must be for.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

/// Not a broker's URL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a URL like mqtts://broker.example:8883")]
pub struct BadUrl(String);

impl std::str::FromStr for Address {
    type Err = BadUrl;
    /// Reads `mqtts://host[:port]`; the port is 8883 where none is given.
    fn from_str(url: &str) -> Result<Self, BadUrl> {
        let bad = || BadUrl(url.to_owned());
        let rest = ["mqtts://", "ssl://", "tls://"]
            .iter()
            .find_map(|s| url.strip_prefix(s))
            .ok_or_else(bad)?;
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = match rest.strip_prefix('[') {
            Some(v6) => {
                let (host, port) = v6.split_once(']').ok_or_else(bad)?;
                (host, port.strip_prefix(':'))
            }
            None => rest
                .split_once(':')
                .map_or((rest, None), |(host, port)| (host, Some(port))),
        };
        if host.is_empty() || host.contains(['/', '@']) {
            return Err(bad());
        }
        let port = port.map_or(Ok(8883), str::parse).map_err(|_| bad())?;
        Ok(Self {
            host: host.to_owned(),
            port,
        })
    }
}

/// The TLS side of a connection: TLS 1.2 or 1.3 (RFC 8446), this credential and no other, no resumption.
pub fn tls_config(
    chain: Vec<CertificateDer<'static>>,
    key: Arc<dyn rustls::sign::SigningKey>,
    trust: &Arc<Trust>,
    clock: Clock,
) -> Result<ClientConfig, rustls::Error> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(trust.server_verifier(clock))
        .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(CertifiedKey::new(chain, key))));
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// Where and as whom to connect.
#[derive(Debug, Clone)]
pub struct Target {
    /// The broker.
    pub address: Address,
    /// MQTT client id.
    pub client_id: String,
    /// The MQTT user that the certificate makes us.
    pub user: User,
    /// Topic prefix.
    pub prefix: String,
    /// The connection's id.
    pub session: SessionId,
    /// Seconds between pings on an idle connection.
    pub keep_alive: u16,
    /// See [`tls_config`].
    pub tls: Arc<ClientConfig>,
}

/// What a connection's work is done by.
pub type Work<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Makes connections.
pub trait Dial: Send + Sync + Debug {
    /// A connection counts as made when the subscription is acknowledged.
    fn dial(&self, target: Target) -> Work<'static, Result<Box<dyn Wire>, LinkError>>;
}

/// A connection that was made.
pub trait Wire: Send {
    /// Queues a message. A full queue means that the broker does not take messages any more: the caller ends the connection.
    fn publish(&mut self, kind: Type, message: Vec<u8>) -> Result<(), LinkError>;
    /// The next message to this user. Safe to cancel.
    fn next(&mut self) -> Work<'_, Result<(Type, Vec<u8>), LinkError>>;
    /// Says that the device goes offline on purpose; then [`Wire::close`].
    fn say_offline(&mut self, session: SessionId);
    /// Waits until the broker has what was published, then leaves without a will. Gives up after a few seconds.
    fn close(self: Box<Self>) -> Work<'static, ()>;
}

/// Connections over the network.
#[derive(Debug, Clone, Copy)]
pub struct Network;

impl Dial for Network {
    fn dial(&self, target: Target) -> Work<'static, Result<Box<dyn Wire>, LinkError>> {
        Box::pin(async move {
            let session = Session::connect(target).await?;
            Ok(Box::new(session) as Box<dyn Wire>)
        })
    }
}

impl Wire for Session {
    fn publish(&mut self, kind: Type, message: Vec<u8>) -> Result<(), LinkError> {
        Self::publish(self, kind, message)
    }

    fn next(&mut self) -> Work<'_, Result<(Type, Vec<u8>), LinkError>> {
        Box::pin(Self::next(self))
    }

    fn say_offline(&mut self, session: SessionId) {
        Self::say_offline(self, session);
    }

    fn close(self: Box<Self>) -> Work<'static, ()> {
        Box::pin(Self::close(*self))
    }
}

/// A connection over the network.
pub struct Session {
    client: AsyncClient,
    events: EventLoop,
    user: User,
    prefix: String,
    unacknowledged: usize,
}

/// A connection that was not made or broke.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
pub struct LinkError {
    /// What it means to the device.
    pub failure: Failure,
    /// What happened, for people.
    pub reason: String,
}

impl LinkError {
    fn new(error: &ConnectionError) -> Self {
        Self {
            failure: classify(error),
            reason: describe(error),
        }
    }

    fn timeout() -> Self {
        Self {
            failure: Failure::Unreachable,
            reason: "no answer in time".to_owned(),
        }
    }
}

impl Session {
    /// Connects, announces itself and subscribes. A connection counts as made when the subscription is acknowledged, so
    /// that no answer to the first message can be missed. A claim announces nothing: it is not a device.
    pub async fn connect(target: Target) -> Result<Self, LinkError> {
        tokio::time::timeout(CONNECT_TIME, Self::open(target))
            .await
            .unwrap_or_else(|_| Err(LinkError::timeout()))
    }

    async fn open(target: Target) -> Result<Self, LinkError> {
        let Target {
            address,
            client_id,
            user,
            prefix,
            session,
            keep_alive,
            tls,
        } = target;
        let mut options = MqttOptions::new(client_id, (address.host, address.port));
        options
            .set_transport(Transport::tls_with_config(rumqttc::TlsConfiguration::Rustls(tls)))
            .set_keep_alive(keep_alive)
            .set_max_packet_size(MAX_MESSAGE + 1024, MAX_MESSAGE + 1024)
            .set_inflight(WINDOW);
        let online = topic::up(&prefix, &user, Type::Online);
        let device = matches!(user, User::Device(_));
        if device {
            options.set_last_will(LastWill::new(
                online.as_str(),
                birth(session, false),
                QoS::AtLeastOnce,
                true,
            ));
        }
        let (client, mut events) = AsyncClient::builder(options).capacity(usize::from(WINDOW)).build();
        let mut network = events.network_options();
        network.set_tcp_nodelay(true);
        network.set_connection_timeout(CONNECT_TIME.as_secs());
        events.set_network_options(network);

        let refused = |reason: &str| LinkError {
            failure: Failure::Refused(None),
            reason: reason.to_owned(),
        };
        let mut unacknowledged = 0;
        loop {
            match events.poll().await.map_err(|e| LinkError::new(&e))? {
                Event::Incoming(Packet::ConnAck(_)) => {
                    let filter = topic::down_filter(&prefix, &user);
                    client
                        .try_subscribe(filter, QoS::AtLeastOnce)
                        .map_err(|e| refused(&e.to_string()))?;
                }
                Event::Incoming(Packet::SubAck(ack)) => {
                    if ack.return_codes.contains(&SubscribeReasonCode::Failure) {
                        return Err(refused("the broker does not let this user subscribe to its own topics"));
                    }
                    break;
                }
                _ => {}
            }
        }
        if device {
            let options = PublishOptions::at_least_once().retained();
            client
                .try_publish(online, birth(session, true), options)
                .map_err(|e| refused(&e.to_string()))?;
            unacknowledged = 1;
        }
        Ok(Self {
            client,
            events,
            user,
            prefix,
            unacknowledged,
        })
    }

    /// Queues a message. A full queue means that the broker does not take messages any more: the caller ends the
    /// connection.
    pub fn publish(&mut self, kind: Type, message: Vec<u8>) -> Result<(), LinkError> {
        let topic = topic::up(&self.prefix, &self.user, kind);
        self.client
            .try_publish(topic, message, PublishOptions::at_least_once())
            .map_err(|e| LinkError {
                failure: Failure::Unreachable,
                reason: e.to_string(),
            })?;
        self.unacknowledged += 1;
        Ok(())
    }

    /// The next message to this user. Safe to cancel.
    pub async fn next(&mut self) -> Result<(Type, Vec<u8>), LinkError> {
        loop {
            match self.events.poll().await.map_err(|e| LinkError::new(&e))? {
                Event::Incoming(Packet::Publish(publish)) => {
                    let topic = std::str::from_utf8(&publish.topic).ok();
                    match topic.and_then(|t| topic::parse_down(&self.prefix, t)) {
                        Some((user, kind)) if user == self.user => return Ok((kind, publish.payload.to_vec())),
                        _ => tracing::debug!("a message on a topic that is not this device's"),
                    }
                }
                Event::Incoming(Packet::PubAck(_)) => self.unacknowledged = self.unacknowledged.saturating_sub(1),
                _ => {}
            }
        }
    }

    /// Says that the device goes offline on purpose; then [`Session::close`].
    pub fn say_offline(&mut self, session: SessionId) {
        let topic = topic::up(&self.prefix, &self.user, Type::Online);
        let options = PublishOptions::at_least_once().retained();
        if matches!(self.user, User::Device(_))
            && self.client.try_publish(topic, birth(session, false), options).is_ok()
        {
            self.unacknowledged += 1;
        }
    }

    /// Waits until the broker has what was published, then leaves without a will. Gives up after a few seconds.
    pub async fn close(mut self) {
        let leave = async {
            while self.unacknowledged > 0 {
                match self.events.poll().await {
                    Ok(Event::Incoming(Packet::PubAck(_))) => self.unacknowledged -= 1,
                    Ok(_) => {}
                    Err(_) => return,
                }
            }
            if self.client.try_disconnect().is_ok() {
                while self.events.poll().await.is_ok() {}
            }
        };
        let _ = tokio::time::timeout(CLOSE_TIME, leave).await;
    }
}

#[allow(clippy::expect_used)]
fn birth(session: SessionId, online: bool) -> Vec<u8> {
    serde_json::to_vec(&Online {
        v: VERSION,
        online,
        session,
    })
    .expect("two scalars and a string serialize always")
}

/// What an error means to the device: whose fault is it?
pub fn classify(error: &ConnectionError) -> Failure {
    if let ConnectionError::ConnectionRefused(code) = error {
        return match code {
            ConnectReturnCode::BadClientId
            | ConnectReturnCode::BadUserNamePassword
            | ConnectReturnCode::NotAuthorized => Failure::Refused(None),
            _ => Failure::Unreachable,
        };
    }
    match tls_error(error) {
        Some(rustls::Error::AlertReceived(AlertDescription::CloseNotify | AlertDescription::InternalError)) => {
            Failure::Unreachable
        }
        Some(rustls::Error::AlertReceived(alert)) => Failure::Refused(Some(alert_name(*alert))),
        Some(rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented) => Failure::Untrusted,
        _ => Failure::Unreachable,
    }
}

/// The TLS library's error, however deep it lies. An `io::Error` hides what it wraps from `source`.
fn tls_error<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e rustls::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<rustls::Error>() {
            return Some(found);
        }
        next = match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(inner) => Some(inner as &(dyn Error + 'static)),
            None => error.source(),
        };
    }
    None
}

fn describe(error: &ConnectionError) -> String {
    match tls_error(error) {
        Some(rustls::Error::AlertReceived(alert)) => format!("TLS alert {}", alert_name(*alert)),
        Some(tls) => format!("TLS: {tls}"),
        None => error.to_string(),
    }
}

/// A TLS alert's name in RFC 8446 6 and in the IANA registry.
pub fn alert_name(alert: AlertDescription) -> String {
    match alert {
        AlertDescription::UnknownCA => return "unknown_ca".to_owned(),
        AlertDescription::UnknownPSKIdentity => return "unknown_psk_identity".to_owned(),
        AlertDescription::UnrecognisedName => return "unrecognized_name".to_owned(),
        AlertDescription::EncryptedClientHelloRequired => return "ech_required".to_owned(),
        AlertDescription::Unknown(code) => return format!("alert_{code}"),
        _ => {}
    }
    let mut out = String::new();
    for c in format!("{alert:?}").chars() {
        if c.is_ascii_uppercase() && !out.is_empty() {
            out.push('_');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}

//! The broker's door: what keeps a revoked device out, and its session from going on.
//!
//! Kinds of brokers differ in how they hear of a revocation, whether they can tell that they have, and how a live session is
//! ended. An adapter ([`Door`]) does these for one broker; [`Abilities`] says what it cannot. [`open`] makes the adapter that a
//! `Broker` asks for; the engine works with it (`engine/shut`).

pub mod emqx;
mod hidden;
pub mod mosquitto;
pub mod nats;
mod view;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use certwave_core::door::{Node, Scope};
use certwave_core::model::Millis;
use certwave_ledger::SerialKey;
use certwave_protocol::ids::DeviceId;

use crate::gates::Client;
use crate::registry::BrokerEntry;
pub use hidden::Hidden;
pub use view::{DoorView, Fault};

/// What an adapter can do for its broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Abilities {
    /// [`Door::loaded`] tells what each node goes by: two-phase retirement needs it.
    pub reports_loading: bool,
    /// [`Door::kick`] ends live sessions.
    pub kicks: bool,
}

/// Why the broker could not be told, or gave no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DoorError {
    /// Nobody answers there.
    #[error("cannot be reached: {0}")]
    Unreachable(String),
    /// It does not let us in, or not do that.
    #[error("refused: {0}")]
    Refused(String),
    /// It gave no answer in time.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// A node does not go by the CRL of this scope yet; asking again will help once it does.
    #[error("the node {node} has not loaded the CRL of {scope} yet")]
    NotLoaded {
        /// The node; as many as are declared must have spoken.
        node: String,
        /// Issuer's key id and partition.
        scope: String,
    },
    /// Done at the nodes that answer, which are not all.
    #[error("was told in part: {0}")]
    Partial(String),
    /// This kind of broker cannot do that.
    #[error("this broker cannot do that")]
    Unable,
}

impl DoorError {
    /// A short word of a closed set, for metric labels.
    pub const fn category(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "unreachable",
            Self::Refused(_) => "refused",
            Self::Timeout(_) => "timeout",
            Self::NotLoaded { .. } => "not-loaded",
            Self::Partial(_) => "partial",
            Self::Unable => "unable",
        }
    }
}

/// A CRL that is out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// The issuer's key id.
    pub issuer: String,
    /// The partition.
    pub partition: String,
    /// Its number.
    pub number: u64,
    /// Where it is served.
    pub url: String,
}

/// What became of a live session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kicked {
    /// There was one; it is closed.
    Closed,
    /// There was none.
    None,
}

/// Which adapter a broker has, and its settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DoorSettings {
    /// None: the broker goes by trust anchors alone. Nothing is told to it, nobody is refused and no session closed.
    None,
    /// A Mosquitto with `certwave crl-sync` beside each node.
    CrlSync {
        /// A node that was not heard for so long is late.
        late_after: Millis,
    },
    /// NATS, which goes by OCSP.
    Nats(nats::Settings),
    /// EMQX, which fetches CRLs by itself.
    Emqx(emqx::Settings),
}

/// Says something on a broker's own topics, as the controller; answers whether it was handed over.
pub trait Voice: Send + Sync {
    /// Publishes with `QoS` 1, not retained.
    fn say(&self, topic: String, message: Vec<u8>) -> bool;
}

impl DoorSettings {
    /// A node that was not heard for so long is late.
    pub const fn late_after(&self) -> Millis {
        match self {
            Self::None | Self::Nats(_) | Self::Emqx(_) => 60_000,
            Self::CrlSync { late_after } => *late_after,
        }
    }

    /// What the adapter can do; nothing where there is none.
    pub const fn abilities(&self) -> Abilities {
        match self {
            Self::None => Abilities {
                reports_loading: false,
                kicks: false,
            },
            Self::CrlSync { .. } => mosquitto::ABILITIES,
            Self::Nats(_) => nats::ABILITIES,
            Self::Emqx(_) => emqx::ABILITIES,
        }
    }

    /// Whether a broker of this kind may go by CRLs.
    pub const fn reads_crls(&self) -> bool {
        !matches!(self, Self::Nats(_))
    }

    /// The kind of adapter, for metric labels.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::None => "none",
            Self::CrlSync { .. } => "crl-sync",
            Self::Nats(_) => "nats",
            Self::Emqx(_) => "emqx",
        }
    }
}

/// The adapter that a broker's settings ask for.
pub fn open(broker: &BrokerEntry, voice: Arc<dyn Voice>) -> Option<Arc<dyn Door>> {
    match &broker.door {
        DoorSettings::None => None,
        DoorSettings::CrlSync { late_after } => {
            let door = mosquitto::Mosquitto::new(&broker.prefix, broker.nodes, *late_after, voice);
            Some(Arc::new(door))
        }
        DoorSettings::Nats(settings) => {
            let tls = nats::Tls {
                anchors: broker.anchors.clone(),
                chain: broker.client_chain.clone(),
                key: broker.client_key.clone_key(),
            };
            Some(Arc::new(nats::Nats::new(settings.clone(), tls, broker.nodes)))
        }
        DoorSettings::Emqx(settings) => {
            let http = Client::trusting(&broker.anchors).map_err(|error| error.to_string());
            Some(Arc::new(emqx::Emqx::new(settings.clone(), http, broker.nodes)))
        }
    }
}

/// The adapter of one broker. Each call may be repeated; none takes longer than some seconds.
#[async_trait]
pub trait Door: Send + Sync {
    /// What it can do.
    fn abilities(&self) -> Abilities;
    /// Lets a new certificate in, before it goes to its device. Brokers that go by trust anchors need nothing.
    async fn admit(&self, _certificate: &SerialKey, _der: &[u8]) -> Result<(), DoorError> {
        Ok(())
    }
    /// Certificates were revoked; `crls` say so. What is told while this process ends may be lost: an adapter that goes by more
    /// than CRLs and OCSP has to compare by itself. Brokers that fetch or ask by themselves need not be told, here and below.
    async fn revoke(&self, _certificates: &[SerialKey], _crls: &[Published]) -> Result<(), DoorError> {
        Ok(())
    }
    /// Certificates were put on hold; `crls` say so.
    async fn hold(&self, _certificates: &[SerialKey], _crls: &[Published]) -> Result<(), DoorError> {
        Ok(())
    }
    /// Certificates are good again; `crls` say so.
    async fn release(&self, _certificates: &[SerialKey], _crls: &[Published]) -> Result<(), DoorError> {
        Ok(())
    }
    /// What each node goes by, as far as it has said. `published` are the CRLs that are out: what nodes go by that ask the
    /// issuer's services at every handshake.
    async fn loaded(&self, published: &BTreeMap<Scope, u64>) -> Result<Vec<Node>, DoorError>;
    /// Ends the live session of a device, on every node. Where some do not answer it is ended at the others, and the answer is
    /// [`DoorError::Partial`].
    async fn kick(&self, device: &DeviceId) -> Result<Kicked, DoorError>;
    /// Takes in a message on one of the broker's up topics that no device sends; whether it was for this adapter.
    fn hear(&self, _topic: &str, _message: &[u8]) -> bool {
        false
    }
    /// Resolves when [`loaded`](Self::loaded) has something new to say.
    async fn changed(&self) {
        std::future::pending::<()>().await;
    }
}

//! The doors of a NATS server or cluster.
//!
//! NATS asks OCSP at every TLS handshake (`ocsp_peer`) and, with its cache of answers off, goes by nothing older: there is nothing to
//! load, and what is revoked is out as soon as the responder says so. Responders answer from the ledger, as CRLs do: what a CRL
//! says that was published a moment ago (`SETTLE`), every server that is alive goes by. Live sessions are found and closed over
//! the system account, on whichever server they are.

mod api;

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use async_nats::connection::State;
use async_nats::{Client, ConnectErrorKind, ConnectOptions};
use async_trait::async_trait;
use certwave_core::door::{Node, Scope};
use certwave_core::model::Millis;
use certwave_protocol::ids::DeviceId;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::sync::Mutex;

use super::{Abilities, Door, DoorError, Hidden, Kicked};
use crate::causes::causes;
use crate::clock;
use crate::tls;
use api::Session;

/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(3);
/// A responder, be it another replica, answers by what is in the ledger within this time.
const SETTLE: Duration = Duration::from_secs(1);
/// How often servers are asked whether they are alive.
const LOOK: Duration = Duration::from_secs(2);
/// What the server shows for our connection.
const NAME: &str = "certwave";

/// How we say who we are. The login must belong to the system account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Login {
    /// A user of the configuration.
    Password {
        /// Its name.
        user: String,
        /// Its password.
        password: Hidden,
    },
    /// The contents of a `.creds` file: a JWT and the seed of its key.
    Credentials(Hidden),
}

/// How the system account is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// `tls://host:port` of any server: the client port, not the one of MQTT.
    pub url: String,
    /// Who we are.
    pub login: Login,
    /// The name of a device's user, with `{deviceId}` in it, where each has one.
    pub user: Option<String>,
    /// Changes with the login, which does not print.
    pub version: String,
}

/// What a connection is made with.
pub struct Tls {
    /// What the server's certificate must chain to.
    pub anchors: Vec<CertificateDer<'static>>,
    /// The client certificate, leaf first: a server that verifies clients wants one on this port too.
    pub chain: Vec<CertificateDer<'static>>,
    /// Its key.
    pub key: PrivateKeyDer<'static>,
}

/// What this adapter can do.
pub(crate) const ABILITIES: Abilities = Abilities {
    reports_loading: true,
    kicks: true,
};

/// The adapter.
pub struct Nats {
    settings: Settings,
    tls: Tls,
    /// How many servers are declared.
    declared: usize,
    /// The connection, made when it is first needed, and anew when it is found broken.
    client: Mutex<Option<Client>>,
    seen: Mutex<Seen>,
}

/// What is remembered between rounds.
#[derive(Default)]
struct Seen {
    /// The servers that answered, and when.
    servers: Option<(Instant, Millis, Vec<String>)>,
    /// Since when a number of a scope is known to be published.
    since: BTreeMap<Scope, VecDeque<(u64, Instant)>>,
}

impl Seen {
    /// The numbers that every responder answers by.
    fn settled(&mut self, published: &BTreeMap<Scope, u64>, now: Instant) -> BTreeMap<Scope, u64> {
        self.since.retain(|scope, _| published.contains_key(scope));
        let mut settled = BTreeMap::new();
        for (scope, number) in published {
            let numbers = self.since.entry(scope.clone()).or_default();
            if numbers.back().is_none_or(|(last, _)| last < number) {
                numbers.push_back((*number, now));
            }
            // The last one that has settled stays at the front.
            let old =
                |entry: Option<&(u64, Instant)>| entry.is_some_and(|(_, since)| now.duration_since(*since) >= SETTLE);
            while old(numbers.get(1)) {
                numbers.pop_front();
            }
            if old(numbers.front()) {
                settled.extend(numbers.front().map(|(number, _)| (scope.clone(), *number)));
            }
        }
        settled
    }
}

impl Nats {
    /// An adapter of a cluster that is declared to have so many servers; nobody is asked yet.
    pub fn new(settings: Settings, tls: Tls, declared: usize) -> Self {
        Self {
            settings,
            tls,
            declared,
            client: Mutex::new(None),
            seen: Mutex::default(),
        }
    }

    async fn client(&self) -> Result<Client, DoorError> {
        let mut slot = self.client.lock().await;
        if let Some(client) = slot.as_ref().filter(|c| c.connection_state() == State::Connected) {
            return Ok(client.clone());
        }
        // Given up by its last clone, a broken one stops to try.
        *slot = None;
        let client = tokio::time::timeout(CONNECT, self.connect())
            .await
            .map_err(|_| DoorError::Timeout(CONNECT))??;
        *slot = Some(client.clone());
        Ok(client)
    }

    async fn connect(&self) -> Result<Client, DoorError> {
        let tls = tls::mutual(&self.tls.anchors, &self.tls.chain, &self.tls.key)
            .map_err(|error| DoorError::Refused(error.to_string()))?;
        let options = ConnectOptions::new()
            .name(NAME)
            .require_tls(true)
            .tls_client_config(tls)
            .connection_timeout(CONNECT)
            .max_reconnects(1);
        let options = match &self.settings.login {
            Login::Password { user, password } => options.user_and_password(user.clone(), password.expose().to_owned()),
            Login::Credentials(text) => options.credentials(text.expose()).map_err(|_| {
                DoorError::Refused("the Secret of spec.nats has no valid contents of a .creds file".to_owned())
            })?,
        };
        options.connect(self.settings.url.as_str()).await.map_err(|error| {
            let said = causes(&error);
            match error.kind() {
                ConnectErrorKind::AuthorizationViolation | ConnectErrorKind::Authentication => DoorError::Refused(
                    "the server does not take the login in the Secret of spec.nats: check user and password".to_owned(),
                ),
                ConnectErrorKind::TimedOut => DoorError::Timeout(CONNECT),
                _ => DoorError::Unreachable(said),
            }
        })
    }

    fn missing(&self, alive: usize) -> DoorError {
        let declared = self.declared;
        DoorError::Partial(format!(
            "{alive} of the {declared} servers of spec.nodes answer; live sessions at the others cannot be closed"
        ))
    }

    /// By what the sessions of a device are found: the client id that it gives, and its user where each device has one.
    fn filters(&self, device: &DeviceId) -> Vec<api::Filter> {
        let user = self.settings.user.as_ref();
        let by_user = user.map(|template| api::Filter::User(template.replace("{deviceId}", device.as_ref())));
        std::iter::once(api::Filter::ClientId(device.to_string()))
            .chain(by_user)
            .collect()
    }
}

#[async_trait]
impl Door for Nats {
    fn abilities(&self) -> Abilities {
        ABILITIES
    }

    async fn loaded(&self, published: &BTreeMap<Scope, u64>) -> Result<Vec<Node>, DoorError> {
        let mut seen = self.seen.lock().await;
        let loaded = seen.settled(published, Instant::now());
        let (heard, names) = match &seen.servers {
            Some((at, heard, names)) if at.elapsed() < LOOK => (*heard, names.clone()),
            _ => {
                let names = api::servers(&self.client().await?).await?;
                let heard = clock::now();
                seen.servers = Some((Instant::now(), heard, names.clone()));
                (heard, names)
            }
        };
        if names.len() < self.declared {
            return Err(self.missing(names.len()));
        }
        let node = |name| Node {
            name,
            heard,
            error: None,
            loaded: loaded.clone(),
        };
        Ok(names.into_iter().map(node).collect())
    }

    async fn kick(&self, device: &DeviceId) -> Result<Kicked, DoorError> {
        let client = self.client().await?;
        let alive = api::servers(&client).await?.len();
        let mut sessions: Vec<Session> = Vec::new();
        for filter in self.filters(device) {
            sessions.extend(api::sessions(&client, &filter, alive).await?);
        }
        sessions.sort();
        sessions.dedup();
        for session in &sessions {
            api::close(&client, session).await?;
        }
        // What is there was closed; a server that cannot be asked may hold another session.
        if alive < self.declared {
            return Err(self.missing(alive));
        }
        Ok(if sessions.is_empty() {
            Kicked::None
        } else {
            Kicked::Closed
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crl_counts_as_loaded_once_responders_have_had_time_to_follow() {
        let scope: Scope = ("ca".to_owned(), "2026-11".to_owned());
        let published = |number| BTreeMap::from([(scope.clone(), number)]);
        let (mut seen, start) = (Seen::default(), Instant::now());
        let at = |share: f64| start + SETTLE.mul_f64(share);
        assert_eq!(seen.settled(&published(5), at(0.0)), BTreeMap::new());
        assert_eq!(seen.settled(&published(5), at(1.0)), published(5));
        assert_eq!(seen.settled(&published(6), at(1.5)), published(5));
        assert_eq!(seen.settled(&published(7), at(2.4)), published(5));
        assert_eq!(seen.settled(&published(8), at(2.5)), published(6));
        assert_eq!(seen.settled(&published(8), at(3.5)), published(8));
        assert_eq!(seen.settled(&BTreeMap::new(), at(3.5)), BTreeMap::new());
    }
}

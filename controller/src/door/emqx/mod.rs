//! The doors of EMQX, over its REST API (version 5).
//!
//! EMQX fetches the CRL that a certificate's distribution point names, keeps it, and fetches it again by its own clock
//! (`crl_cache.refresh_interval`); it tells nobody what it goes by. So [`reports_loading`](Abilities::reports_loading) is false,
//! and a device that is shut out is banned by its client id until EMQX has a newer CRL for certain.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use axum::body::Body;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use certwave_core::door::{Node, Scope};
use certwave_protocol::ids::DeviceId;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use http::{Method, Request};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::{Abilities, Door, DoorError, Hidden, Kicked};
use crate::clock;
use crate::gates::exchange::{self, Client, Failure};

#[cfg(test)]
mod tests;

/// How long one call may take.
const ANSWER: Duration = Duration::from_secs(5);
/// How often it is asked for its nodes.
const LOOK: Duration = Duration::from_secs(10);
/// By whom a device is banned.
const US: &str = "certwave";

/// What the REST API needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Base URL, without `/api/v5`.
    pub url: String,
    /// Name of the API key.
    pub key: String,
    /// Its secret.
    pub secret: Hidden,
    /// How long a device that is shut out stays banned.
    pub ban: Duration,
    /// Changes with the key, which does not print.
    pub version: String,
}

/// What this adapter can do.
pub(crate) const ABILITIES: Abilities = Abilities {
    reports_loading: false,
    kicks: true,
};

/// The adapter.
pub struct Emqx {
    settings: Settings,
    /// Or why there is none.
    http: Result<Client, String>,
    /// How many nodes are declared.
    declared: usize,
    /// The nodes that run, and when they were asked for.
    seen: Mutex<Option<(Instant, Vec<Node>)>>,
}

/// A node, of `GET /nodes`.
#[derive(Deserialize)]
struct Running {
    node: String,
    node_status: String,
}

/// Who has banned somebody, of `GET /banned`.
#[derive(Deserialize)]
struct Bans {
    data: Vec<Ban>,
}

/// One ban.
#[derive(Deserialize)]
struct Ban {
    #[serde(rename = "as")]
    kind: String,
    who: String,
    #[serde(default)]
    by: String,
    /// RFC 3339, or `infinity`.
    #[serde(default)]
    until: String,
}

impl Ban {
    fn lasts_until(&self, end: Timestamp) -> bool {
        self.until == "infinity" || self.until.parse::<Timestamp>().is_ok_and(|until| until >= end)
    }
}

/// What EMQX calls the reason why it does not do what was asked.
fn code(body: &[u8]) -> String {
    let refusal: Value = serde_json::from_slice(body).unwrap_or_default();
    refusal["code"].as_str().unwrap_or_default().to_owned()
}

impl Emqx {
    /// An adapter of a cluster that is declared to have so many nodes; nobody is asked yet.
    pub fn new(settings: Settings, http: Result<Client, String>, declared: usize) -> Self {
        Self {
            settings,
            http,
            declared,
            seen: Mutex::default(),
        }
    }

    /// Status and body of the answer.
    async fn call(&self, method: Method, path: &str, body: Option<Value>) -> Result<(u16, Vec<u8>), DoorError> {
        let http = self.http.as_ref().map_err(|error| DoorError::Refused(error.clone()))?;
        let request = self.request(method, path, body);
        let (status, body) = http.exchange(request, ANSWER).await.map_err(|failure| match failure {
            Failure::Slow(limit) => DoorError::Timeout(limit),
            Failure::Url(_) | Failure::Redirect(_) | Failure::Large(_) => {
                DoorError::Refused(self.named(&failure.to_string()))
            }
            Failure::Broken(_) | Failure::NoRoots => DoorError::Unreachable(self.named(&failure.to_string())),
        })?;
        match status {
            401 | 403 => Err(DoorError::Refused(self.named(
                "does not take the API key in the Secret of spec.emqx, or does not allow it to write",
            ))),
            429 | 500.. => Err(DoorError::Unreachable(self.named(&format!("answers {status}")))),
            _ => Ok((status, body)),
        }
    }

    fn request(&self, method: Method, path: &str, body: Option<Value>) -> Result<Request<Body>, Failure> {
        let url = exchange::endpoint(&self.settings.url, &format!("/api/v5{path}"))?;
        let login = format!("{}:{}", self.settings.key, self.settings.secret.expose());
        let mut login = HeaderValue::try_from(format!("Basic {}", STANDARD.encode(login)))
            .map_err(|_| Failure::Url("the API key cannot be sent"))?;
        login.set_sensitive(true);
        let request = Request::builder()
            .method(method)
            .uri(url)
            .header(AUTHORIZATION, login)
            .header(ACCEPT, "application/json");
        Ok(match body {
            None => request.body(Body::empty())?,
            Some(body) => request
                .header(CONTENT_TYPE, "application/json")
                .body(Body::from(body.to_string()))?,
        })
    }

    fn named(&self, what: &str) -> String {
        format!("{}: {what}", exchange::host(&self.settings.url))
    }

    fn unexpected(&self, status: u16, body: &[u8]) -> DoorError {
        let code: String = code(body).chars().take(40).collect();
        DoorError::Refused(self.named(&format!(
            "answers {status} {code}: is spec.emqx.url the base URL of EMQX's REST API, version 5?"
        )))
    }

    /// The nodes that run.
    async fn nodes(&self) -> Result<Vec<Node>, DoorError> {
        let (status, body) = self.call(Method::GET, "/nodes", None).await?;
        let all: Vec<Running> = match status {
            200 => serde_json::from_slice(&body).map_err(|_| self.unexpected(status, &body))?,
            _ => return Err(self.unexpected(status, &body)),
        };
        let heard = clock::now();
        let running = all.into_iter().filter(|node| node.node_status == "running");
        let node = |running: Running| Node {
            name: running.node,
            heard,
            error: None,
            loaded: BTreeMap::new(),
        };
        Ok(running.map(node).collect())
    }

    /// Keeps it out while EMQX may still go by an older CRL. A ban that is there already was perhaps made for an earlier
    /// revocation, and ends too soon: EMQX changes none, so it is made anew, unless it is a person's and lasts as long.
    async fn ban(&self, device: &DeviceId) -> Result<(), DoorError> {
        let now = clock::now() / 1000;
        let until = now.saturating_add(i64::try_from(self.settings.ban.as_secs()).unwrap_or(i64::MAX));
        let until = Timestamp::from_second(until).unwrap_or(Timestamp::MAX);
        let body = json!({
            "as": "clientid",
            "who": device.as_ref(),
            "by": US,
            "reason": "its certificate is revoked or on hold",
            "until": until.to_string(),
        });
        if self.banned(&body).await? {
            return Ok(());
        }
        if let Some(there) = self.ban_of(device).await?
            && there.by != US
            && there.lasts_until(until)
        {
            return Ok(());
        }
        match self
            .call(Method::DELETE, &format!("/banned/clientid/{device}"), None)
            .await?
        {
            (200 | 204 | 404, _) => {}
            (status, body) => return Err(self.unexpected(status, &body)),
        }
        if self.banned(&body).await? {
            return Ok(());
        }
        let said = format!("{device} cannot be banned, as somebody else bans it at the same time");
        Err(DoorError::Refused(self.named(&said)))
    }

    /// Asks for a ban; `false`: there is one.
    async fn banned(&self, ban: &Value) -> Result<bool, DoorError> {
        match self.call(Method::POST, "/banned", Some(ban.clone())).await? {
            (200 | 201, _) => Ok(true),
            (400 | 409, body) if code(&body) == "ALREADY_EXISTS" => Ok(false),
            (status, body) => Err(self.unexpected(status, &body)),
        }
    }

    /// The ban of a device, as far as it stands among the first thousand.
    async fn ban_of(&self, device: &DeviceId) -> Result<Option<Ban>, DoorError> {
        let (status, body) = self.call(Method::GET, "/banned?page=1&limit=1000", None).await?;
        let bans: Bans = match status {
            200 => serde_json::from_slice(&body).map_err(|_| self.unexpected(status, &body))?,
            _ => return Err(self.unexpected(status, &body)),
        };
        let mut all = bans.data.into_iter();
        Ok(all.find(|ban| ban.kind == "clientid" && ban.who == device.as_ref()))
    }
}

#[async_trait]
impl Door for Emqx {
    fn abilities(&self) -> Abilities {
        ABILITIES
    }

    async fn loaded(&self, _: &BTreeMap<Scope, u64>) -> Result<Vec<Node>, DoorError> {
        let mut seen = self.seen.lock().await;
        let nodes = match &*seen {
            Some((at, nodes)) if at.elapsed() < LOOK => nodes.clone(),
            _ => {
                let nodes = self.nodes().await?;
                *seen = Some((Instant::now(), nodes.clone()));
                nodes
            }
        };
        if nodes.len() < self.declared {
            let (running, declared) = (nodes.len(), self.declared);
            let said = format!("{running} of the {declared} nodes of spec.nodes run");
            return Err(DoorError::Partial(self.named(&said)));
        }
        Ok(nodes)
    }

    async fn kick(&self, device: &DeviceId) -> Result<Kicked, DoorError> {
        self.ban(device).await?;
        // A deviceId needs no escapes in a path. EMQX looks on all nodes of its cluster.
        match self.call(Method::DELETE, &format!("/clients/{device}"), None).await? {
            (200 | 204, _) => Ok(Kicked::Closed),
            (404, body) if code(&body) == "CLIENTID_NOT_FOUND" => Ok(Kicked::None),
            (status, body) => Err(self.unexpected(status, &body)),
        }
    }
}

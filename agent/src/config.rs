//! `/etc/certwave-agent.toml`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use certwave_protocol::ids::{BrokerId, DeviceId};
use certwave_protocol::message::Der;
use certwave_protocol::topic::DEFAULT_PREFIX;
use serde::Deserialize;

use crate::algorithm::Algorithm;
use crate::claim::{Claim, ClaimError};
use crate::machine;
use crate::mqtt::{Address, BadUrl, Network};
use crate::setup::Setup;
use crate::store::read_certificates;
use crate::trust::Trusts;

/// Why a configuration is not taken. Each says what to change.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file.
    #[error("cannot read {}: {error}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// Its form.
    #[error("{}: {error}", path.display())]
    Form {
        /// Which file.
        path: PathBuf,
        /// Where and what.
        error: Box<toml::de::Error>,
    },
    /// The claim.
    #[error("claim {}: {error}", path.display())]
    Claim {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        error: ClaimError,
    },
    /// The trust bundle.
    #[error("trust {}: {reason}", path.display())]
    Trust {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A broker's URL.
    #[error("broker: {0}")]
    Url(#[from] BadUrl),
    /// Something that neither the file nor a claim gives.
    #[error("{0} is missing; it stands in the configuration or comes with a claim")]
    Missing(&'static str),
    /// A claim for somebody else.
    #[error("the claim is for {0}, and this device is another")]
    OtherDevice(DeviceId),
    /// A claim of another broker.
    #[error("the claim is for broker {0}, and [broker] id is another")]
    OtherBroker(BrokerId),
}

/// The broker, where no claim names it or another address is to be used.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BrokerConfig {
    /// Its id.
    pub id: Option<BrokerId>,
    /// Where devices connect, `mqtts://host:port`.
    pub url: Option<String>,
    /// Where claims connect.
    pub claims_url: Option<String>,
    /// Topic prefix.
    pub prefix: Option<String>,
}

fn yes() -> bool {
    true
}
fn hour() -> u32 {
    3600
}
fn minute() -> u16 {
    60
}
fn all() -> Vec<Algorithm> {
    Algorithm::ALL.to_vec()
}
fn state_dir() -> PathBuf {
    "/var/lib/certwave-agent".into()
}

/// The configuration.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentConfig {
    /// The device's name.
    pub device_id: DeviceId,
    /// Where journal, slots and bundles lie.
    #[serde(default = "state_dir")]
    pub state_dir: PathBuf,
    /// A claim bundle, as `certwave claim create` writes it.
    pub claim: Option<PathBuf>,
    /// The first trust bundle, PEM; a claim brings its own.
    pub trust: Option<PathBuf>,
    /// The broker.
    #[serde(default)]
    pub broker: BrokerConfig,
    /// False rejects rotate jobs, for as long as the device must not be disturbed.
    #[serde(default = "yes")]
    pub accept_jobs: bool,
    /// Algorithms for new keys, the preferred first.
    #[serde(default = "all")]
    pub key_algorithms: Vec<Algorithm>,
    /// Seconds between two hellos.
    #[serde(default = "hour")]
    pub beat: u32,
    /// Seconds between pings on an idle connection.
    #[serde(default = "minute")]
    pub keep_alive: u16,
}

impl AgentConfig {
    /// Reads the file.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|error| ConfigError::Read {
            path: path.to_owned(),
            error,
        })?;
        toml::from_str(&text).map_err(|error| ConfigError::Form {
            path: path.to_owned(),
            error: Box::new(error),
        })
    }

    /// Reads the files that it names and puts together what a device needs to run.
    pub fn setup(&self) -> Result<Setup, ConfigError> {
        let claim = self.claim()?;
        let address = |own: Option<&String>| own.map(|url| url.parse::<Address>()).transpose();
        let from = claim.as_ref();
        let broker = self.broker.id.clone().or_else(|| from.map(|c| c.broker.clone()));
        let anchors = match &self.trust {
            Some(path) => Some(load_anchors(path)?),
            None => from.map(|c| c.anchors.clone()),
        };
        let url = address(self.broker.url.as_ref())?.or_else(|| from.map(|c| c.url.clone()));
        let prefix = self.broker.prefix.clone().or_else(|| from.map(|c| c.prefix.clone()));
        Ok(Setup {
            config: machine::Config {
                device: self.device_id.clone(),
                broker: broker.ok_or(ConfigError::Missing("[broker] id"))?,
                agent: concat!("certwave-agent ", env!("CARGO_PKG_VERSION")).to_owned(),
                claim: claim.is_some(),
                accepts_jobs: self.accept_jobs,
                algorithms: self.key_algorithms.clone(),
                beat: self.beat.max(10),
            },
            url: url.ok_or(ConfigError::Missing("[broker] url"))?,
            prefix: prefix.unwrap_or_else(|| DEFAULT_PREFIX.to_owned()),
            anchors: anchors.ok_or(ConfigError::Missing("trust"))?,
            claim: claim.map(Arc::new),
            backoff: (Duration::from_secs(1), Duration::from_mins(5)),
            keep_alive: self.keep_alive.max(10),
            trusts: Arc::new(Trusts::default()),
            clock_offset: 0,
            dial: Arc::new(Network),
        })
    }

    fn claim(&self) -> Result<Option<Claim>, ConfigError> {
        let Some(path) = &self.claim else { return Ok(None) };
        let mut claim = Claim::load(path).map_err(|error| ConfigError::Claim {
            path: path.clone(),
            error,
        })?;
        match (&claim.device, &self.broker.id) {
            (Some(device), _) if *device != self.device_id => return Err(ConfigError::OtherDevice(device.clone())),
            (_, Some(id)) if *id != claim.broker => return Err(ConfigError::OtherBroker(claim.broker)),
            _ => {}
        }
        if let Some(url) = &self.broker.claims_url {
            claim.claims_url = url.parse()?;
        }
        Ok(Some(claim))
    }
}

fn load_anchors(path: &Path) -> Result<Vec<Der>, ConfigError> {
    let wrong = |reason: String| ConfigError::Trust {
        path: path.to_owned(),
        reason,
    };
    let pem = std::fs::read(path).map_err(|e| wrong(e.to_string()))?;
    let anchors = read_certificates(&pem).map_err(wrong)?;
    if anchors.is_empty() {
        return Err(ConfigError::Trust {
            path: path.to_owned(),
            reason: "no certificate in it".to_owned(),
        });
    }
    Ok(anchors.iter().map(|c| Der(c.to_vec())).collect())
}

//! `certwave crl-sync`: runs beside a Mosquitto and keeps its CRLs fresh.
//!
//! Fetched over HTTP (`fetch`), believed for their signature, number, dates and scope alone (`accept`), kept in one file that
//! is replaced as a whole (`crl_file`), read by Mosquitto on a signal, which is proven (`local`), and then reported to the
//! controller ([`crate::door::mosquitto::wire`]). Nothing that the broker, the controller or who serves the CRLs says makes it
//! write a list that is incomplete, expired, older than the one it has, or not signed by a CA of its own file.

mod accept;
mod crl_file;
mod fetch;
mod local;
mod sync;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use certwave_core::door::Scope;
use certwave_protocol::ids::{Nonce, SessionId};

pub use accept::Refused;
pub use crl_file::FileError;
pub use fetch::{FetchError, Index, IndexEntry};
pub use local::LocalError;

use crate::door::mosquitto::wire::{DownType, Hint, Loaded, NodeName, ScopeNumber, UpType};
use local::{Local, Said};
use sync::Sync;

/// How often the controller hears from it, whatever happens.
const BEAT: Duration = Duration::from_secs(15);
/// The first CRLs of a broker are waited for with this pause.
const AGAIN: Duration = Duration::from_secs(1);

/// What it is told on its command line.
#[derive(Debug, Clone)]
pub struct Options {
    /// The node's name.
    pub node: NodeName,
    /// Topic prefix.
    pub prefix: String,
    /// The CAs that devices' certificates may come from, PEM: roots and subordinates.
    pub ca_file: PathBuf,
    /// The base URL that stands in certificates.
    pub base_url: String,
    /// Where that is fetched from, if elsewhere.
    pub fetch_url: Option<String>,
    /// Mosquitto's `crlfile`.
    pub crl_file: PathBuf,
    /// The socket of Mosquitto's local listener.
    pub socket: PathBuf,
    /// How often it looks for new CRLs without being told.
    pub poll: Duration,
    /// The largest CRL that is fetched, bytes.
    pub max_bytes: usize,
}

/// Why the companion cannot work at all.
#[derive(Debug, thiserror::Error)]
pub enum CompanionError {
    /// The CAs cannot be read.
    #[error("{}: {why}", path.display())]
    Trust {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// CRLs cannot be fetched.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// The file cannot be written.
    #[error(transparent)]
    File(#[from] FileError),
}

impl CompanionError {
    /// A short word of a closed set.
    pub const fn category(&self) -> &'static str {
        match self {
            Self::Trust { .. } => "trust",
            Self::Fetch(error) => error.category(),
            Self::File(error) => error.category(),
        }
    }
}

/// Writes the file once, for a Mosquitto that is started afterwards: waits until a CRL is there in every scope.
///
/// # Errors
/// When the file cannot be written, or no HTTP client can be made.
pub async fn once(options: Options) -> Result<(), CompanionError> {
    let mut sync = Sync::new(options)?;
    loop {
        match sync.run().await? {
            (_, None) if !sync.held().is_empty() => return Ok(()),
            (_, error) => {
                let error = error.or_else(|| sync.note());
                let error = error.unwrap_or_else(|| "no CRL is published yet".to_owned());
                tracing::warn!(error, "waiting for the first CRLs");
            }
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Runs until the process is ended.
///
/// # Errors
/// When no HTTP client can be made.
pub async fn run(options: Options) -> Result<(), CompanionError> {
    let (local, mut said) = Local::start(&options.socket, &options.prefix, &options.node);
    let mut companion = Companion {
        session: Nonce(rand::random()),
        sequence: 0,
        loaded: BTreeMap::new(),
        fault: None,
        up: options.node.up(&options.prefix, UpType::Loaded),
        local,
        sync: Sync::new(options.clone())?,
    };
    let mut poll = tokio::time::interval(options.poll);
    poll.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut beat = tokio::time::interval(BEAT);
    loop {
        let news = tokio::select! {
            next = said.recv() => match next {
                Some(said) => companion.hear(said).await,
                None => return Ok(()),
            },
            _ = poll.tick() => companion.look(false).await,
            _ = beat.tick() => true,
        };
        if news {
            companion.report();
        }
    }
}

struct Companion {
    session: SessionId,
    sequence: u64,
    /// What Mosquitto was proven to have loaded.
    loaded: BTreeMap<Scope, u64>,
    /// What is wrong, in words.
    fault: Option<String>,
    up: String,
    local: Local,
    sync: Sync,
}

impl Companion {
    /// Answers whether there is something to say.
    async fn hear(&mut self, said: Said) -> bool {
        match said {
            // This process may have read the file before it was replaced.
            Said::Connected => {
                self.look(true).await;
                true
            }
            Said::Gone => {
                self.loaded.clear();
                false
            }
            Said::Told(DownType::Crl, message) => {
                let hint = serde_json::from_slice::<Hint>(&message).unwrap_or_default();
                // Of several hints that came meanwhile the first has done for all.
                if self.lacks(&hint) {
                    self.look(false).await;
                }
                true
            }
            Said::Told(DownType::Kick, _) => false,
        }
    }

    /// Whether a hint names something that is not loaded; one that names nothing asks for all.
    fn lacks(&self, hint: &Hint) -> bool {
        let has = |s: &ScopeNumber| self.loaded.get(&(s.issuer.clone(), s.partition.clone())).copied();
        hint.scopes.is_empty()
            || hint
                .scopes
                .iter()
                .any(|s| has(s).is_none_or(|number| number < s.number))
    }

    /// Fetches what is new and has Mosquitto load it; answers whether there is something new to say. Only what was proven after
    /// the file was last replaced counts as loaded.
    async fn look(&mut self, anew: bool) -> bool {
        let before = (self.fault.take(), self.loaded.clone());
        match self.sync.run().await {
            Ok((_, fault)) => self.fault = fault.or_else(|| self.sync.note()),
            Err(error) => self.fault = Some(error.to_string()),
        }
        let numbers = self.sync.numbers();
        if anew || numbers != self.loaded {
            match self.local.load().await {
                Ok(()) => self.loaded = numbers,
                Err(error) => self.fault = Some(error.to_string()),
            }
        }
        if let Some(fault) = &self.fault
            && before.0.as_ref() != Some(fault)
        {
            tracing::warn!(fault, "not all CRLs are as they should be");
        }
        before != (self.fault.clone(), self.loaded.clone())
    }

    fn report(&mut self) {
        self.sequence += 1;
        let scopes = self.loaded.iter().map(|((issuer, partition), number)| ScopeNumber {
            issuer: issuer.clone(),
            partition: partition.clone(),
            number: *number,
        });
        let loaded = Loaded {
            session: self.session,
            sequence: self.sequence,
            scopes: scopes.collect(),
            error: self.fault.clone(),
        };
        match serde_json::to_vec(&loaded) {
            Ok(message) => self.local.say(&self.up, message),
            Err(error) => tracing::error!(%error, "a report cannot be written"),
        }
    }
}

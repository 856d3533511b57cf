//! What a running agent leaves behind for `status`: a file that is only a hint and survives no power cut.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use certwave_protocol::code::Code;
use certwave_protocol::message::Slot;
use serde::{Deserialize, Serialize};

use crate::hooks::Hooks;
use crate::machine::{Credential, Effect, Failure, Link, State};
use crate::mqtt::LinkError;

/// The file, beside the journal.
pub const LIVE_FILE: &str = "live.json";

/// The present connection and the latest troubles. Times are Unix seconds by the device's clock.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Live {
    /// The agent's process.
    pub pid: u32,
    /// Connected under the device's own name.
    pub connected: bool,
    /// Connected with the certificate in this slot.
    pub slot: Option<Slot>,
    /// Whether that is on trial.
    pub trial: bool,
    /// The latest connection made.
    pub last_connect: Option<i64>,
    /// The latest connection refused or lost.
    pub last_failure: Option<i64>,
    /// Why.
    pub last_error: Option<String>,
    /// The latest TLS alert, by its name in RFC 8446 6.
    pub last_alert: Option<String>,
    /// Why the latest message that changed nothing did so.
    pub last_ignored: Option<Code>,
    /// When that was.
    pub last_ignored_at: Option<i64>,
}

impl Live {
    /// What the agent left in `dir`; `None` where it never ran.
    pub fn read(dir: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(dir.join(LIVE_FILE)).ok()?).ok()
    }

    /// Whether the process that wrote it still runs.
    pub fn is_running(&self) -> bool {
        self.pid != 0 && Path::new("/proc").join(self.pid.to_string()).exists()
    }
}

/// The device's clock, Unix seconds.
pub fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// Keeps the file.
#[derive(Debug)]
pub struct Reporter {
    dir: PathBuf,
    live: Mutex<Live>,
}

impl Reporter {
    /// Keeps the file in `dir`.
    pub fn new(dir: &Path) -> Self {
        let live = Live {
            pid: std::process::id(),
            ..Live::default()
        };
        Self {
            dir: dir.to_owned(),
            live: Mutex::new(live),
        }
    }

    fn change(&self, change: impl FnOnce(&mut Live)) {
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        let before = live.clone();
        change(&mut live);
        if *live != before {
            let temporary = self.dir.join(".live.json.new");
            let written = serde_json::to_vec(&*live)
                .map_err(std::io::Error::other)
                .and_then(|json| {
                    std::fs::write(&temporary, json)?;
                    std::fs::rename(&temporary, self.dir.join(LIVE_FILE))
                });
            if let Err(error) = written {
                tracing::warn!(%error, "{LIVE_FILE} is not written");
            }
        }
    }
}

impl Hooks for Reporter {
    fn stepped(&self, state: &State, effects: &[Effect]) {
        for effect in effects {
            if let Effect::Persist(journal) = effect {
                tracing::info!(active = ?journal.active, job = ?journal.view(state.on_trial()), "journal");
            }
        }
        self.change(|live| {
            let up = match state.link() {
                Link::Up(via, _) => match via.credential {
                    Credential::Slot(slot) => Some((slot, via.trial)),
                    Credential::Claim => None,
                },
                _ => None,
            };
            if up.is_some() && !live.connected {
                live.last_connect = Some(now());
                tracing::info!(slot = ?up.map(|u| u.0), "connected");
            }
            live.connected = up.is_some();
            live.slot = up.map(|u| u.0);
            live.trial = up.is_some_and(|u| u.1);
            for effect in effects {
                if let Effect::Ignored(code) = effect {
                    live.last_ignored = Some(*code);
                    live.last_ignored_at = Some(now());
                }
            }
        });
    }

    fn link_failed(&self, error: &LinkError) {
        tracing::warn!(%error, "connection");
        self.change(|live| {
            live.last_failure = Some(now());
            live.last_error = Some(error.reason.clone());
            if let Failure::Refused(Some(alert)) = &error.failure {
                live.last_alert = Some(alert.clone());
            }
        });
    }
}

//! The engine drives devices through their jobs: it hears messages, asks `core` what follows, writes the ledger, and
//! only then speaks.
//!
//! `link` keeps one connection to each broker, `inbox` turns messages into events, `act` carries decisions out,
//! `enrol` answers claims, `rollout` chooses who may start and `schedule` starts them, `timers` enforces deadlines.

mod act;
mod enrol;
mod inbox;
mod issue;
mod link;
mod rollout;
mod schedule;
mod timers;

use std::sync::Arc;

use certwave_core::model::{Identity, Millis};
use certwave_ledger::{Ledger, LedgerError};
use certwave_protocol::ids::Epoch;
use tokio::sync::mpsc;

use crate::metrics::Metrics;
use crate::notice::Notice;
use crate::registry::Registry;

/// Why the engine stopped for good.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// Another leader has taken over.
    #[error("another leader has taken over")]
    Deposed,
}

/// What every part of the engine works with.
pub struct Engine {
    ledger: Arc<dyn Ledger>,
    epoch: Epoch,
    registry: Arc<Registry>,
    notices: mpsc::Sender<Notice>,
    metrics: Arc<Metrics>,
    links: link::Links,
    ready: schedule::Ready,
    pace: rollout::Pace,
    deposed: tokio::sync::Notify,
}

impl Engine {
    /// An engine that has not begun.
    pub fn new(
        ledger: Arc<dyn Ledger>,
        epoch: Epoch,
        registry: Arc<Registry>,
        notices: mpsc::Sender<Notice>,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        Arc::new(Self {
            ledger,
            epoch,
            registry,
            notices,
            metrics,
            links: link::Links::default(),
            ready: schedule::Ready::default(),
            pace: rollout::Pace::default(),
            deposed: tokio::sync::Notify::new(),
        })
    }

    /// Runs until another leader takes over. Dropping the future stops it between two steps.
    ///
    /// # Errors
    /// [`EngineError::Deposed`].
    pub async fn run(self: Arc<Self>) -> Result<(), EngineError> {
        let deposed = self.deposed.notified();
        tokio::select! {
            () = deposed => Err(EngineError::Deposed),
            () = link::supervise(Arc::clone(&self)) => Ok(()),
            () = timers::run(&self) => Ok(()),
            () = schedule::run(&self) => Ok(()),
        }
    }

    /// Counts a failure of the ledger; a stale epoch ends the engine.
    fn ledger_failed(&self, error: &LedgerError) {
        self.metrics.ledger_errors.with_label_values(&[error.category()]).inc();
        if matches!(error, LedgerError::StaleEpoch { .. }) {
            tracing::error!(%error, "deposed");
            self.deposed.notify_one();
        } else if error.is_outage() {
            tracing::error!(%error, "the ledger is out; devices are asked to try later");
        } else {
            tracing::warn!(%error, "the ledger refused a write");
        }
    }

    fn notify(&self, notice: Notice) {
        // Notices are for people; when they cannot be written down as fast as they come, the rest is in the metrics.
        let _ = self.notices.try_send(notice);
    }
}

/// Unix milliseconds of this machine's clock.
pub fn now() -> Millis {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    Millis::try_from(since.as_millis()).unwrap_or(Millis::MAX)
}

fn describe(identity: &Identity) -> String {
    format!("{}/{}", identity.broker, identity.device)
}

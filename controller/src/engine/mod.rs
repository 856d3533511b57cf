//! The engine drives devices through their jobs: it hears messages, asks `core` what follows, writes the ledger, and
//! only then speaks.
//!
//! `link` keeps a connection through each `door` of each broker, `hearing` knows for how long it has been good, `inbox` turns messages into events, `act` carries decisions out,
//! `enrol` answers claims, `rollout` chooses who may start and `schedule` starts them, `called_off` cancels those of an aborted
//! Rotation that wait, `timers` enforces deadlines.

mod act;
mod called_off;
mod door;
mod enrol;
mod hearing;
mod inbox;
mod issue;
mod link;
mod pace;
mod rollout;
mod schedule;
mod timers;

use std::sync::Arc;
use std::time::Duration;

use certwave_core::model::{Identity, Millis};
use certwave_ledger::{Ledger, LedgerError};
use certwave_protocol::ids::Epoch;
use tokio::sync::mpsc;

use crate::gate::Gate;
use crate::metrics::Metrics;
use crate::notice::{Notice, Skewed};
use crate::registry::Registry;

/// How often the engine looks whether it has been deposed.
const EPOCH_PERIOD: Duration = Duration::from_secs(1);

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
    pace: pace::Pace,
    skewed: Arc<Skewed>,
    gate: Arc<Gate>,
}

impl Engine {
    /// An engine that has not begun.
    pub fn new(
        ledger: Arc<dyn Ledger>,
        epoch: Epoch,
        registry: Arc<Registry>,
        notices: mpsc::Sender<Notice>,
        metrics: Arc<Metrics>,
        skewed: Arc<Skewed>,
        gate: Arc<Gate>,
    ) -> Arc<Self> {
        Arc::new(Self {
            ledger,
            epoch,
            registry,
            notices,
            metrics,
            links: link::Links::default(),
            ready: schedule::Ready::default(),
            pace: pace::Pace::default(),
            skewed,
            gate,
        })
    }

    /// Runs until another leader takes over. Dropping the future stops it between two steps.
    ///
    /// # Errors
    /// [`EngineError::Deposed`].
    pub async fn run(self: Arc<Self>) -> Result<(), EngineError> {
        tokio::select! {
            () = self.gate.closed() => Err(EngineError::Deposed),
            () = self.watch_epoch() => Err(EngineError::Deposed),
            () = link::supervise(Arc::clone(&self)) => Ok(()),
            () = timers::run(&self) => Ok(()),
            () = schedule::run(&self) => Ok(()),
            () = called_off::run(&self) => Ok(()),
        }
    }

    /// Resolves when another leader has taken an epoch. A leader that has nothing to write would not hear of it otherwise.
    async fn watch_epoch(&self) {
        loop {
            tokio::time::sleep(EPOCH_PERIOD).await;
            match self.ledger.epoch().await {
                Ok(epoch) if epoch != self.epoch => {
                    tracing::error!(epoch, own = self.epoch, "deposed: the ledger has another epoch");
                    return self.gate.close();
                }
                Ok(_) => {}
                Err(error) => self.ledger_failed(&error),
            }
        }
    }

    /// Counts a failure of the ledger; a stale epoch ends the engine.
    fn ledger_failed(&self, error: &LedgerError) {
        self.metrics.ledger_errors.with_label_values(&[error.category()]).inc();
        if matches!(error, LedgerError::StaleEpoch { .. }) {
            tracing::error!(%error, "deposed");
            self.gate.close();
        } else if error.is_outage() {
            tracing::error!(%error, "the ledger is out; devices are asked to try later");
        } else {
            tracing::warn!(%error, "the ledger refused a write");
        }
    }

    /// Notices are for people; when they cannot be written down as fast as they come, the rest is in the metrics. Answers
    /// whether this one is.
    fn notify(&self, notice: Notice) -> bool {
        self.notices.try_send(notice).is_ok()
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use certwave_ledger::SqliteLedger;

    use super::*;

    #[tokio::test]
    async fn another_leaders_epoch_ends_the_engine_and_closes_its_mouth() {
        let path = std::env::temp_dir().join(format!("certwave-{}.sqlite", uuid::Uuid::new_v4()));
        let ledger: Arc<dyn Ledger> = Arc::new(SqliteLedger::open(&path).unwrap());
        let epoch = ledger.take_epoch("old", now()).await.unwrap();
        let (gate, metrics) = (Gate::open(), Arc::new(Metrics::new().unwrap()));
        let engine = Engine::new(
            Arc::clone(&ledger),
            epoch,
            Arc::default(),
            mpsc::channel(1).0,
            metrics,
            Arc::default(),
            Arc::clone(&gate),
        );
        let running = tokio::spawn(engine.run());
        assert!(gate.is_open());
        // The old leader has nothing to write, so no write tells it.
        ledger.take_epoch("new", now()).await.unwrap();
        let ended = tokio::time::timeout(Duration::from_secs(20), running).await.unwrap();
        assert!(matches!(ended.unwrap(), Err(EngineError::Deposed)));
        assert!(!gate.is_open());
        std::fs::remove_file(path).unwrap();
    }
}

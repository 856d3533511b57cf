//! The engine drives devices through their jobs: it hears messages, asks `core` what follows, writes the ledger, and
//! only then speaks.
//!
//! `link` keeps a connection through each `door` of each broker, which `dial` opens, `hearing` knows for how long it has been good, `ledger` for how
//! long the ledger has, `inbox` turns messages into events, `act` carries decisions out,
//! `enrol` answers claims, `rollout` chooses who may start and `schedule` starts them, `called_off` cancels those of an aborted
//! Rotation that wait, `timers` enforces deadlines, `retire` retires old certificates,
//! `shut` tells each broker's adapter ([`crate::door`]) what was revoked, and ends the sessions of revoked devices.

mod act;
mod called_off;
pub mod dial;
mod door;
mod enrol;
#[cfg(test)]
mod fixtures;
mod hearing;
mod inbox;
mod issue;
mod ledger;
mod link;
mod pace;
mod retire;
mod rollout;
mod schedule;
mod shut;
mod signer;
mod timers;

use std::sync::{Arc, Mutex};
use std::time::Instant;

use certwave_core::model::Identity;
use certwave_ledger::Ledger;
use certwave_protocol::ids::{BrokerId, Epoch};
use tokio::sync::mpsc;

use self::hearing::Hearing;
use crate::gate::Gate;
use crate::metrics::Metrics;
use crate::notice::{Notice, Skewed};
use crate::publish::Publisher;
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
    /// Since when the ledger has taken in what devices say.
    taking_in: Mutex<Hearing>,
    /// Whose devices it drives.
    broker: BrokerId,
    epoch: Epoch,
    registry: Arc<Registry>,
    notices: mpsc::Sender<Notice>,
    metrics: Arc<Metrics>,
    links: link::Links,
    ready: schedule::Ready,
    pace: pace::Pace,
    retire_pace: retire::Pace,
    retire_watch: retire::Watch,
    strategies: retire::Strategies,
    skewed: Arc<Skewed>,
    gate: Arc<Gate>,
    publisher: Arc<Publisher>,
    dial: Arc<dyn dial::Dial>,
}

impl Engine {
    /// An engine for one broker's devices, in the term of this epoch, that has not begun.
    #[allow(clippy::too_many_arguments)] // Nothing but what it works with, each of a type of its own.
    pub fn new(
        ledger: Arc<dyn Ledger>,
        (broker, epoch): (BrokerId, Epoch),
        registry: Arc<Registry>,
        notices: mpsc::Sender<Notice>,
        metrics: Arc<Metrics>,
        skewed: Arc<Skewed>,
        gate: Arc<Gate>,
        publisher: Arc<Publisher>,
        dial: Arc<dyn dial::Dial>,
    ) -> Arc<Self> {
        Arc::new(Self {
            ledger,
            taking_in: Mutex::new(Hearing::new(Instant::now())),
            broker,
            epoch,
            registry,
            notices,
            metrics,
            links: link::Links::default(),
            ready: schedule::Ready::default(),
            pace: pace::Pace::default(),
            retire_pace: retire::Pace::default(),
            retire_watch: retire::Watch::default(),
            strategies: retire::Strategies::default(),
            skewed,
            gate,
            publisher,
            dial,
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
            () = shut::supervise(Arc::clone(&self)) => Ok(()),
            () = timers::run(&self) => Ok(()),
            () = schedule::run(&self) => Ok(()),
            () = called_off::run(&self) => Ok(()),
            () = retire::run(&self) => Ok(()),
        }
    }

    /// Notices are for people; when they cannot be written down as fast as they come, the rest is in the metrics. Answers
    /// whether this one is.
    fn notify(&self, notice: Notice) -> bool {
        let sent = self.notices.try_send(notice).is_ok();
        if !sent {
            self.metrics.notices_dropped.inc();
        }
        sent
    }
}

fn describe(identity: &Identity) -> String {
    format!("{}/{}", identity.broker, identity.device)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use certwave_ledger::SqliteLedger;

    use super::*;
    use crate::clock::now;

    #[tokio::test]
    async fn another_leaders_epoch_ends_the_engine_and_closes_its_mouth() {
        let dir = tempfile::tempdir().unwrap();
        let ledger: Arc<dyn Ledger> = Arc::new(SqliteLedger::open(dir.path().join("ledger.sqlite")).unwrap());
        let broker: BrokerId = "main".parse().unwrap();
        let part = certwave_ledger::Part::Broker(broker.clone());
        let epoch = ledger.begin_term(&part, "old", now()).await.unwrap();
        let (gate, metrics) = (Gate::open(), Arc::new(Metrics::new().unwrap()));
        let engine = Engine::new(
            Arc::clone(&ledger),
            (broker, epoch),
            Arc::default(),
            mpsc::channel(1).0,
            Arc::clone(&metrics),
            Arc::default(),
            Arc::clone(&gate),
            Publisher::new(ledger.clone(), epoch, Arc::default(), metrics),
            Arc::new(dial::Mqtt),
        );
        let running = tokio::spawn(engine.run());
        assert!(gate.is_open());
        // The old leader has nothing to write, so no write tells it.
        ledger.begin_term(&part, "new", now()).await.unwrap();
        let ended = tokio::time::timeout(Duration::from_secs(20), running).await.unwrap();
        assert!(matches!(ended.unwrap(), Err(EngineError::Deposed)));
        assert!(!gate.is_open());
    }
}

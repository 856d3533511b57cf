//! How the ledger is doing. What a device says while the ledger is out is not taken in, so nobody was heard then, however good the
//! broker's connection is; and another epoch in the ledger ends this process's leadership.

use std::sync::PoisonError;
use std::time::{Duration, Instant};

use certwave_ledger::LedgerError;
use certwave_protocol::ids::BrokerId;

use super::Engine;
use super::hearing::{Heard, Hearing};
use crate::clock::now;

/// How often the ledger is asked whether the epoch is the present one.
const PERIOD: Duration = Duration::from_secs(1);

impl Engine {
    /// Resolves when another leader has taken an epoch. A leader that has nothing to write would not hear of it otherwise.
    pub(super) async fn watch_epoch(&self) {
        loop {
            tokio::time::sleep(PERIOD).await;
            self.note(Hearing::asked);
            match self.ledger.is_present(self.epoch).await {
                Ok(false) => {
                    tracing::error!(own = self.epoch, "deposed: the ledger has another epoch");
                    return self.gate.close();
                }
                Ok(true) => {
                    if let Some(gap) = self.note(Hearing::heard) {
                        let seconds = gap.as_secs();
                        tracing::warn!(seconds, "held up by the ledger; devices get their time again");
                        self.registry.ledger_out(now());
                    }
                }
                Err(error) => self.ledger_failed(&error),
            }
        }
    }

    /// Counts a failure of the ledger; a stale epoch ends the engine.
    pub(super) fn ledger_failed(&self, error: &LedgerError) {
        self.metrics.ledger_errors.with_label_values(&[error.category()]).inc();
        if matches!(error, LedgerError::StaleEpoch { .. }) {
            tracing::error!(%error, "deposed");
            self.gate.close();
        } else if error.is_outage() {
            tracing::error!(%error, "the ledger is out; devices are asked to try later");
            self.note(Hearing::missed);
            self.registry.ledger_out(now());
        } else {
            tracing::warn!(%error, "the ledger refused a write");
        }
    }

    /// Whether a device of this broker could have been heard through a whole `step` up to a deadline that passed `overdue` ago.
    pub(super) fn heard_through(&self, broker: &BrokerId, step: Duration, overdue: Duration) -> Heard {
        let Some(speaker) = self.links.get(broker) else {
            return Heard::Broken;
        };
        let at = Instant::now();
        let said = speaker.hearing().through(at, step, overdue);
        if said == Heard::Unknown && !overdue.is_zero() {
            speaker.ask();
        }
        said.and(self.note(|hearing, _| *hearing).through(at, step, overdue))
    }

    fn note<T>(&self, what: impl FnOnce(&mut Hearing, Instant) -> T) -> T {
        let mut hearing = self.taking_in.lock().unwrap_or_else(PoisonError::into_inner);
        what(&mut hearing, Instant::now())
    }
}

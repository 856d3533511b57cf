//! Rotations that were called off: their jobs that still wait are cancelled at once, not when their devices are heard next.

use std::collections::HashMap;
use std::time::Duration;

use certwave_core::step::Event;
use certwave_ledger::{FleetKey, LedgerError, RotationOutcome};
use futures::StreamExt as _;

use super::Engine;

/// How often the engine looks which Rotations have ended.
const PERIOD: Duration = Duration::from_secs(1);
/// Devices that wait, looked through for one Rotation.
const WAITING: u32 = 100_000;
const CONCURRENCY: usize = 32;

/// Looks for Rotations that the registry no longer has, for ever.
pub(super) async fn run(engine: &Engine) {
    let mut known: HashMap<String, FleetKey> = HashMap::new();
    loop {
        tokio::time::sleep(PERIOD).await;
        let running = engine.registry.rotations();
        for rotation in &running {
            known.insert(rotation.uid.clone(), rotation.fleet.clone());
        }
        let gone: Vec<_> = known
            .iter()
            .filter(|(uid, _)| running.iter().all(|rotation| rotation.uid != **uid))
            .map(|(uid, fleet)| (uid.clone(), fleet.clone()))
            .collect();
        for (uid, fleet) in gone {
            match engine.settle(&uid, &fleet).await {
                Ok(true) => drop(known.remove(&uid)),
                // It waits for something, its CA perhaps, or its end is not written yet.
                Ok(false) => {}
                Err(error) => engine.ledger_failed(&error),
            }
        }
    }
}

impl Engine {
    /// Cancels what waits for a Rotation that was called off; `false` when it has not ended.
    async fn settle(&self, uid: &str, fleet: &FleetKey) -> Result<bool, LedgerError> {
        let Some(stored) = self.ledger.rotation(uid).await? else {
            return Ok(true);
        };
        match stored.ended {
            None => return Ok(false),
            // What was stopped is not carried on behind people's backs.
            Some((_, RotationOutcome::Cancelled | RotationOutcome::Failed)) => {}
            Some((_, RotationOutcome::Succeeded)) => return Ok(true),
        }
        let waiting = self.ledger.queued(fleet, WAITING).await?;
        let mut cancelled = futures::stream::iter(waiting)
            .map(|identity| async move {
                let device = self.ledger.device(&identity).await?;
                let own = device.is_some_and(|device| {
                    let job = device.open_job();
                    job.is_some_and(|job| job.rotation.as_deref() == Some(uid))
                });
                if own {
                    self.happen(&identity, Event::Cancel).await
                } else {
                    Ok(())
                }
            })
            .buffer_unordered(CONCURRENCY);
        while let Some(result) = cancelled.next().await {
            match result {
                // The device has been heard: it was cancelled then, or has begun.
                Ok(()) | Err(LedgerError::Conflict) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}

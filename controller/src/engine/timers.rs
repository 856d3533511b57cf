//! Deadlines: they stand in the ledger, so a restart forgets none.

use std::time::Duration;

use certwave_core::model::Identity;
use certwave_core::step::Event;
use certwave_ledger::LedgerError;
use futures::StreamExt as _;

use super::{Engine, now};

const TICK: Duration = Duration::from_millis(500);
const BATCH: u32 = 256;

/// Looks for deadlines that have passed, for ever.
pub(super) async fn run(engine: &Engine) {
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let overdue = match engine.ledger.overdue(now(), BATCH).await {
            Ok(overdue) => overdue,
            Err(error) => {
                engine.ledger_failed(&error);
                continue;
            }
        };
        let mut passed = futures::stream::iter(overdue)
            .map(|identity| async move { pass(engine, &identity).await })
            .buffer_unordered(32);
        while let Some(result) = passed.next().await {
            let Err(error) = result else { continue };
            engine.ledger_failed(&error);
            // The others would fail alike; they are still there in the next round.
            if error.is_outage() {
                break;
            }
        }
    }
}

/// Enforces one deadline; where the device could not be heard for a whole step, as the broker was out or this process has
/// only just begun, the device gets its time again.
async fn pass(engine: &Engine, identity: &Identity) -> Result<(), LedgerError> {
    let Some(device) = engine.ledger.device(identity).await? else {
        return Ok(());
    };
    let up = engine.links.up_for(&identity.broker);
    let step = engine.policy(&device).step_timeout;
    let event = if up.is_some_and(|up| i64::try_from(up.as_millis()).unwrap_or(i64::MAX) >= step) {
        Event::Deadline
    } else {
        Event::Postpone
    };
    engine.happen(identity, event).await
}

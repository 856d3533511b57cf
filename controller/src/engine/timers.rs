//! Deadlines: they stand in the ledger, so a restart forgets none.

use std::time::Duration;

use certwave_core::step::Event;
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
        futures::stream::iter(overdue)
            .for_each_concurrent(32, |identity| async move {
                if let Err(error) = engine.happen(&identity, Event::Deadline).await {
                    engine.ledger_failed(&error);
                }
            })
            .await;
    }
}

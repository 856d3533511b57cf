//! Certificates that ended long ago go into the ledger's archive, so that what is searched every day stays small.

use std::time::Duration;

use certwave_ledger::{Ledger, LedgerError};
use certwave_protocol::ids::Epoch;

use crate::clock::now;

const EVERY: Duration = Duration::from_hours(6);
/// Certificates that are moved at a time: decisions wait meanwhile, some milliseconds.
const BATCH: u32 = 200;
const PAUSE: Duration = Duration::from_millis(100);
const DAY_S: i64 = 86_400;

/// Archives what ended `after_days` days ago, now and then, for ever; never while `trusted` says that the clock is not to be
/// relied on.
pub async fn run(ledger: &dyn Ledger, epoch: Epoch, after_days: u32, trusted: impl Fn() -> bool) {
    let mut tick = tokio::time::interval(EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        match all(ledger, epoch, after_days, &trusted).await {
            Ok(0) => {}
            Ok(moved) => tracing::info!(moved, "certificates that ended long ago were archived"),
            Err(error) => tracing::warn!(%error, "certificates that ended long ago could not be archived"),
        }
    }
}

/// Archives all that can be; answers how many.
async fn all(
    ledger: &dyn Ledger,
    epoch: Epoch,
    after_days: u32,
    trusted: &impl Fn() -> bool,
) -> Result<u64, LedgerError> {
    let mut moved = 0;
    while trusted() {
        let before = now().div_euclid(1000) - i64::from(after_days) * DAY_S;
        let batch = ledger.archive(epoch, before, BATCH).await?;
        moved += u64::from(batch);
        if batch < BATCH {
            break;
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(moved)
}

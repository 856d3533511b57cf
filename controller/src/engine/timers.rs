//! Deadlines: they stand in the ledger, so a restart forgets none.

use std::time::{Duration, Instant};

use certwave_core::model::{Device, Identity, Job, Millis};
use certwave_core::step::Event;
use certwave_ledger::{FleetKey, LedgerError};
use futures::StreamExt as _;

use super::hearing::Heard;
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

/// Enforces one deadline; where the device could not be heard for a whole step, as the broker was out or silent or this process
/// has only just begun, the device gets its time again.
async fn pass(engine: &Engine, identity: &Identity) -> Result<(), LedgerError> {
    let Some(device) = engine.ledger.device(identity).await? else {
        return Ok(());
    };
    let Some(deadline) = device.job.as_ref().and_then(Job::next_deadline) else {
        return Ok(());
    };
    let overdue = millis(now().saturating_sub(deadline));
    let step = millis(engine.policy(&device).step_timeout);
    let speaker = engine.links.get(&identity.broker);
    let heard = speaker
        .as_ref()
        .map_or(Heard::Broken, |s| s.hearing().through(Instant::now(), step, overdue));
    let event = match heard {
        Heard::Whole if orphaned(engine, &device) => Event::Postpone,
        Heard::Whole => Event::Deadline,
        Heard::Broken => Event::Postpone,
        // It is overdue in the next round still, and more will be known.
        Heard::Unknown => {
            if let Some(speaker) = speaker {
                speaker.ask();
            }
            return Ok(());
        }
    };
    engine.happen(identity, event).await
}

/// Without its fleet's CA nothing can be issued: a fault of ours, for a while. A fleet that does not come back must not keep a job
/// for ever.
fn orphaned(engine: &Engine, device: &Device) -> bool {
    let age = device.job.as_ref().map_or(0, |job| now().saturating_sub(job.created));
    engine.registry.fleet(&FleetKey::of(device)).is_none() && age < engine.policy(device).lost_after
}

fn millis(millis: Millis) -> Duration {
    Duration::from_millis(u64::try_from(millis).unwrap_or(0))
}

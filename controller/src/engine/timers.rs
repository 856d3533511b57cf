//! Deadlines: they stand in the ledger, so a restart forgets none.

use std::time::{Duration, Instant};

use certwave_core::model::{Device, Identity, Job, Millis};
use certwave_core::step::Event;
use certwave_ledger::{FleetKey, LedgerError};
use futures::StreamExt as _;

use super::Engine;
use super::hearing::Heard;
use crate::clock::{TOLERANCE_S, now};

const TICK: Duration = Duration::from_millis(500);
const BATCH: u32 = 256;
/// So long after a turn of the clock nothing is written any more that was decided before it.
const SETTLED: Duration = Duration::from_mins(1);
/// How often they are looked through until then.
const AGAIN: Duration = Duration::from_secs(5);

/// Looks for deadlines that have passed, for ever.
pub(super) async fn run(engine: &Engine) {
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    // The turn of our clock after which deadlines were looked through; the first look is for those of another process.
    let mut put_right = None;
    let mut put_back_at: Option<Instant> = None;
    loop {
        tick.tick().await;
        let clock = engine.publisher.clock();
        let turned = clock.turned();
        let due = put_back_at.is_none_or(|at| at.elapsed() >= AGAIN);
        if put_right != Some(turned) && clock.is_trusted() && due {
            match put_back(engine).await {
                Ok(true) => {
                    put_back_at = Some(Instant::now());
                    // What was decided before the turn may still be on its way into the ledger.
                    if clock.agreed_for().is_some_and(|time| time >= SETTLED) {
                        put_right = Some(turned);
                    }
                }
                Ok(false) => {}
                Err(error) => engine.ledger_failed(&error),
            }
        }
        let overdue = match engine.ledger.overdue(&engine.broker, now(), BATCH).await {
            Ok(overdue) => overdue,
            Err(error) => {
                engine.ledger_failed(&error);
                continue;
            }
        };
        // In each round: a jump shows between two looks, and one that made these overdue has been by now.
        let agreed = engine.publisher.clock().agreed_for();
        let mut passed = futures::stream::iter(overdue)
            .map(|identity| async move { pass(engine, &identity, agreed).await })
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

/// Gives those their time anew whose deadlines were set by a clock that was ahead by more than is tolerated: they may be years away.
/// Answers whether that were all.
async fn put_back(engine: &Engine) -> Result<bool, LedgerError> {
    let right = now().saturating_add(TOLERANCE_S * 1000);
    let ahead = engine.ledger.dated_ahead(&engine.broker, right, BATCH).await?;
    for identity in &ahead {
        match engine.happen(identity, Event::Postpone).await {
            Err(error) if error.is_outage() => return Err(error),
            // The others are not held up by one.
            Err(error) => engine.ledger_failed(&error),
            Ok(()) => {}
        }
    }
    Ok(ahead.len() < BATCH as usize)
}

/// Enforces one deadline; where the device could not be heard for a whole step, as broker or ledger was out or silent or this
/// process has only just begun, the device gets its time again. `agreed` is as in [`decide`].
async fn pass(engine: &Engine, identity: &Identity, agreed: Option<Duration>) -> Result<(), LedgerError> {
    let Some(device) = engine.ledger.device(identity).await? else {
        return Ok(());
    };
    let Some(deadline) = device.job.as_ref().and_then(Job::next_deadline) else {
        return Ok(());
    };
    let overdue = millis(now().saturating_sub(deadline));
    let step = millis(engine.policy(&device).step_timeout);
    let heard = engine.heard_through(&identity.broker, step, overdue);
    // Not known yet: it is overdue in the next round still, and more will be known.
    let Some(event) = decide(heard, agreed, step, orphaned(engine, &device)) else {
        return Ok(());
    };
    engine.happen(identity, event).await
}

/// What becomes of a deadline that has passed; `None`: not known yet. `agreed`: for how long our clock and the API server's have
/// agreed; a deadline that was set by a clock since put right counts only after one more full step (`step`).
fn decide(heard: Heard, agreed: Option<Duration>, step: Duration, orphaned: bool) -> Option<Event> {
    let by_a_right_clock = agreed.is_some_and(|time| time >= step);
    match heard {
        Heard::Unknown => None,
        Heard::Whole if by_a_right_clock && !orphaned => Some(Event::Deadline),
        Heard::Whole | Heard::Broken => Some(Event::Postpone),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: Duration = Duration::from_mins(2);

    #[test]
    fn a_deadline_counts_only_if_the_device_could_be_heard_and_the_clock_was_right_all_the_while() {
        let at = |heard, agreed| decide(heard, agreed, STEP, false);
        assert_eq!(at(Heard::Whole, Some(Duration::MAX)), Some(Event::Deadline));
        assert_eq!(at(Heard::Whole, Some(STEP)), Some(Event::Deadline));
        assert_eq!(at(Heard::Whole, Some(Duration::from_secs(9))), Some(Event::Postpone));
        assert_eq!(at(Heard::Whole, None), Some(Event::Postpone));
        assert_eq!(at(Heard::Broken, Some(Duration::MAX)), Some(Event::Postpone));
        assert_eq!(at(Heard::Unknown, Some(Duration::MAX)), None);
        assert_eq!(decide(Heard::Whole, Some(STEP), STEP, true), Some(Event::Postpone));
    }
}

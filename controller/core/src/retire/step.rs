//! One event for one retirement: what the ledger shall hold, what becomes of the old certificate, what is said.

use certwave_protocol::ids::{Fingerprint, Nonce};

use super::{Phase, Retirement, Why};
use crate::backoff;
use crate::model::Millis;

/// A hold that was let go by faults of ours is tried again so often; then the old certificate is left to expire.
pub const MAX_ATTEMPTS: u32 = 5;
/// A device that cannot be put to the test now is looked at again after so long, or after the probation time if that is shorter,
/// milliseconds.
pub const PAUSE: Millis = 300_000;

/// How retirements go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// How long the doors have to load the hold, and after that the device to come back, milliseconds.
    pub probation: Millis,
}

/// What is seen of the device and its certificates. Each stands by itself, so no states could say it better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools)]
pub struct Seen {
    /// The certificate that it starts from, as proven.
    pub current: Option<Fingerprint>,
    /// The door lets that one in: neither on hold nor revoked nor ended.
    pub current_good: bool,
    /// The old one has ended, or a person has revoked it.
    pub old_ended: bool,
    /// A person has put the device on hold or revoked it.
    pub barred: bool,
    /// An object declares it.
    pub declared: bool,
    /// It has accepted a job that has not ended.
    pub working: bool,
    /// A job waits for it, or it is to be sent back.
    pub wanted: bool,
    /// It is said to be connected.
    pub online: bool,
}

/// Whether one more old certificate may be put on hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// This one.
    Now,
    /// Not now: so many are on hold or have just been, that more would come back at once than the broker should bear.
    Full,
    /// Not for a while: the broker's doors do not say what they have loaded, or something of ours is at fault.
    Shut,
}

/// Whether the device could have been heard up to now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// Through the whole probation time.
    Whole,
    /// Not all the time, by a fault of ours.
    Broken,
    /// Not known yet.
    Unknown,
}

/// Whose key signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaker {
    /// That of the certificate being retired.
    Old,
    /// That of the one that replaced it.
    New,
}

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// Its time has come.
    Look {
        /// What is seen.
        seen: Seen,
        /// Whether one more may be put on hold.
        admission: Admission,
        /// Every node of the broker has loaded that the old certificate is on hold.
        loaded: bool,
        /// For how long this process has seen it in its phase, by a clock that only goes forward; `None` where another process
        /// saw it enter it.
        waited: Option<Millis>,
        /// Whether the device could have been heard.
        heard: Heard,
        /// For the `reconnect`, 128 fresh random bits.
        nonce: Nonce,
    },
    /// The device said hello.
    Hello {
        /// What is seen.
        seen: Seen,
        /// Who signed.
        speaker: Speaker,
        /// The nonce of a `reconnect` that it answers.
        echo: Option<Nonce>,
    },
}

/// What becomes of the old certificate, in the transaction that stores the step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// It goes on hold; this job is the holder.
    Hold,
    /// This job lets go; other holders keep it.
    Release,
    /// It is revoked for good, as superseded.
    Revoke,
}

/// What follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Nothing.
    Stay,
    /// The device is asked (again) to come back; it has the nonce in the retirement.
    Ask,
    /// The ledger changes.
    Change {
        /// What the ledger shall hold.
        next: Retirement,
        /// What becomes of the old certificate.
        act: Option<Act>,
        /// Whether the device is asked to come back afterwards.
        ask: bool,
    },
}

/// Decides on one event for one retirement.
pub fn step(now: Millis, retirement: &Retirement, event: &Event, policy: Policy) -> Decision {
    if retirement.phase.ended() {
        return Decision::Stay;
    }
    match *event {
        Event::Hello { seen, speaker, echo } => match between(retirement, &seen) {
            Some(why) => release(now, retirement, why),
            None => on_hello(now, retirement, speaker, echo),
        },
        Event::Look {
            seen,
            admission,
            loaded,
            waited,
            heard,
            nonce,
        } => {
            if let Some(why) = between(retirement, &seen) {
                return release(now, retirement, why);
            }
            // A clock that was set shortens nobody's time, nor lets a hold last.
            let passed = waited.unwrap_or_else(|| now.saturating_sub(retirement.since));
            let over = passed >= policy.probation || (waited.is_none() && passed < 0);
            match retirement.phase {
                Phase::Waiting => on_turn(now, retirement, &seen, admission, policy),
                Phase::Held if loaded => ask(now, retirement, nonce, policy),
                Phase::Held if over => let_go(now, retirement, Why::NotLoaded, policy),
                Phase::Asked if over => match heard {
                    Heard::Unknown => Decision::Stay,
                    // Whoever did not hear the question asked does not know that it was.
                    Heard::Whole if waited.is_some() => release(now, retirement, Why::NoHello),
                    _ => let_go(now, retirement, Why::NotHeard, policy),
                },
                Phase::Asked if passed >= policy.probation / 2 => ask_again(retirement, policy),
                _ => Decision::Stay,
            }
        }
    }
}

/// What has come between.
fn between(retirement: &Retirement, seen: &Seen) -> Option<Why> {
    if seen.barred {
        Some(Why::Barred)
    } else if !seen.declared {
        Some(Why::Withdrawn)
    } else if seen.current == Some(retirement.old) {
        Some(Why::WentBack)
    } else if seen.current != Some(retirement.new) || !seen.current_good || (retirement.phase.holds() && seen.working) {
        Some(Why::Overtaken)
    } else {
        seen.old_ended.then_some(Why::Ended)
    }
}

/// Its turn may have come: grace is over.
fn on_turn(now: Millis, retirement: &Retirement, seen: &Seen, admission: Admission, policy: Policy) -> Decision {
    // The hold must not meet a device that goes back, nor one that is not there to be asked.
    if seen.working || seen.wanted || !seen.online || admission == Admission::Shut {
        let mut next = retirement.clone();
        next.wake = Some(now.saturating_add(PAUSE.min(policy.probation)));
        return change(next, None, false);
    }
    if admission != Admission::Now || retirement.wake.is_some_and(|wake| wake > now) {
        return Decision::Stay;
    }
    let mut next = enter(now, retirement, Phase::Held);
    // From now on it is looked at in each round.
    next.wake = Some(now);
    change(next, Some(Act::Hold), false)
}

fn ask(now: Millis, retirement: &Retirement, nonce: Nonce, policy: Policy) -> Decision {
    let mut next = enter(now, retirement, Phase::Asked);
    next.nonce = Some(nonce);
    next.wake = Some(now.saturating_add(policy.probation / 2));
    change(next, None, true)
}

/// Half of its time is over: the question may have been lost on a connection that was about to end.
fn ask_again(retirement: &Retirement, policy: Policy) -> Decision {
    let end = Some(retirement.since.saturating_add(policy.probation));
    if retirement.wake == end {
        return Decision::Stay;
    }
    let mut next = retirement.clone();
    next.wake = end;
    change(next, None, true)
}

fn on_hello(now: Millis, retirement: &Retirement, speaker: Speaker, echo: Option<Nonce>) -> Decision {
    // The nonce is younger than the last node's loading: the old certificate cannot have opened this connection. What is said
    // without it may be a repetition, and shows nothing.
    let answer = echo.is_some() && echo == retirement.nonce;
    match (retirement.phase, speaker) {
        (Phase::Asked, Speaker::New) if answer => {
            let mut next = enter(now, retirement, Phase::Revoked);
            next.wake = None;
            change(next, Some(Act::Revoke), false)
        }
        (Phase::Asked, Speaker::Old) if answer => release(now, retirement, Why::WentBack),
        // The question was lost, or this connection came before it.
        (Phase::Asked, _) => Decision::Ask,
        _ => Decision::Stay,
    }
}

/// A fault of ours: whoever needs the old certificate has it again, and the whole is tried later.
fn let_go(now: Millis, retirement: &Retirement, why: Why, policy: Policy) -> Decision {
    let attempt = retirement.attempt.saturating_add(1);
    if attempt >= MAX_ATTEMPTS {
        return release(now, retirement, why);
    }
    let (high, low) = retirement.job.as_u64_pair();
    let mut next = enter(now, retirement, Phase::Waiting);
    next.attempt = attempt;
    next.wake = Some(now.saturating_add(backoff::pause(policy.probation, attempt, high ^ low)));
    change(next, Some(Act::Release), false)
}

fn release(now: Millis, retirement: &Retirement, why: Why) -> Decision {
    let held = retirement.phase.holds();
    let mut next = enter(now, retirement, Phase::Released);
    next.wake = None;
    next.why = Some(why);
    change(next, held.then_some(Act::Release), false)
}

fn enter(now: Millis, retirement: &Retirement, phase: Phase) -> Retirement {
    Retirement {
        phase,
        since: now,
        nonce: None,
        ..retirement.clone()
    }
}

fn change(next: Retirement, act: Option<Act>, ask: bool) -> Decision {
    Decision::Change { next, act, ask }
}

//! What becomes of a state when nothing goes wrong any more: the network delivers, timers run out and deadlines pass in their order.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::PoisonError;

use certwave_agent::machine::{Link, Timer};
use certwave_core::model::JobState;

use crate::model::{Action, Doing, Fleet, Opening};
use crate::properties::by_a_person;
use crate::retiring::Look;
use crate::state::{Left, State};

/// Steps within which everything must have come to rest.
const STEPS: u32 = 400;
/// Rounds of timers and deadlines after the last message.
const ROUNDS: u32 = 6;
/// Connections that a device tries in the time of one round; the door refuses some for ever.
const TRIES: u32 = 6;
const RETRY: Action = Action::Device(Doing::Timer(Timer::Retry), 0);

/// Whether every job and every hold ends, the device is connected and both sides agree on its certificate: with the messages under
/// way, and when all of them are lost. Where the door lets no new certificate in, a device that was told to start from one goes to
/// and fro between the two for as long as the commit is repeated; jobs and holds end there, too.
pub fn settles(fleet: &Fleet, state: &State) -> bool {
    if state.breach.is_some() {
        return true;
    }
    // It makes no difference what might still go wrong.
    let mut state = state.clone();
    state.left = Left::default();
    state.tidy();
    let mut hasher = DefaultHasher::new();
    state.hash(&mut hasher);
    let hash = hasher.finish();
    let known = || fleet.settled.lock().unwrap_or_else(PoisonError::into_inner);
    if known().contains(&hash) {
        return true;
    }
    let settles = unsettled(fleet, &state).is_none();
    if settles {
        known().insert(hash);
    }
    settles
}

/// How it goes on where it does not come to rest as it should.
pub fn unsettled(fleet: &Fleet, state: &State) -> Option<(Vec<Action>, State)> {
    let mut lost = state.clone();
    lost.net.up.clear();
    lost.net.down.clear();
    [state.clone(), lost].into_iter().find_map(|state| {
        let mut taken = Vec::new();
        let after = settle(fleet, state, &mut taken);
        (!at_rest(fleet, &after)).then_some((taken, after))
    })
}

fn at_rest(fleet: &Fleet, state: &State) -> bool {
    let device = &state.ledger.device;
    let ended = device.job.as_ref().is_none_or(|job| !job.state.in_flight());
    let holds = state.ledger.retirement.as_ref().is_some_and(|r| r.0.phase.holds());
    let agreed = state.device.up && state.ledger.current() == state.active();
    ended && (by_a_person(state) || !holds && (agreed || fleet.scenario.unfit))
}

/// Runs until nothing is left to do; `taken` gets what was done.
pub fn settle(fleet: &Fleet, mut state: State, taken: &mut Vec<Action>) -> State {
    let (mut round, mut tries) = (0, TRIES);
    for _ in 0..STEPS {
        let mut act = |state: &mut State, action| {
            *state = fleet.apply(state, action, false);
            taken.push(action);
        };
        if let Some(action) = at_once(&state, tries > 0) {
            if action == RETRY {
                tries -= 1;
            }
            act(&mut state, action);
            continue;
        }
        if let Some((action, next)) = by_itself(fleet, &state) {
            taken.push(action);
            state = next;
            continue;
        }
        round += 1;
        if round > ROUNDS {
            break;
        }
        tries = TRIES;
        for timer in [Timer::Repeat, Timer::Trial, Timer::Beat] {
            if state.device.timers.contains(&timer) {
                act(&mut state, Action::Device(Doing::Timer(timer), 0));
            }
        }
        // A step of the controller's is longer than all of the device's waits.
        if round > 2 {
            act(&mut state, Action::Deadline(round > 3));
            act(
                &mut state,
                Action::Look(if round > 3 { Look::Over } else { Look::Half }),
            );
        }
    }
    state
}

/// What the network and the device do without waiting.
fn at_once(state: &State, tries: bool) -> Option<Action> {
    let device = &state.device;
    let does = |doing| Some(Action::Device(doing, 0));
    if device.connecting().is_some() {
        return does(Doing::Open(Opening::Door));
    }
    if let Some(up) = state.net.up.first() {
        return Some(Action::Hear(*up, false));
    }
    if device.up {
        if let Some(down) = state.net.down.iter().find(|down| down.present) {
            return does(Doing::Hear(*down, false));
        }
    } else if tries && device.timers.contains(&Timer::Retry) {
        return Some(RETRY);
    }
    // While a trial runs it is put off again and again.
    let on_trial = matches!(device.machine.link(), Link::Up(via, _) if via.trial);
    if device.timers.contains(&Timer::Reconnect) && !on_trial {
        return does(Doing::Timer(Timer::Reconnect));
    }
    (state.shut != state.ledger.shut()).then_some(Action::DoorLoads)
}

/// What the controller does without waiting.
fn by_itself(fleet: &Fleet, state: &State) -> Option<(Action, State)> {
    let queued = state
        .ledger
        .device
        .job
        .as_ref()
        .is_some_and(|job| job.state == JobState::Queued);
    let moves = [
        (queued, Action::Offer),
        (state.ledger.retirement.is_some(), Action::Look(Look::Now)),
    ];
    moves.into_iter().filter(|(may, _)| *may).find_map(|(_, action)| {
        let after = fleet.apply(state, action, false);
        (after != *state).then_some((action, after))
    })
}

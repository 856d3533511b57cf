//! The model: what may happen next, what follows, and what must hold.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use certwave_agent::journal::Journal;
use certwave_agent::machine::{Credential, Failure, Input, Timer};
use certwave_core::model::JobState;
use certwave_core::step::Event;
use stateright::{Model, Property};

use crate::breach::Breach;
use crate::controller::{Deed, Engine, LONG, STEP};
use crate::device::{Acting, Device, Shown};
use crate::ledger::Ledger;
use crate::message::{Down, Net, Told, Up};
use crate::mutant::Mutant;
use crate::properties::{self, by_a_person};
use crate::retiring::Look;
use crate::scenario::{Faults, Scenario};
use crate::state::{Left, State};
use crate::symbols::{self, Leaf};

/// What the network makes of a connection that the device asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Opening {
    /// The door decides.
    Door,
    /// Nobody answers.
    Unreachable,
    /// The other slot's certificate is presented by mistake, and the door decides.
    Mistake,
}

/// What the device does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Doing {
    /// It hears a message; one that is kept may arrive again.
    Hear(Down, bool),
    /// Its connection is made or not.
    Open(Opening),
    /// A timer runs out.
    Timer(Timer),
    /// Its connection breaks.
    Break,
    /// The power goes and comes again.
    Power,
    /// It is switched on.
    Start,
}

/// One thing that happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// To the device; the power goes after so many effects, if not 0.
    Device(Doing, u8),
    /// The controller hears a message; one that is kept may arrive again.
    Hear(Up, bool),
    /// A controller that was deposed hears a message, beside the other one.
    DeposedHears(Up),
    /// The device gets a job: the one that it needs, or one back.
    Start(bool),
    /// The job that waits is offered.
    Offer,
    /// A deadline passes: of the state, or everything that there is.
    Deadline(bool),
    /// A deadline passes in an outage of the controller's own.
    Postpone,
    /// The retirement is looked at.
    Look(Look),
    /// The door takes up what is published.
    DoorLoads,
    /// Another controller takes over.
    Takeover,
    /// A person does something.
    Person(Deed),
}

/// A scenario, perhaps with something done wrong on purpose.
#[derive(Debug)]
pub struct Fleet {
    /// The bounds.
    pub scenario: Scenario,
    /// The mistake.
    pub mutant: Option<Mutant>,
    /// Which states have been found to come to rest, by their hashes.
    pub(crate) settled: Mutex<HashSet<u64>>,
}

impl Fleet {
    /// A scenario, perhaps with a mistake.
    pub fn new(scenario: Scenario, mutant: Option<Mutant>) -> Self {
        Self {
            scenario,
            mutant,
            settled: Mutex::default(),
        }
    }

    /// Whether the door lets a certificate in.
    pub fn admits(&self, state: &State, leaf: Leaf) -> bool {
        !(state.shut.contains(&leaf) || self.scenario.unfit && leaf != 1)
    }

    fn bundle(&self) -> u8 {
        if self.scenario.trust { 2 } else { 1 }
    }

    fn acting<'a>(&self, state: &'a mut State) -> Acting<'a> {
        let fresh = state.fresh();
        Acting::new(&mut state.device, &mut state.net, &mut state.shown, fresh, self.mutant)
    }

    fn engine<'a>(&self, state: &'a mut State) -> Engine<'a> {
        Engine {
            epoch: state.ledger.epoch,
            ledger: &mut state.ledger,
            net: &mut state.net,
            shut: &state.shut,
            breach: &mut state.breach,
            came_in: &mut state.came_in,
            mutant: self.mutant,
            retires: self.scenario.retire,
        }
    }

    /// What follows, whatever the budgets say; `checks`: whether the step itself is judged.
    pub fn apply(&self, before: &State, action: Action, checks: bool) -> State {
        let mut state = before.clone();
        match action {
            Action::Device(doing, cut) => {
                self.device_does(&mut state, doing, cut);
                if let (Doing::Hear(down, _), 0, true) = (doing, cut, checks) {
                    self.check_heard(&mut state, &before.device.disk.journal, down);
                }
            }
            Action::Hear(up, keep) => {
                if !keep {
                    state.net.up.remove(&up);
                }
                self.engine(&mut state).hear(&up);
                if checks {
                    self.check_repeat(&mut state, &up);
                }
            }
            Action::DeposedHears(up) => {
                let mut engine = self.engine(&mut state);
                engine.epoch -= 1;
                engine.hear(&up);
            }
            Action::Start(back) => self.engine(&mut state).start(back, self.bundle()),
            Action::Offer => self.engine(&mut state).offer(),
            Action::Deadline(long) => {
                let after = if long { LONG } else { STEP };
                self.engine(&mut state).happen(&Event::Deadline, after);
            }
            Action::Postpone => self.engine(&mut state).happen(&Event::Postpone, STEP),
            Action::Look(look) => self.engine(&mut state).look(look),
            Action::DoorLoads => state.shut = state.ledger.shut(),
            Action::Takeover => {
                state.ledger.epoch += 1;
                state.ledger.watched = false;
                state.deposed = true;
            }
            Action::Person(deed) => self.engine(&mut state).person(deed),
        }
        spend(&mut state.left, cost(before, action));
        state.tidy();
        state
    }

    /// Does it; answers where a power cut would leave something of its own behind.
    fn device_does(&self, state: &mut State, doing: Doing, cut: u8) -> Vec<u8> {
        let job = |state: &State| {
            state
                .device
                .machine
                .journal()
                .job
                .as_ref()
                .map(|j| symbols::job_number(j.id))
        };
        let was = job(state);
        let opens = match doing {
            Doing::Open(Opening::Door) => self.presents(state, false),
            Doing::Open(Opening::Mistake) => self.presents(state, true),
            _ => None,
        };
        if let (Some(leaf), Some(retirement)) = (opens, &state.ledger.retirement) {
            let (old, new) = (symbols::leaf(&retirement.0.old), symbols::leaf(&retirement.0.new));
            state.came_in |= leaf == new && state.shut.contains(&old);
        }
        let up = state.device.up;
        let mut acting = self.acting(state);
        acting.cut = cut;
        match doing {
            Doing::Hear(down, keep) => {
                if !keep {
                    acting.net.down.remove(&down);
                }
                acting.hear(down);
            }
            Doing::Open(Opening::Unreachable) => acting.feed(Input::ConnectFailed(Failure::Unreachable)),
            Doing::Open(_) if opens.is_some() => acting.connected(),
            Doing::Open(_) => acting.feed(Input::ConnectFailed(Failure::Refused(None))),
            Doing::Timer(timer) => {
                acting.device.timers.remove(&timer);
                acting.feed(Input::Timer(timer));
            }
            Doing::Break => acting.feed(Input::Disconnected),
            Doing::Power => acting.power(),
            Doing::Start => acting.feed(Input::Start),
        }
        let points = std::mem::take(&mut acting.points);
        if up && !state.device.up || cut != 0 {
            age_ledger(state);
        }
        if let (Some(was), Some(is)) = (was, job(state))
            && is < was
        {
            state.breach.get_or_insert(Breach::OlderJob);
        }
        points
    }

    /// The certificate that opens the connection being made, if the door lets it in.
    fn presents(&self, state: &State, mistake: bool) -> Option<Leaf> {
        let via = state.device.connecting()?;
        let Credential::Slot(slot) = via.credential else {
            return None;
        };
        let slot = if mistake { slot.other() } else { slot };
        state.device.presents(slot).filter(|leaf| self.admits(state, *leaf))
    }

    /// A message changes the journal only where it is for this connection, this job or a newer one, and no older epoch; and
    /// only once.
    fn check_heard(&self, state: &mut State, before: &Journal, down: Down) {
        let moved = state.device.disk.journal != *before;
        let latest = before.job.as_ref().map_or((0, 0), |j| {
            (symbols::job_number(j.id), u8::try_from(j.epoch).unwrap_or(0))
        });
        let of = down.job.unwrap_or(0);
        let late = !down.present || of < latest.0 || of == latest.0 && down.epoch < latest.1;
        if moved {
            self.check_began(state, down);
        }
        if moved && late {
            state.breach.get_or_insert(Breach::StaleMovedDevice);
        }
        if moved && state.device.up {
            let mut again = state.clone();
            let is = again.device.disk.journal.clone();
            self.acting(&mut again).hear(down);
            if again.device.disk.journal != is {
                state.breach.get_or_insert(Breach::RepeatMovedDevice);
            }
        }
    }

    /// A job empties a slot. One that the ledger has open must not find the device where nothing lets it in.
    fn check_began(&self, state: &mut State, down: Down) {
        let open = state.ledger.device.open_job();
        let of_ledger = open.is_some_and(|job| Some(symbols::job_number(job.id)) == down.job);
        let shut_out = || !state.device.ways().any(|leaf| self.admits(state, leaf));
        if of_ledger && down.told == Told::Rotate && !by_a_person(state) && shut_out() {
            state.breach.get_or_insert(Breach::BeganShutOut);
        }
    }

    /// What was heard a moment ago changes nothing when it is heard again.
    fn check_repeat(&self, state: &mut State, up: &Up) {
        let mut again = state.clone();
        self.engine(&mut again).hear(up);
        if again.ledger != state.ledger {
            state.breach.get_or_insert(Breach::RepeatMovedLedger);
        }
    }

    fn device_actions(&self, state: &State, actions: &mut Vec<Action>) {
        let mut doings = Vec::new();
        let device = &state.device;
        if device.up {
            for down in &state.net.down {
                doings.push(Doing::Hear(*down, false));
                if down.present {
                    doings.push(Doing::Hear(*down, true));
                }
            }
            doings.push(Doing::Break);
        }
        if let Some(via) = device.connecting() {
            doings.push(Doing::Open(Opening::Door));
            doings.push(Doing::Open(Opening::Unreachable));
            if via.trial {
                doings.push(Doing::Open(Opening::Mistake));
            }
        }
        doings.extend(device.timers.iter().map(|timer| Doing::Timer(*timer)));
        doings.push(Doing::Power);
        for doing in doings {
            let action = Action::Device(doing, 0);
            if !affordable(state.left, cost(state, action)) {
                continue;
            }
            actions.push(action);
            if doing != Doing::Power && affordable(state.left, cost(state, Action::Device(doing, 1))) {
                let mut dry = state.clone();
                let points = self.device_does(&mut dry, doing, 0);
                actions.extend(points.into_iter().map(|cut| Action::Device(doing, cut)));
            }
        }
    }
}

/// The device's connection has ended: nobody can name it any more.
fn age_ledger(state: &mut State) {
    if state.ledger.device.session == Some(symbols::PRESENT) {
        Arc::make_mut(&mut state.ledger.device).session = Some(symbols::PAST);
    }
}

/// What an action takes from the budgets.
fn cost(state: &State, action: Action) -> Faults {
    let none = Faults::default();
    match action {
        Action::Device(doing, cut) => {
            let mut cost = Faults {
                power: u8::from(cut != 0),
                ..none
            };
            match doing {
                Doing::Hear(down, keep) => cost.repeats = u8::from(keep || !down.present),
                Doing::Open(Opening::Unreachable) | Doing::Break => cost.network = 1,
                Doing::Open(Opening::Mistake) => cost.mistakes = 1,
                Doing::Timer(Timer::Repeat | Timer::Beat) => cost.timers = 1,
                // A trial that does not come through ends by itself.
                Doing::Timer(Timer::Trial) => cost.timers = u8::from(state.device.up),
                Doing::Power => cost.power = 1,
                Doing::Open(Opening::Door) | Doing::Timer(_) | Doing::Start => {}
            }
            cost
        }
        Action::Hear(_, keep) => Faults {
            repeats: u8::from(keep),
            ..none
        },
        Action::DeposedHears(_) => Faults { repeats: 1, ..none },
        Action::Deadline(_) | Action::Postpone | Action::Look(Look::Half | Look::Over | Look::Broken) => {
            Faults { deadlines: 1, ..none }
        }
        Action::Takeover => Faults { takeovers: 1, ..none },
        Action::Person(_) => Faults { person: 1, ..none },
        Action::Start(_) | Action::Offer | Action::Look(Look::Now) | Action::DoorLoads => none,
    }
}

fn each(faults: &mut Faults) -> [&mut u8; 8] {
    let Faults {
        power,
        network,
        repeats,
        timers,
        deadlines,
        takeovers,
        person,
        mistakes,
    } = faults;
    [power, network, repeats, timers, deadlines, takeovers, person, mistakes]
}

fn affordable(mut left: Left, mut cost: Faults) -> bool {
    let (has, needs) = (each(&mut left.each), each(&mut cost));
    let sum: u8 = needs.iter().map(|n| **n).sum();
    sum <= left.any && has.into_iter().zip(needs).all(|(has, needs)| *needs <= *has)
}

fn spend(left: &mut Left, mut cost: Faults) {
    for (has, needs) in each(&mut left.each).into_iter().zip(each(&mut cost)) {
        *has = has.saturating_sub(*needs);
        left.any = left.any.saturating_sub(*needs);
    }
}

impl Model for Fleet {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let mut each_ = self.scenario.each;
        for kind in each(&mut each_) {
            *kind = (*kind).min(self.scenario.faults);
        }
        let mut state = State {
            ledger: Ledger::enrolled(),
            deposed: false,
            shut: [].into(),
            device: Device::enrolled(),
            net: Net::default(),
            shown: Shown::enrolled(),
            came_in: false,
            left: Left {
                any: self.scenario.faults,
                each: each_,
            },
            breach: None,
        };
        self.device_does(&mut state, Doing::Start, 0);
        vec![state]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.breach.is_some() {
            return;
        }
        self.device_actions(state, actions);
        let mut offer = |action| {
            if affordable(state.left, cost(state, action)) {
                actions.push(action);
            }
        };
        for up in &state.net.up {
            offer(Action::Hear(*up, false));
            offer(Action::Hear(*up, true));
            if state.deposed {
                offer(Action::DeposedHears(*up));
            }
        }
        if state.ledger.jobs < self.scenario.jobs {
            offer(Action::Start(false));
            if self.scenario.rollback {
                offer(Action::Start(true));
            }
        }
        match state.ledger.device.job.as_ref() {
            Some(job) if job.state == JobState::Queued => offer(Action::Offer),
            Some(job) if job.next_deadline().is_some() => {
                offer(Action::Deadline(false));
                if matches!(job.state, JobState::Sent | JobState::Committing) {
                    offer(Action::Deadline(true));
                }
                offer(Action::Postpone);
            }
            _ => {}
        }
        if state.ledger.retirement.is_some() {
            for look in [Look::Now, Look::Half, Look::Over, Look::Broken] {
                offer(Action::Look(look));
            }
        }
        if state.shut != state.ledger.shut() {
            offer(Action::DoorLoads);
        }
        offer(Action::Takeover);
        for deed in [Deed::Revoke, Deed::Hold, Deed::Release, Deed::Cancel] {
            offer(Action::Person(deed));
        }
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let after = self.apply(state, action, true);
        (after != *state).then_some(after)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::all(&self.scenario)
    }
}

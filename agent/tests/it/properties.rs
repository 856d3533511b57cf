//! Whatever order messages, timers, refusals and power cuts come in.

use certwave_agent::machine::{Input, Link, Timer};
use certwave_protocol::message::Payload;
use proptest::prelude::*;

use crate::world::{Controller, World};

#[derive(Debug, Clone)]
enum Op {
    /// The network answers, or does not.
    Network(bool),
    /// The controller hears the oldest message.
    Hear,
    /// The oldest message is lost.
    LoseUp,
    /// One of the controller's messages arrives; it may arrive again.
    Deliver(usize),
    /// One of the controller's messages is lost.
    LoseDown(usize),
    /// A timer runs out.
    Timer(usize),
    /// The connection breaks.
    Break,
    /// The power goes after so many more instructions.
    Power(u32),
    /// The door refuses the certificate that is being tried now.
    Refuse,
    /// The door lets everybody in again.
    Admit,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => Just(Op::Network(false)),
        10 => Just(Op::Network(true)),
        12 => Just(Op::Hear),
        2 => Just(Op::LoseUp),
        12 => any::<usize>().prop_map(Op::Deliver),
        2 => any::<usize>().prop_map(Op::LoseDown),
        6 => any::<usize>().prop_map(Op::Timer),
        2 => Just(Op::Break),
        3 => (0u32..12).prop_map(Op::Power),
        2 => Just(Op::Refuse),
        2 => Just(Op::Admit),
    ]
}

const TIMERS: [Timer; 6] = [
    Timer::Retry,
    Timer::Beat,
    Timer::Trial,
    Timer::Repeat,
    Timer::Reconnect,
    Timer::Unmute,
];

struct Run {
    world: World,
    controller: Controller,
    down: Vec<Payload>,
}

impl Run {
    fn new(world: World) -> Self {
        Self {
            world,
            controller: Controller::default(),
            down: Vec::new(),
        }
    }

    /// The next thing that happens where nothing goes wrong: of timers the one at `timer`. False where nothing can.
    fn go_on(&mut self, timer: usize) -> bool {
        let timers = &self.world.timers;
        let timer = timers.iter().nth(timer % timers.len().max(1)).copied();
        if self.world.connecting.is_some() {
            self.world.network(true);
        } else if !self.world.up.is_empty() {
            self.hear();
        } else if !self.down.is_empty() {
            let message = self.down.remove(0);
            self.world.down(message);
        } else if let Some(timer) = timer {
            self.world.fire(timer);
        } else {
            return false;
        }
        true
    }

    fn hear(&mut self) {
        if let Some((body, _, about, session)) = self.world.up.pop_front() {
            self.down
                .extend(self.controller.hear(&self.world, &body, about, session));
        }
    }

    fn apply(&mut self, op: &Op) {
        match op {
            Op::Network(up) => self.world.network(*up),
            Op::Hear => self.hear(),
            Op::LoseUp => {
                self.world.up.pop_front();
            }
            Op::Deliver(n) if !self.down.is_empty() => {
                let message = self.down[n % self.down.len()].clone();
                if self.world.session().is_some() {
                    self.world.down(message.clone());
                    // Twice changes no more than once.
                    let journal = self.world.journal().clone();
                    if self.world.session() == Some(message.session) {
                        self.world.down(message);
                        assert_eq!(journal, *self.world.journal());
                    }
                }
            }
            Op::LoseDown(n) if !self.down.is_empty() => {
                let n = n % self.down.len();
                self.down.remove(n);
            }
            Op::Timer(n) => self.world.fire(TIMERS[n % TIMERS.len()]),
            Op::Break if self.world.session().is_some() => self.world.input(Input::Disconnected),
            Op::Power(after) => self.world.power = Some(*after),
            Op::Refuse => {
                let tried = self.world.connecting.and_then(|via| match via.credential {
                    certwave_agent::machine::Credential::Slot(slot) => self.world.journal().held(slot).map(|h| h.leaf),
                    certwave_agent::machine::Credential::Claim => None,
                });
                self.world.refused.extend(tried);
            }
            Op::Admit => self.world.refused.clear(),
            _ => {}
        }
    }

    /// From now on nothing goes wrong any more.
    fn settle(&mut self, rotations: u32) {
        self.world.refused.clear();
        self.world.power = None;
        self.down.clear();
        let wanted = self.controller.confirmed + rotations;
        for round in 0..3000 {
            if self.controller.confirmed >= wanted {
                return;
            }
            if !self.go_on(round) {
                break;
            }
        }
        panic!(
            "stuck: {:?}\n{:?}\n{:?}",
            self.world.state, self.controller, self.world.timers
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    /// `World` checks between any two instructions that whatever is confirmed is really on the disk.
    #[test]
    fn a_device_never_loses_a_confirmed_credential_and_goes_on_when_the_world_does(
        ops in proptest::collection::vec(op(), 0..120),
        enrolled in any::<bool>(),
    ) {
        let world = if enrolled { World::enrolled() } else { World::new(true) };
        let mut run = Run::new(world);
        if !enrolled {
            run.world.start();
        }
        let mut once = enrolled;
        for op in &ops {
            run.apply(op);
            let journal = run.world.files.journal.as_ref().unwrap();
            once |= journal.active.is_some();
            prop_assert!(!once || journal.active.is_some_and(|slot| journal.is_confirmed(slot)));
        }
        run.settle(6);
        prop_assert!(matches!(run.world.state.link(), Link::Up(..)) || run.world.connecting.is_some() || run.world.timers.contains(&Timer::Retry));
    }
}

/// The whole of an enrolment, rotations, a rollback and a trust job, with the power cut after each number of instructions.
#[test]
fn power_cut_at_every_step_loses_nothing() {
    for after in 0..300 {
        let mut run = Run::new(World::new(true));
        run.world.power = Some(after);
        run.world.start();
        let mut rounds = 0;
        while run.controller.confirmed < 6 {
            rounds += 1;
            assert!(rounds < 2000, "stuck after a cut at {after}: {:?}", run.world.state);
            assert!(
                run.go_on(0),
                "nothing to do after a cut at {after}: {:?}",
                run.world.state
            );
        }
    }
}

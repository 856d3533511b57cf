//! The device around its own transition function: disk, connection and timers, and power that may go between any two instructions.

use std::collections::{BTreeSet, VecDeque};
use std::sync::LazyLock;

use certwave_agent::algorithm::Algorithm;
use certwave_agent::journal::{Held, Journal, Phase};
use certwave_agent::machine::{
    self, Config, Credential, Effect, Input, Link, Reference, Signer, Timer, TrustedBy, Via,
};
use certwave_protocol::VERSION;
use certwave_protocol::code::Code;
use certwave_protocol::message::{self, Body, Job, Payload, Rejected, Slot, Subject, Task};

use crate::message::{About, ByRank, Down, Net, Said, Told, Up, What};
use crate::mutant::Mutant;
use crate::symbols::{self, Leaf, PAST, PRESENT};

static CONFIG: LazyLock<Config> = LazyLock::new(|| Config {
    device: symbols::name("meter-1"),
    broker: symbols::name("plant"),
    agent: String::new(),
    claim: false,
    accepts_jobs: true,
    algorithms: vec![Algorithm::EcdsaP256],
    beat: 3600,
});

/// What survives a power cut.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Disk {
    /// The journal.
    pub journal: Journal,
    /// The key in each slot.
    pub keys: [Leaf; 2],
    /// The certificate in each slot.
    pub leaves: [Leaf; 2],
    /// The bundle in each place.
    pub bundles: [u8; 2],
}

/// A device.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Device {
    /// The machine's state.
    pub machine: machine::State,
    /// The disk.
    pub disk: Disk,
    /// Timers that run.
    pub timers: BTreeSet<Timer>,
    /// A connection is there.
    pub up: bool,
}

/// What the device's steps have shown, for the properties.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Shown {
    /// What it has connected with, as it thought, as a trial.
    pub tested: BTreeSet<What>,
    /// What it has started from for good, safe on its disk.
    pub obeyed: BTreeSet<What>,
}

impl Shown {
    /// The first certificate was obeyed once.
    pub fn enrolled() -> Self {
        Self {
            tested: BTreeSet::new(),
            obeyed: BTreeSet::from([What::Leaf(1)]),
        }
    }
}

/// Slot A first.
pub const SLOTS: [Slot; 2] = [Slot::A, Slot::B];

/// A slot's place in an array.
pub fn place(slot: Slot) -> usize {
    usize::from(slot == Slot::B)
}

impl Device {
    /// A device that starts from the first certificate, switched on.
    pub fn enrolled() -> Self {
        let mut journal = Journal::new(symbols::bundle(1));
        journal.active = Some(Slot::A);
        journal.slots.a = Some(Held {
            confirmed: true,
            ..held(1)
        });
        Self {
            machine: machine::State::new(journal.clone()),
            disk: Disk {
                journal,
                keys: [1, 0],
                leaves: [1, 0],
                bundles: [1, 0],
            },
            timers: BTreeSet::new(),
            up: false,
        }
    }

    /// What it is about to connect in.
    pub fn connecting(&self) -> Option<Via> {
        match self.machine.link() {
            Link::Connecting(via) => Some(via),
            _ => None,
        }
    }

    /// The certificate that it presents there; `None` where key and certificate do not fit.
    pub fn presents(&self, slot: Slot) -> Option<Leaf> {
        let leaf = self.disk.leaves[place(slot)];
        (leaf != 0 && self.disk.keys[place(slot)] == leaf).then_some(leaf)
    }

    /// The certificates that it would let itself in with after a power cut now, in whatever order.
    pub fn ways(&self) -> impl Iterator<Item = Leaf> + '_ {
        let journal = &self.disk.journal;
        let tries = move |slot: &Slot| {
            let trial = journal
                .job
                .as_ref()
                .is_some_and(|j| j.phase.is_undecided() && j.goal.slot() == Some(*slot));
            journal.active == Some(*slot) || journal.is_confirmed(*slot) || trial
        };
        SLOTS.into_iter().filter(tries).filter_map(|slot| self.presents(slot))
    }

    /// Every confirmed slot that the journal on the disk names is whole.
    pub fn whole(&self) -> bool {
        let journal = &self.disk.journal;
        SLOTS
            .into_iter()
            .all(|slot| match journal.held(slot).filter(|h| h.confirmed) {
                Some(held) => self.presents(slot).map(symbols::fingerprint) == Some(held.leaf),
                None => true,
            })
    }
}

fn held(leaf: Leaf) -> Held {
    let credential = symbols::credential(leaf);
    Held {
        leaf: credential.fingerprint,
        not_before: credential.not_before,
        not_after: credential.not_after,
        confirmed: false,
    }
}

/// What the device's steps act on.
pub struct Acting<'a> {
    /// The device.
    pub device: &'a mut Device,
    /// The network.
    pub net: &'a mut Net,
    /// What was shown.
    pub shown: &'a mut Shown,
    /// A key that nobody has.
    pub fresh: Leaf,
    /// What is done wrong on purpose.
    pub mutant: Option<Mutant>,
    /// The power goes after so many effects; 0 is never.
    pub cut: u8,
    /// After which effects a cut leaves something behind that nothing else does.
    pub points: Vec<u8>,
    done: u8,
}

impl<'a> Acting<'a> {
    /// A device that is about to do something.
    pub fn new(
        device: &'a mut Device,
        net: &'a mut Net,
        shown: &'a mut Shown,
        fresh: Leaf,
        mutant: Option<Mutant>,
    ) -> Self {
        Self {
            device,
            net,
            shown,
            fresh,
            mutant,
            cut: 0,
            points: Vec::new(),
            done: 0,
        }
    }

    /// Takes in one input and what follows from it by itself.
    pub fn feed(&mut self, input: Input) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            if input == Input::Disconnected {
                self.hang_up();
            }
            let before = self.device.machine.journal().clone();
            let mut effects = machine::step(&CONFIG, &mut self.device.machine, 0, input);
            if let Some(mutant) = self.mutant {
                mutant.effects(&before, &mut effects);
            }
            for effect in effects {
                self.done += 1;
                let lasts = self.carry_out(effect, &mut inputs);
                if self.cut == self.done {
                    self.power();
                    return;
                }
                if lasts {
                    self.points.push(self.done);
                }
            }
            // Nobody waits for this one.
            if self.device.timers.remove(&Timer::Unmute) {
                inputs.push_back(Input::Timer(Timer::Unmute));
            }
        }
        let machine = std::mem::replace(
            &mut self.device.machine,
            machine::State::new(self.device.disk.journal.clone()),
        );
        self.device.machine = machine.without_waits();
    }

    /// The power goes and comes again.
    pub fn power(&mut self) {
        self.hang_up();
        self.device.timers.clear();
        let mut journal = self.device.disk.journal.clone();
        if let Some(mutant) = self.mutant {
            mutant.woken(&mut journal);
        }
        self.device.disk.journal = journal.clone();
        self.device.machine = machine::State::new(journal);
        self.cut = 0;
        self.feed(Input::Start);
    }

    fn hang_up(&mut self) {
        if std::mem::take(&mut self.device.up) {
            self.net.age();
        }
    }

    /// Does one thing; answers whether it lasts.
    fn carry_out(&mut self, effect: Effect, inputs: &mut VecDeque<Input>) -> bool {
        let disk = &mut self.device.disk;
        match effect {
            Effect::Persist(journal) => {
                disk.journal = *journal;
                self.obeys();
            }
            Effect::MakeKey { slot, job, .. } => {
                disk.keys[place(slot)] = self.fresh;
                inputs.push_back(Input::KeyMade {
                    job,
                    csr: symbols::der(self.fresh),
                    nonce: symbols::nonce(0),
                });
            }
            Effect::StoreCertificate { slot, job, leaf, .. } => {
                let leaf = symbols::number_of(&leaf);
                let fits = disk.keys[place(slot)] == leaf;
                if fits {
                    disk.leaves[place(slot)] = leaf;
                }
                let result = if fits {
                    Ok(held(leaf))
                } else {
                    Err(Code::CertificateInvalid)
                };
                inputs.push_back(Input::Stored { job, result });
            }
            Effect::StoreBundle {
                place: at,
                job,
                anchors,
            } => {
                disk.bundles[place(at)] = anchors.first().map_or(0, |a| symbols::number_of(a) & 0x0f);
                inputs.push_back(Input::BundleStored { job, result: Ok(()) });
            }
            Effect::Disconnect => {
                self.hang_up();
                return false;
            }
            Effect::Publish { body, signer, about } => {
                self.publish(&body, signer, about);
            }
            Effect::StartTimer(timer, _) => {
                self.device.timers.insert(timer);
                return false;
            }
            Effect::StopTimer(timer) => {
                self.device.timers.remove(&timer);
                return false;
            }
            Effect::Connect(_) | Effect::Ignored(_) => return false,
        }
        true
    }

    fn obeys(&mut self) {
        let disk = &self.device.disk;
        let Some(job) = disk.journal.job.as_ref().filter(|j| j.phase == Phase::Committed) else {
            return;
        };
        let what = match job.goal.slot() {
            Some(slot) => What::Leaf(disk.journal.held(slot).map_or(0, |h| symbols::leaf(&h.leaf))),
            None => What::Bundle(symbols::bundle_number(&disk.journal.bundle())),
        };
        self.shown.obeyed.insert(what);
    }

    fn publish(&mut self, body: &Body, signer: Signer, about: Reference) {
        let Signer::Slot(slot) = signer else { return };
        let journal = self.device.machine.journal();
        let Some(named) = journal.held(slot).map(|h| symbols::leaf(&h.leaf)) else {
            return;
        };
        // Else the signature does not verify.
        if !self.device.up || self.device.disk.keys[place(slot)] != named {
            return;
        }
        let said = match body {
            Body::Hello(hello) => Said::Hello {
                active: hello.active,
                slots: [&hello.slots.a, &hello.slots.b].map(|s| s.as_ref().map_or(0, symbols::leaf)),
                job: hello
                    .job
                    .as_ref()
                    .map(|v| (symbols::job_number(v.id), ByRank(v.progress))),
                bundle: symbols::bundle_number(&hello.bundle),
                echo: hello.reconnect.map(|n| n.0[0]),
            },
            Body::Csr(csr) => Said::Csr(symbols::number_of(&csr.csr)),
            Body::Tested(tested) => Said::Tested(what(tested.subject)),
            Body::Status(status) => Said::Status(ByRank(status.step), status.code),
            _ => return,
        };
        self.net.up.insert(Up {
            said,
            signer: named,
            present: true,
            about: about.job.map(|id| About {
                job: symbols::job_number(id),
                epoch: u8::try_from(about.epoch.unwrap_or(0)).unwrap_or(u8::MAX),
            }),
        });
    }

    /// A connection is made.
    pub fn connected(&mut self) {
        self.device.up = true;
        if let Some(via) = self.device.connecting().filter(|via| via.trial)
            && let Credential::Slot(slot) = via.credential
        {
            let bundle = self.device.disk.bundles[place(via.trust)];
            let changes_trust = via.trust != self.device.machine.journal().trust;
            self.shown.tested.insert(if changes_trust {
                What::Bundle(bundle)
            } else {
                What::Leaf(self.device.disk.leaves[place(slot)])
            });
        }
        self.feed(Input::Connected(PRESENT));
    }

    /// A message arrives.
    pub fn hear(&mut self, down: Down) {
        let payload = payload(down);
        let payload = match self.mutant {
            Some(mutant) => mutant.arrives(payload, self.device.machine.journal()),
            None => payload,
        };
        let by = TrustedBy {
            a: self.device.disk.bundles[0] != 0,
            b: self.device.disk.bundles[1] != 0,
        };
        self.feed(Input::Down(Box::new(payload), by));
    }
}

fn what(subject: Subject) -> What {
    match subject {
        Subject::Certificate(of) => What::Leaf(symbols::leaf(&of)),
        Subject::Bundle(of) => What::Bundle(symbols::bundle_number(&of)),
    }
}

fn payload(down: Down) -> Payload {
    let job = |task| {
        Body::Job(Job {
            task,
            attempt: 1,
            step_timeout: 60,
            trial_timeout: 60,
        })
    };
    let mut nonce = down.job.map(symbols::nonce);
    let body = match down.told {
        Told::Rotate => job(Task::Rotate {
            algorithms: vec!["ECDSA-P256".to_owned()],
        }),
        Told::Rollback(to) => job(Task::Rollback {
            to: symbols::fingerprint(to),
        }),
        Told::Trust(bundle) => job(Task::Trust {
            anchors: symbols::anchors(bundle),
            bundle: symbols::bundle(bundle),
        }),
        Told::Certificate(leaf) => Body::Certificate(message::Certificate {
            leaf: symbols::der(leaf),
            chain: Vec::new(),
            trial_timeout: 60,
        }),
        Told::Commit(what) => Body::Commit(message::Commit {
            subject: match what {
                What::Leaf(leaf) => Subject::Certificate(symbols::fingerprint(leaf)),
                What::Bundle(bundle) => Subject::Bundle(symbols::bundle(bundle)),
            },
        }),
        Told::Reconnect(number) => {
            nonce = Some(symbols::nonce(number));
            Body::Reconnect(message::Reconnect { within: 2 })
        }
        Told::Rejected(of, code) => Body::Rejected(Rejected {
            of: of.0,
            code,
            message: String::new(),
            job_state: None,
        }),
    };
    Payload {
        v: VERSION,
        broker: CONFIG.broker.clone(),
        device: CONFIG.device.clone(),
        session: if down.present { PRESENT } else { PAST },
        job: down.job.map(symbols::job_id),
        nonce,
        epoch: Some(u64::from(down.epoch)),
        body,
    }
}

//! A device's state machine in a world that a test controls: its disk, its door, its network and its controller.

mod controller;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use certwave_agent::algorithm::Algorithm;
use certwave_agent::journal::{Held, Journal, PerSlot, Phase};
use certwave_agent::machine::{
    Config, Credential, Effect, Failure, Input, Link, Reference, Signer, State, Timer, TrustedBy, Via, step,
};
use certwave_protocol::code::Code;
use certwave_protocol::ids::{Fingerprint, JobId, Nonce, SessionId};
use certwave_protocol::message::{Body, Certificate, Der, Job, Payload, Slot, Task};

pub(crate) use controller::Controller;

pub(crate) const BUNDLE: Fingerprint = Fingerprint([1; 32]);
pub(crate) const BOTH: TrustedBy = TrustedBy { a: true, b: true };

pub(crate) fn config(claim: bool) -> Config {
    Config {
        device: "sim-0001".parse().unwrap(),
        broker: "b1".parse().unwrap(),
        agent: "test".to_owned(),
        claim,
        accepts_jobs: true,
        algorithms: Algorithm::ALL.to_vec(),
        beat: 300,
    }
}

/// A job id of which a higher number is a later job.
pub(crate) fn job_id(number: u64) -> JobId {
    uuid::Builder::from_unix_timestamp_millis(1_000 + number, &[0; 10]).into_uuid()
}

fn held(leaf: &Der) -> Held {
    Held {
        leaf: Fingerprint::of(leaf.as_ref()),
        not_before: 10,
        not_after: 1000,
        confirmed: false,
    }
}

/// The key that a made-up request or certificate is for.
fn key_of(der: &Der) -> u32 {
    u32::from_be_bytes(der.0[1..5].try_into().unwrap())
}

/// What lies on the disk. Certificates are made up: a letter, the key's number, the serial.
#[derive(Debug, Clone, Default)]
pub(crate) struct Files {
    pub(crate) journal: Option<Journal>,
    pub(crate) keys: PerSlot<Option<u32>>,
    pub(crate) certificates: PerSlot<Option<Der>>,
    pub(crate) bundles: PerSlot<Option<Fingerprint>>,
}

pub(crate) struct World {
    pub(crate) config: Config,
    pub(crate) files: Files,
    pub(crate) state: State,
    pub(crate) timers: BTreeSet<Timer>,
    pub(crate) effects: Vec<Effect>,
    inputs: VecDeque<Input>,
    /// Up messages that nobody has seen yet.
    pub(crate) up: VecDeque<(Body, Signer, Reference, SessionId)>,
    pub(crate) connecting: Option<Via>,
    /// The connection as the driver has it; the state is a step ahead.
    live: Option<SessionId>,
    sessions: u8,
    keys: u32,
    /// Instructions until the power goes.
    pub(crate) power: Option<u32>,
    pub(crate) cuts: u32,
    /// Leaves that the door refuses.
    pub(crate) refused: BTreeSet<Fingerprint>,
    csrs: BTreeMap<JobId, Der>,
}

impl World {
    pub(crate) fn new(claim: bool) -> Self {
        let mut files = Files {
            journal: Some(Journal::new(BUNDLE)),
            ..Files::default()
        };
        files.bundles.a = Some(BUNDLE);
        Self::with(files, claim)
    }

    /// A device that is enrolled, and connected with slot A.
    pub(crate) fn enrolled() -> Self {
        let leaf = Der(vec![b'c', 0, 0, 0, 0, 0]);
        let mut journal = Journal::new(BUNDLE);
        journal.active = Some(Slot::A);
        journal.slots.a = Some(Held {
            confirmed: true,
            ..held(&leaf)
        });
        let mut files = Files {
            journal: Some(journal),
            ..Files::default()
        };
        files.bundles.a = Some(BUNDLE);
        files.keys.a = Some(0);
        files.certificates.a = Some(leaf);
        let mut world = Self::with(files, false);
        world.start();
        world.network(true);
        world
    }

    fn with(files: Files, claim: bool) -> Self {
        let state = State::new(files.journal.clone().unwrap());
        Self {
            config: config(claim),
            files,
            state,
            timers: BTreeSet::new(),
            effects: Vec::new(),
            inputs: VecDeque::new(),
            up: VecDeque::new(),
            connecting: None,
            live: None,
            sessions: 0,
            keys: 0,
            power: None,
            cuts: 0,
            refused: BTreeSet::new(),
            csrs: BTreeMap::new(),
        }
    }

    pub(crate) fn start(&mut self) {
        self.input(Input::Start);
    }

    pub(crate) fn journal(&self) -> &Journal {
        self.state.journal()
    }

    pub(crate) fn phase(&self) -> Option<&Phase> {
        self.journal().job.as_ref().map(|j| &j.phase)
    }

    pub(crate) fn session(&self) -> Option<SessionId> {
        match self.state.link() {
            Link::Up(_, session) => Some(session),
            _ => None,
        }
    }

    /// Feeds an input and carries out what follows; the effects are kept.
    pub(crate) fn input(&mut self, input: Input) {
        self.effects.clear();
        if input == Input::Disconnected {
            self.live = None;
        }
        self.inputs.push_back(input);
        while let Some(input) = self.inputs.pop_front() {
            for effect in step(&self.config, &mut self.state, 100, input) {
                if self.power == Some(0) {
                    return self.lose_power();
                }
                self.power = self.power.map(|p| p - 1);
                self.effects.push(effect.clone());
                self.carry_out(effect);
                self.check();
            }
        }
    }

    pub(crate) fn lose_power(&mut self) {
        self.power = None;
        self.cuts += 1;
        self.state = State::new(self.files.journal.clone().unwrap());
        self.timers.clear();
        self.inputs.clear();
        self.connecting = None;
        self.live = None;
        self.input(Input::Start);
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Persist(journal) => self.files.journal = Some(*journal),
            Effect::MakeKey { slot, job, .. } => {
                self.keys += 1;
                *self.files.keys.get_mut(slot) = Some(self.keys);
                let csr = Der([&[b'r'][..], &self.keys.to_be_bytes()].concat());
                self.inputs.push_back(Input::KeyMade {
                    job,
                    csr,
                    nonce: Nonce([u8::try_from(self.keys % 251).unwrap(); 16]),
                });
            }
            Effect::StoreCertificate { slot, job, leaf, .. } => {
                let result = if Some(key_of(&leaf)) == *self.files.keys.get(slot) {
                    *self.files.certificates.get_mut(slot) = Some(leaf.clone());
                    Ok(held(&leaf))
                } else {
                    Err(Code::CertificateInvalid)
                };
                self.inputs.push_back(Input::Stored { job, result });
            }
            Effect::StoreBundle { place, job, anchors } => {
                *self.files.bundles.get_mut(place) = Some(Fingerprint::of_bundle(&anchors));
                self.inputs.push_back(Input::BundleStored { job, result: Ok(()) });
            }
            Effect::Connect(via) => {
                assert_eq!(self.live, None, "one connection at a time");
                self.connecting = Some(via);
            }
            Effect::Disconnect => {
                self.connecting = None;
                self.live = None;
            }
            Effect::Publish { body, signer, about } => {
                if let (Body::Csr(csr), Some(job)) = (&body, about.job) {
                    let first = self.csrs.entry(job).or_insert_with(|| csr.csr.clone());
                    assert_eq!(*first, csr.csr, "another request for the same job");
                }
                let session = self.live.expect("nothing is published without a connection");
                self.up.push_back((body, signer, about, session));
            }
            Effect::StartTimer(timer, _) => {
                self.timers.insert(timer);
            }
            Effect::StopTimer(timer) => {
                self.timers.remove(&timer);
            }
            Effect::Ignored(_) => {}
        }
    }

    /// What must hold between any two instructions: whatever the journal on the disk calls confirmed is really there.
    fn check(&self) {
        let journal = self.files.journal.as_ref().unwrap();
        for slot in [Slot::A, Slot::B] {
            let Some(held) = journal.held(slot) else { continue };
            let certificate = self
                .files
                .certificates
                .get(slot)
                .as_ref()
                .expect("a slot that counts has a certificate");
            assert_eq!(
                Fingerprint::of(certificate.as_ref()),
                held.leaf,
                "slot {slot:?} was overwritten"
            );
            assert_eq!(
                Some(key_of(certificate)),
                *self.files.keys.get(slot),
                "the key in slot {slot:?} is another"
            );
        }
        if let Some(active) = journal.active {
            assert!(journal.is_confirmed(active), "the active slot was never confirmed");
        }
        assert_eq!(
            *self.files.bundles.get(journal.trust),
            *journal.bundles.get(journal.trust),
            "the bundle in force"
        );
    }

    /// The network answers a connection under way: by the door if it is up, else not at all.
    pub(crate) fn network(&mut self, up: bool) {
        let Some(via) = self.connecting.take() else { return };
        let leaf = match via.credential {
            Credential::Slot(slot) => self
                .files
                .certificates
                .get(slot)
                .as_ref()
                .map(|c| Fingerprint::of(c.as_ref())),
            Credential::Claim => None,
        };
        if !up {
            self.input(Input::ConnectFailed(Failure::Unreachable));
        } else if leaf.is_some_and(|l| self.refused.contains(&l)) {
            self.input(Input::ConnectFailed(Failure::Refused(Some(
                "certificate_revoked".to_owned(),
            ))));
        } else {
            self.sessions = self.sessions.wrapping_add(1);
            self.live = Some(Nonce([self.sessions; 16]));
            self.input(Input::Connected(Nonce([self.sessions; 16])));
        }
    }

    pub(crate) fn fire(&mut self, timer: Timer) {
        if self.timers.remove(&timer) {
            self.input(Input::Timer(timer));
        }
    }

    pub(crate) fn ignored(&self) -> Option<Code> {
        self.effects.iter().find_map(|e| match e {
            Effect::Ignored(code) => Some(*code),
            _ => None,
        })
    }

    /// What the latest input made the device say.
    pub(crate) fn said(&self) -> Vec<&Body> {
        self.effects
            .iter()
            .filter_map(|e| match e {
                Effect::Publish { body, .. } => Some(body),
                _ => None,
            })
            .collect()
    }

    pub(crate) fn down(&mut self, payload: Payload) {
        self.input(Input::Down(Box::new(payload), BOTH));
    }

    /// A message of the controller on the present connection.
    pub(crate) fn message(&self, job: u64, body: Body) -> Payload {
        Payload {
            v: 1,
            broker: self.config.broker.clone(),
            device: self.config.device.clone(),
            session: self.session().unwrap_or(Nonce([0; 16])),
            job: Some(job_id(job)),
            nonce: Some(Nonce([9; 16])),
            epoch: Some(5),
            body,
        }
    }
}

pub(crate) fn rotate() -> Body {
    let task = Task::Rotate {
        algorithms: vec!["ECDSA-P256".to_owned()],
    };
    Body::Job(Job {
        task,
        attempt: 1,
        step_timeout: 30,
        trial_timeout: 60,
    })
}

pub(crate) fn certificate(csr: &Der) -> Body {
    let leaf = Der([&[b'c'][..], &key_of(csr).to_be_bytes(), &[7]].concat());
    Body::Certificate(Certificate {
        leaf,
        chain: Vec::new(),
        trial_timeout: 60,
    })
}

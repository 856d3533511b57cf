//! The device's side of the protocol as a pure function: no clock, no I/O, no randomness.
//!
//! [`step`] takes one [`Input`] and gives the [`Effect`]s to carry out, in their order. What must survive a power cut
//! is the [`Journal`] alone; everything else in [`State`] is made anew by [`State::new`] and [`Input::Start`]. When
//! carrying out an effect fails, drop the rest and start again from the journal on the disk, as after a power cut.

mod connect;
mod down;
mod enrol;
mod job;
mod say;
mod trial;

use certwave_protocol::code::Code;
use certwave_protocol::ids::{BrokerId, DeviceId, Epoch, JobId, Nonce, SessionId};
use certwave_protocol::message::{Body, Der, Payload, Slot};

use crate::algorithm::Algorithm;
use crate::journal::{Held, JobEntry, Journal, PerSlot};

/// What does not change while a device runs.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Config {
    /// The device's name.
    pub device: DeviceId,
    /// Its broker.
    pub broker: BrokerId,
    /// Name and version of the agent, for `hello`; at most 64 characters.
    pub agent: String,
    /// Whether a claim is at hand, to enrol with.
    pub claim: bool,
    /// Whether the owner lets rotate jobs be taken on now; else they are rejected with `refused`.
    pub accepts_jobs: bool,
    /// Algorithms that keys can be made for. Enrolment takes the first.
    pub algorithms: Vec<Algorithm>,
    /// Seconds between two `hello`s, before jitter.
    pub beat: u32,
}

/// Whose certificate and key open a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Credential {
    /// The device's own in this slot.
    Slot(Slot),
    /// The claim's, which can enrol and nothing else.
    Claim,
}

/// A way to connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Via {
    /// Certificate and key.
    pub credential: Credential,
    /// Which of the two places holds the bundle that the broker is checked against.
    pub trust: Slot,
    /// Whether this tries out what the latest job stored.
    pub trial: bool,
}

/// Why a connection was not made.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Failure {
    /// The broker, or the network before it, did not answer.
    Unreachable,
    /// The broker does not let this credential in; the TLS alert by its name in RFC 8446 6, if it sent one.
    Refused(Option<String>),
    /// The broker's own certificate is not trusted.
    Untrusted,
}

/// The timers of a device. Starting one that runs replaces it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Timer {
    /// Connect again.
    Retry,
    /// Say hello again.
    Beat,
    /// The trial ends.
    Trial,
    /// Say again what was not answered.
    Repeat,
    /// Come again, as the controller asked.
    Reconnect,
    /// Answer messages of other connections again.
    Unmute,
}

/// How long a timer runs. Whoever carries it out has the randomness.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Wait {
    /// Exactly so many seconds.
    Exactly(u32),
    /// So many seconds, a fifth more or less.
    About(u32),
    /// A moment chosen evenly within so many seconds.
    Within(u32),
    /// Exponential backoff with full jitter: attempts so far, and the longest wait in seconds if it is shorter than
    /// the device's own.
    Backoff {
        /// Failures in a row before this wait, from 0.
        attempt: u8,
        /// Upper limit in seconds.
        cap: Option<u32>,
    },
}

/// Which of the device's two bundles the control certificate of a verified message chains to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TrustedBy {
    /// The bundle in place A.
    pub a: bool,
    /// The bundle in place B.
    pub b: bool,
}

impl TrustedBy {
    /// Whether the bundle in `place` vouches for the message.
    pub fn place(self, place: Slot) -> bool {
        match place {
            Slot::A => self.a,
            Slot::B => self.b,
        }
    }
}

/// What happens to a device.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Input<P = Payload> {
    /// The device runs, with the journal it had.
    Start,
    /// Connected and subscribed, the birth published; `session` is the connection's id.
    Connected(SessionId),
    /// The connection asked for was not made.
    ConnectFailed(Failure),
    /// The connection broke.
    Disconnected,
    /// A message whose signature verified.
    Down(Box<P>, TrustedBy),
    /// A timer ran out.
    Timer(Timer),
    /// The key asked for is made and stored, with the request for it. `nonce` is fresh.
    KeyMade {
        /// The job it is for; `None` for enrolment.
        job: Option<JobId>,
        /// PKCS#10.
        csr: Der,
        /// 128 fresh random bits.
        nonce: Nonce,
    },
    /// The key could not be made or stored.
    KeyFailed {
        /// The job it is for; `None` for enrolment.
        job: Option<JobId>,
    },
    /// The certificate was checked and stored beside its key, or why not.
    Stored {
        /// The job it is for.
        job: JobId,
        /// The certificate's fingerprint and dates.
        result: Result<Held, Code>,
    },
    /// The trust bundle was checked and stored, or why not.
    BundleStored {
        /// The job it is for.
        job: JobId,
        /// Whether it is stored.
        result: Result<(), Code>,
    },
}

/// The key that signs a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Signer {
    /// The key in this slot.
    Slot(Slot),
    /// The claim's key.
    Claim,
}

/// Job, nonce and epoch as they stand in a message.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Reference {
    /// The job.
    pub job: Option<JobId>,
    /// The job's nonce, or enrolment's own.
    pub nonce: Option<Nonce>,
    /// The highest epoch seen within the job.
    pub epoch: Option<Epoch>,
}

impl From<&JobEntry> for Reference {
    fn from(job: &JobEntry) -> Self {
        Self {
            job: Some(job.id),
            nonce: Some(job.nonce),
            epoch: Some(job.epoch),
        }
    }
}

/// What is to be done, in the order given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Replace the journal on the disk and wait until it is safe there.
    Persist(Box<Journal>),
    /// Make a key in `slot`, over what lies there, and a request for it; then [`Input::KeyMade`].
    MakeKey {
        /// Where to.
        slot: Slot,
        /// Of which kind.
        algorithm: Algorithm,
        /// The job it is for; `None` for enrolment.
        job: Option<JobId>,
    },
    /// Check the certificate against the key in `slot` and the device's name and store it; then [`Input::Stored`].
    StoreCertificate {
        /// Where to.
        slot: Slot,
        /// The job it is for.
        job: JobId,
        /// The leaf.
        leaf: Der,
        /// Its intermediates.
        chain: Vec<Der>,
    },
    /// Check the anchors and store them in `place`; then [`Input::BundleStored`].
    StoreBundle {
        /// Where to.
        place: Slot,
        /// The job it is for.
        job: JobId,
        /// DER certificates.
        anchors: Vec<Der>,
    },
    /// Connect in this way; then [`Input::Connected`] or [`Input::ConnectFailed`].
    Connect(Via),
    /// Let what was published arrive, then end the connection, or stop connecting.
    Disconnect,
    /// Publish a message on the present connection.
    Publish {
        /// What it says.
        body: Body,
        /// Whose key signs.
        signer: Signer,
        /// What it belongs to.
        about: Reference,
    },
    /// Start a timer.
    StartTimer(Timer, Wait),
    /// Stop a timer, if it runs.
    StopTimer(Timer),
    /// A message changed nothing, for this reason.
    Ignored(Code),
}

/// The connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Link {
    /// None; a retry may be due.
    Down,
    /// Being made.
    Connecting(Via),
    /// Made.
    Up(Via, SessionId),
}

/// How far the device is with a `reconnect`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Echo {
    /// None asked for.
    None,
    /// To be told after the next reconnection.
    Due(Nonce),
    /// Reconnecting because of it.
    Ready(Nonce),
}

/// A device at one instant.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct State {
    journal: Journal,
    link: Link,
    /// The trial's time is running.
    trial: bool,
    /// Which of the ways to connect comes next.
    turn: u8,
    /// Failed connections in a row.
    failures: u8,
    /// Refusals in a row, over both slots.
    refusals: u8,
    /// Unanswered repetitions in a row.
    repeats: u8,
    /// The alert that last refused each slot.
    alerts: PerSlot<Option<String>>,
    echo: Echo,
    /// The latest job's end is still to be told.
    announce: bool,
    /// A message of another connection was answered a moment ago.
    muted: bool,
}

impl State {
    /// A device that has just been switched on with this journal.
    pub fn new(journal: Journal) -> Self {
        Self {
            journal,
            link: Link::Down,
            trial: false,
            turn: 0,
            failures: 0,
            refusals: 0,
            repeats: 0,
            alerts: PerSlot::default(),
            echo: Echo::None,
            announce: false,
            muted: false,
        }
    }

    /// What is on the disk, or will be once the effects given so far are carried out.
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// The connection.
    pub fn link(&self) -> Link {
        self.link
    }

    /// Whether a trial's time is running.
    pub fn on_trial(&self) -> bool {
        self.trial
    }

    /// The same device for whom waits have no length: counts that only make waits longer are forgotten, and the turn is taken
    /// modulo 12, a multiple of every number of ways to connect. It makes a search over states end.
    #[must_use]
    pub fn without_waits(mut self) -> Self {
        self.failures = 0;
        self.repeats = 0;
        self.turn %= 12;
        self.refusals = self.refusals.min(connect::REFUSALS_BEFORE_CLAIM);
        self
    }

    /// The alert that last refused `slot`.
    pub fn alert(&self, slot: Slot) -> Option<&str> {
        self.alerts.get(slot).as_deref()
    }
}

/// One step. `now` is the device's clock, Unix seconds; it goes into `hello` and decides nothing.
pub fn step(config: &Config, state: &mut State, now: i64, input: Input) -> Vec<Effect> {
    let mut machine = Machine {
        config,
        state,
        now,
        effects: Vec::new(),
    };
    match input {
        Input::Start => machine.start(),
        Input::Connected(session) => machine.connected(session),
        Input::ConnectFailed(failure) => machine.connect_failed(failure),
        Input::Disconnected => machine.disconnected(),
        Input::Down(payload, by) => machine.down(*payload, by),
        Input::Timer(timer) => machine.timer(timer),
        Input::KeyMade { job, csr, nonce } => machine.key_made(job, csr, nonce),
        Input::KeyFailed { job } => machine.key_failed(job),
        Input::Stored { job, result } => machine.stored(job, result),
        Input::BundleStored { job, result } => machine.bundle_stored(job, result),
    }
    machine.effects
}

/// One step under way.
struct Machine<'a> {
    config: &'a Config,
    state: &'a mut State,
    now: i64,
    effects: Vec<Effect>,
}

impl Machine<'_> {
    fn emit(&mut self, effect: Effect) {
        self.effects.push(effect);
    }

    fn persist(&mut self) {
        self.emit(Effect::Persist(Box::new(self.state.journal.clone())));
    }

    fn job(&self) -> Option<&JobEntry> {
        self.state.journal.job.as_ref()
    }

    fn timer(&mut self, timer: Timer) {
        match timer {
            Timer::Retry => {
                if self.state.link == Link::Down {
                    self.connect_next();
                }
            }
            Timer::Beat => self.beat(),
            Timer::Trial => self.trial_ended(),
            Timer::Repeat => self.repeat(),
            Timer::Reconnect => self.come_again(),
            Timer::Unmute => self.state.muted = false,
        }
    }
}

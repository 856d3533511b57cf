//! The driver: carries out what the state machine decides, with a real clock, disk, network and randomness.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use certwave_protocol::VERSION;
use certwave_protocol::code::Code;
use certwave_protocol::envelope::{self, Unverified};
use certwave_protocol::ids::{Fingerprint, Nonce, SessionId};
use certwave_protocol::message::{Body, Der, Payload, Slot, Type};
use certwave_protocol::topic::User;
use rand::rngs::StdRng;
use rand::{Rng as _, RngExt as _};
use rustls_pki_types::CertificateDer;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::Instant;

use crate::certificate::check;
use crate::disk::Fuse;
use crate::hooks::Hooks;
use crate::journal::{Held, Journal, PerSlot};
use crate::machine::{self, Credential, Effect, Failure, Input, Reference, Signer, State, Timer, TrustedBy, Via, Wait};
use crate::mqtt::{LinkError, Target, Wire, tls_config};
use crate::recover;
use crate::setup::Setup;
use crate::store::{KeyStore, Storage, StoreError};
use crate::trust::{Clock, Trust, verify};

/// A device that runs.
pub struct Device<S, H> {
    /// What does not change.
    pub setup: Arc<Setup>,
    /// Journal, certificates, bundles and keys.
    pub store: S,
    /// Who watches.
    pub hooks: H,
    /// Burns with every effect and every write.
    pub fuse: Fuse,
    /// For sessions, nonces and jitter.
    pub rng: StdRng,
}

enum Link {
    None,
    Connecting(Pin<Box<dyn Future<Output = Result<Up, LinkError>> + Send>>),
    Up(Box<Up>),
}

struct Up {
    session: Box<dyn Wire>,
    id: SessionId,
    claim: bool,
    _leave: Option<OwnedSemaphorePermit>,
}

/// What a device has between two switchings-on.
struct Live {
    state: State,
    link: Link,
    timers: [Option<Instant>; 6],
    trusts: PerSlot<Option<(Fingerprint, Arc<Trust>)>>,
    inputs: VecDeque<Input>,
}

const TIMERS: [Timer; 6] = [
    Timer::Retry,
    Timer::Beat,
    Timer::Trial,
    Timer::Repeat,
    Timer::Reconnect,
    Timer::Unmute,
];

/// Not as an input: a message that is nobody's or not believed.
enum Opened {
    Message(Box<Payload>, TrustedBy),
    Foreign,
    Refused(Code),
}

impl<S: Storage + KeyStore, H: Hooks> Device<S, H> {
    /// Runs until `stop` says so. An error of the store ends the run as a power cut would: whoever called runs it again,
    /// after a while.
    pub async fn run(&mut self, stop: &mut watch::Receiver<bool>) -> Result<(), StoreError> {
        let journal = recover::journal(&mut self.store, &self.setup.config.device, &self.setup.anchors)?;
        let mut live = Live {
            state: State::new(journal),
            link: Link::None,
            timers: [None; 6],
            trusts: PerSlot::default(),
            inputs: VecDeque::from([Input::Start]),
        };
        loop {
            while let Some(input) = live.inputs.pop_front() {
                self.step(&mut live, input).await?;
            }
            let due = live.timers.iter().flatten().min().copied();
            tokio::select! {
                biased;
                () = stopped(stop) => {
                    if let Link::Up(mut up) = std::mem::replace(&mut live.link, Link::None) {
                        up.session.say_offline(up.id);
                        up.session.close().await;
                    }
                    return Ok(());
                }
                () = sleep_until(due) => {
                    let now = Instant::now();
                    for (timer, at) in TIMERS.iter().zip(&mut live.timers) {
                        if at.is_some_and(|at| at <= now) {
                            *at = None;
                            live.inputs.push_back(Input::Timer(*timer));
                        }
                    }
                }
                event = next(&mut live.link) => self.event(&mut live, event).await,
            }
        }
    }

    async fn event(&mut self, live: &mut Live, event: Event) {
        let input = match event {
            Event::Connected(up) => {
                let id = up.id;
                live.link = Link::Up(up);
                Input::Connected(id)
            }
            Event::Failed(error) => {
                self.hooks.link_failed(&error);
                let connecting = matches!(live.link, Link::Connecting(_));
                live.link = Link::None;
                if connecting {
                    Input::ConnectFailed(error.failure)
                } else {
                    Input::Disconnected
                }
            }
            Event::Message(kind, message) => match self.open(live, kind, &message) {
                Opened::Message(payload, by) => {
                    let delay = self.hooks.delay(live.state.journal());
                    if !delay.is_zero() {
                        tokio::time::sleep(delay).await;
                    }
                    Input::Down(payload, by)
                }
                Opened::Foreign => return,
                Opened::Refused(code) => {
                    tracing::debug!(%code, %kind, "a message was not believed");
                    self.hooks.stepped(&live.state, &[Effect::Ignored(code)]);
                    return;
                }
            },
        };
        live.inputs.push_back(input);
    }

    fn clock(&self, journal: &Journal) -> Clock {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs();
        let now = i64::try_from(now)
            .unwrap_or(i64::MAX)
            .saturating_add(self.setup.clock_offset);
        Clock {
            now,
            floor: journal.clock_floor(),
        }
    }

    /// Reads and verifies a message.
    fn open(&self, live: &mut Live, kind: Type, message: &[u8]) -> Opened {
        let Link::Up(up) = &live.link else {
            return Opened::Foreign;
        };
        let unverified = match Unverified::parse(message) {
            Ok(unverified) => unverified,
            Err(error) => return Opened::Refused(error.code()),
        };
        if up.claim && unverified.claimed().session != up.id {
            // All devices of a claim hear each other's answers.
            return Opened::Foreign;
        }
        if unverified.claimed().body.kind() != kind {
            return Opened::Refused(Code::Malformed);
        }
        let clock = self.clock(live.state.journal());
        let trusts = PerSlot {
            a: self.trust(live, Slot::A),
            b: self.trust(live, Slot::B),
        };
        match verify(unverified, &trusts, &self.setup.config.broker, clock) {
            Ok((payload, by)) => Opened::Message(Box::new(payload), by),
            Err(code) => Opened::Refused(code),
        }
    }

    /// The bundle in `place`, if the journal names one.
    fn trust(&self, live: &mut Live, place: Slot) -> Option<Arc<Trust>> {
        let hash = (*live.state.journal().bundles.get(place))?;
        let known = live.trusts.get_mut(place);
        if let Some((of, trust)) = known
            && *of == hash
        {
            return Some(Arc::clone(trust));
        }
        let trust = self
            .store
            .bundle(place)
            .ok()
            .and_then(|anchors| self.setup.trusts.of(&anchors).ok())?;
        *known = Some((hash, Arc::clone(&trust)));
        Some(trust)
    }

    async fn step(&mut self, live: &mut Live, input: Input) -> Result<(), StoreError> {
        let now = self.clock(live.state.journal()).now;
        let effects = machine::step(&self.setup.config, &mut live.state, now, input);
        self.hooks.stepped(&live.state, &effects);
        for effect in effects {
            self.burn()?;
            self.carry_out(live, effect).await?;
        }
        Ok(())
    }

    fn burn(&self) -> Result<(), StoreError> {
        self.fuse.burn().map_err(|error| StoreError::Io {
            file: "power".to_owned(),
            error,
        })
    }

    async fn carry_out(&mut self, live: &mut Live, effect: Effect) -> Result<(), StoreError> {
        match effect {
            Effect::Persist(journal) => self.store.save_journal(&journal)?,
            Effect::MakeKey { slot, algorithm, job } => {
                let made = self
                    .store
                    .make(slot, algorithm)
                    .and_then(|()| self.store.request(slot, &self.setup.config.device));
                let input = match made {
                    Ok(csr) => Input::KeyMade {
                        job,
                        csr,
                        nonce: self.nonce(),
                    },
                    Err(error) => {
                        self.unless_dark(&error)?;
                        Input::KeyFailed { job }
                    }
                };
                live.inputs.push_back(input);
            }
            Effect::StoreCertificate { slot, job, leaf, chain } => {
                let result = self.store_certificate(slot, &leaf, &chain)?;
                live.inputs.push_back(Input::Stored { job, result });
            }
            Effect::StoreBundle { place, job, anchors } => {
                let result = match self.setup.trusts.of(&anchors) {
                    Err(_) => Err(Code::Malformed),
                    Ok(_) => match self.store.save_bundle(place, &anchors) {
                        Ok(()) => Ok(()),
                        Err(error) => {
                            self.unless_dark(&error)?;
                            Err(Code::Storage)
                        }
                    },
                };
                live.inputs.push_back(Input::BundleStored { job, result });
            }
            Effect::Connect(via) => {
                if let Some(failure) = self.hooks.shut(live.state.journal(), via) {
                    live.inputs.push_back(Input::ConnectFailed(failure));
                } else {
                    live.link = self.connect(live, via)?;
                }
            }
            Effect::Disconnect => {
                if let Link::Up(up) = std::mem::replace(&mut live.link, Link::None) {
                    up.session.close().await;
                }
            }
            Effect::Publish { body, signer, about } => self.publish(live, body, signer, about)?,
            Effect::StartTimer(timer, wait) => live.timers[index(timer)] = Some(Instant::now() + self.duration(wait)),
            Effect::StopTimer(timer) => live.timers[index(timer)] = None,
            Effect::Ignored(code) => tracing::debug!(%code, "a message changed nothing"),
        }
        Ok(())
    }

    /// A fault of the disk fails the job; a power cut ends everything.
    fn unless_dark(&self, error: &StoreError) -> Result<(), StoreError> {
        tracing::error!(%error, "cannot store");
        if self.fuse.is_blown() { self.burn() } else { Ok(()) }
    }

    fn store_certificate(&mut self, slot: Slot, leaf: &Der, chain: &[Der]) -> Result<Result<Held, Code>, StoreError> {
        let spki = match self.store.spki(slot) {
            Ok(spki) => spki,
            Err(error) => {
                self.unless_dark(&error)?;
                return Ok(Err(Code::Storage));
            }
        };
        let checked = match check(leaf.as_ref(), chain, &self.setup.config.device, &spki) {
            Ok(checked) => checked,
            Err(error) => {
                tracing::error!(%error, "the certificate is not taken");
                return Ok(Err(Code::CertificateInvalid));
            }
        };
        let all: Vec<_> = std::iter::once(leaf)
            .chain(chain)
            .map(|d| CertificateDer::from(d.as_ref()))
            .collect();
        if let Err(error) = self.store.save_certificate(slot, &all) {
            self.unless_dark(&error)?;
            return Ok(Err(Code::Storage));
        }
        let (not_before, not_after) = (checked.not_before, checked.not_after);
        Ok(Ok(Held {
            leaf: checked.fingerprint,
            not_before,
            not_after,
            confirmed: false,
        }))
    }

    fn connect(&mut self, live: &mut Live, via: Via) -> Result<Link, StoreError> {
        let id = self.nonce();
        let clock = self.clock(live.state.journal());
        let Some(trust) = self.trust(live, via.trust) else {
            return Err(StoreError::Missing(crate::store::bundle_file(via.trust).to_owned()));
        };
        let (chain, key, address, user, client_id) = match (via.credential, &self.setup.claim) {
            (Credential::Slot(slot), _) => {
                let slot = self.hooks.opens(live.state.journal(), via).unwrap_or(slot);
                let device = &self.setup.config.device;
                let (chain, key) = match (self.store.certificate(slot), self.store.tls_key(slot)) {
                    (Ok(chain), Ok(key)) => (chain, key),
                    (Err(error), _) | (_, Err(error)) => {
                        // A slot that cannot be read is as good as refused: the other one may do.
                        tracing::error!(%error, ?slot, "the credential cannot be read");
                        live.inputs.push_back(Input::ConnectFailed(Failure::Refused(None)));
                        return Ok(Link::None);
                    }
                };
                (
                    chain,
                    key,
                    self.setup.url.clone(),
                    User::Device(device.clone()),
                    device.to_string(),
                )
            }
            (Credential::Claim, Some(claim)) => {
                let client_id = format!("{}.{}", claim.name.user(), id);
                let user = User::Claim(claim.name.clone());
                (
                    claim.chain.clone(),
                    Arc::clone(&claim.tls_key),
                    claim.claims_url.clone(),
                    user,
                    client_id,
                )
            }
            (Credential::Claim, None) => return Ok(Link::None),
        };
        let tls = tls_config(chain, key, &trust, clock).map_err(|e| StoreError::Key(e.to_string()))?;
        let target = Target {
            address,
            client_id,
            user,
            prefix: self.setup.prefix.clone(),
            session: id,
            keep_alive: self.setup.keep_alive,
            tls: Arc::new(tls),
        };
        let leave = self.hooks.leave(via);
        let claim = via.credential == Credential::Claim;
        let dial = Arc::clone(&self.setup.dial);
        Ok(Link::Connecting(Box::pin(async move {
            let leave = match leave {
                Some(leave) => leave.await,
                None => None,
            };
            Ok(Up {
                session: dial.dial(target).await?,
                id,
                claim,
                _leave: leave,
            })
        })))
    }

    fn publish(&mut self, live: &mut Live, body: Body, signer: Signer, about: Reference) -> Result<(), StoreError> {
        let Link::Up(up) = &mut live.link else { return Ok(()) };
        let copies = self.hooks.copies(live.state.journal(), &body);
        if copies == 0 {
            return Ok(());
        }
        let kind = body.kind();
        let payload = Payload {
            v: VERSION,
            broker: self.setup.config.broker.clone(),
            device: self.setup.config.device.clone(),
            session: up.id,
            job: about.job,
            nonce: about.nonce,
            epoch: about.epoch,
            body,
        };
        let message = match (signer, &self.setup.claim) {
            (Signer::Slot(slot), _) => {
                let Some(held) = live.state.journal().held(slot) else {
                    return Ok(());
                };
                envelope::sign_up(&payload, &self.store.signer(slot)?, held.leaf)
            }
            (Signer::Claim, Some(claim)) => envelope::sign_up(&payload, &claim.signer, claim.leaf),
            (Signer::Claim, None) => return Ok(()),
        };
        for _ in 0..copies {
            if let Err(error) = up.session.publish(kind, message.clone()) {
                self.hooks.link_failed(&error);
                live.link = Link::None;
                live.inputs.push_back(Input::Disconnected);
                break;
            }
        }
        Ok(())
    }

    fn nonce(&mut self) -> Nonce {
        let mut bytes = [0; 16];
        self.rng.fill_bytes(&mut bytes);
        Nonce(bytes)
    }

    fn duration(&mut self, wait: Wait) -> Duration {
        let seconds = |s: u32| Duration::from_secs(u64::from(s));
        match wait {
            Wait::Exactly(s) => seconds(s),
            Wait::About(s) => seconds(s).mul_f64(self.rng.random_range(0.8..1.2)),
            Wait::Within(s) => seconds(s).mul_f64(self.rng.random_range(0.0..1.0)),
            Wait::Backoff { attempt, cap } => {
                let (base, max) = self.setup.backoff;
                let max = cap.map_or(max, |cap| seconds(cap).min(max));
                let longest = base.saturating_mul(1 << attempt.min(20)).min(max);
                longest.mul_f64(self.rng.random_range(0.0..1.0))
            }
        }
    }
}

/// Returns when the device shall stop.
pub async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

fn index(timer: Timer) -> usize {
    TIMERS.iter().position(|t| *t == timer).unwrap_or_default()
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

enum Event {
    Connected(Box<Up>),
    Failed(LinkError),
    Message(Type, Vec<u8>),
}

/// What comes over the network next. Safe to cancel.
async fn next(link: &mut Link) -> Event {
    match link {
        Link::None => std::future::pending().await,
        Link::Connecting(connect) => match connect.await {
            Ok(up) => Event::Connected(Box::new(up)),
            Err(error) => Event::Failed(error),
        },
        Link::Up(up) => match up.session.next().await {
            Ok((kind, message)) => Event::Message(kind, message),
            Err(error) => Event::Failed(error),
        },
    }
}

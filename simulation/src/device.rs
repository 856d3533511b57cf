//! Devices: the agent's own driver and state machine over a disk in memory and the simulated broker.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use certwave_agent::algorithm::Algorithm;
use certwave_agent::claim::Claim;
use certwave_agent::device::Device;
use certwave_agent::disk::{Access, Disk, Fuse, MemoryDisk};
use certwave_agent::hooks::Hooks;
use certwave_agent::journal::{Goal, Journal};
use certwave_agent::machine::{Config, Effect, Failure, State, Via};
use certwave_agent::mqtt::{Address, Dial, LinkError, Target, Wire, Work};
use certwave_agent::setup::Setup;
use certwave_agent::store::{Storage as _, Store};
use certwave_agent::trust::Trusts;
use certwave_pki::parse_certificate_info;
use certwave_protocol::VERSION;
use certwave_protocol::ids::{DeviceId, Fingerprint, SessionId};
use certwave_protocol::message::{Body, Online, Slot, Type};
use certwave_protocol::topic::{self, User};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use rustls::SignatureScheme;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::broker::{Broker, Connection, Mouth, Packet, Shut, issuer_of};
use crate::history::History;
use crate::judge::Judge;
use crate::os;
use crate::weather::Place;

/// How long a device takes at most for each message, milliseconds.
const SLOW: u64 = 400;
const SUBSCRIBING: Duration = Duration::from_secs(30);

/// What a device must have around it.
pub struct Surroundings {
    /// The broker.
    pub broker: Arc<Broker>,
    /// Who watches.
    pub judge: Arc<Judge>,
    /// What happened.
    pub history: Arc<History>,
    /// The claim that all enrol with.
    pub claim: Arc<Claim>,
    /// Parsed bundles.
    pub trusts: Arc<Trusts>,
}

/// A device that lives.
pub struct Unit {
    /// Its number.
    pub number: usize,
    /// Its id.
    pub id: DeviceId,
    memory: Arc<Memory>,
    fuse: Fuse,
    switch: watch::Sender<bool>,
    living: AbortHandle,
    shuts: Arc<AtomicBool>,
}

/// Its disk.
struct Memory {
    disk: Mutex<MemoryDisk>,
    /// What the latest write overwrote.
    before: Mutex<Option<(String, Option<Vec<u8>>)>>,
    /// A mistake made on purpose: the disk says that it has written what a power cut takes back.
    lies: Mutex<bool>,
}

#[derive(Clone)]
struct Shared(Arc<Memory>);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Disk for Shared {
    fn read(&self, name: &str) -> std::io::Result<Option<zeroize::Zeroizing<Vec<u8>>>> {
        lock(&self.0.disk).read(name)
    }

    fn replace(&mut self, name: &str, content: &[u8], access: Access) -> std::io::Result<()> {
        let mut disk = lock(&self.0.disk);
        if *lock(&self.0.lies) {
            let before = disk.read(name)?.map(|content| content.to_vec());
            *lock(&self.0.before) = Some((name.to_owned(), before));
        }
        disk.replace(name, content, access)
    }
}

impl Unit {
    /// Switches a new device on.
    pub fn begin(number: usize, around: &Arc<Surroundings>, seed: u64) -> anyhow::Result<Self> {
        let id: DeviceId = name(number).parse().map_err(|_| anyhow::anyhow!("not an id"))?;
        let fuse = Fuse::never();
        let memory = Arc::new(Memory {
            disk: Mutex::new(MemoryDisk::new(fuse.clone(), number.is_multiple_of(2))),
            before: Mutex::default(),
            lies: Mutex::default(),
        });
        let url = Address {
            host: "broker".to_owned(),
            port: 8883,
        };
        let setup = Setup {
            config: Config {
                device: id.clone(),
                broker: around.claim.broker.clone(),
                agent: "certwave-simulation".to_owned(),
                claim: true,
                accepts_jobs: true,
                algorithms: vec![Algorithm::EcdsaP256],
                beat: 20,
            },
            url,
            prefix: crate::broker::PREFIX.to_owned(),
            claim: Some(Arc::clone(&around.claim)),
            anchors: around.claim.anchors.clone(),
            backoff: (Duration::from_secs(1), Duration::from_secs(8)),
            keep_alive: 20,
            trusts: Arc::clone(&around.trusts),
            clock_offset: 0,
            dial: Arc::new(ToBroker {
                broker: Arc::clone(&around.broker),
                number,
            }),
        };
        let (switch, stop) = watch::channel(false);
        let shuts = Arc::new(AtomicBool::new(false));
        let device = Device {
            setup: Arc::new(setup),
            store: Store::new(Shared(Arc::clone(&memory))),
            hooks: Watching {
                number,
                around: Arc::clone(around),
                shuts: Arc::clone(&shuts),
            },
            fuse: fuse.clone(),
            rng: StdRng::seed_from_u64(seed ^ (number as u64 + 1).wrapping_mul(0x9e37_79b9)),
        };
        let living = live(number, device, stop, Arc::clone(&memory), Arc::clone(&around.history));
        Ok(Self {
            number,
            id,
            memory,
            fuse,
            switch,
            living: tokio::spawn(os::by_right_clock(living)).abort_handle(),
            shuts,
        })
    }

    /// Cuts its power after so many instructions; it comes back by itself.
    pub fn cut_power(&self, instructions: u32) {
        if !self.fuse.is_blown() {
            self.fuse.arm(instructions);
        }
    }

    /// From now on new certificates open no door for it, or they do again.
    pub fn shut_trials(&self, shut: bool) {
        self.shuts.store(shut, Ordering::Relaxed);
    }

    /// A mistake made on purpose: its disk says that it has written what a power cut takes back.
    pub fn lie(&self) {
        *lock(&self.memory.lies) = true;
    }

    /// What lies on its disk.
    pub fn journal(&self) -> Option<Journal> {
        Store::new(Shared(Arc::clone(&self.memory))).journal().ok().flatten()
    }

    /// The certificate that it starts from, if its key is there, too.
    pub fn starts_from(&self) -> Option<Fingerprint> {
        let journal = self.journal()?;
        let slot = journal.active?;
        let store = Store::new(Shared(Arc::clone(&self.memory)));
        let leaf = store
            .certificate(slot)
            .ok()?
            .first()
            .map(|leaf| Fingerprint::of(leaf))?;
        certwave_agent::store::KeyStore::spki(&store, slot).ok()?;
        Some(leaf).filter(|leaf| journal.held(slot).is_some_and(|held| held.leaf == *leaf))
    }
}

impl Drop for Unit {
    fn drop(&mut self) {
        let _ = self.switch.send(true);
        self.living.abort();
    }
}

/// A device's id and the name of its object.
pub fn name(number: usize) -> String {
    format!("d-{number}")
}

async fn live(
    number: usize,
    mut device: Device<Store<Shared>, Watching>,
    mut stop: watch::Receiver<bool>,
    memory: Arc<Memory>,
    history: Arc<History>,
) {
    while device.run(&mut stop).await.is_err() {
        history.say(format!("d{number} is without power"));
        let pause = Duration::from_millis(device.rng.random_range(500..3000));
        tokio::time::sleep(pause).await;
        device.fuse.mend();
        if *lock(&memory.lies)
            && let Some((file, content)) = lock(&memory.before).take()
        {
            let _ = lock(&memory.disk).replace(&file, &content.unwrap_or_default(), Access::Public);
        }
    }
}

/// Who watches a device.
struct Watching {
    number: usize,
    around: Arc<Surroundings>,
    /// Trials of new certificates fail.
    shuts: Arc<AtomicBool>,
}

impl Hooks for Watching {
    fn stepped(&self, state: &State, effects: &[Effect]) {
        for effect in effects {
            if let Effect::StoreCertificate { leaf, .. } = effect
                && let (Ok(info), Some(issuer)) = (parse_certificate_info(leaf.as_ref()), issuer_of(leaf.as_ref()))
            {
                self.around
                    .judge
                    .saw(&issuer, &info.serial, Fingerprint::of(leaf.as_ref()));
            }
        }
        self.around
            .judge
            .stepped(self.number, state.journal(), state.on_trial());
    }

    fn shut(&self, journal: &Journal, via: Via) -> Option<Failure> {
        let rotates = matches!(journal.job.as_ref()?.goal, Goal::Rotate { .. });
        let shut = via.trial && rotates && self.shuts.load(Ordering::Relaxed);
        shut.then(|| Failure::Refused(Some("certificate_unknown".to_owned())))
    }

    fn opens(&self, _: &Journal, _: Via) -> Option<Slot> {
        None
    }

    fn copies(&self, _: &Journal, _: &Body) -> usize {
        1
    }

    fn delay(&self, _: &Journal) -> Duration {
        Duration::from_millis(self.around.broker.weather().below(SLOW))
    }
}

/// A device's way to the broker.
struct ToBroker {
    broker: Arc<Broker>,
    number: usize,
}

impl std::fmt::Debug for ToBroker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ToBroker")
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}

impl Dial for ToBroker {
    fn dial(&self, target: Target) -> Work<'static, Result<Box<dyn Wire>, LinkError>> {
        let (broker, place) = (Arc::clone(&self.broker), Place::Device(self.number));
        Box::pin(async move {
            let resolver = &target.tls.client_auth_cert_resolver;
            let credential = resolver.resolve(&[], &[SignatureScheme::ECDSA_NISTP256_SHA256]);
            let leaf = credential.as_ref().and_then(|credential| credential.cert.first());
            let leaf = leaf.ok_or_else(|| failed(Failure::Refused(None), "no certificate"))?;
            let online = topic::up(&target.prefix, &target.user, Type::Online);
            let device = matches!(target.user, User::Device(_));
            let will = device.then(|| (online.clone(), Bytes::from(birth(target.session, false))));
            let connected = broker.connect(place, target.client_id.clone(), leaf, will).await;
            let mut connection = connected.map_err(|shut| match shut {
                Shut::Unreachable => failed(Failure::Unreachable, "nobody answers"),
                Shut::Refused(alert) => failed(Failure::Refused(Some(alert.to_owned())), alert),
            })?;
            let mouth = connection.mouth();
            mouth.subscribe(&topic::down_filter(&target.prefix, &target.user));
            let subscribed = async {
                while let Some(packet) = connection.next().await {
                    if matches!(packet, Packet::Subscribed) {
                        return true;
                    }
                }
                false
            };
            if tokio::time::timeout(SUBSCRIBING, subscribed).await != Ok(true) {
                return Err(failed(Failure::Unreachable, "the connection broke"));
            }
            if device {
                mouth.publish(online, birth(target.session, true));
            }
            Ok(Box::new(Line {
                connection,
                mouth,
                user: target.user,
                prefix: target.prefix,
            }) as Box<dyn Wire>)
        })
    }
}

fn failed(failure: Failure, reason: &str) -> LinkError {
    LinkError {
        failure,
        reason: reason.to_owned(),
    }
}

fn birth(session: SessionId, online: bool) -> Vec<u8> {
    let birth = Online {
        v: VERSION,
        online,
        session,
    };
    serde_json::to_vec(&birth).unwrap_or_default()
}

/// A device's connection.
struct Line {
    connection: Connection,
    mouth: Mouth,
    user: User,
    prefix: String,
}

impl Wire for Line {
    fn publish(&mut self, kind: Type, message: Vec<u8>) -> Result<(), LinkError> {
        if self.mouth.publish(topic::up(&self.prefix, &self.user, kind), message) {
            Ok(())
        } else {
            Err(failed(Failure::Unreachable, "the connection broke"))
        }
    }

    fn next(&mut self) -> Work<'_, Result<(Type, Vec<u8>), LinkError>> {
        Box::pin(async move {
            loop {
                match self.connection.next().await {
                    None => return Err(failed(Failure::Unreachable, "the connection broke")),
                    Some(Packet::Message(topic, message)) => {
                        if let Some((user, kind)) = topic::parse_down(&self.prefix, &topic)
                            && user == self.user
                        {
                            return Ok((kind, message.to_vec()));
                        }
                    }
                    Some(Packet::Taken | Packet::Subscribed) => {}
                }
            }
        })
    }

    fn say_offline(&mut self, session: SessionId) {
        if matches!(self.user, User::Device(_)) {
            self.mouth
                .publish(topic::up(&self.prefix, &self.user, Type::Online), birth(session, false));
        }
    }

    fn close(self: Box<Self>) -> Work<'static, ()> {
        self.mouth.leave();
        Box::pin(async move {
            let mut line = self;
            let over = async { while line.connection.next().await.is_some() {} };
            let _ = tokio::time::timeout(Duration::from_secs(3), over).await;
        })
    }
}

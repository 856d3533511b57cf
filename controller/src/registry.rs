//! What the reconcilers have resolved and the engine works by: brokers, fleets and rotations as ready-to-use values.
//!
//! Reconcilers put entries in and take them out; the engine only reads. An entry is replaced as a whole, so a reader
//! that holds one keeps a consistent view.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use certwave_core::model::{Millis, ObjectRef};
use certwave_core::policy::FleetPolicy;
use certwave_core::rollout::run::{Plan, Run};
use certwave_core::rollout::strategy::Strategy;
use certwave_core::rollout::window::Calendar;
use certwave_ledger::FleetKey;
use certwave_pki::{CertificateAuthority, CsrPolicy, LeafTemplate};
use certwave_protocol::ids::{BrokerId, Fingerprint};
use certwave_protocol::jws::SigningKey;
use certwave_protocol::message::Der;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::sync::{Notify, watch};

use crate::door::{Door, DoorSettings, DoorView};
use crate::presence::Presence;

/// A broker to connect to.
pub struct BrokerEntry {
    /// Its immutable id.
    pub id: BrokerId,
    /// The `Broker` object.
    pub object: ObjectRef,
    /// Host name or address; also the name that its certificate must bear.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Host and port of the claims' listener, where there is one of its own.
    pub claims: Option<(String, u16)>,
    /// Topic prefix.
    pub prefix: String,
    /// Anchors for its server certificate.
    pub anchors: Vec<CertificateDer<'static>>,
    /// The controller's client certificate (`~controller`), leaf first.
    pub client_chain: Vec<CertificateDer<'static>>,
    /// Its key.
    pub client_key: PrivateKeyDer<'static>,
    /// The control key: signs all messages to devices.
    pub control_key: SigningKey,
    /// The control certificate, leaf first, without the root.
    pub control_chain: Vec<Der>,
    /// How many nodes it has.
    pub nodes: usize,
    /// How it hears of revocations.
    pub door: DoorSettings,
    /// Changes when anything above changes that needs a new connection.
    pub version: String,
}

/// How a CA's CRLs are made. All in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CrlPolicy {
    /// From `thisUpdate` to `nextUpdate`.
    pub validity: i64,
    /// How long before `nextUpdate` a CRL is made anew.
    pub renew_before: i64,
    /// With delta CRLs: how long a change may stand in them alone before a complete CRL says it, too.
    pub complete_every: Option<i64>,
}

/// A CA that issues for a fleet, with what devices need to know of it.
#[derive(Clone)]
pub struct IssuerEntry {
    /// The CA.
    pub ca: Arc<CertificateAuthority>,
    /// Its `CertificateAuthority` object.
    pub object: ObjectRef,
    /// How its CRLs are made.
    pub crl: CrlPolicy,
    /// Its own certificate is revoked: it goes on to say what is revoked, and issues nothing any more.
    pub revoked: bool,
}

/// A fleet whose CA and broker are resolved.
pub struct FleetEntry {
    /// Namespace and name.
    pub key: FleetKey,
    /// The object's uid.
    pub uid: String,
    /// The broker that its devices use.
    pub broker: BrokerId,
    /// What its devices should hold.
    pub policy: FleetPolicy,
    /// How its Rotations go, those that say nothing else; devices that come back after a Rotation are served by it.
    pub strategy: Arc<Strategy>,
    /// Its windows.
    pub calendar: Arc<Calendar>,
    /// Why the declared strategy cannot be worked by, if so: the default one stands in its place, and nothing is rotated
    /// without being asked for.
    pub strategy_fault: Option<String>,
    /// The present issuer.
    pub issuer: IssuerEntry,
    /// Subject and SANs of its devices.
    pub template: LeafTemplate,
    /// What a request must satisfy.
    pub csr: CsrPolicy,
    /// Key algorithms offered to devices, the preferred one first.
    pub algorithms: Vec<String>,
    /// Validity of a leaf.
    pub validity: std::time::Duration,
    /// How far `notBefore` lies in the past.
    pub backdate: std::time::Duration,
    /// The trust bundle that devices should hold.
    pub anchors: Vec<Der>,
    /// Its hash.
    pub bundle: Fingerprint,
}

/// A Rotation under way (its members stand in the ledger), as last judged.
pub struct RotationEntry {
    /// The object's uid, as in jobs.
    pub uid: String,
    /// The object.
    pub object: ObjectRef,
    /// The fleet.
    pub fleet: FleetKey,
    /// Where the fleet moves, if it does.
    pub issuer: Option<IssuerEntry>,
    /// What it goes by.
    pub strategy: Arc<Strategy>,
    /// Its windows.
    pub calendar: Arc<Calendar>,
    /// Its waves.
    pub plan: Plan,
    /// How far it is.
    pub run: Run,
    /// Whether devices of the waves begun may be sent new jobs.
    pub admits: bool,
    /// Whether devices may be sent back.
    pub reverts: bool,
}

/// The state of the connection to one broker, written by the engine and shown on the `Broker`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Link {
    /// Connected and subscribed.
    pub connected: bool,
    /// Why not, in words a person can act on.
    pub error: Option<String>,
}

/// See the module.
#[derive(Default)]
pub struct Registry {
    /// Which devices are said to be connected.
    pub presence: Presence,
    brokers: RwLock<HashMap<BrokerId, Arc<BrokerEntry>>>,
    fleets: RwLock<HashMap<FleetKey, Arc<FleetEntry>>>,
    rotations: RwLock<HashMap<String, Arc<RotationEntry>>>,
    issuers: RwLock<HashMap<String, IssuerEntry>>,
    waiting: RwLock<HashSet<String>>,
    doors: RwLock<HashMap<BrokerId, Arc<dyn Door>>>,
    links: RwLock<HashMap<BrokerId, Link>>,
    claims_links: RwLock<HashMap<BrokerId, Link>>,
    door_views: RwLock<HashMap<BrokerId, Arc<DoorView>>>,
    /// Who, of all brokers, has to do with which CA (key id), and whether it may go by its CRLs.
    crl_uses: RwLock<HashMap<String, (String, bool)>>,
    /// When the ledger last failed, Unix milliseconds; 0: it has not.
    ledger_out: AtomicI64,
    /// Set once what limits the work is known.
    open: AtomicBool,
    brokers_changed: Notify,
    links_changed: Notify,
    work: Notify,
    judge: Notify,
    /// How often a certificate's standing has changed by this process.
    standing: watch::Sender<u64>,
}

fn read<K: std::hash::Hash + Eq, V: Clone>(map: &RwLock<HashMap<K, V>>, key: &K) -> Option<V> {
    map.read().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
}

fn all<K, V: Clone>(map: &RwLock<HashMap<K, V>>) -> Vec<V> {
    map.read()
        .unwrap_or_else(PoisonError::into_inner)
        .values()
        .cloned()
        .collect()
}

fn put<K: std::hash::Hash + Eq, V>(map: &RwLock<HashMap<K, V>>, key: K, value: Option<V>) {
    let mut map = map.write().unwrap_or_else(PoisonError::into_inner);
    match value {
        Some(v) => map.insert(key, v),
        None => map.remove(&key),
    };
}

impl Registry {
    /// One of several of a process: a change of standing that one hears of, all do.
    pub fn beside(standing: watch::Sender<u64>) -> Self {
        Self {
            standing,
            ..Self::default()
        }
    }

    /// The broker with this id.
    pub fn broker(&self, id: &BrokerId) -> Option<Arc<BrokerEntry>> {
        read(&self.brokers, id)
    }

    /// Every broker.
    pub fn brokers(&self) -> Vec<Arc<BrokerEntry>> {
        all(&self.brokers)
    }

    /// Sets or removes a broker.
    pub fn set_broker(&self, id: BrokerId, entry: Option<BrokerEntry>) {
        put(&self.brokers, id, entry.map(Arc::new));
        self.brokers_changed.notify_waiters();
    }

    /// Resolves at the next change of a broker. Create the future before reading.
    pub fn brokers_changed(&self) -> tokio::sync::futures::Notified<'_> {
        self.brokers_changed.notified()
    }

    /// The fleet with this name.
    pub fn fleet(&self, key: &FleetKey) -> Option<Arc<FleetEntry>> {
        read(&self.fleets, key)
    }

    /// Every fleet that is ready.
    pub fn fleets(&self) -> Vec<Arc<FleetEntry>> {
        all(&self.fleets)
    }

    /// Sets a fleet, or removes one that is gone or not ready.
    pub fn set_fleet(&self, key: FleetKey, entry: Option<FleetEntry>) {
        put(&self.fleets, key, entry.map(Arc::new));
        self.work.notify_one();
    }

    /// The CA with this key id, whether a fleet uses it at present or not: what it issued may have to be sent again.
    pub fn issuer(&self, key_id: &str) -> Option<IssuerEntry> {
        read(&self.issuers, &key_id.to_owned())
    }

    /// Makes a CA known by its key id, for as long as this process runs.
    pub fn add_issuer(&self, entry: &IssuerEntry) {
        put(&self.issuers, entry.ca.key_id().to_string(), Some(entry.clone()));
    }

    /// Every CA made known.
    pub fn issuers(&self) -> Vec<IssuerEntry> {
        all(&self.issuers)
    }

    /// Notes for whoever makes CRLs that somebody goes by those of a CA (key id), or may; `None`: no more.
    pub fn set_crl_use(&self, user: &str, entry: Option<(String, bool)>) {
        put(&self.crl_uses, user.to_owned(), entry);
    }

    /// Whether a broker may go by the CRLs of this CA (key id): unless it asks OCSP, one where its devices are does.
    pub fn reads_crls(&self, issuer: &str) -> bool {
        if all(&self.crl_uses)
            .iter()
            .any(|(key_id, reads)| *reads && key_id == issuer)
        {
            return true;
        }
        let is = |entry: &IssuerEntry| entry.ca.key_id().to_string() == issuer;
        let moving = self.rotations();
        let moves = |fleet: &FleetKey| {
            let into = |rotation: &Arc<RotationEntry>| rotation.issuer.as_ref().is_some_and(is);
            moving.iter().any(|rotation| rotation.fleet == *fleet && into(rotation))
        };
        let reads = |id: &BrokerId| self.broker(id).is_none_or(|broker| broker.door.reads_crls());
        let fleets = self.fleets();
        let mut own = fleets.iter().filter(|fleet| is(&fleet.issuer) || moves(&fleet.key));
        own.any(|fleet| reads(&fleet.broker))
    }

    /// The rotation with this uid.
    pub fn rotation(&self, uid: &str) -> Option<Arc<RotationEntry>> {
        read(&self.rotations, &uid.to_owned())
    }

    /// Says whether a rotation that has begun waits for something, its CA perhaps.
    pub fn set_waiting(&self, uid: &str, waits: bool) {
        let mut waiting = self.waiting.write().unwrap_or_else(PoisonError::into_inner);
        if waits {
            waiting.insert(uid.to_owned());
        } else {
            waiting.remove(uid);
        }
    }

    /// Whether a rotation that has begun waits for something.
    pub fn waits(&self, uid: &str) -> bool {
        self.waiting
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(uid)
    }

    /// Every rotation that has begun and not ended.
    pub fn rotations(&self) -> Vec<Arc<RotationEntry>> {
        all(&self.rotations)
    }

    /// The rotation whose devices are served over this fleet: one that starts jobs before one that sends devices back, the
    /// oldest first.
    pub fn running(&self, fleet: &FleetKey) -> Option<Arc<RotationEntry>> {
        let rotations = self.rotations.read().unwrap_or_else(PoisonError::into_inner);
        let running = rotations
            .values()
            .filter(|entry| entry.fleet == *fleet && (entry.admits || entry.reverts));
        running.min_by_key(|entry| (!entry.admits, &entry.uid)).cloned()
    }

    /// Sets a rotation, or removes one that has ended.
    pub fn set_rotation(&self, uid: String, entry: Option<RotationEntry>) {
        put(&self.rotations, uid, entry.map(Arc::new));
        self.work.notify_one();
    }

    /// The adapter of this broker's doors, while it is ready.
    pub fn door(&self, id: &BrokerId) -> Option<Arc<dyn Door>> {
        read(&self.doors, id)
    }

    /// Whether this broker's doors say what they have loaded: only there old certificates are revoked.
    pub fn reports_loading(&self, id: &BrokerId) -> bool {
        self.door(id).is_some_and(|door| door.abilities().reports_loading)
    }

    /// Sets or removes an adapter.
    pub fn set_door(&self, id: BrokerId, door: Option<Arc<dyn Door>>) {
        put(&self.doors, id, door);
    }

    /// The connection to this broker.
    pub fn link(&self, id: &BrokerId) -> Link {
        read(&self.links, id).unwrap_or_default()
    }

    /// Reports the connection to a broker.
    pub fn set_link(&self, id: BrokerId, link: Link) {
        if self.link(&id) != link {
            put(&self.links, id, Some(link));
            self.links_changed.notify_waiters();
        }
    }

    /// The connection to this broker's claims' listener.
    pub fn claims_link(&self, id: &BrokerId) -> Link {
        read(&self.claims_links, id).unwrap_or_default()
    }

    /// Reports the connection to a broker's claims' listener.
    pub fn set_claims_link(&self, id: BrokerId, link: Link) {
        if self.claims_link(&id) != link {
            put(&self.claims_links, id, Some(link));
            self.links_changed.notify_waiters();
        }
    }

    /// How the broker's door stands; `None` where it has no adapter, or was not looked at yet.
    pub fn door_view(&self, id: &BrokerId) -> Option<Arc<DoorView>> {
        read(&self.door_views, id)
    }

    /// Reports how a broker's door stands.
    pub fn set_door_view(&self, id: BrokerId, view: Option<DoorView>) {
        let (before, fault) = (self.door_view(&id), view.as_ref().map(|view| view.fault.clone()));
        put(&self.door_views, id, view.map(Arc::new));
        // What nodes have loaded changes all the time and is shown when there is something else to show.
        if before.as_ref().map(|view| &view.fault) != fault.as_ref() {
            self.links_changed.notify_waiters();
        }
    }

    /// Resolves at the next change of a connection, or of how a door stands.
    pub fn links_changed(&self) -> tokio::sync::futures::Notified<'_> {
        self.links_changed.notified()
    }

    /// The ledger failed at this time: what devices said then was not taken in.
    pub fn ledger_out(&self, at: Millis) {
        self.ledger_out.store(at, Ordering::Relaxed);
    }

    /// When the ledger last failed, Unix milliseconds, if it has since this process began.
    pub fn ledger_was_out(&self) -> Option<Millis> {
        Some(self.ledger_out.load(Ordering::Relaxed)).filter(|at| *at != 0)
    }

    /// From now on jobs may start: fleets and Rotations, whose limits hold over a restart, have been looked at once.
    pub fn open(&self) {
        self.open.store(true, Ordering::Release);
        self.work.notify_one();
    }

    /// Whether jobs may start.
    pub fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }

    /// Tells the scheduler that there may be something to start.
    pub fn nudge(&self) {
        self.work.notify_one();
    }

    /// Asks for running rotations to be judged at once.
    pub fn rejudge(&self) {
        self.judge.notify_one();
    }

    /// Resolves when running rotations should be judged.
    pub async fn judging(&self) {
        self.judge.notified().await;
    }

    /// Certificates were revoked, put on hold or released: CRLs, OCSP answers and doors have to follow at once.
    pub fn standing_moved(&self) {
        self.standing.send_modify(|n| *n = n.wrapping_add(1));
    }

    /// Changes with each [`standing_moved`](Self::standing_moved).
    pub fn standing(&self) -> watch::Receiver<u64> {
        self.standing.subscribe()
    }

    /// Resolves when there may be something to start.
    pub async fn work(&self) {
        self.work.notified().await;
    }
}

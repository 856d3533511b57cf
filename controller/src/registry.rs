//! What the reconcilers have resolved and the engine works by: brokers, fleets and rotations as ready-to-use values.
//!
//! Reconcilers put entries in and take them out; the engine only reads. An entry is replaced as a whole, so a reader
//! that holds one keeps a consistent view.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use certwave_core::model::ObjectRef;
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
use tokio::sync::Notify;

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
    /// Changes when anything above changes that needs a new connection.
    pub version: String,
}

/// A CA that issues for a fleet, with what devices need to know of it.
#[derive(Clone)]
pub struct IssuerEntry {
    /// The CA.
    pub ca: Arc<CertificateAuthority>,
    /// Its `CertificateAuthority` object.
    pub object: ObjectRef,
    /// How long its CRLs are valid, seconds.
    pub crl_validity: i64,
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
    links: RwLock<HashMap<BrokerId, Link>>,
    claims_links: RwLock<HashMap<BrokerId, Link>>,
    /// Set once what limits the work is known.
    open: AtomicBool,
    brokers_changed: Notify,
    links_changed: Notify,
    work: Notify,
    judge: Notify,
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

    /// Resolves at the next change of a connection.
    pub fn links_changed(&self) -> tokio::sync::futures::Notified<'_> {
        self.links_changed.notified()
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

    /// Resolves when there may be something to start.
    pub async fn work(&self) {
        self.work.notified().await;
    }
}

//! What the reconcilers share: clients, the ledger, and what each has resolved for the others.

use std::sync::Arc;

use certwave_core::model::ObjectRef;
use certwave_ledger::{FleetKey, Ledger, LedgerError, Part};
use certwave_protocol::ids::{BrokerId, Epoch};
use k8s_openapi::NamespaceResourceScope;
use kube::Resource;
use kube::api::Api;
use tokio::sync::watch;

use super::Context;
use super::authority::{AuthorityState, Export};
use super::broker::BrokerState;
use super::counting::Counting;
use super::directory::Directory;
use super::error::{Error, Result};
use super::status::Verdict;
use crate::door::Abilities;
use crate::metrics::Metrics;
use crate::notice::Skewed;
use crate::ocsp::Signers;
use crate::publish::{Monitor, Publisher};
use crate::registry::{IssuerEntry, Registry};

/// See the module.
pub(super) struct Shared {
    pub(super) client: kube::Client,
    pub(super) ledger: Arc<dyn Ledger>,
    /// The part of the work that this is for.
    pub(super) part: Part,
    pub(super) epoch: Epoch,
    pub(super) registry: Arc<Registry>,
    pub(super) skewed: Arc<Skewed>,
    pub(super) publication_base: Option<String>,
    /// Only this namespace, if any.
    pub(super) scope: Option<String>,
    /// Every Broker, whoever holds it.
    pub(super) known_brokers: Directory<KnownBroker>,
    /// Every Fleet's broker, as far as its Broker exists.
    pub(super) homes: Directory<Option<BrokerId>>,
    /// CAs.
    pub(super) authorities: Directory<AuthorityState>,
    /// Brokers.
    pub(super) brokers: Directory<BrokerState>,
    /// Fleets, with the broker that their devices are known to.
    pub(super) fleets: Directory<FleetHome>,
    /// Rotations that run.
    pub(super) rotations: Directory<Run>,
    /// `Revocation`s, with their uids.
    pub(super) revocations: Directory<String>,
    pub(super) ocsp: Arc<Signers>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) publisher: Arc<Publisher>,
    pub(super) monitor: Arc<Monitor>,
    /// What a restored ledger still misses, for people; `None`: nothing.
    recovery: watch::Sender<Option<String>>,
    /// Whether the CRLs of CAs fit the objects that they are written into.
    exports: Directory<Export>,
    pub(super) counting: Counting,
    fatal: watch::Sender<Option<LedgerError>>,
    /// How often a CA's own certificate was revoked.
    marked_authorities: watch::Sender<u64>,
}

/// What is known of every Broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KnownBroker {
    pub(super) id: BrokerId,
    /// What its adapter can do.
    pub(super) abilities: Abilities,
    /// Whether it may go by CRLs.
    pub(super) reads_crls: bool,
}

/// Where a fleet's devices are known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FleetHome {
    /// The broker, if the fleet has one that admits it.
    pub(super) broker: Option<BrokerId>,
    /// Whether deleting a device's object revokes its certificates.
    pub(super) revokes_deleted: bool,
}

/// A Rotation that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Run {
    /// Its fleet.
    pub(super) fleet: FleetKey,
    /// The anchor of the CA that it moves the fleet to, DER: devices must trust it before they get a certificate of that CA.
    pub(super) anchor: Option<Vec<u8>>,
    /// Whether its devices will have their turn in time.
    pub(super) in_time: Option<Verdict>,
}

/// The objects of a kind in one namespace, or in all.
pub(super) fn scoped<K>(client: &kube::Client, namespace: Option<&str>) -> Api<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

impl Shared {
    pub(super) fn new(context: &Context) -> Self {
        Self {
            client: context.client.clone(),
            ledger: Arc::clone(&context.ledger),
            part: context.part.clone(),
            epoch: context.epoch,
            registry: Arc::clone(&context.registry),
            skewed: Arc::clone(&context.skewed),
            publication_base: context.publication_base.clone(),
            scope: context.namespace.clone(),
            known_brokers: Directory::default(),
            homes: Directory::default(),
            authorities: Directory::default(),
            brokers: Directory::default(),
            fleets: Directory::default(),
            rotations: Directory::default(),
            revocations: Directory::default(),
            ocsp: Arc::clone(&context.ocsp),
            metrics: Arc::clone(&context.metrics),
            publisher: Arc::clone(&context.publisher),
            monitor: Arc::clone(&context.monitor),
            recovery: watch::Sender::new(None),
            exports: Directory::default(),
            counting: Counting::default(),
            fatal: watch::Sender::new(None),
            marked_authorities: watch::Sender::new(0),
        }
    }

    /// Whether this is the controller's part, which does what is of all.
    pub(super) fn leads(&self) -> bool {
        self.part == Part::Controller
    }

    /// The broker whose part this is.
    pub(super) const fn broker(&self) -> Option<&BrokerId> {
        match &self.part {
            Part::Broker(id) => Some(id),
            Part::Controller => None,
        }
    }

    /// Whether what has this home is this part's: what belongs to no broker is the controller's.
    pub(super) fn is_home(&self, home: Option<&BrokerId>) -> bool {
        self.broker() == home
    }

    /// The broker that a fleet's devices belong to, as far as Fleet and Broker are known.
    pub(super) fn home_of(&self, fleet: &FleetKey) -> Option<BrokerId> {
        let object = ObjectRef {
            namespace: fleet.namespace.clone(),
            name: fleet.name.clone(),
        };
        self.homes.get(&object).and_then(|home| (*home).clone())
    }

    /// What the adapter of a broker can do, whoever holds it.
    pub(super) fn abilities(&self, broker: &BrokerId) -> Option<Abilities> {
        let all = self.known_brokers.all();
        all.into_iter()
            .find(|(_, known)| known.id == *broker)
            .map(|(_, known)| known.abilities)
    }

    /// Sees to a CRL of this partition, and of everything that the CA has issued.
    pub(super) async fn ensure_crl(&self, issuer: &IssuerEntry, partition: &str) -> Result<()> {
        Ok(self.publisher.ensure(issuer, partition).await?)
    }

    /// How it stands with the object that a CA's CRLs are written into.
    pub(super) fn export(&self, authority: &ObjectRef) -> Option<Export> {
        self.exports.get(authority).map(|export| (*export).clone())
    }

    /// Says how.
    pub(super) fn set_export(&self, authority: &ObjectRef, export: Export) {
        self.exports.set(authority, Some(export));
    }

    /// Changes with [`export`](Self::export).
    pub(super) fn export_changes(&self) -> impl futures::Stream<Item = ()> + Send + 'static {
        self.exports.changes()
    }

    /// Whether the ledger was restored from a backup and does not know yet what came since.
    pub(super) fn is_restored(&self) -> bool {
        self.recovery.borrow().is_some()
    }

    /// What the restored ledger still misses.
    pub(super) fn recovery(&self) -> Option<String> {
        self.recovery.borrow().clone()
    }

    /// Says what the restored ledger still misses; `None`: nothing any more.
    pub(super) fn set_recovery(&self, missing: Option<String>) {
        self.recovery.send_if_modified(|before| {
            let changed = *before != missing;
            *before = missing;
            self.metrics.ledger_restoring.set(before.is_some().into());
            changed
        });
    }

    /// Waits until the ledger knows all that was issued and revoked: nothing that is declared is marked before, or it would get
    /// another time and reason than what was published says.
    pub(super) async fn whole(&self) {
        // The sender lives as long as this.
        let _ = self.recovery_changes().wait_for(Option::is_none).await;
    }

    /// Changes with [`recovery`](Self::recovery).
    pub(super) fn recovery_changes(&self) -> watch::Receiver<Option<String>> {
        self.recovery.subscribe()
    }

    /// The Rotation that runs over this fleet.
    pub(super) fn rotation_of(&self, fleet: &FleetKey) -> Option<String> {
        let running = self.rotations.all().into_iter().filter(|(_, run)| run.fleet == *fleet);
        running.map(|(object, _)| object.name).min()
    }

    /// Whether the devices of the Rotation that runs over this fleet will have their turn in time.
    pub(super) fn in_time(&self, fleet: &FleetKey) -> Option<Verdict> {
        let mut running = self.rotations.all().into_iter().filter(|(_, run)| run.fleet == *fleet);
        running.find_map(|(_, run)| run.in_time.clone())
    }

    /// Anchors of the CAs that Rotations move this fleet to.
    pub(super) fn moving_anchors(&self, fleet: &FleetKey) -> Vec<Vec<u8>> {
        let running = self.rotations.all().into_iter().filter(|(_, run)| run.fleet == *fleet);
        running.filter_map(|(_, run)| run.anchor.clone()).collect()
    }

    /// The objects of a kind that this controller looks after.
    pub(super) fn api_all<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        scoped(&self.client, self.scope.as_deref())
    }

    /// The objects of a kind in one namespace.
    pub(super) fn api<K>(&self, namespace: &str) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// A CA's own certificate was revoked: CAs are looked at again.
    pub(super) fn authority_marked(&self) {
        self.marked_authorities.send_modify(|n| *n = n.wrapping_add(1));
    }

    /// Changes with each [`authority_marked`](Self::authority_marked).
    pub(super) fn marked_authorities(&self) -> watch::Receiver<u64> {
        self.marked_authorities.subscribe()
    }

    /// Notes for CRLs that somebody goes by those of a CA, or may.
    pub(super) fn note_crl_use(&self, user: &str, namespace: &str, authority: &str, reads_crls: bool) {
        let authority = ObjectRef {
            namespace: namespace.to_owned(),
            name: authority.to_owned(),
        };
        let state = self.authorities.get(&authority);
        let key_id = match state.as_deref() {
            Some(AuthorityState::Ready(ready)) => Some(ready.entry.ca.key_id().to_string()),
            _ => None,
        };
        self.registry
            .set_crl_use(user, key_id.map(|key_id| (key_id, reads_crls)));
    }

    /// Takes note of an error; one that ends leadership ends [`super::run`].
    pub(super) fn failed(&self, kind: &'static str, error: &Error) {
        self.metrics
            .reconcile_errors
            .with_label_values(&[kind, error.category()])
            .inc();
        if let Error::Ledger(cause @ LedgerError::StaleEpoch { .. }) = error {
            self.fatal.send_replace(Some(cause.clone()));
        } else if matches!(error, Error::Ledger(cause) if cause.is_outage()) {
            self.registry.ledger_out(super::time::now_ms());
        }
    }

    /// Resolves when this part must be let go.
    pub(super) async fn fatal(&self) -> Error {
        let mut receiver = self.fatal.subscribe();
        loop {
            if let Some(error) = receiver.borrow_and_update().clone() {
                return Error::Ledger(error);
            }
            if receiver.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

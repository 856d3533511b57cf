//! What the reconcilers share: clients, the ledger, and what each has resolved for the others.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use certwave_core::model::ObjectRef;
use certwave_ledger::{FleetCounts, FleetKey, Ledger, LedgerError};
use certwave_protocol::ids::{BrokerId, Epoch};
use k8s_openapi::NamespaceResourceScope;
use kube::Resource;
use kube::api::Api;
use tokio::sync::watch;

use super::Context;
use super::authority::AuthorityState;
use super::broker::BrokerState;
use super::directory::Directory;
use super::error::{Error, Result};
use super::status::Verdict;
use super::time::now_ms;
use crate::crl::ensure_crl;
use crate::metrics::Metrics;
use crate::notice::Skewed;
use crate::registry::{IssuerEntry, Registry};

/// Values of the metrics' label `state`.
const STATES: [&str; 8] = [
    "declared",
    "enrolling",
    "active",
    "rotating",
    "failed",
    "expired",
    "offline",
    "online",
];

/// See the module.
pub(super) struct Shared {
    pub(super) client: kube::Client,
    pub(super) ledger: Arc<dyn Ledger>,
    pub(super) epoch: Epoch,
    pub(super) registry: Arc<Registry>,
    pub(super) skewed: Arc<Skewed>,
    pub(super) publication_base: Option<String>,
    /// Only this namespace, if any.
    pub(super) scope: Option<String>,
    /// CAs.
    pub(super) authorities: Directory<AuthorityState>,
    /// Brokers.
    pub(super) brokers: Directory<BrokerState>,
    /// Fleets, with the broker that their devices are known to.
    pub(super) fleets: Directory<FleetHome>,
    /// Rotations that run.
    pub(super) rotations: Directory<Run>,
    pub(super) metrics: Arc<Metrics>,
    dirty: Mutex<HashSet<FleetKey>>,
    fatal: watch::Sender<Option<LedgerError>>,
}

/// Where a fleet's devices are known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FleetHome {
    /// The broker, if the fleet has one that admits it.
    pub(super) broker: Option<BrokerId>,
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

impl Shared {
    pub(super) fn new(context: &Context) -> Self {
        Self {
            client: context.client.clone(),
            ledger: Arc::clone(&context.ledger),
            epoch: context.epoch,
            registry: Arc::clone(&context.registry),
            skewed: Arc::clone(&context.skewed),
            publication_base: context.publication_base.clone(),
            scope: context.namespace.clone(),
            authorities: Directory::default(),
            brokers: Directory::default(),
            fleets: Directory::default(),
            rotations: Directory::default(),
            metrics: Arc::clone(&context.metrics),
            dirty: Mutex::default(),
            fatal: watch::Sender::new(None),
        }
    }

    /// Sees to a CRL of this partition, and counts it if it is new.
    pub(super) async fn ensure_crl(&self, issuer: &IssuerEntry, partition: &str) -> Result<()> {
        if ensure_crl(&*self.ledger, self.epoch, issuer, partition, now_ms()).await? {
            self.published_crl();
        }
        Ok(())
    }

    /// Counts a CRL.
    pub(super) fn published_crl(&self) {
        self.metrics.crls_published.inc();
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

    /// A fleet is gone, and its metrics with it.
    pub(super) fn hide_counts(&self, fleet: &FleetKey) {
        for state in STATES {
            let labels = [fleet.namespace.as_str(), fleet.name.as_str(), state];
            // Not there is as good.
            let _ = self.metrics.devices.remove_label_values(&labels);
        }
    }

    /// Shows when a CA's certificate ends, Unix seconds; `None`: it is gone.
    pub(super) fn show_authority_end(&self, object: &ObjectRef, not_after: Option<i64>) {
        let labels = [object.namespace.as_str(), object.name.as_str()];
        match not_after {
            Some(end) => self.metrics.authority_not_after.with_label_values(&labels).set(end),
            // Not there is as good.
            None => drop(self.metrics.authority_not_after.remove_label_values(&labels)),
        }
    }

    /// Shows a fleet's counts as metrics.
    pub(super) fn show_counts(&self, fleet: &FleetKey, counts: &FleetCounts) {
        let counted = [
            counts.declared,
            counts.enrolling,
            counts.active,
            counts.rotating,
            counts.failed,
            counts.expired,
            counts.offline,
            counts.online,
        ];
        for (state, count) in STATES.into_iter().zip(counted) {
            let labels = [fleet.namespace.as_str(), fleet.name.as_str(), state];
            self.metrics.devices.with_label_values(&labels).set(count.into());
        }
    }

    /// The objects of a kind that this controller looks after.
    pub(super) fn api_all<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        match &self.scope {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        }
    }

    /// The objects of a kind in one namespace.
    pub(super) fn api<K>(&self, namespace: &str) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// Something about the fleet's devices has changed: its counts are no longer what its status says.
    pub(super) fn mark(&self, fleet: FleetKey) {
        self.dirty.lock().unwrap_or_else(PoisonError::into_inner).insert(fleet);
    }

    /// The fleets marked since the last call.
    pub(super) fn take_marked(&self) -> Vec<ObjectRef> {
        let marked = std::mem::take(&mut *self.dirty.lock().unwrap_or_else(PoisonError::into_inner));
        marked
            .into_iter()
            .map(|key| ObjectRef {
                namespace: key.namespace,
                name: key.name,
            })
            .collect()
    }

    /// Takes note of an error; one that ends leadership ends [`super::run`].
    pub(super) fn failed(&self, kind: &'static str, error: &Error) {
        self.metrics
            .reconcile_errors
            .with_label_values(&[kind, error.category()])
            .inc();
        if let Error::Ledger(cause @ LedgerError::StaleEpoch { .. }) = error {
            self.fatal.send_replace(Some(cause.clone()));
        }
    }

    /// Resolves when this process must stop.
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

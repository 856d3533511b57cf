//! `Broker`: what the controller needs to connect to it and to sign what devices are told.

mod credential;
mod door;
mod issued;
mod resolve;
mod view;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use certwave_core::model::ObjectRef;
use certwave_crds::{Broker, BrokerSpec};
use certwave_pki::LeafUsage;
use certwave_protocol::ids::{BrokerId, Fingerprint};
use certwave_protocol::jws::SigningKey;
use certwave_protocol::message::Der;
use kube::Resource;
use kube::runtime::controller::Action;
use kube::runtime::reflector::Store;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use super::drive::{Reconciler, name};
use super::error::Result;
use super::shared::{KnownBroker, Shared};
use super::status::{Verdict, publish};
use super::time::now_s;
use crate::door::DoorSettings;
use crate::registry::BrokerEntry;
use credential::Credential;

const MANAGER: &str = "certwave-broker";
/// How soon a broker that waits for something is looked at again: Secrets are not watched.
const WAITING: Duration = Duration::from_secs(5);
/// How often a ready one is: certificates come near their end, Secrets of a person's own change.
const READY: Duration = Duration::from_mins(1);

/// What others see of a broker.
#[derive(Debug, PartialEq)]
pub(super) enum BrokerState {
    /// It can be used.
    Ready(Usable),
    /// It cannot, and why.
    NotReady(Verdict),
}

/// A broker that fleets can use.
#[derive(Debug, PartialEq)]
pub(super) struct Usable {
    pub(super) id: BrokerId,
    pub(super) allowed: certwave_crds::AllowedNamespaces,
    /// What devices must trust: those of the server certificate and those of the control certificate.
    pub(super) anchors: Vec<CertificateDer<'static>>,
    /// Changes with the connection's parameters.
    version: String,
}

/// The reconciler of `Broker`.
pub(super) struct Brokers {
    pub(super) shared: Arc<Shared>,
    /// All brokers: an id belongs to one of them.
    pub(super) store: Store<Broker>,
}

/// Everything a broker needs, resolved.
struct Resolved {
    id: BrokerId,
    host: String,
    port: u16,
    /// The claims' listener, where it is another one.
    claims: Option<(String, u16)>,
    nodes: usize,
    door: DoorSettings,
    trust: Vec<CertificateDer<'static>>,
    client: Credential,
    control: Credential,
    server: Option<Credential>,
}

impl Reconciler for Brokers {
    type Object = Broker;
    const KIND: &'static str = "Broker";

    async fn reconcile(&self, object: Arc<Broker>) -> Result<Action> {
        let shared = &*self.shared;
        let own = name(&*object);
        let resolved = match holder(&self.store, &object) {
            Some(other) => Err(Verdict::no(
                "DuplicateId",
                format!(
                    "the id {} belongs to the Broker {}/{}, which is older",
                    object.spec.id, other.namespace, other.name
                ),
            )),
            None => resolve::resolve(shared, &object, now_s()).await?,
        };
        let state = match &resolved {
            Ok(resolved) => BrokerState::Ready(usable(&object.spec, resolved)),
            Err(verdict) => BrokerState::NotReady(verdict.clone()),
        };
        let seen = object.spec.id.parse().map(|id| view::Seen::of(&shared.registry, &id));
        let seen = seen.unwrap_or_default();
        let status = view::status(&object, &state, resolved.as_ref().ok(), &seen, now_s());
        if let Ok(resolved) = resolved {
            self.show_certificates(&own, &resolved);
            self.connect(&own, resolved);
        } else if let Some(BrokerState::Ready(before)) = shared.brokers.get(&own).as_deref() {
            shared.registry.set_broker(before.id.clone(), None);
        }
        let wait = if matches!(state, BrokerState::Ready(_)) {
            READY
        } else {
            WAITING
        };
        shared.brokers.set(&own, Some(state));
        publish(
            &shared.api(&own.namespace),
            &*object,
            MANAGER,
            object.status.as_ref(),
            &status,
        )
        .await?;
        Ok(Action::requeue(wait))
    }

    async fn forget(&self, object: &ObjectRef) -> Result<()> {
        if let Some(BrokerState::Ready(before)) = self.shared.brokers.get(object).as_deref() {
            self.shared.registry.set_broker(before.id.clone(), None);
        }
        self.shared.brokers.set(object, None);
        self.shared.known_brokers.set(object, None);
        self.shared.metrics.brokers.forget(object);
        Ok(())
    }

    fn knows(&self, object: &ObjectRef) -> bool {
        self.shared.brokers.get(object).is_some()
    }

    fn is_mine(&self, object: &Broker) -> bool {
        // The API server lets no other id in.
        let Ok(id) = object.spec.id.parse::<BrokerId>() else {
            return self.shared.leads();
        };
        let mine = self.shared.is_home(Some(&id));
        let (abilities, reads_crls) = door::declared(object);
        let known = KnownBroker {
            id,
            abilities,
            reads_crls,
        };
        self.shared.known_brokers.set(&name(object), Some(known));
        mine
    }
}

impl Brokers {
    fn show_certificates(&self, object: &ObjectRef, resolved: &Resolved) {
        let all = [
            ("client", Some(&resolved.client)),
            ("control", Some(&resolved.control)),
            ("server", resolved.server.as_ref()),
        ];
        for (purpose, credential) in all {
            if let Some(info) = credential.map(|credential| &credential.info) {
                let metrics = &self.shared.metrics.brokers;
                metrics.show_certificate(object, purpose, (info.not_before, info.not_after));
            }
        }
    }

    /// Hands the broker to the engine, unless it has it like this already: a new entry may mean a new connection.
    fn connect(&self, object: &ObjectRef, resolved: Resolved) {
        let version = version(&resolved);
        let registry = &self.shared.registry;
        if registry
            .broker(&resolved.id)
            .is_some_and(|entry| entry.version == version)
        {
            return;
        }
        let Some(prefix) = self
            .store
            .get(&kube::runtime::reflector::ObjectRef::new(&object.name).within(&object.namespace))
        else {
            return;
        };
        let Ok(control_key) = SigningKey::from_pkcs8(&resolved.control.key) else {
            tracing::error!(broker = %resolved.id, "the control key cannot sign messages");
            return;
        };
        registry.set_broker(
            resolved.id.clone(),
            Some(BrokerEntry {
                id: resolved.id,
                object: object.clone(),
                host: resolved.host,
                port: resolved.port,
                claims: resolved.claims,
                prefix: prefix.spec.topic_prefix.clone(),
                anchors: resolved.trust,
                client_chain: resolved.client.chain,
                client_key: PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(resolved.client.key.to_vec())),
                control_key,
                control_chain: resolved.control.chain.iter().map(|der| Der(der.to_vec())).collect(),
                nodes: resolved.nodes,
                door: resolved.door,
                version,
            }),
        );
    }
}

/// The older broker that holds this id, if another one does.
fn holder(store: &Store<Broker>, object: &Broker) -> Option<ObjectRef> {
    let age = |broker: &Broker| (broker.meta().creation_timestamp.clone(), name(broker));
    let same = store
        .state()
        .into_iter()
        .filter(|other| other.spec.id == object.spec.id);
    let oldest = same.min_by_key(|other| age(other))?;
    (age(&oldest) < age(object)).then(|| name(&*oldest))
}

fn usable(spec: &BrokerSpec, resolved: &Resolved) -> Usable {
    let anchors: BTreeSet<&[u8]> = resolved
        .trust
        .iter()
        .chain(&resolved.control.anchors)
        .map(AsRef::as_ref)
        .collect();
    Usable {
        id: resolved.id.clone(),
        allowed: spec.allowed_namespaces.clone(),
        anchors: anchors
            .into_iter()
            .map(|der| CertificateDer::from(der.to_vec()))
            .collect(),
        version: version(resolved),
    }
}

/// Changes when the connection, or what signs, changes.
fn version(resolved: &Resolved) -> String {
    let mut all = format!(
        "{}:{}\n{:?}\n{} {:?}\n",
        resolved.host, resolved.port, resolved.claims, resolved.nodes, resolved.door
    )
    .into_bytes();
    for der in resolved
        .trust
        .iter()
        .chain(&resolved.client.chain)
        .chain(&resolved.control.chain)
    {
        all.extend(Fingerprint::of(der).0);
    }
    Fingerprint::of(&all).to_string()
}

/// What a credential is for: who it names, and what its key may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Client,
    Control,
    Server,
}

impl Purpose {
    fn usage(self) -> LeafUsage {
        match self {
            Self::Client => LeafUsage::Controller,
            Self::Control => LeafUsage::Control,
            Self::Server => LeafUsage::Server,
        }
    }
}

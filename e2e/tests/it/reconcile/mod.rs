//! The reconcilers on a real API server, in this process, with the permissions of the chart. They look after every
//! namespace, so they have an API server of their own: other tests' objects are none of their business.

mod ca;
mod claims;
mod deletion;
mod device;
mod fleet;
mod issued;
mod replicas;
mod revocation;
mod revoke_many;
mod rotation;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use certwave_controller::metrics::Metrics;
use certwave_controller::ocsp::Signers;
use certwave_controller::publish::{Monitor, Publisher};
use certwave_controller::reconcile;
use certwave_controller::registry::Registry;
use certwave_crds::Broker;
use certwave_e2e::api::{ApiServer, client_for};
use certwave_e2e::lasting;
use certwave_e2e::scratch::Scratch;
use certwave_e2e::wait_for;
use certwave_ledger::{Ledger, Part, SqliteLedger};
use certwave_protocol::ids::{BrokerId, Epoch};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{Api, DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Client, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::{OnceCell, mpsc};
use tokio::task::{AbortHandle, JoinHandle, JoinSet};

/// For one step of the reconcilers on a busy machine.
const SOON: Duration = Duration::from_secs(30);

/// An API server with reconcilers on it, for all tests of this module.
struct World {
    api: ApiServer,
    running: Running,
}

/// The epoch of each broker's part (`None`: the controller's) that has begun.
type Epochs = Arc<Mutex<BTreeMap<Option<BrokerId>, Epoch>>>;

/// Namespaces whose tests run. What the others have left behind is looked after no more: each part costs watches.
static PLACES: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// Reconcilers that run in this process.
struct Running {
    ledger: Arc<dyn Ledger>,
    registry: Arc<Registry>,
    epochs: Epochs,
    task: JoinHandle<()>,
    scratch: Option<Scratch>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Running {
    /// Reconcilers with a ledger of their own, for one namespace or all.
    fn start(client: Client, namespace: Option<String>) -> Self {
        let scratch = Scratch::new("reconcile").unwrap();
        let ledger: Arc<dyn Ledger> = Arc::new(SqliteLedger::open(scratch.path().join("ledger.sqlite")).unwrap());
        Self::start_with(client, namespace, ledger, scratch)
    }

    fn start_with(client: Client, namespace: Option<String>, ledger: Arc<dyn Ledger>, scratch: Scratch) -> Self {
        let (registry, epochs) = (Arc::new(Registry::default()), Epochs::default());
        let feed = {
            let _here = lasting::runtime().enter();
            Arc::new(reconcile::Feed::new(&client, namespace.as_deref()))
        };
        let parts = AllParts {
            epochs: Arc::clone(&epochs),
            client,
            feed,
            namespace,
            ledger: Arc::clone(&ledger),
            registry: Arc::clone(&registry),
            metrics: Arc::new(Metrics::new().unwrap()),
        };
        let task = lasting::runtime().spawn(parts.run());
        Self {
            ledger,
            registry,
            epochs,
            task,
            scratch: Some(scratch),
        }
    }

    /// The epoch in which a broker (`None`: the controller) is looked after.
    fn epoch(&self, broker: Option<&BrokerId>) -> Epoch {
        self.epochs.lock().unwrap()[&broker.cloned()]
    }

    /// Ends it and hands out the ledger with its directory.
    async fn stop(mut self) -> (Arc<dyn Ledger>, Scratch) {
        self.task.abort();
        let _ = (&mut self.task).await;
        (Arc::clone(&self.ledger), self.scratch.take().unwrap())
    }
}

/// Every part of the work, of the controller and of each broker, in one process.
struct AllParts {
    client: Client,
    feed: Arc<reconcile::Feed>,
    namespace: Option<String>,
    ledger: Arc<dyn Ledger>,
    registry: Arc<Registry>,
    epochs: Epochs,
    metrics: Arc<Metrics>,
}

impl AllParts {
    async fn run(self) {
        let brokers: Api<Broker> = match &self.namespace {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        };
        let (mut begun, mut tasks) = (BTreeMap::new(), JoinSet::new());
        tasks.spawn(self.part(Part::Controller).await);
        loop {
            // An API server that does not answer is asked again.
            let found = brokers.list(&ListParams::default()).await.into_iter().flatten();
            let wanted: BTreeSet<_> = {
                let places = PLACES.lock().unwrap();
                let lives = |broker: &Broker| broker.namespace().is_some_and(|name| places.contains(&name));
                found.filter(lives).map(|broker| broker.spec.id).collect()
            };
            begun.retain(|id: &String, part: &mut AbortHandle| {
                let goes_on = wanted.contains(id);
                if !goes_on {
                    part.abort();
                }
                goes_on
            });
            for id in wanted {
                let part = Part::Broker(id.parse().unwrap());
                if let Entry::Vacant(new) = begun.entry(id) {
                    new.insert(tasks.spawn(self.part(part).await));
                }
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn part(&self, part: Part) -> impl Future<Output = ()> + Send + 'static {
        let epoch = self.ledger.begin_term(&part, "test", 1).await.unwrap();
        let broker = match &part {
            Part::Controller => None,
            Part::Broker(id) => Some(id.clone()),
        };
        self.epochs.lock().unwrap().insert(broker, epoch);
        let (_, notices) = mpsc::channel(1);
        let metrics = Arc::clone(&self.metrics);
        let publisher = Publisher::new(Arc::clone(&self.ledger), epoch, Arc::default(), Arc::clone(&metrics));
        let gates = certwave_controller::gates::Client::new().unwrap();
        let context = reconcile::Context {
            client: self.client.clone(),
            ledger: Arc::clone(&self.ledger),
            part,
            epoch,
            registry: Arc::clone(&self.registry),
            notices,
            feed: Arc::clone(&self.feed),
            skewed: Arc::default(),
            publication_base: Some("http://pki.example.com".to_owned()),
            namespace: self.namespace.clone(),
            ocsp: Arc::new(Signers::new(Arc::clone(&metrics.ocsp))),
            monitor: Monitor::new(Arc::clone(&publisher), gates.clone(), Arc::clone(&metrics)),
            metrics,
            publisher,
            status_delay: Duration::from_millis(100),
            gates,
        };
        async {
            if let Err(error) = reconcile::run(context).await {
                eprintln!("the reconcilers ended: {error}");
            }
        }
    }
}

async fn world() -> &'static World {
    static WORLD: OnceCell<World> = OnceCell::const_new();
    WORLD
        .get_or_init(|| async {
            let starting = lasting::runtime().spawn(async {
                let api = ApiServer::start().await.unwrap();
                api.apply_crds().unwrap();
                let home = api.namespace("certwave").await.unwrap();
                let own = client_for(&api.controller_kubeconfig(&home).await.unwrap())
                    .await
                    .unwrap();
                World {
                    running: Running::start(own, None),
                    api,
                }
            });
            starting.await.unwrap()
        })
        .await
}

/// A namespace of one test.
struct Place {
    world: &'static World,
    /// The tests' own client: its connections belong to the test's runtime.
    client: Client,
    namespace: String,
}

impl Drop for Place {
    fn drop(&mut self) {
        PLACES.lock().unwrap().remove(&self.namespace);
    }
}

impl Place {
    async fn new(prefix: &str) -> Self {
        let world = world().await;
        let namespace = world.api.namespace(prefix).await.unwrap();
        PLACES.lock().unwrap().insert(namespace.clone());
        Self {
            client: world.api.client().await.unwrap(),
            namespace,
            world,
        }
    }

    /// A namespace where nobody reconciles: on the API server of the other tests.
    async fn apart(prefix: &str) -> Self {
        let api = crate::shared::api().await;
        let namespace = api.namespace(prefix).await.unwrap();
        PLACES.lock().unwrap().insert(namespace.clone());
        Self {
            client: api.client().await.unwrap(),
            namespace,
            world: world().await,
        }
    }

    fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Creates or changes an object's spec, as a person would.
    async fn apply<K>(&self, name: &str, spec: Value)
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + DeserializeOwned + Clone + std::fmt::Debug,
    {
        let object = json!({
            "apiVersion": K::api_version(&()),
            "kind": K::kind(&()),
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": spec,
        });
        let api: Api<K> = self.api();
        api.patch(name, &PatchParams::apply("person").force(), &Patch::Apply(object))
            .await
            .unwrap();
    }

    async fn delete<K>(&self, name: &str)
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + DeserializeOwned + Clone + std::fmt::Debug,
    {
        self.api::<K>().delete(name, &DeleteParams::default()).await.unwrap();
    }

    /// Changes an annotation, so that the object is looked at again at once.
    async fn touch<K>(&self, name: &str)
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + DeserializeOwned + Clone + std::fmt::Debug,
    {
        let now = format!("{:?}", std::time::SystemTime::now());
        let patch = json!({"metadata": {"annotations": {"example.com/touched": now}}});
        self.api::<K>()
            .patch(name, &PatchParams::default(), &Patch::Merge(patch))
            .await
            .unwrap();
    }

    async fn secret(&self, name: &str, data: &[(&str, &str)]) {
        let data = data
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        let secret = Secret {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                ..ObjectMeta::default()
            },
            string_data: Some(data),
            ..Secret::default()
        };
        let secrets: Api<Secret> = self.api();
        let _ = secrets.delete(name, &DeleteParams::default()).await;
        secrets.create(&PostParams::default(), &secret).await.unwrap();
    }

    /// One key of a Secret, as text.
    async fn secret_text(&self, name: &str, key: &str) -> String {
        let secret = self.api::<Secret>().get(name).await.unwrap();
        String::from_utf8(secret.data.unwrap()[key].0.clone()).unwrap()
    }

    /// Waits until the condition Ready has this reason, and returns the object.
    async fn ready<K>(&self, name: &str, reason: &str) -> K
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + DeserializeOwned
            + Clone
            + std::fmt::Debug
            + Conditions,
    {
        let api: Api<K> = self.api();
        wait_for(&format!("{} {name}: {reason}", K::kind(&())), SOON, || async {
            let object = api.get(name).await?;
            let ready = object
                .conditions()
                .iter()
                .find(|c| c.type_ == "Ready")
                .context("no condition Ready")?
                .clone();
            if ready.reason != reason {
                bail!("{}: {}", ready.reason, ready.message);
            }
            if ready.observed_generation != object.meta().generation {
                bail!("of an older generation");
            }
            Ok(object)
        })
        .await
        .unwrap()
    }

    /// A root CA, a broker that it issues for, and a fleet, none of them connected to anything.
    async fn foundation(&self) {
        self.apply::<certwave_crds::CertificateAuthority>("root", json!({"root": {}}))
            .await;
        self.apply::<Broker>("mqtt", broker_spec(&self.namespace)).await;
        self.apply::<certwave_crds::Fleet>("pumps", fleet_spec()).await;
        self.ready::<certwave_crds::Fleet>("pumps", "BrokerNotConnected").await;
    }
}

/// A broker where nobody listens.
fn broker_spec(id: &str) -> Value {
    json!({
        "id": id, "url": "mqtts://127.0.0.1:1", "claimsUrl": "mqtts://127.0.0.1:2",
        "trust": {"issuerRef": {"name": "root"}}, "issuerRef": {"name": "root"},
    })
}

fn fleet_spec() -> Value {
    json!({"issuerRef": {"name": "root"}, "brokerRef": {"name": "mqtt"}})
}

fn device_spec(id: &str) -> Value {
    json!({"fleetRef": {"name": "pumps"}, "deviceId": id})
}

trait Conditions {
    fn conditions(&self) -> &[Condition];
}

macro_rules! conditions {
    ($($kind:ty),*) => {$(
        impl Conditions for $kind {
            fn conditions(&self) -> &[Condition] {
                self.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default()
            }
        }
    )*};
}
conditions!(
    certwave_crds::CertificateAuthority,
    certwave_crds::Broker,
    certwave_crds::Fleet,
    certwave_crds::DeviceCertificate,
    certwave_crds::Rotation,
    certwave_crds::Revocation
);

fn message<K: Conditions>(object: &K) -> &str {
    object
        .conditions()
        .iter()
        .find(|c| c.type_ == "Ready")
        .map_or("", |c| c.message.as_str())
}

fn now() -> i64 {
    i64::try_from(
        std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap()
            .as_secs(),
    )
    .unwrap()
}

/// Waits until `probe` holds.
async fn until(what: &str, mut probe: impl AsyncFnMut() -> Result<bool>) {
    let end = std::time::Instant::now() + SOON;
    while !probe().await.unwrap() {
        assert!(std::time::Instant::now() < end, "waited {SOON:?} for {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

//! The whole product on one machine: API server, broker, controller, simulated devices.

mod commands;
pub mod objects;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use certwave_crds::{Broker, DeviceCertificate, Fleet, Rotation};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Secret;
use kube::Client;
use kube::api::{Api, ListParams, PostParams};
use kube::config::Kubeconfig;
use secrecy::ExposeSecret as _;
use serde_json::Value;

use crate::api::ApiServer;
use crate::mosquitto::{Companion, Mosquitto};
use crate::process::Process;
use crate::proxy::Proxy;
use crate::scratch::Scratch;
use crate::wait::wait_for;
use crate::{conditions, http, ports, tools};

use commands::Clock;
pub use commands::{Fault, Simulation, by_clock};
pub use objects::FleetOptions;

/// The name of the broker's one node.
const NODE: &str = "node-1";
/// The name of the controller that has the address for metrics.
const CONTROLLER: &str = "certwave";
const CONTROLLER_READY: Duration = Duration::from_mins(1);
/// What a pod is given by default.
const CONTROLLER_GRACE: Duration = Duration::from_secs(30);
const SERVED: Duration = Duration::from_mins(1);
/// Devices declared at the same time; more would only wait in the API server.
const DECLARED_AT_ONCE: usize = 16;

/// A running stack. What it started ends with it.
pub struct Stack {
    // Fields drop in this order: devices, controller, broker, and the API server last.
    simulator: Option<Process>,
    controller: Option<Process>,
    clock: Option<Clock>,
    collector: Option<String>,
    log_filter: Option<&'static str>,
    /// What keeps the broker's CRLs, where [`Stack::check_crls`] asked for it.
    pub companion: Option<Companion>,
    /// The broker.
    pub broker: Mosquitto,
    namespace: String,
    controller_kubeconfig: PathBuf,
    /// What the controllers are told as `--ledger`.
    ledger: String,
    http: SocketAddr,
    history: SocketAddr,
    client: Client,
    scratch: Scratch,
    /// The API.
    pub api: Arc<ApiServer>,
}

impl Stack {
    /// An API server of its own, and on it what [`Stack::on`] says.
    ///
    /// # Errors
    /// When something is missing and cannot be had.
    pub async fn prepare(namespace_prefix: &str) -> Result<Self> {
        // To start an API server may take minutes of building; whoever has no broker is told before.
        tools::mosquitto()?;
        let api = ApiServer::start().await?;
        api.apply_crds()?;
        Self::on(Arc::new(api), namespace_prefix).await
    }

    /// On an API server that has the CRDs: a namespace, a controller's permissions in it, and a broker that waits for
    /// its certificate. Nothing of the product runs yet.
    ///
    /// # Errors
    /// When something is missing and cannot be had.
    pub async fn on(api: Arc<ApiServer>, namespace_prefix: &str) -> Result<Self> {
        let namespace = api.namespace(namespace_prefix).await?;
        let controller_kubeconfig = api.controller_kubeconfig(&namespace).await?;
        let scratch = Scratch::new("stack")?;
        Ok(Self {
            simulator: None,
            controller: None,
            clock: None,
            collector: None,
            log_filter: None,
            companion: None,
            broker: Mosquitto::prepare()?,
            namespace,
            controller_kubeconfig,
            http: (Ipv4Addr::LOCALHOST, ports::free()?).into(),
            history: (Ipv4Addr::LOCALHOST, ports::free()?).into(),
            client: api.client().await?,
            ledger: scratch.path().join("ledger.sqlite").display().to_string(),
            scratch,
            api,
        })
    }

    /// The namespace of all objects, and of the controller.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Where the controller serves HTTP.
    pub const fn http(&self) -> SocketAddr {
        self.http
    }

    /// Where the controller serves devices' histories.
    pub const fn history(&self) -> SocketAddr {
        self.history
    }

    /// An administrator's client.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// Where the stack keeps its files.
    pub fn directory(&self) -> &Path {
        self.scratch.path()
    }

    /// The file of a ledger in `SQLite`, for whoever looks at it while the controller does not run.
    pub fn ledger(&self) -> PathBuf {
        self.scratch.path().join("ledger.sqlite")
    }

    /// Leaves the files in place for somebody who wants to look, and says where they are.
    pub fn keep_files(&mut self) -> String {
        self.scratch.keep();
        self.scratch.path().display().to_string()
    }

    /// Puts a proxy between the API server and the controller that is started next.
    ///
    /// # Errors
    /// When the controller's kubeconfig is unusable.
    pub async fn put_proxy(&mut self) -> Result<Proxy> {
        let file = self.scratch.path().join("proxy.kubeconfig");
        let proxy = Proxy::start(&self.controller_kubeconfig, file).await?;
        proxy.kubeconfig().clone_into(&mut self.controller_kubeconfig);
        Ok(proxy)
    }

    /// Lets the controllers that are started next do what the chart lets them where they are for one namespace alone.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn confine(&mut self) -> Result<()> {
        self.controller_kubeconfig = self.api.confined_kubeconfig(&self.namespace).await?;
        Ok(())
    }

    /// The token by which the controllers speak to the API server.
    ///
    /// # Errors
    /// When their kubeconfig has none.
    pub fn token(&self) -> Result<String> {
        let config = Kubeconfig::read_from(&self.controller_kubeconfig)?;
        let mut users = config.auth_infos.into_iter().filter_map(|user| user.auth_info?.token);
        let token = users.next().context("the kubeconfig has no token")?;
        Ok(token.expose_secret().to_owned())
    }

    /// Has the controllers that are started next keep their ledger elsewhere than in the file `ledger.sqlite`: in the database
    /// at this URL.
    pub fn keep_ledger(&mut self, url: String) {
        self.ledger = url;
    }

    /// Has the broker check CRLs, with a companion beside it: what is revoked is refused, and its session closed. To be called before
    /// [`Stack::apply_foundation`].
    ///
    /// # Errors
    /// When there can be no companion.
    pub fn check_crls(&mut self) -> Result<()> {
        self.broker.check_crls(NODE);
        self.companion = Some(Companion::new(&self.broker, &format!("http://{}", self.http))?);
        Ok(())
    }

    /// Applies CA, Broker and Fleet.
    ///
    /// # Errors
    /// When the API server refuses one.
    pub fn apply_foundation(&self, fleet: &FleetOptions) -> Result<()> {
        let (device, claim) = (self.broker.device_address().port(), self.broker.claim_address().port());
        let publication = format!("http://{}", self.http);
        let crl_sync = self.companion.is_some();
        let objects = objects::foundation(&self.namespace, device, claim, &publication, crl_sync, fleet);
        self.api.apply(&objects::list(&objects))?;
        Ok(())
    }

    /// Has the controller that is started next send its traces to this base URL.
    pub fn trace_to(&mut self, collector: String) {
        self.collector = Some(collector);
    }

    /// Has what is started next log what this selects, as `RUST_LOG` has it.
    pub fn log(&mut self, filter: &'static str) {
        self.log_filter = Some(filter);
    }

    /// What is to be logged, where that was said.
    pub const fn log_filter(&self) -> Option<&'static str> {
        self.log_filter
    }

    /// Has the controller that is started next go by a clock that is off by so much, as faketime has it: `-1h`, `+1y`.
    pub fn set_clock(&mut self, off: Option<&str>) {
        self.clock = off.map(|off| Clock::Off(off.to_owned()));
    }

    /// Has the controllers that are started next go by a clock that is off by what this file says at each moment: the clock of one
    /// that runs jumps when the file changes.
    pub fn follow_clock(&mut self, file: PathBuf) {
        self.clock = Some(Clock::File(file));
    }

    /// Starts the controller and waits until it is ready.
    ///
    /// # Errors
    /// When it ends, or is not ready in time; with its log.
    pub async fn start_controller(&mut self) -> Result<()> {
        self.controller = Some(self.start_replica("certwave-0", self.http).await?);
        Ok(())
    }

    /// Starts the controller and does not wait for anything.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn_controller(&mut self) -> Result<()> {
        self.controller = Some(self.spawn_replica("certwave-0", self.http)?);
        Ok(())
    }

    /// Starts another controller on the same ledger, if that can be shared, and waits until it is ready; it waits for the Lease.
    ///
    /// # Errors
    /// When it ends, or is not ready in time; with its log.
    pub async fn start_replica(&self, pod: &str, http: SocketAddr) -> Result<Process> {
        let mut process = self.spawn_replica(pod, http)?;
        process.wait_ready(http, "/readyz", CONTROLLER_READY).await?;
        Ok(process)
    }

    fn spawn_replica(&self, pod: &str, http: SocketAddr) -> Result<Process> {
        let (kubeconfig, namespace) = (&self.controller_kubeconfig, &self.namespace);
        // One of several replicas has the address; the others do without.
        let mut command = commands::controller(kubeconfig, namespace, &self.ledger, http, self.history, pod)?;
        if let Some(collector) = &self.collector {
            command.env("OTEL_EXPORTER_OTLP_ENDPOINT", collector);
        }
        if let Some(filter) = self.log_filter {
            command.env("RUST_LOG", filter);
        }
        if let Some(clock) = &self.clock {
            clock.rule(&mut command)?;
        }
        let name = if http == self.http { CONTROLLER } else { pod };
        Process::spawn(name, &command, &self.log_of(name))
    }

    fn log_of(&self, name: &str) -> PathBuf {
        self.scratch.path().join(format!("{name}.log"))
    }

    /// Where the controller logs, that of [`start_controller`](Self::start_controller).
    pub fn controller_log(&self) -> PathBuf {
        self.log_of(CONTROLLER)
    }

    /// Ends the controller as Kubernetes would, if it runs.
    ///
    /// # Errors
    /// When it had to be killed.
    pub fn stop_controller(&mut self) -> Result<()> {
        match self.controller.take() {
            Some(mut process) => process.stop(CONTROLLER_GRACE).map(drop),
            None => Ok(()),
        }
    }

    /// The controller's process.
    ///
    /// # Errors
    /// When it was not started.
    pub fn controller(&mut self) -> Result<&mut Process> {
        self.controller.as_mut().context("the controller was not started")
    }

    /// The controller's metrics.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn controller_metrics(&self) -> Result<String> {
        Ok(http::get(self.http, "/metrics").await?.1)
    }

    /// Waits for the certificate that the controller makes for the broker, starts the broker with it and the generated
    /// configuration, and waits until Broker and Fleet are ready.
    ///
    /// # Errors
    /// When the controller does not get there in time; with what the objects' conditions say.
    pub async fn start_broker(&mut self) -> Result<()> {
        let secrets: Api<Secret> = self.objects();
        let secret = wait_for("the broker's server certificate", SERVED, || async {
            Ok(secrets.get(objects::SERVER_SECRET).await?)
        });
        let secret = secret.await.with_context(|| self.last_words())?;
        let pem = |key: &str| -> Result<String> {
            let bytes = secret.data.as_ref().and_then(|data| data.get(key));
            Ok(String::from_utf8(
                bytes.with_context(|| format!("the Secret has no {key}"))?.0.clone(),
            )?)
        };
        self.broker
            .set_certificates(&pem("ca.crt")?, &pem("tls.crt")?, &pem("tls.key")?)?;
        self.broker.configure(&self.objects().get(objects::BROKER).await?)?;
        if let Some(companion) = &self.companion {
            companion.once()?;
        }
        self.broker.start().await?;
        if let Some(companion) = &mut self.companion {
            companion.start()?;
        }
        let (brokers, fleets) = (self.objects::<Broker>(), self.objects::<Fleet>());
        let broker = async |condition| {
            let met = conditions::wait(&brokers, objects::BROKER, condition, SERVED, conditions::of_broker);
            met.await.with_context(|| self.last_words())
        };
        broker("Ready").await?;
        // Whoever asks the claims' listener before is not heard.
        broker("ClaimsConnected").await?;
        if self.companion.is_some() {
            broker("DoorCurrent").await?;
        }
        let ready = conditions::wait(&fleets, objects::FLEET, "Ready", SERVED, conditions::of_fleet);
        ready.await.with_context(|| self.last_words())
    }

    /// Makes a claim for `quota` devices, as a person would, and returns where its bundle is.
    ///
    /// # Errors
    /// When the command fails.
    pub fn create_claim(&self, quota: usize) -> Result<PathBuf> {
        let bundle = self.scratch.path().join("claim.json");
        tools::output(&mut commands::claim(
            self.api.kubeconfig(),
            &self.namespace,
            quota,
            &bundle,
        )?)?;
        Ok(bundle)
    }

    /// Creates a `DeviceCertificate` for each id.
    ///
    /// # Errors
    /// When the API server refuses one.
    pub async fn declare_devices(&self, ids: impl IntoIterator<Item = String>) -> Result<()> {
        self.declare(ids.into_iter().map(|id| objects::device(&self.namespace, &id)))
            .await
    }

    /// Creates these `DeviceCertificate`s.
    ///
    /// # Errors
    /// When the API server refuses one.
    pub async fn declare(&self, objects: impl IntoIterator<Item = Value>) -> Result<()> {
        let devices: Api<DeviceCertificate> = self.objects();
        let create = |object: Value| {
            let devices = devices.clone();
            async move {
                let name = object["metadata"]["name"].to_string();
                let object = serde_json::from_value(object).with_context(|| name.clone())?;
                devices.create(&PostParams::default(), &object).await.context(name)
            }
        };
        let created = futures::stream::iter(objects)
            .map(create)
            .buffer_unordered(DECLARED_AT_ONCE);
        created.try_for_each(|_| async { Ok(()) }).await
    }

    /// Starts the simulated devices.
    ///
    /// # Errors
    /// When the simulator cannot be started.
    pub fn start_devices(&mut self, simulation: &Simulation) -> Result<()> {
        let command = commands::simulate(simulation)?;
        self.simulator = Some(Process::spawn(
            "simulator",
            &command,
            &self.scratch.path().join("simulator.log"),
        )?);
        Ok(())
    }

    /// Cuts all simulated devices off, as a power cut would.
    pub fn stop_devices(&mut self) {
        self.simulator = None;
    }

    /// An error when the controller or the devices have ended.
    ///
    /// # Errors
    /// See above.
    pub fn check_running(&mut self) -> Result<()> {
        for process in [&mut self.controller, &mut self.simulator].into_iter().flatten() {
            process.check_running()?;
        }
        Ok(())
    }

    /// Asks for a rotation of the whole fleet.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub fn rotate(&self, name: &str) -> Result<()> {
        self.api.apply(&objects::rotation(&self.namespace, name).to_string())?;
        Ok(())
    }

    /// All devices of the namespace.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub async fn devices(&self) -> Result<Vec<DeviceCertificate>> {
        Ok(self
            .objects::<DeviceCertificate>()
            .list(&ListParams::default())
            .await?
            .items)
    }

    /// The Rotation called `name`.
    ///
    /// # Errors
    /// When there is none.
    pub async fn rotation(&self, name: &str) -> Result<Rotation> {
        Ok(self.objects::<Rotation>().get(name).await?)
    }

    /// All Secrets of the namespace.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub async fn secrets(&self) -> Result<Vec<Secret>> {
        let secrets: Api<Secret> = self.objects();
        Ok(secrets.list(&ListParams::default()).await?.items)
    }

    /// The objects of one kind in the stack's namespace.
    pub fn objects<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    fn last_words(&self) -> String {
        let log = self.controller.as_ref().map(Process::log_tail).unwrap_or_default();
        format!("the controller's log ends:\n{log}")
    }
}

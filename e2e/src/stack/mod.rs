//! The whole product on one machine: API server, broker, controller, simulated devices.

mod commands;
pub mod objects;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use certwave_crds::{Broker, DeviceCertificate, Fleet, Rotation};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{Api, ListParams, PostParams};
use kube::{Client, ResourceExt};
use serde_json::Value;

use crate::api::ApiServer;
use crate::mosquitto::Mosquitto;
use crate::process::Process;
use crate::proxy::Proxy;
use crate::scratch::Scratch;
use crate::wait::wait_for;
use crate::{http, ports, tools};

pub use commands::{Fault, Simulation};
pub use objects::FleetOptions;

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
    /// The broker.
    pub broker: Mosquitto,
    namespace: String,
    controller_kubeconfig: PathBuf,
    http: SocketAddr,
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
        Ok(Self {
            simulator: None,
            controller: None,
            broker: Mosquitto::prepare()?,
            namespace,
            controller_kubeconfig,
            http: (Ipv4Addr::LOCALHOST, ports::free()?).into(),
            client: api.client().await?,
            scratch: Scratch::new("stack")?,
            api,
        })
    }

    /// The namespace of all objects, and of the controller.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// An administrator's client.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// Where the stack keeps its files.
    pub fn directory(&self) -> &Path {
        self.scratch.path()
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

    /// Applies CA, Broker and Fleet.
    ///
    /// # Errors
    /// When the API server refuses one.
    pub fn apply_foundation(&self, fleet: &FleetOptions) -> Result<()> {
        let (device, claim) = (self.broker.device_address().port(), self.broker.claim_address().port());
        let publication = format!("http://{}", self.http);
        let objects = objects::foundation(&self.namespace, device, claim, &publication, fleet);
        self.api.apply(&objects::list(&objects))?;
        Ok(())
    }

    /// Starts the controller and waits until it is ready.
    ///
    /// # Errors
    /// When it ends, or is not ready in time; with its log.
    pub async fn start_controller(&mut self) -> Result<()> {
        let ledger = self.scratch.path().join("ledger.sqlite");
        let command = commands::controller(&self.controller_kubeconfig, &self.namespace, &ledger, self.http)?;
        let mut process = Process::spawn("certwave", &command, &self.scratch.path().join("certwave.log"))?;
        process.wait_ready(self.http, "/readyz", CONTROLLER_READY).await?;
        self.controller = Some(process);
        Ok(())
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
        let secret = secret.await.with_context(|| self.controller_log())?;
        let pem = |key: &str| -> Result<String> {
            let bytes = secret.data.as_ref().and_then(|data| data.get(key));
            Ok(String::from_utf8(
                bytes.with_context(|| format!("the Secret has no {key}"))?.0.clone(),
            )?)
        };
        self.broker
            .set_certificates(&pem("ca.crt")?, &pem("tls.crt")?, &pem("tls.key")?)?;
        self.broker.configure(&self.objects().get(objects::BROKER).await?)?;
        self.broker.start().await?;
        self.wait_condition::<Broker>(objects::BROKER, "Ready", |broker| {
            Some(&broker.status.as_ref()?.conditions)
        })
        .await?;
        // Whoever asks the claims' listener before is not heard.
        self.wait_condition::<Broker>(objects::BROKER, "ClaimsConnected", |broker| {
            Some(&broker.status.as_ref()?.conditions)
        })
        .await?;
        self.wait_condition::<Fleet>(objects::FLEET, "Ready", |fleet| {
            Some(&fleet.status.as_ref()?.conditions)
        })
        .await
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

    /// The objects of one kind in the stack's namespace.
    pub fn objects<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    async fn wait_condition<K>(
        &self,
        name: &str,
        condition: &str,
        conditions: impl Fn(&K) -> Option<&Vec<Condition>> + Copy,
    ) -> Result<()>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope> + Clone + std::fmt::Debug,
        K: serde::de::DeserializeOwned,
        K::DynamicType: Default,
    {
        let objects: Api<K> = self.objects();
        let what = format!("{condition} of {} {name}", K::kind(&K::DynamicType::default()));
        let met = wait_for(&what, SERVED, || async {
            let object = objects.get(name).await?;
            let all = conditions(&object).context("no status yet")?;
            let found = all.iter().find(|found| found.type_ == condition);
            let found = found.with_context(|| format!("{} has no such condition yet", object.name_any()))?;
            if found.status != "True" {
                bail!("{}: {}", found.reason, found.message);
            }
            Ok(())
        });
        met.await.with_context(|| self.controller_log())
    }

    fn controller_log(&self) -> String {
        let log = self.controller.as_ref().map(Process::log_tail).unwrap_or_default();
        format!("the controller's log ends:\n{log}")
    }
}

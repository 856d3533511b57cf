//! The cluster, and what is done on it.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use certwave_crds::{Broker, DeviceCertificate, Fleet};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::Client;
use kube::api::{Api, ListParams, ObjectMeta, PostParams};
use serde_json::Value;

use super::{NAMESPACE, objects, release};
use crate::api::ApiServer;
use crate::scratch::Scratch;
use crate::stack::objects::{BROKER, FLEET, list};
use crate::tools::{self, progress};
use crate::{chart, conditions, programs};

/// For the broker's pods: they wait for certificates and CRLs, and kubelet backs off meanwhile.
const READY: Duration = Duration::from_mins(5);
/// Devices declared at the same time.
const DECLARED_AT_ONCE: usize = 16;

/// A kind cluster with the namespace and the images.
pub(super) struct Cluster {
    /// Its API.
    pub(super) api: ApiServer,
    /// An administrator's client.
    pub(super) client: Client,
    /// Files.
    pub(super) scratch: Scratch,
}

impl Cluster {
    /// Creates it.
    ///
    /// # Errors
    /// When Docker or kind will not.
    pub(super) async fn start(images: &[String]) -> Result<Self> {
        let api = ApiServer::start_kind().await?;
        progress("loading the images");
        api.load_images(images)?;
        let cluster = Self {
            client: api.client().await?,
            api,
            scratch: Scratch::new("kind")?,
        };
        // What runs in it is held to restricted pod security.
        let enforce = ("pod-security.kubernetes.io/enforce".to_owned(), "restricted".to_owned());
        let metadata = ObjectMeta {
            name: Some(NAMESPACE.to_owned()),
            labels: Some(BTreeMap::from([enforce])),
            ..ObjectMeta::default()
        };
        let namespace = Namespace {
            metadata,
            ..Namespace::default()
        };
        let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
        namespaces.create(&PostParams::default(), &namespace).await?;
        Ok(cluster)
    }

    /// The objects of one kind.
    pub(super) fn objects<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }

    /// Applies objects.
    pub(super) fn apply(&self, objects: &[Value]) -> Result<()> {
        self.api.apply(&list(objects)).map(drop)
    }

    /// kubectl in the namespace.
    pub(super) fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.api
            .kubectl(["--namespace", NAMESPACE].into_iter().chain(arguments.iter().copied()))
    }

    /// `PostgreSQL`, in a pod.
    pub(super) fn start_database(&self) -> Result<()> {
        self.apply(&objects::database())?;
        self.kubectl(&["rollout", "status", "deployment/postgres", "--timeout=3m"])
            .with_context(|| release::state(&self.api))?;
        Ok(())
    }

    /// CA, Broker and Fleet, and waits until they are ready.
    pub(super) async fn found(&self) -> Result<()> {
        self.apply(&objects::foundation())?;
        self.ready().await
    }

    /// Waits until Mosquitto runs, Broker and Fleet are ready and the door is shut to what is revoked.
    pub(super) async fn ready(&self) -> Result<()> {
        let (brokers, fleets) = (self.objects::<Broker>(), self.objects::<Fleet>());
        let state = || release::state(&self.api);
        // The objects show what was true before an installation until somebody has looked.
        let mosquitto = format!("deployment/{}-mosquitto", chart::RELEASE);
        let timeout = format!("--timeout={}s", READY.as_secs());
        self.kubectl(&["rollout", "status", &mosquitto, &timeout])
            .with_context(state)?;
        for condition in ["Ready", "ClaimsConnected", "DoorCurrent"] {
            let met = conditions::wait(&brokers, BROKER, condition, READY, conditions::of_broker);
            met.await.with_context(state)?;
        }
        let ready = conditions::wait(&fleets, FLEET, "Ready", READY, conditions::of_fleet);
        ready.await.with_context(state)
    }

    /// Makes a claim, declares the devices and switches them on.
    pub(super) async fn start_devices(&self) -> Result<()> {
        let bundle = self.scratch.path().join("claim.json");
        let quota: usize = objects::GROUPS.iter().map(|group| group.devices).sum();
        let mut claim = Command::new(programs::in_image("certwave")?);
        claim.args(["claim", "create", "line-1", "--namespace", NAMESPACE, "--fleet", FLEET]);
        claim.args(["--quota", &quota.to_string(), "--valid-for", "6h", "--out"]);
        claim.arg(&bundle).arg("--kubeconfig").arg(self.api.kubeconfig());
        tools::output(&mut claim)?;
        let secret = Secret {
            metadata: ObjectMeta {
                name: Some(objects::CLAIM.to_owned()),
                ..ObjectMeta::default()
            },
            data: Some(BTreeMap::from([(
                "claim.json".to_owned(),
                ByteString(std::fs::read(&bundle)?),
            )])),
            ..Secret::default()
        };
        let secrets: Api<Secret> = self.objects();
        secrets.create(&PostParams::default(), &secret).await?;

        let devices: Api<DeviceCertificate> = self.objects();
        let create = |object: Value| {
            let devices = devices.clone();
            async move {
                let object = serde_json::from_value(object)?;
                devices.create(&PostParams::default(), &object).await?;
                anyhow::Ok(())
            }
        };
        futures::stream::iter(objects::devices())
            .map(create)
            .buffer_unordered(DECLARED_AT_ONCE)
            .try_collect::<()>()
            .await?;
        self.apply(&objects::pods())
    }

    /// All devices.
    pub(super) async fn devices(&self) -> Result<Vec<DeviceCertificate>> {
        Ok(self
            .objects::<DeviceCertificate>()
            .list(&ListParams::default())
            .await?
            .items)
    }

    /// What the simulator of a group said last: a number by this name.
    pub(super) fn simulator(&self, group: &objects::Group, number: &str) -> Result<u64> {
        let log = self.kubectl(&["logs", &format!("deployment/{}", group.deployment()), "--tail=20"])?;
        let last = log.lines().rev().find(|line| line.starts_with('{'));
        let Some(last) = last else {
            bail!("the devices of group {} say nothing: {log}", group.name);
        };
        let said: Value = serde_json::from_str(last)?;
        said[number].as_u64().with_context(|| format!("no {number} in {last}"))
    }
}

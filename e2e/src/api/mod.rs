//! A Kubernetes API for the tests.

mod access;
pub(crate) mod kind;
mod local;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use kube::client::Body;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use tower::BoxError;

use crate::lasting;
use crate::process::Process;
use crate::scratch::Scratch;
use crate::tools;
use kind::Kind;
use local::Local;

/// A running Kubernetes API with an administrator's kubeconfig.
///
/// Which one, in this order: the current kubeconfig's (`CERTWAVE_E2E_CLUSTER=current`); etcd and kube-apiserver from
/// `KUBEBUILDER_ASSETS`; kind, when Docker runs and a node image can be had (`KIND_NODE_IMAGE`, else kind's own); etcd
/// and kube-apiserver built from source. What it started ends with it, or with the process.
pub struct ApiServer {
    backend: Backend,
    kubeconfig: PathBuf,
    kubectl: PathBuf,
    scratch: Scratch,
}

enum Backend {
    Current,
    Local(Box<Local>),
    Kind(Kind),
}

impl ApiServer {
    /// Starts one, or finds the one asked for, and waits until it is ready.
    ///
    /// # Errors
    /// When none can be had; the message says what is missing.
    pub async fn start() -> Result<Self> {
        let scratch = Scratch::new("kube")?;
        let backend = Self::choose(&scratch).await?;
        Self::of(backend, scratch).await
    }

    /// One of the oldest Kubernetes that the chart takes; `None` where all is to happen on a cluster that is not ours.
    ///
    /// # Errors
    /// When it cannot be built or does not start.
    pub async fn start_oldest() -> Result<Option<Self>> {
        if std::env::var("CERTWAVE_E2E_CLUSTER").is_ok_and(|cluster| !cluster.is_empty()) {
            return Ok(None);
        }
        let scratch = Scratch::new("kube")?;
        let programs = tokio::task::spawn_blocking(tools::oldest).await??;
        let local = Local::start(&programs, &scratch).await?;
        Self::of(Backend::Local(Box::new(local)), scratch).await.map(Some)
    }

    /// A cluster that runs pods: kind's, with the node image that `KIND_NODE_IMAGE` names, else kind's own.
    ///
    /// # Errors
    /// When Docker does not run, kind is missing, or no node image can be had.
    pub async fn start_kind() -> Result<Self> {
        let scratch = Scratch::new("kind")?;
        let backend = Backend::Kind(Kind::start(&scratch)?);
        Self::of(backend, scratch).await
    }

    async fn of(backend: Backend, scratch: Scratch) -> Result<Self> {
        let kubeconfig = match &backend {
            Backend::Current => scratch.write("admin.kubeconfig", serde_json::to_vec(&Kubeconfig::read()?)?)?,
            Backend::Local(local) => local.kubeconfig().to_owned(),
            Backend::Kind(kind) => kind.kubeconfig().to_owned(),
        };
        let server = Self {
            backend,
            kubeconfig,
            kubectl: tools::kubectl()?,
            scratch,
        };
        server
            .client()
            .await?
            .apiserver_version()
            .await
            .context("the API server does not answer")?;
        Ok(server)
    }

    async fn choose(scratch: &Scratch) -> Result<Backend> {
        match std::env::var("CERTWAVE_E2E_CLUSTER").as_deref() {
            Ok("current") => return Ok(Backend::Current),
            Ok("") | Err(_) => {}
            Ok(other) => bail!("CERTWAVE_E2E_CLUSTER={other}: only `current` is known"),
        }
        let assets = std::env::var_os("KUBEBUILDER_ASSETS").is_some_and(|value| !value.is_empty());
        if !assets {
            match Kind::start(scratch) {
                Ok(kind) => return Ok(Backend::Kind(kind)),
                Err(error) => tools::progress(&format!("no kind cluster, going on without it: {error:#}")),
            }
        }
        // Building takes minutes and blocks: not on the runtime's thread.
        let programs = tokio::task::spawn_blocking(tools::kubernetes).await??;
        Ok(Backend::Local(Box::new(Local::start(&programs, scratch).await?)))
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// An administrator's client, with no limit on its rate.
    ///
    /// # Errors
    /// When the kubeconfig is unusable.
    pub async fn client(&self) -> Result<Client> {
        client_for(&self.kubeconfig).await
    }

    /// Runs kubectl as administrator and returns its output.
    ///
    /// # Errors
    /// When it fails; the message is what a person would have read.
    pub fn kubectl<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Result<String> {
        tools::output(self.kubectl_command().args(arguments))
    }

    /// A kubectl command as administrator, to add arguments to.
    pub fn kubectl_command(&self) -> Command {
        let mut command = Command::new(&self.kubectl);
        command.env("KUBECONFIG", &self.kubeconfig);
        command
    }

    /// Applies YAML with `kubectl apply --server-side`.
    ///
    /// # Errors
    /// When the API server refuses it; the message is what a person would have read.
    pub fn apply(&self, yaml: &str) -> Result<String> {
        let file = tempfile::NamedTempFile::with_suffix_in(".yaml", self.scratch.path())?;
        std::fs::write(file.path(), yaml)?;
        tools::output(
            self.kubectl_command()
                .args(["apply", "--server-side", "-f"])
                .arg(file.path()),
        )
    }

    /// Applies the project's CRDs (`crds/*.yaml`) and waits until the API server serves them.
    ///
    /// # Errors
    /// When there are none, or the API server refuses one.
    pub fn apply_crds(&self) -> Result<()> {
        let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../crds");
        tools::output(self.kubectl_command().args(["apply", "--server-side", "-f", directory]))?;
        let wait = ["wait", "--for=condition=Established", "--timeout=60s", "-f", directory];
        tools::output(self.kubectl_command().args(wait))?;
        Ok(())
    }

    /// Puts images of the local Docker into the cluster's node.
    ///
    /// # Errors
    /// When the cluster is not kind's.
    pub fn load_images(&self, images: &[String]) -> Result<()> {
        match &self.backend {
            Backend::Kind(kind) => kind.load(images),
            Backend::Current | Backend::Local(_) => bail!("only a kind cluster takes local images"),
        }
    }

    /// Stops the API server in its tracks: connections stay open, nobody answers.
    ///
    /// # Errors
    /// When the cluster is not ours to stop.
    pub fn pause(&self) -> Result<()> {
        match &self.backend {
            Backend::Current => bail!("the current cluster is not the tests' to stop"),
            Backend::Local(local) => local.api().pause(),
            Backend::Kind(kind) => kind.docker("pause"),
        }
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// When the cluster is not ours to stop.
    pub fn resume(&self) -> Result<()> {
        match &self.backend {
            Backend::Current => bail!("the current cluster is not the tests' to stop"),
            Backend::Local(local) => local.api().resume(),
            Backend::Kind(kind) => kind.docker("unpause"),
        }
    }

    /// Kills the API server and starts it again on the same port with the same data; watches break, and resume.
    ///
    /// # Errors
    /// When the cluster is not ours to stop, or does not come back.
    pub async fn restart(&mut self) -> Result<()> {
        match &mut self.backend {
            Backend::Current => bail!("the current cluster is not the tests' to stop"),
            Backend::Local(local) => local.restart().await,
            Backend::Kind(kind) => kind.docker("restart"),
        }
    }

    /// The API server's own metrics.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn metrics(&self) -> Result<String> {
        let request = http::Request::get("/metrics").body(Vec::new())?;
        Ok(self.client().await?.request_text(request).await?)
    }

    /// The metrics of the etcd behind it.
    ///
    /// # Errors
    /// When it is not one of ours, or does not answer.
    pub async fn etcd_metrics(&self) -> Result<String> {
        match &self.backend {
            Backend::Local(local) => Ok(crate::http::get(local.etcd(), "/metrics").await?.1),
            Backend::Current | Backend::Kind(_) => bail!("only an etcd of the tests' own tells what was put into it"),
        }
    }

    /// The API server's process, where it is one of ours.
    pub fn process(&self) -> Option<&Process> {
        match &self.backend {
            Backend::Local(local) => Some(local.api()),
            Backend::Current | Backend::Kind(_) => None,
        }
    }

    /// The programs' output, for an error message.
    pub fn log_tail(&self) -> String {
        self.process().map(Process::log_tail).unwrap_or_default()
    }
}

/// A client for a kubeconfig file, with no limit on its rate.
///
/// Its connections live on [`lasting::runtime`]: the tests share the pool, and a request must not find a connection whose
/// task ended with another test's runtime.
///
/// # Errors
/// When the file is unusable.
pub async fn client_for(kubeconfig: &Path) -> Result<Client> {
    let kubeconfig = Kubeconfig::read_from(kubeconfig)?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    let made = lasting::runtime().spawn(async move {
        let client = Client::try_from(config)?;
        let namespace = client.default_namespace().to_owned();
        let service = tower::service_fn(move |request: http::Request<Body>| {
            let client = client.clone();
            async move {
                let sent = lasting::runtime().spawn(async move { client.send(request).await });
                Ok::<_, BoxError>(sent.await??)
            }
        });
        anyhow::Ok(Client::new(service, namespace))
    });
    made.await?
}

//! A kind cluster, where Docker runs.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::janitor::Janitor;
use crate::scratch::Scratch;
use crate::tools::{self, progress};

/// A cluster of one node, named after this process.
pub(super) struct Kind {
    name: String,
    kubeconfig: PathBuf,
    _janitor: Janitor,
}

impl Kind {
    /// A new cluster.
    ///
    /// # Errors
    /// When Docker does not run, kind is missing, or no node image can be had.
    pub(super) fn start(scratch: &Scratch) -> Result<Self> {
        let kind = tools::find("kind").context("kind is missing: https://kind.sigs.k8s.io")?;
        tools::output(Command::new("docker").arg("info")).context("Docker does not run")?;
        let name = format!("certwave-e2e-{}", std::process::id());
        let kubeconfig = scratch.path().join("admin.kubeconfig");
        progress(&format!("creating the kind cluster {name}"));
        let cluster = Self {
            _janitor: delete_at_end(&name)?,
            name,
            kubeconfig,
        };
        let mut create = Command::new(kind);
        create.args([
            "create",
            "cluster",
            "--wait",
            "2m",
            "--name",
            &cluster.name,
            "--kubeconfig",
        ]);
        create.arg(&cluster.kubeconfig);
        if let Some(image) = std::env::var_os("KIND_NODE_IMAGE").filter(|image| !image.is_empty()) {
            create.arg("--image").arg(image);
        }
        tools::output(&mut create)?;
        Ok(cluster)
    }

    pub(super) fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Puts images of the local Docker into the cluster.
    pub(super) fn load(&self, images: &[String]) -> Result<()> {
        let kind = tools::find("kind").context("kind is missing")?;
        let mut load = Command::new(kind);
        load.args(["load", "docker-image", "--name", &self.name]);
        tools::output(load.args(images)).map(drop)
    }

    /// Runs `docker <verb>` on the node.
    pub(super) fn docker(&self, verb: &str) -> Result<()> {
        let node = format!("{}-control-plane", self.name);
        tools::output(Command::new("docker").args([verb, &node])).map(drop)
    }
}

/// Deletes the kind cluster of this name when the janitor goes.
///
/// # Errors
/// When kind is missing.
pub(crate) fn delete_at_end(name: &str) -> Result<Janitor> {
    let kind = tools::find("kind").context("kind is missing: https://kind.sigs.k8s.io")?;
    let arguments = [kind.as_os_str(), name.as_ref()];
    Janitor::start(r#"exec "$1" delete cluster --name "$2""#, arguments).context("run sh")
}

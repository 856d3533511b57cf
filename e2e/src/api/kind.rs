//! A kind cluster, where Docker runs.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};

use crate::scratch::Scratch;
use crate::tools::{self, progress};

/// A cluster of one node, named after this process.
pub(super) struct Kind {
    name: String,
    kubeconfig: PathBuf,
    janitor: Child,
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
        // First the one who deletes it: it waits for the end of a pipe that only this process holds, so the cluster
        // goes even when this process is killed.
        let script = r#"read -r _; exec "$1" delete cluster --name "$2""#;
        let mut janitor = Command::new("sh");
        janitor.args(["-c", script, "sh"]).arg(&kind).arg(&name);
        janitor
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        // In a process group of its own, for a Ctrl-C at the terminal must not reach it.
        std::os::unix::process::CommandExt::process_group(&mut janitor, 0);
        let janitor = janitor.spawn()?;
        let cluster = Self {
            name,
            kubeconfig,
            janitor,
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

impl Drop for Kind {
    fn drop(&mut self) {
        drop(self.janitor.stdin.take());
        let _ = self.janitor.wait();
    }
}

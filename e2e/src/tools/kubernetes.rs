//! etcd, the Kubernetes API server and kubectl, built from their Go modules where none are at hand.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use super::go_module::{built, go_build};
use super::{find, is_program, progress};

/// The directory of the modules that the programs are built from.
const MODULE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/kube");
/// The release that is built where no cluster is at hand; the same as in `kube/go.mod`.
const PRESENT: Release = Release {
    minor: 36,
    patch: 3,
    module: "",
    programs: &["kube-apiserver", "kubectl"],
};
/// Of the oldest minor version that the chart takes, the same as in `kube/oldest/go.mod`. Its API server alone.
const OLDEST: Release = Release {
    minor: 32,
    patch: 5,
    module: "oldest",
    programs: &["kube-apiserver"],
};
/// What is said where Go is missing.
const HINT: &str = "no Kubernetes API at hand: none of CERTWAVE_E2E_CLUSTER=current, KUBEBUILDER_ASSETS, kind on Docker; \
                    and to build an API server takes Go (https://go.dev/dl), which is missing";

/// Programs of one Kubernetes release.
struct Release {
    minor: u32,
    patch: u32,
    /// Below [`MODULE`].
    module: &'static str,
    programs: &'static [&'static str],
}

/// The directory of etcd, kube-apiserver and kubectl: what `KUBEBUILDER_ASSETS` names, else built from the Go modules
/// in `kube/` into the user's cache.
///
/// # Errors
/// When they cannot be built, most likely for want of Go.
pub fn kubernetes() -> Result<PathBuf> {
    if let Some(assets) = std::env::var_os("KUBEBUILDER_ASSETS").filter(|value| !value.is_empty()) {
        let assets = PathBuf::from(assets);
        for name in ["etcd", "kube-apiserver"] {
            if !is_program(&assets.join(name)) {
                bail!("KUBEBUILDER_ASSETS={} has no {name}", assets.display());
            }
        }
        return Ok(assets);
    }
    let files = ["go.mod", "go.sum", "etcd/go.mod", "etcd/go.sum"];
    built("kube", &sources(&files), HINT, |go, into| {
        progress(&format!(
            "building etcd and Kubernetes {PRESENT}, once, about 5 minutes on 2 cores"
        ));
        let etcd = Path::new(MODULE).join("etcd");
        go_build(go, &etcd, "etcd", "go.etcd.io/etcd/server/v3", "-s -w", into)?;
        PRESENT.build(go, into)
    })
}

/// The directory of etcd and of the API server of the oldest Kubernetes that the chart takes, the latter built from its Go module
/// into the user's cache.
///
/// # Errors
/// When it cannot be built, most likely for want of Go.
pub fn oldest() -> Result<PathBuf> {
    let present = kubernetes()?;
    let files = ["oldest/go.mod", "oldest/go.sum"];
    built("kube-oldest", &sources(&files), HINT, |go, into| {
        progress(&format!(
            "building the API server of Kubernetes {OLDEST}, once, about 5 minutes on 2 cores"
        ));
        OLDEST.build(go, into)?;
        Ok(symlink(present.join("etcd"), into.join("etcd"))?)
    })
}

/// kubectl: of the search path, else the one built with the API server.
///
/// # Errors
/// When it cannot be built.
pub fn kubectl() -> Result<PathBuf> {
    match find("kubectl") {
        Some(program) => Ok(program),
        None => Ok(kubernetes()?.join("kubectl")),
    }
}

impl std::fmt::Display for Release {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "v1.{}.{}", self.minor, self.patch)
    }
}

impl Release {
    fn build(&self, go: &Path, into: &Path) -> Result<()> {
        let mut flags = "-s -w".to_owned();
        for setting in [
            &format!("gitVersion={self}"),
            "gitMajor=1",
            &format!("gitMinor={}", self.minor),
            "gitTreeState=clean",
        ] {
            flags.push_str(" -X k8s.io/component-base/version.");
            flags.push_str(setting);
        }
        let module = Path::new(MODULE).join(self.module);
        for name in self.programs {
            go_build(
                go,
                &module,
                name,
                &format!("k8s.io/kubernetes/cmd/{name}"),
                &flags,
                into,
            )?;
        }
        Ok(())
    }
}

fn sources(files: &[&str]) -> Vec<PathBuf> {
    files.iter().map(|file| Path::new(MODULE).join(file)).collect()
}

//! The foreign programs that the tests use: found, installed or built, once, with progress on standard error.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// The Kubernetes release that is built where no cluster is at hand; the same as in `kube/go.mod`.
const KUBERNETES: &str = "v1.36.3";
const KUBE_MODULE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/kube");

/// Says what set-up is doing. It writes past the test runner's capture: some steps take minutes.
pub fn progress(text: &str) {
    let _ = writeln!(std::io::stderr(), "set-up: {text}");
}

/// The program `name` of the search path or the system's directories.
pub fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Servers lie in sbin, which people who are not root often lack.
    let directories = std::env::split_paths(&path).chain(["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from));
    directories
        .map(|directory| directory.join(name))
        .find(|program| is_program(program))
}

/// Mosquitto, installed from the distribution when it is missing and root may.
///
/// # Errors
/// When it is missing and cannot be installed.
pub fn mosquitto() -> Result<PathBuf> {
    installed("mosquitto", "mosquitto")
}

/// Prometheus, installed from the distribution when it is missing and root may.
///
/// # Errors
/// When it is missing and cannot be installed.
pub fn prometheus() -> Result<PathBuf> {
    installed("prometheus", "prometheus")
}

/// OpenSSL's command, installed from the distribution when it is missing and root may.
///
/// # Errors
/// When it is missing and cannot be installed.
pub fn openssl() -> Result<PathBuf> {
    installed("openssl", "openssl")
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
    build_kubernetes()
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

/// Runs a command to its end and returns its standard output.
///
/// # Errors
/// When it fails, with what it wrote to standard error.
pub fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("run {command:?}"))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        bail!(
            "{command:?} failed ({}): {}{}",
            output.status,
            text.trim(),
            String::from_utf8_lossy(&output.stdout)
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    fs::metadata(path).is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
}

fn installed(program: &str, package: &str) -> Result<PathBuf> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(path) = find(program) {
        return Ok(path);
    }
    let hint = format!("{program} is missing; install it, on Debian with: sudo apt-get install {package}");
    if find("apt-get").is_none() || !rustix::process::geteuid().is_root() {
        bail!(hint);
    }
    progress(&format!("installing {package}"));
    apt_install(package).context(hint.clone())?;
    find(program).context(hint)
}

/// Installs a package without starting the service it brings: the tests start their own, on ports of their own.
fn apt_install(package: &str) -> Result<()> {
    let policy = Path::new("/usr/sbin/policy-rc.d");
    let ours = !policy.exists();
    if ours {
        // Should this process be killed before it takes the file away, everything is allowed again.
        let script = format!("#!/bin/sh\n[ ! -d /proc/{} ] || exit 101\n", std::process::id());
        fs::write(policy, script)?;
        fs::set_permissions(policy, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    }
    let apt = |arguments: &[&str]| {
        output(
            Command::new("apt-get")
                .args(["-qq", "-o", "DPkg::Lock::Timeout=120"])
                .args(arguments)
                .env("DEBIAN_FRONTEND", "noninteractive"),
        )
        .map(drop)
    };
    // One source out of many that does not answer need not matter.
    let updated = apt(&["update"]);
    let done = apt(&["install", "-y", "--no-install-recommends", package]).or_else(|error| updated.and(Err(error)));
    if ours {
        fs::remove_file(policy)?;
    }
    done
}

fn build_kubernetes() -> Result<PathBuf> {
    let cache = cache_directory()?;
    fs::create_dir_all(&cache).with_context(|| format!("make {}", cache.display()))?;
    let target = cache.join(format!("kube-{}", modules_hash()?));
    // One builder at a time, over processes and threads: each call opens the file anew, so the lock holds between
    // threads too.
    let lock = File::create(cache.join("kube.lock"))?;
    if lock.try_lock().is_err() {
        progress("waiting for another process that builds the API server");
        lock.lock()?;
    }
    if target.is_dir() {
        return Ok(target);
    }
    let go = find("go").context(
        "no Kubernetes API at hand: none of CERTWAVE_E2E_CLUSTER=current, KUBEBUILDER_ASSETS, kind on Docker; \
         and to build an API server takes Go (https://go.dev/dl), which is missing",
    )?;
    let partial = tempfile::tempdir_in(&cache)?;
    progress(&format!(
        "building etcd and Kubernetes {KUBERNETES}, once, about 5 minutes on 2 cores"
    ));
    let mut flags = "-s -w".to_owned();
    for setting in [
        &format!("gitVersion={KUBERNETES}"),
        "gitMajor=1",
        "gitMinor=36",
        "gitTreeState=clean",
    ] {
        flags.push_str(" -X k8s.io/component-base/version.");
        flags.push_str(setting);
    }
    let module = Path::new(KUBE_MODULE);
    go_build(
        &go,
        &module.join("etcd"),
        "etcd",
        "go.etcd.io/etcd/server/v3",
        "-s -w",
        partial.path(),
    )?;
    for name in ["kube-apiserver", "kubectl"] {
        go_build(
            &go,
            module,
            name,
            &format!("k8s.io/kubernetes/cmd/{name}"),
            &flags,
            partial.path(),
        )?;
    }
    fs::set_permissions(partial.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    fs::rename(partial.keep(), &target)?;
    progress(&format!("the API server is in {}", target.display()));
    Ok(target)
}

fn go_build(go: &Path, module: &Path, name: &str, package: &str, flags: &str, into: &Path) -> Result<()> {
    let start = Instant::now();
    let mut command = Command::new(go);
    command
        .args(["build", "-mod=readonly", "-trimpath", "-ldflags", flags, "-o"])
        .arg(into.join(name))
        .arg(package)
        .current_dir(module)
        .env("CGO_ENABLED", "0");
    progress(&format!("building {name}"));
    let building = std::thread::spawn(move || output(&mut command));
    let mut said = Instant::now();
    while !building.is_finished() {
        std::thread::sleep(Duration::from_millis(200));
        if said.elapsed() > Duration::from_secs(30) {
            said = Instant::now();
            progress(&format!("building {name}, {} s so far", start.elapsed().as_secs()));
        }
    }
    match building.join() {
        Ok(result) => result.map(drop).with_context(|| format!("build {name}")),
        Err(_) => bail!("the build of {name} broke off"),
    }
}

/// `${XDG_CACHE_HOME:-~/.cache}/certwave`.
fn cache_directory() -> Result<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !AsRef::<OsStr>::as_ref(value).is_empty());
    let base = match set("XDG_CACHE_HOME") {
        Some(directory) => PathBuf::from(directory),
        None => PathBuf::from(set("HOME").context("neither XDG_CACHE_HOME nor HOME is set")?).join(".cache"),
    };
    Ok(base.join("certwave"))
}

/// A name for what the modules say: other versions, another cache directory.
fn modules_hash() -> Result<String> {
    // FNV-1a, as names need no more, and a digest of the standard library may change between its releases.
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for file in ["go.mod", "go.sum", "etcd/go.mod", "etcd/go.sum"] {
        for byte in fs::read(Path::new(KUBE_MODULE).join(file))? {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    Ok(format!("{hash:016x}"))
}

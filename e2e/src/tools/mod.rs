//! The foreign programs that the tests use: found, installed or built, once, with progress on standard error.

mod go_module;
mod kubernetes;
mod peers;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use anyhow::{Context, Result, bail};

use crate::postgres;

pub use kubernetes::{kubectl, kubernetes, oldest};
pub use peers::{peer, peer_source, peer_version};

/// The NATS server that the tests of its adapter build.
const NATS: &str = "v2.15.2";
/// The Helm that renders the chart where none is installed.
const HELM: &str = "v4.3.1";
/// Where the schemas of `ServiceMonitor`, `PodMonitor` and `PrometheusRule` come from.
const PROMETHEUS_OPERATOR: &str = "v0.85.0";
/// The Python packages that judge certificates and CRLs.
const PYTHON_JUDGES: [&str; 2] = ["pkilint==0.13.3", "cryptography==50.0.2"];
const VERIFY_MODULE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/verify");

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

/// `PostgreSQL`, installed from the distribution when it is missing and root may.
///
/// # Errors
/// When it is missing and cannot be installed.
pub fn postgresql() -> Result<()> {
    if postgres::is_installed() {
        return Ok(());
    }
    installed("pg_ctlcluster", "postgresql").map(drop)
}

/// Prometheus' tool for rules and metrics, installed from the distribution when it is missing and root may.
///
/// # Errors
/// When it is missing and cannot be installed.
pub fn promtool() -> Result<PathBuf> {
    installed("promtool", "prometheus")
}

/// OpenSSL's command, installed from the distribution when it is missing and root may.
///
/// # Errors
/// When it is missing and cannot be installed.
pub fn openssl() -> Result<PathBuf> {
    installed("openssl", "openssl")
}

/// The library that, preloaded, has a program go by a wrong clock; installed from the distribution when it is missing and root may.
/// Not the command: that runs the program as its child, which outlives it.
///
/// # Errors
/// When it is missing and cannot be installed.
pub fn faketime() -> Result<PathBuf> {
    installed("faketime", "faketime")?;
    let libraries = fs::read_dir("/usr/lib").context("list /usr/lib")?;
    libraries
        .filter_map(|entry| Some(entry.ok()?.path().join("faketime/libfaketimeMT.so.1")))
        .chain([PathBuf::from("/usr/lib/faketime/libfaketimeMT.so.1")])
        .find(|library| library.exists())
        .context("faketime is installed without libfaketimeMT.so.1")
}

/// The NATS server, built from its Go module into the user's cache.
///
/// # Errors
/// When it cannot be built, most likely for want of Go.
pub fn nats_server() -> Result<PathBuf> {
    go_install("nats-server", "github.com/nats-io/nats-server/v2", NATS)
}

/// Helm: of the search path, else built from its Go module into the user's cache.
///
/// # Errors
/// When it cannot be built, most likely for want of Go.
pub fn helm() -> Result<PathBuf> {
    match find("helm") {
        Some(program) => Ok(program),
        None => go_install("helm", "helm.sh/helm/v4/cmd/helm", HELM),
    }
}

/// The directory with the CRDs of the Prometheus operator, from its Go module.
///
/// # Errors
/// When the module cannot be had.
pub fn prometheus_operator_crds() -> Result<PathBuf> {
    let go =
        find("go").context("to fetch the Prometheus operator's CRDs takes Go (https://go.dev/dl), which is missing")?;
    let module = format!("github.com/prometheus-operator/prometheus-operator@{PROMETHEUS_OPERATOR}");
    let said = output(Command::new(go).args(["mod", "download", "-json", &module]))?;
    let said: serde_json::Value = serde_json::from_str(&said)?;
    let directory = said["Dir"].as_str().context("the module has no directory")?;
    Ok(Path::new(directory).join("example/prometheus-operator-crd"))
}

/// A Go program, built from its module into the user's cache, once for each version.
fn go_install(program: &str, package: &str, version: &str) -> Result<PathBuf> {
    let cache = cache_directory()?;
    fs::create_dir_all(&cache).with_context(|| format!("make {}", cache.display()))?;
    let target = cache.join(format!("{program}-{version}"));
    let lock = File::create(cache.join(format!("{program}.lock")))?;
    lock.lock()?;
    if is_program(&target) {
        return Ok(target);
    }
    let hint = format!("to build {program} takes Go (https://go.dev/dl), which is missing");
    let go = find("go").context(hint)?;
    let partial = tempfile::tempdir_in(&cache)?;
    progress(&format!("building {program} {version}, once, some minutes on 2 cores"));
    output(
        Command::new(go)
            .args(["install", "-trimpath", "-ldflags", "-s -w"])
            .arg(format!("{package}@{version}"))
            .current_dir(partial.path())
            .env("GOBIN", partial.path())
            .env("CGO_ENABLED", "0"),
    )
    .with_context(|| format!("build {program}"))?;
    fs::rename(partial.path().join(program), &target)?;
    Ok(target)
}

/// A Python with pkilint and cryptography, in an environment of its own in the user's cache.
///
/// # Errors
/// When Python or the packages cannot be had.
pub fn python() -> Result<PathBuf> {
    let cache = cache_directory()?;
    fs::create_dir_all(&cache).with_context(|| format!("make {}", cache.display()))?;
    let target = cache.join(format!("python-{}", PYTHON_JUDGES.join("-").replace("==", "-")));
    let (program, complete) = (target.join("bin/python"), target.join("complete"));
    let lock = File::create(cache.join("python.lock"))?;
    lock.lock()?;
    if complete.is_file() && is_program(&program) {
        return Ok(program);
    }
    progress("installing pkilint and cryptography into a Python environment, once");
    let python = installed("python3", "python3")?;
    let make = || output(Command::new(&python).args(["-m", "venv", "--clear"]).arg(&target));
    if let Err(error) = make() {
        // Debian has it in a package of its own.
        let hint = "python3 makes no environment; on Debian: sudo apt-get install python3-venv";
        if find("apt-get").is_none() || !rustix::process::geteuid().is_root() {
            return Err(error.context(hint));
        }
        apt_install("python3-venv").context(hint)?;
        make().context(hint)?;
    }
    let mut pip = Command::new(&program);
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]);
    output(pip.args(PYTHON_JUDGES)).context("install pkilint and cryptography")?;
    // An environment cannot be moved, so it is marked when it is whole.
    File::create(complete)?;
    Ok(program)
}

/// The Go verifier of `e2e/verify`, built once for each run of the tests.
///
/// # Errors
/// When it cannot be built, most likely for want of Go.
pub fn verifier() -> Result<PathBuf> {
    static BUILT: Mutex<Option<PathBuf>> = Mutex::new(None);
    let mut built = BUILT.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(program) = &*built {
        return Ok(program.clone());
    }
    let cache = cache_directory()?;
    fs::create_dir_all(&cache).with_context(|| format!("make {}", cache.display()))?;
    let lock = File::create(cache.join("verify.lock"))?;
    lock.lock()?;
    let go = find("go").context("to build the Go verifier takes Go (https://go.dev/dl), which is missing")?;
    let program = cache.join("certwave-verify");
    output(
        Command::new(go)
            .args(["build", "-o"])
            .arg(&program)
            .arg(".")
            .current_dir(VERIFY_MODULE),
    )?;
    *built = Some(program.clone());
    Ok(program)
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

/// `${XDG_CACHE_HOME:-~/.cache}/certwave`.
fn cache_directory() -> Result<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !AsRef::<OsStr>::as_ref(value).is_empty());
    let base = match set("XDG_CACHE_HOME") {
        Some(directory) => PathBuf::from(directory),
        None => PathBuf::from(set("HOME").context("neither XDG_CACHE_HOME nor HOME is set")?).join(".cache"),
    };
    Ok(base.join("certwave"))
}

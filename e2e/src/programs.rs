//! The project's own programs, as cargo builds them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::SystemTime;
use std::{env, fs};

use anyhow::{Context, Result, bail, ensure};

use crate::tools;

/// Path of the controller (`certwave`), built when it is missing or older than its sources.
///
/// # Errors
/// When it cannot be built.
pub fn certwave() -> Result<PathBuf> {
    current("certwave", "certwave-controller")
}

/// Path of the agent (`certwave-agent`), built when it is missing or older than its sources.
///
/// # Errors
/// When it cannot be built.
pub fn agent() -> Result<PathBuf> {
    current("certwave-agent", "certwave-agent")
}

/// Path of a static program that `e2e/images/build` has put into an image.
///
/// # Errors
/// When it was not built.
pub fn in_image(program: &str) -> Result<PathBuf> {
    let directory = directory()?;
    let target = directory.parent().context("a program without a target directory")?;
    let host = format!("{}-unknown-linux-gnu", env::consts::ARCH);
    let profile = match env::var("IMAGE_PROFILE").as_deref() {
        Ok("dev") => "debug",
        _ => "release",
    };
    let path = target.join(host).join(profile).join(program);
    ensure!(path.is_file(), "{} is missing: run e2e/images/build", path.display());
    Ok(path)
}

/// Path of the kubectl plugin (`kubectl-certwave`), built when it is missing or older than its sources.
///
/// # Errors
/// When it cannot be built.
pub fn plugin() -> Result<PathBuf> {
    current("kubectl-certwave", "certwave-cli")
}

/// Cargo gives a test the path of its own package's programs only; those of others lie in the same directory.
fn current(program: &str, package: &str) -> Result<PathBuf> {
    // One at a time, and each once: whoever changes a source while this runs does not change what runs.
    static LOOKED_AT: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());
    let mut looked_at = LOOKED_AT.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let directory = directory()?;
    let path = directory.join(program);
    if looked_at.contains(&path) || is_current(&path) {
        looked_at.insert(path.clone());
        return Ok(path);
    }
    tools::progress(&format!("building {program}"));
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--quiet", "-p", package, "--bin", program]);
    if directory.ends_with("release") {
        cargo.arg("--release");
    }
    cargo
        .arg("--target-dir")
        .arg(directory.parent().context("a program without a target directory")?);
    tools::output(cargo.current_dir(env!("CARGO_MANIFEST_DIR")))?;
    if !path.is_file() {
        bail!("cargo did not build {}", path.display());
    }
    looked_at.insert(path.clone());
    Ok(path)
}

/// The directory of this program's profile, `target/debug` or `target/release`.
fn directory() -> Result<PathBuf> {
    let mut directory = env::current_exe()?;
    directory.pop();
    if directory.ends_with("deps") {
        directory.pop();
    }
    Ok(directory)
}

/// Whether it is newer than every source in the list that cargo writes beside it.
fn is_current(program: &Path) -> bool {
    let changed = |path: &Path| fs::metadata(path).and_then(|data| data.modified());
    let (Ok(built), Ok(list)) = (changed(program), fs::read_to_string(program.with_extension("d"))) else {
        return false;
    };
    let sources = list.split_once(": ").map_or("", |(_, sources)| sources);
    // Built and sources may share a timestamp; a source that is gone cannot be judged.
    sources
        .split_whitespace()
        .all(|source| changed(Path::new(source)).is_ok_and(|time: SystemTime| time <= built))
}

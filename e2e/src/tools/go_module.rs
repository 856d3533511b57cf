//! Programs built from Go modules, whose go.mod and go.sum say every version and checksum, into the user's cache.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::{cache_directory, find, output, progress};

/// How often a build that goes on says so.
const SAID: Duration = Duration::from_secs(30);

/// A directory of the cache for what these source files say, filled once; `hint` is the error where Go is missing.
pub(super) fn built(
    name: &str,
    sources: &[PathBuf],
    hint: &'static str,
    fill: impl FnOnce(&Path, &Path) -> Result<()>,
) -> Result<PathBuf> {
    let cache = cache_directory()?;
    fs::create_dir_all(&cache).with_context(|| format!("make {}", cache.display()))?;
    let target = cache.join(format!("{name}-{}", hash(sources)?));
    // One builder at a time, over processes and threads: each call opens the file anew, so the lock holds between
    // threads too.
    let lock = File::create(cache.join(format!("{name}.lock")))?;
    if lock.try_lock().is_err() {
        progress(&format!("waiting for another process that builds {name}"));
        lock.lock()?;
    }
    if target.is_dir() {
        return Ok(target);
    }
    let go = find("go").context(hint)?;
    let partial = tempfile::tempdir_in(&cache)?;
    fill(&go, partial.path())?;
    fs::set_permissions(partial.path(), fs::Permissions::from_mode(0o755))?;
    fs::rename(partial.keep(), &target)?;
    progress(&format!("{name} is in {}", target.display()));
    Ok(target)
}

/// Builds a package of a module, or of one that it requires, as the program `name`.
pub(super) fn go_build(go: &Path, module: &Path, name: &str, package: &str, flags: &str, into: &Path) -> Result<()> {
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
        if said.elapsed() > SAID {
            said = Instant::now();
            progress(&format!("building {name}, {} s so far", start.elapsed().as_secs()));
        }
    }
    match building.join() {
        Ok(result) => result.map(drop).with_context(|| format!("build {name}")),
        Err(_) => bail!("the build of {name} broke off"),
    }
}

/// A name for what the files say: other versions, another cache directory.
fn hash(files: &[PathBuf]) -> Result<String> {
    // FNV-1a, as names need no more, and a digest of the standard library may change between its releases.
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for file in files {
        for byte in fs::read(file).with_context(|| format!("read {}", file.display()))? {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    Ok(format!("{hash:016x}"))
}

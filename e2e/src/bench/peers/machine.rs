//! What a run was made on, and with.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::tools;

/// The machine of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Machine {
    pub(super) processor: String,
    /// How many of its cores this process may use.
    pub(super) cpus: usize,
    pub(super) memory_gib: u64,
    pub(super) system: String,
    pub(super) kernel: String,
}

impl Machine {
    /// This one.
    pub(super) fn this() -> Result<Self> {
        let memory = value_of("/proc/meminfo", "MemTotal:")?;
        let system =
            value_of("/etc/os-release", "PRETTY_NAME=").unwrap_or_else(|_| "a system without a name".to_owned());
        let kib: u64 = memory.trim_end_matches(" kB").parse().context("MemTotal")?;
        Ok(Self {
            // Not every architecture has names for its processors.
            processor: value_of("/proc/cpuinfo", "model name\t:").unwrap_or_else(|_| std::env::consts::ARCH.to_owned()),
            cpus: std::thread::available_parallelism()?.get(),
            memory_gib: kib.div_ceil(1 << 20),
            system: system.trim_matches('"').to_owned(),
            kernel: value_of("/proc/sys/kernel/osrelease", "")?,
        })
    }
}

/// The day, in UTC.
pub(super) fn today() -> String {
    Timestamp::now().strftime("%Y-%m-%d").to_string()
}

/// This version of Certwave, with its commit, and whether it was changed since, where that can be told.
pub(super) fn certwave() -> String {
    let mut git = Command::new("git");
    git.args(["describe", "--always", "--dirty"])
        .current_dir(env!("CARGO_MANIFEST_DIR"));
    let commit = tools::output(&mut git).map(|commit| format!(" ({})", commit.trim()));
    format!("Certwave {}{}", env!("CARGO_PKG_VERSION"), commit.unwrap_or_default())
}

/// OpenSSL's version, as its command says it.
pub(super) fn openssl() -> Result<String> {
    let said = tools::output(Command::new(tools::openssl()?).arg("version"))?;
    Ok(first_words(&said, 2))
}

/// Go's.
pub(super) fn go() -> Result<String> {
    let go = tools::find("go").context("no Go")?;
    let said = tools::output(Command::new(go).arg("version"))?;
    Ok(format!(
        "Go {}",
        said.split_whitespace()
            .nth(2)
            .unwrap_or_default()
            .trim_start_matches("go")
    ))
}

/// Mosquitto's.
pub(super) fn mosquitto() -> Result<String> {
    // It says so in its help, and ends as if that were a mistake.
    let said = Command::new(tools::mosquitto()?).arg("-h").output()?;
    Ok(first_words(&String::from_utf8_lossy(&said.stdout), 3).replacen("mosquitto version", "Mosquitto", 1))
}

/// The version of a Rust library that this program was built with.
pub(super) fn library(name: &str) -> Result<String> {
    let lock = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.lock");
    let text = std::fs::read_to_string(&lock).with_context(|| format!("read {}", lock.display()))?;
    let version = locked(&text, name).with_context(|| format!("{name} is not in Cargo.lock"))?;
    Ok(format!("{name} {version}"))
}

/// The version after the name, in a Cargo.lock.
fn locked<'a>(lock: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = lock.split_once(&format!("name = \"{name}\"\nversion = \""))?;
    Some(rest.split_once('"')?.0)
}

fn first_words(text: &str, count: usize) -> String {
    text.split_whitespace().take(count).collect::<Vec<_>>().join(" ")
}

/// What stands behind these words at the beginning of a line.
fn value_of(file: &str, begins: &str) -> Result<String> {
    let text = std::fs::read_to_string(file).with_context(|| format!("read {file}"))?;
    let value = text.lines().find_map(|line| line.strip_prefix(begins));
    Ok(value
        .with_context(|| format!("{file} has no {begins}"))?
        .trim()
        .to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_can_be_described() {
        let machine = Machine::this().unwrap();
        assert!(machine.cpus > 0 && machine.memory_gib > 0, "{machine:?}");
        assert!(!machine.kernel.is_empty(), "{machine:?}");
        assert_eq!(today().len(), "2026-01-02".len());
    }

    #[test]
    fn a_version_is_that_of_the_whole_name() {
        let lock = "[[package]]\nname = \"hyper-util\"\nversion = \"0.1.2\"\n\n[[package]]\nname = \"hyper\"\nversion = \"1.2.3\"\n";
        assert_eq!(locked(lock, "hyper"), Some("1.2.3"));
        assert_eq!(locked(lock, "hype"), None);
    }
}

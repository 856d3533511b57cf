//! The benchmarks. They measure and never fail on a number.

mod core;
pub mod crl;
mod fixed;
mod ledger;
mod ocsp;
pub mod peers;
mod pki;
pub mod preload;
mod revocation;
mod rotation;
mod scale;
mod wire;

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use serde::Serialize;

use crate::stack::FleetOptions;

/// What can be measured, by name.
pub const GROUPS: [&str; 8] = [
    "core",
    "pki",
    "crl",
    "ledger",
    "rotation",
    "scale",
    "ocsp",
    "revocation",
];
/// The argument with which the benchmarks start themselves as the bare server that others are compared to.
pub const FIXED: &str = "serve-fixed";
/// Divides the counts of `scale`, `ocsp`, `revocation` and all of [`peers`], for whoever only wants to see whether they run.
const DIVISOR: &str = "CERTWAVE_BENCH_DIVISOR";

pub use fixed::serve as serve_fixed;

/// One number.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Metric {
    /// What was measured, such as `rotation.throughput`.
    pub name: String,
    /// The number.
    pub value: f64,
    /// Its unit.
    pub unit: &'static str,
}

/// The numbers so far; each is printed at once and written to a file.
#[derive(Debug)]
pub struct Report {
    path: PathBuf,
    metrics: Vec<Metric>,
}

impl Report {
    /// A report that begins empty in `path`.
    pub fn new(path: PathBuf) -> Self {
        Self {
            path,
            metrics: Vec::new(),
        }
    }

    /// Prints a number and writes the file anew, so that what was measured survives a later failure.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn add(&mut self, name: impl Into<String>, value: f64, unit: &'static str) -> Result<()> {
        let metric = Metric {
            name: name.into(),
            value: (value * 1000.0).round() / 1000.0,
            unit,
        };
        println!("{:<28} {:>12} {}", metric.name, metric.value, metric.unit);
        self.metrics.push(metric);
        let directory = self.path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(directory)?;
        std::fs::write(&self.path, serde_json::to_vec_pretty(&self.metrics)?)
            .with_context(|| format!("write {}", self.path.display()))
    }
}

/// Measures the named groups, or all.
///
/// # Errors
/// When a name is unknown, or the stack does not come up.
pub async fn run(groups: &[String], report: &mut Report) -> Result<()> {
    if let Some(unknown) = groups.iter().find(|name| !GROUPS.contains(&name.as_str())) {
        bail!("{unknown}: the groups are {}", GROUPS.join(", "));
    }
    let wanted = |name: &str| groups.is_empty() || groups.iter().any(|group| group == name);
    if wanted("core") {
        core::measure(report).context("core")?;
    }
    if wanted("pki") {
        pki::measure(report).await.context("pki")?;
    }
    if wanted("crl") {
        crl::measure(report).context("crl")?;
    }
    if wanted("ledger") {
        ledger::measure(report).await.context("ledger")?;
    }
    if wanted("rotation") {
        rotation::measure(report).await.context("rotation")?;
    }
    if wanted("scale") {
        for devices in sizes()? {
            scale::measure(devices, report)
                .await
                .with_context(|| format!("{devices} devices"))?;
        }
    }
    if wanted("ocsp") {
        ocsp::measure(report).await.context("ocsp")?;
    }
    if wanted("revocation") {
        revocation::latency(report).await.context("revocation.latency")?;
        revocation::mass(report).await.context("revocation.mass")?;
    }
    Ok(())
}

/// The sizes of fleets that `scale` measures: those that `DEVICES` names, with spaces between them, else three.
fn sizes() -> Result<Vec<usize>> {
    let Ok(named) = std::env::var("DEVICES") else {
        return Ok([1_000, 10_000, 100_000].map(scaled).to_vec());
    };
    let sizes = named.split_whitespace().map(str::parse).collect::<Result<_, _>>();
    sizes.with_context(|| format!("DEVICES={named}"))
}

/// A count, divided as the environment says.
fn scaled(count: usize) -> usize {
    (count / divisor()).max(2)
}

/// What the environment says that counts are divided by; at least 1.
fn divisor() -> usize {
    let divisor = std::env::var(DIVISOR).ok().and_then(|text| text.parse().ok());
    divisor.unwrap_or(1).max(1)
}

/// The time, Unix seconds.
fn seconds() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// A fleet without a brake, and with time enough for a busy machine.
const FLEET: FleetOptions = FleetOptions {
    max_in_flight: 500,
    step_timeout: "2m",
    trial_timeout: "1m",
    job_timeout: "10m",
};

/// A count as a number to calculate with; exact below 2^32.
fn number(count: impl TryInto<u32>) -> f64 {
    count.try_into().map_or(f64::MAX, f64::from)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    #[test]
    fn the_file_lists_name_value_and_unit() {
        let scratch = Scratch::new("bench").unwrap();
        let path = scratch.path().join("below/results.json");
        let mut report = Report::new(path.clone());
        report.add("a.b", 1.23456, "1/s").unwrap();
        report.add("c", 2.0, "MiB").unwrap();
        let read: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let expected = serde_json::json!([
            { "name": "a.b", "value": 1.235, "unit": "1/s" },
            { "name": "c", "value": 2.0, "unit": "MiB" },
        ]);
        assert_eq!(read, expected);
    }
}

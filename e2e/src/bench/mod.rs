//! The benchmarks. They measure and never fail on a number.

mod core;
mod idle;
mod pki;
mod rotation;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Serialize;

use crate::stack::FleetOptions;

/// What can be measured, by name.
pub const GROUPS: [&str; 4] = ["core", "pki", "rotation", "idle"];

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
    if wanted("rotation") {
        rotation::measure(report).await.context("rotation")?;
    }
    if wanted("idle") {
        for devices in [2_000, 20_000, 100_000] {
            idle::measure(devices, report)
                .await
                .with_context(|| format!("{devices} idle devices"))?;
        }
    }
    Ok(())
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

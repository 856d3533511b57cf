//! What was measured.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::NAMESPACE;
use super::cluster::Cluster;
use crate::wait_for;

/// Kubelet measures every ten seconds or so; a pod is idle a while after its last work.
const SETTLED: Duration = Duration::from_secs(20);

/// Names and values, in the order in which they came.
#[derive(Default)]
pub(super) struct Numbers(Vec<(&'static str, u64)>);

impl Numbers {
    pub(super) fn add(&mut self, name: &'static str, value: u64) {
        self.0.push((name, value));
    }

    /// What the controllers take while nothing is to be done, as kubelet measures it; the one that takes most.
    ///
    /// # Errors
    /// When kubelet does not say.
    pub(super) async fn idle(&mut self, cluster: &Cluster) -> Result<()> {
        let begin = Instant::now();
        let used = wait_for("kubelet to measure the idle controllers", SETTLED * 6, || async {
            ensure!(begin.elapsed() > SETTLED, "they have just been busy");
            let nodes = cluster.api.kubectl(["get", "nodes", "-o", "name"])?;
            let node = nodes.trim().strip_prefix("node/").context("no node")?;
            let path = format!("/api/v1/nodes/{node}/proxy/stats/summary");
            let summary: Value = serde_json::from_str(&cluster.api.kubectl(["get", "--raw", &path])?)?;
            let pods = summary["pods"].as_array().context("no pods")?;
            let used = pods
                .iter()
                .filter(|pod| {
                    let name = pod["podRef"]["name"].as_str().unwrap_or_default();
                    pod["podRef"]["namespace"] == NAMESPACE && name.contains("-controller-")
                })
                .filter_map(|pod| {
                    let container = pod["containers"].get(0)?;
                    let cpu = container["cpu"]["usageNanoCores"].as_u64()?;
                    Some((cpu / 1_000_000, container["memory"]["workingSetBytes"].as_u64()?))
                });
            used.reduce(|most, pod| (most.0.max(pod.0), most.1.max(pod.1)))
                .context("the controllers are not measured yet")
        });
        let (millicores, bytes) = used.await?;
        self.add("idle-millicores", millicores);
        self.add("idle-memory-bytes", bytes);
        Ok(())
    }
}

impl fmt::Display for Numbers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pairs: Vec<_> = self.0.iter().map(|(name, value)| format!("{name}={value}")).collect();
        f.write_str(&pairs.join(" "))
    }
}

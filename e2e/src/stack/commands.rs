//! The command lines of the project's programs: what to change when their arguments do. That of `certwave broker-config`
//! is [`Mosquitto::configure`](crate::mosquitto::Mosquitto::configure)'s.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use super::objects::FLEET;
use crate::programs;

const PREFIX: &str = "meter-";

/// What goes wrong on one simulated device, in every rotation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It refuses the job.
    Rejects,
    /// The broker refuses its new certificate.
    IsRefused,
    /// It reaches nobody with its new certificate.
    ReachesNobody,
}

impl Fault {
    /// Its name on the command line.
    fn name(self) -> &'static str {
        match self {
            Self::Rejects => "reject",
            Self::IsRefused => "fail-test:bad_certificate",
            Self::ReachesNobody => "fail-test:unreachable",
        }
    }
}

/// The fleet that the simulator plays.
#[derive(Debug, Clone)]
pub struct Simulation {
    /// How many devices.
    pub devices: usize,
    /// Where each device keeps its slots, in a directory of its name; in memory where left out.
    pub state: Option<PathBuf>,
    /// The file in which every device says how it stands, JSON; none where left out.
    pub report: Option<PathBuf>,
    /// The claim that they enrol with.
    pub claim: PathBuf,
    /// Seed of all that is random.
    pub seed: u64,
    /// Connections a second, all devices together.
    pub connect_rate: u32,
    /// Which devices (from 1) have which fault.
    pub faults: Vec<(usize, Fault)>,
}

impl Simulation {
    /// The id of device `number`, from 1.
    pub fn device_id(number: usize) -> String {
        format!("{PREFIX}{number:04}")
    }

    /// The ids of all devices.
    pub fn device_ids(&self) -> impl Iterator<Item = String> + use<> {
        (1..=self.devices).map(Self::device_id)
    }
}

/// The controller, for one namespace, where its Lease is as well.
pub(super) fn controller(kubeconfig: &Path, namespace: &str, ledger: &Path, http: SocketAddr) -> Result<Command> {
    let mut command = Command::new(programs::certwave()?);
    command.args([
        "run",
        "--namespace",
        namespace,
        "--lease-namespace",
        namespace,
        "--log-format",
        "text",
    ]);
    command.args(["--http", &http.to_string()]).arg("--ledger").arg(ledger);
    // A pod keeps its name when its container is started again, and so takes its own Lease again at once.
    command.env("POD_NAME", "certwave-0");
    command.env("KUBECONFIG", kubeconfig).env("NO_COLOR", "1");
    Ok(command)
}

/// Makes a claim for `quota` devices of the stack's fleet and writes it to `bundle`.
pub(super) fn claim(kubeconfig: &Path, namespace: &str, quota: usize, bundle: &Path) -> Result<Command> {
    let mut command = Command::new(programs::certwave()?);
    command.args(["claim", "create", "line-1", "--namespace", namespace, "--fleet", FLEET]);
    command.args(["--quota", &quota.to_string(), "--valid-for", "6h"]);
    command.arg("--kubeconfig").arg(kubeconfig).arg("--out").arg(bundle);
    Ok(command)
}

/// The simulator.
pub(super) fn simulate(simulation: &Simulation) -> Result<Command> {
    let mut command = Command::new(programs::agent()?);
    command.args([
        "simulate",
        "--prefix-name",
        PREFIX,
        "--count",
        &simulation.devices.to_string(),
    ]);
    command.args([
        "--seed",
        &simulation.seed.to_string(),
        "--connect-rate",
        &simulation.connect_rate.to_string(),
    ]);
    command.arg("--claim").arg(&simulation.claim);
    if let Some(state) = &simulation.state {
        command.arg("--state-dir").arg(state);
    }
    if let Some(report) = &simulation.report {
        command.arg("--report").arg(report);
    }
    for (number, fault) in &simulation.faults {
        command
            .arg("--fault")
            .arg(format!("{}={}", fault.name(), Simulation::device_id(*number)));
    }
    Ok(command)
}

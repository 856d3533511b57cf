//! The command lines of the project's programs: what to change when their arguments do. That of `certwave broker-config`
//! is [`Mosquitto::configure`](crate::mosquitto::Mosquitto::configure)'s.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use super::objects::FLEET;
use crate::{programs, tools};

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
    /// It takes its old certificate for the new one wherever it connects.
    UsesTheOldDoor,
}

impl Fault {
    /// Its name on the command line.
    fn name(self) -> &'static str {
        match self {
            Self::Rejects => "reject",
            Self::IsRefused => "fail-test:bad_certificate",
            Self::UsesTheOldDoor => "old-door",
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

/// The controller, for one namespace, where its Lease is as well; `pod` is its name in the Lease.
pub(super) fn controller(
    kubeconfig: &Path,
    namespace: &str,
    ledger: &str,
    http: SocketAddr,
    history: SocketAddr,
    pod: &str,
) -> Result<Command> {
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
    command.args(["--http", &http.to_string()]).args(["--ledger", ledger]);
    command.args(["--history", &history.to_string()]);
    // A pod keeps its name when its container is started again, and so takes its own Lease again at once.
    command.env("POD_NAME", pod);
    command.env("KUBECONFIG", kubeconfig).env("NO_COLOR", "1");
    Ok(command)
}

/// Has a program go by a clock that is off by so much, as faketime has it (`+8d`); how long things take stays as it is.
///
/// # Errors
/// When there is no faketime.
pub fn by_clock(command: &mut Command, off: &str) -> Result<()> {
    command.env("LD_PRELOAD", tools::faketime()?);
    command.env("FAKETIME", off).env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    Ok(())
}

/// The clock that a program goes by; how long things take stays as it is.
#[derive(Debug)]
pub(super) enum Clock {
    /// See [`by_clock`].
    Off(String),
    /// Off by what this file says at each moment; it is read every second.
    File(PathBuf),
}

impl Clock {
    pub(super) fn rule(&self, command: &mut Command) -> Result<()> {
        let file = match self {
            Self::Off(off) => return by_clock(command, off),
            Self::File(file) => file,
        };
        command.env("LD_PRELOAD", tools::faketime()?);
        command
            .env("FAKETIME_TIMESTAMP_FILE", file)
            .env("FAKETIME_CACHE_DURATION", "1");
        command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        Ok(())
    }
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

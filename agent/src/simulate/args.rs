//! The simulator's command line.

use std::path::PathBuf;

use certwave_protocol::ids::BrokerId;
use clap::Args;

use super::fault::FaultArg;
use crate::mqtt::Address;

/// `certwave-agent simulate`.
#[derive(Debug, Args)]
pub struct SimulateArgs {
    /// How many devices
    #[arg(long, alias = "devices", default_value_t = 100)]
    pub count: usize,
    /// Their names are this and a number, from 1
    #[arg(long, alias = "prefix", default_value = "sim-")]
    pub prefix_name: String,
    /// Digits of the number
    #[arg(long, default_value_t = 4)]
    pub digits: usize,
    /// Take the names from this file instead, one in each line
    #[arg(long)]
    pub ids_from: Option<PathBuf>,
    /// Where devices connect; overrides the claims' own
    #[arg(long)]
    pub broker_url: Option<Address>,
    /// Where claims connect; overrides the claims' own
    #[arg(long)]
    pub claims_url: Option<Address>,
    /// The broker's id; needed where there is no claim
    #[arg(long)]
    pub broker_id: Option<BrokerId>,
    /// Topic prefix; overrides the claims' own
    #[arg(long)]
    pub topic_prefix: Option<String>,
    /// A claim bundle; one bound to a device is for that device, any other for all the rest. May be repeated
    #[arg(long)]
    pub claim: Vec<PathBuf>,
    /// A directory of claim bundles, `*.json`
    #[arg(long)]
    pub claim_dir: Option<PathBuf>,
    /// The first trust bundle, PEM; overrides the claims' own
    #[arg(long)]
    pub trust: Option<PathBuf>,
    /// Same seed, same jitter, sessions and nonces. Keys are always fresh
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Keep the devices' files in this directory, one directory each; in memory by default
    #[arg(long)]
    pub state_dir: Option<PathBuf>,
    /// Seconds between two hellos of a device
    #[arg(long, default_value_t = 300)]
    pub beat: u32,
    /// Connections a second, all devices together
    #[arg(long, default_value_t = 300)]
    pub connect_rate: u32,
    /// How many claims may be connected at once
    #[arg(long, default_value_t = 32)]
    pub claim_connections: usize,
    /// The longest wait between two attempts of a device to connect, seconds
    #[arg(long, default_value_t = 30)]
    pub backoff_max: u64,
    /// Seconds between pings on an idle connection
    #[arg(long, default_value_t = 120)]
    pub keep_alive: u16,
    /// kind=selector or kind:param=selector: offline, never-answer, reject, fail-test, fail-test:ALERT,
    /// fail-test:unreachable, old-door, vanish:accepted, vanish:stored, vanish:tested, power-cut:N, slow:30s, clock:-20y, duplicate; for
    /// deviceIds with commas between them, #N for N devices, * for all. May be repeated
    #[arg(long)]
    pub fault: Vec<FaultArg>,
    /// Write every device's certificate and state to this file, every second in which something changed, on SIGUSR1 and
    /// at the end
    #[arg(long)]
    pub report: Option<PathBuf>,
    /// Append a line of JSON to this file at each step of a device that changes its job, its active slot or its connection
    #[arg(long)]
    pub history: Option<PathBuf>,
    /// End after so many seconds; without it at SIGTERM or SIGINT
    #[arg(long)]
    pub duration: Option<u64>,
    /// Worker threads
    #[arg(long, default_value_t = 2)]
    pub threads: usize,
}

//! Thousands of devices in one process, with the same code as one device, a seed, and faults.

pub mod fault;
pub mod report;
pub mod watch;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, bail};
use certwave_protocol::ids::{BrokerId, DeviceId, Fingerprint};
use certwave_protocol::message::{Der, Slot};
use clap::Args;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use self::fault::{Fault, FaultArg};
use self::report::Report;
use self::watch::{Pace, Seen, Shared, Sim, Totals};
use crate::algorithm::Algorithm;
use crate::claim::Claim;
use crate::device::{Device, stopped};
use crate::disk::{Disk, FileDisk, Fuse, MemoryDisk};
use crate::machine::Config;
use crate::mqtt::Address;
use crate::setup::Setup;
use crate::store::{Storage as _, Store, read_certificates, write_certificates};
use crate::trust::Trusts;

/// How long the devices may take to leave.
const LEAVE_TIME: Duration = Duration::from_secs(5);

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
    /// fail-test:unreachable, power-cut:N, slow:30s, clock:-20y, duplicate; for deviceIds with commas between them, #N
    /// for N devices, * for all. May be repeated
    #[arg(long)]
    pub fault: Vec<FaultArg>,
    /// Write every device's certificate and state to this file, every second in which something changed, on SIGUSR1 and
    /// at the end
    #[arg(long)]
    pub report: Option<PathBuf>,
    /// End after so many seconds; without it at SIGTERM or SIGINT
    #[arg(long)]
    pub duration: Option<u64>,
    /// Worker threads
    #[arg(long, default_value_t = 2)]
    pub threads: usize,
}

/// A simulator that runs.
pub struct Simulator {
    report: Arc<Report>,
    stops: Vec<tokio::sync::watch::Sender<bool>>,
    tasks: JoinSet<()>,
}

/// Runs the simulator until it is told to end.
pub async fn run(args: SimulateArgs) -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut term, mut usr1) = (signal(SignalKind::terminate())?, signal(SignalKind::user_defined1())?);
    let duration = args.duration.map(Duration::from_secs);
    allow_sockets();
    let file = args.report.clone();
    let simulator = Simulator::start(&args)?;
    let started = tokio::time::Instant::now();
    let mut second = tokio::time::interval(Duration::from_secs(1));
    second.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        let mut now = false;
        tokio::select! {
            _ = second.tick() => println!("{}", simulator.report.line(started.elapsed())),
            _ = usr1.recv() => now = true,
            _ = term.recv() => break,
            _ = tokio::signal::ctrl_c() => break,
            () = at_end(started, duration) => break,
        }
        if let Some(file) = &file {
            simulator.report.write(file, now)?;
        }
    }
    let report = Arc::clone(&simulator.report);
    if let Some(file) = &file {
        // As it was, not as it is when everybody has left.
        report.write(file, true)?;
    }
    println!("{}", report.line(started.elapsed()));
    simulator.stop().await;
    Ok(())
}

/// One socket for each device: as many as the system lets this process have.
fn allow_sockets() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            ..limit
        },
    ) {
        tracing::warn!(%error, ?limit, "the limit of open files stays as it is");
    }
}

async fn at_end(started: tokio::time::Instant, duration: Option<Duration>) {
    match duration {
        Some(duration) => tokio::time::sleep_until(started + duration).await,
        None => std::future::pending().await,
    }
}

impl Simulator {
    /// Switches all devices on. Needs a runtime.
    pub fn start(args: &SimulateArgs) -> anyhow::Result<Self> {
        let claims = Claims::load(args)?;
        let ids = device_ids(args)?;
        let faults = fault::assign(&args.fault, &ids);
        if let Some(stranger) = faults.keys().find(|id| !ids.contains(id)) {
            bail!("--fault names {stranger}, which is none of the devices");
        }
        let anchors = match &args.trust {
            Some(file) => Some(load_anchors(file)?),
            None => None,
        };
        let shared = Arc::new(Shared {
            totals: Mutex::new(Totals::default()),
            changes: AtomicU64::new(1),
            claims: Arc::new(Semaphore::new(args.claim_connections.max(1))),
            pace: Arc::new(Pace::new(args.connect_rate)),
        });
        let trusts = Arc::new(Trusts::default());
        let mut report = Report::new(Arc::clone(&shared));
        let mut stops = Vec::with_capacity(ids.len());
        let mut tasks = JoinSet::new();
        for (number, id) in ids.into_iter().enumerate() {
            let faults = faults.get(&id).cloned().unwrap_or_default();
            let setup = setup(args, &claims, anchors.as_ref(), &id, &faults, &trusts)?;
            let fuse = Fuse::never();
            let seen = report.add(id.clone());
            let (stop, stopped) = tokio::sync::watch::channel(false);
            let rng = StdRng::seed_from_u64(args.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ number as u64);
            let hooks = Sim::new(
                id.clone(),
                faults,
                fuse.clone(),
                stop.clone(),
                Arc::clone(&shared),
                Arc::clone(&seen),
            );
            stops.push(stop);
            let setup = Arc::new(setup);
            if let Some(dir) = &args.state_dir {
                let store = Store::new(FileDisk::with_fuse(&dir.join(id.as_str()), fuse.clone())?);
                tasks.spawn(live(
                    Device {
                        setup,
                        store,
                        hooks,
                        fuse,
                        rng,
                    },
                    stopped,
                    seen,
                ));
            } else {
                let store = Store::new(MemoryDisk::new(fuse.clone(), number % 2 == 0));
                tasks.spawn(live(
                    Device {
                        setup,
                        store,
                        hooks,
                        fuse,
                        rng,
                    },
                    stopped,
                    seen,
                ));
            }
        }
        Ok(Self {
            report: Arc::new(report),
            stops,
            tasks,
        })
    }

    /// What is seen of the devices.
    pub fn report(&self) -> &Arc<Report> {
        &self.report
    }

    /// Switches all devices off and waits until they have left, or for a few seconds.
    pub async fn stop(mut self) {
        for stop in &self.stops {
            let _ = stop.send(true);
        }
        let left = async { while self.tasks.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(LEAVE_TIME, left).await;
    }
}

/// One device: after a power cut it comes back.
async fn live<D: Disk>(
    mut device: Device<Store<D>, Sim>,
    mut stop: tokio::sync::watch::Receiver<bool>,
    seen: Arc<Mutex<Seen>>,
) {
    for slot in [Slot::A, Slot::B] {
        if let Ok(chain) = device.store.certificate(slot)
            && let (leaf, rest) = chain.split_at(1.min(chain.len()))
        {
            let mut seen = seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            *seen.pem.get_mut(slot) = Some((write_certificates(leaf), write_certificates(rest)));
        }
    }
    while let Err(error) = device.run(&mut stop).await {
        tracing::info!(device = %device.setup.config.device, %error, "down");
        seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner).connected = false;
        let pause = Duration::from_millis(rand::RngExt::random_range(&mut device.rng, 500..2000));
        tokio::select! {
            () = tokio::time::sleep(pause) => device.fuse.mend(),
            () = stopped(&mut stop) => return,
        }
    }
    seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner).connected = false;
}

fn setup(
    args: &SimulateArgs,
    claims: &Claims,
    anchors: Option<&Vec<Der>>,
    id: &DeviceId,
    faults: &[Fault],
    trusts: &Arc<Trusts>,
) -> anyhow::Result<Setup> {
    let claim = claims.for_device(id);
    let from_claim = claim.as_deref();
    let clock_offset = faults.iter().find_map(|f| match f {
        Fault::Clock(offset) => Some(*offset),
        _ => None,
    });
    Ok(Setup {
        config: Config {
            device: id.clone(),
            broker: args
                .broker_id
                .clone()
                .or_else(|| from_claim.map(|c| c.broker.clone()))
                .context("--broker-id or a claim is needed")?,
            agent: concat!("certwave-agent simulate ", env!("CARGO_PKG_VERSION")).to_owned(),
            claim: claim.is_some(),
            accepts_jobs: !faults.contains(&Fault::Reject),
            algorithms: Algorithm::ALL.to_vec(),
            beat: args.beat,
        },
        url: args
            .broker_url
            .clone()
            .or_else(|| from_claim.map(|c| c.url.clone()))
            .context("--broker-url or a claim is needed")?,
        prefix: args
            .topic_prefix
            .clone()
            .or_else(|| from_claim.map(|c| c.prefix.clone()))
            .unwrap_or_else(|| certwave_protocol::topic::DEFAULT_PREFIX.to_owned()),
        anchors: anchors
            .cloned()
            .or_else(|| from_claim.map(|c| c.anchors.clone()))
            .context("--trust or a claim is needed")?,
        claim,
        backoff: (Duration::from_secs(1), Duration::from_secs(args.backoff_max.max(1))),
        keep_alive: args.keep_alive,
        trusts: Arc::clone(trusts),
        clock_offset: clock_offset.unwrap_or(0),
    })
}

struct Claims {
    bound: HashMap<DeviceId, Arc<Claim>>,
    shared: Option<Arc<Claim>>,
}

impl Claims {
    fn load(args: &SimulateArgs) -> anyhow::Result<Self> {
        let mut files = args.claim.clone();
        if let Some(dir) = &args.claim_dir {
            for entry in std::fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))? {
                let path = entry?.path();
                if path.extension().is_some_and(|e| e == "json") {
                    files.push(path);
                }
            }
            files.sort();
        }
        let mut claims = Self {
            bound: HashMap::new(),
            shared: None,
        };
        for file in files {
            let mut claim = Claim::load(&file).with_context(|| format!("claim {}", file.display()))?;
            if let Some(url) = &args.claims_url {
                claim.claims_url = url.clone();
            }
            match claim.device.clone() {
                Some(device) => claims.bound.insert(device, Arc::new(claim)),
                None => claims.shared.replace(Arc::new(claim)),
            };
        }
        Ok(claims)
    }

    fn for_device(&self, id: &DeviceId) -> Option<Arc<Claim>> {
        self.bound.get(id).or(self.shared.as_ref()).cloned()
    }
}

fn device_ids(args: &SimulateArgs) -> anyhow::Result<Vec<DeviceId>> {
    let Some(file) = &args.ids_from else {
        let digits = args.digits;
        return (1..=args.count)
            .map(|n| Ok(format!("{}{n:0digits$}", args.prefix_name).parse()?))
            .collect();
    };
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    text.lines()
        .map(str::trim)
        .filter(|l| !l.is_empty())
        .map(|l| l.parse().with_context(|| l.to_owned()))
        .collect()
}

fn load_anchors(file: &Path) -> anyhow::Result<Vec<Der>> {
    let pem = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let anchors: Vec<_> = read_certificates(&pem)
        .map_err(anyhow::Error::msg)?
        .iter()
        .map(|c| Der(c.to_vec()))
        .collect();
    if anchors.is_empty() {
        bail!("{} holds no certificate", file.display());
    }
    tracing::debug!(bundle = %Fingerprint::of_bundle(&anchors), "trust");
    Ok(anchors)
}

/// How often something that the report shows has changed.
pub(crate) fn changes(shared: &Shared) -> u64 {
    shared.changes.load(Ordering::Relaxed)
}

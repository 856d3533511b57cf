//! Thousands of devices in one process, with the same code as one device, a seed, and faults.

mod args;
pub mod fault;
pub mod history;
mod plan;
pub mod report;
pub mod watch;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::bail;
use certwave_protocol::message::Slot;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::sync::watch::{Receiver, Sender, channel};
use tokio::task::JoinSet;

pub use self::args::SimulateArgs;
use self::history::History;
use self::plan::{Plan, device_ids};
use self::report::Report;
use self::watch::{Seen, Shared, Sim, lock};
use crate::device::{Device, stopped};
use crate::disk::{Disk, FileDisk, Fuse, MemoryDisk};
use crate::setup::Setup;
use crate::store::{Storage as _, Store, write_certificates};

/// How long the devices may take to leave.
const LEAVE_TIME: Duration = Duration::from_secs(5);

/// A simulator that runs.
pub struct Simulator {
    report: Arc<Report>,
    stops: Vec<Sender<bool>>,
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
        let plan = Plan::read(args)?;
        let ids = device_ids(args)?;
        let faults = fault::assign(&args.fault, &ids);
        if let Some(stranger) = faults.keys().find(|id| !ids.contains(id)) {
            bail!("--fault names {stranger}, which is none of the devices");
        }
        let history = args.history.as_deref().map(History::append).transpose()?;
        let shared = Arc::new(Shared::new(args.claim_connections, args.connect_rate, history));
        let mut report = Report::new(Arc::clone(&shared));
        let mut stops = Vec::with_capacity(ids.len());
        let mut tasks = JoinSet::new();
        for (number, id) in ids.into_iter().enumerate() {
            let faults = faults.get(&id).cloned().unwrap_or_default();
            let setup = Arc::new(plan.setup(&id, &faults)?);
            let fuse = Fuse::never();
            let seen = report.add(id.clone());
            let (stop, stopped) = channel(false);
            stops.push(stop.clone());
            let unit = Unit {
                setup,
                hooks: Sim::new(
                    id.clone(),
                    faults,
                    fuse.clone(),
                    stop,
                    Arc::clone(&shared),
                    Arc::clone(&seen),
                ),
                fuse: fuse.clone(),
                rng: StdRng::seed_from_u64(args.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ number as u64),
                stop: stopped,
                seen,
            };
            match &args.state_dir {
                Some(dir) => tasks.spawn(unit.live(FileDisk::with_fuse(&dir.join(id.as_str()), fuse)?)),
                None => tasks.spawn(unit.live(MemoryDisk::new(fuse, number % 2 == 0))),
            };
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

/// One device, but for its disk.
struct Unit {
    setup: Arc<Setup>,
    hooks: Sim,
    fuse: Fuse,
    rng: StdRng,
    stop: Receiver<bool>,
    seen: Arc<Mutex<Seen>>,
}

impl Unit {
    /// Switches it on; after a power cut it comes back.
    async fn live<D: Disk>(self, disk: D) {
        let (mut stop, seen) = (self.stop, self.seen);
        let mut device = Device {
            setup: self.setup,
            store: Store::new(disk),
            hooks: self.hooks,
            fuse: self.fuse,
            rng: self.rng,
        };
        for slot in [Slot::A, Slot::B] {
            if let Ok(chain) = device.store.certificate(slot)
                && let (leaf, rest) = chain.split_at(1.min(chain.len()))
            {
                let pem = (write_certificates(leaf), write_certificates(rest));
                *lock(&seen).pem.get_mut(slot) = Some(pem);
            }
        }
        while let Err(error) = device.run(&mut stop).await {
            tracing::info!(device = %device.setup.config.device, %error, "down");
            lock(&seen).connected = false;
            let pause = Duration::from_millis(device.rng.random_range(500..2000));
            tokio::select! {
                () = tokio::time::sleep(pause) => device.fuse.mend(),
                () = stopped(&mut stop) => return,
            }
        }
        lock(&seen).connected = false;
    }
}

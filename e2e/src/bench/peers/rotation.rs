//! A fleet rotated by Certwave, and as many Certificates renewed by cert-manager, on the same API server.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::cert_manager::CertManager;
use super::results::{Better, Figure, Rounds};
use super::{CERTWAVE, machine};
use crate::api::ApiServer;
use crate::bench::rotation::{quiet, reads, run, settle, writes};
use crate::bench::wire::cpu_seconds;
use crate::bench::{FLEET, number, scaled};
use crate::stack::{Simulation, Stack, objects};
use crate::tools::progress;

const DEVICES: usize = 2_000;
const PEER: &str = "cert-manager";
const QUIET: Duration = Duration::from_mins(2);
const RATE: Figure = Figure {
    name: "certificates replaced",
    unit: "1/s",
    better: Better::More,
};
const CPU: Figure = Figure {
    name: "the controller's CPU time for each",
    unit: "ms",
    better: Better::Less,
};
const WRITES: Figure = Figure {
    name: "writes to the API for each",
    unit: "requests",
    better: Better::Less,
};
const READS: Figure = Figure {
    name: "reads from the API for each",
    unit: "requests",
    better: Better::Less,
};

/// What was done in a round, and in which time.
struct Done {
    certificates: f64,
    time: Duration,
}

/// What a round took.
struct Taken {
    certificates: f64,
    seconds: f64,
    cpu: f64,
    writes: f64,
    reads: f64,
}

/// Both run throughout; in each round the one works, then the other.
pub(super) async fn measure(rounds: &mut Rounds) -> Result<Vec<String>> {
    let count = scaled(DEVICES);
    let mosquitto = machine::mosquitto()?;
    let api = Arc::new(ApiServer::start().await?);
    api.apply_crds()?;
    let kubernetes = api.client().await?.apiserver_version().await?.git_version;
    let mut peer = CertManager::start(&api, count).await?;
    let mut stack = enrolled(Arc::clone(&api), count).await?;
    for round in 1..=rounds.count() {
        quiet(&api, QUIET).await?;
        let pid = stack.controller()?.id();
        let rotation = objects::rotation(stack.namespace(), &format!("round-{round}"));
        // The one write that is ours is the Rotation.
        let taken = watched(&api, pid, 1.0, async {
            let start = Instant::now();
            let confirmed = run(&mut stack, count, &rotation).await?;
            let time = start.elapsed();
            ensure!(confirmed > 0.0, "no device is confirmed");
            progress(&format!("round {round}: {confirmed} of {count} devices are confirmed"));
            Ok(Done {
                certificates: confirmed,
                time,
            })
        });
        taken.await?.add(rounds, CERTWAVE);

        // Ours is one write for each Certificate: that it is to be renewed.
        let taken = watched(&api, peer.process().id(), number(count), async {
            Ok(Done {
                certificates: number(count),
                time: peer.renew().await?,
            })
        });
        taken.await?.add(rounds, PEER);
        peer.process().check_running()?;
    }
    Ok(vec![
        machine::certwave(),
        format!("{PEER} {}", CertManager::version()?),
        format!("Kubernetes {kubernetes}"),
        mosquitto,
        machine::go()?,
    ])
}

/// A stack whose devices have their first certificates.
async fn enrolled(api: Arc<ApiServer>, count: usize) -> Result<Stack> {
    let mut stack = Stack::on(api, "peers").await?;
    stack.apply_foundation(&FLEET)?;
    stack.start_controller().await?;
    stack.start_broker().await?;
    let simulation = Simulation {
        devices: count,
        state: None,
        report: None,
        claim: stack.create_claim(count)?,
        seed: 1,
        connect_rate: 2_000,
        faults: Vec::new(),
    };
    stack.declare_devices(simulation.device_ids()).await?;
    stack.start_devices(&simulation)?;
    settle(&mut stack, count, Instant::now()).await?;
    Ok(stack)
}

/// What an act took a controller and the API server, up to the last write that follows from it; `own` writes are the act's own.
async fn watched(api: &ApiServer, pid: u32, own: f64, act: impl Future<Output = Result<Done>>) -> Result<Taken> {
    let (cpu, writes_before, reads_before) = (cpu_seconds(pid)?, writes(api).await?, reads(api).await?);
    let done = act.await?;
    quiet(api, QUIET).await?;
    Ok(Taken {
        certificates: done.certificates,
        seconds: done.time.as_secs_f64(),
        cpu: cpu_seconds(pid)? - cpu,
        writes: writes(api).await? - writes_before - own,
        reads: reads(api).await? - reads_before,
    })
}

impl Taken {
    fn add(&self, rounds: &mut Rounds, of: &str) {
        let count = self.certificates;
        rounds.add(RATE, of, count / self.seconds);
        rounds.add(CPU, of, self.cpu * 1e3 / count);
        rounds.add(WRITES, of, self.writes / count);
        rounds.add(READS, of, self.reads / count);
    }
}

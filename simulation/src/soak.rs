//! Seed after seed, each in a process of its own: all are split from one in which the fleet has enrolled.

use std::collections::BTreeMap;
use std::io::{PipeReader, Read as _, Write as _};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, WaitOptions, wait};

use crate::mutant::Mutant;
use crate::os;
use crate::world::{Outcome, World};

/// What a world is made of from: the same one for all runs of a version.
const FIRST: u64 = 0x5eed;

/// What to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// The first seed.
    pub from: u64,
    /// How many seeds; none: until the time is over.
    pub seeds: Option<u64>,
    /// How long, real milliseconds.
    pub millis: Option<i64>,
    /// Devices.
    pub devices: usize,
    /// Processes at a time.
    pub workers: usize,
    /// A mistake on purpose.
    pub mutant: Option<Mutant>,
    /// Go on when a seed fails.
    pub keep_going: bool,
    /// Print everything that happens.
    pub aloud: bool,
    /// How long a run may take, real seconds.
    pub patience: u32,
    /// How often each seed is run.
    pub times: u64,
}

/// What came of all of it.
#[derive(Debug, Default)]
pub struct Report {
    /// Seeds that ran.
    pub runs: u64,
    /// Those that failed.
    pub failed: Vec<(u64, Outcome)>,
    /// Real milliseconds for all, and for the world that they began with.
    pub millis: i64,
    /// See above.
    pub preparing: i64,
    /// Simulated seconds, jobs, faults, and lines of history.
    pub seconds: i64,
    /// See above.
    pub jobs: usize,
    /// See above.
    pub faults: usize,
    /// The hash of each seed's history.
    pub hashes: BTreeMap<u64, Vec<u64>>,
}

/// Runs the seeds.
///
/// # Errors
/// When the world cannot be made, or the system gives no processes.
pub fn run(options: &Options, mut each: impl FnMut(u64, &Outcome)) -> anyhow::Result<Report> {
    let begun = os::real_ms();
    os::take_over(FIRST);
    let runtime = runtime()?;
    let mut world = runtime
        .block_on(World::prepare(options.devices, FIRST))
        .context("the fleet did not enrol")?;
    if options.aloud {
        world.ground.history.aloud();
    }
    let mut report = Report {
        preparing: os::real_ms() - begun,
        ..Report::default()
    };
    let mut running: BTreeMap<i32, (u64, PipeReader)> = BTreeMap::new();
    let times = options.times.max(1);
    let mut next = options.from;
    let mut stop = false;
    loop {
        let time_left = options.millis.is_none_or(|millis| os::real_ms() - begun < millis);
        let seeds_left = options.seeds.is_none_or(|seeds| next - options.from < seeds * times);
        let more = time_left && seeds_left && !stop;
        if more && running.len() < options.workers {
            let seed = options.from + (next - options.from) / times;
            next += 1;
            let (reader, mut writer) = std::io::pipe()?;
            let Some(child) = os::fork(options.patience)? else {
                let outcome = runtime.block_on(world.run(seed, options.mutant));
                let told = match outcome {
                    Ok(outcome) => serde_json::to_vec(&outcome).unwrap_or_default(),
                    Err(error) => error.to_string().into_bytes(),
                };
                let _ = writer.write_all(&told);
                drop(writer);
                os::exit_at_once(0);
            };
            running.insert(Pid::as_raw(Some(child)), (seed, reader));
            continue;
        }
        if running.is_empty() {
            break;
        }
        let Some((pid, _)) = wait(WaitOptions::empty())? else {
            continue;
        };
        let Some((seed, mut reader)) = running.remove(&Pid::as_raw(Some(pid))) else {
            continue;
        };
        let mut told = Vec::new();
        reader.read_to_end(&mut told)?;
        let outcome = serde_json::from_slice(&told).unwrap_or_else(|_| stuck(&told));
        report.runs += 1;
        report.seconds += outcome.seconds;
        report.jobs += outcome.peak.1;
        report.faults += outcome.faults;
        report.hashes.entry(seed).or_default().push(outcome.hash);
        each(seed, &outcome);
        if !outcome.breaches.is_empty() {
            report.failed.push((seed, outcome));
            stop |= !options.keep_going;
        }
    }
    report.millis = os::real_ms() - begun;
    if report.runs == 0 {
        bail!("no seed was run");
    }
    Ok(report)
}

/// What a run is taken for that has not said how it ended.
fn stuck(told: &[u8]) -> Outcome {
    let told = String::from_utf8_lossy(told).into_owned();
    let why = if told.is_empty() {
        "the run did not end in time, or panicked".to_owned()
    } else {
        told
    };
    Outcome {
        breaches: vec![why],
        last: Vec::new(),
        hash: 0,
        lines: 0,
        seconds: 0,
        peak: (0, 0),
        faults: 0,
    }
}

/// One thread, and time that goes on only when everybody waits. Without sockets: nothing of the system is shared between processes.
fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_time().start_paused(true);
    builder.on_thread_unpark(tell_the_time);
    let runtime = builder.build()?;
    runtime.block_on(async { tell_the_time() });
    Ok(runtime)
}

/// Lets whoever asks the system for the time know of it.
fn tell_the_time() {
    thread_local!(static START: std::cell::Cell<Option<tokio::time::Instant>> = const { std::cell::Cell::new(None) });
    let now = tokio::time::Instant::now();
    let start = START.get().unwrap_or_else(|| {
        // The first call, before anybody has waited.
        START.set(Some(now));
        now
    });
    os::set_elapsed(i64::try_from((now - start).as_nanos()).unwrap_or(i64::MAX));
}

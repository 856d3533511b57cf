//! `certwave-soak`: simulates seed after seed until one fails.

use anyhow::ensure;
use certwave_simulation::mutant::Mutant;
use certwave_simulation::soak::{self, Options};
use clap::Parser;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How long one seed may take unless something else is said, seconds.
const PATIENCE: u32 = 120;

/// Simulates the operator, its devices and all that is around them, seed after seed, until one fails.
#[derive(Parser)]
#[command(name = "certwave-soak", version, about)]
struct Arguments {
    /// Hours to go on for.
    #[arg(long, env = "HOURS", default_value_t = 0.0)]
    hours: f64,
    /// Minutes to go on for.
    #[arg(long, env = "MINUTES", default_value_t = 0.0)]
    minutes: f64,
    /// How many seeds.
    #[arg(long, env = "SEEDS")]
    seeds: Option<u64>,
    /// Only this seed, with all that happens.
    #[arg(long, env = "SEED")]
    seed: Option<u64>,
    /// The first seed.
    #[arg(long, env = "FROM", default_value_t = 1)]
    from: u64,
    /// Devices.
    #[arg(long, env = "DEVICES", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    devices: u16,
    /// Processes at a time; as many as there are cores where left out.
    #[arg(long, env = "WORKERS")]
    workers: Option<usize>,
    /// A mistake to be made on purpose.
    #[arg(long, env = "MUTANT")]
    mutant: Option<Mutant>,
    /// Go on when a seed fails.
    #[arg(long, env = "KEEP_GOING", value_parser = clap::builder::FalseyValueParser::new())]
    keep_going: bool,
    /// Each seed so many times: the histories must be the same.
    #[arg(long, default_value_t = 1)]
    times: u64,
    /// How long one seed may take, real seconds.
    #[arg(long, env = "PATIENCE", default_value_t = PATIENCE)]
    patience: u32,
    /// Print each seed's history's hash.
    #[arg(long)]
    hashes: bool,
    /// Print what the operator logs, for one seed.
    #[arg(long, env = "LOG")]
    log: Option<String>,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let workers = match arguments.seed {
        Some(_) => 1,
        None => arguments
            .workers
            .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from)),
    };
    if let Some(filter) = &arguments.log {
        tracing_subscriber::fmt()
            .with_env_filter(filter.as_str())
            .with_writer(std::io::stderr)
            .without_time()
            .init();
    }
    let minutes = arguments.hours.mul_add(60.0, arguments.minutes);
    #[allow(clippy::cast_possible_truncation)] // Some hours.
    let millis = (minutes > 0.0).then_some((minutes * 60_000.0) as i64);
    let seeds = match (arguments.seed, arguments.seeds, millis) {
        (Some(_), ..) => Some(1),
        (None, Some(seeds), _) => Some(seeds),
        (None, None, Some(_)) => None,
        (None, None, None) => Some(100),
    };
    let options = Options {
        from: arguments.seed.unwrap_or(arguments.from),
        seeds,
        millis,
        devices: usize::from(arguments.devices),
        workers,
        mutant: arguments.mutant,
        keep_going: arguments.keep_going,
        aloud: arguments.seed.is_some(),
        patience: arguments.patience,
        times: arguments.times,
    };
    let replay = replay(&options);
    let report = soak::run(&options, |seed, outcome| {
        if arguments.hashes {
            println!("{seed} {:016x} {}", outcome.hash, outcome.lines);
        }
        if !outcome.breaches.is_empty() {
            println!("seed {seed} FAILED after {} s of simulated time:", outcome.seconds);
            outcome.breaches.iter().for_each(|breach| println!("  {breach}"));
            println!("the last that happened:");
            outcome.last.iter().for_each(|line| println!("  {line}"));
            println!("to replay it: make soak SEED={seed}{replay}");
        }
    })?;
    #[allow(clippy::cast_precision_loss)] // For people.
    let (seconds, preparing) = (report.millis as f64 / 1000.0, report.preparing as f64 / 1000.0);
    println!(
        "{} seeds, {} failed; {} jobs, {} faults, {} hours of simulated time; {seconds:.1} s, {preparing:.1} of them to enrol {} devices",
        report.runs,
        report.failed.len(),
        report.jobs,
        report.faults,
        report.seconds / 3600,
        options.devices,
    );
    let same = report
        .hashes
        .values()
        .all(|hashes| hashes.windows(2).all(|pair| pair[0] == pair[1]));
    ensure!(same, "a seed had two histories");
    ensure!(report.failed.is_empty(), "a seed failed");
    Ok(())
}

/// What a replay must be told beside the seed.
fn replay(options: &Options) -> String {
    let mutant = options
        .mutant
        .map(|mutant| format!(" MUTANT={}", mutant.name()))
        .unwrap_or_default();
    let patience = match options.patience {
        PATIENCE => String::new(),
        other => format!(" PATIENCE={other}"),
    };
    format!(" DEVICES={}{mutant}{patience}", options.devices)
}

//! `certwave-agent`: a device's agent, the technician's view of it, and the simulator.

use clap::{Parser, Subcommand};

/// Keeps a device's certificate fresh, and never lets go of the one that works
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Simulate thousands of devices in one process, with faults
    Simulate(certwave_agent::simulate::SimulateArgs),
}

fn main() -> anyhow::Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    match Cli::parse().command {
        Command::Simulate(args) => {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(args.threads.max(1))
                .enable_all()
                .build()?;
            runtime.block_on(certwave_agent::simulate::run(args))
        }
    }
}

//! `certwave-agent`: a device's agent, the technician's view of it, and the simulator.

use std::path::PathBuf;
use std::process::ExitCode;

use certwave_agent::config::AgentConfig;
use certwave_agent::simulate::SimulateArgs;
use certwave_agent::technician::{doctor, status::Status};
use clap::{Args, Parser, Subcommand};
use tokio::runtime::Builder;

/// Keeps a device's certificate fresh, and never lets go of the one that works
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Args)]
struct ConfigArg {
    /// The configuration
    #[arg(long, default_value = "/etc/certwave-agent.toml", env = "CERTWAVE_AGENT_CONFIG")]
    config: PathBuf,
}

#[derive(Debug, Args)]
struct ShowArgs {
    #[command(flatten)]
    config: ConfigArg,
    /// As JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run this device's agent
    Run(ConfigArg),
    /// Show where this device stands
    Status(ShowArgs),
    /// Look at each thing that must be right, and say what to do; exit code 1 when something is wrong
    Doctor(ShowArgs),
    /// Simulate thousands of devices in one process, with faults
    Simulate(Box<SimulateArgs>),
}

fn main() -> ExitCode {
    run().unwrap_or_else(|error| {
        eprintln!("certwave-agent: {error:#}");
        ExitCode::from(2)
    })
}

fn run() -> anyhow::Result<ExitCode> {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    match Cli::parse().command {
        Command::Run(args) => {
            let config = AgentConfig::load(&args.config)?;
            Builder::new_current_thread()
                .enable_all()
                .build()?
                .block_on(certwave_agent::run::run(&config))?;
        }
        Command::Status(args) => {
            let status = Status::read(&AgentConfig::load(&args.config.config)?)?;
            if args.json {
                println!("{}", serde_json::to_string_pretty(&status)?);
            } else {
                print!("{status}");
            }
        }
        Command::Doctor(args) => {
            let diagnosis = doctor::examine(&args.config.config);
            if args.json {
                println!("{}", serde_json::to_string_pretty(&diagnosis)?);
            } else {
                print!("{diagnosis}");
            }
            return Ok(ExitCode::from(u8::from(!diagnosis.is_healthy())));
        }
        Command::Simulate(args) => {
            let runtime = Builder::new_multi_thread()
                .worker_threads(args.threads.max(1))
                .enable_all()
                .build()?;
            runtime.block_on(certwave_agent::simulate::run(*args))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

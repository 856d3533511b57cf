//! `certwave-agent run`.

use std::sync::Arc;
use std::time::Duration;

use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tokio::signal::unix::{SignalKind, signal};

use crate::config::AgentConfig;
use crate::device::{Device, stopped};
use crate::disk::{FileDisk, Fuse};
use crate::store::Store;
use crate::technician::live::Reporter;

/// How long the agent waits after its disk failed.
const AFTER_FAILURE: Duration = Duration::from_secs(10);

/// Runs the device until SIGTERM or SIGINT.
pub async fn run(config: &AgentConfig) -> anyhow::Result<()> {
    let setup = Arc::new(config.setup()?);
    let mut device = Device {
        setup,
        store: Store::new(FileDisk::open(&config.state_dir)?),
        hooks: Reporter::new(&config.state_dir),
        fuse: Fuse::never(),
        rng: StdRng::from_rng(&mut rand::rng()),
    };
    let (stop, mut stopping) = tokio::sync::watch::channel(false);
    let mut term = signal(SignalKind::terminate())?;
    tokio::spawn(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
        let _ = stop.send(true);
    });
    while let Err(error) = device.run(&mut stopping).await {
        tracing::error!(%error, "starting again from the journal");
        tokio::select! {
            () = tokio::time::sleep(AFTER_FAILURE) => {}
            () = stopped(&mut stopping) => break,
        }
    }
    Ok(())
}

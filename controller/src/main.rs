//! `certwave`: the operator, and the commands that belong beside it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use certwave_controller::engine::{Engine, now};
use certwave_controller::metrics::Metrics;
use certwave_controller::notice::Skewed;
use certwave_controller::registry::Registry;
use certwave_controller::{api, command, http, reconcile};
use certwave_ledger::{Ledger, SqliteLedger};
use clap::{Parser, Subcommand};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};

/// Rotates the certificates of device fleets.
#[derive(Parser)]
#[command(name = "certwave", version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the operator.
    Run(Run),
    /// Make, list, suspend and resume claims.
    Claim(command::claim::Arguments),
    /// Write a broker's configuration and ACL from its Broker object.
    BrokerConfig(command::broker_config::Arguments),
}

#[derive(clap::Args)]
struct Run {
    /// The ledger's file.
    #[arg(long, env = "CERTWAVE_LEDGER", default_value = "/var/lib/certwave/ledger.sqlite")]
    ledger: PathBuf,
    /// Where health, metrics, CRLs and CA certificates are served.
    #[arg(long, env = "CERTWAVE_HTTP", default_value = "0.0.0.0:8080")]
    http: SocketAddr,
    /// Base URL under which devices and brokers reach the CRLs, for CAs that name none.
    #[arg(long, env = "CERTWAVE_PUBLICATION_BASE_URL")]
    publication_base_url: Option<String>,
    /// Watch this namespace only.
    #[arg(long, env = "CERTWAVE_NAMESPACE")]
    namespace: Option<String>,
    /// Namespace of the Lease that elects the leader.
    #[arg(long, env = "CERTWAVE_LEASE_NAMESPACE", default_value = "certwave-system")]
    lease_namespace: String,
    /// This replica's name in the Lease.
    #[arg(long, env = "POD_NAME")]
    identity: Option<String>,
    /// How long changes of a device's status are gathered before they are written, milliseconds.
    #[arg(long, env = "CERTWAVE_STATUS_DELAY_MS", default_value_t = 1500)]
    status_delay_ms: u64,
    /// Log as JSON or as text.
    #[arg(long, env = "CERTWAVE_LOG_FORMAT", default_value = "json", value_parser = ["json", "text"])]
    log_format: String,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::Run(run) => {
            log(&run.log_format);
            operate(run).await
        }
        Command::Claim(arguments) => Ok(command::claim::run(arguments).await?),
        Command::BrokerConfig(arguments) => Ok(command::broker_config::run(arguments).await?),
    }
}

fn log(format: &str) {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    if format == "json" {
        builder.json().flatten_event(true).init();
    } else {
        builder.init();
    }
}

/// Serves HTTP, waits for leadership, takes an epoch, then works until told to stop or deposed.
async fn operate(run: Run) -> anyhow::Result<()> {
    let metrics = Arc::new(Metrics::new()?);
    let ledger: Arc<dyn Ledger> = Arc::new(
        SqliteLedger::open(&run.ledger)
            .with_context(|| format!("the ledger {} cannot be opened", run.ledger.display()))?,
    );
    let client = api::client(Arc::clone(&metrics)).await?;
    let listener = TcpListener::bind(run.http)
        .await
        .with_context(|| format!("cannot listen on {}", run.http))?;
    let address = listener.local_addr()?;
    tracing::info!(%address, version = env!("CARGO_PKG_VERSION"), "serving HTTP");
    let (ready, is_ready) = watch::channel(false);
    let state = http::State {
        ledger: Arc::clone(&ledger),
        metrics: Arc::clone(&metrics),
        ready: is_ready,
    };
    let server = tokio::spawn(http::serve(listener, state));

    let mut stop = std::pin::pin!(stopped());
    let identity = run
        .identity
        .unwrap_or_else(|| format!("certwave-{}", uuid::Uuid::new_v4()));
    // A replica that waits for its turn is ready too: a rolling update goes on.
    ready.send_replace(true);
    let leadership = tokio::select! {
        l = reconcile::leader::acquire(client.clone(), &run.lease_namespace, "certwave-controller", &identity) => l?,
        () = &mut stop => return Ok(()),
    };
    let gate = leadership.gate();
    let epoch = ledger
        .take_epoch(&identity, now())
        .await
        .context("the ledger gives no epoch")?;
    metrics.leader.set(1);
    tracing::info!(identity, epoch, "leading");

    let registry = Arc::new(Registry::default());
    let (notices, heard) = mpsc::channel(1024);
    let skewed = Arc::new(Skewed::default());
    let engine = Engine::new(
        Arc::clone(&ledger),
        epoch,
        Arc::clone(&registry),
        notices,
        Arc::clone(&metrics),
        Arc::clone(&skewed),
        Arc::clone(&gate),
    );
    let reconcilers = reconcile::run(reconcile::Context {
        client,
        ledger,
        epoch,
        registry,
        notices: heard,
        skewed,
        publication_base: run.publication_base_url.or_else(|| own_base(address)),
        namespace: run.namespace,
        metrics: Arc::clone(&metrics),
        status_delay: Duration::from_millis(run.status_delay_ms),
    });
    let outcome = tokio::select! {
        r = engine.run() => r.map_err(anyhow::Error::from),
        r = reconcilers => r.map_err(anyhow::Error::from),
        () = leadership.lost() => Err(anyhow::anyhow!("the Lease was lost; another replica takes over")),
        () = &mut stop => Ok(()),
    };
    // Whoever found out first: from now on nobody says anything.
    gate.close();
    metrics.leader.set(0);
    leadership.release().await;
    server.abort();
    outcome
}

/// Where this process itself can be reached, if it listens on one address alone: certificates must not name `0.0.0.0`.
fn own_base(address: SocketAddr) -> Option<String> {
    if address.ip().is_unspecified() {
        tracing::warn!(
            "no --publication-base-url: CAs without spec.publication put no distribution point into certificates"
        );
        return None;
    }
    Some(format!("http://{address}"))
}

/// Resolves on SIGTERM or SIGINT.
async fn stopped() {
    let terminated = async {
        match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            Ok(mut signal) => {
                signal.recv().await;
            }
            Err(error) => {
                tracing::warn!(%error, "SIGTERM is not heard");
                std::future::pending::<()>().await;
            }
        }
    };
    tokio::select! {
        () = terminated => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}

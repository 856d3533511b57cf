//! `certwave`: the operator, and the commands that belong beside it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use certwave_controller::clock::Clock;
use certwave_controller::engine::dial::Mqtt;
use certwave_controller::ledger::LedgerArguments;
use certwave_controller::metrics::Metrics;
use certwave_controller::parts::Parts;
use certwave_controller::publish::Cache;
use certwave_controller::replica::{self, LEASE};
use certwave_controller::{api, command, fitting, gates, history, http, ocsp, reconcile, telemetry};
use clap::{Parser, Subcommand};
use tokio::net::TcpListener;
use tokio::sync::watch;

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
    /// Back up, restore and verify the ledger.
    Ledger(command::ledger::Arguments),
    /// Answer OCSP from the ledger, as stateless replicas beside the operator.
    Responder(Responder),
    /// Write a broker's configuration and ACL from its Broker object.
    BrokerConfig(command::broker_config::Arguments),
    /// Keep the CRLs of the Mosquitto beside this.
    CrlSync(command::crl_sync::Arguments),
}

#[derive(clap::Args)]
struct Responder {
    #[command(flatten)]
    service: ocsp::service::Arguments,
    /// Log as JSON or as text.
    #[arg(long, env = "CERTWAVE_LOG_FORMAT", default_value = "json", value_parser = ["json", "text"])]
    log_format: String,
}

#[derive(clap::Args)]
struct Run {
    #[command(flatten)]
    ledger: LedgerArguments,
    /// Where health, metrics, CRLs, CA certificates and OCSP are served.
    #[arg(long, env = "CERTWAVE_HTTP", default_value = "0.0.0.0:8080")]
    http: SocketAddr,
    /// Where devices' histories are served to `kubectl certwave inspect`. Whoever reaches it may read them: on loopback those who may
    /// port-forward to this pod.
    #[arg(long, env = "CERTWAVE_HISTORY", default_value = "127.0.0.1:8081")]
    history: SocketAddr,
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
    /// Days after its end until a certificate that nobody refers to any more moves into the ledger's archive.
    #[arg(long, env = "CERTWAVE_ARCHIVE_AFTER_DAYS", default_value_t = 90, value_parser = clap::value_parser!(u32).range(1..))]
    archive_after_days: u32,
    /// How OCSP answers are made.
    #[command(flatten)]
    ocsp: ocsp::service::OcspArguments,
    /// Log as JSON or as text.
    #[arg(long, env = "CERTWAVE_LOG_FORMAT", default_value = "json", value_parser = ["json", "text"])]
    log_format: String,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::Run(run) => {
            let _telemetry = telemetry::begin(is_json(&run.log_format))?;
            Box::pin(operate(run)).await
        }
        Command::Responder(responder) => {
            let _telemetry = telemetry::begin(is_json(&responder.log_format))?;
            respond(responder.service).await
        }
        Command::Claim(arguments) => Ok(command::claim::run(arguments).await?),
        Command::Ledger(arguments) => Ok(command::ledger::run(arguments).await?),
        Command::CrlSync(arguments) => {
            let _telemetry = telemetry::begin(is_json(&arguments.log_format))?;
            Ok(command::crl_sync::run(arguments).await?)
        }
        Command::BrokerConfig(arguments) => Ok(command::broker_config::run(arguments).await?),
    }
}

fn is_json(format: &str) -> bool {
    format == "json"
}

/// Answers OCSP until told to stop.
async fn respond(arguments: ocsp::service::Arguments) -> anyhow::Result<()> {
    let ledger = arguments
        .ledger
        .open_beside()
        .with_context(|| format!("the ledger {} cannot be opened", arguments.ledger.name()))?;
    tokio::select! {
        served = ocsp::service::run(ledger, &arguments) => served,
        () = stopped() => Ok(()),
    }
}

/// Serves HTTP, takes what parts of the work it is to do, and does them until told to stop or deposed.
async fn operate(run: Run) -> anyhow::Result<()> {
    let metrics = Arc::new(Metrics::new()?);
    let ledger = run
        .ledger
        .open()
        .with_context(|| format!("the ledger {} cannot be opened", run.ledger.name()))?;
    let clock = Arc::new(Clock::default());
    clock.rule();
    let client = api::client(Arc::clone(&metrics), Arc::clone(&clock)).await?;
    // Before anything is answered from it.
    replica::settle(client.clone(), ledger.as_ref(), (&run.lease_namespace, LEASE)).await;
    let listener = TcpListener::bind(run.http)
        .await
        .with_context(|| format!("cannot listen on {}", run.http))?;
    let address = listener.local_addr()?;
    tracing::info!(%address, version = env!("CARGO_PKG_VERSION"), "serving HTTP");
    let histories = serve_histories(run.history, Arc::clone(&ledger)).await;
    let (ready, is_ready) = watch::channel(Err("starting".to_owned()));
    let signers = Arc::new(ocsp::Signers::new(Arc::clone(&metrics.ocsp)));
    let responder = Arc::new(ocsp::Responder::new(
        Arc::clone(&ledger),
        Arc::clone(&signers),
        Arc::clone(&metrics.ocsp),
        ocsp::Options::from(&run.ocsp),
    ));
    let watch = tokio::spawn(Arc::clone(&responder).watch(ocsp::http::seconds));
    let state = http::State {
        ledger: Arc::clone(&ledger),
        crls: Cache::new(Arc::clone(&ledger)),
        responder,
        metrics: Arc::clone(&metrics),
        ready: is_ready,
    };
    let server = tokio::spawn(http::serve(listener, state));

    let mut stop = Box::pin(stopped());
    let identity = run
        .identity
        .unwrap_or_else(|| format!("certwave-{}", uuid::Uuid::new_v4()));
    // CRLs and OCSP are served without an API server; a version that does not fit is not rolled out.
    let waiting = |unfit: &fitting::Unfit| {
        let state = if unfit.is_known() {
            Err(unfit.to_string())
        } else {
            Ok(())
        };
        drop(ready.send_replace(state));
    };
    tokio::select! {
        () = fitting::wait(&client, waiting) => {}
        () = &mut stop => return Ok(()),
    }
    // A replica that waits for its turn is ready too: a rolling update goes on.
    drop(ready.send_replace(Ok(())));
    let parts = Arc::new(Parts {
        feed: Arc::new(reconcile::Feed::new(&client, run.namespace.as_deref())),
        client,
        ledger,
        identity,
        lease: (run.lease_namespace.clone(), LEASE),
        clock,
        metrics: Arc::clone(&metrics),
        signers,
        publication_base: run.publication_base_url.or_else(|| own_base(address)),
        namespace: run.namespace,
        status_delay: Duration::from_millis(run.status_delay_ms),
        archive_after_days: run.archive_after_days,
        standing: watch::Sender::new(0),
        dial: Arc::new(Mqtt),
        http: gates::Client::new()?,
    });
    let outcome = Box::pin(replica::run(&parts, stop)).await;
    watch.abort();
    server.abort();
    histories.abort();
    outcome
}

/// Serves devices' histories. Nothing depends on them, so an address that is taken stops nobody.
async fn serve_histories(address: SocketAddr, ledger: Arc<dyn certwave_ledger::Ledger>) -> tokio::task::JoinHandle<()> {
    let listener = TcpListener::bind(address).await;
    tokio::spawn(async move {
        match listener {
            Ok(listener) => history::serve(listener, ledger).await,
            Err(error) => tracing::warn!(%address, %error, "devices' histories are not served"),
        }
    })
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

//! `certwave responder`: OCSP as stateless replicas, beside the controller or without it.
//!
//! It reads the ledger and writes nothing. Signers come from a directory of mounted Secrets, one directory for each CA, which is
//! read again and again: kubelet swaps a link when a Secret has changed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use certwave_ledger::Ledger;
use certwave_protocol::ids::Fingerprint;
use tokio::net::TcpListener;

use super::{OcspMetrics, Options, Responder, SignerFault, Signers, http};
use crate::ledger::LedgerArguments;
use crate::metrics::{Register, build_info};
use crate::serve::serve;

/// How often the signers' files are looked at.
const PERIOD: Duration = Duration::from_secs(2);
/// The files of a Secret that make a signer.
const FILES: [&str; 3] = ["tls.crt", "tls.key", "ca.crt"];

/// How answers are made.
#[derive(clap::Args, Debug, Clone)]
#[group(skip)]
pub struct OcspArguments {
    /// From thisUpdate to nextUpdate of OCSP answers, seconds: for so long they serve while the ledger is away.
    #[arg(long, env = "CERTWAVE_OCSP_VALIDITY", default_value_t = 3600, value_parser = clap::value_parser!(i64).range(60..=604_800))]
    pub ocsp_validity: i64,
    /// How long HTTP caches may keep OCSP answers, seconds: so late a revocation shows behind them.
    #[arg(long, env = "CERTWAVE_OCSP_MAX_AGE", default_value_t = 10, value_parser = clap::value_parser!(i64).range(0..=86_400))]
    pub ocsp_max_age: i64,
    /// What signed answers may take in memory, MiB.
    #[arg(long, env = "CERTWAVE_OCSP_CACHE_MIB", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub ocsp_cache_mib: u16,
}

impl From<&OcspArguments> for Options {
    fn from(arguments: &OcspArguments) -> Self {
        Self {
            validity: arguments.ocsp_validity,
            max_age: arguments.ocsp_max_age,
            cache_bytes: usize::from(arguments.ocsp_cache_mib) << 20,
        }
    }
}

/// Arguments of `certwave responder`.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// The ledger, which the controller may be using: it is only read.
    #[command(flatten)]
    pub ledger: LedgerArguments,
    /// Directory with one directory for each CA, each with tls.crt, tls.key and ca.crt of its OCSP signer: the mounted
    /// Secrets `<ca>-ocsp`.
    #[arg(long, env = "CERTWAVE_OCSP_SIGNERS", default_value = "/var/run/certwave/signers")]
    pub signers: PathBuf,
    /// Where OCSP, health and metrics are served.
    #[arg(long, env = "CERTWAVE_HTTP", default_value = "0.0.0.0:8080")]
    pub http: SocketAddr,
    /// See above.
    #[command(flatten)]
    pub ocsp: OcspArguments,
}

/// Serves until the future is dropped.
///
/// # Errors
/// When the address is taken.
pub async fn run(ledger: Arc<dyn Ledger>, arguments: &Arguments) -> anyhow::Result<()> {
    let mut register = Register::of_process()?;
    build_info(&mut register)?;
    let metrics = Arc::new(OcspMetrics::new(&mut register)?);
    let signers = Arc::new(Signers::new(Arc::clone(&metrics)));
    let responder = Arc::new(Responder::new(
        ledger,
        Arc::clone(&signers),
        metrics,
        Options::from(&arguments.ocsp),
    ));
    let listener = TcpListener::bind(arguments.http)
        .await
        .map_err(|error| anyhow::anyhow!("cannot listen on {}: {error}", arguments.http))?;
    tracing::info!(address = %listener.local_addr()?, version = env!("CARGO_PKG_VERSION"), "serving OCSP");
    let rest = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .with_state(Arc::clone(&responder))
        .route("/metrics", get(expose))
        .with_state(Arc::new(register));
    let watch = Arc::clone(&responder).watch(http::seconds);
    let follow = follow(arguments.signers.clone(), signers);
    tokio::select! {
        () = serve(listener, http::beside(responder, rest)) => {}
        () = watch => {}
        () = follow => {}
    }
    Ok(())
}

async fn ready(State(responder): State<Arc<Responder>>) -> Response {
    match responder.waits_for(http::seconds()) {
        None => "ready\n".into_response(),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
    }
}

async fn expose(State(register): State<Arc<Register>>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], register.text()).into_response()
}

/// Reads the signers, again and again.
async fn follow(directory: PathBuf, signers: Arc<Signers>) {
    let mut seen = Seen::default();
    loop {
        let (from, known) = (directory.clone(), Arc::clone(&signers));
        let read = tokio::task::spawn_blocking(move || {
            seen.look(&from, &known);
            seen
        });
        seen = read.await.unwrap_or_default();
        tokio::time::sleep(PERIOD).await;
    }
}

/// What the directory held when it was looked at last: hash of the files, and the CA that the signer is of.
#[derive(Default)]
struct Seen(BTreeMap<PathBuf, (Fingerprint, Option<String>)>);

impl Seen {
    fn look(&mut self, directory: &Path, signers: &Signers) {
        let entries = match std::fs::read_dir(directory) {
            Ok(entries) => entries,
            Err(error) => {
                tracing::warn!(directory = %directory.display(), %error, "the signers' directory cannot be read");
                return;
            }
        };
        let found: BTreeSet<_> = entries
            .filter_map(|entry| Some(entry.ok()?.path()))
            // Kubelet's own (`..data`) are not Secrets.
            .filter(|path| {
                path.is_dir()
                    && !path
                        .file_name()
                        .is_some_and(|name| name.to_string_lossy().starts_with('.'))
            })
            .collect();
        for path in &found {
            self.read(path, signers);
        }
        // A Secret that is unmounted for good is another matter than one that cannot be read now.
        let gone: Vec<_> = self.0.keys().filter(|path| !found.contains(*path)).cloned().collect();
        for path in gone {
            if let Some((_, Some(issuer))) = self.0.remove(&path)
                && !self.0.values().any(|(_, other)| other.as_ref() == Some(&issuer))
            {
                tracing::warn!(
                    issuer,
                    "a signer is gone; its CA's certificates are not answered for any more"
                );
                signers.remove(&issuer);
            }
        }
        signers.set_complete();
    }

    /// Takes over the signer of one Secret, if it is there whole and has changed. Else the one before goes on.
    fn read(&mut self, path: &Path, signers: &Signers) {
        let texts = FILES.map(|name| std::fs::read_to_string(path.join(name)).unwrap_or_default());
        let hash = Fingerprint::of(texts.join("\0").as_bytes());
        let before = self.0.get(path);
        if before.is_some_and(|(seen, _)| *seen == hash) {
            return;
        }
        let issuer = match Signers::read(&texts[0], &texts[1], &texts[2]) {
            Ok((issuer, signer)) => {
                tracing::info!(issuer, not_after = signer.not_after(), "an OCSP signer was read");
                signers.set(&issuer, signer);
                Some(issuer)
            }
            Err(error) => {
                told(path, &error);
                before.and_then(|(_, issuer)| issuer.clone())
            }
        };
        self.0.insert(path.to_owned(), (hash, issuer));
    }
}

fn told(path: &Path, error: &SignerFault) {
    tracing::error!(path = %path.display(), %error, "no OCSP signer; the one before goes on, if there was one");
}

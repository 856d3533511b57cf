//! Health, metrics, CRLs, CA certificates and OCSP over HTTP.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State as Shared};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use certwave_ledger::{CertificateKind, Ledger};
use certwave_protocol::ids::Fingerprint;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tower::limit::GlobalConcurrencyLimitLayer;

use crate::metrics::Metrics;
use crate::ocsp::{self, Responder};
use crate::publish;

/// Requests for CRLs and certificates answered at the same time; more wait.
const CONCURRENCY: usize = 256;
/// The ledger answers in far less; a probe must not hang with it.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(5);

/// What the answers are made of.
#[derive(Clone)]
pub struct State {
    /// CA certificates.
    pub ledger: Arc<dyn Ledger>,
    /// CRLs.
    pub crls: Arc<publish::Cache>,
    /// OCSP.
    pub responder: Arc<Responder>,
    /// What `/metrics` shows.
    pub metrics: Arc<Metrics>,
    /// What `/readyz` says: why not yet.
    pub ready: watch::Receiver<Result<(), String>>,
}

/// Serves until the future is dropped.
pub async fn serve(listener: TcpListener, state: State) {
    let responder = Arc::clone(&state.responder);
    let app = Router::new()
        .route("/ca/{file}", get(authority))
        .merge(publish::router(Arc::clone(&state.crls)))
        .merge(crate::crl_index::routes())
        .layer(GlobalConcurrencyLimitLayer::new(CONCURRENCY))
        // Outside the limit: whoever floods the above must not have the probes fail.
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(state);
    crate::serve::serve(listener, ocsp::http::beside(responder, app)).await;
}

async fn ready(Shared(state): Shared<State>) -> Response {
    let answers = tokio::time::timeout(TIMEOUT, state.ledger.epoch()).await;
    let begun = state.ready.borrow().clone();
    match (begun, answers) {
        (Ok(()), Ok(Ok(_))) => "ready\n".into_response(),
        (Err(why), _) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
        (_, Ok(Err(error))) => (StatusCode::SERVICE_UNAVAILABLE, format!("ledger: {error}\n")).into_response(),
        (_, Err(_)) => (StatusCode::SERVICE_UNAVAILABLE, "ledger: no answer\n").into_response(),
    }
}

async fn metrics(Shared(state): Shared<State>) -> Response {
    let waiting = i64::try_from(state.ledger.waiting_writes()).unwrap_or(i64::MAX);
    state.metrics.ledger_writes_waiting.set(waiting);
    (
        [(header::CONTENT_TYPE, "text/plain; version=0.0.4")],
        state.metrics.text(),
    )
        .into_response()
}

/// A CA's certificate in DER, by its fingerprint or its key's id (RFC 5280 4.2.2.1).
async fn authority(Shared(state): Shared<State>, Path(file): Path<String>) -> Response {
    let Some(name) = file.strip_suffix(".cer") else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let found = tokio::time::timeout(TIMEOUT, async {
        match name.parse::<Fingerprint>() {
            Ok(fingerprint) => state.ledger.certificate(&fingerprint).await,
            Err(_) => state.ledger.authority(name).await,
        }
    });
    match found.await {
        Ok(Ok(Some(c))) if c.record.kind == CertificateKind::Authority => typed("application/pkix-cert", c.record.der),
        Ok(Ok(_)) => StatusCode::NOT_FOUND.into_response(),
        Ok(Err(_)) | Err(_) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}

fn typed(kind: &'static str, body: Vec<u8>) -> Response {
    ([(header::CONTENT_TYPE, kind)], body).into_response()
}

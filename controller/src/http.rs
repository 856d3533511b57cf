//! Health, metrics, CRLs and CA certificates over HTTP.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State as Shared};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use certwave_ledger::{CertificateKind, Ledger};
use certwave_protocol::ids::Fingerprint;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tower::limit::GlobalConcurrencyLimitLayer;

use crate::metrics::Metrics;

/// Requests for CRLs and certificates answered at the same time; more wait.
const CONCURRENCY: usize = 256;
/// The ledger answers in far less; a probe must not hang with it.
const TIMEOUT: Duration = Duration::from_secs(5);

/// What the answers are made of.
#[derive(Clone)]
pub struct State {
    /// CRLs and CA certificates.
    pub ledger: Arc<dyn Ledger>,
    /// What `/metrics` shows.
    pub metrics: Arc<Metrics>,
    /// What `/readyz` says.
    pub ready: watch::Receiver<bool>,
}

/// Serves until the listener fails or the task is ended.
///
/// # Errors
/// When the listener cannot accept any more.
pub async fn serve(listener: TcpListener, state: State) -> std::io::Result<()> {
    let app = Router::new()
        .route("/crl/{issuer}/{file}", get(crl))
        .route("/ca/{file}", get(authority))
        .layer(GlobalConcurrencyLimitLayer::new(CONCURRENCY))
        // Outside the limit: whoever floods the above must not have the probes fail.
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(state);
    axum::serve(listener, app).await
}

async fn ready(Shared(state): Shared<State>) -> Response {
    let answers = tokio::time::timeout(TIMEOUT, state.ledger.epoch()).await;
    match (*state.ready.borrow(), answers) {
        (true, Ok(Ok(_))) => "ready\n".into_response(),
        (false, _) => (StatusCode::SERVICE_UNAVAILABLE, "starting\n").into_response(),
        (_, Ok(Err(error))) => (StatusCode::SERVICE_UNAVAILABLE, format!("ledger: {error}\n")).into_response(),
        (_, Err(_)) => (StatusCode::SERVICE_UNAVAILABLE, "ledger: no answer\n").into_response(),
    }
}

async fn metrics(Shared(state): Shared<State>) -> Response {
    (
        [(header::CONTENT_TYPE, "text/plain; version=0.0.4")],
        state.metrics.text(),
    )
        .into_response()
}

/// A CRL in DER (RFC 5280 4.2.1.13, media type of RFC 2585).
async fn crl(
    Shared(state): Shared<State>,
    Path((issuer, file)): Path<(String, String)>,
    headers: HeaderMap,
) -> Response {
    let Some(partition) = file.strip_suffix(".crl") else {
        return StatusCode::NOT_FOUND.into_response();
    };
    match tokio::time::timeout(TIMEOUT, state.ledger.crl(&issuer, partition)).await {
        Ok(Ok(Some(crl))) => {
            let tag = format!("\"{}\"", crl.number);
            if headers
                .get(header::IF_NONE_MATCH)
                .is_some_and(|v| v.as_bytes() == tag.as_bytes())
            {
                return StatusCode::NOT_MODIFIED.into_response();
            }
            let mut response = typed("application/pkix-crl", crl.der);
            if let Ok(tag) = HeaderValue::from_str(&tag) {
                response.headers_mut().insert(header::ETAG, tag);
            }
            response
        }
        Ok(Ok(None)) => StatusCode::NOT_FOUND.into_response(),
        Ok(Err(_)) | Err(_) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
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

//! What the program says while it works: log lines, and traces by OpenTelemetry where somebody asks for them.
//!
//! Traces are on when `OTEL_EXPORTER_OTLP_ENDPOINT` or `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` names a collector that takes OTLP over HTTP;
//! `OTEL_TRACES_SAMPLER`, `OTEL_SERVICE_NAME` and the other variables of the OpenTelemetry specification hold too.

use std::env;
use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use axum::body::Body;
use bytes::Bytes;
use http::{Request, Response};
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tokio::runtime::Handle;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer};

use crate::gates;

/// The name under which traces are found, unless `OTEL_SERVICE_NAME` says another.
const SERVICE: &str = "certwave";
/// Those that switch traces on.
const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];
/// How long a collector may take.
const LIMIT: Duration = Duration::from_secs(10);

/// Why nothing can be said.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// No TLS for the collector.
    #[error("no client for the collector of traces: {0}")]
    Tls(#[from] rustls::Error),
    /// The variables of the environment make no exporter.
    #[error("traces cannot be exported: {0}")]
    Exporter(#[from] ExporterBuildError),
    /// Somebody logs already.
    #[error("logging cannot begin: {0}")]
    Twice(#[from] tracing_subscriber::util::TryInitError),
}

/// Sends what is left of the traces when it is dropped.
#[derive(Debug)]
pub struct Telemetry(Option<SdkTracerProvider>);

impl Drop for Telemetry {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.0.take().map(|provider| provider.shutdown()) {
            tracing::warn!(%error, "the last traces may be lost");
        }
    }
}

/// Begins to log to standard error, as JSON or text, what `RUST_LOG` selects (by default `info`); and to trace, if that is switched on.
/// To be called inside of a Tokio runtime.
///
/// # Errors
/// When traces are switched on and cannot be, or somebody logs already.
pub fn begin(json: bool) -> Result<Telemetry, TelemetryError> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = if json {
        lines.json().flatten_event(true).boxed()
    } else {
        lines.boxed()
    };
    let switched_on = ENDPOINTS
        .iter()
        .any(|name| env::var_os(name).is_some_and(|value| !value.is_empty()));
    let provider = switched_on.then(provider).transpose()?;
    let traces = provider.as_ref().map(|provider| {
        // Whatever the log leaves out: spans of ours, and the reconcilers'.
        let targets = Targets::new()
            .with_target("certwave", LevelFilter::DEBUG)
            .with_target("kube_runtime::controller", LevelFilter::INFO);
        tracing_opentelemetry::layer()
            .with_tracer(provider.tracer(SERVICE))
            .with_filter(targets)
    });
    tracing_subscriber::registry()
        .with(lines.with_filter(filter))
        .with(traces)
        .try_init()?;
    Ok(Telemetry(provider))
}

fn provider() -> Result<SdkTracerProvider, TelemetryError> {
    let client = Collector {
        http: gates::Client::new()?,
        runtime: Handle::current(),
    };
    let exporter = SpanExporter::builder().with_http().with_http_client(client).build()?;
    let mut resource = Resource::builder();
    if env::var_os("OTEL_SERVICE_NAME").is_none() {
        resource = resource.with_service_name(SERVICE);
    }
    Ok(SdkTracerProvider::builder()
        .with_resource(resource.build())
        .with_batch_exporter(exporter)
        .build())
}

/// The collector by our own HTTP client. The exporter has a thread of its own, and no runtime.
struct Collector {
    http: gates::Client,
    runtime: Handle,
}

impl fmt::Debug for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Collector")
    }
}

#[async_trait]
impl HttpClient for Collector {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (http, request) = (self.http.clone(), request.map(Body::from));
        let answer = self
            .runtime
            .spawn(async move { http.exchange(Ok(request), LIMIT).await });
        let (status, body) = answer.await?.map_err(|failure| failure.to_string())?;
        Ok(Response::builder().status(status).body(Bytes::from(body))?)
    }
}

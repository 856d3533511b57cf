//! The client of the API server: every request ends in time, every write is counted, whoever makes it, and every answer's date is
//! compared with our clock.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use kube::client::{Body, ClientBuilder};
use kube::{Client, Config};
use tower::{BoxError, Service};

use crate::clock::{Clock, machine};
use crate::metrics::Metrics;

/// How long the API server has for the head of an answer. A connection that died silently would hold a reconcile for ever.
const ANSWER: Duration = Duration::from_secs(30);
/// How long it may be silent in the middle of one. Watches are for longer than others: kube ends a silent one by itself within 300 s.
const SILENCE: Duration = Duration::from_secs(330);

/// A client for the API server of this process: of the cluster that it runs in, or of the kubeconfig.
///
/// # Errors
/// When none is configured, or its credential is unusable.
pub async fn client(metrics: Arc<Metrics>, clock: Arc<Clock>) -> Result<Client, ClientError> {
    let mut config = Config::infer().await?;
    config.read_timeout = Some(SILENCE);
    // It counts from the request, however long its connection was idle.
    config.reset_reader_on_write = true;
    let counted = tower::layer::layer_fn(move |inner| Watchful {
        inner,
        metrics: Arc::clone(&metrics),
        clock: Arc::clone(&clock),
    });
    Ok(ClientBuilder::try_from(config)?.with_layer(&counted).build())
}

/// A client whose requests this service answers, whatever stands behind it.
pub fn over<S, B>(service: S, metrics: Arc<Metrics>, clock: Arc<Clock>) -> Client
where
    S: Service<http::Request<Body>, Response = http::Response<B>> + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: hyper::body::Body<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let inner = service;
    Client::new(Watchful { inner, metrics, clock }, "default")
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No Kubernetes API is configured.
    #[error("no Kubernetes API is configured: {0}")]
    Config(#[from] kube::config::InferConfigError),
    /// Its configuration is unusable.
    #[error("the configuration of the Kubernetes API is unusable: {0}")]
    Unusable(#[from] kube::Error),
}

#[derive(Clone)]
struct Watchful<S> {
    inner: S,
    metrics: Arc<Metrics>,
    clock: Arc<Clock>,
}

impl<S, B> Service<http::Request<Body>> for Watchful<S>
where
    S: Service<http::Request<Body>, Response = http::Response<B>>,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let write = (!request.method().is_safe()).then(|| Write {
            metrics: Arc::clone(&self.metrics),
            kind: kind(request.uri().path()),
            result: "unanswered",
        });
        let answer = self.inner.call(request);
        let (clock, metrics, sent) = (Arc::clone(&self.clock), Arc::clone(&self.metrics), Instant::now());
        Box::pin(async move {
            let answer = tokio::time::timeout(ANSWER, answer).await?.map_err(Into::into)?;
            if let Some(date) = answer
                .headers()
                .get(http::header::DATE)
                .and_then(|date| date.to_str().ok())
            {
                clock.heard(date, machine(), sent.elapsed());
                metrics.clock_ahead.set(clock.ahead_s());
            }
            if let Some(mut write) = write {
                write.result = result(answer.status());
            }
            Ok(answer)
        })
    }
}

/// Counts itself when it is dropped: also where whoever asked waits no longer.
struct Write {
    metrics: Arc<Metrics>,
    kind: &'static str,
    result: &'static str,
}

impl Drop for Write {
    fn drop(&mut self) {
        let labels = [self.kind, self.result];
        self.metrics.api_writes.with_label_values(&labels).inc();
    }
}

/// The kind that a path of the API is about: `/apis/<group>/<version>/namespaces/<namespace>/<plural>/…`.
fn kind(path: &str) -> &'static str {
    let mut segments = path.split('/').skip_while(|segment| *segment != "namespaces");
    match segments.nth(2).unwrap_or_default() {
        "certificateauthorities" => "CertificateAuthority",
        "brokers" => "Broker",
        "fleets" => "Fleet",
        "devicecertificates" => "DeviceCertificate",
        "rotations" => "Rotation",
        "revocations" => "Revocation",
        "secrets" => "Secret",
        "leases" => "Lease",
        "events" => "Event",
        _ => "other",
    }
}

fn result(status: http::StatusCode) -> &'static str {
    match status.as_u16() {
        200..=299 => "ok",
        409 => "409",
        429 => "429",
        400..=499 => "4xx",
        _ => "5xx",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use http::StatusCode;
    use tower::ServiceExt as _;

    use super::*;

    /// What is counted of one request that is answered with this code, or never.
    async fn counted(method: &str, path: &str, code: Option<u16>) -> Vec<String> {
        let metrics = Arc::new(Metrics::new().unwrap());
        let inner = tower::service_fn(move |_: http::Request<Body>| async move {
            let Some(code) = code else {
                return std::future::pending().await;
            };
            let mut answer = http::Response::new(());
            *answer.status_mut() = StatusCode::from_u16(code).unwrap();
            Ok::<_, BoxError>(answer)
        });
        let service = Watchful {
            inner,
            metrics: Arc::clone(&metrics),
            clock: Arc::default(),
        };
        let request = http::Request::builder().method(method).uri(path).body(Body::empty());
        let answered = tokio::time::timeout(Duration::from_millis(20), service.oneshot(request.unwrap())).await;
        assert_eq!(answered.is_ok(), code.is_some());
        let text = metrics.text();
        let lines = text
            .lines()
            .filter(|line| line.starts_with("certwave_api_writes_total"));
        lines.map(str::to_owned).collect()
    }

    #[tokio::test]
    async fn each_write_is_counted_by_kind_and_result() {
        let own = "/apis/certwave.dev/v1alpha1/namespaces/namespaces";
        for (method, path, code, expected) in [
            (
                "PATCH",
                "devicecertificates/a/status?fieldManager=x",
                Some(200),
                "DeviceCertificate\",result=\"ok",
            ),
            (
                "PATCH",
                "devicecertificates/a/status",
                Some(409),
                "DeviceCertificate\",result=\"409",
            ),
            ("PATCH", "fleets/a/status", Some(429), "Fleet\",result=\"429"),
            ("PATCH", "rotations/a", Some(403), "Rotation\",result=\"4xx"),
            ("PUT", "leases/a", Some(500), "Lease\",result=\"5xx"),
            ("POST", "secrets", Some(201), "Secret\",result=\"ok"),
            ("POST", "events", None, "Event\",result=\"unanswered"),
            ("POST", "pods", Some(200), "other\",result=\"ok"),
        ] {
            let lines = counted(method, &format!("{own}/{path}"), code).await;
            let expected = format!("certwave_api_writes_total{{kind=\"{expected}\"}} 1");
            assert_eq!(lines, [expected]);
        }
    }

    #[tokio::test]
    async fn reading_is_no_write() {
        assert!(
            counted("GET", "/api/v1/namespaces/a/secrets/b", Some(200))
                .await
                .is_empty()
        );
    }
}

//! A proxy between the controller and the API server that does on demand what a real API server does not: it refuses
//! requests with the codes that a test wants, lets watches expire, and is gone.
//!
//! Whoever connects speaks plain HTTP on loopback with its own token; requests go on to the real API server as they are. A
//! [`Wire`] is the same for what is not HTTP: it knows nothing of what is said, and delays it.

mod faults;
mod gate;
mod wire;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::response::Response;
use futures::{Stream, StreamExt};
use http::{HeaderMap, StatusCode, header};
use kube::config::{AuthInfo, KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::lasting;
use faults::{Faults, response, status};
use gate::{Gate, Line};

pub use faults::{Fault, Requests, Share};
pub use wire::Wire;

/// The largest request that is forwarded, bytes.
const LARGEST: usize = 4 << 20;

/// A running proxy; it ends when it is dropped.
pub struct Proxy {
    kubeconfig: PathBuf,
    line: watch::Sender<Line>,
    expired: watch::Sender<u64>,
    faults: Arc<Faults>,
    serving: AbortHandle,
}

/// What a request is handled with.
struct Forward {
    api: Client,
    faults: Arc<Faults>,
    expired: watch::Receiver<u64>,
}

impl Proxy {
    /// In front of the cluster of this kubeconfig, for its user; writes another kubeconfig, for the proxy, to `file`.
    ///
    /// # Errors
    /// When the kubeconfig is unusable.
    pub async fn start(kubeconfig: &Path, file: PathBuf) -> Result<Self> {
        let listener = TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let mut config = Kubeconfig::read_from(kubeconfig)?;
        std::fs::write(&file, serde_json::to_vec(&through(config.clone(), address)?)?)?;
        // Who asks is the client's business: its token goes along.
        config
            .auth_infos
            .iter_mut()
            .for_each(|user| user.auth_info = Some(AuthInfo::default()));
        let config = Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await?;

        let (line, expired, faults) = (
            watch::Sender::new(Line::Up),
            watch::Sender::new(0),
            Arc::new(Faults::default()),
        );
        let (gate, told) = (line.subscribe(), expired.subscribe());
        let rules = Arc::clone(&faults);
        let serving = lasting::runtime().spawn(async move {
            let forward = Forward {
                api: Client::try_from(config)?,
                faults: rules,
                expired: told,
            };
            let router = Router::new().fallback(handle).with_state(Arc::new(forward));
            let listener = TcpListener::from_std(listener.into_std()?)?;
            axum::serve(Gate::new(listener, gate), router).await?;
            anyhow::Ok(())
        });
        Ok(Self {
            kubeconfig: file,
            line,
            expired,
            faults,
            serving: serving.abort_handle(),
        })
    }

    /// The kubeconfig by which a client comes through here.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// From now on this share of the requests is refused with this code, until the fault is dropped.
    pub fn refuse(&self, requests: Requests, share: Share, code: StatusCode) -> Fault {
        self.faults.add(requests, share, code)
    }

    /// Counts requests until it is dropped; all of them reach the API server.
    pub fn count(&self, requests: Requests) -> Fault {
        self.faults.add(requests, Share::None, StatusCode::OK)
    }

    /// Lets all running watches end with the event of a resource version that is too old.
    pub fn expire_watches(&self) {
        self.expired.send_modify(|generation| *generation += 1);
    }

    /// The API server is gone: all connections break, and so does each new one, until [`Proxy::mend`].
    pub fn cut(&self) {
        self.line.send_replace(Line::Cut);
    }

    /// It hangs: connections stay open and new ones are taken, but nothing moves, until [`Proxy::mend`].
    pub fn hang(&self) {
        self.line.send_replace(Line::Hung);
    }

    /// It is back.
    pub fn mend(&self) {
        self.line.send_replace(Line::Up);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.line.send_replace(Line::Cut);
        self.serving.abort();
    }
}

/// The same kubeconfig, with the proxy as its clusters' server.
fn through(mut config: Kubeconfig, address: SocketAddr) -> Result<Kubeconfig> {
    for named in &mut config.clusters {
        let cluster = named
            .cluster
            .as_mut()
            .context("a kubeconfig's cluster without an address")?;
        cluster.server = Some(format!("http://{address}"));
        cluster.certificate_authority = None;
        cluster.certificate_authority_data = None;
    }
    Ok(config)
}

async fn handle(State(forward): State<Arc<Forward>>, request: Request) -> Result<Response, Infallible> {
    let answer = forward.answer(request).await;
    Ok(answer.unwrap_or_else(|error| {
        let mut response = Response::new(Body::from(format!("{error:#}")));
        *response.status_mut() = StatusCode::BAD_GATEWAY;
        response
    }))
}

impl Forward {
    async fn answer(&self, request: Request) -> Result<Response> {
        let (mut parts, body) = request.into_parts();
        let path = parts.uri.to_string();
        if let Some(code) = self.faults.refusal(&parts.method, &path) {
            return Ok(response(code));
        }
        let mut expired = self.expired.clone();
        // What expired before does not concern a watch that begins now.
        expired.mark_unchanged();
        let body = axum::body::to_bytes(body, LARGEST).await?;
        hop_by_hop(&mut parts.headers);
        parts.headers.remove(header::HOST);
        parts.headers.remove(header::CONTENT_LENGTH);
        parts.version = http::Version::HTTP_11;
        let request = http::Request::from_parts(parts, kube::client::Body::from(body.to_vec()));
        let (mut parts, body) = self.api.send(request).await?.into_parts();
        hop_by_hop(&mut parts.headers);
        let mut body = Body::new(body);
        if path.contains("watch=true") && parts.status.is_success() {
            body = Body::from_stream(until_expired(body.into_data_stream(), expired));
        }
        Ok(Response::from_parts(parts, body))
    }
}

/// Removes what concerns one connection only (RFC 9110 section 7.6.1).
fn hop_by_hop(headers: &mut HeaderMap) {
    headers.remove(header::CONNECTION);
    headers.remove(header::TRANSFER_ENCODING);
}

/// A watch's events until it expires, and then, in a line of its own, the event that says so.
fn until_expired<E: Send + 'static>(
    events: impl Stream<Item = Result<Bytes, E>> + Send + Unpin + 'static,
    expired: watch::Receiver<u64>,
) -> impl Stream<Item = Result<Bytes, E>> + Send + 'static {
    futures::stream::unfold(Some((events, expired, true)), |state| async move {
        let (mut events, mut expired, whole) = state?;
        tokio::select! {
            biased;
            Ok(()) = expired.changed(), if whole => {
                let event = json!({ "type": "ERROR", "object": status(StatusCode::GONE) });
                Some((Ok(format!("{event}\n").into()), None))
            }
            bytes = events.next() => {
                let bytes = bytes?;
                let whole = bytes.as_ref().is_ok_and(|bytes| bytes.ends_with(b"\n"));
                Some((bytes, Some((events, expired, whole))))
            }
        }
    })
}

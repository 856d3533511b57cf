//! The loop that accepts connections: bounded in number, and with an end to the patience with those that say nothing.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::Future;
use std::time::Duration;

use axum::body::Body;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, Id, JoinSet};

/// A request's head must have come by then; a connection without a request is ended.
const HEAD_PATIENCE: Duration = Duration::from_secs(10);
/// What a head may take, bytes: a path and what proxies add.
const MAX_HEAD_BYTES: usize = 16 << 10;
/// Connections at the same time. One more ends the one that has been there longest, so that whoever opens many and says nothing
/// stands in nobody's way.
const CONNECTIONS: usize = 4096;
/// How long to wait when the process has no files left.
const PAUSE: Duration = Duration::from_millis(50);

/// Serves HTTP/1.1 for ever. What is under way ends when the future is dropped.
pub async fn serve<F, A>(listener: TcpListener, handle: F)
where
    F: Fn(Request<Incoming>) -> A + Clone + Send + 'static,
    A: Future<Output = Response<Body>> + Send + 'static,
{
    let mut connections = Connections::default();
    loop {
        tokio::select! {
            Some(ended) = connections.tasks.join_next_with_id() => {
                connections.ended(match ended {
                    Ok((id, ())) => id,
                    Err(error) => error.id(),
                });
            }
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    if connections.oldest.len() >= CONNECTIONS {
                        connections.end_oldest();
                    }
                    connections.begin(talk(stream, handle.clone()));
                }
                Err(error) if is_of_connection(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, "cannot accept connections; the oldest is ended");
                    connections.end_oldest();
                    tokio::time::sleep(PAUSE).await;
                }
            },
        }
    }
}

async fn talk<F, A>(stream: TcpStream, handle: F)
where
    F: Fn(Request<Incoming>) -> A + Send + 'static,
    A: Future<Output = Response<Body>> + Send + 'static,
{
    // Answers are small and come in one piece.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| {
        let answer = handle(request);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let mut server = http1::Builder::new();
    server
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_PATIENCE)
        .max_buf_size(MAX_HEAD_BYTES);
    if let Err(error) = server.serve_connection(TokioIo::new(stream), service).await {
        tracing::trace!(%error, "a connection ended");
    }
}

/// The connection was gone before it was accepted; the listener is well.
fn is_of_connection(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

#[derive(Default)]
struct Connections {
    tasks: JoinSet<()>,
    /// Those that were there first come first.
    oldest: VecDeque<AbortHandle>,
}

impl Connections {
    fn begin(&mut self, talk: impl Future<Output = ()> + Send + 'static) {
        let handle = self.tasks.spawn(talk);
        self.oldest.push_back(handle);
    }

    fn end_oldest(&mut self) {
        if let Some(handle) = self.oldest.pop_front() {
            handle.abort();
        }
    }

    fn ended(&mut self, id: Id) {
        // Most live shortly, and are among the last.
        if let Some(place) = self.oldest.iter().rposition(|handle| handle.id() == id) {
            self.oldest.remove(place);
        }
    }
}

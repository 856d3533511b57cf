//! The peer of the OCSP service: hyper, and nothing else, with an answer of the same size.

use std::convert::Infallible;
use std::net::SocketAddr;

use anyhow::Result;
use axum::body::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

/// Reads each request and answers with `size` bytes, for ever.
///
/// # Errors
/// When the address is taken.
pub async fn serve(address: SocketAddr, size: usize) -> Result<()> {
    let body = Bytes::from(vec![0x30; size]);
    let listener = TcpListener::bind(address).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let body = body.clone();
        let answer = service_fn(move |request: Request<Incoming>| {
            let body = body.clone();
            async move {
                // A request that breaks off ends its connection by itself.
                let _ = request.into_body().collect().await;
                Ok::<_, Infallible>(Response::new(Full::new(body)))
            }
        });
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
    }
}

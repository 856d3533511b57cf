//! One HTTP request to somebody who is not trusted (a gate, a broker's API), and the answer within limits.

use std::time::Duration;

use crate::causes::causes;
use crate::tls;
use axum::body::Body;
use futures::TryStreamExt as _;
use http::header::{ETAG, HeaderValue, IF_NONE_MATCH, LOCATION, USER_AGENT};
use http::{Request, Response, StatusCode, Uri};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy;
use hyper_util::rt::TokioExecutor;
use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use tower::util::BoxCloneSyncService;
use tower::{BoxError, Service, ServiceExt as _};
use tracing::warn;

/// No gate has this much to say, bytes.
pub(super) const MAX_BODY: usize = 256 * 1024;

const AGENT: HeaderValue = HeaderValue::from_static(concat!("certwave/", env!("CARGO_PKG_VERSION")));

/// Asks gates. Clones share what they need.
#[derive(Clone)]
pub struct Client {
    http: BoxCloneSyncService<Request<Body>, Response<Body>, BoxError>,
    /// Whether any CA is trusted: without one the reason why TLS fails is worth saying.
    trusting: bool,
}

/// Why there is no answer. Its text goes into statuses.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// Not a URL that can be asked.
    #[error("{0}")]
    Url(&'static str),
    /// Nobody there, TLS failed, or the connection broke.
    #[error("cannot be asked: {0}")]
    Broken(String),
    /// HTTPS without a CA to trust.
    #[error("cannot be asked: no trusted CA certificates on this system; SSL_CERT_FILE may name a file of them")]
    NoRoots,
    /// Over the time limit.
    #[error("no answer within {} ms", .0.as_millis())]
    Slow(Duration),
    /// Over the size limit, bytes.
    #[error("answers with more than {} KiB", .0 / 1024)]
    Large(usize),
    /// Redirects are not followed: whoever answers must not choose whom the controller talks to.
    #[error("redirects{0}, which is not followed: the URL must be the final one")]
    Redirect(String),
}

impl From<http::Error> for Failure {
    fn from(_: http::Error) -> Self {
        Self::Url("the URL cannot be understood")
    }
}

impl Client {
    /// A client that trusts the system's CAs, or those that `SSL_CERT_FILE` or `SSL_CERT_DIR` name. Without any it still asks
    /// gates over plain HTTP.
    ///
    /// # Errors
    /// When the crypto library has no cipher suites.
    pub fn new() -> Result<Self, rustls::Error> {
        Self::trusting(&[])
    }

    /// The same, and these CAs too.
    ///
    /// # Errors
    /// When one of them cannot be used, or the crypto library has no cipher suites.
    pub fn trusting(anchors: &[CertificateDer<'static>]) -> Result<Self, rustls::Error> {
        let found = rustls_native_certs::load_native_certs();
        for error in &found.errors {
            warn!(%error, "trusted CA certificates cannot be read; gates over HTTPS may not answer");
        }
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(found.certs);
        for anchor in anchors {
            roots.add(anchor.clone())?;
        }
        Self::with_roots(roots)
    }

    /// A client that trusts `roots` only.
    ///
    /// # Errors
    /// When the crypto library has no cipher suites.
    pub fn with_roots(roots: RootCertStore) -> Result<Self, rustls::Error> {
        let trusting = !roots.is_empty();
        let tls = tls::trusting(roots)?.with_no_client_auth();
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .build();
        // Gates are asked once a minute or so: a connection kept would mostly be found dead.
        let http = legacy::Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(0)
            .build(connector);
        Ok(Self {
            trusting,
            ..Self::over(http)
        })
    }

    /// A client whose requests this service answers, whatever stands behind it.
    pub fn over<S, B>(service: S) -> Self
    where
        S: Service<Request<Body>, Response = Response<B>> + Clone + Send + Sync + 'static,
        S::Future: Send + 'static,
        S::Error: Into<BoxError>,
        B: hyper::body::Body<Data = bytes::Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let service = service
            .map_response(|response: Response<B>| response.map(Body::new))
            .map_err(Into::into);
        Self {
            http: BoxCloneSyncService::new(service),
            trusting: true,
        }
    }

    /// Status and body of the answer to `request`.
    pub(crate) async fn exchange(
        &self,
        request: Result<Request<Body>, Failure>,
        limit: Duration,
    ) -> Result<(u16, Vec<u8>), Failure> {
        let mut request = request?;
        if request.uri().scheme_str() == Some("https") && !self.trusting {
            return Err(Failure::NoRoots);
        }
        request.headers_mut().insert(USER_AGENT, AGENT);
        let (status, _, body) = tokio::time::timeout(limit, self.answer(request, MAX_BODY))
            .await
            .map_err(|_| Failure::Slow(limit))??;
        Ok((status, body))
    }

    /// Status, entity tag and body of what is at `url`, within limits of time and bytes. With the tag of what the caller has,
    /// the answer to the same is 304 without a body.
    ///
    /// # Errors
    /// When there is no answer within the limits.
    pub(crate) async fn fetch(
        &self,
        url: &str,
        tag: Option<&str>,
        limit: Duration,
        most: usize,
    ) -> Result<(u16, Option<String>, Vec<u8>), Failure> {
        let uri = endpoint(url, "")?;
        if uri.scheme_str() == Some("https") && !self.trusting {
            return Err(Failure::NoRoots);
        }
        let mut request = Request::get(uri).header(USER_AGENT, AGENT);
        if let Some(tag) = tag {
            request = request.header(IF_NONE_MATCH, tag);
        }
        tokio::time::timeout(limit, self.answer(request.body(Body::empty())?, most))
            .await
            .map_err(|_| Failure::Slow(limit))?
    }

    async fn answer(&self, request: Request<Body>, most: usize) -> Result<(u16, Option<String>, Vec<u8>), Failure> {
        let response = self
            .http
            .clone()
            .oneshot(request)
            .await
            .map_err(|error| Failure::Broken(causes(&*error)))?;
        if response.status().is_redirection() && response.status() != StatusCode::NOT_MODIFIED {
            return Err(Failure::Redirect(target(&response)));
        }
        let status = response.status().as_u16();
        let tag = response
            .headers()
            .get(ETAG)
            .and_then(|tag| tag.to_str().ok())
            .map(str::to_owned);
        let mut chunks = response.into_body().into_data_stream();
        let mut body = Vec::new();
        while let Some(chunk) = chunks
            .try_next()
            .await
            .map_err(|error| Failure::Broken(causes(&error)))?
        {
            if body.len() + chunk.len() > most {
                return Err(Failure::Large(most));
            }
            body.extend_from_slice(&chunk);
        }
        Ok((status, tag, body))
    }
}

/// `url` with `path` after its own; a query stays.
pub(crate) fn endpoint(url: &str, path: &str) -> Result<Uri, Failure> {
    let uri: Uri = url.parse().map_err(|_| Failure::Url("the URL cannot be understood"))?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err(Failure::Url("the URL must begin with http:// or https://"));
    }
    let authority = uri.authority().ok_or(Failure::Url("the URL names no host"))?;
    if authority.as_str().contains('@') {
        return Err(Failure::Url(
            "the URL holds a user's name or password, which would be there for all to read",
        ));
    }
    if path.is_empty() {
        return Ok(uri);
    }
    let whole = match uri.query() {
        Some(query) => format!("{}{path}?{query}", uri.path().trim_end_matches('/')),
        None => format!("{}{path}", uri.path().trim_end_matches('/')),
    };
    let mut parts = uri.into_parts();
    parts.path_and_query = Some(
        whole
            .parse()
            .map_err(|_| Failure::Url("the URL cannot be understood"))?,
    );
    Uri::from_parts(parts).map_err(|_| Failure::Url("the URL cannot be understood"))
}

/// Host and port of `url`: all that texts for people say of it.
pub(crate) fn host(url: &str) -> String {
    let uri: Option<Uri> = url.parse().ok();
    match uri.as_ref().and_then(|uri| Some((uri.host()?, uri.port_u16()))) {
        Some((host, Some(port))) => format!("{host}:{port}"),
        Some((host, None)) => host.to_owned(),
        None => "gate".to_owned(),
    }
}

fn target<T>(response: &Response<T>) -> String {
    let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
    match location.map(host) {
        Some(host) if host != "gate" => format!(" to {host}"),
        _ => String::new(),
    }
}

//! CRLs over HTTP from one base URL, which the companion's arguments fix.

use std::collections::HashMap;
use std::time::Duration;

use axum::body::Body;
use futures::TryStreamExt as _;
use http::header::{ETAG, HeaderValue, IF_NONE_MATCH, USER_AGENT};
use http::{Request, StatusCode};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::RootCertStore;
use serde::{Deserialize, Serialize};

use crate::causes::causes;
use crate::tls;

const AGENT: HeaderValue = HeaderValue::from_static(concat!("certwave-crl-sync/", env!("CARGO_PKG_VERSION")));
/// For one answer: a list of a million entries over a slow line takes its time.
const TIMEOUT: Duration = Duration::from_mins(1);
/// For the next byte of it: a pod that is just ending takes connections which nobody serves any more.
const SILENCE: Duration = Duration::from_secs(10);
/// An index names a scope for each month: some hundred bytes.
const MAX_INDEX: usize = 1024 * 1024;

/// The partitions of a CA, as served at `<base>/crl/<key id>/index.json`. It is not signed: it says where to look, no more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Index {
    /// Each partition with the number of its CRL.
    pub crls: Vec<IndexEntry>,
}

/// One partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexEntry {
    /// Its name.
    pub partition: String,
    /// The number of the CRL published last.
    pub number: u64,
}

/// Why something could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// Nobody there, or the connection broke.
    #[error("{url} cannot be fetched: {why}")]
    Broken {
        /// Which.
        url: String,
        /// Why.
        why: String,
    },
    /// Another answer than 200.
    #[error("{url} answers {status}")]
    Status {
        /// Which.
        url: String,
        /// What.
        status: u16,
    },
    /// More than is read.
    #[error("{url} answers with more than {max} bytes (--max-bytes)")]
    Large {
        /// Which.
        url: String,
        /// The limit.
        max: usize,
    },
    /// No client can be made.
    #[error("no TLS: {0}")]
    Tls(#[from] rustls::Error),
}

impl FetchError {
    /// A short word of a closed set.
    pub const fn category(&self) -> &'static str {
        match self {
            Self::Broken { .. } => "unreachable",
            Self::Status { .. } => "status",
            Self::Large { .. } => "too-large",
            Self::Tls(_) => "tls",
        }
    }
}

/// Fetches below one base URL. Redirects are not followed.
pub(super) struct Fetcher {
    http: legacy::Client<HttpsConnector<HttpConnector>, Body>,
    base: String,
    max_bytes: usize,
    indexes: HashMap<String, (HeaderValue, Index)>,
}

impl Fetcher {
    pub(super) fn new(base: &str, max_bytes: usize) -> Result<Self, FetchError> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        let tls = tls::trusting(roots)?.with_no_client_auth();
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .build();
        // A connection that is kept stays with whom it once led to. After a Service was made anew that may be somebody else, who answers
        // 404 for ever.
        let http = legacy::Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(0)
            .build(connector);
        Ok(Self {
            http,
            base: base.trim_end_matches('/').to_owned(),
            max_bytes,
            indexes: HashMap::new(),
        })
    }

    /// The partitions of a CA.
    pub(super) async fn index(&mut self, issuer: &str) -> Result<Index, FetchError> {
        let url = format!("{}/crl/{issuer}/index.json", self.base);
        let known = self.indexes.get(issuer);
        let (tag, body) = match self.get(&url, known.map(|(tag, _)| tag), MAX_INDEX).await? {
            Answer::Same => {
                return known
                    .map(|(_, index)| index.clone())
                    .ok_or(FetchError::Status { url, status: 304 });
            }
            Answer::Body(tag, body) => (tag, body),
        };
        let index: Index = serde_json::from_slice(&body).map_err(|error| FetchError::Broken {
            url,
            why: error.to_string(),
        })?;
        if let Some(tag) = tag {
            self.indexes.insert(issuer.to_owned(), (tag, index.clone()));
        }
        Ok(index)
    }

    /// A CRL, whatever it may be.
    pub(super) async fn crl(&self, issuer: &str, partition: &str) -> Result<Vec<u8>, FetchError> {
        let url = format!("{}/crl/{issuer}/{partition}.crl", self.base);
        match self.get(&url, None, self.max_bytes).await? {
            Answer::Body(_, body) => Ok(body),
            Answer::Same => Err(FetchError::Status { url, status: 304 }),
        }
    }

    async fn get(&self, url: &str, tag: Option<&HeaderValue>, max: usize) -> Result<Answer, FetchError> {
        let broken = |why: String| FetchError::Broken {
            url: url.to_owned(),
            why,
        };
        let mut request = Request::get(url).header(USER_AGENT, AGENT);
        if let Some(tag) = tag {
            request = request.header(IF_NONE_MATCH, tag);
        }
        let request = request.body(Body::empty()).map_err(|error| broken(error.to_string()))?;
        let answer = async {
            let response = heard(self.http.request(request)).await.map_err(broken)?;
            match response.status() {
                StatusCode::OK => {}
                StatusCode::NOT_MODIFIED => return Ok(Answer::Same),
                status => {
                    return Err(FetchError::Status {
                        url: url.to_owned(),
                        status: status.as_u16(),
                    });
                }
            }
            let tag = response.headers().get(ETAG).cloned();
            let mut chunks = Body::new(response.into_body()).into_data_stream();
            let mut body = Vec::new();
            while let Some(chunk) = heard(chunks.try_next()).await.map_err(broken)? {
                if body.len() + chunk.len() > max {
                    return Err(FetchError::Large {
                        url: url.to_owned(),
                        max,
                    });
                }
                body.extend_from_slice(&chunk);
            }
            Ok(Answer::Body(tag, body))
        };
        tokio::time::timeout(TIMEOUT, answer)
            .await
            .unwrap_or_else(|_| Err(broken(format!("no answer within {} s", TIMEOUT.as_secs()))))
    }
}

/// What comes, or why nothing does.
async fn heard<T, E: std::error::Error>(next: impl Future<Output = Result<T, E>>) -> Result<T, String> {
    match tokio::time::timeout(SILENCE, next).await {
        Ok(heard) => heard.map_err(|error| causes(&error)),
        Err(_) => Err(format!("nothing heard for {} s", SILENCE.as_secs())),
    }
}

enum Answer {
    Same,
    Body(Option<HeaderValue>, Vec<u8>),
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use axum::Router;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn the_address_is_asked_and_not_whoever_was_there_before() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        // It listens no more after the first connection, which goes on.
        let stranger = tokio::spawn(async move {
            let (mut connection, _) = listener.accept().await.unwrap();
            drop(listener);
            let mut request = [0; 1024];
            while connection.read(&mut request).await.unwrap() > 0 {
                let answer = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n";
                connection.write_all(answer).await.unwrap();
            }
        });
        let mut fetcher = Fetcher::new(&format!("http://{address}"), MAX_INDEX).unwrap();
        let refused = fetcher.index("ab").await.unwrap_err();
        assert!(matches!(refused, FetchError::Status { status: 404, .. }), "{refused}");
        let index = || async { r#"{"crls":[{"partition":"2027-01","number":7}]}"# };
        let ours = Router::new().route("/crl/ab/index.json", get(index));
        let listener = TcpListener::bind(address).await.unwrap();
        tokio::spawn(axum::serve(listener, ours).into_future());
        assert_eq!(fetcher.index("ab").await.unwrap().crls.len(), 1);
        stranger.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_takes_connections_and_says_nothing_is_not_waited_for() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut fetcher = Fetcher::new(&format!("http://{}", listener.local_addr().unwrap()), MAX_INDEX).unwrap();
        let begin = tokio::time::Instant::now();
        let broken = fetcher.index("ab").await.unwrap_err();
        assert!(broken.to_string().ends_with("nothing heard for 10 s"), "{broken}");
        assert_eq!(begin.elapsed().as_secs(), SILENCE.as_secs());
    }
}

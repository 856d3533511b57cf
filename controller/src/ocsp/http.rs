//! OCSP over HTTP (RFC 6960, appendix A; RFC 9919, 6).
//!
//! It works on hyper's requests, below any router: most answers are there already, and finding a route would cost as much again.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use certwave_pki::ocsp::{Failure, MAX_REQUEST_BYTES};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method as HttpMethod, Request, Response, StatusCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body as HttpBody, Incoming};
use tower::ServiceExt as _;

use super::metrics::Method;
use super::{Reply, Responder};
use crate::clock;
use crate::publish;

/// Below this path.
const ROOT: &str = "/ocsp";
/// The longest path of a GET: RFC 9919, 6 has clients use POST for what is longer than 255 bytes; there are caches in between.
const MAX_PATH_BYTES: usize = 4096;
/// A body must have come by then.
const BODY_PATIENCE: Duration = Duration::from_secs(5);
const REQUEST_TYPE: &str = "application/ocsp-request";
const RESPONSE_TYPE: HeaderValue = HeaderValue::from_static("application/ocsp-response");
/// What is for one client, or says only why there is no answer.
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
/// Some clients leave the padding out.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What of a path belongs to OCSP: what follows `/ocsp`; `None` for all other paths.
pub fn below(path: &str) -> Option<&str> {
    path.strip_prefix(ROOT)
        .filter(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Hands what [belongs](below) to OCSP to the responder, and all else to the router.
pub fn beside(
    responder: Arc<Responder>,
    rest: Router,
) -> impl Fn(Request<Incoming>) -> Pin<Box<dyn Future<Output = Response<Body>> + Send>> + Clone + Send + 'static {
    move |request| {
        if below(request.uri().path()).is_some() {
            let responder = Arc::clone(&responder);
            Box::pin(async move { respond(&responder, request).await })
        } else {
            let answer = rest.clone().oneshot(request.map(Body::new));
            Box::pin(async move { answer.await.unwrap_or_else(|never| match never {}) })
        }
    }
}

/// Answers a request whose path [belongs](below) here.
pub async fn respond<B>(responder: &Responder, request: Request<B>) -> Response<Body>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let start = Instant::now();
    let (head, body) = request.into_parts();
    let method = match head.method {
        HttpMethod::GET | HttpMethod::HEAD => Method::Get,
        HttpMethod::POST => Method::Post,
        _ => return not_allowed(),
    };
    let Some((named, encoded)) = below(head.uri.path()).map(split) else {
        return status(StatusCode::NOT_FOUND);
    };
    let reply = match method {
        Method::Get if head.uri.path().len() > MAX_PATH_BYTES => Err(StatusCode::URI_TOO_LONG),
        Method::Get => match decode(encoded) {
            Some(der) => Ok(responder.answer(named, &der, seconds()).await),
            None => Ok(Reply::Failure(Failure::MalformedRequest)),
        },
        Method::Post if !encoded.is_empty() => Err(StatusCode::NOT_FOUND),
        Method::Post if is_other_type(&head.headers) => Err(StatusCode::UNSUPPORTED_MEDIA_TYPE),
        Method::Post => match collect(body).await {
            Ok(der) => Ok(responder.answer(named, &der, seconds()).await),
            Err(refused) => Err(refused),
        },
    };
    match reply {
        Ok(reply) => {
            responder.metrics.answered(method, &reply, start.elapsed());
            write(reply, &head.headers, responder.options.max_age, seconds())
        }
        Err(refused) => {
            responder.metrics.refused(method);
            let mut response = status(refused);
            // What is left of a request that was not read cannot be told from the next one.
            response
                .headers_mut()
                .insert(header::CONNECTION, HeaderValue::from_static("close"));
            response
        }
    }
}

/// The key id of the CA, if the path names one, and the encoded request. Base64 of a request begins with `M`, which no key id
/// contains, and may have slashes, also at its beginning where a client has put one too many.
fn split(rest: &str) -> (Option<&str>, &str) {
    let rest = rest.trim_start_matches('/');
    let (first, more) = rest.split_once('/').unwrap_or((rest, ""));
    let is_key_id = !first.is_empty() && first.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    if is_key_id {
        (Some(first), more.trim_start_matches('/'))
    } else {
        (None, rest)
    }
}

/// Undoes the URL's encoding, if it has any, and then base64.
fn decode(encoded: &str) -> Option<Vec<u8>> {
    let text: std::borrow::Cow<'_, [u8]> = percent_encoding::percent_decode_str(encoded).into();
    BASE64.decode(text).ok()
}

fn is_other_type(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|value| {
        let kind = value.as_bytes().split(|b| *b == b';').next().unwrap_or_default();
        !kind.trim_ascii().eq_ignore_ascii_case(REQUEST_TYPE.as_bytes())
    })
}

/// The whole body, if it is small and comes soon.
async fn collect<B>(body: B) -> Result<Bytes, StatusCode>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let limit = MAX_REQUEST_BYTES as u64;
    if body.size_hint().lower() > limit {
        return Err(StatusCode::PAYLOAD_TOO_LARGE);
    }
    match tokio::time::timeout(BODY_PATIENCE, Limited::new(body, MAX_REQUEST_BYTES).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(StatusCode::PAYLOAD_TOO_LARGE),
        Ok(Err(_)) => Err(StatusCode::BAD_REQUEST),
        Err(_) => Err(StatusCode::REQUEST_TIMEOUT),
    }
}

/// The response with what caches need to know (RFC 9919, 6.2).
fn write(reply: Reply, asked: &HeaderMap, max_age: i64, now: i64) -> Response<Body> {
    let (body, kept) = match reply {
        Reply::Failure(failure) => (Bytes::copy_from_slice(&failure.to_der()), None),
        Reply::Once(answer) => (answer.der.into(), None),
        Reply::Reusable(signed) => (signed.der.clone(), Some(signed)),
    };
    let Some(signed) = kept else {
        let mut response = Response::new(Body::from(body));
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, RESPONSE_TYPE);
        headers.insert(header::CACHE_CONTROL, NO_STORE);
        return response;
    };
    let unchanged = publish::has_tag(asked, &signed.tag);
    let mut response = if unchanged {
        status(StatusCode::NOT_MODIFIED)
    } else {
        Response::new(Body::from(body))
    };
    let age = max_age.min(signed.times.next_update - now).max(0);
    let headers = response.headers_mut();
    headers.reserve(5);
    if !unchanged {
        headers.insert(header::CONTENT_TYPE, RESPONSE_TYPE);
    }
    insert(
        headers,
        header::CACHE_CONTROL,
        &format!("max-age={age}, public, no-transform, must-revalidate"),
    );
    insert(headers, header::ETAG, &signed.tag);
    headers.insert(header::LAST_MODIFIED, signed.last_modified.clone());
    headers.insert(header::EXPIRES, signed.expires.clone());
    response
}

fn insert(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// A date of HTTP (RFC 9110, 5.6.7), of Unix seconds.
pub(super) fn date(seconds: i64) -> HeaderValue {
    HeaderValue::from_str(&publish::http_date(seconds)).unwrap_or(HeaderValue::from_static("0"))
}

fn status(code: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = code;
    response
}

fn not_allowed() -> Response<Body> {
    let mut response = status(StatusCode::METHOD_NOT_ALLOWED);
    let allowed = HeaderValue::from_static("GET, HEAD, POST");
    response.headers_mut().insert(header::ALLOW, allowed);
    response
}

/// The time by which answers are dated, Unix seconds.
pub fn seconds() -> i64 {
    clock::dating().div_euclid(1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_the_ca_and_holds_the_request_with_its_slashes() {
        let id = "0123456789abcdef0123456789abcdef01234567";
        for (path, expected) in [
            ("/ocsp".to_owned(), (None, "")),
            ("/ocsp/".to_owned(), (None, "")),
            (format!("/ocsp/{id}"), (Some(id), "")),
            (format!("/ocsp/{id}/"), (Some(id), "")),
            (format!("/ocsp/{id}/MEo+a/b="), (Some(id), "MEo+a/b=")),
            (format!("/ocsp/{id}//MEo//b="), (Some(id), "MEo//b=")),
            ("/ocsp/MEo/b%3D".to_owned(), (None, "MEo/b%3D")),
        ] {
            assert_eq!(below(&path).map(split), Some(expected), "{path}");
        }
        assert_eq!(below("/ocspx"), None);
    }

    #[test]
    fn base64_is_read_plain_escaped_and_without_padding() {
        for text in ["+/8=", "%2B%2F8%3D", "+%2f8", "+/8"] {
            assert_eq!(decode(text), Some(vec![0xfb, 0xff]), "{text}");
        }
        assert_eq!(decode("%%"), None);
        assert_eq!(decode(""), Some(vec![]));
    }

    #[test]
    fn dates_are_those_of_http() {
        assert_eq!(date(784_111_777), "Sun, 06 Nov 1994 08:49:37 GMT");
    }
}

//! CRLs over HTTP: DER and PEM, whole or in part, compressed where asked.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::header::{self, HeaderValue};
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;

use super::cache::{Cache, Cached, Form};
use super::scope::{end_of, is_key_id, is_scope};
use super::select::{Selected, asks_range, http_date, select, takes_gzip};
use crate::clock::now;

/// How long others may keep a CRL, seconds: revocations come at once, so not for long.
const MAX_AGE: i64 = 60;
/// When to come again while the ledger is out, seconds.
const RETRY_AFTER: &str = "5";

/// `/crl/<issuer key id>/<scope>.crl` in DER (RFC 5280, 4.2.1.13) and `.pem`.
pub fn router<S: Clone + Send + Sync + 'static>(cache: Arc<Cache>) -> Router<S> {
    Router::new().route("/crl/{issuer}/{file}", get(crl)).with_state(cache)
}

async fn crl(
    State(cache): State<Arc<Cache>>,
    Path((issuer, file)): Path<(String, String)>,
    headers: HeaderMap,
) -> Response {
    let (scope, form) = match file.rsplit_once('.') {
        Some((scope, "crl")) => (scope, Form::Der),
        Some((scope, "pem")) => (scope, Form::Pem),
        _ => return StatusCode::NOT_FOUND.into_response(),
    };
    if !is_key_id(&issuer) || !is_scope(scope) {
        return StatusCode::NOT_FOUND.into_response();
    }
    let now = now() / 1000;
    match cache.get(&issuer, scope, now).await {
        Ok(Some(crl)) if crl.next_update <= now && end_of(scope).is_some_and(|end| end <= now) => {
            // Its month is over, and so is its last CRL.
            StatusCode::GONE.into_response()
        }
        Ok(Some(crl)) => answer(&crl, form, &headers, now).await,
        Ok(None) => StatusCode::NOT_FOUND.into_response(),
        Err(error) => {
            tracing::warn!(%error, "a CRL cannot be served");
            (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, RETRY_AFTER)]).into_response()
        }
    }
}

async fn answer(crl: &Cached, form: Form, headers: &HeaderMap, now: i64) -> Response {
    let gzip = takes_gzip(headers) && !asks_range(headers);
    let body = crl.body(form, gzip).await;
    let tag = match (form, gzip) {
        (Form::Der, false) => format!("\"{}\"", crl.number),
        (Form::Der, true) => format!("\"{}-gzip\"", crl.number),
        (Form::Pem, false) => format!("\"{}-pem\"", crl.number),
        (Form::Pem, true) => format!("\"{}-pem-gzip\"", crl.number),
    };
    let length = body.len();
    // Never in the future (RFC 9110, 8.8.2.1): whoever asks for what is newer than that would get nothing for as long.
    let modified = crl.this_update.min(now);
    let mut response = match select(headers, &tag, modified, length, now) {
        Selected::Whole => Response::new(Body::from(body)),
        Selected::NotModified => StatusCode::NOT_MODIFIED.into_response(),
        Selected::Part(range) => {
            let shown = format!("bytes {}-{}/{length}", range.start, range.end.saturating_sub(1));
            part(body.slice(range), &shown)
        }
        Selected::Unsatisfiable => {
            let mut response = StatusCode::RANGE_NOT_SATISFIABLE.into_response();
            set(&mut response, header::CONTENT_RANGE, &format!("bytes */{length}"));
            return response;
        }
    };
    set(&mut response, header::ETAG, &tag);
    set(&mut response, header::LAST_MODIFIED, &http_date(modified));
    let age = (crl.next_update - now).clamp(0, MAX_AGE);
    set(
        &mut response,
        header::CACHE_CONTROL,
        &format!("public, max-age={age}, must-revalidate"),
    );
    set(&mut response, header::VARY, "Accept-Encoding");
    if response.status() != StatusCode::NOT_MODIFIED {
        // RFC 2585, 4.2, and RFC 7468 with the type that servers send for PEM.
        let kind = match form {
            Form::Der => "application/pkix-crl",
            Form::Pem => "application/x-pem-file",
        };
        set(&mut response, header::CONTENT_TYPE, kind);
        set(&mut response, header::ACCEPT_RANGES, "bytes");
        if gzip {
            set(&mut response, header::CONTENT_ENCODING, "gzip");
        }
    }
    response
}

fn part(body: Bytes, range: &str) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    set(&mut response, header::CONTENT_RANGE, range);
    response
}

/// Sets a header; all that come here are plain ASCII.
fn set(response: &mut Response, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

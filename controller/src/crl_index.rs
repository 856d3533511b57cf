//! Which CRLs there are of a CA: `<base>/crl/<key id>/index.json`, for companions of brokers, which need those of every partition
//! and cannot read certificates that they have not seen.

use axum::Router;
use axum::extract::{Path, State as Shared};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use certwave_protocol::ids::Fingerprint;

use crate::companion::{Index, IndexEntry};
use crate::http::{State, TIMEOUT};
use crate::publish;

/// The route.
pub(crate) fn routes() -> Router<State> {
    Router::new().route("/crl/{issuer}/index.json", get(index))
}

async fn index(Shared(state): Shared<State>, Path(issuer): Path<String>, headers: HeaderMap) -> Response {
    if !publish::is_key_id(&issuer) {
        return StatusCode::NOT_FOUND.into_response();
    }
    let Ok(Ok(numbers)) = tokio::time::timeout(TIMEOUT, state.ledger.crl_numbers(&issuer)).await else {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    };
    if numbers.is_empty() {
        // Another one's CA, or one that publishes nothing.
        return StatusCode::NOT_FOUND.into_response();
    }
    let entry = |(partition, number)| IndexEntry { partition, number };
    let index = Index {
        crls: numbers.into_iter().map(entry).collect(),
    };
    let Ok(body) = serde_json::to_vec(&index) else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let tag = format!("\"{}\"", Fingerprint::of(&body));
    let mut response = if publish::has_tag(&headers, &tag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        ([(header::CONTENT_TYPE, "application/json")], body).into_response()
    };
    // Whoever stands between must ask each time: what was revoked a moment ago shows here first.
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        headers.insert(header::ETAG, tag);
    }
    response
}

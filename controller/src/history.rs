//! A device's history, for `kubectl certwave inspect`: what the ledger's audit says of it, read only.
//!
//! It is served on an address of its own, by default on loopback, where nothing but `kubectl port-forward` reaches it: so who may
//! read it is who may `create` `pods/portforward` in the controller's namespace, by the API server's RBAC. What is served to
//! the world (CRLs, CA certificates, OCSP) has another address.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use certwave_core::model::Identity;
use certwave_ledger::{AuditEntry, Ledger};
use certwave_protocol::ids::{BrokerId, DeviceId};
use serde::Serialize;
use tokio::net::TcpListener;
use tower::ServiceExt as _;

use crate::http::TIMEOUT;

/// Lines that are answered where nobody says how many, and at most.
const LINES: u32 = 1000;
const MOST: u32 = 10_000;

/// The answer.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct History {
    broker: String,
    device: String,
    /// There are older lines.
    more: bool,
    /// The last first.
    lines: Vec<Line>,
}

/// One line of the audit.
#[derive(Debug, Serialize)]
struct Line {
    /// Unix milliseconds.
    at: i64,
    who: String,
    what: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    job: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
}

/// Serves `GET /history/{broker}/{device}` until the future is dropped.
pub async fn serve(listener: TcpListener, ledger: Arc<dyn Ledger>) {
    let app = Router::new()
        .route("/history/{broker}/{device}", get(history))
        .with_state(ledger);
    crate::serve::serve(listener, move |request| {
        let app = app.clone();
        async move {
            // A router answers everything itself.
            app.oneshot(request.map(axum::body::Body::new)).await.into_response()
        }
    })
    .await;
}

async fn history(
    State(ledger): State<Arc<dyn Ledger>>,
    Path((broker, device)): Path<(String, String)>,
    RawQuery(query): RawQuery,
) -> Response {
    let (Ok(broker), Ok(device)) = (broker.parse::<BrokerId>(), device.parse::<DeviceId>()) else {
        return (StatusCode::BAD_REQUEST, "no id of a broker or device\n").into_response();
    };
    let limit = limit(query.as_deref().unwrap_or_default());
    let identity = Identity { broker, device };
    match tokio::time::timeout(TIMEOUT, ledger.audit(&identity, limit + 1)).await {
        Ok(Ok(entries)) => match serde_json::to_vec(&answer(&identity, entries, limit)) {
            Ok(json) => ([(header::CONTENT_TYPE, "application/json")], json).into_response(),
            Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
        },
        Ok(Err(error)) => (StatusCode::SERVICE_UNAVAILABLE, format!("ledger: {error}\n")).into_response(),
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "ledger: no answer\n").into_response(),
    }
}

/// How many lines are wanted: `limit=100`.
fn limit(query: &str) -> u32 {
    let wanted = form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "limit");
    let wanted = wanted.and_then(|(_, value)| value.parse::<u32>().ok());
    wanted.unwrap_or(LINES).clamp(1, MOST)
}

fn answer(identity: &Identity, entries: Vec<AuditEntry>, limit: u32) -> History {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let more = entries.len() > limit;
    let line = |entry: AuditEntry| Line {
        at: entry.at,
        who: entry.who,
        what: entry.what,
        job: entry.job.map(|job| job.to_string()),
        detail: entry.detail,
    };
    History {
        broker: identity.broker.to_string(),
        device: identity.device.to_string(),
        more,
        lines: entries.into_iter().take(limit).map(line).collect(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn nobody_asks_for_more_than_is_bearable() {
        assert_eq!(limit(""), LINES);
        assert_eq!(limit("limit=7"), 7);
        assert_eq!(limit("limit=0"), 1);
        assert_eq!(limit("limit=4000000000"), MOST);
        assert_eq!(limit("limit=x"), LINES);
    }

    #[test]
    fn that_there_is_more_is_said() {
        let identity = Identity {
            broker: "mqtt".parse().unwrap(),
            device: "m-1".parse().unwrap(),
        };
        let entry = AuditEntry {
            at: 1,
            who: "controller".to_owned(),
            what: "job-sent".to_owned(),
            identity: Some(identity.clone()),
            job: None,
            detail: None,
        };
        let all = answer(&identity, vec![entry.clone(); 3], 3);
        assert_eq!((all.more, all.lines.len()), (false, 3));
        let cut = answer(&identity, vec![entry; 4], 3);
        assert_eq!((cut.more, cut.lines.len()), (true, 3));
    }
}

//! What a [`Proxy`](super::Proxy) answers by itself, and to which requests.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Body;
use axum::response::Response;
use http::{Method, StatusCode, header};
use serde_json::{Value, json};

/// Seconds that a client is asked to wait with a 429.
const RETRY_AFTER: u32 = 1;

/// Requests of one kind.
#[derive(Debug, Clone)]
pub struct Requests {
    method: Method,
    path: String,
}

impl Requests {
    /// Those with this method whose path and query contain `path`.
    pub fn to(method: Method, path: impl Into<String>) -> Self {
        let path = path.into();
        Self { method, path }
    }

    fn include(&self, method: &Method, path: &str) -> bool {
        self.method == *method && path.contains(&self.path)
    }
}

/// How many of the requests that match are refused.
#[derive(Debug, Clone, Copy)]
pub enum Share {
    /// None: they are only counted.
    None,
    /// The first so many.
    First(usize),
    /// Each n-th.
    Each(usize),
    /// All.
    All,
}

impl Share {
    fn includes(self, number: usize) -> bool {
        match self {
            Self::None => false,
            Self::First(count) => number < count,
            Self::Each(nth) => (number + 1).is_multiple_of(nth),
            Self::All => true,
        }
    }
}

#[derive(Debug)]
struct Rule {
    requests: Requests,
    share: Share,
    code: StatusCode,
    matched: AtomicUsize,
    refused: AtomicUsize,
}

/// A fault that is there until it is dropped.
#[must_use = "a fault ends when it is dropped"]
pub struct Fault {
    rule: Arc<Rule>,
    faults: Arc<Faults>,
}

impl Fault {
    /// Requests that matched so far.
    pub fn matched(&self) -> usize {
        self.rule.matched.load(Ordering::Relaxed)
    }

    /// Those of them that the API server did not get to see.
    pub fn refused(&self) -> usize {
        self.rule.refused.load(Ordering::Relaxed)
    }
}

impl Drop for Fault {
    fn drop(&mut self) {
        let mut rules = self.faults.0.lock().unwrap_or_else(PoisonError::into_inner);
        rules.retain(|rule| !Arc::ptr_eq(rule, &self.rule));
    }
}

/// All faults that there are now.
#[derive(Debug, Default)]
pub(super) struct Faults(Mutex<Vec<Arc<Rule>>>);

impl Faults {
    pub(super) fn add(self: &Arc<Self>, requests: Requests, share: Share, code: StatusCode) -> Fault {
        let rule = Arc::new(Rule {
            requests,
            share,
            code,
            matched: AtomicUsize::new(0),
            refused: AtomicUsize::new(0),
        });
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(Arc::clone(&rule));
        Fault {
            rule,
            faults: Arc::clone(self),
        }
    }

    /// With what to refuse this request, if at all: the first fault that wants it has it.
    pub(super) fn refusal(&self, method: &Method, path: &str) -> Option<StatusCode> {
        let rules = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut refusal = None;
        for rule in rules.iter().filter(|rule| rule.requests.include(method, path)) {
            let number = rule.matched.fetch_add(1, Ordering::Relaxed);
            if refusal.is_none() && rule.share.includes(number) {
                rule.refused.fetch_add(1, Ordering::Relaxed);
                refusal = Some(rule.code);
            }
        }
        refusal
    }
}

/// What an API server says with this code.
pub(super) fn status(code: StatusCode) -> Value {
    let (reason, message) = match code {
        StatusCode::CONFLICT => (
            "Conflict",
            "the object has been modified; please apply your changes to it",
        ),
        StatusCode::GONE => ("Expired", "too old resource version"),
        StatusCode::TOO_MANY_REQUESTS => ("TooManyRequests", "too many requests, please try again later"),
        StatusCode::INTERNAL_SERVER_ERROR => ("InternalError", "etcdserver: leader changed"),
        _ => ("Unknown", "refused"),
    };
    let mut status = json!({
        "apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure",
        "code": code.as_u16(), "reason": reason, "message": message,
    });
    if code == StatusCode::TOO_MANY_REQUESTS {
        status["details"] = json!({ "retryAfterSeconds": RETRY_AFTER });
    }
    status
}

/// The whole answer.
pub(super) fn response(code: StatusCode) -> Response {
    let mut response = Response::new(Body::from(status(code).to_string()));
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static("application/json"),
    );
    if code == StatusCode::TOO_MANY_REQUESTS {
        headers.insert(header::RETRY_AFTER, RETRY_AFTER.into());
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_hits_its_share_of_what_matches_and_ends_when_dropped() {
        let faults = Arc::new(Faults::default());
        let requests = Requests::to(Method::PATCH, "/status");
        let fault = faults.add(requests, Share::Each(3), StatusCode::CONFLICT);
        let hit = |method: &Method, path| faults.refusal(method, path).is_some();
        assert!(!hit(&Method::GET, "/apis/a/status") && !hit(&Method::PATCH, "/apis/a"));
        let hits: Vec<bool> = (0..6).map(|_| hit(&Method::PATCH, "/apis/a/status?x")).collect();
        assert_eq!(hits, [false, false, true, false, false, true]);
        assert_eq!((fault.matched(), fault.refused()), (6, 2));
        drop(fault);
        assert!((0..6).all(|_| !hit(&Method::PATCH, "/apis/a/status")));
    }

    #[test]
    fn the_first_requests_are_refused_and_then_none() {
        let faults = Arc::new(Faults::default());
        let fault = faults.add(
            Requests::to(Method::GET, "/a"),
            Share::First(2),
            StatusCode::TOO_MANY_REQUESTS,
        );
        let refused = (0..5).filter(|_| faults.refusal(&Method::GET, "/a").is_some()).count();
        assert_eq!((refused, fault.refused(), fault.matched()), (2, 2, 5));
    }
}

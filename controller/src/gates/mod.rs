//! Asks the gates of a Rotation. What the answers mean is decided in [`certwave_core::rollout::gate`].
//!
//! A gate's URL comes from whoever may write a Rotation, and what answers there is trusted with a yes or a no and nothing else:
//! answers are limited in time and size, redirects are not followed, and nothing of a body that is no answer is repeated. Texts
//! name the host that was asked, never path, query or credentials of a URL.

pub(crate) mod exchange;
mod subject;

#[cfg(test)]
mod tests;

use std::time::Duration;

use axum::body::Body;
use certwave_core::model::Millis;
use certwave_core::rollout::gate::{Answer, online, prometheus, webhook};
use certwave_core::rollout::strategy::{Gate, GateSource};
use http::Request;
use http::header::{ACCEPT, CONTENT_TYPE};

pub use certwave_core::rollout::gate::online::Online;
pub use exchange::Client;
pub use subject::Subject;

use exchange::Failure;

/// How long Prometheus may think.
const PROMETHEUS_TIMEOUT: Duration = Duration::from_secs(10);
/// However much time a webhook is given: a gate must not hold up the others for longer.
const MAX_TIMEOUT: Duration = Duration::from_mins(1);

impl Client {
    /// Asks `gate` about `subject`. It always answers, at the latest after the time limit of the gate: whatever goes wrong is
    /// [`Answer::Unknown`].
    pub async fn ask(&self, gate: &Gate, subject: &Subject, online: Online) -> Answer {
        match &gate.source {
            GateSource::Online { min_percent_of_before } => online::answer(online, *min_percent_of_before),
            GateSource::Prometheus {
                url,
                query,
                above,
                below,
            } => {
                let asked = self.exchange(prometheus_request(url, query), PROMETHEUS_TIMEOUT).await;
                said(url, asked, |status, body| {
                    prometheus::answer(status, body, above.as_deref(), below.as_deref())
                })
            }
            GateSource::Webhook { url, timeout } => {
                let asked = self.exchange(webhook_request(url, subject), limit(*timeout)).await;
                said(url, asked, webhook::answer)
            }
        }
    }
}

fn said(url: &str, asked: Result<(u16, Vec<u8>), Failure>, read: impl FnOnce(u16, &[u8]) -> Answer) -> Answer {
    let answer = match asked {
        Ok((status, body)) => read(status, &body),
        Err(failure) => Answer::Unknown(failure.to_string()),
    };
    answer.by(&exchange::host(url))
}

fn limit(timeout: Millis) -> Duration {
    Duration::from_millis(u64::try_from(timeout).unwrap_or(0)).min(MAX_TIMEOUT)
}

/// POST, as long queries do not fit into a URL; `Content-Type` makes it a plain query to Prometheus.
fn prometheus_request(url: &str, query: &str) -> Result<Request<Body>, Failure> {
    let url = exchange::endpoint(url, "/api/v1/query")?;
    let form = form_urlencoded::Serializer::new(String::new())
        .append_pair("query", query)
        .append_pair("timeout", &format!("{}s", PROMETHEUS_TIMEOUT.as_secs()))
        .finish();
    let request = Request::post(url)
        .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
        .header(ACCEPT, "application/json");
    request.body(Body::from(form)).map_err(Failure::from)
}

fn webhook_request(url: &str, subject: &Subject) -> Result<Request<Body>, Failure> {
    let url = exchange::endpoint(url, "")?;
    let request = Request::post(url)
        .header(CONTENT_TYPE, "application/json")
        .header(ACCEPT, "application/json");
    request.body(Body::from(subject.to_json())).map_err(Failure::from)
}

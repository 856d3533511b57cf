//! Gates: what is asked whether all is well while a wave runs and soaks.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::{Decimal, Duration, rules};

/// Something that is asked again and again whether all is well.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = rules::exactly_one(&["prometheus", "webhook", "online"]),
    validation = Rule::new("!has(self.prometheus) || has(self.above) || has(self.below)").message("a prometheus gate needs above or below: what its query must stay above or below"),
    validation = Rule::new("has(self.prometheus) || !(has(self.above) || has(self.below))").message("above and below are for a prometheus gate only"),
    validation = Rule::new("!(has(self.above) && has(self.below)) || self.above < self.below").message("above must be less than below, or no value passes the gate")
)]
pub struct Gate {
    /// A Prometheus query.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prometheus: Option<PrometheusGate>,
    /// A URL of yours that answers {"passed": true} or {"passed": false}.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook: Option<WebhookGate>,
    /// The share of devices that are online, compared with before the wave.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub online: Option<OnlineGate>,
    /// All is well while the result of the Prometheus query is above this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub above: Option<Decimal>,
    /// All is well while the result of the Prometheus query is below this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub below: Option<Decimal>,
    /// How often it is asked.
    #[serde(default = "every")]
    #[x_kube(validation = rules::more_than_zero())]
    pub every: Duration,
    /// Bad answers allowed in a wave; one more is a breach.
    #[serde(default)]
    #[schemars(range(min = 0, max = 1000))]
    pub failure_limit: i32,
    /// How often in a row it may give no answer at all; after that the run waits until it does. No breach: a gate that is down says nothing about devices.
    #[serde(default = "error_limit")]
    #[schemars(range(min = 0, max = 1000))]
    pub error_limit: i32,
}

fn every() -> Duration {
    Duration::minutes(1)
}
fn error_limit() -> i32 {
    4
}

/// A Prometheus query.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
pub struct PrometheusGate {
    /// Base URL of Prometheus, http or https; /api/v1/query is added to it.
    #[schemars(length(max = 500))]
    #[x_kube(validation = rules::http_base_url("url"))]
    pub url: String,
    /// A PromQL query with exactly one result.
    #[schemars(length(max = 2000))]
    #[x_kube(validation = rules::not_blank("query"))]
    pub query: String,
}

/// A URL that says whether all is well.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
pub struct WebhookGate {
    /// Where to POST what is known of the run, http or https.
    #[schemars(length(max = 500))]
    #[x_kube(validation = rules::http_url("url"))]
    pub url: String,
    /// How long to wait for the answer.
    #[serde(default = "webhook_timeout")]
    #[x_kube(validation = rules::more_than_zero())]
    pub timeout: Duration,
}

fn webhook_timeout() -> Duration {
    Duration::from_secs(5)
}

/// The share of devices that are online, compared with before the wave.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Copy, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct OnlineGate {
    /// Devices online, at least, in percent of those that were when the wave began.
    #[serde(default = "min_percent_of_before")]
    #[schemars(range(min = 1, max = 100))]
    pub min_percent_of_before: i32,
}

fn min_percent_of_before() -> i32 {
    98
}

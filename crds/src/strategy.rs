//! How a rotation goes: shared by `Fleet` and `Rotation`.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Duration, rules};

/// How many devices at once.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Limits {
    /// Most devices between accepting a job and its end.
    #[serde(default = "max_in_flight")]
    #[schemars(range(min = 1, max = 10000))]
    pub max_in_flight: i32,
}

fn max_in_flight() -> i32 {
    50
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_in_flight: max_in_flight(),
        }
    }
}

/// What one device is given.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeviceLimits {
    /// Time for each step of a job.
    #[serde(default = "step_timeout")]
    #[x_kube(validation = rules::more_than_zero())]
    pub step_timeout: Duration,
    /// How long a device tries the new certificate before it goes back by itself.
    #[serde(default = "trial_timeout")]
    #[x_kube(validation = rules::more_than_zero())]
    pub trial_timeout: Duration,
    /// Time for a whole job, from its acceptance.
    #[serde(default = "job_timeout")]
    #[x_kube(validation = rules::more_than_zero())]
    pub job_timeout: Duration,
    /// Silence after which a device counts as offline.
    #[serde(default = "offline_after")]
    #[x_kube(validation = rules::more_than_zero())]
    pub offline_after: Duration,
    /// Silence after a timed-out job after which a device counts as lost.
    #[serde(default = "lost_after")]
    #[x_kube(validation = rules::more_than_zero())]
    pub lost_after: Duration,
    /// How a failed job is tried again.
    #[serde(default)]
    pub retries: Retries,
}

fn step_timeout() -> Duration {
    Duration::minutes(5)
}
fn trial_timeout() -> Duration {
    Duration::minutes(2)
}
fn job_timeout() -> Duration {
    Duration::hours(1)
}
fn offline_after() -> Duration {
    Duration::minutes(15)
}
fn lost_after() -> Duration {
    Duration::hours(24)
}

impl Default for DeviceLimits {
    fn default() -> Self {
        Self {
            step_timeout: step_timeout(),
            trial_timeout: trial_timeout(),
            job_timeout: job_timeout(),
            offline_after: offline_after(),
            lost_after: lost_after(),
            retries: Retries::default(),
        }
    }
}

/// How a failed job is tried again.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
pub struct Retries {
    /// How often at most; 0 means never.
    #[serde(default = "retries_max")]
    #[schemars(range(min = 0, max = 100))]
    pub max: i32,
    /// Wait before the first retry; doubled each time.
    #[serde(default = "retries_backoff")]
    pub backoff: Duration,
}

fn retries_max() -> i32 {
    3
}
fn retries_backoff() -> Duration {
    Duration::minutes(10)
}

impl Default for Retries {
    fn default() -> Self {
        Self {
            max: retries_max(),
            backoff: retries_backoff(),
        }
    }
}

/// What becomes of the old certificate.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default, KubeSchema)]
pub struct OldCertificate {
    /// How the old certificate ends: Expire (by itself).
    #[serde(default)]
    pub retire: Retire,
}

/// How an old certificate ends.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Copy, Default, JsonSchema)]
pub enum Retire {
    /// It ends by itself.
    #[default]
    Expire,
}

//! How a rotation goes: shared by `Fleet` and `Rotation`.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{DeviceSelector, Duration, Gate, RotationOrder, Wave, WaveDefaults, rules};

/// How certificates of a fleet are replaced. Left out, it is safe: one device in a hundred, then one in ten, then the rest.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct RotationStrategy {
    /// In which order devices come.
    #[serde(default)]
    pub order: RotationOrder,
    /// Groups of devices that come one after the other, at most 20; the last one is the rest.
    #[serde(default = "Wave::safe")]
    #[schemars(length(min = 1, max = 20), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    #[x_kube(validation = rules::percent_rises(), validation = rules::last_wave_is_the_rest())]
    pub waves: Vec<Wave>,
    /// What counts as a breach of a wave that does not say so itself.
    #[serde(default)]
    pub defaults: WaveDefaults,
    /// How many devices at once, and how fast.
    #[serde(default)]
    pub limits: Limits,
    /// Time and attempts that one device is given.
    #[serde(default)]
    pub device: DeviceLimits,
    /// When devices may be sent something new, at most 20; always where left out. A device that no window selects waits.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20), extend("x-kubernetes-list-type" = "atomic"))]
    pub windows: Vec<Window>,
    /// A device whose certificate ends within this time does not wait for a window; 0s lets it wait until the end.
    #[serde(default = "window_override")]
    pub window_override_before_expiry: Duration,
    /// What becomes of devices that come to the fleet while a Rotation runs: LastWave or Ignore.
    #[serde(default)]
    pub joiners: Joiners,
    /// What becomes of the old certificate.
    #[serde(default)]
    pub old_certificate: OldCertificate,
    /// What must say that all is well while a wave runs and soaks, at most 10.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10), extend("x-kubernetes-list-type" = "atomic"))]
    pub gates: Vec<Gate>,
    /// How many ended Rotations that the fleet began by itself are kept.
    #[serde(default = "history_limit")]
    #[schemars(range(min = 0, max = 100))]
    pub history_limit: i32,
}

fn window_override() -> Duration {
    Duration::hours(72)
}
fn history_limit() -> i32 {
    10
}

impl Default for RotationStrategy {
    fn default() -> Self {
        Self {
            order: RotationOrder::default(),
            waves: Wave::safe(),
            defaults: WaveDefaults::default(),
            limits: Limits::default(),
            device: DeviceLimits::default(),
            windows: Vec::new(),
            window_override_before_expiry: window_override(),
            joiners: Joiners::default(),
            old_certificate: OldCertificate::default(),
            gates: Vec::new(),
            history_limit: history_limit(),
        }
    }
}

impl RotationStrategy {
    /// Whether old certificates are to be revoked.
    pub fn revokes(&self) -> bool {
        self.old_certificate.retire == Retire::Revoke
    }
}

/// How many devices at once, and how fast.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Limits {
    /// Most devices between being sent a job and its end.
    #[serde(default = "max_in_flight")]
    #[schemars(range(min = 1, max = 10000))]
    pub max_in_flight: i32,
    /// Most jobs sent within any minute.
    #[serde(default = "max_per_minute")]
    #[schemars(range(min = 1, max = 100_000))]
    pub max_per_minute: i32,
    /// Begins slower than maxPerMinute and becomes faster with success.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ramp: Option<Ramp>,
    /// Spares devices that serve together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_group: Option<PerGroup>,
}

fn max_in_flight() -> i32 {
    50
}
fn max_per_minute() -> i32 {
    100
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_in_flight: max_in_flight(),
            max_per_minute: max_per_minute(),
            ramp: None,
            per_group: None,
        }
    }
}

/// A rate that begins low and is multiplied with success, up to maxPerMinute.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Copy, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Ramp {
    /// Jobs within a minute at first.
    #[serde(default = "ramp_from")]
    #[schemars(range(min = 1, max = 100_000))]
    pub from: i32,
    /// The rate is multiplied by this each time.
    #[serde(default = "ramp_factor")]
    #[schemars(range(min = 2, max = 100))]
    pub factor: i32,
    /// After how many more confirmed devices.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub every_succeeded: i32,
}

fn ramp_from() -> i32 {
    10
}
fn ramp_factor() -> i32 {
    2
}

/// A limit for devices that share the value of a label.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PerGroup {
    /// The device label, such as site. Devices without it are a group of their own.
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = rules::label_key("by"))]
    pub by: String,
    /// Most devices of a group that are in flight, or timed out and not heard again.
    #[serde(default = "max_unavailable")]
    #[schemars(range(min = 1, max = 10000))]
    pub max_unavailable: i32,
}

fn max_unavailable() -> i32 {
    1
}

/// A time, again and again, at which devices may be sent something new.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Window {
    /// When it opens: minute, hour, day of month, month and day of week, as cron has them.
    #[schemars(length(max = 100))]
    #[x_kube(validation = rules::cron())]
    pub cron: String,
    /// How long it stays open; less than the time between two openings.
    #[x_kube(validation = rules::more_than_zero())]
    pub duration: Duration,
    /// The time zone that cron is read in, by its IANA name, such as Europe/Berlin.
    #[schemars(length(max = 64))]
    #[x_kube(validation = rules::time_zone())]
    pub time_zone: String,
    /// For which devices; all where left out.
    #[serde(default)]
    pub selector: DeviceSelector,
}

/// What becomes of devices that come to the fleet while a Rotation runs.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Copy, Default, JsonSchema)]
pub enum Joiners {
    /// They are added to the last wave.
    #[default]
    LastWave,
    /// They wait for the next Rotation.
    Ignore,
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
    /// How a job that failed or timed out is tried again.
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

/// How a job that failed or timed out is tried again.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
pub struct Retries {
    /// How often at most; 0 means never.
    #[serde(default = "retries_max")]
    #[schemars(range(min = 0, max = 100))]
    pub max: i32,
    /// Wait before the first retry; doubled each time.
    #[serde(default = "retries_backoff")]
    pub backoff: Duration,
    /// What is tried again: Failed and TimedOut (once the device is heard again).
    #[serde(default = "retried")]
    #[schemars(length(min = 1, max = 2), extend("x-kubernetes-list-type" = "set"))]
    pub outcomes: Vec<RetriedOutcome>,
}

fn retries_max() -> i32 {
    3
}
fn retries_backoff() -> Duration {
    Duration::minutes(10)
}
fn retried() -> Vec<RetriedOutcome> {
    vec![RetriedOutcome::Failed, RetriedOutcome::TimedOut]
}

impl Default for Retries {
    fn default() -> Self {
        Self {
            max: retries_max(),
            backoff: retries_backoff(),
            outcomes: retried(),
        }
    }
}

/// An end of a job that another attempt may follow.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Copy, JsonSchema)]
pub enum RetriedOutcome {
    /// The device said that it failed, or the controller saw it.
    Failed,
    /// A deadline passed; another attempt begins once the device is heard again.
    TimedOut,
}

/// What becomes of the old certificate.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct OldCertificate {
    /// How the old certificate ends: Expire (by itself), or Revoke once the device has come back by the new one alone. Revoke needs a Broker that reports what its nodes have loaded; elsewhere old certificates expire, and the Fleet says so.
    #[serde(default)]
    pub retire: Retire,
    /// How long after its confirmation a device may still be sent back to its old certificate.
    #[serde(default = "grace")]
    pub grace: Duration,
    /// With Revoke: how long the broker has to load that the old certificate is on hold, and then the device to come back by its new one. A device that does not come back is let in by the old one again and counts as a failure of its wave.
    #[serde(default = "probation")]
    #[x_kube(validation = rules::more_than_zero())]
    pub probation: Duration,
    /// With Revoke: most devices asked to come back within a second, of all that share the broker; each comes by a full handshake.
    #[serde(default = "reconnects_per_second")]
    #[schemars(range(min = 1, max = 1000))]
    pub reconnects_per_second: i32,
    /// A device is sent back only to a certificate with at least this much life left.
    #[serde(default = "rollback_min_remaining")]
    pub rollback_min_remaining: Duration,
}

fn grace() -> Duration {
    Duration::hours(24)
}
fn probation() -> Duration {
    Duration::minutes(10)
}
fn reconnects_per_second() -> i32 {
    10
}
fn rollback_min_remaining() -> Duration {
    Duration::days(7)
}

impl Default for OldCertificate {
    fn default() -> Self {
        Self {
            retire: Retire::default(),
            grace: grace(),
            probation: probation(),
            reconnects_per_second: reconnects_per_second(),
            rollback_min_remaining: rollback_min_remaining(),
        }
    }
}

/// How an old certificate ends.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Copy, Default, JsonSchema)]
pub enum Retire {
    /// It ends by itself.
    #[default]
    Expire,
    /// After grace it is put on hold, and revoked as superseded once the device has come back by its new certificate alone.
    Revoke,
}

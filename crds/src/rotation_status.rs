//! What is known of a `Rotation`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What is known of a run.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Default, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct RotationStatus {
    /// How far the run is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<RotationPhase>,
    /// The wave that runs, of how many, and its name: 2/3 early.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub progress: Option<String>,
    /// When the run will be over at its present pace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::time")]
    pub eta: Option<Time>,
    /// Devices by where they stand in this run.
    #[serde(default)]
    pub counts: RotationCounts,
    /// The waves, in order, with their limits and counts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub waves: Vec<WaveStatus>,
    /// The old certificates of devices that were confirmed, where oldCertificate.retire is Revoke; counted on after the run has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retirements: Option<RetirementCounts>,
    /// What was planned, and whether it will be in time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<PlanStatus>,
    /// What went wrong, until a person answers with control.resume or control.retryFailed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub breach: Option<BreachStatus>,
    /// Some devices that failed, with the reason; at most 20.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["deviceId"]))]
    pub examples: Vec<FailureExample>,
    /// Some devices that should have gone back to their old certificates and did not or could not, with the reason; at most 20.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["deviceId"]))]
    pub not_rolled_back: Vec<FailureExample>,
    /// When the first job was sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::time")]
    pub started_at: Option<Time>,
    /// When the run ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::time")]
    pub completed_at: Option<Time>,
    /// The generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub observed_generation: Option<i64>,
    /// Conditions; Complete says whether the run is over with success.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::schema::conditions")]
    pub conditions: Vec<Condition>,
}

/// How far the run is: Pending, Running, Soaking, WaitingForApproval or Paused; Breached, RollingBack or RolledBack after a breach; it ends as Previewed, Complete, Failed or Aborted.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Copy, JsonSchema)]
pub enum RotationPhase {
    /// Waits, for its Fleet, a plan or another Rotation.
    Pending,
    /// Planned and reported, as mode Preview asks; nothing was changed.
    Previewed,
    /// Goes on.
    Running,
    /// A wave is done and must stay well for a while.
    Soaking,
    /// A wave is done and a person must approve, in control.approval, that the next one begins.
    WaitingForApproval,
    /// Sends nothing new.
    Paused,
    /// Sends nothing new after a breach; waits for a person.
    Breached,
    /// Sends devices back to their old certificates after a breach.
    RollingBack,
    /// Devices are back on their old certificates; waits for a person.
    RolledBack,
    /// Every device that could be served is confirmed.
    Complete,
    /// Ended by a breach.
    Failed,
    /// Stopped by a person.
    Aborted,
}

/// A wave of a run. All numbers are devices.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct WaveStatus {
    /// Its name.
    #[schemars(length(max = 40))]
    pub name: String,
    /// How far it is: Pending, Running, Soaking, Done, Breached or RolledBack.
    pub phase: WavePhase,
    /// Failures allowed.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub max_failed: i64,
    /// Devices allowed to vanish after they accepted.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub max_lost: i64,
    /// In the plan.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub planned: i64,
    /// Not started.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub waiting: i64,
    /// Between being sent a job and its end.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub in_flight: i64,
    /// Start from the new certificate.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub confirmed: i64,
    /// What maxFailed limits: failed, rejected, gone back to the old certificate by themselves, and probationFailed.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub failures: i64,
    /// What maxLost limits: timed out and lost.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub losses: i64,
    /// Failed.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub failed: i64,
    /// Took too long after they accepted, and were not heard since.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub timed_out: i64,
    /// Refused.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub rejected: i64,
    /// Not heard for long after they took too long.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub lost: i64,
    /// Not accepted yet because they are not heard.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub offline: i64,
    /// Went back, or were sent back, to the old certificate.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub rolled_back: i64,
    /// Confirmed, but did not come back by the new certificate alone once the old one was on hold.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub probation_failed: i64,
    /// Left for later, as they were offline when the run ended.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub deferred: i64,
}

/// How far a wave is.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Copy, JsonSchema)]
pub enum WavePhase {
    /// Its turn is to come.
    Pending,
    /// Goes on.
    Running,
    /// Done; must stay well for a while, or be approved, before the next one begins.
    Soaking,
    /// The next one has begun, or the run is over.
    Done,
    /// A limit of it was exceeded.
    Breached,
    /// Its devices were sent back.
    RolledBack,
}

/// What was planned, and whether it will be in time.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlanStatus {
    /// SHA-256 over strategy and membership, as 64 lower-case hex digits; control.approval.planHash refers to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub hash: Option<String>,
    /// When it should be over, as seen when it was planned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::time")]
    pub eta: Option<Time>,
    /// Jobs within a minute that would be needed for every device to be in time.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub needed_per_minute: i64,
    /// Devices whose certificates will end before their turn at the present pace.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub missed: i64,
    /// When the first of these certificates ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::time")]
    pub first_missed: Option<Time>,
    /// When devices may be sent something: the next windows, at most 5. None where windows are always open.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 5), extend("x-kubernetes-list-type" = "atomic"))]
    pub windows: Vec<WindowStatus>,
    /// Devices that no window selects: they wait until windowOverrideBeforeExpiry before the end of their certificates.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub without_window: i64,
}

/// A window in time.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
pub struct WindowStatus {
    /// From when devices may be sent something.
    #[schemars(schema_with = "crate::schema::time")]
    pub opens: Time,
    /// Until when.
    #[schemars(schema_with = "crate::schema::time")]
    pub closes: Time,
}

/// What went wrong.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
pub struct BreachStatus {
    /// Name of the wave.
    #[schemars(length(max = 40))]
    pub wave: String,
    /// Which limit: Failed, Lost, Success or Gate; or Person, who asked for the wave to be sent back.
    pub cause: BreachCause,
    /// In words and numbers.
    #[schemars(length(max = 1024))]
    pub message: String,
    /// When it was seen.
    #[schemars(schema_with = "crate::schema::time")]
    pub at: Time,
}

/// Which limit was exceeded, or that a person sent the wave back.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Copy, JsonSchema)]
pub enum BreachCause {
    /// More failed than allowed.
    Failed,
    /// More vanished than allowed.
    Lost,
    /// Too few of those that ended are confirmed.
    Success,
    /// A gate said no.
    Gate,
    /// A person asked for the wave to be sent back (control.rollback).
    Person,
}

/// Devices by where they stand in a run.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Copy, Default, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RotationCounts {
    /// In the plan.
    #[schemars(range(min = 0))]
    pub planned: i64,
    /// Not started.
    #[schemars(range(min = 0))]
    pub waiting: i64,
    /// Between accepting and the end.
    #[schemars(range(min = 0))]
    pub in_flight: i64,
    /// Start from the new certificate.
    #[schemars(range(min = 0))]
    pub confirmed: i64,
    /// Failed, rejected, gone back to the old certificate by themselves, and probationFailed.
    #[schemars(range(min = 0))]
    pub failures: i64,
    /// Timed out and lost.
    #[schemars(range(min = 0))]
    pub losses: i64,
    /// Failed.
    #[schemars(range(min = 0))]
    pub failed: i64,
    /// Took too long after they accepted, and were not heard since.
    #[schemars(range(min = 0))]
    pub timed_out: i64,
    /// Refused.
    #[schemars(range(min = 0))]
    pub rejected: i64,
    /// Not heard for long after they took too long.
    #[schemars(range(min = 0))]
    pub lost: i64,
    /// Not accepted yet because they are not heard.
    #[schemars(range(min = 0))]
    pub offline: i64,
    /// Went back, or were sent back, to the old certificate.
    #[schemars(range(min = 0))]
    pub rolled_back: i64,
    /// Confirmed, but did not come back by the new certificate alone once the old one was on hold.
    #[schemars(range(min = 0))]
    pub probation_failed: i64,
    /// Left for later, as they were offline when the run ended.
    #[schemars(range(min = 0))]
    pub deferred: i64,
}

/// Old certificates by how far their retirement is.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Copy, Default, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RetirementCounts {
    /// Grace is not over, or their turn is to come.
    #[schemars(range(min = 0))]
    pub waiting: i64,
    /// On hold; not every node of the broker has loaded that.
    #[schemars(range(min = 0))]
    pub held: i64,
    /// On hold everywhere; their devices were asked to come back.
    #[schemars(range(min = 0))]
    pub asked: i64,
    /// Revoked for good, as superseded.
    #[schemars(range(min = 0))]
    pub revoked: i64,
    /// Let go: they expire. Those whose devices did not come back are in counts.probationFailed.
    #[schemars(range(min = 0))]
    pub released: i64,
}

/// A device that failed.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct FailureExample {
    /// The device.
    #[schemars(length(max = 56))]
    pub device_id: String,
    /// Why, as one word of a closed list.
    #[schemars(length(max = 64))]
    pub code: String,
    /// Why, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub message: Option<String>,
}

//! `Rotation`.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{DeviceLimits, Limits, LocalRef, OldCertificate, rules};

/// One run over a fleet.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[kube(
    group = "certwave.dev",
    version = "v1alpha1",
    kind = "Rotation",
    doc = "One run that replaces the certificates of a fleet.",
    namespaced,
    status = "RotationStatus",
    shortname = "rot",
    category = "certwave",
    selectable = ".spec.fleetRef.name",
    printcolumn = r#"{"name":"Fleet","type":"string","jsonPath":".spec.fleetRef.name","description":"The fleet."}"#,
    printcolumn = r#"{"name":"Reason","type":"string","jsonPath":".spec.reason","description":"Why it runs."}"#,
    printcolumn = r#"{"name":"Phase","type":"string","jsonPath":".status.phase","description":"How far it is."}"#,
    printcolumn = r#"{"name":"Planned","type":"integer","jsonPath":".status.counts.planned","description":"Devices in the plan."}"#,
    printcolumn = r#"{"name":"In-Flight","type":"integer","jsonPath":".status.counts.inFlight","description":"Devices with a job in flight."}"#,
    printcolumn = r#"{"name":"Confirmed","type":"integer","jsonPath":".status.counts.confirmed","description":"Devices that start from the new certificate."}"#,
    printcolumn = r#"{"name":"Failed","type":"integer","jsonPath":".status.counts.failed","description":"Devices that failed."}"#,
    printcolumn = r#"{"name":"Offline","type":"integer","jsonPath":".status.counts.offline","priority":1,"description":"Devices not heard."}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!(self.reason in ['CAChange', 'CACompromise']) || has(self.issuerRef)").message("issuerRef says where the fleet moves; it is needed for CAChange and CACompromise"),
    validation = Rule::new("!has(self.issuerRef) || self.reason in ['CAChange', 'CACompromise']").message("issuerRef is for the reasons CAChange and CACompromise only"),
    validation = rules::unchanged(&["fleetRef", "reason", "issuerRef", "selector", "limits", "device", "oldCertificate"], "a Rotation keeps what it was created with; only control may change"),
    validation = Rule::new("oldSelf.control.state != 'Aborted' || self.control.state == 'Aborted'").message("an aborted Rotation stays aborted; create another one")
)]
pub struct RotationSpec {
    /// The Fleet, in this namespace.
    pub fleet_ref: LocalRef,
    /// Why: Expiry, KeyPolicy, CAChange, CACompromise or Manual.
    #[serde(default)]
    pub reason: RotationReason,
    /// The CA that the fleet moves to (CAChange, CACompromise): trust first, then certificates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer_ref: Option<LocalRef>,
    /// Which devices; all where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<DeviceSelector>,
    /// How many devices at once; the Fleet's where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
    /// Time and attempts that one device is given; the Fleet's where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<DeviceLimits>,
    /// What becomes of the old certificate; the Fleet's where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old_certificate: Option<OldCertificate>,
    /// What a person wants of the run while it goes; the only part that may change.
    #[serde(default)]
    pub control: RotationControl,
}

/// Why a Rotation runs.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Copy, Default, JsonSchema)]
pub enum RotationReason {
    /// Certificates are near their end.
    Expiry,
    /// Keys no longer meet the policy.
    KeyPolicy,
    /// The fleet moves to another CA.
    #[serde(rename = "CAChange")]
    CaChange,
    /// The CA's key is no longer safe.
    #[serde(rename = "CACompromise")]
    CaCompromise,
    /// A person asked for it.
    #[default]
    Manual,
}

/// Devices by their labels.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeviceSelector {
    /// Labels in DeviceCertificate.spec.labels that must all be there with exactly these values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "crate::schema::labels")]
    pub match_labels: BTreeMap<String, String>,
}

/// What a person wants of a run.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default, KubeSchema)]
pub struct RotationControl {
    /// Running, Paused (nothing new is sent) or Aborted (final; what is in flight ends as it must).
    #[serde(default)]
    pub state: ControlState,
}

/// What a person wants of a run.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Copy, Default, JsonSchema)]
pub enum ControlState {
    /// Go on.
    #[default]
    Running,
    /// Send nothing new; let jobs in flight finish.
    Paused,
    /// Stop for good.
    Aborted,
}

/// What is known of a run.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Default, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct RotationStatus {
    /// How far the run is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<RotationPhase>,
    /// Devices by where they stand in this run.
    #[serde(default)]
    pub counts: RotationCounts,
    /// Some devices that failed, with the reason; at most 20.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["deviceId"]))]
    pub examples: Vec<FailureExample>,
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

/// How far the run is: Pending, Running, Paused; it ends as Complete, Failed (some devices did) or Aborted.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Copy, JsonSchema)]
pub enum RotationPhase {
    /// Waits, for its Fleet or another Rotation.
    Pending,
    /// Goes on.
    Running,
    /// Sends nothing new.
    Paused,
    /// Every device that could be served is confirmed.
    Complete,
    /// Ended, and devices failed.
    Failed,
    /// Stopped by a person.
    Aborted,
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
    /// Failed.
    #[schemars(range(min = 0))]
    pub failed: i64,
    /// Took too long.
    #[schemars(range(min = 0))]
    pub timed_out: i64,
    /// Refused.
    #[schemars(range(min = 0))]
    pub rejected: i64,
    /// Vanished after they accepted.
    #[schemars(range(min = 0))]
    pub lost: i64,
    /// Not accepted yet because they are not heard.
    #[schemars(range(min = 0))]
    pub offline: i64,
    /// Went back to the old certificate.
    #[schemars(range(min = 0))]
    pub rolled_back: i64,
    /// Left for later, as they were offline when the run ended.
    #[schemars(range(min = 0))]
    pub deferred: i64,
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

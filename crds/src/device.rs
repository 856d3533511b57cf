//! `DeviceCertificate`.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{CertificateStatus, LocalRef, rules};

/// One device of a fleet.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[kube(
    group = "certwave.dev",
    version = "v1alpha1",
    kind = "DeviceCertificate",
    doc = "One device of a fleet and its certificates.",
    namespaced,
    status = "DeviceCertificateStatus",
    shortname = "devcert",
    category = "certwave",
    selectable = ".spec.fleetRef.name",
    printcolumn = r#"{"name":"Fleet","type":"string","jsonPath":".spec.fleetRef.name","description":"Its fleet."}"#,
    printcolumn = r#"{"name":"Device","type":"string","jsonPath":".spec.deviceId","description":"Its id, the common name of its certificate."}"#,
    printcolumn = r#"{"name":"State","type":"string","jsonPath":".status.state","description":"Where it stands."}"#,
    printcolumn = r#"{"name":"Expires","type":"string","jsonPath":".status.certificates.current.notAfter","description":"End of its current certificate."}"#,
    printcolumn = r#"{"name":"Job","type":"string","jsonPath":".status.job.state","priority":1,"description":"State of its last job."}"#,
    printcolumn = r#"{"name":"Code","type":"string","jsonPath":".status.job.code","priority":1,"description":"Why its last job failed."}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct DeviceCertificateSpec {
    /// The Fleet that the device belongs to, in this namespace.
    pub fleet_ref: LocalRef,
    /// Immutable id of the device and exactly the common name of its certificate; unique for a broker.
    #[schemars(length(min = 1, max = 56))]
    #[x_kube(
        validation = rules::device_id(),
        validation = rules::immutable("deviceId cannot change; declare another DeviceCertificate")
    )]
    pub device_id: String,
    /// What is known of the device, such as site, model or ring; Rotations select by it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "crate::schema::labels")]
    pub labels: BTreeMap<String, String>,
    /// Opens enrolment once more for a device that is enrolled already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reenrol: Option<Reenrol>,
}

/// A one-time permit to enrol again.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
pub struct Reenrol {
    /// Any new word, such as a ticket's number; each new word is one permit.
    #[schemars(length(min = 1, max = 64))]
    pub permit: String,
}

/// What is known of a device.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Default, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeviceCertificateStatus {
    /// Where the device stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<DeviceState>,
    /// Its certificates.
    #[serde(default)]
    pub certificates: DeviceCertificates,
    /// Its last job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobStatus>,
    /// When it was last heard; written with other changes only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::time")]
    pub last_seen: Option<Time>,
    /// The generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub observed_generation: Option<i64>,
    /// Conditions; Ready says whether the device holds a certificate that works.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::schema::conditions")]
    pub conditions: Vec<Condition>,
}

/// Where the device stands: Declared (no certificate yet), Enrolling, Active, Rotating, Failed (it keeps the old certificate), Lost, Expired or Refused (see the conditions).
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Copy, JsonSchema)]
pub enum DeviceState {
    /// Declared, without a certificate yet.
    Declared,
    /// Its first certificate is on the way.
    Enrolling,
    /// It holds a certificate that works.
    Active,
    /// A job is in flight.
    Rotating,
    /// Its last job failed; it still holds the old certificate.
    Failed,
    /// It vanished after it accepted a job.
    Lost,
    /// Its certificate is over.
    Expired,
    /// It cannot be served: see the conditions.
    Refused,
}

/// A device's certificates.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default, KubeSchema)]
pub struct DeviceCertificates {
    /// The one it starts from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<CertificateStatus>,
    /// The one before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<CertificateStatus>,
    /// The one on trial.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending: Option<CertificateStatus>,
}

/// A device's job.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, KubeSchema)]
pub struct JobStatus {
    /// Id of the job, a UUID.
    #[schemars(length(max = 36))]
    pub id: String,
    /// What it does: Enrol, Rotate, Rollback or Trust (hands out trust anchors).
    pub kind: JobKind,
    /// How far it is: Queued, Sent, Accepted, Issued, Committing; it ends as Confirmed, Rejected, Failed, TimedOut, RolledBack, Cancelled or Lost.
    pub state: JobState,
    /// Which attempt, from 1.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub attempt: i32,
    /// Why it failed, as one word of a closed list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub code: Option<String>,
    /// Why it failed, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub message: Option<String>,
    /// Since when it is in this state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::time")]
    pub since: Option<Time>,
}

/// What a job does.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Copy, JsonSchema)]
pub enum JobKind {
    /// Gives a device its first certificate.
    Enrol,
    /// Replaces the certificate.
    Rotate,
    /// Sends the device back to the old certificate.
    Rollback,
    /// Hands out trust anchors.
    Trust,
}

/// How far a job is.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Copy, JsonSchema)]
pub enum JobState {
    /// Waits to be sent.
    Queued,
    /// Sent, not accepted yet.
    Sent,
    /// The device accepted.
    Accepted,
    /// The certificate was issued.
    Issued,
    /// The device tested it and is told to keep it.
    Committing,
    /// The device starts from the new certificate.
    Confirmed,
    /// The device refused.
    Rejected,
    /// The device failed.
    Failed,
    /// A step took too long.
    TimedOut,
    /// The device went back.
    RolledBack,
    /// Called off before it was accepted.
    Cancelled,
    /// The device vanished after it accepted.
    Lost,
}

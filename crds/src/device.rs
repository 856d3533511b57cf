//! `DeviceCertificate`.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{CertificateStanding, CertificateStatus, LocalRef, RevocationReason, rules};

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
    selectable = ".spec.deviceId",
    printcolumn = r#"{"name":"Fleet","type":"string","jsonPath":".spec.fleetRef.name","description":"Its fleet."}"#,
    printcolumn = r#"{"name":"Device","type":"string","jsonPath":".spec.deviceId","description":"Its id, the common name of its certificate."}"#,
    printcolumn = r#"{"name":"State","type":"string","jsonPath":".status.state","description":"Where it stands."}"#,
    printcolumn = r#"{"name":"Expires","type":"string","jsonPath":".status.certificates.current.notAfter","description":"End of its current certificate."}"#,
    printcolumn = r#"{"name":"Revoked","type":"string","jsonPath":".status.conditions[?(@.type==\"Revoked\")].reason","description":"Why it is revoked, or that it is on hold."}"#,
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
    /// Revokes the device's certificates or puts them on hold; it then gets none until the hold is released, or until it uses a reenrol permit that was given with the revocation or later. To take this out releases a hold, and takes no revocation back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = rules::never_back_to_hold(), validation = rules::release_or_reason())]
    pub revocation: Option<DeviceRevocation>,
}

/// What is to become of a device's certificates.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = rules::hold_or_reason())]
pub struct DeviceRevocation {
    /// Why: unspecified (where left out), keyCompromise, affiliationChanged, superseded, cessationOfOperation or privilegeWithdrawn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = rules::reason_of_a_device())]
    pub reason: Option<RevocationReason>,
    /// Since when somebody else may have used the key; CRLs tell it (invalidityDate). A time that has not come yet is left out of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::time")]
    pub since: Option<Time>,
    /// On hold instead of revoked: refused everywhere until the whole revocation is taken out, which releases it. To revoke for good set it to false with a reason.
    #[serde(default)]
    pub hold: bool,
    /// Only the certificate with this serial number, as status.certificates shows it; all that have not expired where left out. The device goes on with its others, unless it is the one that it starts from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 40))]
    #[x_kube(validation = rules::serial())]
    pub serial: Option<String>,
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
    /// How far a revocation or hold is: recorded, in CRLs, at the broker, session closed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revocation: Option<DeviceRevocationStatus>,
    /// When it was last heard; written with other changes only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::time")]
    pub last_seen: Option<Time>,
    /// The generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub observed_generation: Option<i64>,
    /// Conditions; Ready says whether the device holds a certificate that works, Revoked whether a person has revoked it or put it on hold, and how far that is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::schema::conditions")]
    pub conditions: Vec<Condition>,
}

/// Where the device stands: Declared (no certificate yet), Enrolling, Active, Rotating, Failed (it keeps the old certificate), Lost, Expired, Held, Revoked or Refused (see the conditions).
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
    /// A person has put it on hold.
    Held,
    /// A person has revoked it.
    Revoked,
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

/// How far a revocation or hold is. A time stands here once it holds for all certificates.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeviceRevocationStatus {
    /// On hold rather than revoked.
    #[serde(default)]
    pub hold: bool,
    /// Why it was revoked; none of a hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<RevocationReason>,
    /// When a person asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::time")]
    pub requested_at: Option<Time>,
    /// When it was in the ledger: from here on the device gets no certificate, and OCSP says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::time")]
    pub ledger_at: Option<Time>,
    /// The CRL that says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crl: Option<RevocationCrl>,
    /// The broker's nodes that have loaded that CRL; at most 32.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["node"]))]
    pub brokers: Vec<NodeLoaded>,
    /// When every node of the broker had loaded it: nobody gets in with these certificates any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::time")]
    pub shut_at: Option<Time>,
    /// When the device's live session was closed, or there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::time")]
    pub session_closed_at: Option<Time>,
    /// The certificates that are revoked, on hold or released, the last change first; at most 8.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["issuer", "serial"]))]
    pub certificates: Vec<RevokedCertificate>,
}

/// The CRL that says a revocation.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct RevocationCrl {
    /// Its number; of several CRLs, the one published last.
    #[schemars(range(min = 0))]
    pub number: i64,
    /// When it was published.
    #[schemars(schema_with = "crate::schema::time")]
    pub at: Time,
}

/// A node of a broker that has loaded a CRL.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeLoaded {
    /// The node, as it calls itself.
    #[schemars(length(min = 1, max = 253))]
    pub node: String,
    /// When it had loaded it.
    #[schemars(schema_with = "crate::schema::time")]
    pub loaded_at: Time,
}

/// One certificate that is revoked, on hold or released.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct RevokedCertificate {
    /// Key id of the issuer, in lower-case hex.
    #[schemars(length(max = 64))]
    pub issuer: String,
    /// Serial number, in lower-case hex.
    #[schemars(length(max = 64))]
    pub serial: String,
    /// How it stands: Held, Revoked, or Released.
    pub state: CertificateStanding,
    /// Why it is revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<RevocationReason>,
    /// Since when, as CRLs and OCSP tell it; of a certificate that was on hold before, since then. None of a released one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::time")]
    pub since: Option<Time>,
    /// Number of the first CRL that says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub crl: Option<i64>,
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
    /// Since when it is in this state, or was given its time again for a fault of the controller's side.
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

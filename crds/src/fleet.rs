//! `Fleet`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Duration, KeyAlgorithm, LocalRef, RotationStrategy, rules};

/// Devices that share a CA, a broker, a certificate template and a strategy.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "certwave.dev",
    version = "v1alpha1",
    kind = "Fleet",
    doc = "Devices that share a CA, a broker, a certificate template, enrolment and a rotation strategy.",
    namespaced,
    status = "FleetStatus",
    shortname = "fleet",
    category = "certwave",
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].status","description":"Whether devices are served."}"#,
    printcolumn = r#"{"name":"Devices","type":"integer","jsonPath":".status.counts.total","description":"Devices declared."}"#,
    printcolumn = r#"{"name":"Enrolled","type":"integer","jsonPath":".status.counts.enrolled","description":"Devices with a certificate of their own."}"#,
    printcolumn = r#"{"name":"Rotating","type":"integer","jsonPath":".status.counts.rotating","description":"Devices with a job in flight."}"#,
    printcolumn = r#"{"name":"Offline","type":"integer","jsonPath":".status.counts.offline","description":"Devices not heard."}"#,
    printcolumn = r#"{"name":"Failed","type":"integer","jsonPath":".status.counts.failed","description":"Devices whose last job failed."}"#,
    printcolumn = r#"{"name":"Revoked","type":"integer","jsonPath":".status.counts.revoked","description":"Devices that a person has revoked."}"#,
    printcolumn = r#"{"name":"Next-Due","type":"string","jsonPath":".status.nextDue","description":"When the next certificate is due."}"#,
    printcolumn = r#"{"name":"Held","type":"integer","jsonPath":".status.counts.held","priority":1,"description":"Devices on hold."}"#,
    printcolumn = r#"{"name":"Rotation","type":"string","jsonPath":".status.currentRotation","priority":1,"description":"The Rotation that runs."}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct FleetSpec {
    /// CA that issues the devices' certificates. A Rotation with reason CAChange moves the devices when it changes.
    pub issuer_ref: LocalRef,
    /// Broker of the fleet. Cannot change: identities belong to a broker.
    #[x_kube(validation = rules::immutable("brokerRef cannot change: devices are known to one broker; declare another Fleet"))]
    pub broker_ref: BrokerRef,
    /// What the devices' certificates look like.
    #[serde(default)]
    pub certificate: CertificateTemplate,
    /// How devices get their first certificate.
    #[serde(default)]
    pub enrolment: Enrolment,
    /// How certificates are replaced.
    #[serde(default)]
    pub rotation: RotationStrategy,
    /// What deleting a DeviceCertificate of this fleet means: Keep (nothing is revoked) or Revoke (its certificates are revoked as cessationOfOperation). To delete the Fleet, its namespace or a duplicate never revokes anything.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
}

/// What deleting a DeviceCertificate means.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Copy, Default, JsonSchema)]
pub enum DeletionPolicy {
    /// Nothing is revoked.
    #[default]
    Keep,
    /// The device's certificates are revoked, if the controller saw the deletion and the Fleet goes on.
    Revoke,
}

/// A broker, perhaps of another namespace.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default, KubeSchema)]
pub struct BrokerRef {
    /// Name of the Broker.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Its namespace, which must allow this one; the Fleet's own where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub namespace: Option<String>,
}

/// What certificates look like.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = rules::renewed_within_validity())]
pub struct CertificateTemplate {
    /// Validity of a device's certificate; cut to the CA's own.
    #[serde(default = "validity")]
    #[x_kube(validation = rules::more_than_zero())]
    pub validity: Duration,
    /// How long before its end a certificate is due; must be less than validity.
    #[serde(default = "renew_before")]
    pub renew_before: Duration,
    /// How far before now validity begins; the CA's backdate where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backdate: Option<Duration>,
    /// Algorithms that a device's key may have: ECDSA-P256, ECDSA-P384, Ed25519, RSA-2048, RSA-3072, RSA-4096.
    #[serde(default = "key_algorithms")]
    #[schemars(length(min = 1, max = 6), extend("x-kubernetes-list-type" = "set"))]
    pub key_algorithms: Vec<KeyAlgorithm>,
    /// Subject besides the common name, which is always the deviceId.
    #[serde(default)]
    pub subject: Subject,
    /// Subject alternative names, as templates: {deviceId}, {fleet} and {namespace} are filled in.
    #[serde(default)]
    pub sans: Sans,
}

fn validity() -> Duration {
    Duration::days(90)
}
fn renew_before() -> Duration {
    Duration::days(30)
}
fn key_algorithms() -> Vec<KeyAlgorithm> {
    vec![KeyAlgorithm::EcdsaP256]
}

impl Default for CertificateTemplate {
    fn default() -> Self {
        Self {
            validity: validity(),
            renew_before: renew_before(),
            backdate: None,
            key_algorithms: key_algorithms(),
            subject: Subject::default(),
            sans: Sans::default(),
        }
    }
}

/// Subject of a device's certificate besides the common name.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Subject {
    /// Organization (O).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub organization: Option<String>,
    /// Organizational unit (OU).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub organizational_unit: Option<String>,
    /// Country (C), two capital letters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Z]{2}$')").message("country is two capital letters (ISO 3166-1)"))]
    pub country: Option<String>,
    /// Locality (L).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub locality: Option<String>,
}

/// Subject alternative names, as templates: {deviceId}, {fleet} and {namespace} are filled in.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default, KubeSchema)]
pub struct Sans {
    /// DNS names, such as {deviceId}.meters.example.com.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), inner(length(min = 1, max = 253)), extend("x-kubernetes-list-type" = "set"))]
    #[x_kube(validation = rules::name_templates("dns"))]
    pub dns: Vec<String>,
    /// URIs, such as urn:example:{deviceId}.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), inner(length(min = 1, max = 512)), extend("x-kubernetes-list-type" = "set"))]
    #[x_kube(validation = rules::name_templates("uris"))]
    pub uris: Vec<String>,
}

/// How devices get their first certificate.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Default, KubeSchema)]
pub struct Enrolment {
    /// Which devices may enrol: Declared (those for which a DeviceCertificate exists).
    #[serde(default)]
    pub policy: EnrolmentPolicy,
    /// Claims: certificates that can enrol and nothing else. `certwave claim create` adds one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub claims: Vec<Claim>,
}

/// Which devices may enrol.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Copy, Default, JsonSchema)]
pub enum EnrolmentPolicy {
    /// Those for which a DeviceCertificate exists.
    #[default]
    Declared,
}

/// A claim.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.deviceId) != has(self.quota)").message("a claim has either a deviceId (bound to one device) or a quota (shared by a production run)"),
    validation = rules::unchanged(&["csr", "deviceId"], "csr and deviceId of a claim cannot change; make another claim")
)]
pub struct Claim {
    /// Name of the claim, a DNS label; its certificate is called `~claim.<name>`.
    #[schemars(length(min = 1, max = 40))]
    #[x_kube(validation = rules::dns_label("the name of a claim"))]
    pub name: String,
    /// The one device that may use the claim.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 56))]
    #[x_kube(validation = rules::device_id())]
    pub device_id: Option<String>,
    /// How many devices may enrol with the claim.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub quota: Option<i32>,
    /// When the claim ends.
    #[schemars(schema_with = "crate::schema::time")]
    pub not_after: Time,
    /// Stops enrolment with this claim, and nothing else.
    #[serde(default)]
    pub suspended: bool,
    /// The claim's request, PKCS#10 as PEM; its key stays with the person who made it.
    #[schemars(length(min = 1, max = 8192))]
    #[x_kube(validation = rules::pem("csr", "CERTIFICATE REQUEST"))]
    pub csr: String,
}

/// What is known of a fleet.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Default, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct FleetStatus {
    /// Devices by state.
    #[serde(default)]
    pub counts: FleetCounts,
    /// When the next certificate is due.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::time")]
    pub next_due: Option<Time>,
    /// Name of the Rotation that runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub current_rotation: Option<String>,
    /// Name of the Rotation that ended last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub last_rotation: Option<String>,
    /// SHA-256 of the trust bundle that devices should hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub trust_bundle: Option<String>,
    /// The declared claims, with their certificates and use.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub claims: Vec<ClaimStatus>,
    /// The generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub observed_generation: Option<i64>,
    /// Conditions; Ready says whether devices are served, DeadlineAtRisk whether certificates will end before their turn comes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::schema::conditions")]
    pub conditions: Vec<Condition>,
}

/// Devices by state.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Copy, Default, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct FleetCounts {
    /// All devices.
    #[schemars(range(min = 0))]
    pub total: i64,
    /// Declared, without a certificate yet.
    #[schemars(range(min = 0))]
    pub declared: i64,
    /// With a certificate of their own.
    #[schemars(range(min = 0))]
    pub enrolled: i64,
    /// With a job in flight.
    #[schemars(range(min = 0))]
    pub rotating: i64,
    /// Not heard for offlineAfter.
    #[schemars(range(min = 0))]
    pub offline: i64,
    /// Whose last job failed.
    #[schemars(range(min = 0))]
    pub failed: i64,
    /// Whose certificate is over.
    #[schemars(range(min = 0))]
    pub expired: i64,
    /// Revoked, until a person permits them to enrol again; counted above, too.
    #[schemars(range(min = 0))]
    pub revoked: i64,
    /// On hold, until it is released; counted above, too.
    #[schemars(range(min = 0))]
    pub held: i64,
}

/// What is known of a claim.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClaimStatus {
    /// Name of the claim.
    #[schemars(length(max = 40))]
    pub name: String,
    /// Whether it can be used: Active; or not: Pending (its certificate is being made), Suspended, UsedUp, Expired or Rejected.
    pub state: ClaimState,
    /// The claim's certificate with its chain, PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16384))]
    pub certificate: Option<String>,
    /// How many devices enrolled with it.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub used: i64,
    /// When it was last used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::time")]
    pub last_used: Option<Time>,
    /// Why it cannot be used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub message: Option<String>,
}

/// Whether a claim can be used.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Copy, JsonSchema)]
pub enum ClaimState {
    /// Its certificate is being made.
    Pending,
    /// It can be used.
    Active,
    /// A person stopped it.
    Suspended,
    /// Its quota is used up.
    UsedUp,
    /// Its time is over.
    Expired,
    /// Its request was refused.
    Rejected,
}

//! `Revocation`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{DeviceSelector, LocalRef, RevocationReason, rules};

const KEPT: &str = "whom a Revocation is about, and why, cannot change; create another Revocation";

/// Revokes many certificates, or puts them on hold.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[kube(
    group = "certwave.dev",
    version = "v1alpha1",
    kind = "Revocation",
    doc = "Revokes everything that a CA has issued, the devices of a fleet or those with some labels, or a subordinate CA itself; with a preview of how many.",
    namespaced,
    status = "RevocationStatus",
    shortname = "revoc",
    category = "certwave",
    printcolumn = r#"{"name":"Mode","type":"string","jsonPath":".spec.mode","description":"Preview or Run."}"#,
    printcolumn = r#"{"name":"Phase","type":"string","jsonPath":".status.phase","description":"How far it is."}"#,
    printcolumn = r#"{"name":"Devices","type":"integer","jsonPath":".status.matched.devices","description":"Devices that it is about."}"#,
    printcolumn = r#"{"name":"Certificates","type":"integer","jsonPath":".status.matched.certificates","description":"Certificates that it is about."}"#,
    printcolumn = r#"{"name":"Recorded","type":"integer","jsonPath":".status.progress.recorded","description":"Certificates that are revoked or on hold in the ledger."}"#,
    printcolumn = r#"{"name":"Closed","type":"integer","jsonPath":".status.progress.closed","description":"Certificates whose devices' live sessions were closed."}"#,
    printcolumn = r#"{"name":"Reason","type":"string","jsonPath":".spec.reason","priority":1,"description":"Why."}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("[has(self.issuerRef), has(self.fleetRef) || has(self.selector), has(self.certificateAuthority)].filter(x, x).size() == 1").message("set issuerRef, or fleetRef and selector (one of them or both), or certificateAuthority"),
    validation = rules::unchanged(&["issuerRef", "fleetRef", "selector", "certificateAuthority", "reason", "since"], KEPT),
    validation = Rule::new("self.hold == oldSelf.hold").message(KEPT),
    validation = rules::hold_or_reason(),
    validation = Rule::new("oldSelf.mode == 'Preview' || self.mode == 'Run'").message("a Revocation that has begun cannot go back to Preview"),
    validation = Rule::new("!self.release || self.hold").message("only a hold can be released; what is revoked stays so"),
    validation = Rule::new("self.release || !oldSelf.release").message("what was released stays so; create another Revocation to put it on hold again"),
    validation = Rule::new("!has(self.certificateAuthority) || !self.hold").message("a CA cannot be put on hold: everything below it would be refused; suspend it by moving its fleets, or revoke it"),
    validation = Rule::new("!has(self.reason) || self.reason != 'cACompromise' || has(self.certificateAuthority)").message("cACompromise is for the certificate of a CA (certificateAuthority); of what it has issued choose keyCompromise or superseded")
)]
pub struct RevocationSpec {
    /// Everything that this CertificateAuthority has issued to devices and that has not expired. What devices have got from another CA since goes on to work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer_ref: Option<LocalRef>,
    /// The devices of this Fleet, with all their certificates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fleet_ref: Option<LocalRef>,
    /// The devices of this namespace (of the Fleet, if there is a fleetRef) with these labels, with all their certificates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("has(self.matchLabels) && self.matchLabels.size() > 0").message("an empty selector would be every device of the namespace; name labels, or leave selector out and set fleetRef"))]
    pub selector: Option<DeviceSelector>,
    /// A subordinate CertificateAuthority itself: its own certificate goes on its issuer's CRL, and it issues no more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_authority: Option<LocalRef>,
    /// Why: unspecified (where left out), keyCompromise, cACompromise (only with certificateAuthority), affiliationChanged, superseded, cessationOfOperation or privilegeWithdrawn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<RevocationReason>,
    /// Since when somebody else may have used the keys; CRLs tell it (invalidityDate). A time that has not come yet is left out of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::time")]
    pub since: Option<Time>,
    /// On hold instead of revoked. Cannot change: to revoke for good what is on hold takes another Revocation.
    #[serde(default)]
    pub hold: bool,
    /// Releases what this object holds, for good; to delete the object does the same.
    #[serde(default)]
    pub release: bool,
    /// Preview (counts whom it is about and changes nothing) or Run.
    #[serde(default)]
    pub mode: RevocationMode,
    /// Runs only while the preview is the one that was seen, as status.planHash has it. Left out, it runs over whomever it matches.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(validation = rules::hash_of("planHash", "status.planHash"))]
    pub plan_hash: String,
}

/// What is to be done.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Copy, Default, JsonSchema)]
pub enum RevocationMode {
    /// Count, and change nothing.
    #[default]
    Preview,
    /// Revoke, or put on hold.
    Run,
}

/// How far a Revocation is.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Default, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct RevocationStatus {
    /// How far it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<RevocationPhase>,
    /// Whom it is about: as last counted before it began.
    #[serde(default)]
    pub matched: RevocationMatch,
    /// Hash of whom it is about; give it as spec.planHash to run over nobody else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub plan_hash: Option<String>,
    /// Certificates by how far the world has heard.
    #[serde(default)]
    pub progress: RevocationCounts,
    /// Some of the devices, by deviceId; at most 20.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20), inner(length(max = 56)), extend("x-kubernetes-list-type" = "atomic"))]
    pub examples: Vec<String>,
    /// When the last certificate was recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::time")]
    pub recorded_at: Option<Time>,
    /// When it was over: in CRLs, at the broker, sessions closed; or released.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::time")]
    pub completed_at: Option<Time>,
    /// The generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub observed_generation: Option<i64>,
    /// Conditions; Complete says whether everything is recorded and everybody has heard.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::schema::conditions")]
    pub conditions: Vec<Condition>,
}

/// How far a Revocation is: Ready (previewed), Invalid (it cannot begin: see the conditions), Running (being recorded), Recorded (all of it is in the ledger; CRLs, brokers or sessions follow), Complete or Released.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Copy, JsonSchema)]
pub enum RevocationPhase {
    /// Previewed; nothing has changed.
    Ready,
    /// It cannot begin: see the conditions.
    Invalid,
    /// Being recorded in the ledger.
    Running,
    /// All of it is in the ledger; CRLs, brokers or sessions follow.
    Recorded,
    /// Everybody has heard.
    Complete,
    /// What was on hold is good again.
    Released,
}

/// Whom a Revocation is about.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Copy, Default, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RevocationMatch {
    /// Devices.
    #[schemars(range(min = 0))]
    pub devices: i64,
    /// Their certificates that are good or on hold.
    #[schemars(range(min = 0))]
    pub certificates: i64,
}

/// Certificates by how far the world has heard.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Copy, Default, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RevocationCounts {
    /// Revoked or on hold in the ledger.
    #[schemars(range(min = 0))]
    pub recorded: i64,
    /// In a CRL.
    #[schemars(range(min = 0))]
    pub in_crl: i64,
    /// Refused by every node of the broker.
    #[schemars(range(min = 0))]
    pub shut: i64,
    /// With the live session closed.
    #[schemars(range(min = 0))]
    pub closed: i64,
}

//! `Rotation`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    DeviceLimits, DeviceSelector, Duration, Gate, Joiners, Limits, LocalRef, OldCertificate, RotationOrder,
    RotationStatus, Wave, WaveDefaults, Window, rules,
};

const KEPT: &str = "a Rotation keeps what it was created with; only control may change";

/// One run over a fleet.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
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
    printcolumn = r#"{"name":"Wave","type":"string","jsonPath":".status.progress","description":"The wave that runs, and how many there are."}"#,
    printcolumn = r#"{"name":"Planned","type":"integer","jsonPath":".status.counts.planned","description":"Devices in the plan."}"#,
    printcolumn = r#"{"name":"In-Flight","type":"integer","jsonPath":".status.counts.inFlight","description":"Devices with a job in flight."}"#,
    printcolumn = r#"{"name":"Confirmed","type":"integer","jsonPath":".status.counts.confirmed","description":"Devices that start from the new certificate."}"#,
    printcolumn = r#"{"name":"Failed","type":"integer","jsonPath":".status.counts.failures","description":"Devices that failed, refused or went back to the old certificate by themselves."}"#,
    printcolumn = r#"{"name":"Lost","type":"integer","jsonPath":".status.counts.losses","description":"Devices that were not heard in time after they accepted."}"#,
    printcolumn = r#"{"name":"Offline","type":"integer","jsonPath":".status.counts.offline","priority":1,"description":"Devices not heard."}"#,
    printcolumn = r#"{"name":"ETA","type":"string","jsonPath":".status.eta","priority":1,"description":"When the run will be over at its present pace."}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!(self.reason in ['CAChange', 'CACompromise']) || has(self.issuerRef)").message("issuerRef says where the fleet moves; it is needed for CAChange and CACompromise"),
    validation = Rule::new("!has(self.issuerRef) || self.reason in ['CAChange', 'CACompromise']").message("issuerRef is for the reasons CAChange and CACompromise only"),
    validation = Rule::new("self.mode != 'Emergency' || self.reason == 'CACompromise'").message("mode Emergency is for the reason CACompromise only: it ignores windows and soak"),
    validation = Rule::new("!has(self.cutoff) || self.reason == 'CACompromise'").message("cutoff is for the reason CACompromise only: it cuts off who is not confirmed by then"),
    validation = rules::never_back_to_what_is_compromised(),
    validation = Rule::new("self.reason != 'CACompromise' || !has(self.control.rollback) || self.control.rollback == ''").message("control.rollback cannot be with reason CACompromise: going back would restore what is compromised"),
    validation = Rule::new("!has(self.control.approval) || !has(self.waves) || self.control.approval.throughWave <= self.waves.size()").message("control.approval.throughWave is above the number of waves"),
    validation = rules::unchanged(&["fleetRef", "reason", "mode", "issuerRef", "selector", "order", "waves", "defaults"], KEPT),
    validation = rules::unchanged(&["limits", "device", "windows", "windowOverrideBeforeExpiry", "joiners", "oldCertificate", "gates"], KEPT),
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
    /// Preview (plan, report and change nothing), Run or Emergency (CACompromise: without windows and soak).
    #[serde(default)]
    pub mode: RotationMode,
    /// In which order devices come; the Fleet's where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<RotationOrder>,
    /// Groups of devices that come one after the other, at most 20, the last one the rest; the Fleet's where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 20), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    #[x_kube(validation = rules::percent_rises(), validation = rules::last_wave_is_the_rest())]
    pub waves: Option<Vec<Wave>>,
    /// What counts as a breach of a wave that does not say so itself; the Fleet's where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub defaults: Option<WaveDefaults>,
    /// How many devices at once, and how fast; the Fleet's where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
    /// Time and attempts that one device is given; the Fleet's where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<DeviceLimits>,
    /// When devices may be sent something new, at most 20; the Fleet's where left out, always where empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 20), extend("x-kubernetes-list-type" = "atomic"))]
    pub windows: Option<Vec<Window>>,
    /// A device whose certificate ends within this time does not wait for a window; the Fleet's where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window_override_before_expiry: Option<Duration>,
    /// What becomes of devices that come to the fleet meanwhile: LastWave or Ignore; the Fleet's where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub joiners: Option<Joiners>,
    /// What becomes of the old certificate; the Fleet's where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old_certificate: Option<OldCertificate>,
    /// When devices that are not confirmed are cut off with the compromised CA (CACompromise).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::time")]
    pub cutoff: Option<Time>,
    /// What must say that all is well while a wave runs and soaks, at most 10; the Fleet's where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 10), extend("x-kubernetes-list-type" = "atomic"))]
    pub gates: Option<Vec<Gate>>,
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

/// What is to be done.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Copy, Default, JsonSchema)]
pub enum RotationMode {
    /// Plan and report; change nothing.
    Preview,
    /// Rotate.
    #[default]
    Run,
    /// Rotate without windows and soak; a breach only pauses.
    Emergency,
}

/// What a person wants of a run.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct RotationControl {
    /// Running, Paused (nothing new is sent) or Aborted (final; what is in flight ends as it must).
    #[serde(default)]
    pub state: ControlState,
    /// Lets the run go on after waves that ask for approval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<Approval>,
    /// A new word here answers a breach: failures so far are written off, devices that were sent back come again, and the same wave goes on.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 64))]
    pub resume: String,
    /// A new word here lets the failed devices try again, and answers a breach too.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 64))]
    pub retry_failed: String,
    /// A new word here stops the run and sends the devices of the present wave back to their old certificates, as a breach with onBreach: Rollback does; resume or retryFailed goes on.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 64))]
    pub rollback: String,
}

/// What a person has approved.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Approval {
    /// The run may go on after so many waves: 1 lets it go on after the first.
    #[serde(default)]
    #[schemars(range(min = 0, max = 20))]
    pub through_wave: i32,
    /// The plan that was seen, as status.plan.hash has it: an approval of another plan does not count. Left out, it approves whatever the plan is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(validation = rules::hash_of("planHash", "status.plan.hash"))]
    pub plan_hash: String,
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

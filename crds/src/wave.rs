//! Waves: which devices come together, and what counts as a breach.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Duration, rules};

/// Devices by their labels.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeviceSelector {
    /// Labels in DeviceCertificate.spec.labels that must all be there with exactly these values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "crate::schema::labels")]
    pub match_labels: BTreeMap<String, String>,
}

/// In which order devices come.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct RotationOrder {
    /// What comes first: NotAfter (certificates that end first).
    #[serde(default)]
    pub by: OrderBy,
    /// A device label, such as site: devices that are due on the same day are spread over its values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = rules::label_key("spreadBy"))]
    pub spread_by: Option<String>,
}

/// What comes first.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Copy, Default, JsonSchema)]
pub enum OrderBy {
    /// Certificates that end first.
    #[default]
    NotAfter,
}

/// Devices that are rotated before those of the next wave.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = rules::exactly_one(&["count", "percent"]),
    validation = Rule::new("!(has(self.maxFailed) && has(self.maxFailedPercent))").message("set maxFailed or maxFailedPercent of a wave, not both")
)]
pub struct Wave {
    /// Name of the wave, a DNS label.
    #[schemars(length(min = 1, max = 40))]
    #[x_kube(validation = rules::dns_label("the name of a wave"))]
    pub name: String,
    /// How many devices. More than there are: the plan is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000_000))]
    pub count: Option<i32>,
    /// Up to this share of all devices of the run, those of earlier waves included; rounded up. The last wave is the rest: 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub percent: Option<i32>,
    /// Which devices; any where left out. None found: the plan is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<DeviceSelector>,
    /// Failures allowed, as a number; maxFailedPercent counts where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 10_000_000))]
    pub max_failed: Option<i32>,
    /// Failures allowed, as a share of the wave, rounded down; that of defaults where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub max_failed_percent: Option<i32>,
    /// Devices allowed to vanish after they accepted; that of defaults where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 10_000_000))]
    pub max_lost: Option<i32>,
    /// Confirmed devices among those that ended, at least; that of defaults where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub success_percent: Option<i32>,
    /// successPercent is looked at from so many ended devices on; that of defaults where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000_000))]
    pub min_sample: Option<i32>,
    /// What to do on a breach: Pause, Abort or Rollback; that of defaults where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_breach: Option<OnBreach>,
    /// How long the wave must stay well after its last change before the next one begins.
    #[serde(default = "no_soak")]
    pub soak: Duration,
    /// Whether a person must approve, in control.approval, before the next wave begins.
    #[serde(default)]
    pub approval: bool,
}

fn no_soak() -> Duration {
    Duration::from_secs(0)
}

impl Wave {
    fn of_percent(name: &str, percent: i32, soak: Duration) -> Self {
        Self {
            name: name.to_owned(),
            count: None,
            percent: Some(percent),
            selector: None,
            max_failed: None,
            max_failed_percent: None,
            max_lost: None,
            success_percent: None,
            min_sample: None,
            on_breach: None,
            soak,
            approval: false,
        }
    }

    /// One device in a hundred, then one in ten, then the rest.
    pub(crate) fn safe() -> Vec<Self> {
        vec![
            Self::of_percent("canary", 1, Duration::hours(1)),
            Self::of_percent("early", 10, Duration::hours(1)),
            Self::of_percent("rest", 100, no_soak()),
        ]
    }
}

/// What counts as a breach of a wave that does not say so itself.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct WaveDefaults {
    /// Confirmed devices among those that ended, at least, in percent; 0 looks at the other limits only.
    #[serde(default = "success_percent")]
    #[schemars(range(min = 0, max = 100))]
    pub success_percent: i32,
    /// Failures allowed, as a share of the wave, rounded down: in a small wave that is none.
    #[serde(default = "max_failed_percent")]
    #[schemars(range(min = 0, max = 100))]
    pub max_failed_percent: i32,
    /// successPercent is looked at from so many ended devices on.
    #[serde(default = "min_sample")]
    #[schemars(range(min = 1, max = 10_000_000))]
    pub min_sample: i32,
    /// Devices allowed to vanish after they accepted.
    #[serde(default = "max_lost")]
    #[schemars(range(min = 0, max = 10_000_000))]
    pub max_lost: i32,
    /// What to do on a breach: Pause (send nothing new), Abort (and end the run) or Rollback (send the devices of the wave back to their old certificates).
    #[serde(default)]
    pub on_breach: OnBreach,
}

fn success_percent() -> i32 {
    95
}
fn max_failed_percent() -> i32 {
    5
}
fn min_sample() -> i32 {
    20
}
fn max_lost() -> i32 {
    1
}

impl Default for WaveDefaults {
    fn default() -> Self {
        Self {
            success_percent: success_percent(),
            max_failed_percent: max_failed_percent(),
            min_sample: min_sample(),
            max_lost: max_lost(),
            on_breach: OnBreach::default(),
        }
    }
}

/// What to do on a breach.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Copy, Default, JsonSchema)]
pub enum OnBreach {
    /// Send nothing new; jobs in flight finish.
    #[default]
    Pause,
    /// The same, and the run is over.
    Abort,
    /// Send the devices of the wave back to their old certificates.
    Rollback,
}

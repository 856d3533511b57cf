//! What a Rotation goes by: a snapshot taken at its start, which does not change. Durations are milliseconds.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::model::Millis;
use crate::policy::JobPolicy;

const MINUTE: Millis = 60_000;
const HOUR: Millis = 60 * MINUTE;
const DAY: Millis = 24 * HOUR;

/// Labels that a device must bear with exactly these values; empty selects every device.
pub type Selector = BTreeMap<String, String>;

/// How a Rotation goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Strategy {
    /// In which order devices come.
    pub order: Order,
    /// At least one; the last one is the rest.
    pub waves: Vec<Wave>,
    /// How many at once and how fast.
    pub limits: Limits,
    /// What one device is given.
    pub job: JobPolicy,
    /// When devices may be sent something new; empty means always.
    pub windows: Vec<Window>,
    /// A device with less life left than this need not wait for a window.
    pub override_before_expiry: Option<Millis>,
    /// What becomes of devices that come to the fleet while it runs.
    pub joiners: Joiners,
    /// A confirmed device is sent back only within this time after its confirmation.
    pub grace: Millis,
    /// A device is sent back only to a certificate with at least this much life left.
    pub rollback_min_remaining: Millis,
    /// How old certificates are retired; where left out they expire.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retiring: Option<Retiring>,
    /// What must hold while a wave runs and soaks.
    pub gates: Vec<Gate>,
    /// True for an emergency: soak and windows are ignored, and a breach only pauses.
    pub emergency: bool,
}

/// In which order devices come: by end of validity (to the day), spread over the values of a label, ties broken by a hash.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// The label over whose values devices of the same day are spread.
    pub spread_by: Option<String>,
}

/// A group of devices that is rotated before the next one begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wave {
    /// For people.
    pub name: String,
    /// How many devices.
    pub size: Size,
    /// Which devices.
    pub selector: Selector,
    /// What counts as a breach.
    pub thresholds: Thresholds,
    /// How long the wave must stay well after its last change before the next one begins.
    pub soak: Millis,
    /// True where a person must approve before the next wave begins.
    pub approval: bool,
}

/// How many devices a wave takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Size {
    /// So many.
    Count(u32),
    /// Up to this share of the whole plan, earlier waves included (cumulative), rounded up, at least one.
    Percent(u8),
}

/// What counts as a breach of a wave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Thresholds {
    /// Confirmed among those that ended, at least, once `min_sample` have ended.
    pub success_percent: u8,
    /// Failures allowed, where a person gave a number.
    pub max_failed: Option<u32>,
    /// Failures allowed as a share of the wave, rounded down; used where `max_failed` is `None`.
    pub max_failed_percent: u8,
    /// Shares are looked at only from so many ended devices on.
    pub min_sample: u32,
    /// Devices allowed to vanish after they accepted (timed out and not heard again, or lost).
    pub max_lost: u32,
    /// What to do.
    pub on_breach: OnBreach,
}

/// What to do on a breach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnBreach {
    /// Send nothing new; what is in flight ends.
    Pause,
    /// The same, and the Rotation is over.
    Abort,
    /// Send the wave's devices back to their old certificates.
    Rollback,
}

/// How many at once and how fast.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Devices between being sent a job and its end.
    pub max_in_flight: u32,
    /// Jobs sent within any minute.
    pub max_per_minute: Option<u32>,
    /// Starts slower and speeds up with success.
    pub ramp: Option<Ramp>,
    /// Devices in flight among those that share a label's value.
    pub per_group: Option<PerGroup>,
}

/// A rate that begins low and is multiplied with success, never above [`Limits::max_per_minute`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ramp {
    /// Jobs per minute at first.
    pub from: u32,
    /// The rate is multiplied by this.
    pub factor: u32,
    /// Each time so many more are confirmed.
    pub every_succeeded: u32,
}

/// A limit for each value of a label.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PerGroup {
    /// The label. Devices without it form a group of their own.
    pub by: String,
    /// Devices of a group in flight, or timed out and not heard again.
    pub max_unavailable: u32,
}

/// Times at which devices may be sent something new.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// When it opens: five fields, as cron(8) has them.
    pub cron: String,
    /// How long it stays open.
    pub duration: Millis,
    /// IANA name.
    pub time_zone: String,
    /// For which devices. One that no window selects waits until its certificate is near its end.
    pub selector: Selector,
}

/// What becomes of devices that come to the fleet while a Rotation runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Joiners {
    /// They are added to the last wave.
    LastWave,
    /// They wait for the next Rotation.
    Ignore,
}

/// How old certificates are revoked once nobody needs them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retiring {
    /// How long the doors have to load the hold, and after that the device to come back.
    pub probation: Millis,
    /// Devices asked to come back within any second, of all that share the broker.
    pub per_second: u32,
}

/// Something outside that is asked whether all is well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gate {
    /// Who is asked.
    pub source: GateSource,
    /// How often.
    pub every: Millis,
    /// Bad answers allowed in a wave.
    pub failure_limit: u32,
    /// Times in a row that it may fail to answer before the Rotation waits for it.
    pub error_limit: u32,
}

/// Who is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum GateSource {
    /// A Prometheus query with exactly one result.
    Prometheus {
        /// Base URL.
        url: String,
        /// `PromQL`.
        query: String,
        /// Well means above this, as written by a person (a decimal number).
        above: Option<String>,
        /// Well means below this.
        below: Option<String>,
    },
    /// A URL that answers `{"passed": true}`.
    Webhook {
        /// Where.
        url: String,
        /// For how long it may think.
        timeout: Millis,
    },
    /// Devices of the fleet that are online, compared with before the wave.
    Online {
        /// At least this share.
        min_percent_of_before: u8,
    },
}

impl GateSource {
    /// The kind of gate, as in metric labels.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Prometheus { .. } => "prometheus",
            Self::Webhook { .. } => "webhook",
            Self::Online { .. } => "online",
        }
    }
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            success_percent: 95,
            max_failed: None,
            max_failed_percent: 5,
            min_sample: 20,
            max_lost: 1,
            on_breach: OnBreach::Pause,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_in_flight: 50,
            max_per_minute: Some(100),
            ramp: None,
            per_group: None,
        }
    }
}

impl Wave {
    /// A wave of up to `percent` of the plan that soaks for `soak`.
    pub fn percent(name: &str, percent: u8, soak: Millis) -> Self {
        Self {
            name: name.to_owned(),
            size: Size::Percent(percent),
            selector: Selector::new(),
            thresholds: Thresholds::default(),
            soak,
            approval: false,
        }
    }
}

impl Default for Strategy {
    /// Safe for a fleet of which nobody said anything: one device in a hundred, then one in ten, then the rest.
    fn default() -> Self {
        Self {
            order: Order::default(),
            waves: vec![
                Wave::percent("canary", 1, HOUR),
                Wave::percent("early", 10, HOUR),
                Wave::percent("rest", 100, 0),
            ],
            limits: Limits::default(),
            job: JobPolicy::default(),
            windows: Vec::new(),
            override_before_expiry: Some(3 * DAY),
            joiners: Joiners::LastWave,
            grace: DAY,
            rollback_min_remaining: 7 * DAY,
            retiring: None,
            gates: Vec::new(),
            emergency: false,
        }
    }
}

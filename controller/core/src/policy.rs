//! What a fleet asks for, as plain values. Durations are milliseconds.

use certwave_protocol::ids::Fingerprint;
use serde::{Deserialize, Serialize};

use crate::model::Millis;

/// How jobs of a fleet run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobPolicy {
    /// Time for each step of the device.
    pub step_timeout: Millis,
    /// Time of one trial.
    pub trial_timeout: Millis,
    /// Time for the job as a whole, from acceptance.
    pub job_timeout: Millis,
    /// A device that has not accepted within this time counts as offline and gives its slot back.
    pub offline_after: Millis,
    /// A device silent for this long after its job timed out is lost.
    pub lost_after: Millis,
    /// Attempts after the first.
    pub max_retries: u32,
    /// Pause before the first retry; doubles with each.
    pub retry_backoff: Millis,
    /// Whether a failed job is tried again.
    pub retry_failed: bool,
    /// Whether a timed-out job is tried again, once its device is heard again.
    pub retry_timed_out: bool,
}

impl Default for JobPolicy {
    fn default() -> Self {
        const MINUTE: Millis = 60_000;
        Self {
            step_timeout: 5 * MINUTE,
            trial_timeout: 2 * MINUTE,
            job_timeout: 60 * MINUTE,
            offline_after: 15 * MINUTE,
            lost_after: 24 * 60 * MINUTE,
            max_retries: 3,
            retry_backoff: 10 * MINUTE,
            retry_failed: true,
            retry_timed_out: true,
        }
    }
}

/// What a fleet's devices should hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FleetPolicy {
    /// A certificate with less life than this is due.
    pub renew_before: Millis,
    /// Key ids of the CAs whose leaves are as they should be: the present issuer's.
    pub issuer: String,
    /// Hash of the trust bundle that devices should hold.
    pub bundle: Fingerprint,
}

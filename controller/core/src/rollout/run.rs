//! How far a Rotation is, as the ledger keeps it. Waves are numbered from 0 here and from 1 for people.

use serde::{Deserialize, Serialize};

use crate::model::Millis;

/// What was decided once, when the Rotation began; joiners enlarge the last wave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Its waves, in order.
    pub waves: Vec<PlannedWave>,
    /// Lower-case hexadecimal SHA-256 over strategy and membership: an approval names it, and so refers to what was seen.
    pub hash: String,
}

/// A wave with its numbers resolved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedWave {
    /// For people.
    pub name: String,
    /// Devices.
    pub size: u32,
    /// Failures allowed.
    pub max_failed: u32,
    /// Devices allowed to vanish.
    pub max_lost: u32,
}

/// What the ledger remembers of a run beside its members.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Run {
    /// The last wave that has begun; earlier ones are done, but late devices of theirs are still served.
    pub wave: u32,
    /// When it began.
    pub wave_since: Millis,
    /// Since when nothing has changed in the waves begun so far and nothing is left to do in them.
    pub soak_since: Option<Millis>,
    /// When our own side was last seen to be at fault.
    pub last_fault: Option<Millis>,
    /// The last turn of our clock that was heeded, by what the clock said then: it tells one from another, not which came first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clock_turned: Option<Millis>,
    /// Waves that a person approved, counted from the first.
    pub approved: u32,
    /// The approval that stood when a breach was answered: it was given before anybody knew, so it counts no more.
    pub spent: Option<(u32, String)>,
    /// What went wrong, until a person answers.
    pub breach: Option<Breach>,
    /// For each wave begun: failures and losses that a person has written off.
    pub written_off: Vec<WrittenOff>,
    /// The last `control.resume` that was carried out.
    pub resumed: String,
    /// The last `control.retryFailed` that was carried out.
    pub retried: String,
    /// The last `control.rollback` that was carried out.
    pub sent_back: String,
    /// Whether a person's pause has been seen.
    pub paused: bool,
    /// Devices online when the present wave began.
    pub online_before: Option<u32>,
    /// How it ended.
    pub ended: Option<Ended>,
}

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Breach {
    /// In which wave.
    pub wave: u32,
    /// When it was seen.
    pub at: Millis,
    /// Which limit.
    pub cause: BreachCause,
    /// In numbers, for people.
    pub detail: String,
    /// True while devices are being sent back.
    pub rolling_back: bool,
}

/// Which limit was exceeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum BreachCause {
    /// More failed than allowed.
    Failed,
    /// More vanished than allowed.
    Lost,
    /// Too few of those that ended are confirmed.
    Success,
    /// A gate said no.
    Gate,
    /// A person asked for the wave to be sent back.
    Person,
}

/// Failures that a person has answered for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WrittenOff {
    /// Failed, rejected and gone back by themselves.
    pub failed: u32,
    /// Timed out and lost.
    pub lost: u32,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ended {
    /// The last wave is done.
    Complete,
    /// A breach ended it.
    Failed,
    /// A person ended it.
    Aborted,
}

/// A wave's members, counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WaveCounts {
    /// All.
    pub members: u32,
    /// Their turn is to come, for the first time or again.
    pub planned: u32,
    /// A job waits for them; they have not accepted.
    pub offline: u32,
    /// Between being sent a job and its end.
    pub in_flight: u32,
    /// Start from the new certificate by proof.
    pub confirmed: u32,
    /// Failed for good.
    pub failed: u32,
    /// Refused.
    pub rejected: u32,
    /// Went back by themselves.
    pub rolled_back: u32,
    /// A deadline passed after they accepted, and they have not been heard since.
    pub timed_out: u32,
    /// Silent ever since.
    pub lost: u32,
    /// On the new certificate and being sent back.
    pub reverting: u32,
    /// Sent back by us.
    pub reverted: u32,
    /// Should have gone back and did not, or could not.
    pub unreverted: u32,
    /// Confirmed, and did not come back by the new certificate alone when the old one was on hold.
    pub probation_failed: u32,
    /// Not rotated: withdrawn, moved, expired or cancelled.
    pub skipped: u32,
    /// When the last of them changed.
    pub changed: Millis,
}

impl WaveCounts {
    /// Those that count as failures.
    pub fn failures(&self) -> u32 {
        self.failed + self.rejected + self.rolled_back + self.probation_failed
    }

    /// Those that vanished after they had accepted.
    pub fn vanished(&self) -> u32 {
        self.timed_out + self.lost
    }

    /// Those that proved that the new certificate works, whatever came after.
    pub fn proven(&self) -> u32 {
        self.confirmed + self.unreverted
    }
}

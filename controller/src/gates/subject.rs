//! What a webhook is told.

use certwave_core::rollout::run::WaveCounts;
use serde_json::json;

/// Whom a gate is asked about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// Of the Rotation and the Fleet.
    pub namespace: String,
    /// The Rotation's name.
    pub rotation: String,
    /// The Fleet's name.
    pub fleet: String,
    /// The wave, counted from 0.
    pub wave: u32,
    /// The wave's name.
    pub wave_name: String,
    /// How the wave stands.
    pub counts: WaveCounts,
}

impl Subject {
    /// As docs/gates.md has it: waves are counted from 1 there.
    pub(super) fn to_json(&self) -> String {
        let counts = &self.counts;
        json!({
            "namespace": self.namespace,
            "rotation": self.rotation,
            "fleet": self.fleet,
            "wave": {"number": u64::from(self.wave) + 1, "name": self.wave_name},
            "devices": {
                "members": counts.members,
                "planned": counts.planned,
                "offline": counts.offline,
                "inFlight": counts.in_flight,
                "confirmed": counts.confirmed,
                "failed": counts.failed,
                "rejected": counts.rejected,
                "rolledBack": counts.rolled_back,
                "timedOut": counts.timed_out,
                "lost": counts.lost,
                "reverting": counts.reverting,
                "reverted": counts.reverted,
                "unreverted": counts.unreverted,
                "probationFailed": counts.probation_failed,
                "skipped": counts.skipped,
            },
        })
        .to_string()
    }
}

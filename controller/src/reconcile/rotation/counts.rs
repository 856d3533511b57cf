//! Devices by where they stand in a run, as its status counts them.

use certwave_core::retire::RetirementCounts;
use certwave_core::rollout::run::{PlannedWave, WaveCounts};
use certwave_crds::{RotationCounts, WavePhase, WaveStatus};

/// The waves together.
pub(super) fn sum(waves: &[WaveCounts]) -> WaveCounts {
    waves.iter().fold(WaveCounts::default(), |sum, wave| WaveCounts {
        members: sum.members + wave.members,
        planned: sum.planned + wave.planned,
        offline: sum.offline + wave.offline,
        in_flight: sum.in_flight + wave.in_flight,
        confirmed: sum.confirmed + wave.confirmed,
        failed: sum.failed + wave.failed,
        rejected: sum.rejected + wave.rejected,
        rolled_back: sum.rolled_back + wave.rolled_back,
        timed_out: sum.timed_out + wave.timed_out,
        lost: sum.lost + wave.lost,
        reverting: sum.reverting + wave.reverting,
        reverted: sum.reverted + wave.reverted,
        unreverted: sum.unreverted + wave.unreverted,
        probation_failed: sum.probation_failed + wave.probation_failed,
        skipped: sum.skipped + wave.skipped,
        changed: sum.changed.max(wave.changed),
    })
}

/// A run that is over has left the offline ones for later.
pub(super) fn shown(counts: &WaveCounts, ended: bool) -> RotationCounts {
    let deferred = if ended { counts.offline } else { 0 };
    RotationCounts {
        planned: counts.members.into(),
        waiting: counts.planned.into(),
        in_flight: (counts.in_flight + counts.reverting).into(),
        confirmed: counts.proven().into(),
        failures: counts.failures().into(),
        losses: counts.vanished().into(),
        failed: counts.failed.into(),
        timed_out: counts.timed_out.into(),
        rejected: counts.rejected.into(),
        lost: counts.lost.into(),
        offline: (counts.offline - deferred).into(),
        rolled_back: (counts.rolled_back + counts.reverted).into(),
        probation_failed: counts.probation_failed.into(),
        deferred: deferred.into(),
    }
}

/// Old certificates by how far their retirement is.
pub(super) fn retirements(counts: &RetirementCounts) -> certwave_crds::RetirementCounts {
    certwave_crds::RetirementCounts {
        waiting: counts.waiting.into(),
        held: counts.held.into(),
        asked: counts.asked.into(),
        revoked: counts.revoked.into(),
        released: counts.released.into(),
    }
}

/// One wave. Its counts add up to the run's.
pub(super) fn wave(planned: &PlannedWave, phase: WavePhase, counts: &WaveCounts, ended: bool) -> WaveStatus {
    let shown = shown(counts, ended);
    WaveStatus {
        name: planned.name.clone(),
        phase,
        max_failed: planned.max_failed.into(),
        max_lost: planned.max_lost.into(),
        planned: shown.planned,
        waiting: shown.waiting,
        in_flight: shown.in_flight,
        confirmed: shown.confirmed,
        failures: shown.failures,
        losses: shown.losses,
        failed: shown.failed,
        timed_out: shown.timed_out,
        rejected: shown.rejected,
        lost: shown.lost,
        offline: shown.offline,
        rolled_back: shown.rolled_back,
        probation_failed: shown.probation_failed,
        deferred: shown.deferred,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_limits_judge_is_what_people_see_as_failures_and_losses() {
        let counts = WaveCounts {
            members: 39,
            failed: 1,
            rejected: 2,
            rolled_back: 4,
            timed_out: 3,
            lost: 5,
            reverted: 8,
            probation_failed: 16,
            ..WaveCounts::default()
        };
        let planned = PlannedWave {
            name: "canary".to_owned(),
            size: 39,
            max_failed: 6,
            max_lost: 7,
        };
        let (run, wave) = (
            shown(&counts, false),
            wave(&planned, WavePhase::Breached, &counts, false),
        );
        assert_eq!((run.failures, run.losses), (23, 8), "sent back by us is no failure");
        assert_eq!((wave.failures, wave.losses), (run.failures, run.losses));
        assert_eq!((wave.max_failed, wave.max_lost), (6, 7));
        assert_eq!((run.failed, run.rejected, run.rolled_back), (1, 2, 12));
    }
}

//! How far a Rotation is. Pure.

use std::time::Duration;

use certwave_crds::ControlState;
use certwave_ledger::{RotationCounts, RotationOutcome};

use super::Sums as _;
use crate::reconcile::status::Verdict;

/// Devices that have not accepted for this long while everything else has ended are left for later: a job that was made just
/// now looks the same for a moment.
const DEFER_AFTER: Duration = Duration::from_secs(10);

/// How far a Rotation is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Phase {
    /// Something is missing.
    Waiting(Verdict),
    /// Goes on.
    Running,
    /// Starts nothing new.
    Paused,
    /// Everything that could be served is confirmed.
    Complete,
    /// Ended, and devices failed.
    Failed,
    /// A person stopped it.
    Aborted,
}

impl Phase {
    /// How it ended, if it did.
    pub(super) fn outcome(&self) -> Option<RotationOutcome> {
        match self {
            Self::Complete => Some(RotationOutcome::Succeeded),
            Self::Failed => Some(RotationOutcome::Failed),
            Self::Aborted => Some(RotationOutcome::Cancelled),
            Self::Waiting(_) | Self::Running | Self::Paused => None,
        }
    }
}

/// `quiet`: for how long the counts have not changed. That all have ended is not success: one that failed makes it Failed.
pub(super) fn decide(control: ControlState, counts: &RotationCounts, quiet: Duration) -> Phase {
    let left = counts.planned + counts.in_flight;
    let waits = left > 0 || (counts.offline > 0 && quiet < DEFER_AFTER);
    match control {
        ControlState::Aborted => Phase::Aborted,
        ControlState::Paused if left > 0 || counts.offline > 0 => Phase::Paused,
        ControlState::Running if waits => Phase::Running,
        ControlState::Paused | ControlState::Running if counts.failures() > 0 => Phase::Failed,
        ControlState::Paused | ControlState::Running => Phase::Complete,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_mins(1);

    fn counts(change: impl FnOnce(&mut RotationCounts)) -> RotationCounts {
        let mut counts = RotationCounts {
            members: 10,
            confirmed: 5,
            ..RotationCounts::default()
        };
        change(&mut counts);
        counts
    }

    #[test]
    fn it_runs_while_anyone_is_planned_or_in_flight() {
        assert_eq!(
            decide(ControlState::Running, &counts(|c| c.planned = 1), LONG),
            Phase::Running
        );
        assert_eq!(
            decide(ControlState::Running, &counts(|c| c.in_flight = 1), LONG),
            Phase::Running
        );
        assert_eq!(
            decide(ControlState::Paused, &counts(|c| c.in_flight = 1), LONG),
            Phase::Paused
        );
    }

    #[test]
    fn offline_devices_are_left_for_later_once_everything_else_has_ended() {
        let offline = counts(|c| c.offline = 5);
        assert_eq!(decide(ControlState::Running, &offline, Duration::ZERO), Phase::Running);
        assert_eq!(decide(ControlState::Running, &offline, LONG), Phase::Complete);
        assert_eq!(decide(ControlState::Paused, &offline, LONG), Phase::Paused);
        let both = counts(|c| (c.offline, c.planned) = (4, 1));
        assert_eq!(decide(ControlState::Running, &both, LONG), Phase::Running);
    }

    #[test]
    fn one_failure_is_no_success() {
        for change in [
            |c: &mut RotationCounts| c.failed = 1,
            |c: &mut RotationCounts| c.rejected = 1,
            |c: &mut RotationCounts| c.timed_out = 1,
            |c: &mut RotationCounts| c.rolled_back = 1,
            |c: &mut RotationCounts| c.lost = 1,
        ] {
            assert_eq!(decide(ControlState::Running, &counts(change), LONG), Phase::Failed);
        }
    }

    #[test]
    fn no_members_is_complete_and_an_abort_is_final() {
        assert_eq!(
            decide(ControlState::Running, &RotationCounts::default(), Duration::ZERO),
            Phase::Complete
        );
        assert_eq!(
            decide(ControlState::Aborted, &counts(|c| c.in_flight = 3), LONG),
            Phase::Aborted
        );
    }
}

//! What can happen.

use certwave_core::model::JobState;
use certwave_ledger::{MemberOutcome, Retry, Revert};
use proptest::prelude::*;

use super::plain::{Model, ROLLBACK};
use super::{DEVICES, HALF_DAY, WAVES};
use crate::fixtures::*;

pub(super) const STATES: [JobState; 12] = [
    JobState::Queued,
    JobState::Sent,
    JobState::Accepted,
    JobState::Issued,
    JobState::Committing,
    JobState::Confirmed,
    JobState::Rejected,
    JobState::Failed,
    JobState::TimedOut,
    JobState::RolledBack,
    JobState::Cancelled,
    JobState::Lost,
];

const QUEUED: usize = 0;
const CANCELLED: usize = 10;

#[derive(Debug, Clone)]
pub(super) enum Op {
    /// Another job, of the Rotation or of none; or the present one in another state.
    Job {
        device: u32,
        fresh: Option<(u8, bool)>,
        state: usize,
        in_line: bool,
        days: i64,
        pause: bool,
    },
    /// A rollback job for each that is to be sent back and has none; it waits.
    SendBack,
    /// What waits is cancelled.
    CallOff,
    Heard(u32),
    /// It goes back to its other certificate by itself, or forward again.
    GoBack(u32),
    Withdraw(u32),
    Declare(u32, bool),
    Retry(Retry),
    Revert(Revert),
    Substitute(u32),
    Join(u32, u32),
    SkipExpired,
    SkipRenewed,
    HalfADayPasses,
    End,
    Reopen,
}

pub(super) fn op() -> impl proptest::strategy::Strategy<Value = Op> {
    let job = (
        0..DEVICES,
        proptest::option::of((0u8..4, prop::bool::weighted(0.8))),
        // Every fourth one confirms.
        prop_oneof![3 => 0..STATES.len(), 1 => Just(5)],
        prop::bool::weighted(0.2),
        1i64..40,
        prop::bool::weighted(0.1),
    );
    let waves = (0..WAVES, 0..WAVES);
    prop_oneof![
        14 => job.prop_map(|(device, fresh, state, in_line, days, pause)| {
            Op::Job { device, fresh, state, in_line, days, pause }
        }),
        2 => Just(Op::SendBack),
        2 => Just(Op::CallOff),
        2 => (0..DEVICES).prop_map(Op::Heard),
        2 => (0..DEVICES).prop_map(Op::GoBack),
        1 => (0..DEVICES).prop_map(Op::Withdraw),
        2 => (0..DEVICES, any::<bool>()).prop_map(|(n, pumps)| Op::Declare(n, pumps)),
        2 => (0..WAVES, any::<bool>(), any::<bool>())
            .prop_map(|(through_wave, failed, reverted)| Op::Retry(Retry { through_wave, failed, reverted })),
        3 => (waves, prop_oneof![Just(0), 0i64..20], prop_oneof![Just(0), 0i64..6]).prop_map(|((from_wave, through_wave), days, age)| Op::Revert(Revert {
            from_wave,
            through_wave,
            min_not_after_s: NOW_S + days * DAY_S,
            confirmed_after: NOW + age * HALF_DAY,
        })),
        1 => (0..DEVICES, 0..WAVES).prop_map(|(n, wave)| Op::Join(n, wave)),
        2 => (0..WAVES).prop_map(Op::Substitute),
        1 => Just(Op::SkipExpired),
        1 => prop::bool::weighted(0.3).prop_map(|skip| if skip { Op::SkipRenewed } else { Op::HalfADayPasses }),
        2 => Just(Op::HalfADayPasses),
        1 => prop::bool::weighted(0.1).prop_map(|end| if end { Op::End } else { Op::Reopen }),
    ]
}

/// The jobs that an operation on many comes to.
pub(super) fn each(model: &Model, op: Op) -> Vec<Op> {
    let job = |device, fresh, state| Op::Job {
        device,
        fresh,
        state,
        in_line: false,
        days: 1,
        pause: false,
    };
    let (fresh, state) = match op {
        Op::SendBack => (Some((ROLLBACK, true)), QUEUED),
        Op::CallOff => (None, CANCELLED),
        op => return vec![op],
    };
    let concerned = |n: &u32| {
        let d = &model.devices[*n as usize];
        match fresh {
            Some(_) => model.outcome(*n) == Some(MemberOutcome::Reverting) && !d.open() && !d.went_back(),
            None => d.job.as_ref().is_some_and(|j| j.state == JobState::Queued),
        }
    };
    (0..DEVICES).filter(concerned).map(|n| job(n, fresh, state)).collect()
}

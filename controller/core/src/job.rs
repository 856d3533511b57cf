//! The job's states in one table: how long each may last, and what may follow.

use crate::model::{Job, JobKind, JobState, Millis};
use crate::policy::JobPolicy;

/// How long a state may last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// For good.
    None,
    /// [`JobPolicy::step_timeout`], or [`JobPolicy::offline_after`] where that is shorter.
    Answer,
    /// [`JobPolicy::step_timeout`].
    Step,
    /// A step and a trial.
    Trial,
    /// [`JobPolicy::lost_after`].
    Lost,
}

/// A row of [`TABLE`].
#[derive(Debug)]
pub struct Row {
    /// The state.
    pub state: JobState,
    /// How long it lasts at most.
    pub limit: Limit,
    /// What may follow.
    pub next: &'static [JobState],
}

use JobState::{
    Accepted, Cancelled, Committing, Confirmed, Failed, Issued, Lost, Queued, Rejected, RolledBack, Sent, TimedOut,
};

/// Every state. The deadline is enforced by [`crate::step`] on [`crate::step::Event::Deadline`]; a `Sent` that was not
/// answered is sent again and goes back to `Queued` after [`JobPolicy::offline_after`].
pub const TABLE: [Row; 12] = [
    Row {
        state: Queued,
        limit: Limit::None,
        next: &[Sent, Rejected, Cancelled],
    },
    Row {
        state: Sent,
        limit: Limit::Answer,
        next: &[Queued, Accepted, Issued, Rejected, Failed, RolledBack, Cancelled],
    },
    Row {
        state: Accepted,
        limit: Limit::Step,
        next: &[Issued, Rejected, Failed, TimedOut, RolledBack],
    },
    Row {
        state: Issued,
        limit: Limit::Trial,
        next: &[Committing, Failed, TimedOut, RolledBack],
    },
    Row {
        state: Committing,
        limit: Limit::Trial,
        next: &[Confirmed, Failed, TimedOut, RolledBack],
    },
    Row {
        state: TimedOut,
        limit: Limit::Lost,
        next: &[Confirmed, Lost, RolledBack, Failed],
    },
    Row {
        state: Lost,
        limit: Limit::None,
        next: &[Confirmed, RolledBack, Failed],
    },
    Row {
        state: Confirmed,
        limit: Limit::None,
        next: &[],
    },
    Row {
        state: Rejected,
        limit: Limit::None,
        next: &[],
    },
    Row {
        state: Failed,
        limit: Limit::None,
        next: &[],
    },
    Row {
        state: RolledBack,
        limit: Limit::None,
        next: &[],
    },
    Row {
        state: Cancelled,
        limit: Limit::None,
        next: &[],
    },
];

impl JobState {
    /// This state's row.
    pub fn row(self) -> &'static Row {
        let found = TABLE.iter().find(|r| r.state == self);
        found.unwrap_or(&TABLE[TABLE.len() - 1])
    }
}

impl Job {
    /// Enters `state` at `now`, with that state's deadline.
    pub(crate) fn enter(&mut self, state: JobState, now: Millis, policy: &JobPolicy) {
        debug_assert!(
            self.state.row().next.contains(&state),
            "{:?} -> {state:?} is not in the table",
            self.state
        );
        self.state = state;
        self.since = now;
        self.rearm(now, policy);
        if state == Accepted || (state == Issued && self.job_deadline.is_none()) {
            self.job_deadline = Some(now.saturating_add(policy.job_timeout));
        }
        if state.ended() {
            self.job_deadline = None;
        }
    }

    /// Gives the present state its full time again.
    pub(crate) fn rearm(&mut self, now: Millis, policy: &JobPolicy) {
        let limit = match self.state.row().limit {
            Limit::None => None,
            Limit::Answer => Some(policy.step_timeout.min(policy.offline_after)),
            Limit::Step => Some(policy.step_timeout),
            Limit::Trial => Some(policy.step_timeout.saturating_add(policy.trial_timeout)),
            Limit::Lost => Some(policy.lost_after),
        };
        self.deadline = limit.map(|l| now.saturating_add(l));
    }

    /// True while the job counts against `maxInFlight`. An enrolment does not: its device may lie in a store-room for
    /// months before it proves itself.
    pub fn holds_slot(&self) -> bool {
        self.kind != JobKind::Enrol && self.state.in_flight()
    }

    /// The earlier of the state's and the job's deadline.
    pub fn next_deadline(&self) -> Option<Millis> {
        match (self.deadline, self.job_deadline) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }
}

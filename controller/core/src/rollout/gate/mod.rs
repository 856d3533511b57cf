//! Gates: somebody outside is asked whether all is well while a wave runs and soaks.
//!
//! [`due`] says when to ask, [`observe`] remembers what was said, [`verdict`] what follows from it, [`together`] sums up
//! several gates. What the answers on the wire mean is in [`prometheus`], [`webhook`] and [`online`](mod@online). An answer
//! that is not clearly a yes or a no is [`Answer::Unknown`]: it never lets a wave pass, and never counts as a failure of the
//! devices.

pub mod online;
pub mod prometheus;
pub mod webhook;

#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

use super::judge::Gates;
use super::strategy::Gate;
use crate::model::Millis;

/// The longest text about an answer, in characters: it goes into the ledger and into the status of an object.
pub const MAX_DETAIL: usize = 256;

/// No gate is asked more often than this, milliseconds.
pub const MIN_EVERY: Millis = 1000;

/// What was said once, with the reason in words for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// All is well.
    Well(String),
    /// It is not.
    Bad(String),
    /// No answer, or none that can be understood.
    Unknown(String),
}

impl Answer {
    /// One of `well`, `bad` and `unknown`: the value of a metric's label.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Well(_) => "well",
            Self::Bad(_) => "bad",
            Self::Unknown(_) => "unknown",
        }
    }

    /// The same, with who said it before the words.
    #[must_use]
    pub fn by(self, who: &str) -> Self {
        match self {
            Self::Well(detail) => Self::Well(format!("{who}: {detail}")),
            Self::Bad(detail) => Self::Bad(format!("{who}: {detail}")),
            Self::Unknown(detail) => Self::Unknown(format!("{who}: {detail}")),
        }
    }
}

/// What is remembered of one gate's answers; a new wave begins with an empty one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GateState {
    /// When it was asked last.
    pub last: Option<Millis>,
    /// When it said last that all is well, unless it has said the contrary since.
    pub last_well: Option<Millis>,
    /// How often it said that all is not well.
    pub bad: u32,
    /// How often in a row there was no answer; any answer ends the row.
    pub errors_in_row: u32,
    /// The last answer in words, at most [`MAX_DETAIL`] characters.
    pub detail: String,
    /// The last bad answer in words, at most [`MAX_DETAIL`] characters.
    pub bad_detail: String,
}

/// What follows from the answers so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The wave may pass.
    Well,
    /// The gate has not yet said that all is well: the wave waits.
    Pending,
    /// More bad answers than [`Gate::failure_limit`]: a breach. It stays until the state is replaced.
    Bad(String),
    /// More failures to answer in a row than [`Gate::error_limit`]: the Rotation waits, and nobody is charged.
    Unknown(String),
}

/// Takes an answer in that came at `now`.
pub fn observe(state: &mut GateState, now: Millis, answer: Answer) {
    state.last = Some(now);
    let detail = match answer {
        Answer::Well(detail) => {
            state.last_well = Some(now);
            state.errors_in_row = 0;
            clip(&detail)
        }
        Answer::Bad(detail) => {
            let detail = clip(&detail);
            state.last_well = None;
            state.bad = state.bad.saturating_add(1);
            state.errors_in_row = 0;
            state.bad_detail.clone_from(&detail);
            detail
        }
        Answer::Unknown(detail) => {
            state.errors_in_row = state.errors_in_row.saturating_add(1);
            clip(&detail)
        }
    };
    state.detail = detail;
}

/// What follows for a wave that must have been found well at `since` or later. An answer that is tolerated but was bad asks for
/// a good one after it; failures to answer within the limit change nothing.
///
/// `since` must not lie in the future: where the clock was set back, the caller begins its time anew.
pub fn verdict(gate: &Gate, state: &GateState, since: Millis) -> Verdict {
    if state.bad > gate.failure_limit {
        Verdict::Bad(state.bad_detail.clone())
    } else if state.errors_in_row > gate.error_limit {
        Verdict::Unknown(state.detail.clone())
    } else if state.last_well.is_some_and(|at| at >= since) {
        Verdict::Well
    } else {
        Verdict::Pending
    }
}

/// What all gates of a wave say together: the worst of them, as [`judge`](mod@super::judge) takes it. No gates are well.
pub fn together(verdicts: &[Verdict]) -> Gates<'_> {
    let severity = |verdict: &&Verdict| match verdict {
        Verdict::Well => 0,
        Verdict::Pending => 1,
        Verdict::Unknown(_) => 2,
        Verdict::Bad(_) => 3,
    };
    match verdicts.iter().max_by_key(severity) {
        None | Some(Verdict::Well) => Gates::Well,
        Some(Verdict::Pending) => Gates::Pending,
        Some(Verdict::Unknown(why)) => Gates::Unknown(why),
        Some(Verdict::Bad(why)) => Gates::Bad(why),
    }
}

/// Whether it is time to ask. A last time that lies in the future shows that the clock was set back, and is not waited for.
pub fn due(gate: &Gate, state: &GateState, now: Millis) -> bool {
    state
        .last
        .is_none_or(|last| now < last || now.saturating_sub(last) >= gate.every.max(MIN_EVERY))
}

/// One line of at most [`MAX_DETAIL`] characters: what comes from outside must not fill statuses or forge lines of a log.
pub fn clip(text: &str) -> String {
    let line = |c: char| if c.is_control() { ' ' } else { c };
    let mut clipped: String = text.trim().chars().take(MAX_DETAIL).map(line).collect();
    if text.trim().chars().nth(MAX_DETAIL).is_some() {
        clipped.pop();
        clipped.push('…');
    }
    clipped
}

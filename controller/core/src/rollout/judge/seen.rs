//! What a judge goes by, beside the strategy, the plan and the run.

use crate::model::Millis;
use crate::rollout::run::WaveCounts;

/// What is known at the time of judging.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    /// How each wave stands, in the plan's order.
    pub waves: &'a [WaveCounts],
    /// What people want.
    pub control: Control<'a>,
    /// What the gates say of the present wave.
    pub gates: Gates<'a>,
    /// What is wrong on our own side, if anything: nothing starts, nobody is charged, soak begins anew.
    pub fault: Option<&'a str>,
    /// When the ledger was last out, if it was: nobody was heard then, and nothing could be judged.
    pub ledger_out: Option<Millis>,
    /// When our clock last jumped or was put right, if it did: times that were written down before may be off.
    pub clock_turned: Option<Millis>,
    /// This process has only just begun and has not reached the broker yet: no fault, but nothing starts either.
    pub starting: bool,
    /// Another Rotation that has precedence.
    pub preempted_by: Option<&'a str>,
    /// Devices of the fleet online now.
    pub online: u32,
}

/// What people want.
#[derive(Debug, Clone, Copy, Default)]
pub struct Control<'a> {
    /// Whether it shall go on.
    pub state: Wish,
    /// Waves approved, counted from the first.
    pub through_wave: u32,
    /// The plan that was approved; empty means the plan as it is.
    pub plan_hash: &'a str,
    /// A new word goes on after a breach.
    pub resume: &'a str,
    /// A new word puts failed devices back in line.
    pub retry_failed: &'a str,
    /// A new word sends the present wave back.
    pub rollback: &'a str,
}

/// Whether it shall go on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Wish {
    /// Go on.
    #[default]
    Running,
    /// Send nothing new.
    Paused,
    /// Stop for good.
    Aborted,
}

/// What the gates say, the worst of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gates<'a> {
    /// All well, asked since the soak began; or there are none.
    Well,
    /// One has not answered since.
    Pending,
    /// One cannot be asked: our fault, not the devices'.
    Unknown(&'a str),
    /// One says no.
    Bad(&'a str),
}

//! Devices, what becomes of them, and what happens to them.

use certwave_core::model::Millis;

/// What a device does with its jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Rotates.
    Good,
    /// Fails so many attempts, then rotates.
    Fails(u8),
    /// Refuses.
    Rejects,
    /// Goes back by itself.
    GoesBack,
    /// Vanishes after it accepted; is heard again after this time, if at all, and then rotates.
    Vanishes(Option<Millis>),
    /// Connected, but does not answer its first offers.
    Deaf(u8),
}

/// What happens from outside, at a time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Deed {
    /// A person's wish.
    Wish(u8),
    /// A person approves through this wave.
    Approve(u32),
    /// A person approves a plan that is not this one.
    ApproveOther,
    /// A person goes on after a breach.
    Resume,
    /// A person tries the failed again.
    Retry,
    /// A person sends the wave back.
    SendBack,
    /// Our own side fails, or works again.
    Fault(bool),
    /// Another Rotation has precedence, or no more.
    Preempt(bool),
    /// What the gates say: 0 well, 1 pending, 2 unknown, 3 bad.
    Gate(u8),
    /// The controller starts anew.
    Restart,
    /// The wall clock jumps by so much.
    Jump(Millis),
    /// So many devices join.
    Join(u8),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// In line; its job is not made yet.
    Planned,
    /// Its job waits for it.
    Queued,
    Sent,
    Accepted,
    Confirmed,
    Failed,
    Rejected,
    RolledBack,
    TimedOut,
    Lost,
    Reverting,
    Reverted,
    Unreverted,
}

#[derive(Debug, Clone)]
pub(super) struct Member {
    pub(super) wave: u32,
    pub(super) ordinal: u32,
    pub(super) site: u32,
    pub(super) windows: u64,
    /// Seconds.
    pub(super) not_after: i64,
    pub(super) state: State,
    pub(super) fate: Fate,
    pub(super) online: bool,
    pub(super) attempts: u8,
    /// Which job an event is about.
    pub(super) job: u32,
    /// True while a job of this device is on its way: the one at most.
    pub(super) busy: bool,
    /// Wall clock.
    pub(super) confirmed: Millis,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Event {
    Online(usize),
    /// A pause before a retry is over.
    Wake(usize, u32),
    Accept(usize, u32),
    /// The device has not answered.
    Postpone(usize, u32),
    End(usize, u32),
    GoneForGood(usize, u32),
    Heard(usize, u32),
    Back(usize, u32),
    Outside(Deed),
}

/// How much is recorded and checked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// Events within this time are judged together.
    pub(crate) quantum: Millis,
    /// Whether the clock may jump: what is measured by it is not checked then.
    pub(crate) jumps: bool,
}

/// What people have said.
#[derive(Debug, Default)]
pub(super) struct Person {
    pub(super) wish: u8,
    pub(super) approved: u32,
    pub(super) other_plan: bool,
    pub(super) resume: u32,
    pub(super) retry: u32,
    pub(super) rollback: u32,
}

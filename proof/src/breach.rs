//! What must never happen in one step, whatever state it leads to.

/// A step that breaks an invariant; kept in the state, so that the checker finds the way to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Breach {
    /// 1: the device began a job, which empties a slot, while nothing that it holds was let in; nor had a person said so.
    BeganShutOut,
    /// 2: an old certificate was revoked for good, and the device had not come back while the door refused that.
    RevokedUnproven,
    /// 3: a message of a past connection, an earlier job or an older epoch changed the device's journal.
    StaleMovedDevice,
    /// 3: the same message a second time changed the device's journal.
    RepeatMovedDevice,
    /// 3: a message of another job, or signed by a key that is not recorded, moved the ledger's job or certificates.
    ForeignMovedLedger,
    /// 3: the same message a second time changed the ledger.
    RepeatMovedLedger,
    /// 3: a person had revoked the device or put it on hold, and its word moved the ledger.
    BarredMovedLedger,
    /// 3: a controller that was deposed changed the ledger.
    DeposedWrote,
    /// 3: a job took the place of one that had not ended.
    TwoJobs,
    /// 3: the device took an older job for a newer one.
    OlderJob,
    /// 3: what was committed changed afterwards.
    CommitChanged,
    /// 3: a job went from one state to another that the table does not know.
    NotInTable,
}

impl Breach {
    /// The invariant's number.
    pub const fn invariant(self) -> u8 {
        match self {
            Self::BeganShutOut => 1,
            Self::RevokedUnproven => 2,
            _ => 3,
        }
    }
}

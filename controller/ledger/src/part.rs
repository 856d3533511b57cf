//! Parts of the controller's work.

use certwave_protocol::ids::BrokerId;

/// A part of the controller's work, which one process at a time does. Each has epochs of its own, out of one sequence: an epoch's
/// number alone says of which part it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Part {
    /// What is of all: CAs, CRLs, bulk revocations, the archive. Its holder may write about every device.
    Controller,
    /// A broker's devices and whatever belongs to them. Its holder may write about no other broker's.
    Broker(BrokerId),
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Controller => f.write_str("the controller"),
            Self::Broker(id) => write!(f, "the broker {id}"),
        }
    }
}

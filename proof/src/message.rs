//! Messages on their way, in a form that can be compared and hashed. Who signed is part of them: signatures cannot be forged.

use std::collections::BTreeSet;

use certwave_protocol::code::Code;
use certwave_protocol::message::{Progress, Slot, Step, Type};

use crate::symbols::Leaf;

/// What is tested or committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum What {
    /// A certificate.
    Leaf(Leaf),
    /// A trust bundle.
    Bundle(u8),
}

/// Job and epoch of a message; a job's nonce has the job's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct About {
    /// The job.
    pub job: u8,
    /// The epoch.
    pub epoch: u8,
}

/// What a device says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Said {
    /// `hello`.
    Hello {
        /// Active slot.
        active: Slot,
        /// Leaves in both slots.
        slots: [Leaf; 2],
        /// Its latest job.
        job: Option<(u8, ByRank<Progress>)>,
        /// Its bundle.
        bundle: u8,
        /// The nonce of a `reconnect`.
        echo: Option<u8>,
    },
    /// `csr` with this key.
    Csr(Leaf),
    /// `tested`.
    Tested(What),
    /// `status`.
    Status(ByRank<Step>, Option<Code>),
}

/// What the controller says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Told {
    /// `job`: rotate.
    Rotate,
    /// `job`: back to this.
    Rollback(Leaf),
    /// `job`: trust this.
    Trust(u8),
    /// `certificate`.
    Certificate(Leaf),
    /// `commit`.
    Commit(What),
    /// `reconnect`, with this nonce.
    Reconnect(u8),
    /// `rejected`.
    Rejected(ByRank<Type>, Code),
}

/// A value of an enum without an order of its own, ordered by its place there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ByRank<T>(pub T);

macro_rules! rank {
    ($($name:ident),*) => {$(
        impl Ord for ByRank<$name> {
            fn cmp(&self, other: &Self) -> std::cmp::Ordering {
                (self.0 as u8).cmp(&(other.0 as u8))
            }
        }
        impl PartialOrd for ByRank<$name> {
            fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
                Some(self.cmp(other))
            }
        }
    )*};
}
rank!(Progress, Step, Type);

/// A message from the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Up {
    /// What it says.
    pub said: Said,
    /// Whose key signed.
    pub signer: Leaf,
    /// On the device's present connection.
    pub present: bool,
    /// What it belongs to.
    pub about: Option<About>,
}

/// A message to the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Down {
    /// What it says.
    pub told: Told,
    /// For the device's present connection.
    pub present: bool,
    /// The job, if it is about one.
    pub job: Option<u8>,
    /// The controller's epoch.
    pub epoch: u8,
}

/// What is under way. A message that never arrives stays here, so a loss needs no step of its own; the order is anybody's. The
/// same message twice is one that is delivered and kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Net {
    /// From the device.
    pub up: BTreeSet<Up>,
    /// To the device.
    pub down: BTreeSet<Down>,
}

impl Net {
    /// The device's connection has ended: whatever is under way belongs to a past one.
    pub fn age(&mut self) {
        self.up = std::mem::take(&mut self.up)
            .into_iter()
            .map(|m| Up { present: false, ..m })
            .collect();
        self.down = std::mem::take(&mut self.down)
            .into_iter()
            .map(|m| Down { present: false, ..m })
            .collect();
    }
}

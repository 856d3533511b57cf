//! What goes wrong around a fleet, on the real stack: processes die, servers vanish, devices misbehave, people change
//! their minds. Whatever it is, every device ends with a certificate that works.

pub(crate) mod authority;
mod broken;
mod changes;
mod devices;
mod disk;
pub(crate) mod history;
pub(crate) mod intact;
mod kill;
mod lease;
mod offline;
mod outage;
mod refusals;
mod torture;
pub(crate) mod world;

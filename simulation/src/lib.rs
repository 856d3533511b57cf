//! The whole operator in simulated time: what runs in production, over an API server, a ledger, a broker and devices in memory, from
//! one seed.
//!
//! Everything runs on one thread, and the clock goes on only when everybody waits: hours pass in seconds. What happens follows from
//! the seed ([`os`] says how far), so a seed that fails fails again. [`world`] is all of it, [`faults`] go wrong in it, [`judge`]
//! and [`standing`] say whether what always holds did hold, [`mutant`] makes mistakes on purpose, each of which must be found, and
//! [`soak`] runs seed after seed, each in a process of its own that is split from one in which the fleet has enrolled.

pub mod api;
pub mod broker;
pub mod campaign;
pub mod course;
pub mod device;
pub mod dial;
pub mod faults;
pub mod history;
pub mod judge;
pub mod mutant;
pub mod os;
pub mod person;
pub mod replica;
pub mod rollout;
pub mod soak;
pub mod standing;
pub mod weather;
pub mod world;

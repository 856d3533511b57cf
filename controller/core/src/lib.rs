//! Certwave's decisions, pure: time and random values are inputs, actions are outputs.
//!
//! [`model`] holds the values the ledger keeps, [`policy`] what a fleet asks for, [`job`] the table of job states,
//! [`step`] decides on one event for one device, [`due`] on who needs a job, [`backoff`] on when to try again.
//! [`rollout`] stages rotations: waves, limits, windows, gates, and what to do when one goes wrong.

pub mod backoff;
pub mod due;
pub mod job;
pub mod model;
pub mod policy;
pub mod rollout;
pub mod step;

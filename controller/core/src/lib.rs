//! Certwave's decisions, pure: time and random values are inputs, actions are outputs.
//!
//! [`model`] holds the values the ledger keeps, [`policy`] what a fleet asks for, [`job`] the table of job states,
//! [`revocation`] says what may become of a certificate, [`retire`] how an old one is retired, [`door`] whether the broker's door is shut, [`step`] decides on one event for one device, [`due`] on who needs a job, [`backoff`] on when to try again.
//! [`spread`] says which replica looks after which broker.
//! [`rollout`] stages rotations: waves, limits, windows, gates, and what to do when one goes wrong.

pub mod backoff;
pub mod door;
pub mod due;
pub mod job;
pub mod model;
pub mod policy;
pub mod retire;
pub mod revocation;
pub mod rollout;
pub mod spread;
pub mod step;

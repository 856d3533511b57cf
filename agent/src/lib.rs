//! A device's side of Certwave: slots A and B, a trust bundle, a journal, and the state machine that moves between
//! them without ever letting go of the credential that works.

pub mod algorithm;
pub mod journal;
pub mod machine;

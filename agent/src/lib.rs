//! A device's side of Certwave: slots A and B, a trust bundle, a journal, and the state machine that moves between
//! them without ever letting go of the credential that works.
//!
//! [`machine`] decides and touches nothing; [`device`] carries out, on a [`store`] and an [`mqtt`] connection;
//! [`simulate`] runs thousands of them in one process, with faults.

pub mod algorithm;
pub mod certificate;
pub mod claim;
pub mod config;
pub mod device;
pub mod disk;
pub mod hooks;
pub mod journal;
pub mod machine;
pub mod mqtt;
pub mod recover;
pub mod run;
pub mod setup;
pub mod simulate;
pub mod store;
pub mod technician;
pub mod trust;

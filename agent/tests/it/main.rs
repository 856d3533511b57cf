//! The agent's tests: the state machine by itself, the disk under it, and devices against a real broker.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::expect_used)]

mod arguments;
mod believe;
mod broker;
mod controller;
mod devices;
mod disk;
mod doors;
mod enrolment;
mod machine;
mod properties;
mod refusals;
mod world;

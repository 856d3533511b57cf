//! The end-to-end tests: one binary, so that one API server serves them all. Each test has a namespace of its own.
#![allow(clippy::unwrap_used, clippy::panic)]

mod broker;
mod cluster;
mod crds;
mod faults;
mod gates;
mod hostile;
mod reconcile;
mod rollout;
mod shared;
mod stack;

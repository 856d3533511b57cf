//! The end-to-end tests: one binary, so that one API server serves them all. Each test has a namespace of its own.
#![allow(clippy::unwrap_used, clippy::panic)]

mod broker;
mod chart;
mod cli;
mod cluster;
mod crds;
mod door;
mod door_nats;
mod faults;
mod fuzz;
mod gates;
mod hostile;
mod observe;
mod ocsp;
mod postgres;
mod publish;
mod reconcile;
mod relying;
mod retire;
mod rollout;
mod shared;
mod stack;
mod start;
mod versions;

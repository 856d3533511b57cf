//! The operator: reconcilers that resolve custom resources, and the engine that drives devices through their jobs.
//!
//! [`reconcile`] is the one place that talks to Kubernetes (by the client of [`api`]), [`engine`] the one that talks to brokers, the ledger the one
//! place where decisions are kept. [`registry`] and [`notice`] are what passes between the first two; [`gate`] says
//! whether this process may still speak, [`crl`] makes the CRLs that both need.

pub mod api;
pub mod command;
pub mod crl;
pub mod engine;
pub mod gate;
pub mod gates;
pub mod http;
pub mod metrics;
pub mod notice;
pub mod presence;
pub mod reconcile;
pub mod registry;

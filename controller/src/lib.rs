//! The operator: reconcilers that resolve custom resources, and the engine that drives devices through their jobs.
//!
//! [`reconcile`] is the one place that talks to Kubernetes (by the client of [`api`]), [`engine`] the one that talks to brokers, the ledger the one
//! place where decisions are kept. [`registry`] and [`notice`] are what passes between the first two; [`gate`] says
//! whether this process may still speak, [`publish`] makes the CRLs that both need and serves them, [`clock`] says whether ours is to be trusted, [`fitting`] whether the CRDs are ours, [`door`] shuts brokers to what is revoked; [`companion`] is what runs beside a Mosquitto for that,
//! [`ocsp`] says how certificates stand. [`parts`] is what is done in one term.

mod apart;
pub mod api;
pub mod archive;
mod causes;
pub mod clock;
pub mod command;
pub mod companion;
mod crl_index;
pub mod door;
pub mod engine;
pub mod fitting;
pub mod gate;
pub mod gates;
pub mod history;
pub mod http;
pub mod ledger;
pub mod metrics;
pub mod notice;
pub mod ocsp;
pub mod parts;
pub mod presence;
pub mod publish;
pub mod reconcile;
pub mod registry;
pub mod replica;
pub mod serve;
pub mod telemetry;
mod tls;

//! The ledger's tests: [`epochs`], [`parts`], [`objects`], [`devices`], [`records`], [`recovery`], [`retirements`], [`revocations`],
//! [`rotations`], [`staged`], [`substitutes`] and [`turns`] are one [`suite`] for every database behind the trait, which
//! [`sqlite`] and [`postgres`] run; [`copies`] go from one to the other; [`outage`] is about PostgreSQL's server, the rest about SQLite's file.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::doc_markdown,
    clippy::assigning_clones,
    missing_docs
)]

mod bench;
mod copies;
mod crash;
mod devices;
mod effects;
mod epochs;
mod fixtures;
#[allow(unreachable_pub, reason = "the end-to-end tests use it too")]
#[path = "../../../../e2e/src/janitor.rs"]
mod janitor;
mod migrate;
mod model;
mod objects;
mod outage;
mod parts;
mod postgres;
mod records;
mod recovery;
mod retirements;
mod revocation_model;
mod revocations;
mod rollout_model;
mod rotations;
#[allow(dead_code, unreachable_pub, reason = "the end-to-end tests use it too")]
#[path = "../../../../e2e/src/postgres.rs"]
mod server;
mod space;
mod sqlite;
mod staged;
mod substitutes;
mod suite;
mod turns;

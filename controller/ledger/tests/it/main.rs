//! The ledger's tests: [`epochs`], [`objects`], [`devices`], [`records`], [`rotations`], [`staged`], [`substitutes`] and
//! [`turns`] are one suite for every database behind the trait, which [`sqlite`] runs; the rest is about SQLite's file.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::doc_markdown,
    clippy::assigning_clones,
    missing_docs
)]

mod bench;
mod crash;
mod devices;
mod epochs;
mod fixtures;
mod migrate;
mod model;
mod objects;
mod records;
mod rollout_model;
mod rotations;
mod space;
mod sqlite;
mod staged;
mod substitutes;
mod turns;

//! The protocol as both sides and foreign implementations see it.
#![allow(clippy::unwrap_used, clippy::panic)]

mod control;
mod envelope;
mod foreign;
mod names;
mod pki;
mod properties;
mod samples;
mod schemas;
mod sizes;
mod specification;
mod vectors;

//! Every state within small bounds, and every mutant.
#![allow(clippy::unwrap_used, clippy::panic)]

mod bounds;
mod mutants;

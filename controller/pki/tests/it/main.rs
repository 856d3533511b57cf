//! Tests of the PKI from outside, with verifiers that share no code with it.
#![allow(clippy::unwrap_used, clippy::panic)]

mod chains;
mod csr;
mod import;
mod issue;
mod keys;
mod template;
mod tools;

//! Tests of the PKI from outside, with verifiers that share no code with it.
#![allow(clippy::unwrap_used, clippy::panic)]

mod chains;
mod crl;
mod crl_judges;
mod csr;
mod import;
mod issue;
mod keys;
mod ocsp;
mod ocsp_court;
mod ocsp_judges;
mod template;
mod tools;

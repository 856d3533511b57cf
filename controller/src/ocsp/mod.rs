//! Online certificate status (RFC 6960, 9654, 9919): what the ledger says of a certificate, signed by its CA's delegated responder.
//!
//! `Responder` answers requests, inside the controller and as replicas of their own (`certwave responder`), over HTTP by
//! `http`. It reads the ledger (`Source`) and signs with `Signers`; both may be away for a while. What many ask for, one
//! certificate and no nonce, is kept signed in a `cache`, made for devices that are expected before anybody asks (`ahead`), anew before it ages, and dropped as soon as the certificate's
//! standing changes: `watch` asks the ledger for changes all the time.

mod ahead;
mod cache;
mod flight;
pub mod http;
mod metrics;
mod responder;
pub mod service;
mod signers;
mod source;
#[cfg(test)]
mod tests;
mod watch;

pub use metrics::OcspMetrics;
pub use responder::{Options, Reply, Responder};
pub use signers::{SignerFault, Signers};
pub use source::Source;

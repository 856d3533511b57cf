//! Staged rotation on the real stack: waves, limits, breaches, people who decide. One story a file; each ends with what must
//! hold in any case: every device is connected by a certificate that OpenSSL accepts, the ledger says the same as the devices,
//! and no limit was exceeded at any time.

mod approval;
mod automatic;
mod bad;
mod canary;
mod control;
mod emergency;
mod gates;
mod jobs;
mod joiners;
mod killed;
mod moves;
mod offline;
mod preview;
mod record;
mod retry;
mod rollback;
mod stays;
mod vanish;
mod waves;
mod webhook;
mod windows;
pub(crate) mod world;

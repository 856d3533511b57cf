//! Staged rotation on the real stack: waves, limits, breaches, people who decide. One story a file; each ends with what must
//! hold in any case: every device is connected by a certificate that OpenSSL accepts, the ledger says the same as the devices,
//! and no limit was exceeded at any time.

mod approval;
mod canary;
mod control;
mod gates;
mod jobs;
mod killed;
mod offline;
mod record;
mod retry;
mod rollback;
mod vanish;
mod waves;
mod webhook;
mod world;

//! Certwave's device protocol, version 1.
//!
//! What both sides share and nothing else: names ([`ids`]), topics ([`topic`]), the messages ([`message`]), the closed
//! list of codes ([`code`]), the signed envelope ([`envelope`], JWS of RFC 7515), the keys that sign and verify it
//! ([`jws`]), the [`limits`], the JSON Schemas ([`schema`]) and the check of the control certificate ([`control`]). No clock, no I/O, no randomness but signatures.
//!
//! `docs/protocol.md` specifies the same byte for byte for people who write a device in another language.

pub mod code;
pub mod control;
pub mod envelope;
pub mod ids;
pub mod jws;
pub mod limits;
pub mod message;
pub mod schema;
pub mod topic;

/// The version of the protocol that this crate speaks (`v` in every payload).
pub const VERSION: u32 = 1;

/// Largest message accepted, in bytes. RSA-4096 with two intermediates stays below two thirds of it.
pub const MAX_MESSAGE: usize = 32 * 1024;

/// Size below which every message stays with P-256 keys and one intermediate, in bytes.
pub const P256_BUDGET: usize = 5 * 1024;

//! Online certificate status (RFC 6960, with nonces by RFC 9654 and the light-weight profile of RFC 9919).
//!
//! [`OcspRequest::parse`] reads what anybody may send, without allocating more than a list of at most
//! [`MAX_CERT_IDS`]; [`IssuerId`] tells whose certificates are asked about; [`OcspSigner`] signs the answers with the key
//! of a delegated responder ([`LeafUsage::OcspSigner`](crate::LeafUsage::OcspSigner)). Errors are not signed:
//! [`Failure::to_der`].
//!
//! An answer to a request of one certificate and without a nonce fits everybody who asks like that:
//! [`OcspRequest::reusable`] gives the bytes to remember it by, [`IssuerId::cert_id`] makes the same bytes ahead of any
//! request, and [`Answer`] says how long it may be handed out.
//!
//! [`ask`] and [`check`] are for those who ask: the controller asks about what it serves itself.

mod issuer;
mod read;
mod request;
mod response;
mod signer;

pub use issuer::{HashAlgorithm, IssuerId};
pub use read::{Checked, MAX_RESPONSE_BYTES, ResponseError, check};
pub use request::{CertId, MAX_CERT_IDS, MAX_NONCE_BYTES, MAX_REQUEST_BYTES, OcspRequest, RequestError, ask};
pub use response::{Answer, CertStatus, Failure, SingleStatus, StatusTimes};
pub use signer::{AnswerError, OcspSigner, OcspSignerError};

/// id-pkix-ocsp-basic (RFC 6960, 4.2.1).
const BASIC: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 0x30, 1, 1];
/// id-pkix-ocsp-nonce (4.4.1).
const NONCE: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 0x30, 1, 2];

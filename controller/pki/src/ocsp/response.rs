//! Writing responses (RFC 6960, 4.2).

use super::{BASIC, NONCE};
use crate::{
    asn1::{
        BIT_STRING, ENUMERATED, Extension, OBJECT_IDENTIFIER, OCTET_STRING, SEQUENCE, constructed, context,
        generalized_time, nested, tlv,
    },
    crl::Reason,
};

/// An answer that says only why there is none; not signed (RFC 6960, 4.2.1, `OCSPResponseStatus`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Failure {
    /// The request cannot be read, or asks for what is not allowed.
    MalformedRequest,
    /// The responder is broken.
    InternalError,
    /// The responder cannot know just now.
    TryLater,
    /// The responder does not answer for this issuer (RFC 9919, 3.2.3).
    Unauthorized,
}

impl Failure {
    /// A short name from a closed set, for metric labels.
    pub const fn category(self) -> &'static str {
        match self {
            Self::MalformedRequest => "malformed-request",
            Self::InternalError => "internal-error",
            Self::TryLater => "try-later",
            Self::Unauthorized => "unauthorized",
        }
    }

    /// The DER `OCSPResponse`.
    pub const fn to_der(self) -> [u8; 5] {
        let status = match self {
            Self::MalformedRequest => 1,
            Self::InternalError => 2,
            Self::TryLater => 3,
            Self::Unauthorized => 6,
        };
        [SEQUENCE, 3, ENUMERATED, 1, status]
    }
}

/// What is known of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CertStatus {
    /// It was issued and is not revoked.
    Good,
    /// It is revoked, or on hold.
    Revoked {
        /// Since when, Unix seconds.
        at: i64,
        /// Why; [`Reason::Unspecified`] is left out.
        reason: Reason,
    },
    /// It was never issued: what is not known is never good.
    Unknown,
}

/// One certificate of a request with what is known of it.
#[derive(Debug, Clone, Copy)]
pub struct SingleStatus<'a> {
    /// The DER `CertID`, of the request or by [`IssuerId::cert_id`](super::IssuerId::cert_id).
    pub cert_id: &'a [u8],
    /// What is known.
    pub status: CertStatus,
}

/// The times of a response, Unix seconds (RFC 6960, 2.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StatusTimes {
    /// When the status was known to be right.
    pub this_update: i64,
    /// When there will be something newer at the latest.
    pub next_update: i64,
    /// When the response is signed.
    pub produced_at: i64,
}

/// A signed response with what caches need to know of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The DER `OCSPResponse`.
    pub der: Vec<u8>,
    /// Its times; `next_update` is never after the end of the signer's certificate.
    pub times: StatusTimes,
}

impl Answer {
    /// Whether relying parties take it at this time, Unix seconds.
    pub const fn is_current(&self, now: i64) -> bool {
        self.times.this_update <= now && now < self.times.next_update
    }
}

/// `ResponseData`, by key hash; version 1 is the default and not written.
pub(super) fn response_data(
    responder: &[u8; 20],
    times: &StatusTimes,
    singles: &[SingleStatus<'_>],
    nonce: Option<&[u8]>,
) -> Vec<u8> {
    let mut out = Vec::with_capacity(256 + singles.len() * 192);
    nested(&mut out, SEQUENCE, |out| {
        nested(out, constructed(2), |out| tlv(out, OCTET_STRING, responder));
        out.extend_from_slice(generalized_time(times.produced_at).as_bytes());
        nested(out, SEQUENCE, |out| {
            for single in singles {
                write_single(out, single, times);
            }
        });
        if let Some(nonce) = nonce {
            nested(out, constructed(1), |out| {
                nested(out, SEQUENCE, |out| {
                    Extension::write(out, NONCE, false, |out| tlv(out, OCTET_STRING, nonce));
                });
            });
        }
    });
    out
}

fn write_single(out: &mut Vec<u8>, single: &SingleStatus<'_>, times: &StatusTimes) {
    nested(out, SEQUENCE, |out| {
        out.extend_from_slice(single.cert_id);
        match single.status {
            CertStatus::Good => tlv(out, context(0), &[]),
            CertStatus::Revoked { at, reason } => nested(out, constructed(1), |out| {
                out.extend_from_slice(generalized_time(at).as_bytes());
                if let Some(code) = crate::crl::encoded(reason) {
                    nested(out, constructed(0), |out| tlv(out, ENUMERATED, &[code]));
                }
            }),
            CertStatus::Unknown => tlv(out, context(2), &[]),
        }
        out.extend_from_slice(generalized_time(times.this_update).as_bytes());
        nested(out, constructed(0), |out| {
            out.extend_from_slice(generalized_time(times.next_update).as_bytes());
        });
    });
}

/// A successful `OCSPResponse` around signed data.
pub(super) fn response(data: &[u8], algorithm: &[u8], signature: &[u8], certificate: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(data.len() + signature.len() + certificate.len() + 128);
    nested(&mut out, SEQUENCE, |out| {
        tlv(out, ENUMERATED, &[0]);
        nested(out, constructed(0), |out| {
            nested(out, SEQUENCE, |out| {
                tlv(out, OBJECT_IDENTIFIER, BASIC);
                nested(out, OCTET_STRING, |out| {
                    nested(out, SEQUENCE, |out| {
                        out.extend_from_slice(data);
                        out.extend_from_slice(algorithm);
                        nested(out, BIT_STRING, |out| {
                            out.push(0);
                            out.extend_from_slice(signature);
                        });
                        nested(out, constructed(0), |out| {
                            nested(out, SEQUENCE, |out| out.extend_from_slice(certificate));
                        });
                    });
                });
            });
        });
    });
    out
}

//! The signed envelope: a JWS in compact serialization (RFC 7515 7.1) around a [`Payload`].
//!
//! Reading has two steps that cannot be confused: [`Unverified::parse`] reads what a message claims, and
//! [`Unverified::verify`] alone gives out a [`Payload`].

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};

use crate::code::Code;
use crate::ids::{Fingerprint, SessionId};
use crate::jws::{Algorithm, SigningKey, VerifyingKey};
use crate::limits::{self, MAX_CHAIN};
use crate::message::{Der, Payload, Type};
use crate::{MAX_MESSAGE, VERSION};

/// The `typ` of every envelope's header.
pub const TYP: &str = "certwave+jws";

/// Why a message was refused before anything of it was believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// Larger than [`MAX_MESSAGE`].
    #[error("{0} bytes; at most {MAX_MESSAGE} are allowed")]
    TooLarge(usize),
    /// Not an envelope, or a field is missing, of the wrong type or beyond its limit.
    #[error("malformed: {0}")]
    Malformed(String),
    /// A version other than [`VERSION`].
    #[error("protocol version {0} is not supported; this side speaks {VERSION}")]
    UnsupportedVersion(u64),
    /// A type that no envelope has.
    #[error("unknown message type {0:?}")]
    UnknownType(String),
    /// The header's algorithm is not the key's.
    #[error("the algorithm {found:?} is not {expected}, which belongs to the key")]
    BadAlgorithm {
        /// From the header.
        found: String,
        /// The key's.
        expected: Algorithm,
    },
    /// The signature is not this key's.
    #[error("the signature does not verify")]
    BadSignature,
}

impl EnvelopeError {
    /// The code that is sent and counted.
    pub const fn code(&self) -> Code {
        match self {
            Self::TooLarge(_) => Code::TooLarge,
            Self::Malformed(_) => Code::Malformed,
            Self::UnsupportedVersion(_) => Code::UnsupportedVersion,
            Self::UnknownType(_) => Code::UnknownType,
            Self::BadAlgorithm { .. } => Code::BadAlgorithm,
            Self::BadSignature => Code::BadSignature,
        }
    }

    /// A short name from a closed set, for metric labels.
    pub fn category(&self) -> &'static str {
        self.code().as_str()
    }
}

#[derive(Serialize)]
struct HeaderOut<'a> {
    alg: &'static str,
    typ: &'static str,
    #[serde(rename = "x5t#S256", skip_serializing_if = "Option::is_none")]
    x5t: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    x5c: Option<Vec<&'a Der>>,
}

#[derive(Deserialize)]
struct HeaderIn {
    alg: String,
    typ: String,
    #[serde(rename = "x5t#S256")]
    x5t: Option<String>,
    x5c: Option<Vec<String>>,
    /// Anything here, null included, is an extension that must be understood; there is none (RFC 7515 4.1.11).
    #[serde(default, deserialize_with = "present")]
    crit: bool,
}

fn present<'de, D: serde::Deserializer<'de>>(d: D) -> Result<bool, D::Error> {
    serde::de::IgnoredAny::deserialize(d).map(|_| true)
}

/// What is read before the rest: a later version may have changed everything else.
#[derive(Deserialize)]
struct Head {
    v: u64,
    #[serde(rename = "type")]
    kind: Option<serde_json::Value>,
}

/// Seals a device's or claim's message. `leaf` is the fingerprint of the certificate that belongs to `key`.
///
/// Limits are the reader's to check; a payload within them always gives an envelope that [`Unverified::parse`] reads.
pub fn sign_up(payload: &Payload, key: &SigningKey, leaf: Fingerprint) -> Vec<u8> {
    seal(payload, key, Some(URL_SAFE_NO_PAD.encode(leaf.0)), None)
}

/// Seals a controller's message. `x5c` is the control certificate and its intermediates, without the root.
pub fn sign_down(payload: &Payload, key: &SigningKey, x5c: &[Der]) -> Vec<u8> {
    seal(payload, key, None, Some(x5c.iter().collect()))
}

fn seal(payload: &Payload, key: &SigningKey, x5t: Option<String>, x5c: Option<Vec<&Der>>) -> Vec<u8> {
    let header = HeaderOut {
        alg: key.algorithm().as_str(),
        typ: TYP,
        x5t,
        x5c,
    };
    let mut out = URL_SAFE_NO_PAD.encode(json(&header));
    out.push('.');
    URL_SAFE_NO_PAD.encode_string(json(payload), &mut out);
    let signature = key.sign(out.as_bytes());
    out.push('.');
    URL_SAFE_NO_PAD.encode_string(signature, &mut out);
    out.into_bytes()
}

#[allow(clippy::expect_used)]
fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("these types have string keys only and serialize always")
}

/// An envelope that was read but not verified: nothing in it may be believed or acted on.
#[derive(Debug, Clone)]
pub struct Unverified {
    algorithm: String,
    signer: Option<Fingerprint>,
    x5c: Vec<Der>,
    payload: Payload,
    covered: Box<[u8]>,
    signature: Vec<u8>,
}

impl Unverified {
    /// Reads an envelope: size, form, header, then of the payload first `v`, then `type`, then the rest.
    pub fn parse(message: &[u8]) -> Result<Self, EnvelopeError> {
        if message.len() > MAX_MESSAGE {
            return Err(EnvelopeError::TooLarge(message.len()));
        }
        let mut parts = message.split(|b| *b == b'.');
        let (Some(header), Some(payload), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(malformed("not three parts with dots between them"));
        };
        let covered = message[..header.len() + 1 + payload.len()].into();
        let header: HeaderIn =
            serde_json::from_slice(&base64url(header, "header")?).map_err(|e| malformed(format!("header: {e}")))?;
        let signature = base64url(signature, "signature")?;
        let payload = read_payload(&base64url(payload, "payload")?)?;
        if header.typ != TYP {
            return Err(malformed("header: typ is not certwave+jws"));
        }
        if header.crit {
            return Err(malformed("header: crit is not supported"));
        }
        let (signer, x5c) = match (header.x5t, header.x5c) {
            (Some(x5t), None) => (Some(thumbprint(&x5t)?), Vec::new()),
            (None, Some(x5c)) => (None, certificates(x5c)?),
            _ => return Err(malformed("header: exactly one of x5t#S256 and x5c is needed")),
        };
        if is_up(payload.body.kind()) != signer.is_some() {
            return Err(malformed("header: devices send x5t#S256, the controller sends x5c"));
        }
        Ok(Self {
            algorithm: header.alg,
            signer,
            x5c,
            payload,
            covered,
            signature,
        })
    }

    /// Up: the fingerprint of the certificate whose key is said to have signed.
    pub fn signer(&self) -> Option<Fingerprint> {
        self.signer
    }

    /// Down: the control certificate and its intermediates, to be checked by
    /// [`ControlTrust::verify`](crate::control::ControlTrust::verify). Empty for messages up.
    pub fn x5c(&self) -> &[Der] {
        &self.x5c
    }

    /// What the message claims, for choosing the key and for logs. Never act on it.
    pub fn claimed(&self) -> &Payload {
        &self.payload
    }

    /// Gives out the payload if `key` signed it, with the one algorithm that belongs to `key`.
    ///
    /// That the key may speak for this device, or as the controller, is the caller's to know.
    pub fn verify(self, key: &VerifyingKey) -> Result<Payload, EnvelopeError> {
        if self.algorithm != key.algorithm().as_str() {
            return Err(EnvelopeError::BadAlgorithm {
                found: self.algorithm,
                expected: key.algorithm(),
            });
        }
        key.verify(&self.covered, &self.signature)
            .map_err(|_| EnvelopeError::BadSignature)?;
        Ok(self.payload)
    }
}

/// The session that a message claims, even if [`Unverified::parse`] refused it: every version has it at the same place, so
/// that a message of an unknown version can be answered. Believe nothing because of it.
pub fn claimed_session(message: &[u8]) -> Option<SessionId> {
    #[derive(Deserialize)]
    struct Claim {
        session: SessionId,
    }
    if message.len() > MAX_MESSAGE {
        return None;
    }
    let payload = URL_SAFE_NO_PAD.decode(message.split(|b| *b == b'.').nth(1)?).ok()?;
    serde_json::from_slice::<Claim>(&payload)
        .ok()
        .map(|claim| claim.session)
}

fn is_up(kind: Type) -> bool {
    matches!(
        kind,
        Type::Hello | Type::Enrol | Type::Csr | Type::Tested | Type::Status
    )
}

fn read_payload(json: &[u8]) -> Result<Payload, EnvelopeError> {
    let unreadable = |e: serde_json::Error| malformed(format!("payload: {e}"));
    let head: Head = serde_json::from_slice(json).map_err(unreadable)?;
    if head.v != u64::from(VERSION) {
        return Err(EnvelopeError::UnsupportedVersion(head.v));
    }
    match head.kind {
        Some(serde_json::Value::String(kind)) => match kind.parse() {
            Ok(Type::Online) | Err(_) => return Err(EnvelopeError::UnknownType(shorten(kind))),
            Ok(_) => {}
        },
        _ => return Err(malformed("payload: type is not a string")),
    }
    let payload: Payload = serde_json::from_slice(json).map_err(unreadable)?;
    limits::check(&payload).map_err(|field| malformed(format!("payload: {field} is missing or beyond its limits")))?;
    Ok(payload)
}

fn base64url(part: &[u8], name: &str) -> Result<Vec<u8>, EnvelopeError> {
    URL_SAFE_NO_PAD
        .decode(part)
        .map_err(|e| malformed(format!("{name}: {e}")))
}

fn thumbprint(x5t: &str) -> Result<Fingerprint, EnvelopeError> {
    let bytes = base64url(x5t.as_bytes(), "x5t#S256")?;
    bytes
        .try_into()
        .map(Fingerprint)
        .map_err(|_| malformed("header: x5t#S256 is not 32 bytes"))
}

fn certificates(x5c: Vec<String>) -> Result<Vec<Der>, EnvelopeError> {
    if !(1..=MAX_CHAIN).contains(&x5c.len()) {
        return Err(malformed("header: x5c must hold 1 to 5 certificates"));
    }
    x5c.into_iter()
        .map(|c| STANDARD.decode(c).map(Der).map_err(|e| malformed(format!("x5c: {e}"))))
        .collect()
}

/// Names of unknown types reach logs: no more of them than helps.
fn shorten(mut name: String) -> String {
    if let Some((end, _)) = name.char_indices().nth(32) {
        name.truncate(end);
    }
    name
}

fn malformed(reason: impl Into<String>) -> EnvelopeError {
    EnvelopeError::Malformed(reason.into())
}

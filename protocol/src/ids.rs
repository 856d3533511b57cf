//! Names and identifiers, checked when made.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

/// Why a name or identifier was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Not a deviceId.
    #[error("deviceId must match [A-Za-z0-9][A-Za-z0-9._-]{{0,55}}")]
    DeviceId,
    /// Not a broker id or claim name.
    #[error("must be 1 to 40 characters of a-z, 0-9 and '-', beginning and ending with a letter or digit")]
    Label,
    /// Not 64 hexadecimal digits.
    #[error("a fingerprint is 64 lower-case hexadecimal digits (SHA-256)")]
    Fingerprint,
    /// Not 128 bits of base64url.
    #[error("a nonce or session is 128 bits in base64url without padding (22 characters)")]
    Nonce,
}

/// Implements [`JsonSchema`] for a type that is a string of `pattern` in JSON.
macro_rules! pattern_schema {
    ($name:ident, $pattern:literal) => {
        impl schemars::JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({"type": "string", "pattern": $pattern})
            }
        }
    };
}
pub(crate) use pattern_schema;

macro_rules! string_id {
    ($(#[$doc:meta])* $name:ident, $check:ident, $error:ident, $pattern:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Box<str>);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl FromStr for $name {
            type Err = IdError;
            fn from_str(s: &str) -> Result<Self, IdError> {
                if $check(s) { Ok(Self(s.into())) } else { Err(IdError::$error) }
            }
        }
        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(s: String) -> Result<Self, IdError> {
                s.parse()
            }
        }
        impl From<$name> for String {
            fn from(v: $name) -> String {
                v.0.into()
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
        pattern_schema!($name, $pattern);
    };
}

string_id!(
    /// A device's name below its broker, and exactly the common name of its certificates.
    DeviceId, is_device_id, DeviceId, r"^[A-Za-z0-9][A-Za-z0-9._-]{0,55}$"
);
string_id!(
    /// A broker's immutable id; with a [`DeviceId`] it is a device's identity.
    BrokerId, is_label, Label, r"^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$"
);
string_id!(
    /// A claim's name; its certificate's common name is `~claim.<name>`.
    ClaimName, is_label, Label, r"^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$"
);

impl ClaimName {
    /// The MQTT user of this claim, `~claim.<name>`.
    pub fn user(&self) -> String {
        format!("~claim.{self}")
    }
}

fn is_device_id(s: &str) -> bool {
    let b = s.as_bytes();
    (1..=56).contains(&b.len())
        && b[0].is_ascii_alphanumeric()
        && b.iter()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-'))
}

fn is_label(s: &str) -> bool {
    let b = s.as_bytes();
    (1..=40).contains(&b.len())
        && b.iter()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || *c == b'-')
        && b[0] != b'-'
        && b[b.len() - 1] != b'-'
}

/// SHA-256 of a certificate's DER, of a public key, or of a trust bundle; 64 lower-case hexadecimal digits as text.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Fingerprint(pub [u8; 32]);

pattern_schema!(Fingerprint, "^[0-9a-f]{64}$");

impl Fingerprint {
    /// SHA-256 of `data`.
    pub fn of(data: &[u8]) -> Self {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, data);
        let mut out = [0; 32];
        out.copy_from_slice(digest.as_ref());
        Self(out)
    }

    /// The hash of a trust bundle: SHA-256 over the anchors' fingerprints, sorted ascending and concatenated, so that
    /// neither order nor repetition matters.
    pub fn of_bundle<T: AsRef<[u8]>>(anchors: impl IntoIterator<Item = T>) -> Self {
        let all: std::collections::BTreeSet<Self> = anchors.into_iter().map(|a| Self::of(a.as_ref())).collect();
        Self::of(&all.iter().flat_map(|f| f.0).collect::<Vec<u8>>())
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}
impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}
impl FromStr for Fingerprint {
    type Err = IdError;
    fn from_str(s: &str) -> Result<Self, IdError> {
        let mut out = [0; 32];
        if s.bytes().any(|b| b.is_ascii_uppercase()) || hex::decode_to_slice(s, &mut out).is_err() {
            return Err(IdError::Fingerprint);
        }
        Ok(Self(out))
    }
}
impl TryFrom<String> for Fingerprint {
    type Error = IdError;
    fn try_from(s: String) -> Result<Self, IdError> {
        s.parse()
    }
}
impl From<Fingerprint> for String {
    fn from(v: Fingerprint) -> String {
        v.to_string()
    }
}

/// 128 random bits: a job's nonce or a connection's session; 22 characters of base64url as text.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Nonce(pub [u8; 16]);

pattern_schema!(Nonce, "^[A-Za-z0-9_-]{21}[AQgw]$");

/// The id of one connection of a device, chosen at random by the device before it connects.
pub type SessionId = Nonce;

impl fmt::Display for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}
impl fmt::Debug for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}
impl FromStr for Nonce {
    type Err = IdError;
    fn from_str(s: &str) -> Result<Self, IdError> {
        let mut out = [0; 16];
        match URL_SAFE_NO_PAD.decode_slice(s, &mut out) {
            Ok(16) => Ok(Self(out)),
            _ => Err(IdError::Nonce),
        }
    }
}
impl TryFrom<String> for Nonce {
    type Error = IdError;
    fn try_from(s: String) -> Result<Self, IdError> {
        s.parse()
    }
}
impl From<Nonce> for String {
    fn from(v: Nonce) -> String {
        v.to_string()
    }
}

/// A job's id, a `UUIDv7` (RFC 9562 5.7).
pub type JobId = uuid::Uuid;

/// The ledger's fencing value: it rises with every change of leadership.
pub type Epoch = u64;

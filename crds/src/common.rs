//! What several kinds share.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// An object of this namespace.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default, KubeSchema)]
pub struct LocalRef {
    /// Name of the object, in this namespace.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// One key of a Secret of this namespace.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
pub struct SecretKeyRef {
    /// Name of the Secret, in this namespace.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The key in the Secret's data; the field that refers to the Secret says which where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub key: Option<String>,
}

/// A key algorithm with its strength.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Copy, Hash, Default, JsonSchema)]
pub enum KeyAlgorithm {
    /// ECDSA on the curve P-256 with SHA-256.
    #[default]
    #[serde(rename = "ECDSA-P256")]
    EcdsaP256,
    /// ECDSA on the curve P-384 with SHA-384.
    #[serde(rename = "ECDSA-P384")]
    EcdsaP384,
    /// Ed25519.
    Ed25519,
    /// RSA with 2048 bits.
    #[serde(rename = "RSA-2048")]
    Rsa2048,
    /// RSA with 3072 bits.
    #[serde(rename = "RSA-3072")]
    Rsa3072,
    /// RSA with 4096 bits.
    #[serde(rename = "RSA-4096")]
    Rsa4096,
}

/// Why a certificate is revoked (RFC 5280, 5.3.1, in the spelling of its ASN.1): unspecified, keyCompromise (somebody else may have the key), cACompromise (the same of a CA's key), affiliationChanged (it belongs to somebody else now), superseded (another certificate has replaced it), cessationOfOperation (out of use) or privilegeWithdrawn.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Copy, Hash, Default, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum RevocationReason {
    /// No reason is given.
    #[default]
    Unspecified,
    /// Somebody else may have the key.
    KeyCompromise,
    /// Somebody else may have a CA's key.
    #[serde(rename = "cACompromise")]
    CaCompromise,
    /// It belongs to somebody else now.
    AffiliationChanged,
    /// Another certificate has replaced it.
    Superseded,
    /// It is out of use.
    CessationOfOperation,
    /// A privilege was withdrawn.
    PrivilegeWithdrawn,
}

/// How a certificate stands: Held, Revoked, or Released (it was on hold and is good again).
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Copy, Hash, JsonSchema)]
pub enum CertificateStanding {
    /// On hold.
    Held,
    /// Revoked for good.
    Revoked,
    /// It was on hold and is good again.
    Released,
}

/// A certificate, by what names it.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct CertificateStatus {
    /// Serial number, in lower-case hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub serial: Option<String>,
    /// SHA-256 of the DER encoding, as 64 lower-case hex digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub sha256: Option<String>,
    /// Start of validity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::time")]
    pub not_before: Option<Time>,
    /// End of validity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::time")]
    pub not_after: Option<Time>,
    /// Key id of the issuer, in lower-case hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub issuer: Option<String>,
    /// Its public key (subject public key info, DER), base64: by this and its serial number a ledger that was restored from a backup knows the device again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub public_key: Option<String>,
    /// Held or Revoked, where it is: then it works no more, whatever its dates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub standing: Option<CertificateStanding>,
}

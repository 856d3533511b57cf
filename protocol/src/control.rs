//! The check of the control certificate: who may speak as the controller of a broker.

use std::time::Duration;

use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::{ALL_VERIFICATION_ALGS, EndEntityCert, KeyUsage as Eku, anchor_from_trusted_cert};
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::der::asn1::{ObjectIdentifier, PrintableStringRef, Utf8StringRef};
use x509_cert::ext::pkix::{ExtendedKeyUsage, KeyUsage};
use x509_cert::name::Name;

use crate::code::Code;
use crate::ids::BrokerId;
use crate::jws::{KeyError, VerifyingKey};
use crate::message::Der;

/// The extended key usage that only control certificates carry: 2.25.1129791830.1.
pub const CONTROL_EKU_OID: &[u64] = &[2, 25, 1_129_791_830, 1];

/// [`CONTROL_EKU_OID`] as the content bytes of a DER OBJECT IDENTIFIER (X.690 8.19), without tag and length.
pub const CONTROL_EKU_DER: &[u8] = &[0x69, 0x84, 0x9a, 0xdd, 0x82, 0x56, 0x01];

/// The attribute type of a common name (X.520).
pub const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");

/// The common name of a broker's control certificate, `~control.<brokerId>`.
pub fn common_name(broker: &BrokerId) -> String {
    format!("~control.{broker}")
}

/// Why a control certificate is not trusted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// An anchor is not a certificate.
    #[error("a trust anchor cannot be read: {0}")]
    Anchor(String),
    /// No control certificate, or one that cannot be read.
    #[error("the control certificate cannot be read: {0}")]
    Unreadable(String),
    /// Trusted but for its end, or its issuer's, by the clock given.
    #[error("the control certificate or one of its issuers has expired by this clock")]
    Expired,
    /// Trusted but for its begin, or its issuer's, by the clock given.
    #[error("the control certificate or one of its issuers is not yet valid by this clock")]
    NotYetValid,
    /// The extended key usage, or the key usage, is not a control certificate's.
    #[error("the certificate is not for control messages")]
    Usage,
    /// No path to an anchor.
    #[error("no path from the control certificate to a trust anchor: {0}")]
    Untrusted(String),
    /// A control certificate of another broker.
    #[error("the control certificate is {found:?}, not {expected:?}")]
    Name {
        /// The certificate's common name, empty where it has none or several.
        found: String,
        /// The name of this broker's.
        expected: String,
    },
    /// The certificate's key cannot sign envelopes.
    #[error(transparent)]
    Key(#[from] KeyError),
}

impl ControlError {
    /// The code that is sent and counted.
    pub const fn code(&self) -> Code {
        match self {
            Self::Name { .. } => Code::WrongBroker,
            _ => Code::UntrustedControl,
        }
    }

    /// A short name from a closed set, for metric labels.
    pub const fn category(&self) -> &'static str {
        match self {
            Self::Anchor(_) => "anchor",
            Self::Unreadable(_) => "unreadable",
            Self::Expired => "expired",
            Self::NotYetValid => "not-yet-valid",
            Self::Usage => "usage",
            Self::Untrusted(_) => "untrusted",
            Self::Name { .. } => "name",
            Self::Key(_) => "key",
        }
    }
}

/// The anchors that control certificates must chain to: the device's trust bundle.
#[derive(Debug, Clone)]
pub struct ControlTrust {
    anchors: Vec<TrustAnchor<'static>>,
}

impl ControlTrust {
    /// Takes DER certificates as anchors. An empty bundle trusts nobody.
    pub fn new(anchors: &[Der]) -> Result<Self, ControlError> {
        let anchor = |der: &Der| {
            anchor_from_trusted_cert(&CertificateDer::from(der.as_ref()))
                .map(|anchor| anchor.to_owned())
                .map_err(|e| ControlError::Anchor(e.to_string()))
        };
        Ok(Self {
            anchors: anchors.iter().map(anchor).collect::<Result<_, _>>()?,
        })
    }

    /// Checks path, validity at `now_unix` (Unix seconds), usages and name of a control certificate (RFC 5280 6); gives
    /// the key that may sign for the controller of `broker`. `x5c` is the certificate and its intermediates.
    pub fn verify(&self, x5c: &[Der], broker: &BrokerId, now_unix: i64) -> Result<VerifyingKey, ControlError> {
        let unreadable = |e: &dyn std::fmt::Display| ControlError::Unreadable(e.to_string());
        let (leaf, intermediates) = x5c.split_first().ok_or_else(|| unreadable(&"there is none"))?;
        let leaf = CertificateDer::from(leaf.as_ref());
        let intermediates: Vec<_> = intermediates
            .iter()
            .map(|der| CertificateDer::from(der.as_ref()))
            .collect();
        let end_entity = EndEntityCert::try_from(&leaf).map_err(|e| unreadable(&e))?;
        let now = UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(now_unix).unwrap_or(0)));
        // Issuers need not bear the usage, but if they bear any, then also this one; the leaf is looked at below.
        let usage = Eku::required_if_present(CONTROL_EKU_DER);
        end_entity
            .verify_for_usage(
                ALL_VERIFICATION_ALGS,
                &self.anchors,
                &intermediates,
                now,
                usage,
                None,
                None,
            )
            .map_err(|e| path_error(&e))?;

        let certificate = Certificate::from_der(&leaf).map_err(|e| unreadable(&e))?;
        let tbs = certificate.tbs_certificate();
        let signs = tbs
            .get_extension::<KeyUsage>()
            .map_err(|e| unreadable(&e))?
            .is_none_or(|(_, usage)| usage.digital_signature());
        let controls = tbs
            .get_extension::<ExtendedKeyUsage>()
            .map_err(|e| unreadable(&e))?
            .is_some_and(|(_, usages)| usages.0.iter().any(|oid| oid.as_bytes() == CONTROL_EKU_DER));
        if !(signs && controls) {
            return Err(ControlError::Usage);
        }
        let (found, expected) = (
            subject_common_name(&certificate).unwrap_or_default(),
            common_name(broker),
        );
        if found != expected {
            return Err(ControlError::Name { found, expected });
        }
        Ok(VerifyingKey::from_certificate(&leaf)?)
    }
}

fn path_error(error: &webpki::Error) -> ControlError {
    match error {
        webpki::Error::CertExpired { .. } => ControlError::Expired,
        webpki::Error::CertNotValidYet { .. } => ControlError::NotYetValid,
        webpki::Error::RequiredEkuNotFoundContext(_) | webpki::Error::EmptyEkuExtension => ControlError::Usage,
        other => ControlError::Untrusted(other.to_string()),
    }
}

/// The subject's common name: see [`sole_common_name`].
pub fn subject_common_name(certificate: &Certificate) -> Option<String> {
    sole_common_name(certificate.tbs_certificate().subject())
}

/// The common name of `name`, where there is exactly one: a name that says two things says nothing.
pub fn sole_common_name(name: &Name) -> Option<String> {
    let mut names = name.iter().filter(|attribute| attribute.oid == COMMON_NAME);
    let (Some(name), None) = (names.next(), names.next()) else {
        return None;
    };
    let utf8 = name
        .value
        .decode_as::<Utf8StringRef<'_>>()
        .map(|s| s.as_str().to_owned());
    utf8.or_else(|_| {
        name.value
            .decode_as::<PrintableStringRef<'_>>()
            .map(|s| s.as_str().to_owned())
    })
    .ok()
}

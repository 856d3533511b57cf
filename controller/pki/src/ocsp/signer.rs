//! The delegated responder (RFC 6960, 2.6 and 4.2.2.2): a key of its own, certified by the CA to sign answers.

use std::fmt;

use rustls_pki_types::CertificateDer;

use super::{
    Answer, CertId, CertStatus, Failure, IssuerId, OcspRequest, SingleStatus, StatusTimes,
    issuer::key_hash,
    response::{response, response_data},
};
use crate::{
    KeyError, ParseError, PrivateKey,
    certificate::Parsed,
    issue::{OCSP_NO_CHECK, OCSP_SIGNING},
};

/// Why a key and a certificate do not make a signer of answers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OcspSignerError {
    /// The signer's or the issuer's certificate cannot be read.
    #[error(transparent)]
    Parse(#[from] ParseError),
    /// The certificate is of another key.
    #[error("the certificate of the OCSP signer is of another key")]
    OtherKey,
    /// The CA has not issued the certificate itself, as RFC 6960, 4.2.2.2 demands.
    #[error("the certificate of the OCSP signer is not issued by the CA that it answers for")]
    OtherIssuer,
    /// The certificate lacks the extended key usage id-kp-OCSPSigning.
    #[error("the certificate of the OCSP signer lacks the extended key usage OCSPSigning")]
    NoUsage,
    /// The certificate lacks id-pkix-ocsp-nocheck: clients would ask for its status, again and again.
    #[error("the certificate of the OCSP signer lacks id-pkix-ocsp-nocheck")]
    NoNoCheck,
}

impl OcspSignerError {
    /// A short name from a closed set, for metric labels.
    pub const fn category(&self) -> &'static str {
        match self {
            Self::Parse(error) => error.category(),
            Self::OtherKey => "other-key",
            Self::OtherIssuer => "other-issuer",
            Self::NoUsage => "no-usage",
            Self::NoNoCheck => "no-nocheck",
        }
    }
}

/// Why an answer is not signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// The request is about certificates of another CA.
    #[error("the request is about certificates of another CA")]
    OtherIssuer,
    /// The signer's certificate is not valid at `produced_at`: nobody would believe the answer.
    #[error("the OCSP signer is valid from {not_before} to {not_after} (Unix seconds), not now")]
    SignerNotValid {
        /// Start of the signer's validity, Unix seconds.
        not_before: i64,
        /// Last second of the signer's validity, Unix seconds.
        not_after: i64,
    },
    /// The answer would be too old before it is signed, or from the future.
    #[error("the status would not be valid when it is signed")]
    NotCurrent,
    /// The key cannot sign.
    #[error(transparent)]
    Key(#[from] KeyError),
}

impl AnswerError {
    /// A short name from a closed set, for metric labels.
    pub const fn category(&self) -> &'static str {
        match self {
            Self::OtherIssuer => "other-issuer",
            Self::SignerNotValid { .. } => "signer-not-valid",
            Self::NotCurrent => "not-current",
            Self::Key(error) => error.category(),
        }
    }

    /// What the client is told.
    pub const fn failure(&self) -> Failure {
        match self {
            Self::OtherIssuer => Failure::Unauthorized,
            Self::SignerNotValid { .. } | Self::NotCurrent => Failure::TryLater,
            Self::Key(_) => Failure::InternalError,
        }
    }
}

/// Signs answers about the certificates of one CA.
pub struct OcspSigner {
    key: PrivateKey,
    certificate: CertificateDer<'static>,
    issuer: IssuerId,
    key_hash: [u8; 20],
    not_before: i64,
    not_after: i64,
}

impl OcspSigner {
    /// A signer with a certificate of usage [`LeafUsage::OcspSigner`](crate::LeafUsage::OcspSigner); `issuer` is the DER
    /// certificate of the CA that it answers for.
    pub fn new(key: PrivateKey, certificate: CertificateDer<'static>, issuer: &[u8]) -> Result<Self, OcspSignerError> {
        let parsed = Parsed::from_der(&certificate)?;
        if parsed.public_key != *key.public_key() {
            return Err(OcspSignerError::OtherKey);
        }
        let issuer = Parsed::from_der(issuer)?;
        if !parsed.is_issued_by(&issuer) {
            return Err(OcspSignerError::OtherIssuer);
        }
        if !parsed.is_for(&OCSP_SIGNING) {
            return Err(OcspSignerError::NoUsage);
        }
        if !parsed.has_extension(&OCSP_NO_CHECK) {
            return Err(OcspSignerError::NoNoCheck);
        }
        Ok(Self {
            key_hash: key_hash(key.public_key().bits()),
            not_before: parsed.not_before,
            not_after: parsed.not_after,
            issuer: IssuerId::of_parsed(&issuer),
            key,
            certificate,
        })
    }

    /// The signer's certificate.
    pub const fn certificate_der(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// The CA that it answers for.
    pub const fn issuer(&self) -> &IssuerId {
        &self.issuer
    }

    /// Start of its validity, Unix seconds.
    pub const fn not_before(&self) -> i64 {
        self.not_before
    }

    /// Last second of its validity, Unix seconds. Another signer must be there well before.
    pub const fn not_after(&self) -> i64 {
        self.not_after
    }

    /// Signs what is known of these certificates, with the nonce of the request. `next_update` is cut to the end of the
    /// signer's certificate.
    pub fn sign(
        &self,
        singles: &[SingleStatus<'_>],
        nonce: Option<&[u8]>,
        mut times: StatusTimes,
    ) -> Result<Answer, AnswerError> {
        if times.produced_at < self.not_before || times.produced_at >= self.not_after {
            return Err(AnswerError::SignerNotValid {
                not_before: self.not_before,
                not_after: self.not_after,
            });
        }
        times.next_update = times.next_update.min(self.not_after);
        if times.this_update > times.produced_at || times.next_update <= times.produced_at {
            return Err(AnswerError::NotCurrent);
        }
        let data = response_data(&self.key_hash, &times, singles, nonce);
        let signature = self.key.sign(&data)?;
        let der = response(
            &data,
            self.key.algorithm().identifier_der(),
            &signature,
            &self.certificate,
        );
        Ok(Answer { der, times })
    }

    /// Answers a request: each certificate in its order, the nonce echoed. `status` is not asked about serial numbers that
    /// no certificate can have; those are unknown.
    pub fn answer(
        &self,
        request: &OcspRequest<'_>,
        times: StatusTimes,
        mut status: impl FnMut(&crate::Serial) -> CertStatus,
    ) -> Result<Answer, AnswerError> {
        if request.issuer([&self.issuer]).is_none() {
            return Err(AnswerError::OtherIssuer);
        }
        let singles: Vec<_> = request
            .cert_ids()
            .iter()
            .map(|CertId { der, serial, .. }| SingleStatus {
                cert_id: der,
                status: serial.as_ref().map_or(CertStatus::Unknown, &mut status),
            })
            .collect();
        self.sign(&singles, request.nonce(), times)
    }
}

impl fmt::Debug for OcspSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OcspSigner")
            .field("key", &self.key)
            .field("not_before", &self.not_before)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

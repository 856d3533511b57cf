//! CAs that are brought along, and certificates of ours that were signed outside.

use x509_cert::ext::pkix::KeyUsage;

use crate::{
    CaError, CertificateAuthority, ParseError, PrivateKey, PublicKeyError, certificate::Parsed, certificates_from_pem,
    issue::random_serial, signature::Signed,
};

/// The longest path that is imported, own certificate and root included.
const MAX_PATH: usize = 8;

/// Why a CA cannot be imported. Where one certificate is at fault, `subject` names it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImportError {
    /// No, or a damaged, certificate in the PEM text.
    #[error("no readable certificate in the PEM text")]
    NoCertificate,
    /// A certificate that cannot be read.
    #[error("certificate {index} of the chain: {error}")]
    Unreadable {
        /// Its place in the chain; 0 is the CA's own.
        index: usize,
        /// What is wrong with it.
        error: ParseError,
    },
    /// More certificates than any real chain has.
    #[error("the chain has {0} certificates; at most {MAX_PATH} are taken")]
    TooLong(usize),
    /// The private key is not that of the first certificate.
    #[error("the private key does not belong to the certificate of {subject}, which must come first")]
    KeyMismatch {
        /// The certificate's subject.
        subject: String,
    },
    /// A certificate that has expired.
    #[error("the certificate of {subject} expired at {not_after} (Unix seconds)")]
    Expired {
        /// The certificate's subject.
        subject: String,
        /// Its end, Unix seconds.
        not_after: i64,
    },
    /// A certificate that is not valid yet.
    #[error("the certificate of {subject} is not valid before {not_before} (Unix seconds)")]
    NotYetValid {
        /// The certificate's subject.
        subject: String,
        /// Its start, Unix seconds.
        not_before: i64,
    },
    /// A certificate whose `basicConstraints` do not make it a CA.
    #[error("the certificate of {subject} is not a CA's (basicConstraints)")]
    NotCa {
        /// The certificate's subject.
        subject: String,
    },
    /// A CA that may not sign certificates.
    #[error("the certificate of {subject} lacks the key usage keyCertSign")]
    MissingKeyCertSign {
        /// The certificate's subject.
        subject: String,
    },
    /// A CA that may not sign CRLs, so that nothing could be revoked.
    #[error("the certificate of {subject} lacks the key usage cRLSign")]
    MissingCrlSign {
        /// The certificate's subject.
        subject: String,
    },
    /// A CA certificate without the identifier that every CRL URL and AKI needs (RFC 5280, 4.2.1.2).
    #[error("the certificate of {subject} lacks a subject key identifier of 1 to 64 bytes")]
    MissingKeyId {
        /// The certificate's subject.
        subject: String,
    },
    /// A certificate that the next one did not issue.
    #[error("the certificate of {subject} was not issued by the next one, {issuer}; the order is own, issuer, …, root")]
    BrokenChain {
        /// The certificate's subject.
        subject: String,
        /// The next certificate's subject.
        issuer: String,
    },
    /// A path length constraint that the chain itself breaks.
    #[error("the certificate of {subject} does not allow so many CAs below it")]
    PathLen {
        /// The certificate's subject.
        subject: String,
    },
    /// An extension that Certwave cannot honour: name constraints, or a critical one that it does not know.
    #[error("the certificate of {subject} has the extension {oid}, which cannot be honoured")]
    UnsupportedExtension {
        /// The certificate's subject.
        subject: String,
        /// The extension's object identifier.
        oid: String,
    },
    /// A chain whose extended key usages leave no client authentication.
    #[error("the extended key usages of {subject} and those above do not allow clientAuth")]
    NoClientAuth {
        /// The CA's subject.
        subject: String,
    },
    /// A subject that would be encoded differently in the certificates it issues, so that no path could be built.
    #[error(
        "the name of {subject} has a form that cannot be repeated as issuer (an attribute twice, or two in one RDN)"
    )]
    UnsupportedName {
        /// The CA's subject.
        subject: String,
    },
    /// The CA cannot sign.
    #[error(transparent)]
    Ca(#[from] CaError),
}

impl ImportError {
    /// A short name from a closed set, for metric labels and condition reasons.
    pub const fn category(&self) -> &'static str {
        match self {
            Self::NoCertificate => "no-certificate",
            Self::Unreadable { error, .. } => match error {
                ParseError::PublicKey(PublicKeyError::Weak(_)) => "key-weak",
                ParseError::PublicKey(_) => "key-algorithm",
                _ => "unreadable",
            },
            Self::TooLong(_) => "too-long",
            Self::KeyMismatch { .. } => "key-mismatch",
            Self::Expired { .. } => "expired",
            Self::NotYetValid { .. } => "not-yet-valid",
            Self::NotCa { .. } => "not-ca",
            Self::MissingKeyCertSign { .. } => "missing-key-cert-sign",
            Self::MissingCrlSign { .. } => "missing-crl-sign",
            Self::MissingKeyId { .. } => "missing-key-id",
            Self::BrokenChain { .. } => "broken-chain",
            Self::PathLen { .. } => "path-len",
            Self::UnsupportedExtension { .. } => "unsupported-extension",
            Self::NoClientAuth { .. } => "no-client-auth",
            Self::UnsupportedName { .. } => "unsupported-name",
            Self::Ca(error) => error.category(),
        }
    }
}

impl CertificateAuthority {
    /// Takes a CA that was brought along, or one of ours whose certificate was signed outside.
    ///
    /// `chain_pem` begins with the CA's own certificate; each next one issued the one before, up to the root or to any
    /// CA below it; a certificate that follows itself is taken once, so `tls.crt` and `ca.crt` of a Secret can be
    /// joined. With the root left out, [`root_der`](Self::root_der) is `None` and the anchor comes from elsewhere.
    pub fn import(chain_pem: &str, key: PrivateKey, now: i64) -> Result<Self, ImportError> {
        let mut chain = certificates_from_pem(chain_pem)
            .filter(|chain| !chain.is_empty())
            .ok_or(ImportError::NoCertificate)?;
        // Secrets often repeat the root: at the end of `tls.crt` and in `ca.crt`.
        chain.dedup();
        if chain.len() > MAX_PATH {
            return Err(ImportError::TooLong(chain.len()));
        }
        let path = chain
            .iter()
            .enumerate()
            .map(|(index, der)| Parsed::from_der(der).map_err(|error| ImportError::Unreadable { index, error }))
            .collect::<Result<Vec<_>, _>>()?;

        let own = &path[0];
        if own.public_key != *key.public_key() {
            return Err(ImportError::KeyMismatch {
                subject: own.subject_text(),
            });
        }
        for (depth, certificate) in path.iter().enumerate() {
            check(certificate, depth, now)?;
        }
        check_own(own)?;
        for pair in path.windows(2) {
            // A root may not be followed: it issued itself.
            if !pair[0].is_issued_by(&pair[1]) || pair[0].is_self_issued() {
                return Err(ImportError::BrokenChain {
                    subject: pair[0].subject_text(),
                    issuer: pair[1].subject_text(),
                });
            }
        }
        if let Some(last) = path
            .last()
            .filter(|last| last.is_self_issued() && !last.is_issued_by(last))
        {
            let subject = last.subject_text();
            return Err(ImportError::BrokenChain {
                issuer: subject.clone(),
                subject,
            });
        }
        let ca = Self::assemble(key, &path)?;
        if !ca.allows_purpose(&crate::issue::CLIENT_AUTH) {
            return Err(ImportError::NoClientAuth {
                subject: own.subject_text(),
            });
        }
        ca.prove(own)?;
        Ok(ca)
    }

    /// Signs a certificate that is thrown away: the key works, and the name comes out as it stands in the CA's own.
    fn prove(&self, own: &Parsed) -> Result<(), ImportError> {
        let mut params = rcgen::CertificateParams::default();
        let serial = random_serial().map_err(CaError::Key)?;
        params.serial_number = Some(rcgen::SerialNumber::from_slice(&serial));
        let trial = params
            .signed_by(self.public_key(), &self.issuer)
            .map_err(CaError::from)?;
        let parsed = Parsed::from_der(trial.der()).map_err(CaError::from)?;
        if parsed.issuer != own.subject {
            return Err(ImportError::UnsupportedName {
                subject: own.subject_text(),
            });
        }
        if !Signed::from_der(trial.der()).is_ok_and(|signed| signed.is_signed_by(&own.public_key)) {
            return Err(ImportError::KeyMismatch {
                subject: own.subject_text(),
            });
        }
        Ok(())
    }
}

/// What every CA of the path must fulfil. `depth` CAs are below this one.
fn check(certificate: &Parsed, depth: usize, now: i64) -> Result<(), ImportError> {
    let subject = || certificate.subject_text();
    if now > certificate.not_after {
        return Err(ImportError::Expired {
            subject: subject(),
            not_after: certificate.not_after,
        });
    }
    if now < certificate.not_before {
        return Err(ImportError::NotYetValid {
            subject: subject(),
            not_before: certificate.not_before,
        });
    }
    let Some(constraints) = certificate.ca else {
        return Err(ImportError::NotCa { subject: subject() });
    };
    if !certificate.key_usage.as_ref().is_some_and(KeyUsage::key_cert_sign) {
        return Err(ImportError::MissingKeyCertSign { subject: subject() });
    }
    if constraints.path_len.is_some_and(|limit| usize::from(limit) < depth) {
        return Err(ImportError::PathLen { subject: subject() });
    }
    if let Some(oid) = certificate.not_understood {
        return Err(ImportError::UnsupportedExtension {
            subject: subject(),
            oid: oid.to_string(),
        });
    }
    Ok(())
}

fn check_own(own: &Parsed) -> Result<(), ImportError> {
    if !own.key_usage.as_ref().is_some_and(KeyUsage::crl_sign) {
        return Err(ImportError::MissingCrlSign {
            subject: own.subject_text(),
        });
    }
    if !own
        .subject_key_id
        .as_ref()
        .is_some_and(|id| (1..=64).contains(&id.as_bytes().len()))
    {
        return Err(ImportError::MissingKeyId {
            subject: own.subject_text(),
        });
    }
    Ok(())
}

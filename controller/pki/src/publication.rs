//! Where certificates and CRLs are published: the URLs that stand in certificates.

use crate::{KeyId, time::date_time};

/// The partition of a CA's CRLs that covers the certificates of its subordinates.
pub const CA_PARTITION: &str = "ca";
/// The scope of a CA's CRL about all that it has issued. It has no IDP, and no certificate names it: it is for those who want one
/// file, and for OpenSSL's `-crl_check_all`.
pub const FULL_PARTITION: &str = "full";

/// A base URL that cannot stand in certificates.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the publication base URL {url:?} cannot be used: {why}")]
pub struct PublicationError {
    /// The URL.
    pub url: String,
    /// What is wrong with it.
    pub why: &'static str,
}

/// Under which URL a CA's certificate, CRLs and OCSP answers are published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publication {
    base: String,
    ocsp: bool,
}

impl Publication {
    /// A base URL such as `http://pki.example.com` or one with a path; a final slash is dropped. Plain HTTP is what RFC
    /// 5280, 8 recommends, as TLS would need a revocation check of its own.
    pub fn new(base_url: &str) -> Result<Self, PublicationError> {
        let refuse = |why| {
            Err(PublicationError {
                url: base_url.to_owned(),
                why,
            })
        };
        let base = base_url.trim_end_matches('/');
        let Some(rest) = base.strip_prefix("http://").or_else(|| base.strip_prefix("https://")) else {
            return refuse("it must begin with http:// or https://");
        };
        if rest.is_empty() || rest.starts_with('/') {
            return refuse("it has no host");
        }
        if base.len() > 256 {
            return refuse("it is longer than 256 bytes");
        }
        if !rest
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-._~:/[]%".contains(&b))
        {
            return refuse("only host, port and path are allowed, in ASCII");
        }
        Ok(Self {
            base: base.to_owned(),
            ocsp: false,
        })
    }

    /// Puts the OCSP URL into certificates, too.
    #[must_use]
    pub const fn with_ocsp(mut self) -> Self {
        self.ocsp = true;
        self
    }

    /// The CRL distribution point of one partition: `<base>/crl/<issuer key id>/<partition>.crl`.
    pub fn crl_url(&self, issuer: &KeyId, partition: &str) -> String {
        format!("{}/crl/{issuer}/{partition}.crl", self.base)
    }

    /// The issuer's certificate (AIA `caIssuers`): `<base>/ca/<issuer key id>.cer`.
    pub fn ca_issuers_url(&self, issuer: &KeyId) -> String {
        format!("{}/ca/{issuer}.cer", self.base)
    }

    /// The OCSP responder, when certificates name one: `<base>/ocsp/<issuer key id>`.
    pub fn ocsp_url(&self, issuer: &KeyId) -> Option<String> {
        self.ocsp.then(|| format!("{}/ocsp/{issuer}", self.base))
    }
}

/// The CRL partition of a leaf: the UTC month of its end, as `YYYY-MM`. A partition dies with its last certificate.
pub fn partition_of(not_after: i64) -> String {
    let end = date_time(not_after);
    format!("{:04}-{:02}", end.year(), u8::from(end.month()))
}

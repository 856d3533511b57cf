//! Reading requests (RFC 6960, 4.1).

use super::{Failure, HashAlgorithm, IssuerId, NONCE};
use crate::{
    Serial,
    asn1::{
        Extension, INTEGER, Malformed, NULL, OBJECT_IDENTIFIER, OCTET_STRING, Reader, SEQUENCE, constructed, nested,
        small_integer, tlv, unsigned_integer,
    },
};

/// The largest request that is looked at, in bytes of DER. One certificate takes some 80 bytes, or 120 with SHA-256.
pub const MAX_REQUEST_BYTES: usize = 8 * 1024;
/// The most certificates that one request may ask about.
pub const MAX_CERT_IDS: usize = 32;
/// The longest nonce that is echoed (RFC 9654, 2.1).
pub const MAX_NONCE_BYTES: usize = 128;

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Longer than [`MAX_REQUEST_BYTES`].
    #[error("the request has {0} bytes; at most {MAX_REQUEST_BYTES} are read")]
    TooLarge(usize),
    /// Not a DER `OCSPRequest`.
    #[error("not a DER OCSP request: {0}")]
    Malformed(&'static str),
    /// No certificate, or more than [`MAX_CERT_IDS`].
    #[error("the request must ask about 1 to {MAX_CERT_IDS} certificates")]
    Count,
    /// A nonce that is not 1 to [`MAX_NONCE_BYTES`] long (RFC 9654, 2.1).
    #[error("the nonce has {0} bytes; 1 to {MAX_NONCE_BYTES} are allowed")]
    Nonce(usize),
    /// A critical extension that is not known (RFC 6960, 4.4).
    #[error("the request has a critical extension that is not known")]
    CriticalExtension,
}

impl RequestError {
    /// A short name from a closed set, for metric labels.
    pub const fn category(&self) -> &'static str {
        match self {
            Self::TooLarge(_) => "too-large",
            Self::Malformed(_) => "malformed",
            Self::Count => "count",
            Self::Nonce(_) => "nonce",
            Self::CriticalExtension => "critical-extension",
        }
    }

    /// What the client is told.
    pub const fn failure(&self) -> Failure {
        Failure::MalformedRequest
    }
}

impl From<Malformed> for RequestError {
    fn from(Malformed(why): Malformed) -> Self {
        Self::Malformed(why)
    }
}

/// A certificate that is asked about.
#[derive(Debug, Clone, Copy)]
pub struct CertId<'a> {
    /// The DER `CertID` as it was sent; the answer repeats it.
    pub der: &'a [u8],
    /// The hash that the issuer is named by; `None` for one that is not known.
    pub algorithm: Option<HashAlgorithm>,
    /// The hash of the issuer's DER name.
    pub issuer_name_hash: &'a [u8],
    /// The hash of the bits of the issuer's public key.
    pub issuer_key_hash: &'a [u8],
    /// The serial number; `None` for one that no certificate of RFC 5280 has, of which nothing can be known.
    pub serial: Option<Serial>,
}

/// A well-formed request.
#[derive(Debug, Clone)]
pub struct OcspRequest<'a> {
    cert_ids: Vec<CertId<'a>>,
    nonce: Option<&'a [u8]>,
}

impl<'a> OcspRequest<'a> {
    /// Reads a DER request. The requestor's name and signature, if any, are passed over: answers are for everybody.
    pub fn parse(der: &'a [u8]) -> Result<Self, RequestError> {
        if der.len() > MAX_REQUEST_BYTES {
            return Err(RequestError::TooLarge(der.len()));
        }
        let mut outer = Reader::new(der);
        let mut request = Reader::new(outer.expect(SEQUENCE)?);
        outer.finish()?;
        let mut tbs = Reader::new(request.expect(SEQUENCE)?);
        request.optional(constructed(0))?;
        request.finish()?;

        if let Some(version) = tbs.optional(constructed(0))? {
            // v1 is the default and must not be encoded in DER; some clients do all the same.
            let mut version = Reader::new(version);
            if small_integer(&mut version)? != 0 {
                return Err(RequestError::Malformed("another version than 1"));
            }
            version.finish()?;
        }
        tbs.optional(constructed(1))?;
        let cert_ids = read_list(tbs.expect(SEQUENCE)?)?;
        let nonce = match tbs.optional(constructed(2))? {
            Some(extensions) => read_extensions(extensions)?,
            None => None,
        };
        tbs.finish()?;
        Ok(Self { cert_ids, nonce })
    }

    /// The certificates that are asked about, at least one.
    pub fn cert_ids(&self) -> &[CertId<'a>] {
        &self.cert_ids
    }

    /// The nonce, of 1 to [`MAX_NONCE_BYTES`], when there is one.
    pub const fn nonce(&self) -> Option<&'a [u8]> {
        self.nonce
    }

    /// Which of these issuers every certificate of the request is of. `None`: some are of another, and as an answer is
    /// signed for one CA, the request is refused whole with [`Failure::Unauthorized`] (RFC 9919, 3.2.3).
    pub fn issuer<'i>(&self, issuers: impl IntoIterator<Item = &'i IssuerId>) -> Option<usize> {
        issuers
            .into_iter()
            .position(|issuer| self.cert_ids.iter().all(|id| issuer.is_named_by(id)))
    }

    /// The DER `CertID` of a request whose answer is good for everybody: one certificate, no nonce. It is what such an
    /// answer is remembered by; see [`IssuerId::cert_id`].
    pub fn reusable(&self) -> Option<&'a [u8]> {
        match (self.cert_ids.as_slice(), self.nonce) {
            ([only], None) => Some(only.der),
            _ => None,
        }
    }
}

/// The DER request about one certificate ([`IssuerId::cert_id`](super::IssuerId::cert_id)), unsigned and without a nonce.
pub fn ask(cert_id: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(cert_id.len() + 16);
    nested(&mut out, SEQUENCE, |out| {
        nested(out, SEQUENCE, |out| {
            nested(out, SEQUENCE, |out| tlv(out, SEQUENCE, cert_id));
        });
    });
    out
}

fn read_list(content: &[u8]) -> Result<Vec<CertId<'_>>, RequestError> {
    let mut list = Reader::new(content);
    let mut cert_ids = Vec::with_capacity(1);
    while !list.is_empty() {
        if cert_ids.len() == MAX_CERT_IDS {
            return Err(RequestError::Count);
        }
        let mut single = Reader::new(list.expect(SEQUENCE)?);
        let id = single.any()?;
        if id.tag != SEQUENCE {
            return Err(RequestError::Malformed("a CertID is no SEQUENCE"));
        }
        if let Some(extensions) = single.optional(constructed(0))? {
            // None is known here (a nonce is not one of a single request), so only harmless ones pass.
            each_extension(extensions, |extension| refuse_critical(&extension))?;
        }
        single.finish()?;
        cert_ids.push(read_cert_id(id.whole, id.content)?);
    }
    if cert_ids.is_empty() {
        return Err(RequestError::Count);
    }
    Ok(cert_ids)
}

fn read_cert_id<'a>(der: &'a [u8], content: &'a [u8]) -> Result<CertId<'a>, RequestError> {
    let mut fields = Reader::new(content);
    let mut algorithm = Reader::new(fields.expect(SEQUENCE)?);
    let oid = algorithm.expect(OBJECT_IDENTIFIER)?;
    // RFC 5754, 2: parameters are absent or NULL. Anything else would let a client make any number of names for the same
    // certificate, each to be signed and remembered.
    if algorithm.optional(NULL)?.is_some_and(|null| !null.is_empty()) {
        return Err(RequestError::Malformed("NULL with content"));
    }
    algorithm.finish()?;
    let issuer_name_hash = fields.expect(OCTET_STRING)?;
    let issuer_key_hash = fields.expect(OCTET_STRING)?;
    let serial = unsigned_integer(fields.expect(INTEGER)?)?;
    fields.finish()?;
    Ok(CertId {
        der,
        algorithm: HashAlgorithm::from_oid(oid),
        issuer_name_hash,
        issuer_key_hash,
        serial: serial.and_then(|magnitude| Serial::from_bytes(magnitude).ok()),
    })
}

/// The nonce among the extensions of a request.
fn read_extensions(content: &[u8]) -> Result<Option<&[u8]>, RequestError> {
    let mut nonce = None;
    each_extension(content, |extension| {
        if extension.id != NONCE {
            return refuse_critical(&extension);
        }
        let mut value = Reader::new(extension.value);
        let octets = value.expect(OCTET_STRING)?;
        value.finish()?;
        if !(1..=MAX_NONCE_BYTES).contains(&octets.len()) {
            return Err(RequestError::Nonce(octets.len()));
        }
        match nonce.replace(octets) {
            None => Ok(()),
            Some(_) => Err(RequestError::Malformed("two nonces")),
        }
    })?;
    Ok(nonce)
}

fn each_extension<'a>(
    content: &'a [u8],
    mut act: impl FnMut(Extension<'a>) -> Result<(), RequestError>,
) -> Result<(), RequestError> {
    let mut list = Reader::new(content);
    let mut extensions = Reader::new(list.expect(SEQUENCE)?);
    list.finish()?;
    while !extensions.is_empty() {
        act(Extension::read(&mut extensions)?)?;
    }
    Ok(())
}

const fn refuse_critical(extension: &Extension<'_>) -> Result<(), RequestError> {
    if extension.critical {
        Err(RequestError::CriticalExtension)
    } else {
        Ok(())
    }
}

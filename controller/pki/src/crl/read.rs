//! Reading CRLs (RFC 5280, 5.1) that come from a server or a file.

use super::{
    Listed, MAX_CRL_BYTES, Mark, Reason,
    extensions::{Extensions, Refused},
};
use crate::{
    ParseError, Serial,
    asn1::{
        ENUMERATED, Extension, INTEGER, Malformed, Reader, SEQUENCE, constructed, read_generalized_time, read_time,
        unsigned_integer,
    },
    certificate::Parsed,
    signature::Signed,
};

/// Why a CRL is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CrlReadError {
    /// Longer than [`MAX_CRL_BYTES`].
    #[error("the CRL has {0} bytes; at most {MAX_CRL_BYTES} are read")]
    TooLarge(usize),
    /// Not a DER CRL: damaged, cut short, or something else.
    #[error("not a DER CRL: {0}")]
    Malformed(&'static str),
    /// A CRL that says something that is not understood and must not be passed over.
    #[error("the CRL has {0}")]
    Unsupported(&'static str),
    /// The issuer's certificate cannot be read.
    #[error("the issuer's certificate: {0}")]
    Issuer(#[from] ParseError),
    /// A CRL that is not this issuer's.
    #[error("the CRL is not by this CA: {0}")]
    Foreign(&'static str),
}

impl CrlReadError {
    /// A short name from a closed set, for metric labels.
    pub const fn category(&self) -> &'static str {
        match self {
            Self::TooLarge(_) => "too-large",
            Self::Malformed(_) => "malformed",
            Self::Unsupported(_) => "unsupported",
            Self::Issuer(error) => error.category(),
            Self::Foreign(_) => "foreign",
        }
    }
}

impl From<Malformed> for CrlReadError {
    fn from(Malformed(why): Malformed) -> Self {
        Self::Malformed(why)
    }
}

impl From<Refused> for CrlReadError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Malformed(error) => error.into(),
            Refused::Unsupported(what) => Self::Unsupported(what),
        }
    }
}

/// A CRL that is well-formed to its last entry. Nothing is copied; the entries are gone through where they are.
#[derive(Clone, Copy)]
pub struct Crl<'a> {
    signed: Signed<'a>,
    issuer: &'a [u8],
    this_update: i64,
    next_update: i64,
    entries: &'a [u8],
    count: usize,
    number: u64,
    extensions: Extensions<'a>,
}

impl<'a> Crl<'a> {
    /// Reads a DER CRL of version 2 with CRL number and `nextUpdate`, which RFC 5280 demands of issuers. The signature is
    /// looked at by [`verify`](Self::verify) only.
    pub fn parse(der: &'a [u8]) -> Result<Self, CrlReadError> {
        if der.len() > MAX_CRL_BYTES {
            return Err(CrlReadError::TooLarge(der.len()));
        }
        let mut outer = Reader::new(der);
        let mut parts = Reader::new(outer.expect(SEQUENCE)?);
        outer.finish()?;
        let body = parts.any()?;
        let algorithm = parts.any()?.whole;

        let mut whole = Reader::new(body.whole);
        let mut tbs = Reader::new(whole.expect(SEQUENCE)?);
        if tbs.expect(INTEGER)? != [1] {
            return Err(CrlReadError::Unsupported("another version than 2"));
        }
        if tbs.any()?.whole != algorithm {
            return Err(CrlReadError::Malformed("two signature algorithms"));
        }
        let issuer = tbs.any()?;
        if issuer.tag != SEQUENCE {
            return Err(CrlReadError::Malformed("the issuer is not a name"));
        }
        let this_update = read_time(&mut tbs)?;
        let next_update = read_time(&mut tbs)?;
        let entries = tbs.optional(SEQUENCE)?;
        let extensions = Extensions::read(tbs.expect(constructed(0))?)?;
        tbs.finish()?;

        // An empty list must be absent (5.1.2.6).
        if entries.is_some_and(<[u8]>::is_empty) {
            return Err(CrlReadError::Malformed("an empty list of entries"));
        }
        let entries = entries.unwrap_or_default();
        let mut reader = Reader::new(entries);
        let mut count = 0;
        while !reader.is_empty() {
            let entry = read_entry(&mut reader)?;
            if entry.mark == Mark::Removed && extensions.base.is_none() {
                return Err(CrlReadError::Malformed("a removal in a complete CRL"));
            }
            count += 1;
        }
        Ok(Self {
            signed: Signed::from_der(der).map_err(|_| CrlReadError::Malformed("its signature is damaged"))?,
            issuer: issuer.whole,
            this_update,
            next_update,
            entries,
            count,
            number: extensions.number.ok_or(CrlReadError::Unsupported("no CRL number"))?,
            extensions,
        })
    }

    /// Checks that the CRL is by the CA with this DER certificate: name, key identifier, key usage and signature
    /// (RFC 5280, 6.3.3, f and g). The certificate itself is taken as trusted; dates and number are the caller's to judge.
    pub fn verify(&self, issuer: &[u8]) -> Result<(), CrlReadError> {
        let issuer = Parsed::from_der(issuer)?;
        if issuer.subject != self.issuer {
            return Err(CrlReadError::Foreign("another name"));
        }
        let key_id = issuer.key_id();
        if self
            .extensions
            .authority_key_id
            .is_some_and(|id| id != key_id.as_bytes())
        {
            return Err(CrlReadError::Foreign("another key identifier"));
        }
        if issuer.key_usage.is_some_and(|usage| !usage.crl_sign()) {
            return Err(CrlReadError::Foreign("the CA lacks the key usage cRLSign"));
        }
        if self.signed.is_signed_by(&issuer.public_key) {
            Ok(())
        } else {
            Err(CrlReadError::Foreign("another key has signed it"))
        }
    }

    /// When it was made, Unix seconds.
    pub const fn this_update(&self) -> i64 {
        self.this_update
    }

    /// By when the next one is there, Unix seconds. Relying parties refuse the CRL afterwards.
    pub const fn next_update(&self) -> i64 {
        self.next_update
    }

    /// The CRL number.
    pub const fn number(&self) -> u64 {
        self.number
    }

    /// The number of the complete CRL that this one is a delta to; `None` when it is complete itself.
    pub const fn base(&self) -> Option<u64> {
        self.extensions.base
    }

    /// The URL of the scope in the IDP; `None` when it covers all that its CA has issued.
    pub const fn scope_url(&self) -> Option<&'a str> {
        self.extensions.scope_url
    }

    /// Where delta CRLs are, when there are any.
    pub const fn freshest(&self) -> Option<&'a str> {
        self.extensions.freshest
    }

    /// The key identifier of the issuer in the AKI, as bytes.
    pub const fn authority_key_id(&self) -> Option<&'a [u8]> {
        self.extensions.authority_key_id
    }

    /// How many entries there are.
    pub const fn len(&self) -> usize {
        self.count
    }

    /// Whether nothing is revoked.
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The entries, in the order of the list. A search goes through all of them.
    pub const fn entries(&self) -> Entries<'a> {
        Entries {
            rest: Reader::new(self.entries),
            left: self.count,
        }
    }
}

impl std::fmt::Debug for Crl<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Crl")
            .field("number", &self.number)
            .field("this_update", &self.this_update)
            .field("next_update", &self.next_update)
            .field("entries", &self.count)
            .finish_non_exhaustive()
    }
}

/// The entries of a CRL.
#[derive(Debug, Clone)]
pub struct Entries<'a> {
    rest: Reader<'a>,
    left: usize,
}

impl Iterator for Entries<'_> {
    type Item = Listed;

    fn next(&mut self) -> Option<Listed> {
        // Every entry was read once before, so none fails here.
        let entry = read_entry(&mut self.rest).ok()?;
        self.left = self.left.saturating_sub(1);
        Some(entry)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Entries<'_> {}

fn read_entry(reader: &mut Reader<'_>) -> Result<Listed, CrlReadError> {
    let mut fields = Reader::new(reader.expect(SEQUENCE)?);
    let serial = unsigned_integer(fields.expect(INTEGER)?)?
        .and_then(|magnitude| Serial::from_bytes(magnitude).ok())
        .ok_or(CrlReadError::Malformed(
            "a serial number is not 1 to 20 bytes above zero",
        ))?;
    let at = read_time(&mut fields)?;
    let said = match fields.optional(SEQUENCE)? {
        Some(extensions) => Said::read(extensions)?,
        None => Said::default(),
    };
    fields.finish()?;
    Ok(Listed {
        serial,
        at,
        mark: said.mark.unwrap_or(Mark::Revoked(Reason::Unspecified)),
        invalid_since: said.invalid_since,
    })
}

/// What the extensions of an entry say (5.3).
#[derive(Default)]
struct Said {
    mark: Option<Mark>,
    invalid_since: Option<i64>,
}

impl Said {
    /// An entry with a critical extension that is not understood makes the whole CRL unusable.
    fn read(extensions: &[u8]) -> Result<Self, CrlReadError> {
        const REASON_CODE: &[u8] = &[0x55, 0x1d, 0x15];
        const INVALIDITY_DATE: &[u8] = &[0x55, 0x1d, 0x18];
        let mut extensions = Reader::new(extensions);
        let mut said = Self::default();
        while !extensions.is_empty() {
            let extension = Extension::read(&mut extensions)?;
            let mut value = Reader::new(extension.value);
            let again = match extension.id {
                REASON_CODE => {
                    let found = match value.expect(ENUMERATED)? {
                        [code] => Mark::from_code(*code),
                        _ => None,
                    };
                    let found = found.ok_or(CrlReadError::Unsupported("a reason that is not known"))?;
                    said.mark.replace(found).is_some()
                }
                INVALIDITY_DATE => {
                    let since = read_generalized_time(&mut value)?;
                    said.invalid_since.replace(since).is_some()
                }
                _ if extension.critical => {
                    return Err(CrlReadError::Unsupported(
                        "an entry with a critical extension that is not known",
                    ));
                }
                _ => continue,
            };
            value.finish()?;
            if again {
                return Err(CrlReadError::Malformed("an entry has an extension twice"));
            }
        }
        Ok(said)
    }
}

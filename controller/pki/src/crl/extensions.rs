//! The extensions of CRLs (RFC 5280, 5.2).

use crate::{
    KeyId,
    asn1::{Extension, Malformed, Reader, SEQUENCE, constructed, context, nested, small_integer, tlv, unsigned},
};

pub(super) const AUTHORITY_KEY_IDENTIFIER: &[u8] = &[0x55, 0x1d, 0x23];
pub(super) const CRL_NUMBER: &[u8] = &[0x55, 0x1d, 0x14];
pub(super) const DELTA_CRL_INDICATOR: &[u8] = &[0x55, 0x1d, 0x1b];
pub(super) const ISSUING_DISTRIBUTION_POINT: &[u8] = &[0x55, 0x1d, 0x1c];
pub(super) const FRESHEST_CRL: &[u8] = &[0x55, 0x1d, 0x2e];

/// AKI with the key identifier only (5.2.1).
pub(super) fn write_authority_key_id(out: &mut Vec<u8>, id: &KeyId) {
    Extension::write(out, AUTHORITY_KEY_IDENTIFIER, false, |out| {
        nested(out, SEQUENCE, |out| tlv(out, context(0), id.as_bytes()));
    });
}

/// CRL number (5.2.3).
pub(super) fn write_number(out: &mut Vec<u8>, number: u64) {
    Extension::write(out, CRL_NUMBER, false, |out| unsigned(out, number));
}

/// Delta CRL indicator, critical (5.2.4).
pub(super) fn write_base(out: &mut Vec<u8>, base: u64) {
    Extension::write(out, DELTA_CRL_INDICATOR, true, |out| unsigned(out, base));
}

/// Issuing distribution point, critical, of one URL and with no further restriction (5.2.5).
pub(super) fn write_scope(out: &mut Vec<u8>, url: &str) {
    Extension::write(out, ISSUING_DISTRIBUTION_POINT, true, |out| {
        nested(out, SEQUENCE, |out| write_full_name(out, url));
    });
}

/// Freshest CRL: where the delta CRLs of a complete one are (5.2.6).
pub(super) fn write_freshest(out: &mut Vec<u8>, url: &str) {
    Extension::write(out, FRESHEST_CRL, false, |out| {
        nested(out, SEQUENCE, |out| {
            nested(out, SEQUENCE, |out| write_full_name(out, url));
        });
    });
}

/// `distributionPoint [0] { fullName [0] { uniformResourceIdentifier [6] } }`
fn write_full_name(out: &mut Vec<u8>, url: &str) {
    nested(out, constructed(0), |out| {
        nested(out, constructed(0), |out| tlv(out, context(6), url.as_bytes()));
    });
}

/// What the extensions of a CRL say.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Extensions<'a> {
    pub(super) authority_key_id: Option<&'a [u8]>,
    pub(super) number: Option<u64>,
    pub(super) base: Option<u64>,
    pub(super) scope_url: Option<&'a str>,
    pub(super) freshest: Option<&'a str>,
}

/// Why extensions are not taken.
pub(super) enum Refused {
    Malformed(Malformed),
    Unsupported(&'static str),
}

impl From<Malformed> for Refused {
    fn from(error: Malformed) -> Self {
        Self::Malformed(error)
    }
}

impl<'a> Extensions<'a> {
    /// Reads the content of `crlExtensions`. A CRL with a critical extension that is not understood, or with a scope that is
    /// cut down further than by its URL, must not be used (5.2).
    pub(super) fn read(content: &'a [u8]) -> Result<Self, Refused> {
        let mut list = Reader::new(content);
        let mut extensions = Reader::new(list.expect(SEQUENCE)?);
        list.finish()?;
        let mut read = Self::default();
        while !extensions.is_empty() {
            let extension = Extension::read(&mut extensions)?;
            let mut value = Reader::new(extension.value);
            match extension.id {
                AUTHORITY_KEY_IDENTIFIER => {
                    let mut fields = Reader::new(value.expect(SEQUENCE)?);
                    let id = fields.optional(context(0))?;
                    set(&mut read.authority_key_id, id.unwrap_or_default())?;
                }
                CRL_NUMBER => set(&mut read.number, small_integer(&mut value)?)?,
                DELTA_CRL_INDICATOR => set(&mut read.base, small_integer(&mut value)?)?,
                ISSUING_DISTRIBUTION_POINT => {
                    let mut fields = Reader::new(value.expect(SEQUENCE)?);
                    if fields.peek() != Some(constructed(0)) {
                        return Err(Refused::Unsupported("an IDP without a distribution point"));
                    }
                    set(&mut read.scope_url, read_full_name(&mut fields)?)?;
                    if !fields.is_empty() {
                        return Err(Refused::Unsupported("an IDP with further restrictions"));
                    }
                }
                FRESHEST_CRL => {
                    let mut points = Reader::new(value.expect(SEQUENCE)?);
                    let mut point = Reader::new(points.expect(SEQUENCE)?);
                    set(&mut read.freshest, read_full_name(&mut point)?)?;
                }
                _ if extension.critical => {
                    return Err(Refused::Unsupported("a critical extension that is not known"));
                }
                _ => continue,
            }
            value.finish()?;
        }
        Ok(read)
    }
}

fn set<T>(place: &mut Option<T>, value: T) -> Result<(), Malformed> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(Malformed("an extension is there twice")),
    }
}

/// The only URL of a distribution point.
fn read_full_name<'a>(reader: &mut Reader<'a>) -> Result<&'a str, Refused> {
    let mut point = Reader::new(reader.expect(constructed(0))?);
    if point.peek() != Some(constructed(0)) {
        return Err(Refused::Unsupported("a distribution point without a full name"));
    }
    let mut names = Reader::new(point.expect(constructed(0))?);
    point.finish()?;
    let name = names.any()?;
    if name.tag != context(6) || !names.is_empty() {
        return Err(Refused::Unsupported(
            "a distribution point with other names than one URL",
        ));
    }
    std::str::from_utf8(name.content)
        .ok()
        .filter(|url| url.is_ascii())
        .ok_or(Refused::Malformed(Malformed("a URL is not in ASCII")))
}

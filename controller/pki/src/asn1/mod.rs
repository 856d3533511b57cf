//! As much DER (X.690) as CRLs and OCSP need, for lists of a million entries and answers by the ten thousand: written
//! into one buffer, read from borrowed bytes without allocating, and never a panic whatever is read.

mod read;
mod time;
mod write;

pub(crate) use read::{Malformed, Reader, Tlv, small_integer, unsigned_integer};
pub(crate) use time::{certificate_time, generalized_time, read_generalized_time, read_time};
pub(crate) use write::{Header, magnitude, nested, tlv, unsigned};

pub(crate) const BOOLEAN: u8 = 0x01;
pub(crate) const INTEGER: u8 = 0x02;
pub(crate) const BIT_STRING: u8 = 0x03;
pub(crate) const OCTET_STRING: u8 = 0x04;
pub(crate) const NULL: u8 = 0x05;
pub(crate) const OBJECT_IDENTIFIER: u8 = 0x06;
pub(crate) const ENUMERATED: u8 = 0x0a;
pub(crate) const UTC_TIME: u8 = 0x17;
pub(crate) const GENERALIZED_TIME: u8 = 0x18;
pub(crate) const SEQUENCE: u8 = 0x30;

/// The tag `[number]`, primitive.
pub(crate) const fn context(number: u8) -> u8 {
    0x80 | number
}

/// The tag `[number]`, constructed.
pub(crate) const fn constructed(number: u8) -> u8 {
    0xa0 | number
}

/// An extension (RFC 5280, 4.1.2.9) as it stands in CRLs, their entries and OCSP requests.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Extension<'a> {
    /// The content of its object identifier.
    pub(crate) id: &'a [u8],
    pub(crate) critical: bool,
    /// The content of `extnValue`.
    pub(crate) value: &'a [u8],
}

impl<'a> Extension<'a> {
    pub(crate) fn read(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        let mut fields = Reader::new(reader.expect(SEQUENCE)?);
        let id = fields.expect(OBJECT_IDENTIFIER)?;
        let critical = match fields.optional(BOOLEAN)? {
            Some([0xff]) => true,
            // An encoded default is not DER, yet some OCSP clients send it; it says the same.
            None | Some([0]) => false,
            Some(_) => return Err(Malformed("a BOOLEAN is neither true nor false")),
        };
        let value = fields.expect(OCTET_STRING)?;
        fields.finish()?;
        Ok(Self { id, critical, value })
    }

    pub(crate) fn write(out: &mut Vec<u8>, id: &[u8], critical: bool, value: impl FnOnce(&mut Vec<u8>)) {
        nested(out, SEQUENCE, |out| {
            tlv(out, OBJECT_IDENTIFIER, id);
            if critical {
                tlv(out, BOOLEAN, &[0xff]);
            }
            nested(out, OCTET_STRING, value);
        });
    }
}

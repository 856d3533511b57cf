//! Reading DER.

use super::INTEGER;

/// Bytes that are not the DER that was expected, with what is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed(pub(crate) &'static str);

/// One element: its tag, its content, and both with the length in between.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tlv<'a> {
    pub(crate) tag: u8,
    pub(crate) content: &'a [u8],
    pub(crate) whole: &'a [u8],
}

/// Takes elements from the front of borrowed bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The tag of the next element.
    pub(crate) fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    /// The next element, whatever it is: a tag below 31, and a length in the shortest definite form (X.690, 10.1).
    pub(crate) fn any(&mut self) -> Result<Tlv<'a>, Malformed> {
        const CUT_SHORT: Malformed = Malformed("it is cut short");
        let (&tag, &first) = self.rest.first().zip(self.rest.get(1)).ok_or(CUT_SHORT)?;
        if tag & 0x1f == 0x1f {
            return Err(Malformed("a tag of several bytes"));
        }
        let (header, length) = match first {
            0..=0x7f => (2, usize::from(first)),
            0x81..=0x84 => {
                let digits = usize::from(first & 0x7f);
                let bytes = self.rest.get(2..2 + digits).ok_or(CUT_SHORT)?;
                let length = bytes.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
                if bytes[0] == 0 || length < 0x80 {
                    return Err(Malformed("a length is not in its shortest form"));
                }
                (2 + digits, usize::try_from(length).map_err(|_| CUT_SHORT)?)
            }
            _ => return Err(Malformed("a length is indefinite or beyond 4 GiB")),
        };
        let end = header.checked_add(length).ok_or(CUT_SHORT)?;
        let (whole, rest) = self.rest.split_at_checked(end).ok_or(CUT_SHORT)?;
        self.rest = rest;
        Ok(Tlv {
            tag,
            content: &whole[header..],
            whole,
        })
    }

    /// The content of the next element, which must have this tag.
    pub(crate) fn expect(&mut self, tag: u8) -> Result<&'a [u8], Malformed> {
        let next = self.any()?;
        if next.tag == tag {
            Ok(next.content)
        } else {
            Err(Malformed("an element is of another type than it must be"))
        }
    }

    /// The content of the next element when it has this tag; else nothing is taken.
    pub(crate) fn optional(&mut self, tag: u8) -> Result<Option<&'a [u8]>, Malformed> {
        if self.peek() == Some(tag) {
            self.expect(tag).map(Some)
        } else {
            Ok(None)
        }
    }

    /// That nothing is left.
    pub(crate) const fn finish(&self) -> Result<(), Malformed> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(Malformed("there is more than there should be"))
        }
    }
}

/// The magnitude of an INTEGER that is not negative, without its sign byte; empty for zero. `None` when it is negative.
pub(crate) fn unsigned_integer(content: &[u8]) -> Result<Option<&[u8]>, Malformed> {
    match content {
        [] => Err(Malformed("an INTEGER has no bytes")),
        [0, next, ..] if *next < 0x80 => Err(Malformed("an INTEGER is not in its shortest form")),
        [0xff, next, ..] if *next >= 0x80 => Err(Malformed("an INTEGER is not in its shortest form")),
        [first, ..] if *first >= 0x80 => Ok(None),
        [0, magnitude @ ..] | magnitude => Ok(Some(magnitude)),
    }
}

/// The next element, an INTEGER between 0 and `u64::MAX`.
pub(crate) fn small_integer(reader: &mut Reader<'_>) -> Result<u64, Malformed> {
    let magnitude = unsigned_integer(reader.expect(INTEGER)?)?.ok_or(Malformed("a number is negative"))?;
    if magnitude.len() > 8 {
        return Err(Malformed("a number is beyond 64 bits"));
    }
    Ok(magnitude.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::asn1::{OCTET_STRING, tlv, unsigned};

    #[test]
    fn lengths_of_every_form_are_read_back_and_longer_forms_refused() {
        for length in [0_usize, 1, 127, 128, 255, 256, 65_535, 65_536, 1 << 24] {
            let mut der = Vec::new();
            tlv(&mut der, OCTET_STRING, &vec![7; length]);
            let mut reader = Reader::new(&der);
            assert_eq!(reader.expect(OCTET_STRING).unwrap().len(), length);
            reader.finish().unwrap();
            if length > 0 {
                assert!(Reader::new(&der[..der.len() - 1]).any().is_err());
            }
        }
        for refused in [
            &[4, 0x81, 1, 0][..],
            &[4, 0x82, 0, 0x80],
            &[4, 0x80, 0, 0],
            &[4, 0x85, 1, 0, 0, 0, 0],
            &[0x1f, 0],
            &[4],
        ] {
            assert!(Reader::new(refused).any().is_err(), "{refused:x?}");
        }
    }

    #[test]
    fn integers_are_read_in_their_shortest_form_only() {
        for value in [0, 1, 127, 128, 255, 256, 1_790_000_000_000, u64::MAX] {
            let mut der = Vec::new();
            unsigned(&mut der, value);
            assert_eq!(small_integer(&mut Reader::new(&der)), Ok(value));
        }
        assert_eq!(unsigned_integer(&[0x80]), Ok(None));
        assert!(unsigned_integer(&[]).is_err());
        assert!(unsigned_integer(&[0, 1]).is_err());
        assert!(unsigned_integer(&[0xff, 0x80]).is_err());
        assert!(small_integer(&mut Reader::new(&[2, 9, 1, 0, 0, 0, 0, 0, 0, 0, 0])).is_err());
    }
}

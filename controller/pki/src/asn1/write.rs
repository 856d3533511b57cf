//! Writing DER.

use super::INTEGER;

/// A tag and a length in its shortest form, to be put before content that is there already.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Header {
    bytes: [u8; Self::MAX],
    used: usize,
}

impl Header {
    /// The longest header, in bytes: tag, length of the length, and as many bytes as `usize` has.
    pub(crate) const MAX: usize = 10;

    pub(crate) fn new(tag: u8, length: usize) -> Self {
        let mut bytes = [tag, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let digits = (length as u64).to_be_bytes();
        let leading = digits.iter().take_while(|digit| **digit == 0).count();
        let digits = &digits[leading..];
        let used = match digits {
            [] => 2,
            [short] if *short < 0x80 => {
                bytes[1] = *short;
                2
            }
            long => {
                // At most eight digits.
                #[allow(clippy::cast_possible_truncation)]
                let count = long.len() as u8;
                bytes[1] = 0x80 | count;
                bytes[2..2 + long.len()].copy_from_slice(long);
                2 + long.len()
            }
        };
        Self { bytes, used }
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.used]
    }
}

/// Appends an element.
pub(crate) fn tlv(out: &mut Vec<u8>, tag: u8, content: &[u8]) {
    out.extend_from_slice(Header::new(tag, content.len()).as_bytes());
    out.extend_from_slice(content);
}

/// Appends an element whose content `write` appends. For small ones: the content is moved once to make room.
pub(crate) fn nested(out: &mut Vec<u8>, tag: u8, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    write(out);
    let header = Header::new(tag, out.len() - start);
    out.splice(start..start, header.as_bytes().iter().copied());
}

/// Appends an INTEGER.
pub(crate) fn unsigned(out: &mut Vec<u8>, value: u64) {
    let bytes = value.to_be_bytes();
    let leading = bytes.iter().take_while(|byte| **byte == 0).count().min(7);
    magnitude(out, &bytes[leading..]);
}

/// Appends an INTEGER of this magnitude, which has no leading zeros and at most 126 bytes.
pub(crate) fn magnitude(out: &mut Vec<u8>, bytes: &[u8]) {
    let sign = bytes.first().is_none_or(|first| *first >= 0x80);
    out.extend_from_slice(Header::new(INTEGER, bytes.len() + usize::from(sign)).as_bytes());
    if sign {
        out.push(0);
    }
    out.extend_from_slice(bytes);
}

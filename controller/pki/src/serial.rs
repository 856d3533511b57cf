//! Serial numbers (RFC 5280, 4.1.2.2).

use std::{fmt, str::FromStr};

use crate::asn1::magnitude;

/// A certificate's serial number: positive, at most 20 bytes without a sign byte. It takes no allocation, so that a million
/// of them fit into little memory. Shown and read as the lower-case hex that [`Issued::serial`](crate::Issued::serial) is.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Serial {
    /// The magnitude, big-endian, from the front; unused bytes are zero.
    bytes: [u8; Self::MAX],
    used: u8,
}

/// Bytes or text that are no serial number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a serial number: 1 to 20 bytes in hex, above zero")]
pub struct SerialError;

impl Serial {
    /// The longest serial number, in bytes.
    pub const MAX: usize = 20;

    /// From a big-endian magnitude; leading zeros are dropped.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, SerialError> {
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        let magnitude = &bytes[zeros..];
        let used = u8::try_from(magnitude.len()).map_err(|_| SerialError)?;
        let mut serial = Self {
            bytes: [0; Self::MAX],
            used,
        };
        let place = serial.bytes.get_mut(..magnitude.len()).ok_or(SerialError)?;
        if place.is_empty() {
            return Err(SerialError);
        }
        place.copy_from_slice(magnitude);
        Ok(serial)
    }

    /// The magnitude, big-endian, without leading zeros.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.used)]
    }

    /// Appends the DER INTEGER.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        magnitude(out, self.as_bytes());
    }
}

impl FromStr for Serial {
    type Err = SerialError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // With a sign byte; nothing longer needs to be decoded. A CRL has many: none needs memory of its own.
        let mut bytes = [0; Self::MAX + 1];
        let decoded = bytes.get_mut(..text.len() / 2).ok_or(SerialError)?;
        hex::decode_to_slice(text, decoded).map_err(|_| SerialError)?;
        Self::from_bytes(decoded)
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_bytes().iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Serial({self})")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn serials_are_read_from_hex_and_shown_as_the_ledger_has_them() {
        for (text, shown) in [("01", "01"), ("00ff", "ff"), ("7F00", "7f00")] {
            assert_eq!(text.parse::<Serial>().unwrap().to_string(), shown);
        }
        assert!("ff".repeat(20).parse::<Serial>().is_ok());
        for refused in ["", "00", "0", "xy", &"ff".repeat(21), &"00".repeat(1000)] {
            assert_eq!(refused.parse::<Serial>(), Err(SerialError), "{refused}");
        }
    }

    #[test]
    fn a_high_first_bit_is_no_sign() {
        let mut der = Vec::new();
        Serial::from_bytes(&[0x80]).unwrap().write(&mut der);
        assert_eq!(der, [2, 2, 0, 0x80]);
    }
}

//! The times of X.509 and OCSP, from and to Unix seconds.

use time::{Date, Month, OffsetDateTime};

use super::{GENERALIZED_TIME, Malformed, Reader, UTC_TIME};
use crate::time::date_time;

/// An encoded time, tag and length included.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EncodedTime {
    bytes: [u8; 17],
    used: usize,
}

impl EncodedTime {
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.used]
    }
}

/// `UTCTime` through 2049, then `GeneralizedTime` (RFC 5280, 4.1.2.5 and 5.1.2.4). Times before 1950 and after 9999 are moved
/// to the nearest that there is.
pub(crate) fn certificate_time(unix: i64) -> EncodedTime {
    let at = date_time(unix);
    if at.year() > 2049 {
        return generalized(at);
    }
    let mut bytes = [UTC_TIME, 13, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, b'Z', 0, 0];
    two_digits(&mut bytes[2..4], at.year().rem_euclid(100).unsigned_abs());
    month_to_second(&mut bytes[4..14], at);
    EncodedTime { bytes, used: 15 }
}

/// `GeneralizedTime` in whole seconds, as OCSP has it (RFC 6960, 4.2.2.1).
pub(crate) fn generalized_time(unix: i64) -> EncodedTime {
    generalized(date_time(unix))
}

fn generalized(at: OffsetDateTime) -> EncodedTime {
    let mut bytes = [GENERALIZED_TIME, 15, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, b'Z'];
    let year = at.year().unsigned_abs();
    two_digits(&mut bytes[2..4], year / 100);
    two_digits(&mut bytes[4..6], year % 100);
    month_to_second(&mut bytes[6..16], at);
    EncodedTime { bytes, used: 17 }
}

fn month_to_second(out: &mut [u8], at: OffsetDateTime) {
    let parts = [u8::from(at.month()), at.day(), at.hour(), at.minute(), at.second()];
    for (place, part) in out.chunks_exact_mut(2).zip(parts) {
        two_digits(place, u32::from(part));
    }
}

/// `number` is below 100.
#[allow(clippy::cast_possible_truncation)]
fn two_digits(out: &mut [u8], number: u32) {
    out[0] = b'0' + (number / 10 % 10) as u8;
    out[1] = b'0' + (number % 10) as u8;
}

const NOT_A_TIME: Malformed = Malformed("a time is not one of RFC 5280");

/// Reads a `UTCTime` or a `GeneralizedTime`, with seconds and `Z`, as Unix seconds.
pub(crate) fn read_time(reader: &mut Reader<'_>) -> Result<i64, Malformed> {
    if reader.peek() != Some(UTC_TIME) {
        return read_generalized_time(reader);
    }
    let content = reader.expect(UTC_TIME)?;
    let (year, rest) = content.split_at_checked(2).ok_or(NOT_A_TIME)?;
    let year = number(year)?;
    seconds(if year < 50 { 2000 + year } else { 1900 + year }, rest)
}

/// Reads a `GeneralizedTime` with seconds and `Z`, as Unix seconds.
pub(crate) fn read_generalized_time(reader: &mut Reader<'_>) -> Result<i64, Malformed> {
    let (year, rest) = reader.expect(GENERALIZED_TIME)?.split_at_checked(4).ok_or(NOT_A_TIME)?;
    seconds(number(year)?, rest)
}

fn seconds(year: i32, rest: &[u8]) -> Result<i64, Malformed> {
    let Some((digits, b"Z")) = rest.split_at_checked(10) else {
        return Err(NOT_A_TIME);
    };
    let mut parts = [0_u8; 5];
    for (part, digits) in parts.iter_mut().zip(digits.chunks_exact(2)) {
        *part = u8::try_from(number(digits)?).map_err(|_| NOT_A_TIME)?;
    }
    let [month, day, hour, minute, second] = parts;
    Month::try_from(month)
        .and_then(|month| Date::from_calendar_date(year, month, day))
        .and_then(|date| date.with_hms(hour, minute, second))
        .map(|time| time.assume_utc().unix_timestamp())
        .map_err(|_| NOT_A_TIME)
}

fn number(digits: &[u8]) -> Result<i32, Malformed> {
    digits.iter().try_fold(0, |sum, digit| {
        digit
            .is_ascii_digit()
            .then(|| sum * 10 + i32::from(digit - b'0'))
            .ok_or(NOT_A_TIME)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_change_their_form_in_2050_and_are_read_back() {
        let cases: [(i64, &[u8]); 5] = [
            (1_790_000_000, b"\x17\x0d260921141320Z"),
            (951_782_399, b"\x17\x0d000228235959Z"),
            (2_524_607_999, b"\x17\x0d491231235959Z"),
            (2_524_608_000, b"\x18\x0f20500101000000Z"),
            (-631_152_000, b"\x17\x0d500101000000Z"),
        ];
        for (unix, der) in cases {
            assert_eq!(certificate_time(unix).as_bytes(), der);
            assert_eq!(read_time(&mut Reader::new(der)), Ok(unix));
            let general = generalized_time(unix);
            assert_eq!(read_generalized_time(&mut Reader::new(general.as_bytes())), Ok(unix));
        }
        assert_eq!(certificate_time(i64::MAX).as_bytes(), b"\x18\x0f99991231235959Z");
    }

    #[test]
    fn times_that_no_calendar_has_are_refused() {
        for der in [
            &b"\x17\x0d260229000000Z"[..],
            b"\x17\x0d261301000000Z",
            b"\x17\x0d260101240000Z",
            b"\x17\x0b2601010000Z",
            b"\x17\x0d26010100000-Z",
            b"\x17\x0d2601010000000",
            b"\x18\x0d260101000000Z",
            b"\x18\x1120260101000000.5Z",
            b"\x17\x00",
        ] {
            assert!(read_time(&mut Reader::new(der)).is_err(), "{der:?}");
        }
    }
}

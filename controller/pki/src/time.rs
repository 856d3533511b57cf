//! Unix seconds and the times of X.509.

use std::time::Duration;

use time::OffsetDateTime;

/// 9999-12-31T23:59:59Z, the last time a certificate can carry (RFC 5280, 4.1.2.5).
const LATEST: i64 = 253_402_300_799;
/// 1950-01-01T00:00:00Z: before that RFC 5280 knows no way to write a time in a certificate.
const EARLIEST: i64 = -631_152_000;

/// A time that a certificate can carry; times out of range are moved to the nearest that it can.
pub(crate) fn date_time(unix: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(unix.clamp(EARLIEST, LATEST)).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

/// `time + by`, not later than what a certificate can carry.
pub(crate) fn after(time: i64, by: Duration) -> i64 {
    time.saturating_add_unsigned(by.as_secs()).clamp(EARLIEST, LATEST)
}

/// `time - by`, not earlier than what a certificate can carry.
pub(crate) fn before(time: i64, by: Duration) -> i64 {
    time.saturating_sub_unsigned(by.as_secs()).clamp(EARLIEST, LATEST)
}

//! The clock, and times as Kubernetes writes them.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use crate::clock;

/// Unix seconds.
pub(super) fn now_s() -> i64 {
    now_ms().div_euclid(1000)
}

/// Unix milliseconds.
pub(super) fn now_ms() -> i64 {
    clock::now()
}

/// Unix seconds as a Kubernetes time; times out of range become the epoch.
pub(super) fn time(unix: i64) -> Time {
    Time(Timestamp::from_second(unix).unwrap_or(Timestamp::UNIX_EPOCH))
}

/// Unix milliseconds as a Kubernetes time, cut to seconds as those are.
pub(super) fn time_ms(unix_ms: i64) -> Time {
    time(unix_ms.div_euclid(1000))
}

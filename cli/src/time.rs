//! Times and lengths of time as people read them.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// A length of time in seconds, by its two largest units at most: `45s`, `3m20s`, `5h`, `12d`, as kubectl writes ages.
pub fn length(seconds: i64) -> String {
    let seconds = seconds.max(0);
    let two = |whole: i64, unit: &str, rest: i64, below: &str| {
        if rest == 0 {
            format!("{whole}{unit}")
        } else {
            format!("{whole}{unit}{rest}{below}")
        }
    };
    match seconds {
        s if s < 2 * MINUTE => format!("{s}s"),
        s if s < 10 * MINUTE => two(s / MINUTE, "m", s % MINUTE, "s"),
        s if s < 3 * HOUR => format!("{}m", s / MINUTE),
        s if s < 8 * HOUR => two(s / HOUR, "h", s % HOUR / MINUTE, "m"),
        s if s < 2 * DAY => format!("{}h", s / HOUR),
        s if s < 8 * DAY => two(s / DAY, "d", s % DAY / HOUR, "h"),
        s => format!("{}d", s / DAY),
    }
}

/// How long ago: `3m20s`; `-` where it is not known.
pub fn age(time: Option<&Time>, now: Timestamp) -> String {
    time.map_or_else(|| "-".to_owned(), |time| length(now.as_second() - time.0.as_second()))
}

/// When, from now: `in 5h`, `2d ago`; `-` where it is not known.
pub fn from_now(time: Option<&Time>, now: Timestamp) -> String {
    let Some(time) = time else { return "-".to_owned() };
    let left = time.0.as_second() - now.as_second();
    if left >= 0 {
        format!("in {}", length(left))
    } else {
        format!("{} ago", length(-left))
    }
}

/// By whole seconds, RFC 3339; `-` where it is not known.
pub fn exact(time: Option<&Time>) -> String {
    time.map_or_else(|| "-".to_owned(), |time| at(time.0))
}

/// By whole seconds, RFC 3339.
pub fn at(time: Timestamp) -> String {
    Timestamp::from_second(time.as_second()).unwrap_or(time).to_string()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn lengths_have_two_units_at_most() {
        for (seconds, text) in [
            (-5, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (200, "3m20s"),
            (3599, "59m"),
            (3 * HOUR, "3h"),
            (3 * HOUR + 61, "3h1m"),
            (47 * HOUR, "47h"),
            (2 * DAY + 3 * HOUR, "2d3h"),
            (90 * DAY, "90d"),
        ] {
            assert_eq!(length(seconds), text);
        }
    }

    #[test]
    fn what_is_past_is_told_from_what_is_to_come() {
        let now: Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
        let time = |text: &str| Time(text.parse().unwrap());
        assert_eq!(from_now(Some(&time("2026-11-21T17:00:00Z")), now), "in 5h");
        assert_eq!(from_now(Some(&time("2026-11-19T12:00:00Z")), now), "2d ago");
        assert_eq!(from_now(None, now), "-");
        assert_eq!(age(Some(&time("2026-11-21T11:59:00Z")), now), "60s");
        assert_eq!(exact(Some(&time("2026-11-21T11:59:00.5Z"))), "2026-11-21T11:59:00Z");
    }
}

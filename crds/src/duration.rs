//! Lengths of time as people write them: `5m`, `1h30m`, `90d`.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize};

/// A length of time: numbers each followed by `ms`, `s`, `m`, `h` or `d` (24 hours), summed up.
///
/// Holds the text as written, so that what a person declared is what is written back.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct Duration {
    text: String,
    #[serde(skip)]
    millis: i64,
}

/// A text that is not a [`Duration`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseDurationError(String);

impl fmt::Display for ParseDurationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is not a duration such as 5m, 24h or 90d", self.0)
    }
}

impl std::error::Error for ParseDurationError {}

impl Duration {
    /// What the API server checks as well.
    pub const PATTERN: &'static str = "^([0-9]{1,9}(ms|s|m|h|d))+$";
    /// Longest text accepted, in bytes.
    pub const MAX_LENGTH: usize = 32;

    /// Whole seconds, rounded down.
    pub fn as_secs(&self) -> i64 {
        self.millis / 1000
    }

    /// Milliseconds.
    pub fn as_millis(&self) -> i64 {
        self.millis
    }

    /// As the standard library's type.
    pub fn as_std(&self) -> std::time::Duration {
        std::time::Duration::from_millis(self.millis.unsigned_abs())
    }

    /// A duration of whole seconds, written `<n>s`.
    pub fn from_secs(secs: u32) -> Self {
        Self {
            text: format!("{secs}s"),
            millis: i64::from(secs) * 1000,
        }
    }

    pub(crate) fn minutes(n: u32) -> Self {
        Self {
            text: format!("{n}m"),
            millis: i64::from(n) * 60_000,
        }
    }

    pub(crate) fn hours(n: u32) -> Self {
        Self {
            text: format!("{n}h"),
            millis: i64::from(n) * 3_600_000,
        }
    }

    pub(crate) fn days(n: u32) -> Self {
        Self {
            text: format!("{n}d"),
            millis: i64::from(n) * 86_400_000,
        }
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Duration {
    type Err = ParseDurationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse_millis(text)
            .map(|millis| Self {
                text: text.to_owned(),
                millis,
            })
            .ok_or_else(|| ParseDurationError(text.to_owned()))
    }
}

fn parse_millis(text: &str) -> Option<i64> {
    if text.is_empty() || text.len() > Duration::MAX_LENGTH {
        return None;
    }
    let mut rest = text;
    let mut total = 0_i64;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        if digits == 0 || digits > 9 {
            return None;
        }
        let (number, tail) = rest.split_at(digits);
        let unit_len = tail.bytes().take_while(u8::is_ascii_lowercase).count();
        let (unit, tail) = tail.split_at(unit_len);
        let factor = match unit {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return None,
        };
        total = total.checked_add(number.parse::<i64>().ok()?.checked_mul(factor)?)?;
        rest = tail;
    }
    Some(total)
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Duration {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "maxLength": Self::MAX_LENGTH,
            "x-kubernetes-validations": [{
                "rule": format!("self.matches('{}')", Self::PATTERN),
                "message": "must be a duration such as 5m, 24h or 90d",
            }],
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::Duration;

    #[test]
    fn every_unit_counts_and_sums_up() {
        for (text, millis) in [
            ("0s", 0),
            ("250ms", 250),
            ("5m", 300_000),
            ("1h30m", 5_400_000),
            ("90d", 7_776_000_000),
            ("1d1h1m1s1ms", 90_061_001),
        ] {
            assert_eq!(text.parse::<Duration>().unwrap().as_millis(), millis, "{text}");
        }
        assert_eq!("1999ms".parse::<Duration>().unwrap().as_secs(), 1);
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in ["", "5", "m", "5 m", "-5m", "5w", "1.5h", "5M", "1234567890s", "5mm"] {
            assert!(text.parse::<Duration>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_text_survives_a_round_trip() {
        let read: Duration = serde_json::from_str("\"1h30m\"").unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), "\"1h30m\"");
        assert_eq!(Duration::days(90), "90d".parse().unwrap());
        assert_eq!(Duration::hours(1), "1h".parse().unwrap());
        assert_eq!(Duration::minutes(5), "5m".parse().unwrap());
    }
}

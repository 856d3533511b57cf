//! What a request for a CRL gets: pure. Conditions and ranges of RFC 9110 (12.5.3, 13, 14), as far as one body needs them.

use std::ops::Range;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::http::{HeaderMap, HeaderName, header};

/// What is to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Selected {
    /// 200.
    Whole,
    /// 206.
    Part(Range<usize>),
    /// 304.
    NotModified,
    /// 416.
    Unsatisfiable,
}

/// Whether gzip is acceptable and not worse than the plain form.
pub(super) fn takes_gzip(headers: &HeaderMap) -> bool {
    let (mut gzip, mut other, mut identity) = (None, None, None);
    let lists = headers
        .get_all(header::ACCEPT_ENCODING)
        .iter()
        .filter_map(|v| v.to_str().ok());
    for item in lists.flat_map(|list| list.split(',')) {
        let mut parts = item.split(';').map(str::trim);
        let coding = parts.next().unwrap_or_default().to_ascii_lowercase();
        let weight = parts.find_map(|p| p.strip_prefix("q=").or_else(|| p.strip_prefix("Q=")));
        let weight = weight.map_or(1.0, |q| q.parse::<f32>().unwrap_or(0.0));
        match coding.as_str() {
            "gzip" | "x-gzip" => gzip = Some(weight),
            "*" => other = Some(weight),
            "identity" => identity = Some(weight),
            _ => {}
        }
    }
    let gzip = gzip.or(other).unwrap_or(0.0);
    gzip > 0.0 && gzip >= identity.unwrap_or(0.0)
}

/// Whether a range is asked for: of the plain form only, as parts of a compressed one are of no use.
pub(super) fn asks_range(headers: &HeaderMap) -> bool {
    headers.contains_key(header::RANGE)
}

/// What to send of a body of `length` bytes with this strong entity tag (in quotes), last modified at `modified` (Unix seconds).
pub(super) fn select(headers: &HeaderMap, tag: &str, modified: i64, length: usize, now: i64) -> Selected {
    if headers.contains_key(header::IF_NONE_MATCH) {
        if has_tag(headers, tag) {
            return Selected::NotModified;
        }
    } else if text(headers, header::IF_MODIFIED_SINCE)
        .and_then(seconds)
        // One in the future was got by a clock that was ahead, and says nothing.
        .is_some_and(|since| (modified..=now).contains(&since))
    {
        return Selected::NotModified;
    }
    let Some(range) = text(headers, header::RANGE) else {
        return Selected::Whole;
    };
    if let Some(condition) = text(headers, header::IF_RANGE) {
        // Strong comparison; a date counts only when it is the very one.
        let same = condition == tag || seconds(condition) == Some(modified);
        if !same {
            return Selected::Whole;
        }
    }
    part(range, length)
}

/// Whether the client has what bears this entity tag (in quotes): `If-None-Match`, by weak comparison (RFC 9110, 13.1.2).
pub(crate) fn has_tag(headers: &HeaderMap, tag: &str) -> bool {
    let lists = headers.get_all(header::IF_NONE_MATCH).iter();
    let mut tags = lists
        .filter_map(|list| list.to_str().ok())
        .flat_map(|list| list.split(','));
    tags.any(|one| matches!(one.trim(), "*") || one.trim().trim_start_matches("W/") == tag)
}

/// One range of bytes; what is not understood, and several in one, may be ignored (RFC 9110, 14.2).
fn part(range: &str, length: usize) -> Selected {
    let Some((first, last)) = range.strip_prefix("bytes=").and_then(|spec| spec.split_once('-')) else {
        return Selected::Whole;
    };
    let number = |text: &str| match text {
        "" => Some(None),
        digits if digits.bytes().all(|b| b.is_ascii_digit()) => {
            // Beyond what can be counted is beyond the end.
            Some(Some(digits.parse::<usize>().unwrap_or(usize::MAX)))
        }
        _ => None,
    };
    match (number(first.trim()), number(last.trim())) {
        (Some(Some(first)), Some(last)) if last.is_none_or(|last| first <= last) => {
            if first >= length {
                return Selected::Unsatisfiable;
            }
            Selected::Part(first..last.map_or(length, |last| last.saturating_add(1).min(length)))
        }
        (Some(None), Some(Some(0))) => Selected::Unsatisfiable,
        (Some(None), Some(Some(suffix))) => Selected::Part(length.saturating_sub(suffix)..length),
        _ => Selected::Whole,
    }
}

/// Unix seconds as an HTTP date.
pub(crate) fn http_date(unix: i64) -> String {
    let since = Duration::from_secs(u64::try_from(unix).unwrap_or(0));
    httpdate::fmt_http_date(UNIX_EPOCH + since)
}

fn seconds(date: &str) -> Option<i64> {
    let at: SystemTime = httpdate::parse_http_date(date).ok()?;
    i64::try_from(at.duration_since(UNIX_EPOCH).ok()?.as_secs()).ok()
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use axum::http::HeaderValue;

    use super::*;

    const AT: i64 = 1_790_000_000;
    const DATE: &str = "Mon, 21 Sep 2026 14:13:20 GMT";
    const BEFORE: &str = "Mon, 21 Sep 2026 14:13:19 GMT";

    fn asked(headers: &[(HeaderName, &str)]) -> HeaderMap {
        let pair = |(name, value): &(HeaderName, &str)| (name.clone(), HeaderValue::from_str(value).unwrap());
        headers.iter().map(pair).collect()
    }

    fn selected(headers: &[(HeaderName, &str)]) -> Selected {
        select(&asked(headers), "\"5\"", AT, 100, AT + 3600)
    }

    #[test]
    fn gzip_is_for_those_who_ask_for_it() {
        for (accepts, gzip) in [
            ("gzip", true),
            ("br, GZIP;q=0.5", true),
            ("*", true),
            ("gzip;q=0", false),
            ("identity, gzip;q=0.5", false),
            ("*;q=0.1, gzip;q=0", false),
            ("br", false),
            ("gzip;q=nonsense", false),
        ] {
            assert_eq!(
                takes_gzip(&asked(&[(header::ACCEPT_ENCODING, accepts)])),
                gzip,
                "{accepts}"
            );
        }
        assert!(!takes_gzip(&HeaderMap::new()));
    }

    #[test]
    fn who_has_it_already_is_told_so() {
        use header::{IF_MODIFIED_SINCE, IF_NONE_MATCH};
        assert_eq!(http_date(AT), DATE);
        for tags in ["\"5\"", "W/\"5\"", "\"4\", \"5\"", "*"] {
            assert_eq!(selected(&[(IF_NONE_MATCH, tags)]), Selected::NotModified, "{tags}");
        }
        assert_eq!(
            selected(&[(IF_NONE_MATCH, "\"4\""), (IF_MODIFIED_SINCE, DATE)]),
            Selected::Whole
        );
        assert_eq!(selected(&[(IF_MODIFIED_SINCE, DATE)]), Selected::NotModified);
        assert_eq!(selected(&[(IF_MODIFIED_SINCE, BEFORE)]), Selected::Whole);
        assert_eq!(selected(&[(IF_MODIFIED_SINCE, "now")]), Selected::Whole);
    }

    #[test]
    fn a_range_is_cut_at_the_end_and_refused_beyond_it() {
        for (range, expected) in [
            ("bytes=0-9", Selected::Part(0..10)),
            ("bytes=90-", Selected::Part(90..100)),
            ("bytes=90-500", Selected::Part(90..100)),
            ("bytes=-10", Selected::Part(90..100)),
            ("bytes=-500", Selected::Part(0..100)),
            ("bytes=0-99999999999999999999999", Selected::Part(0..100)),
            ("bytes=100-", Selected::Unsatisfiable),
            ("bytes=-0", Selected::Unsatisfiable),
            ("bytes=9-1", Selected::Whole),
            ("bytes=0-1,5-6", Selected::Whole),
            ("bytes=-", Selected::Whole),
            ("bytes=+1-2", Selected::Whole),
            ("lines=0-1", Selected::Whole),
        ] {
            assert_eq!(selected(&[(header::RANGE, range)]), expected, "{range}");
        }
    }

    #[test]
    fn a_range_of_what_is_no_longer_there_gets_the_whole() {
        use header::{IF_RANGE, RANGE};
        for (condition, same) in [
            ("\"5\"", true),
            ("\"4\"", false),
            ("W/\"5\"", false),
            (DATE, true),
            (BEFORE, false),
        ] {
            let expected = if same { Selected::Part(0..1) } else { Selected::Whole };
            assert_eq!(
                selected(&[(RANGE, "bytes=0-0"), (IF_RANGE, condition)]),
                expected,
                "{condition}"
            );
        }
    }
}

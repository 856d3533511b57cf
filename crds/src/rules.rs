//! CEL rules with the messages that people read when `kubectl apply` refuses.
//!
//! A rule says more than a `pattern` would, and the API server checks no rule of an object whose patterns do not hold:
//! so texts that people write have rules only.

use kube::core::Rule;

/// `self` matches the regular expression, which must hold neither `'` nor `\`.
fn matches(pattern: &str, message: &str) -> Rule {
    Rule::new(format!("self.matches('{pattern}')")).message(message)
}

/// The value stays what it was when the object was created.
pub(crate) fn immutable(message: &str) -> Rule {
    Rule::new("self == oldSelf").message(message)
}

/// The fields, of which some may be absent, stay what they were. (Spelled out: the API server sets no bound to the cost
/// of comparing `self.?field`.)
pub(crate) fn unchanged(fields: &[&str], message: &str) -> Rule {
    let each = |field: &&str| {
        format!("has(self.{field}) == has(oldSelf.{field}) && (!has(self.{field}) || self.{field} == oldSelf.{field})")
    };
    Rule::new(fields.iter().map(each).collect::<Vec<_>>().join(" && ")).message(message)
}

/// Exactly one of the fields is there.
pub(crate) fn exactly_one(fields: &[&str]) -> Rule {
    let all: Vec<_> = fields.iter().map(|field| format!("has(self.{field})")).collect();
    let message = match fields {
        [first @ .., last] => format!("set exactly one of {} or {last}", first.join(", ")),
        [] => String::new(),
    };
    Rule::new(format!("[{}].filter(x, x).size() == 1", all.join(", "))).message(message.as_str())
}

/// A deviceId.
pub(crate) fn device_id() -> Rule {
    matches(
        "^[A-Za-z0-9][A-Za-z0-9._-]{0,55}$",
        "deviceId is 1 to 56 letters, digits, '.', '_' or '-' and begins with a letter or digit; names with '~' are the system's",
    )
}

/// A DNS label: a broker's id, a claim's name. Its length is the field's.
pub(crate) fn dns_label(field: &str) -> Rule {
    matches(
        "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$",
        &format!("{field} is lower-case letters, digits and '-', and begins and ends with a letter or digit"),
    )
}

/// An MQTT broker's URL.
pub(crate) fn mqtt_url(field: &str) -> Rule {
    matches(
        "^mqtts://([A-Za-z0-9._-]+|[[][0-9a-fA-F:.]+[]]):[1-9][0-9]{0,4}$",
        &format!("{field} must be mqtts://host:port, such as mqtts://mqtt.example.com:8883"),
    )
}

/// A NATS server's URL.
pub(crate) fn nats_url(field: &str) -> Rule {
    matches(
        "^tls://([A-Za-z0-9._-]+|[[][0-9a-fA-F:.]+[]]):[1-9][0-9]{0,4}$",
        &format!("{field} must be tls://host:port of the client port, such as tls://nats.example.com:4222"),
    )
}

/// A name that every device has one of.
pub(crate) fn names_the_device(field: &str) -> Rule {
    Rule::new("self.contains('{deviceId}') && !self.replace('{deviceId}', '').matches('[{}]')")
        .message(format!("{field} must hold {{deviceId}}, and nothing else in braces").as_str())
}

/// The base of the URLs that certificates carry.
pub(crate) fn base_url() -> Rule {
    matches(
        "^https?://[^/?# ]+(/[^/?# ]+)*$",
        "baseURL must be http://host or https://host, with a port and a path where needed, without '/' at the end, '?' or '#'",
    )
}

/// The base of an HTTP API that paths are appended to.
pub(crate) fn http_base_url(field: &str) -> Rule {
    matches(
        "^https?://[^/?# ]+(/[^?# ]*)?$",
        &format!(
            "{field} must be http://host or https://host, with a port and a path where needed, without '?' or '#'"
        ),
    )
}

/// A URL as it is, perhaps with a query.
pub(crate) fn http_url(field: &str) -> Rule {
    matches(
        "^https?://[^/?# ]+([/?][^# ]*)?$",
        &format!("{field} must be a URL that begins with http:// or https://"),
    )
}

/// The first part of MQTT topics.
pub(crate) fn topic_prefix() -> Rule {
    matches(
        "^[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*$",
        "topicPrefix is letters, digits, '.', '_' and '-' in levels separated by '/': no wildcards, no '/' at the ends",
    )
}

/// PEM of one kind.
pub(crate) fn pem(field: &str, label: &str) -> Rule {
    Rule::new(format!("self.contains('-----BEGIN {label}-----')"))
        .message(format!("{field} must be PEM: -----BEGIN {label}-----").as_str())
}

/// DNS names of a server, perhaps with a wildcard as the first label.
pub(crate) fn dns_names() -> Rule {
    Rule::new("self.all(name, name.matches('^([*][.])?[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?([.][A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*$'))")
        .message("dnsNames holds what is no DNS name")
}

/// IP addresses.
pub(crate) fn ip_addresses() -> Rule {
    Rule::new("self.all(address, isIP(address))").message("ipAddresses holds what is no IP address")
}

/// Templates of names: nothing in braces but what is filled in.
pub(crate) fn name_templates(field: &str) -> Rule {
    Rule::new(
        "self.all(t, !t.replace('{deviceId}', '').replace('{fleet}', '').replace('{namespace}', '').matches('[{}]'))",
    )
    .message(format!("{field} may hold {{deviceId}}, {{fleet}} and {{namespace}}, and nothing else in braces").as_str())
}

/// A text that says something.
pub(crate) fn not_blank(field: &str) -> Rule {
    matches("[^ ]", &format!("{field} must not be empty"))
}

/// The key of a device's label.
pub(crate) fn label_key(field: &str) -> Rule {
    matches(
        "^[A-Za-z0-9]([A-Za-z0-9._/-]{0,61}[A-Za-z0-9])?$",
        &format!("{field} must be the key of a device's label"),
    )
}

/// Five fields, as cron has them; the controller checks what is in them.
pub(crate) fn cron() -> Rule {
    matches(
        "^[0-9A-Za-z*,/#-]+( +[0-9A-Za-z*,/#-]+){4}$",
        "cron must have five fields: minute, hour, day of month, month, day of week, such as 0 1 * * *",
    )
}

/// What may be a name of an IANA time zone; the controller knows which there are.
pub(crate) fn time_zone() -> Rule {
    matches(
        "^[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+)*$",
        "timeZone must be an IANA name such as Europe/Berlin or UTC",
    )
}

/// Shares of waves are cumulative.
pub(crate) fn percent_rises() -> Rule {
    let shares = "self.filter(w, has(w.percent))";
    Rule::new(format!(
        "{shares}.map(w, w.percent).isSorted() && {shares}.all(w, self.exists_one(v, has(v.percent) && v.percent == w.percent))"
    ))
    .message("percent must rise from wave to wave: it is cumulative, so each wave reaches further than the one before")
}

/// The last wave leaves nobody out.
pub(crate) fn last_wave_is_the_rest() -> Rule {
    let last = "self[self.size() - 1]";
    Rule::new(format!(
        "self.size() == 0 || (has({last}.percent) && {last}.percent == 100 && \
         (!has({last}.selector) || !has({last}.selector.matchLabels) || {last}.selector.matchLabels.size() == 0))"
    ))
    .message("the last wave is the rest: it must have percent: 100 and no selector")
}

/// Who answers a compromise by going back restores what is compromised.
pub(crate) fn never_back_to_what_is_compromised() -> Rule {
    Rule::new(
        "self.reason != 'CACompromise' || ((!has(self.defaults) || self.defaults.onBreach != 'Rollback') && \
         (!has(self.waves) || self.waves.all(w, !has(w.onBreach) || w.onBreach != 'Rollback')))",
    )
    .message("onBreach cannot be Rollback with reason CACompromise: going back would restore what is compromised")
}

/// A SHA-256 that a status shows, or nothing.
pub(crate) fn hash_of(field: &str, shown: &str) -> Rule {
    matches(
        "^([0-9a-f]{64})?$",
        &format!("{field} must be the 64 hexadecimal digits of {shown}"),
    )
}

/// A hold may end, so it has no reason.
pub(crate) fn hold_or_reason() -> Rule {
    Rule::new("!self.hold || (!has(self.reason) && !has(self.since))")
        .message("hold: true goes without reason and since: a hold may be released; leave hold out to revoke for good")
}

/// What is revoked for good stays so.
pub(crate) fn never_back_to_hold() -> Rule {
    Rule::new("!self.hold || oldSelf.hold").message(
        "a revocation cannot become a hold: it is final; take it out first if the hold is for certificates that came later",
    )
}

/// Who means to release must not revoke by it.
pub(crate) fn release_or_reason() -> Rule {
    Rule::new("self.hold || !oldSelf.hold || has(self.reason)")
        .message("to release the hold take spec.revocation out as a whole; to revoke for good set a reason")
}

/// A leaf is no CA.
pub(crate) fn reason_of_a_device() -> Rule {
    Rule::new("self != 'cACompromise'").message(
        "cACompromise is for the certificate of a CA (a Revocation with certificateAuthority); of a device choose keyCompromise or superseded",
    )
}

/// A serial number as a status shows it.
pub(crate) fn serial() -> Rule {
    matches(
        "^[0-9a-f]{1,40}$",
        "serial is the number in lower-case hex, as status.certificates shows it",
    )
}

/// A duration that is not nothing.
pub(crate) fn more_than_zero() -> Rule {
    matches("[1-9]", "must be more than 0")
}

/// `renewBefore` is less than `validity`, as far as CEL can compare them: both in whole days, or neither in days, which
/// CEL's durations do not know. The controller checks the rest.
pub(crate) fn renewed_within_validity() -> Rule {
    let days = |field: &str| format!("self.{field}.matches('^[0-9]{{1,9}}d$')");
    let shorter = |field: &str| format!("self.{field}.matches('^([0-9]{{1,6}}(ms|s|m|h))+$')");
    let (validity, renew_before) = ("validity", "renewBefore");
    Rule::new(format!(
        "{} && {} ? int(self.renewBefore.replace('d', '')) < int(self.validity.replace('d', '')) : \
         !({} && {}) || duration(self.renewBefore) < duration(self.validity)",
        days(validity),
        days(renew_before),
        shorter(validity),
        shorter(renew_before),
    ))
    .message("renewBefore must be less than validity")
}

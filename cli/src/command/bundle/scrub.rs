//! Takes out what nobody meant to hand out. Pure.

use serde_json::Value;

/// What stands in place of what was taken out.
pub(super) const GONE: &str = "(taken out)";
/// Parts of field names whose values are secrets, in small letters.
const SECRET: [&str; 8] = [
    "password",
    "passwd",
    "token",
    "secret",
    "credential",
    "apikey",
    "api_key",
    "private",
];
/// Fields that only name where a secret is, or that are no secret though they sound like one.
const HARMLESS: [&str; 6] = ["ref", "name", "names", "file", "dir", "expiration"];
const BEGIN: &str = "-----BEGIN ";
const END: &str = "-----END ";

/// An object or a list of them.
pub(super) fn value(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.remove("managedFields");
            if let Some(Value::Object(annotations)) = fields.get_mut("annotations") {
                // A copy of the object as it was applied.
                annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
            }
            // A variable of an environment: whatever its name is, its value may be what a person has put there.
            if fields.contains_key("name") && fields.get("value").is_some_and(Value::is_string) {
                fields.insert("value".to_owned(), Value::from(GONE));
            }
            for (name, field) in fields.iter_mut() {
                if field.is_string() && is_secret(name) {
                    *field = Value::from(GONE);
                } else {
                    self::value(field);
                }
            }
        }
        Value::Array(items) => {
            items.iter_mut().for_each(self::value);
            after_a_switch(items);
        }
        Value::String(string) => *string = text(string),
        _ => {}
    }
}

/// `["--password", "x"]`: what comes after a switch that says that it takes a secret.
fn after_a_switch(items: &mut [Value]) {
    for at in 1..items.len() {
        let takes = items[at - 1]
            .as_str()
            .is_some_and(|switch| switch.starts_with('-') && !switch.contains('=') && is_secret(switch));
        if takes && items[at].is_string() {
            items[at] = Value::from(GONE);
        }
    }
}

fn is_secret(field: &str) -> bool {
    let small = field.to_lowercase();
    let harmless = HARMLESS.iter().any(|end| small.ends_with(end));
    !harmless && SECRET.iter().any(|part| small.contains(part))
}

/// Text, such as a log: private keys, passwords in URLs, `password=...`, bearer tokens.
pub(super) fn text(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut in_key = false;
    for line in text.split_inclusive('\n') {
        if in_key {
            in_key = !line.contains(END);
            continue;
        }
        match line.find(BEGIN) {
            Some(at) if line[at..].contains("PRIVATE KEY") => {
                in_key = !line[at + BEGIN.len()..].contains(END);
                out.push_str(&words(&line[..at]));
                out.push_str(GONE);
                out.push('\n');
            }
            _ => out.push_str(&words(line)),
        }
    }
    out
}

/// One line.
fn words(line: &str) -> String {
    tokens(&assignments(&urls(line)))
}

/// `postgres://user:password@host` without the password.
fn urls(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        out.push_str(before);
        let end = after
            .find(|c: char| c.is_whitespace() || matches!(c, '/' | '"' | '\'' | '?' | '#'))
            .unwrap_or(after.len());
        let (authority, tail) = after.split_at(end);
        match authority.rsplit_once('@') {
            Some((user, host)) => {
                let name = user.split(':').next().unwrap_or_default();
                let password = if user.contains(':') {
                    format!(":{GONE}")
                } else {
                    String::new()
                };
                out.extend([name, &password, "@", host]);
            }
            None => out.push_str(authority),
        }
        rest = tail;
    }
    out + rest
}

/// `password=x`, `password: x`, `"password":"x"` without the value.
fn assignments(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(at) = rest.find(['=', ':']) {
        let (before, after) = rest.split_at(at + 1);
        out.push_str(before);
        rest = after;
        let name_end = before[..at].trim_end_matches(['"', '\'', '\\', ' ']);
        let name_at = name_end
            .rfind(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '-')
            .map_or(0, |at| at + 1);
        if !is_secret(&name_end[name_at..]) {
            continue;
        }
        let start = rest.len() - rest.trim_start_matches(['"', '\'', '\\', ' ']).len();
        let end =
            rest[start..].find(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '\\' | ',' | '&' | ';' | '}'));
        let end = end.map_or(rest.len(), |end| start + end);
        if end > start {
            out.push_str(&rest[..start]);
            out.push_str(GONE);
            rest = &rest[end..];
        }
    }
    out + rest
}

/// `Bearer x`, and whatever looks like a signed token (JWT).
fn tokens(line: &str) -> String {
    let mut after_bearer = false;
    let mut out = String::with_capacity(line.len());
    for word in line.split_inclusive(|c: char| c.is_whitespace() || matches!(c, '"' | '\'')) {
        let bare = word.trim_end_matches(|c: char| c.is_whitespace() || matches!(c, '"' | '\''));
        let is_token = bare.starts_with("eyJ") && bare.split('.').count() == 3;
        if is_token || (after_bearer && !bare.is_empty()) {
            out.push_str(GONE);
            out.push_str(&word[bare.len()..]);
        } else {
            out.push_str(word);
        }
        after_bearer = bare.eq_ignore_ascii_case("bearer") || bare.eq_ignore_ascii_case("basic");
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn passwords_keys_and_tokens_are_taken_out_of_text() {
        let log = "ledger postgres://certwave:hunter2@db:5432/x failed\npassword=hunter2 user=bob\n\
            {\"token\":\"hunter2\",\"broker\":\"mqtt\"}\nAuthorization: Bearer hunter2\n\
            -----BEGIN EC PRIVATE KEY-----\nhunter2\n-----END EC PRIVATE KEY-----\neyJhbGciOi.hunter2.sig\nthe end\n";
        let clean = text(log);
        assert!(!clean.contains("hunter2"), "{clean}");
        for kept in [
            "postgres://certwave:",
            "@db:5432/x failed",
            "user=bob",
            "mqtt",
            "the end",
        ] {
            assert!(clean.contains(kept), "{kept}: {clean}");
        }
    }

    #[test]
    fn certificates_stay_as_support_needs_them() {
        let certificate = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
        assert_eq!(text(certificate), certificate);
    }

    #[test]
    fn an_environments_values_go_and_its_references_stay() {
        let mut pod = json!({
            "metadata": {"managedFields": [], "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "hunter2", "a": "b"}},
            "spec": {"containers": [{
                "name": "certwave",
                "args": ["--ledger", "postgres://u:hunter2@db/x", "--password", "hunter2", "--namespace", "plant"],
                "env": [{"name": "PGPASSWORD", "value": "hunter2"}, {"name": "X", "valueFrom": {"secretKeyRef": {"name": "db", "key": "p"}}}],
            }]},
            "status": {"apiToken": "hunter2", "privateKey": "hunter2", "secretName": "db"},
        });
        value(&mut pod);
        let clean = pod.to_string();
        assert!(
            !clean.contains("hunter2") && !clean.contains("managedFields"),
            "{clean}"
        );
        assert!(
            clean.contains(r#""secretKeyRef":{"key":"p","name":"db"}"#) && clean.contains(r#""secretName":"db""#),
            "{clean}"
        );
        assert!(clean.contains("plant") && clean.contains(r#""a":"b""#), "{clean}");
    }

    proptest! {
        #[test]
        fn plain_words_stay_as_they_are(text in "[a-d0-9 .,\n]{0,200}") {
            prop_assert_eq!(super::text(&text), text);
        }

        #[test]
        fn a_password_in_a_url_never_stays(
            user in "[a-z]{1,8}", password in "[A-Z0-9!]{6,12}", before in "[a-z ]{0,10}", after in "(/[a-z]{0,5})?",
        ) {
            let clean = text(&format!("{before} postgres://{user}:{password}@db{after} x"));
            prop_assert!(!clean.contains(&password), "{}", clean);
        }
    }
}

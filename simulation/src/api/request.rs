//! What a request asks for.

use http::Method;
use http::request::Parts;
use serde_json::Value;

use super::patch::Kind;
use super::store::Key;

/// See the module.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) api_version: String,
    pub(super) plural: String,
    /// Only this namespace.
    pub(super) namespace: Option<String>,
    /// Of one object.
    pub(super) key: Option<Key>,
    /// The status subresource.
    pub(super) status: bool,
    pub(super) watch: bool,
    /// The version to watch from.
    pub(super) version: Option<u64>,
    /// How long a watch lasts, seconds.
    pub(super) timeout: u64,
    pub(super) limit: usize,
    pub(super) continued: Option<String>,
    pub(super) labels: Vec<Condition>,
    pub(super) fields: Vec<Condition>,
    pub(super) patch: Option<Kind>,
    pub(super) body: Value,
}

/// One part of a selector.
#[derive(Debug, Clone)]
pub(super) struct Condition {
    pub(super) key: String,
    /// `None`: it must be there, whatever it is.
    pub(super) value: Option<String>,
    pub(super) not: bool,
}

impl Condition {
    fn all(text: &str) -> Vec<Self> {
        text.split(',').filter(|part| !part.is_empty()).map(Self::one).collect()
    }

    fn one(text: &str) -> Self {
        let (pair, not) = match (
            text.split_once("!="),
            text.split_once("==").or_else(|| text.split_once('=')),
        ) {
            (Some(pair), _) => (Some(pair), true),
            (None, pair) => (pair, false),
        };
        match pair {
            Some((key, value)) => Self {
                key: key.to_owned(),
                value: Some(value.to_owned()),
                not,
            },
            None => Self {
                key: text.trim_start_matches('!').to_owned(),
                value: None,
                not: text.starts_with('!'),
            },
        }
    }

    pub(super) fn holds(&self, found: Option<&str>) -> bool {
        let holds = match &self.value {
            Some(value) => found == Some(value),
            None => found.is_some(),
        };
        holds != self.not
    }
}

impl Asked {
    pub(super) fn of(head: &Parts, body: &[u8]) -> Self {
        let path = head.uri.path().to_owned();
        let mut segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
        let api_version = if segments.first() == Some(&"api") {
            segments
                .drain(..2.min(segments.len()))
                .next_back()
                .unwrap_or_default()
                .to_owned()
        } else {
            let named: Vec<&str> = segments.drain(..3.min(segments.len())).skip(1).collect();
            named.join("/")
        };
        let namespace = if segments.len() > 2 && segments[0] == "namespaces" {
            segments.drain(..2).next_back().map(str::to_owned)
        } else {
            None
        };
        let plural = segments.first().copied().unwrap_or_default().to_owned();
        let key = segments.get(1).map(|name| Key {
            plural: plural.clone(),
            namespace: namespace.clone().unwrap_or_default(),
            name: (*name).to_owned(),
        });
        let query: Vec<(String, String)> = head
            .uri
            .query()
            .unwrap_or_default()
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .map(|(key, value)| (decoded(key), decoded(value)))
            .collect();
        let named = |name: &str| {
            let found = query.iter().find(|(key, _)| key == name);
            found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
        };
        let content = head.headers.get("content-type").and_then(|value| value.to_str().ok());
        Self {
            method: head.method.clone(),
            status: segments.get(2) == Some(&"status"),
            api_version,
            namespace,
            plural,
            key,
            watch: matches!(named("watch"), Some("true" | "1")),
            version: named("resourceVersion").and_then(|version| version.parse().ok()),
            timeout: named("timeoutSeconds")
                .and_then(|seconds| seconds.parse().ok())
                .unwrap_or(290),
            limit: named("limit")
                .and_then(|limit| limit.parse().ok())
                .filter(|limit| *limit > 0)
                .unwrap_or(usize::MAX),
            continued: named("continue").map(str::to_owned),
            labels: Condition::all(named("labelSelector").unwrap_or_default()),
            fields: Condition::all(named("fieldSelector").unwrap_or_default()),
            patch: content.and_then(Kind::of),
            body: serde_json::from_slice(body).unwrap_or(Value::Null),
            path,
        }
    }

    /// Asks for what this replica alone has.
    pub(super) fn apart(&mut self, replica: usize) {
        let of = |namespace: &str| format!("{namespace}-{replica}");
        self.namespace = self.namespace.as_deref().map(of);
        if let Some(key) = &mut self.key {
            key.namespace = of(&key.namespace);
        }
    }

    /// Whether an object is one of those that are asked for.
    pub(super) fn selects(&self, key: &Key, object: &Value) -> bool {
        key.plural == self.plural
            && self
                .namespace
                .as_ref()
                .is_none_or(|namespace| *namespace == key.namespace)
            && self.key.as_ref().is_none_or(|wanted| wanted == key)
            && self
                .labels
                .iter()
                .all(|condition| condition.holds(object["metadata"]["labels"][&condition.key].as_str()))
            && self.fields.iter().all(|condition| {
                let pointer = format!("/{}", condition.key.replace('.', "/"));
                condition.holds(object.pointer(&pointer).and_then(Value::as_str))
            })
    }
}

/// Percent and plus signs of a query.
fn decoded(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'+' => out.push(b' '),
            b'%' => {
                let digits: String = bytes.by_ref().take(2).map(char::from).collect();
                out.push(u8::from_str_radix(&digits, 16).unwrap_or(b'?'));
            }
            other => out.push(other),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

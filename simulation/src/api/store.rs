//! Objects, their versions, and what happened to them.

use std::collections::{BTreeMap, VecDeque};

use http::Method;
use serde_json::{Value, json};

use super::patch::{self, Kind};
use super::request::Asked;

/// What events are kept for watches that are behind.
const KEPT: usize = 4096;

/// An object's place.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// Its kind's plural.
    pub plural: String,
    /// Its namespace; empty where it has none.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl Key {
    /// The place of an object in a namespace.
    pub fn new(plural: &str, namespace: &str, name: &str) -> Self {
        Self {
            plural: plural.to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }

    /// By what an object says of itself.
    pub(super) fn of(object: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let plural = match object["kind"].as_str().unwrap_or_default() {
            "CertificateAuthority" => "certificateauthorities".to_owned(),
            kind => format!("{}s", kind.to_lowercase()),
        };
        Self {
            plural,
            namespace: text(&object["metadata"]["namespace"]),
            name: text(&object["metadata"]["name"]),
        }
    }
}

/// Why something was not done.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// HTTP status.
    pub code: u16,
    reason: &'static str,
    message: String,
}

impl Refusal {
    pub(super) fn new(code: u16, message: &str) -> Self {
        let reason = match code {
            404 => "NotFound",
            409 => "Conflict",
            410 => "Expired",
            429 => "TooManyRequests",
            _ => "InternalError",
        };
        Self {
            code,
            reason,
            message: message.to_owned(),
        }
    }

    pub(super) fn not_found() -> Self {
        Self::new(404, "not found")
    }

    pub(super) fn gone() -> Self {
        Self::new(410, "too old resource version")
    }

    fn conflict() -> Self {
        Self::new(
            409,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    pub(super) fn status(&self) -> Value {
        json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": self.reason, "code": self.code,
        })
    }
}

/// Something that happened.
#[derive(Debug, Clone)]
pub(super) struct Event {
    version: u64,
    key: Key,
    pub(super) kind: &'static str,
    pub(super) object: Value,
}

/// See the module.
#[derive(Default)]
pub(super) struct Store {
    objects: BTreeMap<Key, Value>,
    events: VecDeque<Event>,
    version: u64,
    compacted: u64,
    uids: u64,
}

impl Store {
    pub(super) fn version(&self) -> u64 {
        self.version
    }

    pub(super) fn compacted(&self) -> u64 {
        self.compacted
    }

    pub(super) fn compact(&mut self) {
        self.compacted = self.version;
        self.events.clear();
    }

    pub(super) fn get(&self, key: &Key) -> Option<Value> {
        self.objects.get(key).cloned()
    }

    pub(super) fn all(&self, plural: &str) -> Vec<Value> {
        let of_kind = self.objects.iter().filter(|(key, _)| key.plural == plural);
        of_kind.map(|(_, object)| object.clone()).collect()
    }

    /// What happened after a version of what is asked for, and the version that this is as of.
    pub(super) fn after(&self, version: u64, asked: &Asked) -> Result<(u64, Vec<Event>), Refusal> {
        if version < self.compacted {
            return Err(Refusal::gone());
        }
        let begin = self.events.partition_point(|event| event.version <= version);
        let news = self
            .events
            .iter()
            .skip(begin)
            .filter(|event| asked.selects(&event.key, &event.object));
        Ok((self.version, news.cloned().collect()))
    }

    fn happened(&mut self, key: Key, kind: &'static str, mut object: Value) -> Value {
        self.version += 1;
        object["metadata"]["resourceVersion"] = Value::String(self.version.to_string());
        if kind == "DELETED" {
            self.objects.remove(&key);
        } else {
            self.objects.insert(key.clone(), object.clone());
        }
        self.events.push_back(Event {
            version: self.version,
            key,
            kind,
            object: object.clone(),
        });
        if self.events.len() > KEPT
            && let Some(first) = self.events.pop_front()
        {
            self.compacted = first.version;
        }
        object
    }

    pub(super) fn create(&mut self, key: Key, mut object: Value, now: i64) -> Result<Value, Refusal> {
        if self.objects.contains_key(&key) {
            return Err(Refusal {
                reason: "AlreadyExists",
                ..Refusal::new(409, "already exists")
            });
        }
        self.uids += 1;
        object["metadata"]["name"] = Value::String(key.name.clone());
        if !key.namespace.is_empty() {
            object["metadata"]["namespace"] = Value::String(key.namespace.clone());
        }
        object["metadata"]["uid"] = Value::String(format!("00000000-0000-4000-8000-{:012x}", self.uids));
        object["metadata"]["creationTimestamp"] = Value::String(time(now));
        object["metadata"]["generation"] = json!(1);
        if has_status(&object)
            && let Some(object) = object.as_object_mut()
        {
            object.remove("status");
        }
        Ok(self.happened(key, "ADDED", object))
    }

    /// Changes an object, or its status only, if it is at this version.
    pub(super) fn change(
        &mut self,
        key: &Key,
        status: bool,
        version: Option<&str>,
        _now: i64,
        change: impl FnOnce(&mut Value),
    ) -> Result<Value, Refusal> {
        let before = self.objects.get(key).ok_or_else(Refusal::not_found)?.clone();
        if version.is_some_and(|version| before["metadata"]["resourceVersion"].as_str() != Some(version)) {
            return Err(Refusal::conflict());
        }
        let mut after = before.clone();
        change(&mut after);
        if status {
            let mut whole = before.clone();
            whole["status"] = after["status"].take();
            after = whole;
        } else if has_status(&before)
            && let Some(object) = after.as_object_mut()
        {
            match before.get("status") {
                Some(status) => drop(object.insert("status".to_owned(), status.clone())),
                None => drop(object.remove("status")),
            }
        }
        for kept in [
            "uid",
            "creationTimestamp",
            "generation",
            "resourceVersion",
            "name",
            "namespace",
        ] {
            if let Some(value) = before["metadata"].get(kept) {
                after["metadata"][kept] = value.clone();
            }
        }
        if after == before {
            return Ok(before);
        }
        if after["spec"] != before["spec"] {
            after["metadata"]["generation"] = json!(before["metadata"]["generation"].as_i64().unwrap_or(0) + 1);
        }
        Ok(self.happened(key.clone(), "MODIFIED", after))
    }

    pub(super) fn answer(&mut self, asked: &Asked, now: i64) -> Result<(u16, Value), Refusal> {
        match (&asked.method, &asked.key) {
            // Nobody reads them back.
            (&Method::POST | &Method::PATCH, _) if asked.plural == "events" => Ok((201, asked.body.clone())),
            (&Method::GET, Some(key)) => Ok((200, self.get(key).ok_or_else(Refusal::not_found)?)),
            (&Method::GET, None) => self.list(asked),
            (&Method::POST, None) => {
                let key = Key {
                    plural: asked.plural.clone(),
                    namespace: asked.namespace.clone().unwrap_or_default(),
                    name: self.named(&asked.body),
                };
                Ok((201, self.create(key, asked.body.clone(), now)?))
            }
            (&Method::PUT, Some(key)) => {
                let version = asked.body["metadata"]["resourceVersion"].as_str();
                let body = asked.body.clone();
                Ok((
                    200,
                    self.change(key, asked.status, version, now, |object| *object = body)?,
                ))
            }
            (&Method::PATCH, Some(key)) => {
                let kind = asked.patch.unwrap_or(Kind::Merge);
                if kind == Kind::Apply && !asked.status && !self.objects.contains_key(key) {
                    return Ok((201, self.create(key.clone(), asked.body.clone(), now)?));
                }
                let version = asked.body["metadata"]["resourceVersion"].as_str();
                let changed = self.change(key, asked.status, version, now, |object| {
                    patch::patch(kind, object, &asked.body);
                });
                Ok((200, changed?))
            }
            (&Method::DELETE, Some(key)) => {
                let object = self.get(key).ok_or_else(Refusal::not_found)?;
                for condition in ["resourceVersion", "uid"] {
                    let wanted = &asked.body["preconditions"][condition];
                    if !wanted.is_null() && *wanted != object["metadata"][condition] {
                        return Err(Refusal::conflict());
                    }
                }
                Ok((200, self.happened(key.clone(), "DELETED", object)))
            }
            _ => Err(Refusal::new(405, "not simulated")),
        }
    }

    fn named(&self, body: &Value) -> String {
        if let Some(name) = body["metadata"]["name"].as_str() {
            name.to_owned()
        } else {
            let prefix = body["metadata"]["generateName"].as_str().unwrap_or("unnamed-");
            format!("{prefix}{:05x}", self.version)
        }
    }

    fn list(&self, asked: &Asked) -> Result<(u16, Value), Refusal> {
        // As of the first page: what happens later a watch from there shows, too.
        let (version, after) = match asked.continued.as_deref().and_then(|token| token.split_once(' ')) {
            Some((version, after)) => (version.parse().unwrap_or(0), Some(after)),
            None => (self.version, None),
        };
        if version < self.compacted {
            return Err(Refusal::gone());
        }
        let place = |key: &Key| format!("{}/{}", key.namespace, key.name);
        let mut found = self
            .objects
            .iter()
            .filter(|(key, object)| asked.selects(key, object))
            .filter(|(key, _)| after.is_none_or(|after| place(key).as_str() > after));
        let page: Vec<_> = found.by_ref().take(asked.limit).collect();
        let next = found
            .next()
            .and(page.last())
            .map(|(key, _)| format!("{version} {}", place(key)));
        let items: Vec<&Value> = page.iter().map(|(_, object)| *object).collect();
        Ok((
            200,
            json!({
                "apiVersion": asked.api_version, "kind": "List", "items": items,
                "metadata": { "resourceVersion": version.to_string(), "continue": next.unwrap_or_default() },
            }),
        ))
    }
}

/// Whether objects of this kind have a status of their own.
fn has_status(object: &Value) -> bool {
    object["apiVersion"]
        .as_str()
        .is_some_and(|version| version.starts_with(certwave_crds::GROUP))
}

fn time(now: i64) -> String {
    jiff::Timestamp::from_second(now / 1000).map_or_else(|_| String::new(), |time| time.to_string())
}

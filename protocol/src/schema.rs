//! A JSON Schema (draft 2020-12) for each message, from the types; the files in `docs/schemas/` are these.
//!
//! They describe what a sender of version 1 writes. A reader ignores fields that they do not name and takes codes that
//! they do not list as `other`.

use std::collections::BTreeMap;

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};

use crate::VERSION;
use crate::ids::{BrokerId, DeviceId, JobId, Nonce};
use crate::limits::{MAX_CHAIN, MAX_EPOCH};
use crate::message::{Certificate, Commit, Csr, Enrol, Hello, Job, Online, Reconnect, Rejected, Status, Tested, Type};

/// The schema of a type's payload; of `online`, of the whole message.
pub fn payload(kind: Type) -> Value {
    let mut generator = SchemaSettings::draft2020_12()
        .with(|s| s.inline_subschemas = true)
        .into_generator();
    let g = &mut generator;
    let mut schema = match kind {
        Type::Online => inline::<Online>(g),
        Type::Hello => sealed::<Hello>(g, kind, &[]),
        Type::Enrol => sealed::<Enrol>(g, kind, &["nonce"]),
        Type::Csr => sealed::<Csr>(g, kind, &["job", "nonce", "epoch"]),
        Type::Tested => sealed::<Tested>(g, kind, &["job", "nonce", "epoch"]),
        Type::Status => sealed::<Status>(g, kind, &["job", "nonce", "epoch"]),
        Type::Job => sealed::<Job>(g, kind, &["job", "nonce", "epoch"]),
        Type::Certificate => sealed::<Certificate>(g, kind, &["job", "nonce", "epoch"]),
        Type::Commit => sealed::<Commit>(g, kind, &["job", "nonce", "epoch"]),
        Type::Reconnect => sealed::<Reconnect>(g, kind, &["nonce", "epoch"]),
        Type::Rejected => sealed::<Rejected>(g, kind, &["epoch"]),
    };
    entitle(&mut schema, kind.as_str());
    schema
}

/// The schema of the JOSE header of messages up.
pub fn header_up() -> Value {
    let mut schema = header(
        "x5t#S256",
        json!({"type": "string", "pattern": "^[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]$"}),
    );
    entitle(&mut schema, "header-up");
    schema
}

/// The schema of the JOSE header of messages down.
pub fn header_down() -> Value {
    let certificate = json!({"type": "string", "pattern": "^[A-Za-z0-9+/]+={0,2}$"});
    let mut schema = header(
        "x5c",
        json!({"type": "array", "minItems": 1, "maxItems": MAX_CHAIN, "items": certificate}),
    );
    entitle(&mut schema, "header-down");
    schema
}

/// File name and content of every schema, in the order of the specification.
pub fn files() -> Vec<(String, String)> {
    let payloads = Type::ALL.into_iter().map(|kind| (kind.to_string(), payload(kind)));
    let headers = [
        ("header-up".to_owned(), header_up()),
        ("header-down".to_owned(), header_down()),
    ];
    payloads
        .chain(headers)
        .map(|(name, schema)| (format!("{name}.json"), format!("{:#}\n", sorted(schema))))
        .collect()
}

/// Fields in one order, whatever features other crates switch on in `serde_json`.
fn sorted(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let fields: BTreeMap<String, Value> = map.into_iter().map(|(k, v)| (k, sorted(v))).collect();
            Value::Object(fields.into_iter().collect())
        }
        Value::Array(items) => items.into_iter().map(sorted).collect(),
        other => other,
    }
}

fn inline<T: JsonSchema>(generator: &mut SchemaGenerator) -> Value {
    let mut schema = generator.subschema_for::<T>().to_value();
    tidy(&mut schema);
    schema
}

fn sealed<T: JsonSchema>(g: &mut SchemaGenerator, kind: Type, also: &[&str]) -> Value {
    let body = inline::<T>(g);
    let description = body.get("description").cloned().unwrap_or_default();
    let required: Vec<&str> = ["v", "broker", "device", "session", "type", "body"]
        .into_iter()
        .chain(also.iter().copied())
        .collect();
    json!({
        "description": description,
        "type": "object",
        "required": required,
        "properties": {
            "v": {"const": VERSION},
            "type": {"const": kind.as_str()},
            "broker": inline::<BrokerId>(g),
            "device": inline::<DeviceId>(g),
            "session": inline::<Nonce>(g),
            "job": inline::<JobId>(g),
            "nonce": inline::<Nonce>(g),
            "epoch": {"type": "integer", "minimum": 0, "maximum": MAX_EPOCH},
            "body": body,
        },
    })
}

fn header(signer: &str, value: Value) -> Value {
    let mut properties = Map::new();
    properties.insert("alg".into(), json!({"enum": ["ES256", "ES384", "EdDSA", "PS256"]}));
    properties.insert("typ".into(), json!({"const": crate::envelope::TYP}));
    properties.insert(signer.into(), value);
    json!({
        "type": "object",
        "required": ["alg", "typ", signer],
        "properties": properties,
        "not": {"required": ["crit"]},
    })
}

fn entitle(schema: &mut Value, name: &str) {
    if let Value::Object(map) = schema {
        map.insert("$schema".into(), "https://json-schema.org/draft/2020-12/schema".into());
        map.insert("$id".into(), format!("urn:certwave:protocol:{VERSION}:{name}").into());
        map.insert("title".into(), name.into());
    }
}

/// Descriptions come from the types' documentation: its links mean nothing outside; nor does a field that is absent
/// stand as null.
fn tidy(value: &mut Value) {
    match value {
        Value::Object(map) => {
            if let Some(Value::String(text)) = map.get_mut("description") {
                *text = text.replace("[`", "`").replace("`]", "`").replace('\n', " ");
            }
            if let Some(Value::Array(types)) = map.get_mut("type") {
                types.retain(|t| t != "null");
                if let [one] = types.as_slice() {
                    let one = one.clone();
                    map.insert("type".into(), one);
                }
            }
            if let Some(Value::Array(any)) = map.get_mut("anyOf") {
                any.retain(|s| s.get("type") != Some(&Value::from("null")));
            }
            map.values_mut().for_each(tidy);
        }
        Value::Array(items) => items.iter_mut().for_each(tidy),
        _ => {}
    }
}

//! The committed YAML, the schemas in it, the examples, and the documentation, without an API server.
#![allow(clippy::unwrap_used, clippy::panic)]

mod docs;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use certwave_crds::{
    Broker, CertificateAuthority, DeviceCertificate, Fleet, GENERATE_COMMAND, Revocation, Rotation, files, stale,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

fn here() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn the_committed_yaml_is_what_the_types_say() {
    let stale = stale(here()).unwrap();
    assert!(stale.is_empty(), "stale: {stale:?}; run `{GENERATE_COMMAND}`");

    let generated: BTreeSet<_> = files().unwrap().into_iter().map(|(name, _)| name).collect();
    let committed: BTreeSet<_> = fs::read_dir(here())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| Path::new(name).extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    assert_eq!(committed, generated, "files that no type generates");
}

#[test]
fn the_committed_reference_is_what_the_types_say() {
    let committed = fs::read_to_string(here().join("../docs/crds.md")).unwrap();
    let generated = certwave_crds::reference().unwrap();
    assert!(
        committed == generated,
        "docs/crds.md is stale; run `{GENERATE_COMMAND}`"
    );
    for field in [
        "`certificate.renewBefore`",
        "`revocation.hold`",
        "`waves[].soak`",
        "`crls[].partition`",
    ] {
        assert!(generated.contains(field), "{field} is missing");
    }
}

#[test]
fn a_file_that_was_edited_or_is_missing_is_stale() {
    let dir = tempfile::tempdir().unwrap();
    let files = files().unwrap();
    for (name, text) in &files[1..] {
        fs::write(dir.path().join(name), text).unwrap();
    }
    let edited = dir.path().join(&files[1].0);
    fs::write(&edited, files[1].1.replace("maxLength: 253", "maxLength: 254")).unwrap();
    assert_eq!(stale(dir.path()).unwrap(), [dir.path().join(&files[0].0), edited]);
}

/// Calls `check` for the schema at `path` and for all below it.
fn walk(path: &str, schema: &Value, check: &mut dyn FnMut(&str, &Value)) {
    check(path, schema);
    for (name, child) in schema["properties"].as_object().into_iter().flatten() {
        walk(&format!("{path}.{name}"), child, check);
    }
    if let Some(items) = schema.get("items") {
        walk(&format!("{path}[]"), items, check);
    }
    if let Some(values) = schema.get("additionalProperties") {
        walk(&format!("{path}{{}}"), values, check);
    }
}

/// What `complaint` says of the schemas of all kinds.
fn complaints(complaint: impl Fn(&str, &Value) -> Option<&'static str>) -> Vec<String> {
    let mut found = Vec::new();
    for crd in certwave_crds::all().unwrap() {
        let kind = crd["spec"]["names"]["kind"].as_str().unwrap();
        let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        let mut seen = 0;
        walk(kind, schema, &mut |path, schema| {
            seen += 1;
            found.extend(complaint(path, schema).map(|what| format!("{path}: {what}")));
        });
        assert!(seen > 20, "{kind}: the walk saw {seen} schemas only");
    }
    found
}

#[test]
fn every_field_is_described() {
    let undescribed = complaints(|path, schema| {
        // Items and values are described by the field that holds them, objects among them by themselves.
        let inner = path.ends_with("[]") || path.ends_with("{}");
        let description = schema["description"].as_str().unwrap_or_default();
        match description {
            "" => (!inner || schema["type"] == "object").then_some("has no description"),
            text if text.contains('\n') => Some("has line breaks in its description"),
            text => (!text.ends_with(['.', '}'])).then_some("has a description that is no sentence"),
        }
    });
    assert_eq!(undescribed, [] as [&str; 0]);
}

#[test]
fn whatever_people_or_the_controller_write_is_bounded() {
    let unbounded = complaints(|_, schema| match schema["type"].as_str() {
        Some("string") => {
            let bounded = schema["maxLength"].is_u64() || schema["enum"].is_array() || schema["format"] == "date-time";
            (!bounded).then_some("a text without maxLength")
        }
        Some("integer") => (!schema["minimum"].is_i64()).then_some("a number without minimum"),
        Some("array") if !schema["maxItems"].is_u64() => Some("a list without maxItems"),
        Some("array") if !schema["x-kubernetes-list-type"].is_string() => Some("a list without x-kubernetes-list-type"),
        Some("object") if schema.get("additionalProperties").is_some() => {
            (!schema["maxProperties"].is_u64()).then_some("a map without maxProperties")
        }
        Some("object" | "array" | "boolean" | "number") => None,
        _ => Some("a schema without a type"),
    });
    assert_eq!(unbounded, [] as [&str; 0]);
}

#[test]
fn every_column_shows_a_field_that_there_is() {
    for crd in certwave_crds::all().unwrap() {
        let version = &crd["spec"]["versions"][0];
        for column in version["additionalPrinterColumns"].as_array().unwrap() {
            let path = column["jsonPath"].as_str().unwrap();
            // Every object has metadata; a condition is found in a list.
            if path.starts_with(".metadata.") || path.contains('[') {
                continue;
            }
            let mut schema = &version["schema"]["openAPIV3Schema"];
            for field in path.trim_start_matches('.').split('.') {
                schema = &schema["properties"][field];
            }
            assert_eq!(schema["type"], column["type"], "{}: {path}", crd["metadata"]["name"]);
        }
    }
}

#[test]
fn nothing_that_people_write_is_a_word_that_yaml_reads_as_something_else() {
    // YAML 1.1, which kubectl reads, makes a boolean even of a field that is called `on`.
    let words = ["y", "n", "yes", "no", "on", "off", "true", "false", "null", "~"];
    let read_otherwise = |text: &str| words.contains(&text.to_lowercase().as_str());
    let taken = complaints(|path, schema| {
        let name = path.rsplit('.').next().unwrap_or_default();
        let mut choices = schema["enum"].as_array().into_iter().flatten();
        let people_write_it = path.contains(".spec");
        (people_write_it && (read_otherwise(name) || choices.any(|choice| choice.as_str().is_some_and(read_otherwise))))
            .then_some("is a word of YAML's own")
    });
    assert_eq!(taken, [] as [&str; 0]);
}

#[test]
fn every_rule_says_what_is_wrong() {
    let mute = complaints(|_, schema| {
        let mut rules = schema["x-kubernetes-validations"].as_array().into_iter().flatten();
        let pattern = schema
            .get("pattern")
            .map(|_| "a pattern, whose message says too little: use a rule");
        rules
            .any(|rule| rule["message"].as_str().is_none_or(str::is_empty))
            .then_some("a rule without a message")
            .or(pattern)
    });
    assert_eq!(mute, [] as [&str; 0]);
}

/// Every object of every file in `docs/examples`, with the file's path.
fn examples() -> Vec<(PathBuf, Value)> {
    let dir = here().join("../docs/examples");
    let mut examples = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        // Beside them lie directories with configurations of brokers.
        if path.is_dir() {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let objects: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
        examples.extend(objects.into_iter().map(|object| (path.clone(), object)));
    }
    examples
}

/// The object as its type reads and writes it.
fn through<T: DeserializeOwned + Serialize>(object: &Value) -> Value {
    let typed: T = serde_json::from_value(object.clone()).unwrap_or_else(|error| panic!("{error}: {object}"));
    serde_json::to_value(typed).unwrap()
}

/// Whether everything in `part` is in `whole` with the same value.
fn holds(whole: &Value, part: &Value) -> bool {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => part
            .iter()
            .all(|(key, value)| whole.get(key).is_some_and(|found| holds(found, value))),
        (Value::Array(whole), Value::Array(part)) => {
            whole.len() == part.len() && whole.iter().zip(part).all(|(whole, part)| holds(whole, part))
        }
        _ => whole == part,
    }
}

/// Checks that its type knows every field of the object, and answers its kind.
fn known(path: &Path, object: &Value) -> String {
    let kind = object["kind"].as_str().unwrap().to_owned();
    let typed = match kind.as_str() {
        "CertificateAuthority" => through::<CertificateAuthority>(object),
        "Broker" => through::<Broker>(object),
        "Fleet" => through::<Fleet>(object),
        "DeviceCertificate" => through::<DeviceCertificate>(object),
        "Rotation" => through::<Rotation>(object),
        "Revocation" => through::<Revocation>(object),
        other => panic!("{}: {other} is not ours", path.display()),
    };
    assert!(holds(&typed, object), "{}: {object}\nbecame {typed}", path.display());
    kind
}

#[test]
fn the_examples_show_every_kind_and_no_field_that_the_types_do_not_know() {
    let kinds: BTreeSet<_> = examples().iter().map(|(path, object)| known(path, object)).collect();
    assert_eq!(kinds.len(), 6, "{kinds:?}");
}

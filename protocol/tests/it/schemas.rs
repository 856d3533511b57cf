//! The JSON Schemas: written, valid, and true to the messages.

use std::path::{Path, PathBuf};

use certwave_protocol::ids::Nonce;
use certwave_protocol::message::{Online, Type};
use certwave_protocol::schema;
use serde_json::{Value, json};

use crate::envelope::{MATERIAL, header_and_payload};
use crate::samples::By;

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/schemas")
}

fn accepts(schema: &Value, value: &Value) -> bool {
    jsonschema::validator_for(schema).unwrap().is_valid(value)
}

#[test]
fn the_files_are_what_the_types_say() {
    let files = schema::files();
    for (name, expected) in &files {
        let found = std::fs::read_to_string(directory().join(name)).unwrap_or_default();
        assert!(
            found == *expected,
            "docs/schemas/{name} is stale: cargo run -p certwave-protocol --bin protocol-schemas"
        );
    }
    let present = std::fs::read_dir(directory()).unwrap().count();
    assert_eq!(
        present,
        files.len(),
        "docs/schemas/ holds a file that belongs to no message"
    );
}

#[test]
fn each_message_is_valid_by_its_own_schema_and_by_no_other() {
    let schemas: Vec<(Type, Value)> = Type::ALL.map(|kind| (kind, schema::payload(kind))).into();
    for (_, schema) in &schemas {
        jsonschema::meta::validate(schema).unwrap();
    }
    for sample in MATERIAL.samples() {
        let (header, payload) = header_and_payload(&MATERIAL.seal(&sample));
        for (kind, schema) in &schemas {
            assert_eq!(
                accepts(schema, &payload),
                *kind == sample.payload.body.kind(),
                "{} by {kind}",
                sample.name
            );
        }
        assert_eq!(accepts(&schema::header_up(), &header), sample.by != By::Control);
        assert_eq!(accepts(&schema::header_down(), &header), sample.by == By::Control);
    }
}

#[test]
fn the_birth_is_valid_and_as_specified() {
    let online = Online {
        v: 1,
        online: true,
        session: Nonce([0x0a; 16]),
    };
    let value = serde_json::to_value(&online).unwrap();
    let page = std::fs::read_to_string(directory().join("../protocol.md")).unwrap();
    assert!(
        page.contains(&serde_json::to_string(&online).unwrap()),
        "the page shows it"
    );
    assert!(accepts(&schema::payload(Type::Online), &value));
    assert!(!accepts(
        &schema::payload(Type::Online),
        &json!({"v": 1, "online": 1, "session": "x"})
    ));
}

type Edit = fn(&mut Value);

#[test]
fn a_schema_refuses_what_the_reader_refuses() {
    let (_, job) =
        header_and_payload(&MATERIAL.seal(MATERIAL.samples().iter().find(|s| s.name == "job-rotate").unwrap()));
    let schema = schema::payload(Type::Job);
    assert!(accepts(&schema, &job));
    let edits: [Edit; 9] = [
        |j| j["v"] = json!(2),
        |j| j["device"] = json!("~controller"),
        |j| j["broker"] = json!("Plant"),
        |j| j["session"] = json!("short"),
        |j| j["epoch"] = json!(-1),
        |j| drop(j.as_object_mut().unwrap().remove("nonce")),
        |j| j["body"]["algorithms"] = json!([]),
        |j| j["body"]["kind"] = json!("rollback"),
        |j| j["body"]["attempt"] = json!(null),
    ];
    for (i, edit) in edits.iter().enumerate() {
        let mut bad = job.clone();
        edit(&mut bad);
        assert!(!accepts(&schema, &bad), "edit {i}");
    }
}

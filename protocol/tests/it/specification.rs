//! `docs/protocol.md` shows what the code does: its generated parts are compared, or written by `CERTWAVE_UPDATE=1`.
//!
//! A generated part stands between `<!-- generated: <what> -->` and `<!-- end -->`.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use certwave_protocol::code::Code;
use certwave_protocol::control::{CONTROL_EKU_DER, CONTROL_EKU_OID};
use certwave_protocol::ids::Fingerprint;
use certwave_protocol::limits::{
    MAX_AGENT, MAX_ALERT, MAX_ALGORITHMS, MAX_ANCHORS, MAX_CHAIN, MAX_DETAIL, MAX_EPOCH, MAX_NAME, MAX_TEXT,
};
use certwave_protocol::message::{Der, Type};
use certwave_protocol::{MAX_MESSAGE, P256_BUDGET, schema};

use crate::envelope::header_and_payload;
use crate::vectors::{VECTORS, updating};

const BEGIN: &str = "<!-- generated: ";
const END: &str = "<!-- end -->";

fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/protocol.md")
}

fn page() -> String {
    std::fs::read_to_string(path()).unwrap()
}

/// The page with every generated part as it must be, and the names of those parts.
fn generated(page: &str) -> (String, Vec<String>) {
    let (mut out, mut names, mut rest) = (String::new(), Vec::new(), page);
    while let Some((before, after)) = rest.split_once(BEGIN) {
        let (name, after) = after.split_once(" -->").unwrap();
        let (_, after) = after.split_once(END).unwrap();
        write!(out, "{before}{BEGIN}{name} -->\n{}\n{END}", part(name)).unwrap();
        names.push(name.to_owned());
        rest = after;
    }
    (out + rest, names)
}

fn part(name: &str) -> String {
    match name {
        "keys" => keys(),
        "header up" => header("csr"),
        "header down" => header("commit"),
        "envelopes" => envelopes(),
        sample => payload(sample),
    }
}

fn payload(name: &str) -> String {
    let samples = VECTORS.material.samples();
    let sample = samples
        .iter()
        .find(|s| s.name == name)
        .unwrap_or_else(|| panic!("no sample {name}"));
    format!(
        "`{}`\n\n```json\n{}\n```",
        sample.topic,
        serde_json::to_string_pretty(&sample.payload).unwrap()
    )
}

fn header(name: &str) -> String {
    let vector = VECTORS.messages.iter().find(|v| v.name == name).unwrap();
    let (header, _) = header_and_payload(vector.envelope.as_bytes());
    format!("```json\n{}\n```", serde_json::to_string_pretty(&header).unwrap())
}

fn keys() -> String {
    let m = &VECTORS.material;
    let mut out = String::new();
    let mut add = |what: &str, der: &[u8]| {
        write!(out, "{what}:\n\n```text\n{}\n```\n\n", STANDARD.encode(der)).unwrap();
    };
    add(
        "Root certificate, the only anchor of the device's first trust bundle",
        m.root.as_ref(),
    );
    add(
        "A second root certificate, which the trust job adds",
        m.next_root.as_ref(),
    );
    add("Intermediate certificate", m.issuing.as_ref());
    for (name, leaf) in [
        ("Control", &m.control),
        ("Claim", &m.claim),
        ("Slot A: the first", &m.a),
        ("Slot B: the second", &m.b),
    ] {
        add(&format!("{name} certificate"), leaf.der.as_ref());
        add("Its private key (PKCS#8)", &leaf.pkcs8);
    }
    let hash = |what: &str, der: &Der| format!("| {what} | `{}` |\n", Fingerprint::of(der.as_ref()));
    let bundles = [
        ("bundle of the root", Fingerprint::of_bundle([&m.root])),
        ("bundle of both roots", Fingerprint::of_bundle([&m.root, &m.next_root])),
    ];
    out += "| SHA-256 of | |\n|---|---|\n";
    for (what, der) in [
        ("root", &m.root),
        ("second root", &m.next_root),
        ("claim certificate", &m.claim.der),
        ("certificate in slot A", &m.a.der),
        ("certificate in slot B", &m.b.der),
    ] {
        out += &hash(what, der);
    }
    for (what, fingerprint) in bundles {
        writeln!(out, "| {what} | `{fingerprint}` |").unwrap();
    }
    out.trim_end().to_owned()
}

fn envelopes() -> String {
    let all = VECTORS
        .messages
        .iter()
        .zip(VECTORS.material.samples())
        .map(|(vector, sample)| {
            let by = format!("{:?}", sample.by).to_lowercase();
            format!(
                "`{}`, signed by {by}, on `{}`:\n\n```text\n{}\n```",
                vector.name, vector.topic, vector.envelope
            )
        });
    all.collect::<Vec<_>>().join("\n\n")
}

#[test]
fn the_examples_are_the_vectors_and_each_is_shown() {
    let page = page();
    let (wanted, shown) = generated(&page);
    if updating() {
        std::fs::write(path(), &wanted).unwrap();
    } else {
        assert!(
            page == wanted,
            "docs/protocol.md is stale: CERTWAVE_UPDATE=1 cargo test -p certwave-protocol"
        );
    }
    for sample in VECTORS.material.samples() {
        assert!(
            shown.iter().any(|name| name == sample.name),
            "no example of {}",
            sample.name
        );
    }
}

#[test]
fn every_code_and_every_type_is_explained() {
    let page = page();
    let schema = schema::payload(Type::Rejected);
    let codes = schema
        .pointer("/properties/body/properties/code/oneOf")
        .and_then(|v| v.as_array())
        .unwrap();
    assert!(codes.len() > 30);
    for code in codes {
        let name = code["const"].as_str().unwrap();
        assert_eq!(name.parse::<Code>().unwrap().as_str(), name);
        assert!(page.contains(&format!("| `{name}` |")), "no row for code {name}");
    }
    for kind in Type::ALL {
        assert!(page.contains(&format!("### `{kind}`")), "no section for {kind}");
        assert!(
            page.contains(&format!("schemas/{kind}.json")),
            "no link to the schema of {kind}"
        );
    }
}

#[test]
fn the_limits_are_the_codes() {
    let page = page();
    for (what, value) in [
        ("message", MAX_MESSAGE as u64),
        ("message with P-256 keys and one intermediate", P256_BUDGET as u64),
        ("`agent`", MAX_AGENT as u64),
        ("`detail`", MAX_DETAIL as u64),
        ("`alert`", MAX_ALERT as u64),
        ("`message`", MAX_TEXT as u64),
        ("`job_state`, each of `algorithms`", MAX_NAME as u64),
        ("`algorithms`", MAX_ALGORITHMS as u64),
        ("`anchors`", MAX_ANCHORS as u64),
        ("`chain`, `x5c`", MAX_CHAIN as u64),
        ("`epoch`", MAX_EPOCH),
    ] {
        assert!(
            page.contains(&format!("| {what} | {value} ")),
            "the limit of {what} is {value}"
        );
    }
    let oid: Vec<String> = CONTROL_EKU_OID.iter().map(ToString::to_string).collect();
    assert!(page.contains(&oid.join(".")));
    let bytes: Vec<String> = CONTROL_EKU_DER.iter().map(|b| format!("{b:02x}")).collect();
    assert!(page.contains(&bytes.join(" ")));
}

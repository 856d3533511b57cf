//! What is no envelope, or bears too much or too little.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use certwave_protocol::MAX_MESSAGE;
use certwave_protocol::code::Code;
use certwave_protocol::envelope::{EnvelopeError, Unverified};
use certwave_protocol::message::Body;
use serde_json::{Value, json};

use super::{MATERIAL, change, header_and_payload, open, sample};
use crate::samples::By;

#[test]
fn what_is_not_an_envelope_is_malformed() {
    let good = String::from_utf8(MATERIAL.seal(&sample("tested"))).unwrap();
    let parts: Vec<&str> = good.split('.').collect();
    let (h, p, s) = (parts[0], parts[1], parts[2]);
    let empty = URL_SAFE_NO_PAD.encode("");
    for bad in [
        String::new(),
        "{}".into(),
        "..".into(),
        format!("{h}.{p}"),
        format!("{h}.{p}.{s}.{s}"),
        format!("{h}..{s}"),
        format!("{h}.{p}.{s}="),
        format!("{h}.{p}.{s}\n"),
        format!(" {h}.{p}.{s}"),
        format!("{h}.{}.{s}", p.replace(|c: char| c.is_ascii_uppercase(), "+")),
        format!("{empty}.{p}.{s}"),
        format!("{p}.{h}.{s}"),
    ] {
        assert_eq!(
            Unverified::parse(bad.as_bytes()).unwrap_err().code(),
            Code::Malformed,
            "{bad}"
        );
    }
    assert_eq!(
        Unverified::parse(&[0xff, b'.', 0xfe, b'.', 0x00]).unwrap_err().code(),
        Code::Malformed
    );
}

#[test]
fn a_field_must_not_appear_twice() {
    let sample = sample("job-rotate");
    let (header, payload) = header_and_payload(&MATERIAL.seal(&sample));
    let (header, payload) = (header.to_string(), payload.to_string());
    let seal = |header: &str, payload: &str| {
        let covered = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
        let signature = MATERIAL.control.key.sign(covered.as_bytes());
        format!("{covered}.{}", URL_SAFE_NO_PAD.encode(signature))
    };
    assert!(open(seal(&header, &payload).as_bytes(), By::Control).is_ok());
    for twice in [
        r#""v":1,"#,
        r#""type":"job","#,
        r#""broker":"plant-1","#,
        r#""epoch":1,"#,
        r#""body":{},"#,
    ] {
        let message = seal(&header, &payload.replacen('{', &format!("{{{twice}"), 1));
        assert_eq!(
            Unverified::parse(message.as_bytes()).unwrap_err().code(),
            Code::Malformed,
            "{twice}"
        );
    }
    let message = seal(&header.replacen('{', r#"{"alg":"ES256","#, 1), &payload);
    assert_eq!(
        Unverified::parse(message.as_bytes()).unwrap_err().code(),
        Code::Malformed
    );
}

#[test]
fn a_wrong_header_is_malformed() {
    type Edit = fn(&mut Value);
    let both: [Edit; 6] = [
        |h| h["typ"] = "JWT".into(),
        |h| h["typ"] = json!(null),
        |h| h["crit"] = json!(["b64"]),
        |h| h["crit"] = json!(null),
        |h| h["alg"] = json!(256),
        |h| *h = json!([]),
    ];
    let up: [Edit; 3] = [
        |h| h["x5t#S256"] = "AAAA".into(),
        |h| h["x5t#S256"] = json!(null),
        |h| h["x5c"] = json!(["AAAA"]),
    ];
    let down: [Edit; 5] = [
        |h| h["x5c"] = json!([]),
        |h| h["x5c"] = vec!["AA=="; 6].into(),
        |h| h["x5c"] = json!(["AAAA", "*"]),
        |h| h["x5c"] = json!(["AA"]),
        |h| *h = json!({"alg": "ES256", "typ": "certwave+jws", "x5t#S256": "A".repeat(43)}),
    ];
    for (name, edits) in [("csr", &both[..]), ("csr", &up), ("commit", &both), ("commit", &down)] {
        for (i, edit) in edits.iter().enumerate() {
            let error = Unverified::parse(&change(name, |h, _| edit(h))).unwrap_err();
            assert_eq!(error.code(), Code::Malformed, "{name}, edit {i}: {error}");
        }
    }
}

#[test]
fn each_field_has_its_limits() {
    type Edit = fn(&mut Value);
    let cases: &[(&str, Edit, Edit)] = &[
        (
            "hello",
            |p| p["body"]["agent"] = "ä".repeat(64).into(),
            |p| p["body"]["agent"] = "ä".repeat(65).into(),
        ),
        (
            "hello",
            |p| p["body"]["alert"] = "x".repeat(64).into(),
            |p| p["body"]["alert"] = "x".repeat(65).into(),
        ),
        (
            "accepted",
            |p| p["body"]["detail"] = "x".repeat(256).into(),
            |p| p["body"]["detail"] = "x".repeat(257).into(),
        ),
        (
            "accepted",
            |p| p["body"]["alert"] = "x".repeat(64).into(),
            |p| p["body"]["alert"] = "x".repeat(65).into(),
        ),
        (
            "rejected",
            |p| p["body"]["message"] = "x".repeat(256).into(),
            |p| p["body"]["message"] = "x".repeat(257).into(),
        ),
        (
            "rejected",
            |p| p["body"]["job_state"] = "x".repeat(32).into(),
            |p| p["body"]["job_state"] = "x".repeat(33).into(),
        ),
        (
            "job-rotate",
            |p| p["body"]["algorithms"] = vec!["x"; 8].into(),
            |p| p["body"]["algorithms"] = vec!["x"; 9].into(),
        ),
        (
            "job-rotate",
            |p| p["body"]["algorithms"] = json!(["x"]),
            |p| p["body"]["algorithms"] = json!([]),
        ),
        (
            "certificate",
            |p| p["body"]["chain"] = vec!["AA=="; 5].into(),
            |p| p["body"]["chain"] = vec!["AA=="; 6].into(),
        ),
        (
            "certificate",
            |p| p["body"]["chain"] = json!([]),
            |p| p["body"]["leaf"] = "".into(),
        ),
        ("csr", |_| {}, |p| p["body"]["csr"] = "".into()),
        ("job-trust", |_| {}, |p| p["body"]["bundle"] = "00".repeat(32).into()),
        ("job-trust", |_| {}, |p| p["body"]["anchors"] = vec!["AA=="; 17].into()),
        (
            "commit",
            |p| p["epoch"] = json!(9_007_199_254_740_991_u64),
            |p| p["epoch"] = json!(9_007_199_254_740_992_u64),
        ),
    ];
    for (i, (name, good, bad)) in cases.iter().enumerate() {
        assert!(
            Unverified::parse(&change(name, |_, p| good(p))).is_ok(),
            "{name}, case {i}"
        );
        let error = Unverified::parse(&change(name, |_, p| bad(p))).unwrap_err();
        assert_eq!(error.code(), Code::Malformed, "{name}, case {i}: {error}");
    }
}

#[test]
fn each_type_bears_what_ties_it_to_its_job() {
    for sample in MATERIAL.samples() {
        for field in ["v", "broker", "device", "session", "type", "body"] {
            let message = change(sample.name, |_, p| drop(p.as_object_mut().unwrap().remove(field)));
            assert_eq!(
                Unverified::parse(&message).unwrap_err().code(),
                Code::Malformed,
                "{} {field}",
                sample.name
            );
        }
        let rejected = matches!(sample.payload.body, Body::Rejected(_));
        for field in ["job", "nonce", "epoch"] {
            let message = change(sample.name, |_, p| drop(p.as_object_mut().unwrap().remove(field)));
            let (_, before) = header_and_payload(&MATERIAL.seal(&sample));
            let optional = before.get(field).is_none() || (rejected && field != "epoch");
            assert_eq!(Unverified::parse(&message).is_ok(), optional, "{} {field}", sample.name);
        }
    }
}

#[test]
fn too_large_is_said_without_reading() {
    let error = Unverified::parse(&vec![b'.'; MAX_MESSAGE + 1]).unwrap_err();
    assert_eq!(error, EnvelopeError::TooLarge(MAX_MESSAGE + 1));
    assert_eq!(
        Unverified::parse(&vec![b'A'; MAX_MESSAGE]).unwrap_err().code(),
        Code::Malformed
    );
}

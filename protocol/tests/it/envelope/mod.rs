//! What an envelope must be, and which refusal each wrong one gets.

mod malformed;
mod signatures;

use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use certwave_protocol::MAX_MESSAGE;
use certwave_protocol::code::Code;
use certwave_protocol::envelope::{EnvelopeError, Unverified, claimed_session};
use certwave_protocol::jws::{SigningKey, VerifyingKey};
use certwave_protocol::message::{Body, Payload, Task};
use serde_json::{Value, json};

use crate::samples::{By, Material, Sample};

pub(crate) static MATERIAL: LazyLock<Material> = LazyLock::new(|| Material::new("plant-1", "pump-0042", "line-7"));

fn sample(name: &str) -> Sample {
    MATERIAL.samples().into_iter().find(|s| s.name == name).unwrap()
}

pub(crate) fn key_of(by: By) -> &'static VerifyingKey {
    MATERIAL.key(by).public_key()
}

/// Signs header and payload as they are, however wrong.
pub(crate) fn forge(header: &Value, payload: &Value, key: &SigningKey) -> Vec<u8> {
    let part = |v: &Value| URL_SAFE_NO_PAD.encode(v.to_string());
    let covered = format!("{}.{}", part(header), part(payload));
    let signature = URL_SAFE_NO_PAD.encode(key.sign(covered.as_bytes()));
    format!("{covered}.{signature}").into_bytes()
}

pub(crate) fn header_and_payload(message: &[u8]) -> (Value, Value) {
    let text = std::str::from_utf8(message).unwrap();
    let mut parts = text.split('.').map(|p| URL_SAFE_NO_PAD.decode(p).unwrap());
    let mut json = || serde_json::from_slice(&parts.next().unwrap()).unwrap();
    (json(), json())
}

fn change(name: &str, edit: impl FnOnce(&mut Value, &mut Value)) -> Vec<u8> {
    let sample = sample(name);
    let (mut header, mut payload) = header_and_payload(&MATERIAL.seal(&sample));
    edit(&mut header, &mut payload);
    forge(&header, &payload, MATERIAL.key(sample.by))
}

fn open(message: &[u8], by: By) -> Result<Payload, EnvelopeError> {
    Unverified::parse(message)?.verify(key_of(by))
}

#[test]
fn every_message_comes_back_as_it_was() {
    for sample in MATERIAL.samples() {
        let unverified = Unverified::parse(&MATERIAL.seal(&sample)).unwrap();
        assert_eq!(unverified.claimed(), &sample.payload);
        match sample.by {
            By::Control => {
                assert_eq!(
                    (unverified.signer(), unverified.x5c()),
                    (None, MATERIAL.x5c().as_slice())
                );
            }
            By::Claim => assert_eq!(unverified.signer(), Some(MATERIAL.claim.fingerprint())),
            By::A => assert_eq!(unverified.signer(), Some(MATERIAL.a.fingerprint())),
            By::B => assert_eq!(unverified.signer(), Some(MATERIAL.b.fingerprint())),
        }
        assert_eq!(unverified.verify(key_of(sample.by)), Ok(sample.payload));
    }
}

#[test]
fn unknown_fields_are_ignored_wherever_they_stand() {
    for sample in MATERIAL.samples() {
        let message = change(sample.name, |header, payload| {
            for place in [header, payload] {
                place["zzz"] = json!({"v": 9, "type": "x"});
            }
        });
        assert_eq!(
            open(&message, sample.by).as_ref(),
            Ok(&sample.payload),
            "{}",
            sample.name
        );
        let message = change(sample.name, |_, payload| payload["body"]["zzz"] = json!([null]));
        assert_eq!(open(&message, sample.by), Ok(sample.payload), "{}", sample.name);
    }
}

#[test]
fn an_unknown_version_is_named_before_anything_else_is_looked_at() {
    for v in [0_u64, 2, u64::MAX] {
        for payload in [
            json!({"v": v}),
            json!({"v": v, "type": "job", "broker": 7}),
            json!({"v": v, "type": []}),
        ] {
            let message = change("hello", |_, p| *p = payload);
            assert_eq!(
                Unverified::parse(&message).unwrap_err(),
                EnvelopeError::UnsupportedVersion(v)
            );
        }
    }
    for v in [json!("1"), json!(-1), json!(1.5), json!(null), json!([1])] {
        let message = change("hello", |_, p| p["v"] = v);
        assert_eq!(Unverified::parse(&message).unwrap_err().code(), Code::Malformed);
    }
}

#[test]
fn a_message_of_an_unknown_version_can_be_answered() {
    let sample = sample("hello");
    let message = change("hello", |_, p| {
        *p = json!({"v": 2, "session": p["session"], "kind": "new"});
    });
    assert!(Unverified::parse(&message).is_err());
    assert_eq!(claimed_session(&message), Some(sample.payload.session));
    for message in [&b""[..], b"a.b.c", b"..", &vec![b'A'; MAX_MESSAGE + 1]] {
        assert_eq!(claimed_session(message), None);
    }
    assert_eq!(claimed_session(&change("hello", |_, p| p["session"] = json!(7))), None);
}

#[test]
fn an_unknown_type_is_named_before_the_body_is_looked_at() {
    for kind in ["teapot", "Hello", "", "online", &"x".repeat(5000)] {
        let message = change("hello", |_, p| {
            p["type"] = kind.into();
            p["body"] = json!(0);
        });
        let error = Unverified::parse(&message).unwrap_err();
        assert_eq!(error.code(), Code::UnknownType, "{kind}");
        assert!(error.to_string().len() < 100);
    }
    assert_eq!(
        Unverified::parse(&change("hello", |_, p| p["type"] = json!(1)))
            .unwrap_err()
            .code(),
        Code::Malformed
    );
}

#[test]
fn a_job_of_an_unknown_kind_can_be_answered() {
    let message = change("job-rotate", |_, p| p["body"]["kind"] = "defragment".into());
    let payload = open(&message, By::Control).unwrap();
    assert!(matches!(payload.body, Body::Job(job) if job.task == Task::Unknown));
    assert!(payload.job.is_some() && payload.nonce.is_some());
}

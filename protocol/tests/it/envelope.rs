//! What an envelope must be, and which refusal each wrong one gets.

use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use certwave_protocol::MAX_MESSAGE;
use certwave_protocol::code::Code;
use certwave_protocol::envelope::{EnvelopeError, Unverified, claimed_session, sign_down, sign_up};
use certwave_protocol::jws::{Algorithm, SigningKey, VerifyingKey};
use certwave_protocol::message::{Body, Der, Payload, Task};
use rcgen::{KeyPair, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256, RsaKeySize};
use serde_json::{Value, json};

use crate::pki::{p256, signing};
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
fn each_kind_of_key_signs_with_its_own_algorithm_and_no_other() {
    let keys = [
        (p256(), Algorithm::Es256, 64),
        (
            KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap(),
            Algorithm::Es384,
            96,
        ),
        (KeyPair::generate_for(&PKCS_ED25519).unwrap(), Algorithm::EdDsa, 64),
        (
            KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap(),
            Algorithm::Ps256,
            256,
        ),
    ];
    let Sample { payload, .. } = sample("tested");
    let fingerprint = MATERIAL.b.fingerprint();
    for (pair, algorithm, length) in &keys {
        let key = signing(pair);
        assert_eq!(key.algorithm(), *algorithm);
        assert_eq!(key.sign(b"x").len(), *length);
        assert_eq!(
            VerifyingKey::from_spki(key.public_key().spki()).as_ref(),
            Ok(key.public_key())
        );
        let sealed = sign_up(&payload, &key, fingerprint);
        let (mut header, body) = header_and_payload(&sealed);
        assert_eq!(header["alg"], algorithm.as_str());
        assert_eq!(
            Unverified::parse(&sealed).unwrap().verify(key.public_key()).as_ref(),
            Ok(&payload)
        );
        for other in ["none", "HS256", "RS256", "es256", ""]
            .into_iter()
            .chain(Algorithm::ALL.map(Algorithm::as_str))
        {
            if other == algorithm.as_str() {
                continue;
            }
            header["alg"] = other.into();
            let error = Unverified::parse(&forge(&header, &body, &key))
                .unwrap()
                .verify(key.public_key())
                .unwrap_err();
            assert_eq!(error.code(), Code::BadAlgorithm, "{other} for {algorithm}");
        }
    }
}

#[test]
fn another_key_of_the_same_kind_is_refused() {
    for sample in MATERIAL.samples() {
        let by = if sample.by == By::A { By::B } else { By::A };
        assert_eq!(
            open(&MATERIAL.seal(&sample), by),
            Err(EnvelopeError::BadSignature),
            "{}",
            sample.name
        );
    }
}

#[test]
fn a_signature_in_asn1_form_is_refused() {
    let key = p256();
    let (header, payload) = header_and_payload(&MATERIAL.seal(&sample("tested")));
    let part = |v: &Value| URL_SAFE_NO_PAD.encode(v.to_string());
    let covered = format!("{}.{}", part(&header), part(&payload));
    let der = rcgen::SigningKey::sign(&key, covered.as_bytes()).unwrap();
    let message = format!("{covered}.{}", URL_SAFE_NO_PAD.encode(der));
    let error = Unverified::parse(message.as_bytes())
        .unwrap()
        .verify(signing(&key).public_key())
        .unwrap_err();
    assert_eq!(error, EnvelopeError::BadSignature);
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

#[test]
fn the_wrong_direction_is_refused_even_with_a_good_signature() {
    let Sample { payload, .. } = sample("commit");
    let up = sign_up(&payload, &MATERIAL.a.key, MATERIAL.a.fingerprint());
    assert_eq!(Unverified::parse(&up).unwrap_err().code(), Code::Malformed);
    let down = sign_down(&sample("tested").payload, &MATERIAL.control.key, &MATERIAL.x5c());
    assert_eq!(Unverified::parse(&down).unwrap_err().code(), Code::Malformed);
}

#[test]
fn keys_do_not_show_themselves() {
    let shown = format!("{:?} {:?}", MATERIAL.a.key, MATERIAL.a.key.public_key());
    assert_eq!(
        shown,
        "SigningKey { algorithm: Es256, .. } VerifyingKey { algorithm: Es256, .. }"
    );
}

#[test]
fn weak_and_strange_keys_are_not_taken() {
    assert!(SigningKey::from_pkcs8(&[]).is_err());
    assert!(SigningKey::from_pkcs8(MATERIAL.a.der.as_ref()).is_err());
    assert!(VerifyingKey::from_spki(&[0x30, 0x00]).is_err());
    assert!(VerifyingKey::from_certificate(&MATERIAL.a.pkcs8).is_err());
    let p521 = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P521_SHA512).unwrap();
    assert!(SigningKey::from_pkcs8(&p521.serialize_der()).is_err());
    assert!(VerifyingKey::from_certificate(Der(vec![0x30; 40]).as_ref()).is_err());
}

/// RFC 7515 A.3 (ES256) and RFC 8037 A.4 (`EdDSA`).
#[test]
fn the_rfcs_own_signatures_verify() {
    let b64 = |s: &str| URL_SAFE_NO_PAD.decode(s).unwrap();
    let p256_prefix = "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE";
    let x = b64("f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU");
    let y = b64("x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0");
    let spki = [b64(p256_prefix), x, y].concat();
    let key = VerifyingKey::from_spki(&spki).unwrap();
    let covered = "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb\
                   290Ijp0cnVlfQ";
    let signature = "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";
    assert_eq!(key.verify(covered.as_bytes(), &b64(signature)), Ok(()));
    assert!(key.verify(b"something else", &b64(signature)).is_err());

    let ed25519_prefix = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
    let spki = [&ed25519_prefix[..], &b64("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo")].concat();
    let key = VerifyingKey::from_spki(&spki).unwrap();
    let covered = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc";
    let signature = "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";
    assert_eq!(key.verify(covered.as_bytes(), &b64(signature)), Ok(()));
}

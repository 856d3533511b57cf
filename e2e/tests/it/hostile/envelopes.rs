//! Envelopes with something wrong in them.

use certwave_crds::DeviceState;
use certwave_protocol::code::Code;
use certwave_protocol::envelope::sign_up;
use certwave_protocol::message::{Body, Step, Type};
use serde_json::{Value, json};

use super::device::{Device, status};
use super::keys::{Credential, Key, forge, header, with};
use super::plant::Plant;

const MESSAGES: &str = "certwave_messages_total";

fn changed(mut header: Value, field: &str, value: Value) -> Value {
    header[field] = value;
    header
}

/// What is wrong, the bytes, and the code that the refusal bears.
type Case = (&'static str, Vec<u8>, Code);

/// Bad versions of a `hello` that would be good.
fn bad_hellos(device: &Device, other: &Device) -> Vec<Case> {
    let by = &device.active;
    let key = &by.key;
    let good = device.payload(None, Body::Hello(device.hello_body(None)));
    let text = serde_json::to_string(&good).unwrap();
    let body = |change: &dyn Fn(&mut Value)| {
        let mut json = serde_json::to_value(&good).unwrap();
        change(&mut json["body"]);
        forge(&header(by), &json.to_string(), key)
    };
    let field = |name: &str, value: Value| forge(&header(by), &with(&good, name, value), key);
    let head = |name: &str, value: Value| forge(&changed(header(by), name, value), &text, key);
    let mut flipped = forge(&header(by), &text, key);
    let at = flipped.len() - 20;
    flipped[at] = if flipped[at] == b'A' { b'B' } else { b'A' };
    let mut cut = forge(&header(by), &text, key);
    cut.truncate(cut.len() - 6);
    let twice = text.replacen(r#""body":"#, r#""body":{},"body":"#, 1);
    let stranger = Credential::from_pem(Key::new(), certwave_protocol::ids::Fingerprint([7; 32]), String::new());
    vec![
        ("a changed signature", flipped, Code::BadSignature),
        ("a short signature", cut, Code::BadSignature),
        (
            "signed by a key that is not the one it names",
            forge(&header(by), &text, &other.active.key),
            Code::BadSignature,
        ),
        (
            "signed by a key that the ledger does not know",
            forge(&header(&stranger), &text, &stranger.key),
            Code::WrongKey,
        ),
        (
            "signed by another device, in its own name",
            forge(&header(&other.active), &text, &other.active.key),
            Code::WrongKey,
        ),
        ("algorithm none", head("alg", json!("none")), Code::BadAlgorithm),
        ("algorithm HS256", head("alg", json!("HS256")), Code::BadAlgorithm),
        (
            "the algorithm of another kind of key",
            head("alg", json!("ES384")),
            Code::BadAlgorithm,
        ),
        ("another type of JWS", head("typ", json!("JWT")), Code::Malformed),
        (
            "an extension that must be understood",
            head("crit", json!(["b64"])),
            Code::Malformed,
        ),
        ("the controller's header", head("x5c", json!(["AAAA"])), Code::Malformed),
        ("no key named", changed_out(by, &text), Code::Malformed),
        ("another broker", field("broker", json!("elsewhere")), Code::WrongBroker),
        (
            "another device",
            field("device", json!(other.id.as_str())),
            Code::WrongDevice,
        ),
        (
            "a device that cannot be",
            field("device", json!("~controller")),
            Code::Malformed,
        ),
        ("version 2", field("v", json!(2)), Code::UnsupportedVersion),
        ("version 0", field("v", json!(0)), Code::UnsupportedVersion),
        ("a version in words", field("v", json!("1")), Code::Malformed),
        (
            "a type of another time",
            field("type", json!("greetings")),
            Code::UnknownType,
        ),
        ("a type that is no text", field("type", json!(7)), Code::Malformed),
        (
            "a birth in an envelope",
            field("type", json!("online")),
            Code::UnknownType,
        ),
        ("a body of another type", field("type", json!("csr")), Code::Malformed),
        ("no body", field("body", json!(null)), Code::Malformed),
        ("a body twice", forge(&header(by), &twice, key), Code::Malformed),
        (
            "a field missing",
            body(&|b| drop(b.as_object_mut().unwrap().remove("clock"))),
            Code::Malformed,
        ),
        (
            "a field of another type",
            body(&|b| b["clock"] = json!("noon")),
            Code::Malformed,
        ),
        (
            "a field beyond its limit",
            body(&|b| b["agent"] = json!("x".repeat(65))),
            Code::Malformed,
        ),
        (
            "a slot that the signer is not in",
            body(&|b| b["active"] = json!("B")),
            Code::WrongKey,
        ),
        (
            "another leaf in the active slot",
            body(&|b| b["slots"]["A"] = json!(other.active.fingerprint.to_string())),
            Code::WrongKey,
        ),
    ]
}

/// A header that names no key.
fn changed_out(by: &Credential, text: &str) -> Vec<u8> {
    let mut header = header(by);
    header.as_object_mut().unwrap().remove("x5t#S256");
    forge(&header, text, &by.key)
}

#[tokio::test]
async fn a_bad_envelope_gets_its_code_and_changes_nothing() {
    let (plant, claim) = Plant::new("envelopes", &["env-1", "env-2"]).await;
    let (mut device, other) = tokio::join!(
        Device::enrolled(&plant, &claim, "env-1"),
        Device::enrolled(&plant, &claim, "env-2")
    );
    let before = plant
        .wait_status("env-1", "to be active", |s| s.state == Some(DeviceState::Active))
        .await;

    for (what, bytes, code) in bad_hellos(&device, &other) {
        let labels = ["type=\"hello\"", &format!("outcome=\"{code}\"")];
        let count = plant.world.metric(MESSAGES, &labels).await;
        device.line.publish(Type::Hello, &bytes).await;
        let rejected = device.line.refused(what, Type::Hello, code).await;
        assert_eq!(rejected.job_state, None, "{what}: nothing unverified is repeated");
        plant.world.counted(MESSAGES, &labels, count).await;
    }

    // Good messages on the wrong topic.
    let hello = device.payload(None, Body::Hello(device.hello_body(None)));
    let envelope = sign_up(&hello, &device.active.key.signing, device.active.fingerprint);
    for kind in [Type::Csr, Type::Tested, Type::Status, Type::Enrol] {
        device.line.publish(kind, &envelope).await;
        device.line.refused("a hello elsewhere", kind, Code::UnknownType).await;
    }

    // What nobody can answer gets no answer.
    let no_session = with(&hello, "session", json!("short"));
    let unanswerable = [
        b"hello".to_vec(),
        Vec::new(),
        br#"{"v":1,"type":"hello"}"#.to_vec(),
        b"a.b.c".to_vec(),
        b"....".to_vec(),
        vec![0xff; 64],
        vec![b'A'; 32_000],
        forge(&header(&device.active), &no_session, &device.active.key),
        forge(&header(&device.active), "not JSON", &device.active.key),
    ];
    for bytes in unanswerable {
        device.line.publish(Type::Hello, &bytes).await;
        device.line.silent("unreadable").await;
    }
    for kind in [
        Type::Job,
        Type::Commit,
        Type::Certificate,
        Type::Reconnect,
        Type::Rejected,
    ] {
        device.line.publish(kind, &envelope).await;
        device
            .line
            .refused("what only the controller says", kind, Code::UnknownType)
            .await;
    }
    let labels = ["type=\"none\"", "outcome=\"unknown-type\""];
    let count = plant.world.metric(MESSAGES, &labels).await;
    device.line.publish_on("certwave/env-1/up/greetings", &envelope).await;
    plant.world.counted(MESSAGES, &labels, count).await;
    device.line.publish(Type::Online, b"{}").await;
    device.line.silent("a birth that says nothing").await;

    let after = plant.status("env-1").await;
    assert_eq!(after.certificates, before.certificates);
    assert_eq!(after.job, before.job);
    drop(other);
    plant.rotate("after").await;
    device.rotate().await;
}

#[tokio::test]
async fn a_message_larger_than_the_limit_reaches_nobody() {
    let (plant, claim) = Plant::new("large", &["large-1"]).await;
    let mut device = Device::enrolled(&plant, &claim, "large-1").await;
    let hello = device.payload(None, Body::Hello(device.hello_body(None)));
    // A good message, but for its size: unknown fields are ignored.
    for size in [30_000, 300_000] {
        let text = with(&hello, "padding", json!("x".repeat(size)));
        let envelope = forge(&header(&device.active), &text, &device.active.key);
        assert!(envelope.len() > certwave_protocol::MAX_MESSAGE);
        // The broker drops the message or ends the connection: that is between the two of them.
        device.line.publish_unheard(Type::Hello, &envelope).await;
        let identity = device.active.identity.clone();
        device.reconnect(&identity).await;
        device.line.silent("too large").await;
    }
    plant.rotate("after").await;
    device.hello(None).await;
    device.rotate().await;
}

#[tokio::test]
async fn an_old_hello_said_again_moves_nothing_but_the_session() {
    let (plant, claim) = Plant::new("replay", &["replay-1"]).await;
    let mut device = Device::enrolled(&plant, &claim, "replay-1").await;
    let hello = device.payload(None, Body::Hello(device.hello_body(None)));
    let old = sign_up(&hello, &device.active.key.signing, device.active.fingerprint);
    let identity = device.active.identity.clone();
    device.reconnect(&identity).await;
    device.hello(None).await;
    device.line.silent("hello").await;

    plant.rotate("first").await;
    let mark = device.job().await;
    // The answer goes to the connection that is no more; `answer` would fail on anything but the refusal below.
    device.line.publish(Type::Hello, &old).await;
    device.line.silent("a hello of another session").await;
    device.hello(None).await;
    assert_eq!(device.job().await.job, mark.job);
    device.say(Some(mark), status(Step::Accepted, None)).await;
    let credential = device.request(mark, Key::new()).await;
    device.try_out(mark, credential).await;
}

//! Messages of a job out of their order, twice, with the wrong marks, and proofs that prove nothing.

use certwave_crds::{DeviceState, JobState};
use certwave_protocol::code::Code;
use certwave_protocol::ids::Fingerprint;
use certwave_protocol::message::{Body, Step, Subject, Tested, Type};
use serde_json::json;

use super::device::{Device, Mark, request, status, tested};
use super::keys::{Key, forge, header, nonce, with};
use super::plant::Plant;

/// Each mark that is not the job's, with its code.
fn bad_marks(mark: Mark, last: Mark) -> Vec<(&'static str, Mark, Code)> {
    vec![
        ("no such job", Mark { job: uuid(9), ..mark }, Code::UnknownJob),
        ("the job before", last, Code::UnknownJob),
        ("a nonce of nobody", Mark { nonce: nonce(), ..mark }, Code::WrongNonce),
        (
            "the nonce of the job before",
            Mark {
                nonce: last.nonce,
                ..mark
            },
            Code::WrongNonce,
        ),
        (
            "an older epoch",
            Mark {
                epoch: mark.epoch - 1,
                ..mark
            },
            Code::WrongEpoch,
        ),
        (
            "an epoch that nobody took",
            Mark {
                epoch: mark.epoch + 1,
                ..mark
            },
            Code::WrongEpoch,
        ),
    ]
}

fn uuid(last: u8) -> certwave_protocol::ids::JobId {
    format!("01a1f640-bc7b-7000-8000-00000000000{last}").parse().unwrap()
}

async fn refuse_marks(device: &mut Device, mark: Mark, body: &Body) {
    for (what, bad, code) in bad_marks(mark, device.last) {
        device.refused(what, bad, body.clone(), code).await;
    }
    // A field of the mark missing.
    for field in ["job", "nonce", "epoch"] {
        let payload = device.payload(Some(mark), body.clone());
        let text = with(&payload, field, json!(null));
        let envelope = forge(&header(&device.active), &text, &device.active.key);
        device.line.publish(body.kind(), &envelope).await;
        device.line.refused(field, body.kind(), Code::Malformed).await;
    }
}

#[tokio::test]
async fn a_job_moves_by_its_own_messages_in_their_order_and_by_nothing_else() {
    let (plant, claim) = Plant::new("order", &["order-1", "order-2"]).await;
    let (mut device, mut other) = tokio::join!(
        Device::enrolled(&plant, &claim, "order-1"),
        Device::enrolled(&plant, &claim, "order-2")
    );
    let first = device.last;
    let own = device.active.fingerprint;

    // No job at all: the last one has ended.
    for (what, body, code) in [
        ("accepted", status(Step::Accepted, None), Code::OutOfOrder),
        ("failed", status(Step::Failed, None), Code::OutOfOrder),
        ("rolled back", status(Step::RolledBack, None), Code::OutOfOrder),
        ("csr", request(Key::new().request("order-1")), Code::OutOfOrder),
    ] {
        let state = device.refused(what, first, body, code).await;
        assert_eq!(state.as_deref(), Some("Confirmed"), "{what}");
    }
    device.say(Some(first), tested(own)).await;
    device.say(Some(first), status(Step::Committed, None)).await;
    device.line.silent("the end of a job, said again").await;

    // Sent.
    plant.rotate("first").await;
    let (mark, foreign) = (device.job().await, other.job().await);
    refuse_marks(&mut device, mark, &status(Step::Accepted, None)).await;
    device
        .refused(
            "a job of another device",
            foreign,
            status(Step::Accepted, None),
            Code::UnknownJob,
        )
        .await;
    for (what, body, code) in [
        ("tested before anything", tested(own), Code::OutOfOrder),
        (
            "committed before anything",
            status(Step::Committed, None),
            Code::WrongKey,
        ),
    ] {
        let state = device.refused(what, mark, body, code).await;
        assert_eq!(state.as_deref(), Some("Sent"), "{what}");
    }

    device
        .say_by(&other.active, Some(mark), status(Step::Accepted, None))
        .await;
    device
        .line
        .refused("accepted, by another device", Type::Status, Code::WrongKey)
        .await;

    // Accepted.
    device.say(Some(mark), status(Step::Accepted, None)).await;
    device.say(Some(mark), status(Step::Accepted, None)).await;
    device.line.silent("accepted, twice").await;
    let key = Key::new();
    let csr = request(key.request("order-1"));
    refuse_marks(&mut device, mark, &csr).await;
    device.say_by(&other.active, Some(mark), csr.clone()).await;
    device
        .line
        .refused("csr by another device", Type::Csr, Code::WrongKey)
        .await;
    let state = device
        .refused("tested before the certificate", mark, tested(own), Code::OutOfOrder)
        .await;
    assert_eq!(state.as_deref(), Some("Accepted"));

    // Issued.
    device.say(Some(mark), csr.clone()).await;
    let answers = [device.line.answer().await, {
        device.say(Some(mark), csr.clone()).await;
        device.line.answer().await
    }];
    assert_eq!(
        answers[0].body, answers[1].body,
        "the same request gets the same certificate"
    );
    let pending = super::keys::Credential::new(key, super::device::certificate(&answers[0]));
    device
        .refused(
            "proof by the old key",
            mark,
            tested(pending.fingerprint),
            Code::WrongKey,
        )
        .await;
    device
        .refused(
            "rejected too late",
            mark,
            status(Step::Rejected, Some(Code::Refused)),
            Code::OutOfOrder,
        )
        .await;
    device.say_by(&pending, Some(mark), status(Step::Failed, None)).await;
    device
        .line
        .refused("failed, by the new key", Type::Status, Code::WrongKey)
        .await;
    device.say_by(&pending, Some(mark), status(Step::Committed, None)).await;
    device
        .line
        .refused("committed before the commit", Type::Status, Code::OutOfOrder)
        .await;
    device.say_by(&pending, Some(mark), csr).await;
    device
        .line
        .refused("csr by the new key", Type::Csr, Code::WrongKey)
        .await;
    device
        .say_by(&other.active, Some(mark), tested(pending.fingerprint))
        .await;
    device
        .line
        .refused("proof by another device", Type::Tested, Code::WrongKey)
        .await;
    for (what, subject) in [
        ("proof for the old certificate", Subject::Certificate(own)),
        (
            "proof for a bundle",
            Subject::Bundle(Fingerprint::of_bundle(&plant.world.anchors)),
        ),
    ] {
        device
            .say_by(&pending, Some(mark), Body::Tested(Tested { subject }))
            .await;
        device.line.refused(what, Type::Tested, Code::CertificateInvalid).await;
    }
    for (what, bad, code) in bad_marks(mark, first) {
        device.say_by(&pending, Some(bad), tested(pending.fingerprint)).await;
        device.line.refused(what, Type::Tested, code).await;
    }
    let mut hello = device.hello_body(None);
    hello.slots.a = Some(pending.fingerprint);
    device.say_by(&pending, None, Body::Hello(hello)).await;
    device
        .line
        .refused("hello by the new key", Type::Hello, Code::WrongKey)
        .await;
    let before = plant.status("order-1").await.certificates.current;

    // Committing, twice; Confirmed, twice.
    let identity = pending.identity.clone();
    device.reconnect(&identity).await;
    device.say_by(&pending, Some(mark), tested(pending.fingerprint)).await;
    device.say_by(&pending, Some(mark), tested(pending.fingerprint)).await;
    let commits = [device.line.answer().await, device.line.answer().await];
    assert_eq!(commits[0].body.kind(), Type::Commit);
    assert_eq!(commits[0].body, commits[1].body);
    device
        .refused(
            "another request now",
            mark,
            request(Key::new().request("order-1")),
            Code::CsrChanged,
        )
        .await;
    device.say(Some(mark), status(Step::Committed, None)).await;
    device
        .line
        .refused("committed, by the old key", Type::Status, Code::WrongKey)
        .await;
    for step in [Step::Committed, Step::RolledBack, Step::Failed] {
        device.say_by(&other.active, Some(mark), status(step, None)).await;
        device
            .line
            .refused("the end of the job, by another device", Type::Status, Code::WrongKey)
            .await;
    }
    device.say_by(&pending, Some(mark), status(Step::Committed, None)).await;
    device.say_by(&pending, Some(mark), status(Step::Committed, None)).await;
    device.line.silent("committed, twice").await;
    device.active = pending;
    device
        .refused(
            "rolled back after all",
            mark,
            status(Step::RolledBack, None),
            Code::OutOfOrder,
        )
        .await;

    let after = plant
        .wait_status("order-1", "to be rotated", |s| {
            s.state == Some(DeviceState::Active) && s.certificates.current != before
        })
        .await;
    assert_eq!(after.certificates.previous, before);
    let job = after.job.unwrap();
    assert_eq!((job.id, job.state), (mark.job.to_string(), JobState::Confirmed));

    // The other device has heard nothing of all this.
    other.say(Some(foreign), status(Step::Accepted, None)).await;
    let credential = other.request(foreign, Key::new()).await;
    other.try_out(foreign, credential).await;
    plant.rotated("first").await;
    plant.rotate("second").await;
    tokio::join!(device.rotate(), other.rotate());
}

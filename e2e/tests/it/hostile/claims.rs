//! Claims that may not do what they are used for.

use std::time::Duration;

use anyhow::bail;
use certwave_crds::{ClaimState, DeviceCertificateStatus, DeviceState};
use certwave_e2e::wait_for;
use certwave_protocol::code::Code;
use certwave_protocol::envelope::sign_up;
use certwave_protocol::message::{Body, Payload, Type};
use serde_json::json;

use super::device::{Device, Mark, ask, certificate, claim_line, enrol, tested};
use super::keys::{Credential, Key, forge, header, with};
use super::line::Line;
use super::plant::{Claim, Plant};

pub(super) fn assert_refused(what: &str, answer: &Payload, code: Code) {
    match &answer.body {
        Body::Rejected(rejected) => {
            assert_eq!(
                (rejected.of, rejected.code),
                (Type::Enrol, code),
                "{what}: {}",
                rejected.message
            );
        }
        other => panic!("{what}: {other:?} in place of a refusal"),
    }
}

/// Asks with a fresh key.
async fn ask_anew(plant: &Plant, line: &mut Line, claim: &Claim, id: &str) -> (Key, Payload) {
    let key = Key::new();
    let answer = ask(plant.world, line, claim, id, key.request(id)).await;
    (key, answer)
}

/// Asks with a fresh key and is refused.
async fn refused(plant: &Plant, line: &mut Line, claim: &Claim, id: &str, code: Code) {
    let outcome = format!("outcome=\"{code}\"");
    let before = plant.world.metric("certwave_enrolments_total", &[&outcome]).await;
    let (_, answer) = ask_anew(plant, line, claim, id).await;
    assert_refused(id, &answer, code);
    plant
        .world
        .counted("certwave_enrolments_total", &[&outcome], before)
        .await;
}

/// Asks with a fresh key, and the device goes to work with what it gets.
async fn works(plant: &Plant, line: &mut Line, claim: &Claim, id: &str) -> Device {
    let (key, answer) = ask_anew(plant, line, claim, id).await;
    let credential = Credential::new(key, certificate(&answer));
    Device::commissioned(plant.world, id, credential, Mark::of(&answer)).await
}

fn refusal(status: &DeviceCertificateStatus, reason: &str) -> bool {
    let mut conditions = status.conditions.iter();
    conditions.any(|c| c.type_ == "EnrolmentRefused" && c.status == "True" && c.reason == reason)
}

#[tokio::test]
async fn a_claim_works_for_whom_it_was_made_and_for_nobody_else() {
    let ids = ["whom-1", "whom-2", "whom-3", "whom-4", "whom-5"];
    let (mut plant, shared) = Plant::new("whom", &ids).await;
    let (_foreign, foreign_claim) = Plant::new("whom-else", &["whom-9"]).await;
    let bound = plant.claim("whom-bound", json!({ "deviceId": "whom-1" })).await;
    let one = plant.claim("whom-one", json!({ "quota": 1 })).await;

    let mut line = claim_line(plant.world, &bound).await;
    refused(&plant, &mut line, &bound, "whom-2", Code::ClaimRefused).await;
    plant
        .wait_status("whom-2", "to show the refusal", |s| refusal(s, "ClaimRefused"))
        .await;
    works(&plant, &mut line, &bound, "whom-1").await;

    let mut line = claim_line(plant.world, &shared).await;
    refused(&plant, &mut line, &shared, "whom-undeclared", Code::NotDeclared).await;
    refused(&plant, &mut line, &shared, "whom-9", Code::NotDeclared).await;
    let mut line = claim_line(plant.world, &foreign_claim).await;
    refused(&plant, &mut line, &foreign_claim, "whom-2", Code::NotDeclared).await;

    let mut line = claim_line(plant.world, &one).await;
    works(&plant, &mut line, &one, "whom-3").await;
    refused(&plant, &mut line, &one, "whom-4", Code::ClaimRefused).await;
    let mut line = claim_line(plant.world, &shared).await;
    works(&plant, &mut line, &shared, "whom-4").await;

    // Enrolled after all, nothing of the refusal is left; and a claim that is gone helps nobody.
    works(&plant, &mut line, &shared, "whom-2").await;
    plant
        .wait_status("whom-2", "to show no refusal any more", |s| {
            s.state == Some(DeviceState::Active) && !refusal(s, "ClaimRefused")
        })
        .await;
    plant.remove_claim("whom").await;
    refused(&plant, &mut line, &shared, "whom-5", Code::ClaimRefused).await;
}

#[tokio::test]
async fn a_suspended_or_ended_claim_enrols_nobody_and_stops_nothing_else() {
    let (mut plant, claim) = Plant::new("ended", &["ended-1", "ended-2"]).await;
    let mut device = Device::enrolled(&plant, &claim, "ended-1").await;
    // This connection is older than the claim's end.
    let mut line = claim_line(plant.world, &claim).await;

    plant
        .change_claim("ended", "suspended", json!(true), ClaimState::Suspended)
        .await;
    refused(&plant, &mut line, &claim, "ended-2", Code::ClaimRefused).await;
    plant
        .wait_status("ended-2", "to show the refusal", |s| refusal(s, "ClaimRefused"))
        .await;
    plant.rotate("suspended").await;
    device.rotate().await;

    plant
        .change_claim("ended", "suspended", json!(false), ClaimState::Active)
        .await;
    plant
        .change_claim("ended", "notAfter", json!("2020-01-01T00:00:00Z"), ClaimState::Expired)
        .await;
    refused(&plant, &mut line, &claim, "ended-2", Code::ClaimRefused).await;
    plant
        .change_claim("ended", "notAfter", json!("2099-01-01T00:00:00Z"), ClaimState::Active)
        .await;
    works(&plant, &mut line, &claim, "ended-2").await;
}

/// Asks with the device's old key until the permit counts: it is read from the object, which may take a moment.
pub(super) async fn permitted(plant: &Plant, claim: &Claim, device: &Device) {
    let id = device.id.as_str();
    let answer = wait_for("the permit to count", Duration::from_secs(30), || async {
        let mut line = claim_line(plant.world, claim).await;
        let answer = ask(plant.world, &mut line, claim, id, device.active.key.request(id)).await;
        match &answer.body {
            Body::Rejected(rejected) if rejected.code == Code::AlreadyEnrolled => bail!("{}", rejected.message),
            _ => Ok(answer),
        }
    });
    assert_refused("the old key", &answer.await.unwrap(), Code::KeyReused);
}

#[tokio::test]
async fn an_enrolled_device_enrols_again_only_with_a_permit_and_once() {
    let (plant, claim) = Plant::new("permit", &["permit-1"]).await;
    let mut device = Device::enrolled(&plant, &claim, "permit-1").await;
    let before = plant
        .wait_status("permit-1", "to be active", |s| s.state == Some(DeviceState::Active))
        .await;
    let mut line = claim_line(plant.world, &claim).await;
    refused(&plant, &mut line, &claim, "permit-1", Code::AlreadyEnrolled).await;
    let seen = plant
        .wait_status("permit-1", "to show the refusal", |s| refusal(s, "AlreadyEnrolled"))
        .await;
    assert_eq!(seen.certificates, before.certificates);
    plant.rotate("refused").await;
    device.rotate().await;
    plant.rotated("refused").await;

    plant.permit("permit-1", "ticket-1").await;
    // An old request, said again by whoever heard it, does not use the permit up.
    permitted(&plant, &claim, &device).await;
    let (key, answer) = ask_anew(&plant, &mut line, &claim, "permit-1").await;
    let csr = key.request("permit-1");
    // Until the new one is proven the old one speaks.
    device.hello(None).await;
    device.line.silent("the old certificate").await;
    let again = ask(plant.world, &mut line, &claim, "permit-1", csr).await;
    assert_eq!(again.body, answer.body, "the same request gets the same certificate");
    let credential = Credential::new(key, certificate(&answer));
    let mut device = Device::commissioned(plant.world, "permit-1", credential, Mark::of(&answer)).await;
    refused(&plant, &mut line, &claim, "permit-1", Code::AlreadyEnrolled).await;
    plant.rotate("again").await;
    device.rotate().await;
}

#[tokio::test]
async fn the_same_enrolment_gets_the_same_certificate_and_another_key_replaces_it() {
    let (plant, claim) = Plant::new("twice", &["twice-1"]).await;
    let mut line = claim_line(plant.world, &claim).await;
    let first = Key::new();
    let csr = first.request("twice-1");
    let answers = [
        ask(plant.world, &mut line, &claim, "twice-1", csr.clone()).await,
        ask(plant.world, &mut line, &claim, "twice-1", csr.clone()).await,
    ];
    assert_eq!(answers[0].body, answers[1].body);
    assert_eq!(answers[0].job, answers[1].job);
    // From another connection too: the answer was lost with the first.
    let mut other_line = claim_line(plant.world, &claim).await;
    let third = ask(plant.world, &mut other_line, &claim, "twice-1", csr.clone()).await;
    assert_eq!(third.body, answers[0].body);
    let old = Credential::new(first, certificate(&third));

    let (key, answer) = ask_anew(&plant, &mut line, &claim, "twice-1").await;
    let credential = Credential::new(key, certificate(&answer));
    assert_ne!(credential.fingerprint, old.fingerprint);
    // The first key was replaced: it proves nothing any more, and is not taken again.
    let again = ask(plant.world, &mut line, &claim, "twice-1", csr).await;
    assert_refused("the replaced key", &again, Code::KeyReused);
    let mut device = Device::commissioned(plant.world, "twice-1", credential, Mark::of(&answer)).await;
    device
        .say_by(&old, Some(Mark::of(&third)), tested(old.fingerprint))
        .await;
    device
        .line
        .refused("the replaced key", Type::Tested, Code::WrongKey)
        .await;
    plant.rotate("first").await;
    device.rotate().await;
}

#[tokio::test]
async fn once_the_commit_is_sent_no_other_key_takes_the_place_of_the_proven_one() {
    let (plant, claim) = Plant::new("proven", &["proven-1"]).await;
    let mut line = claim_line(plant.world, &claim).await;
    let key = Key::new();
    let csr = key.request("proven-1");
    let answer = ask(plant.world, &mut line, &claim, "proven-1", csr.clone()).await;
    let credential = Credential::new(key, certificate(&answer));
    let mut device = Device::proven(plant.world, "proven-1", credential, Mark::of(&answer)).await;
    // Claims and devices have brokers of their own: what was sent first need not arrive first.
    device.commit_comes().await;
    refused(&plant, &mut line, &claim, "proven-1", Code::AlreadyEnrolled).await;
    let again = ask(plant.world, &mut line, &claim, "proven-1", csr).await;
    assert_eq!(again.body, answer.body, "its own key still gets its own certificate");
    device.obeys(Mark::of(&answer)).await;
    device.line.silent("committed").await;
    plant.rotate("first").await;
    device.rotate().await;
}

#[tokio::test]
async fn an_enrolment_that_cannot_be_believed_gets_no_answer() {
    let (mut plant, claim) = Plant::new("unbelieved", &["unbelieved-1"]).await;
    let other = plant.claim("unbelieved-2", json!({ "quota": 5 })).await;
    let mut line = claim_line(plant.world, &claim).await;
    let key = Key::new();
    let csr = key.request("unbelieved-1");
    let good = enrol(plant.world, "unbelieved-1", line.session, csr.clone());
    let text = serde_json::to_string(&good).unwrap();
    let by = &claim.credential;
    let mut none = header(by);
    none["alg"] = json!("none");
    let cases = [
        ("no envelope", b"{}".to_vec(), Code::Malformed),
        (
            "another claim's key",
            forge(&header(by), &text, &other.credential.key),
            Code::BadSignature,
        ),
        ("no algorithm", forge(&none, &text, &by.key), Code::BadAlgorithm),
        (
            "another broker",
            forge(&header(by), &with(&good, "broker", json!("elsewhere")), &by.key),
            Code::WrongBroker,
        ),
        (
            "the controller's name",
            forge(&header(by), &with(&good, "device", json!("~controller")), &by.key),
            Code::Malformed,
        ),
        (
            "another version",
            forge(&header(by), &with(&good, "v", json!(2)), &by.key),
            Code::UnsupportedVersion,
        ),
        (
            "no nonce",
            forge(&header(by), &with(&good, "nonce", json!(null)), &by.key),
            Code::Malformed,
        ),
    ];
    for (_what, bytes, code) in cases {
        let labels = ["type=\"enrol\"", &format!("outcome=\"{code}\"")];
        let before = plant.world.metric("certwave_messages_total", &labels).await;
        line.publish(Type::Enrol, &bytes).await;
        plant.world.counted("certwave_messages_total", &labels, before).await;
    }
    // A claim says nothing else.
    let envelope = sign_up(&good, &by.key.signing, by.fingerprint);
    for kind in [Type::Hello, Type::Csr, Type::Tested, Type::Status, Type::Online] {
        line.publish(kind, &envelope).await;
    }
    // The first thing that is answered is the first that can be believed.
    let answer = ask(plant.world, &mut line, &claim, "unbelieved-1", csr).await;
    let credential = Credential::new(key, certificate(&answer));
    Device::commissioned(plant.world, "unbelieved-1", credential, Mark::of(&answer)).await;
}

#[tokio::test]
async fn two_devices_with_one_key_get_one_certificate() {
    let ids = ["same-1", "same-2"];
    let (plant, claim) = Plant::new("same-key", &ids).await;
    let key = Key::new();
    let mut lines = [
        claim_line(plant.world, &claim).await,
        claim_line(plant.world, &claim).await,
    ];
    let [one, two] = &mut lines;
    let answers = tokio::join!(
        ask(plant.world, one, &claim, ids[0], key.request(ids[0])),
        ask(plant.world, two, &claim, ids[1], key.request(ids[1])),
    );
    let (winner, loser) = match answers.0.body {
        Body::Certificate(_) => (&answers.0, &answers.1),
        _ => (&answers.1, &answers.0),
    };
    assert_refused("the second with the key", loser, Code::KeyReused);
    let credential = Credential::new(key, certificate(winner));
    Device::commissioned(plant.world, winner.device.as_str(), credential, Mark::of(winner)).await;
    let id = loser.device.to_string();
    works(&plant, &mut lines[0], &claim, &id).await;
}

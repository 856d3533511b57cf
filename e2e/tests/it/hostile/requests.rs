//! Requests that no certificate may be issued for.

use certwave_crds::{DeviceState, JobState};
use certwave_protocol::code::Code;
use certwave_protocol::message::Step;
use futures::future::join_all;

use super::device::{Device, Mark, ask, certificate, claim_line, request, status};
use super::keys::{Credential, Key, openssl_request};
use super::plant::{Claim, Plant};

/// What is wrong, the request, and the code that the refusal bears. `id` is whom the request should be for.
fn bad_requests(id: &str, own: Option<&Key>, others: &Key, claim: &Claim) -> Vec<(&'static str, Vec<u8>, Code)> {
    let (key, good) = (Key::new(), Key::new().request(id));
    let mut flipped = good.clone();
    *flipped.last_mut().unwrap() ^= 1;
    let mut longer = good.clone();
    longer.push(0);
    let mut cases = vec![
        ("garbage", b"garbage".to_vec(), Code::CsrInvalid),
        ("cut short", good[..good.len() - 9].to_vec(), Code::CsrInvalid),
        ("something behind it", longer, Code::CsrInvalid),
        ("beyond its size", vec![0x30; 8193], Code::CsrInvalid),
        ("a changed signature", flipped, Code::CsrSignature),
        (
            "signed by another key",
            key.request_signed_by(others, id),
            Code::CsrSignature,
        ),
        ("RSA of 1024 bits", openssl_request(&["rsa:1024"], id), Code::KeyWeak),
        (
            "an algorithm that the fleet does not allow",
            openssl_request(&["rsa:2048"], id),
            Code::KeyAlgorithm,
        ),
        (
            "a curve that nobody allows",
            openssl_request(&["ec", "-pkeyopt", "ec_paramgen_curve:secp256k1"], id),
            Code::KeyAlgorithm,
        ),
        ("for another device", key.request("meter-1"), Code::CsrSubject),
        ("for the controller", key.request("~controller"), Code::CsrSubject),
        ("with the key of another device", others.request(id), Code::KeyReused),
        (
            "with the key of a claim",
            claim.credential.key.request(id),
            Code::KeyReused,
        ),
    ];
    if let Some(own) = own {
        cases.push(("with the key that it has", own.request(id), Code::KeyReused));
    }
    cases
}

#[tokio::test]
async fn a_bad_request_ends_its_job_and_the_old_certificate_stays() {
    const CASES: usize = 15;
    let ids: Vec<String> = (0..=CASES).map(|n| format!("request-{n}")).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let (plant, claim) = Plant::new("requests", &ids).await;
    let mut devices = join_all(ids.iter().map(|id| Device::enrolled(&plant, &claim, id))).await;
    let bystander = devices.pop().unwrap();
    plant.rotate("bad").await;

    let attempts = devices.iter_mut().enumerate().map(|(n, device)| {
        let (plant, claim, bystander) = (&plant, &claim, &bystander);
        async move {
            let id = device.id.to_string();
            let own = device.active.fingerprint;
            let cases = bad_requests(&id, Some(&device.active.key), &bystander.active.key, claim);
            let mark = device.job().await;
            let (what, bad, code) = if let Some(case) = cases.into_iter().nth(n) {
                case
            } else {
                device.say(Some(mark), status(Step::Accepted, None)).await;
                device.request(mark, Key::new()).await;
                (
                    "another request than the first",
                    Key::new().request(&id),
                    Code::CsrChanged,
                )
            };
            // `accepted` may have been lost: that must make no difference.
            if n % 2 == 0 {
                device.say(Some(mark), status(Step::Accepted, None)).await;
            }
            let state = device.refused(what, mark, request(bad), code).await;
            assert_eq!(state.as_deref(), Some("Failed"), "{what}");
            // Nor does a good one help any more.
            device
                .refused(what, mark, request(Key::new().request(&id)), Code::OutOfOrder)
                .await;
            let seen = plant
                .wait_status(&id, "to have failed", |s| s.state == Some(DeviceState::Failed))
                .await;
            let job = seen.job.unwrap();
            assert_eq!(
                (job.state, job.code.as_deref()),
                (JobState::Failed, Some(code.as_str())),
                "{what}"
            );
            assert_eq!(seen.certificates.previous, None, "{what}");
            assert_eq!(device.active.fingerprint, own);
        }
    });
    join_all(attempts).await;

    // Each still works, and takes a new certificate.
    let mut last = bystander;
    last.rotate().await;
    plant.rotated("bad").await;
    plant.rotate("good").await;
    join_all(devices.iter_mut().chain([&mut last]).map(Device::rotate)).await;
    plant.rotated("good").await;
}

#[tokio::test]
async fn a_bad_request_with_a_claim_is_refused_and_a_good_one_still_works() {
    let (plant, claim) = Plant::new("first-requests", &["first-1", "first-2"]).await;
    let bystander = Device::enrolled(&plant, &claim, "first-2").await;
    let mut line = claim_line(plant.world, &claim).await;
    for (what, csr, code) in bad_requests("first-1", None, &bystander.active.key, &claim) {
        let outcome = format!("outcome=\"{code}\"");
        let labels = ["type=\"enrol\"", outcome.as_str()];
        let before = plant.world.metric("certwave_messages_total", &labels).await;
        let enrolments = plant.world.metric("certwave_enrolments_total", &labels[1..]).await;
        let answer = ask(plant.world, &mut line, &claim, "first-1", csr).await;
        super::claims::assert_refused(what, &answer, code);
        plant.world.counted("certwave_messages_total", &labels, before).await;
        plant
            .world
            .counted("certwave_enrolments_total", &labels[1..], enrolments)
            .await;
    }
    let key = Key::new();
    let answer = ask(plant.world, &mut line, &claim, "first-1", key.request("first-1")).await;
    let credential = Credential::new(key, certificate(&answer));
    Device::commissioned(plant.world, "first-1", credential, Mark::of(&answer)).await;
}

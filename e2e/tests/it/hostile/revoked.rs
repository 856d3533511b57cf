//! Keys that somebody has stolen.

use std::time::Duration;

use anyhow::bail;
use certwave_crds::DeviceState;
use certwave_e2e::wait_for;
use certwave_protocol::code::Code;
use certwave_protocol::message::{Body, Progress, Step, Type};
use serde_json::{Value, json};

use super::claims::assert_refused;
use super::device::{Device, Mark, ask, certificate, claim_line, request, status, tested};
use super::keys::{Credential, Key};
use super::plant::{Claim, Plant};

const ID: &str = "stolen-1";

/// Asks with fresh keys until one is not refused as revoked: what a person says takes a moment.
async fn let_in(plant: &Plant, claim: &Claim) -> (Credential, Mark) {
    wait_for("the permit to count", Duration::from_secs(30), || async {
        let mut line = claim_line(plant.world, claim).await;
        let key = Key::new();
        let answer = ask(plant.world, &mut line, claim, ID, key.request(ID)).await;
        match &answer.body {
            Body::Rejected(rejected) if rejected.code == Code::Revoked => bail!("{}", rejected.message),
            _ => Ok((Credential::new(key, certificate(&answer)), Mark::of(&answer))),
        }
    })
    .await
    .unwrap()
}

#[tokio::test]
async fn a_stolen_key_moves_nothing_and_the_device_comes_back_by_a_permit_given_since() {
    let (plant, claim) = Plant::new("stolen", &[ID]).await;
    let mut thief = Device::enrolled(&plant, &claim, ID).await;
    // Given before: void from then on.
    plant.change(ID, json!({ "reenrol": { "permit": "ticket-1" } })).await;
    plant.rotate("running").await;
    let mark = thief.job().await;
    thief.say(Some(mark), status(Step::Accepted, None)).await;
    thief.line.silent("accepted").await;
    plant
        .change(ID, json!({ "revocation": { "reason": "keyCompromise" } }))
        .await;
    plant
        .wait_status(ID, "to be revoked", |s| s.state == Some(DeviceState::Revoked))
        .await;

    // The session goes on here, as this broker has no adapter; the key counts for nothing on it.
    let said = [
        Body::Hello(thief.hello_body(None)),
        request(Key::new().request(ID)),
        tested(thief.active.fingerprint),
        status(Step::RolledBack, None),
    ];
    let before = plant.status(ID).await;
    for body in said {
        let (kind, mark) = (body.kind(), (body.kind() != Type::Hello).then_some(mark));
        thief.say(mark, body).await;
        thief.line.refused("a revoked key", kind, Code::Revoked).await;
    }
    let mut line = claim_line(plant.world, &claim).await;
    let answer = ask(plant.world, &mut line, &claim, ID, Key::new().request(ID)).await;
    assert_refused("without a permit since", &answer, Code::Revoked);
    assert_eq!(plant.status(ID).await.job, before.job);

    plant.permit(ID, "ticket-2").await;
    let (credential, mark) = let_in(&plant, &claim).await;
    let mut device = Device::commissioned(plant.world, ID, credential, mark).await;
    plant
        .wait_status(ID, "to be back", |s| s.state == Some(DeviceState::Active))
        .await;
    // What would send a device back, said by the thief.
    let back = Body::Hello(thief.hello_body(Some((mark.job, Progress::RolledBack))));
    device.say_by(&thief.active, None, back).await;
    device.line.refused("the stolen key", Type::Hello, Code::WrongKey).await;
    plant.rotate("again").await;
    device.rotate().await;
}

#[tokio::test]
async fn a_device_on_hold_is_refused_even_with_a_permit_and_goes_on_once_released() {
    let id = "held-1";
    let (plant, claim) = Plant::new("held", &[id]).await;
    let mut device = Device::enrolled(&plant, &claim, id).await;
    let hold = json!({ "revocation": { "hold": true }, "reenrol": { "permit": "ticket-1" } });
    plant.change(id, hold).await;
    plant
        .wait_status(id, "to be on hold", |s| s.state == Some(DeviceState::Held))
        .await;
    device.hello(None).await;
    device.line.refused("on hold", Type::Hello, Code::Revoked).await;
    let mut line = claim_line(plant.world, &claim).await;
    let answer = ask(plant.world, &mut line, &claim, id, Key::new().request(id)).await;
    assert_refused("on hold", &answer, Code::Revoked);
    plant.change(id, json!({ "revocation": Value::Null })).await;
    plant
        .wait_status(id, "to be released", |s| s.state == Some(DeviceState::Active))
        .await;
    device.hello(None).await;
    device.line.silent("released").await;
    plant.rotate("released").await;
    device.rotate().await;
}

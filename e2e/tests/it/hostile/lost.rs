//! Answers that get lost at the worst moment: from the proof on it only goes forward.

use certwave_crds::{DeviceCertificateStatus, JobState};
use certwave_protocol::message::{Body, Progress, Slot, Slots, Step, Type};
use serde_json::json;

use super::device::{Device, Mark, status, tested};
use super::keys::{Credential, Key};
use super::plant::Plant;

/// Up to a `tested` whose answer nobody takes.
async fn proven(device: &mut Device) -> (Mark, Credential) {
    let mark = device.job().await;
    device.say(Some(mark), status(Step::Accepted, None)).await;
    let pending = device.request(mark, Key::new()).await;
    device.reconnect(&pending.identity.clone()).await;
    device.say_by(&pending, Some(mark), tested(pending.fingerprint)).await;
    assert_eq!(device.line.answer().await.body.kind(), Type::Commit);
    (mark, pending)
}

async fn confirmed(plant: &Plant, device: &Device, mark: Mark) {
    plant
        .wait_status(device.id.as_str(), "to be confirmed", |status| {
            let job = status.job.as_ref();
            job.is_some_and(|job| job.id == mark.job.to_string() && job.state == JobState::Confirmed)
        })
        .await;
}

/// The state of a device that has committed, as `hello` tells it.
async fn hello_from_the_new_slot(device: &mut Device, new: &Credential, job: Option<Mark>) {
    let mut hello = device.hello_body(job.map(|mark| (mark.job, Progress::Committed)));
    hello.active = Slot::B;
    hello.slots = Slots {
        a: Some(device.active.fingerprint),
        b: Some(new.fingerprint),
    };
    device.say_by(new, None, Body::Hello(hello)).await;
}

#[tokio::test]
async fn a_commit_that_was_lost_is_said_again_to_a_device_that_went_back() {
    let (plant, claim) = Plant::new("commit-lost", &["lost-1"]).await;
    let mut device = Device::enrolled(&plant, &claim, "lost-1").await;
    plant.rotate("first").await;
    let (mark, pending) = proven(&mut device).await;

    device.reconnect(&device.active.identity.clone()).await;
    for _ in 0..2 {
        device.hello(Some((mark.job, Progress::TrialOver))).await;
        let answer = device.line.answer().await;
        assert_eq!((answer.body.kind(), answer.job), (Type::Commit, Some(mark.job)));
    }
    device.say_by(&pending, Some(mark), status(Step::Committed, None)).await;
    device.line.silent("committed").await;
    confirmed(&plant, &device, mark).await;

    device.active = pending;
    device.last = mark;
    plant.rotated("first").await;
    plant.rotate("second").await;
    device.rotate().await;
}

#[tokio::test]
async fn a_committed_that_was_lost_is_made_good_by_the_next_hello() {
    let (plant, claim) = Plant::new("committed-lost", &["lost-2", "lost-3"]).await;
    let (mut told, mut untold) = tokio::join!(
        Device::enrolled(&plant, &claim, "lost-2"),
        Device::enrolled(&plant, &claim, "lost-3")
    );
    plant.rotate("first").await;
    // One names the job in its hello; the other has even forgotten that.
    for (device, names_the_job) in [(&mut told, true), (&mut untold, false)] {
        let (mark, pending) = proven(device).await;
        device.reconnect(&pending.identity.clone()).await;
        hello_from_the_new_slot(device, &pending, names_the_job.then_some(mark)).await;
        device.line.silent("hello from the new slot").await;
        confirmed(&plant, device, mark).await;
        device.active = pending;
        device.last = mark;
    }
    plant.rotated("first").await;
    plant.rotate("second").await;
    tokio::join!(told.rotate(), untold.rotate());
}

#[tokio::test]
async fn a_device_that_went_back_for_good_stays_on_what_it_had() {
    let (plant, claim) = Plant::new("gone-back", &["lost-4"]).await;
    let mut device = Device::enrolled(&plant, &claim, "lost-4").await;
    plant.rotate("first").await;
    let (mark, pending) = proven(&mut device).await;
    device.reconnect(&device.active.identity.clone()).await;
    device.say(Some(mark), status(Step::RolledBack, None)).await;
    device.say(Some(mark), status(Step::RolledBack, None)).await;
    device.line.silent("rolled back, twice").await;
    // What it went back from is revoked: nobody who held the new key for a while turns that round again.
    device.say_by(&pending, Some(mark), status(Step::Committed, None)).await;
    let code = certwave_protocol::code::Code::Revoked;
    device.line.refused("committed after all", Type::Status, code).await;
    device.say_by(&pending, Some(mark), tested(pending.fingerprint)).await;
    device.line.refused("tested after all", Type::Tested, code).await;
    plant.rotated("first").await;
    plant.rotate("second").await;
    device.rotate().await;
}

#[tokio::test]
async fn a_device_back_on_its_previous_certificate_is_heard_and_rotated_from_there() {
    let (plant, claim) = Plant::new("previous", &["lost-5"]).await;
    let mut device = Device::enrolled(&plant, &claim, "lost-5").await;
    plant.rotate("first").await;
    let (mark, pending) = proven(&mut device).await;
    device.say_by(&pending, Some(mark), status(Step::Committed, None)).await;
    device.line.silent("committed").await;
    plant.rotated("first").await;

    // The broker refuses the new one after all: the device still has the old one.
    device.reconnect(&device.active.identity.clone()).await;
    device.hello(Some((mark.job, Progress::Committed))).await;
    device.line.silent("hello from the old slot").await;
    plant.rotate("second").await;
    device.rotate().await;
    plant.rotated("second").await;
}

#[tokio::test]
async fn a_device_whose_clock_is_years_off_is_shown_and_served() {
    let (plant, claim) = Plant::new("clock", &["clock-1"]).await;
    let mut device = Device::enrolled(&plant, &claim, "clock-1").await;
    for clock in [0, -1, i64::MIN, i64::MAX, 4_000_000_000] {
        let mut hello = device.hello_body(None);
        hello.clock = clock;
        device.say(None, Body::Hello(hello)).await;
        device.line.silent("a wrong clock").await;
    }
    plant
        .wait_status("clock-1", "to show its clock", |status| {
            let mut conditions = status.conditions.iter();
            conditions.any(|c| c.type_ == "ClockSkew" && c.status == "True")
        })
        .await;
    plant.rotate("first").await;
    device.rotate().await;

    device.hello(None).await;
    plant
        .wait_status("clock-1", "to show that its clock is right", |status| {
            status.conditions.iter().all(|c| c.type_ != "ClockSkew")
        })
        .await;
}

#[tokio::test]
async fn a_job_that_waits_for_its_device_is_cancelled_when_its_rotation_is_called_off() {
    let (plant, claim) = Plant::new("called-off", &["off-1"]).await;
    let mut device = Device::enrolled(&plant, &claim, "off-1").await;
    let gone = json!({ "v": 1, "online": false, "session": device.line.session.to_string() });
    device.line.publish(Type::Online, gone.to_string().as_bytes()).await;
    drop(device);
    // Should the job be sent before the controller has heard of it, the device does not accept it in time.
    let soon = json!({ "device": { "stepTimeout": "1s", "offlineAfter": "3s", "retries": { "max": 0 } } });
    plant.rotate_with("first", &soon).await;
    let job_is = |state: JobState| {
        move |status: &DeviceCertificateStatus| status.job.as_ref().is_some_and(|job| job.state == state)
    };
    plant
        .wait_status("off-1", "to have a job", job_is(JobState::Queued))
        .await;
    plant.abort("first").await;
    plant
        .wait_status("off-1", "to have its job cancelled", job_is(JobState::Cancelled))
        .await;
}

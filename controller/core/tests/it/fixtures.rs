//! A device, its certificates, and what is said to it and by it.

use certwave_core::model::{Credential, Device, Identity, JobKind, JobState, Millis, ObjectRef};
use certwave_core::policy::JobPolicy;
use certwave_core::step::{self, Context, Decision, Event, JobMark, NewJob, Report, Send, Signer};
use certwave_protocol::code::Code;
use certwave_protocol::ids::{Fingerprint, JobId, Nonce};
use certwave_protocol::message::{Hello, JobView, Slot, Slots, Step, Subject};

/// Unix milliseconds.
pub(crate) const NOW: Millis = 1_800_000_000_000;
/// The controller's epoch.
pub(crate) const EPOCH: u64 = 7;
/// Seconds.
pub(crate) const YEAR: i64 = 31_536_000;

/// The certificate called `n`, with a year left.
pub(crate) fn credential(n: u8) -> Credential {
    Credential {
        fingerprint: Fingerprint([n; 32]),
        spki: Fingerprint([n ^ 0x80; 32]),
        serial: format!("{n:02x}"),
        issuer: "ca".to_owned(),
        not_before: NOW / 1000 - YEAR,
        not_after: NOW / 1000 + YEAR,
        public_key: vec![n],
    }
}

/// A device that holds the first certificate and is connected.
pub(crate) fn enrolled() -> Device {
    let id = Identity {
        broker: "plant".parse().unwrap(),
        device: "meter-1".parse().unwrap(),
    };
    let object = ObjectRef {
        namespace: "default".to_owned(),
        name: "meter-1".to_owned(),
    };
    let mut device = Device::declared(id, object, "meters".to_owned());
    device.current = Some(credential(1));
    device.session = Some(Nonce([1; 16]));
    device
}

/// How jobs run by default.
pub(crate) fn policy() -> JobPolicy {
    JobPolicy::default()
}

/// A decision at `now`, in the epoch that all tests are in.
pub(crate) fn ctx(policy: &JobPolicy, now: Millis) -> Context<'_> {
    Context {
        now,
        epoch: EPOCH,
        policy,
    }
}

/// A job of no Rotation.
pub(crate) fn new_job(kind: JobKind) -> NewJob {
    NewJob {
        id: JobId::from_u128(9),
        nonce: Nonce([9; 16]),
        kind,
        rotation: None,
    }
}

/// What messages of the device's job bear.
pub(crate) fn mark(device: &Device) -> JobMark {
    let job = device.job.as_ref().unwrap();
    JobMark {
        id: job.id,
        nonce: Some(job.nonce),
        epoch: Some(EPOCH),
    }
}

/// The change that was decided.
pub(crate) fn after(decision: Decision) -> (Device, Option<Send>) {
    match decision {
        Decision::Change { device, send } => (*device, send),
        other => panic!("no change: {other:?}"),
    }
}

/// The device reports `step` of its job.
pub(crate) fn status(device: &Device, step: Step, signer: Signer) -> Event {
    Event::Status {
        mark: mark(device),
        report: Report {
            signer,
            session: Nonce([2; 16]),
            step,
            code: None,
            detail: None,
        },
    }
}

/// A device with a rotation in the given state.
pub(crate) fn rotating(state: JobState) -> Device {
    let p = policy();
    let c = ctx(&p, NOW);
    let (mut device, _) = after(step::start(&c, &enrolled(), new_job(JobKind::Rotate)));
    if state == JobState::Queued {
        return device;
    }
    (device, _) = after(step::step(&c, &device, &Event::Offer));
    if state == JobState::Sent {
        return device;
    }
    (device, _) = after(step::step(
        &c,
        &device,
        &status(&device, Step::Accepted, Signer::Current),
    ));
    if state == JobState::Accepted {
        return device;
    }
    (device, _) = after(step::issued(
        &c,
        &device,
        Signer::Current,
        Nonce([2; 16]),
        credential(2),
    ));
    if state == JobState::Issued {
        return device;
    }
    (device, _) = after(step::step(&c, &device, &tested(&device, Signer::Pending)));
    if state == JobState::Committing {
        return device;
    }
    (device, _) = after(step::step(
        &c,
        &device,
        &status(&device, Step::Committed, Signer::Pending),
    ));
    assert_eq!(device.job.as_ref().unwrap().state, JobState::Confirmed);
    device
}

/// The device connected with the second certificate.
pub(crate) fn tested(device: &Device, signer: Signer) -> Event {
    let subject = Subject::Certificate(credential(2).fingerprint);
    Event::Tested {
        mark: mark(device),
        signer,
        session: Nonce([3; 16]),
        subject,
    }
}

/// A device starts from `active` and says so; `slots` are the certificates in A and B.
pub(crate) fn hello(active: Slot, slots: [&Credential; 2], job: Option<JobView>, signer: Signer) -> Event {
    let [a, b] = slots.map(|held| Some(held.fingerprint));
    Event::Hello {
        hello: Hello {
            agent: "test".to_owned(),
            active,
            slots: Slots { a, b },
            job,
            clock: 0,
            bundle: Fingerprint([0; 32]),
            reconnect: None,
            alert: None,
        },
        signer,
        session: Nonce([4; 16]),
    }
}

/// What follows from `event` at [`NOW`].
pub(crate) fn decide(device: &Device, event: &Event) -> Decision {
    step::step(&ctx(&policy(), NOW), device, event)
}

/// Why `event` is refused.
pub(crate) fn refused(device: &Device, event: &Event) -> Code {
    match decide(device, event) {
        Decision::Refuse(code, _) => code,
        other => panic!("not refused: {other:?}"),
    }
}

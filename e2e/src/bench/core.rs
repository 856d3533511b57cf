//! How fast the pure decisions are.

use std::hint::black_box;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use certwave_core::model::{Credential, Device, Identity, JobKind, JobState, ObjectRef};
use certwave_core::policy::JobPolicy;
use certwave_core::rollout::judge::{Control, Gates, Seen, judge};
use certwave_core::rollout::plan::{Candidate, plan};
use certwave_core::rollout::run::{Plan, Run, WaveCounts};
use certwave_core::rollout::strategy::Strategy;
use certwave_core::step::{self, Context, Decision, Event, JobMark, NewJob, Signer};
use certwave_protocol::ids::{Fingerprint, JobId, Nonce};
use certwave_protocol::message::{Step, Subject};

use super::{Report, number};

const DEVICES: u32 = 1_000_000;
const SITES: u32 = 2_000;
const ROTATIONS: u32 = 100_000;
/// Unix milliseconds.
const NOW: i64 = 1_800_000_000_000;
const EPOCH: u64 = 7;

/// `core.plan`: a million devices, spread over sites and ending within two months, become the default waves. `core.step`: one
/// event of one device, decided, with the judgement of its Rotation that follows it.
pub(super) fn measure(report: &mut Report) -> Result<()> {
    let plan = measure_plan(report)?;
    measure_step(report, &plan)
}

fn measure_plan(report: &mut Report) -> Result<Plan> {
    let ids: Vec<String> = (0..DEVICES).map(|n| format!("meter-{n:07}")).collect();
    let candidates: Vec<Candidate<'_>> = ids
        .iter()
        .zip(0u32..)
        .map(|(id, n)| {
            let spread = n.wrapping_mul(2_654_435_761);
            Candidate {
                id,
                not_after: NOW / 1000 + i64::from(spread % (60 * 86_400)),
                group: spread % SITES,
                waves: u64::MAX,
            }
        })
        .collect();
    let start = Instant::now();
    let (plan, places) = black_box(plan(&Strategy::default(), black_box(&candidates)))?;
    report.add("core.plan", start.elapsed().as_secs_f64(), "s")?;
    if places.len() != ids.len() {
        bail!("{} of {} devices have a place", places.len(), ids.len());
    }
    Ok(plan)
}

fn measure_step(report: &mut Report, plan: &Plan) -> Result<()> {
    let strategy = Strategy::default();
    let mut run = Run::default();
    let mut waves = vec![WaveCounts::default(); plan.waves.len()];
    for (counts, wave) in waves.iter_mut().zip(&plan.waves) {
        counts.members = wave.size;
        counts.planned = wave.size;
    }
    let device = enrolled()?;
    let mut events = 0;
    let start = Instant::now();
    for rotation in 0..ROTATIONS {
        let device = rotate(black_box(&device), || {
            events += 1;
            if let Some(canary) = waves.first_mut() {
                canary.changed = NOW + i64::from(rotation);
            }
            let seen = Seen {
                waves: &waves,
                control: Control::default(),
                gates: Gates::Well,
                fault: None,
                ledger_out: None,
                clock_turned: None,
                starting: false,
                preempted_by: None,
                online: 0,
            };
            run = black_box(judge(NOW, &strategy, plan, &run, &seen)).run;
        })?;
        black_box(device);
    }
    let elapsed = start.elapsed().as_secs_f64();
    report.add("core.step", elapsed * 1e6 / number(events), "µs")
}

/// A rotation from its start to its proof; `judge` is called after each event.
fn rotate(device: &Device, mut judge: impl FnMut()) -> Result<Device> {
    let policy = JobPolicy::default();
    let context = Context {
        now: NOW,
        epoch: EPOCH,
        policy: &policy,
    };
    let mut changed = |decision: Decision| match decision {
        Decision::Change { device, .. } => {
            judge();
            Ok(*device)
        }
        other => bail!("the rotation does not go on: {other:?}"),
    };
    let new = NewJob {
        id: JobId::from_u128(9),
        nonce: Nonce([9; 16]),
        kind: JobKind::Rotate,
        rotation: Some("bench".to_owned()),
    };
    let mark = JobMark {
        id: new.id,
        nonce: Some(new.nonce),
        epoch: Some(EPOCH),
    };
    let status = |step, signer| Event::Status {
        mark,
        report: step::Report {
            signer,
            session: Nonce([2; 16]),
            step,
            code: None,
            detail: None,
        },
    };
    let device = changed(step::start(&context, device, new))?;
    let device = changed(step::step(&context, &device, &Event::Offer))?;
    let device = changed(step::step(&context, &device, &status(Step::Accepted, Signer::Current)))?;
    let device = changed(step::issued(
        &context,
        &device,
        step::Signer::Current,
        Nonce([2; 16]),
        credential(2),
    ))?;
    let tested = Event::Tested {
        mark,
        signer: Signer::Pending,
        session: Nonce([3; 16]),
        subject: Subject::Certificate(credential(2).fingerprint),
    };
    let device = changed(step::step(&context, &device, &tested))?;
    let device = changed(step::step(&context, &device, &status(Step::Committed, Signer::Pending)))?;
    match device.job.as_ref().map(|job| job.state) {
        Some(JobState::Confirmed) => Ok(device),
        state => bail!("the rotation ended as {state:?}"),
    }
}

fn enrolled() -> Result<Device> {
    let id = Identity {
        broker: "bench".parse().context("broker id")?,
        device: "meter-0000001".parse().context("device id")?,
    };
    let object = ObjectRef {
        namespace: "default".to_owned(),
        name: "meter-0000001".to_owned(),
    };
    let mut device = Device::declared(id, object, "meters".to_owned());
    device.current = Some(credential(1));
    device.session = Some(Nonce([1; 16]));
    for (key, value) in [("site", "hall-7"), ("model", "m3"), ("ring", "main")] {
        device.labels.insert(key.to_owned(), value.to_owned());
    }
    Ok(device)
}

/// The certificate called `n`, with a year left.
fn credential(n: u8) -> Credential {
    Credential {
        fingerprint: Fingerprint([n; 32]),
        spki: Fingerprint([n ^ 0x80; 32]),
        serial: format!("{n:040x}"),
        issuer: "ca".repeat(20),
        not_before: NOW / 1000,
        not_after: NOW / 1000 + 31_536_000,
        public_key: vec![n; 91],
    }
}

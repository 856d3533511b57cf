//! What must hold for every decision, over random histories and one by one.
#![allow(clippy::unwrap_used, clippy::panic)]

use certwave_core::backoff;
use certwave_core::due::{self, Target};
use certwave_core::job::TABLE;
use certwave_core::model::{Credential, Device, Identity, JobKind, JobState, Millis, ObjectRef};
use certwave_core::policy::JobPolicy;
use certwave_core::step::{self, Context, Decision, Enrolment, Event, JobMark, NewJob, Send, Signer};
use certwave_protocol::code::Code;
use certwave_protocol::ids::{Fingerprint, JobId, Nonce};
use certwave_protocol::message::{Hello, JobView, Progress, Slot, Slots, Step, Subject};
use proptest::prelude::*;

const NOW: Millis = 1_800_000_000_000;
const EPOCH: u64 = 7;
const YEAR: i64 = 31_536_000;

fn credential(n: u8) -> Credential {
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

fn enrolled() -> Device {
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

fn policy() -> JobPolicy {
    JobPolicy::default()
}

fn ctx(policy: &JobPolicy, now: Millis) -> Context<'_> {
    Context {
        now,
        epoch: EPOCH,
        policy,
    }
}

fn new_job(kind: JobKind) -> NewJob {
    NewJob {
        id: JobId::from_u128(9),
        nonce: Nonce([9; 16]),
        kind,
        rotation: None,
    }
}

fn mark(device: &Device) -> JobMark {
    let job = device.job.as_ref().unwrap();
    JobMark {
        id: job.id,
        nonce: Some(job.nonce),
        epoch: Some(EPOCH),
    }
}

fn after(decision: Decision) -> (Device, Option<Send>) {
    match decision {
        Decision::Change { device, send } => (*device, send),
        other => panic!("no change: {other:?}"),
    }
}

fn status(device: &Device, step: Step, signer: Signer) -> Event {
    Event::Status {
        mark: mark(device),
        signer,
        session: Nonce([2; 16]),
        step,
        code: None,
        detail: None,
    }
}

/// A device with a rotation in the given state.
fn rotating(state: JobState) -> Device {
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
    (device, _) = after(step::issued(&c, &device, Nonce([2; 16]), credential(2)));
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

fn tested(device: &Device, signer: Signer) -> Event {
    let subject = Subject::Certificate(credential(2).fingerprint);
    Event::Tested {
        mark: mark(device),
        signer,
        session: Nonce([3; 16]),
        subject,
    }
}

fn decide(device: &Device, event: &Event) -> Decision {
    step::step(&ctx(&policy(), NOW), device, event)
}

fn refused(device: &Device, event: &Event) -> Code {
    match decide(device, event) {
        Decision::Refuse(code, _) => code,
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn a_rotation_goes_from_queued_to_confirmed_and_keeps_the_old_certificate() {
    let device = rotating(JobState::Confirmed);
    assert_eq!(device.current, Some(credential(2)));
    assert_eq!(device.previous, Some(credential(1)));
    assert_eq!(device.pending, None);
}

#[test]
fn a_test_before_the_certificate_was_sent_is_refused() {
    let device = rotating(JobState::Accepted);
    assert_eq!(refused(&device, &tested(&device, Signer::Pending)), Code::OutOfOrder);
}

#[test]
fn a_test_signed_by_the_old_key_proves_nothing() {
    let device = rotating(JobState::Issued);
    assert_eq!(refused(&device, &tested(&device, Signer::Current)), Code::WrongKey);
}

#[test]
fn a_proof_over_another_nonce_job_or_epoch_is_refused() {
    let device = rotating(JobState::Issued);
    let with = |change: &dyn Fn(&mut JobMark)| {
        let mut mark = mark(&device);
        change(&mut mark);
        let subject = Subject::Certificate(credential(2).fingerprint);
        refused(
            &device,
            &Event::Tested {
                mark,
                signer: Signer::Pending,
                session: Nonce([3; 16]),
                subject,
            },
        )
    };
    assert_eq!(with(&|m| m.nonce = Some(Nonce([8; 16]))), Code::WrongNonce);
    assert_eq!(with(&|m| m.nonce = None), Code::WrongNonce);
    assert_eq!(with(&|m| m.id = JobId::from_u128(1)), Code::UnknownJob);
    assert_eq!(with(&|m| m.epoch = Some(EPOCH - 1)), Code::WrongEpoch);
    assert_eq!(with(&|m| m.epoch = Some(EPOCH + 1)), Code::WrongEpoch);
    assert_eq!(with(&|m| m.epoch = None), Code::WrongEpoch);
}

#[test]
fn another_request_for_the_same_job_fails_it_and_the_same_one_gets_the_same_answer() {
    let device = rotating(JobState::Issued);
    let csr = |key| Event::Csr {
        mark: mark(&device),
        signer: Signer::Current,
        session: Nonce([2; 16]),
        key,
    };
    assert_eq!(
        decide(&device, &csr(credential(2).spki)),
        Decision::Same(Some(Send::Certificate))
    );
    let (failed, _) = after(decide(&device, &csr(Fingerprint([66; 32]))));
    let job = failed.job.unwrap();
    assert_eq!((job.state, job.code), (JobState::Failed, Some(Code::CsrChanged)));
    assert_eq!(failed.current, Some(credential(1)));
}

#[test]
fn a_lost_commit_is_said_again_and_a_lost_committed_is_replaced_by_hello() {
    let device = rotating(JobState::Committing);
    let hello = |active, progress, signer| Event::Hello {
        hello: Hello {
            agent: "test".to_owned(),
            active,
            slots: Slots {
                a: Some(credential(1).fingerprint),
                b: Some(credential(2).fingerprint),
            },
            job: Some(JobView {
                id: JobId::from_u128(9),
                progress,
            }),
            clock: 0,
            bundle: Fingerprint([0; 32]),
            reconnect: None,
            alert: None,
        },
        signer,
        session: Nonce([4; 16]),
    };
    let (waiting, send) = after(decide(&device, &hello(Slot::A, Progress::TrialOver, Signer::Current)));
    assert_eq!(send, Some(Send::Commit));
    assert_eq!(waiting.job.unwrap().state, JobState::Committing);
    let (confirmed, _) = after(decide(&device, &hello(Slot::B, Progress::Committed, Signer::Pending)));
    assert_eq!(confirmed.job.unwrap().state, JobState::Confirmed);
    assert_eq!(confirmed.current, Some(credential(2)));
}

#[test]
fn a_job_that_timed_out_after_commit_is_still_confirmed_when_the_device_comes_back() {
    let p = policy();
    let device = rotating(JobState::Committing);
    let late = NOW + 10 * p.job_timeout;
    let (timed_out, send) = after(step::step(&ctx(&p, late), &device, &Event::Deadline));
    let job = timed_out.job.as_ref().unwrap();
    assert_eq!((job.state, send), (JobState::TimedOut, None));
    assert_eq!(
        timed_out.pending,
        Some(credential(2)),
        "what may be in use is not forgotten"
    );
    let (lost, _) = after(step::step(&ctx(&p, late + p.lost_after), &timed_out, &Event::Deadline));
    assert_eq!(lost.job.as_ref().unwrap().state, JobState::Lost);
    let back = status(&lost, Step::Committed, Signer::Pending);
    let (confirmed, _) = after(step::step(&ctx(&p, late + YEAR), &lost, &back));
    assert_eq!(confirmed.current, Some(credential(2)));
}

#[test]
fn the_key_of_a_committed_certificate_stays_known_when_another_job_begins() {
    let p = policy();
    let committing = rotating(JobState::Committing);
    let late = committing.job.as_ref().unwrap().job_deadline.unwrap();
    let (lost, _) = after(step::step(&ctx(&p, late), &committing, &Event::Deadline));
    assert_eq!(lost.job.as_ref().unwrap().state, JobState::TimedOut);
    let other = NewJob {
        id: JobId::from_u128(77),
        ..new_job(JobKind::Rotate)
    };
    let (next, _) = after(step::start(&ctx(&p, late), &lost, other));
    let pending = lost.pending.clone().unwrap();
    assert_eq!(next.pending, lost.pending, "the device may start from it");
    // It obeyed the commit, was switched off, and comes back with the new certificate.
    let hello = Event::Hello {
        hello: Hello {
            agent: "test".to_owned(),
            active: Slot::B,
            slots: Slots {
                a: lost.current.as_ref().map(|c| c.fingerprint),
                b: Some(pending.fingerprint),
            },
            job: None,
            clock: 0,
            bundle: Fingerprint([0; 32]),
            reconnect: None,
            alert: None,
        },
        signer: Signer::Pending,
        session: Nonce([4; 16]),
    };
    let (back, _) = after(step::step(&ctx(&p, late), &next, &hello));
    assert_eq!(
        (back.current, back.previous, back.pending),
        (Some(pending), lost.current, None)
    );
    assert_eq!(back.job.unwrap().state, JobState::Queued);
}

#[test]
fn the_certificate_that_a_device_went_back_to_is_the_one_to_renew_in_time() {
    let p = policy();
    let mut device = rotating(JobState::Confirmed);
    device.bundle = Some(Fingerprint([0; 32]));
    let (used, broken) = (device.previous.clone().unwrap(), device.current.clone().unwrap());
    let hello = |job| Event::Hello {
        hello: Hello {
            agent: "test".to_owned(),
            active: Slot::A,
            slots: Slots {
                a: Some(used.fingerprint),
                b: Some(broken.fingerprint),
            },
            job: Some(JobView {
                id: job,
                progress: Progress::Committed,
            }),
            clock: 0,
            bundle: Fingerprint([0; 32]),
            reconnect: None,
            alert: None,
        },
        signer: Signer::Previous,
        session: Nonce([4; 16]),
    };
    let (same, _) = after(step::step(&ctx(&p, NOW), &device, &hello(JobId::from_u128(1))));
    assert_eq!(same.current, device.current, "an old hello says nothing");
    let latest = device.job.as_ref().unwrap().id;
    let (back, _) = after(step::step(&ctx(&p, NOW), &device, &hello(latest)));
    assert_eq!((back.current, back.previous), (Some(used), Some(broken)));
}

#[test]
fn a_late_test_is_a_proof_though_the_job_had_timed_out() {
    let p = policy();
    let issued = rotating(JobState::Issued);
    let late = issued.job.as_ref().unwrap().next_deadline().unwrap();
    let (over, _) = after(step::step(&ctx(&p, late), &issued, &Event::Deadline));
    assert_eq!(over.job.as_ref().unwrap().state, JobState::TimedOut);
    let (proven, send) = after(step::step(&ctx(&p, late), &over, &tested(&over, Signer::Pending)));
    let job = proven.job.as_ref().unwrap();
    assert_eq!(
        (job.state, job.committed, send),
        (JobState::TimedOut, true, Some(Send::Commit))
    );
    let committed = status(&proven, Step::Committed, Signer::Pending);
    let (done, _) = after(step::step(&ctx(&p, late), &proven, &committed));
    assert_eq!(done.job.unwrap().state, JobState::Confirmed);
    assert_eq!((done.current, done.previous), (over.pending, over.current));
}

#[test]
fn a_deadline_that_passed_for_a_fault_of_ours_is_put_off() {
    let p = policy();
    let accepted = rotating(JobState::Accepted);
    let late = accepted.job.as_ref().unwrap().job_deadline.unwrap() + 1;
    let (waits, send) = after(step::step(&ctx(&p, late), &accepted, &Event::Postpone));
    let job = waits.job.as_ref().unwrap();
    assert_eq!((job.state, send), (JobState::Accepted, None));
    assert_eq!(job.next_deadline(), Some(late + p.step_timeout));
    let again = step::step(&ctx(&p, late + p.step_timeout), &waits, &Event::Deadline);
    assert_eq!(after(again).0.job.unwrap().state, JobState::TimedOut);
}

#[test]
fn a_device_that_went_back_keeps_the_certificate_it_uses_through_the_next_rotation() {
    let p = policy();
    let mut device = enrolled();
    device.previous = Some(credential(8));
    let (used, broken) = (device.previous.clone(), device.current.clone());
    device.session = Some(Nonce([4; 16]));
    let (queued, _) = after(step::start(&ctx(&p, NOW), &device, new_job(JobKind::Rotate)));
    let (sent, _) = after(step::step(&ctx(&p, NOW), &queued, &Event::Offer));
    let (accepted, _) = after(decide(&sent, &status(&sent, Step::Accepted, Signer::Previous)));
    assert_eq!((accepted.current, accepted.previous), (used, broken));
}

#[test]
fn a_device_that_does_not_accept_gives_its_slot_back_and_does_not_fail() {
    let p = policy();
    let device = rotating(JobState::Sent);
    let (again, send) = after(step::step(&ctx(&p, NOW + p.step_timeout), &device, &Event::Deadline));
    assert_eq!(send, Some(Send::Job));
    let (queued, _) = after(step::step(
        &ctx(&p, NOW + 2 * p.offline_after),
        &again,
        &Event::Deadline,
    ));
    let state = queued.job.as_ref().unwrap().state;
    assert!(state == JobState::Queued && !state.in_flight() && !state.went_wrong());
    assert_eq!(
        decide(&queued, &Event::Offer),
        Decision::Same(None),
        "asked again only once it was heard"
    );
}

#[test]
fn a_job_is_newer_than_the_last_though_the_clock_went_back() {
    let p = policy();
    let device = rotating(JobState::Confirmed);
    let mut new = new_job(JobKind::Rotate);
    new.id = JobId::from_u128(1);
    let (next, _) = after(step::start(&ctx(&p, NOW), &device, new));
    assert!(next.job.unwrap().id > device.job.unwrap().id);
}

#[test]
fn a_job_that_waits_ends_with_the_certificate_of_its_device() {
    let p = policy();
    let device = rotating(JobState::Queued);
    let end = credential(1).not_after * 1000;
    assert_eq!(
        step::step(&ctx(&p, end - 1), &device, &Event::Deadline),
        Decision::Same(None)
    );
    let (over, _) = after(step::step(&ctx(&p, end), &device, &Event::Deadline));
    assert_eq!(over.job.unwrap().state, JobState::Cancelled);
}

#[test]
fn a_rolled_back_device_keeps_its_old_certificate_and_is_not_asked_again_at_once() {
    let device = rotating(JobState::Issued);
    let (back, _) = after(decide(&device, &status(&device, Step::RolledBack, Signer::Current)));
    assert_eq!(back.current, Some(credential(1)));
    assert!(back.not_before.unwrap() > NOW);
    let target = Target {
        issuer: "ca",
        bundle: Fingerprint([0; 32]),
        renew_before: None,
    };
    assert_eq!(due::next_job(NOW, &back, &target), None);
    assert_eq!(due::next_job(NOW + backoff::MAX, &back, &target), Some(JobKind::Rotate));
}

#[test]
fn trust_comes_before_the_leaf_and_an_expired_device_is_not_asked() {
    let mut device = enrolled();
    device.bundle = Some(Fingerprint([1; 32]));
    let target = Target {
        issuer: "new-ca",
        bundle: Fingerprint([2; 32]),
        renew_before: Some(0),
    };
    assert_eq!(
        due::next_job(NOW, &device, &target),
        Some(JobKind::Trust(Fingerprint([2; 32])))
    );
    device.bundle = Some(Fingerprint([2; 32]));
    assert_eq!(due::next_job(NOW, &device, &target), Some(JobKind::Rotate));
    assert_eq!(due::next_job(NOW + 2 * YEAR * 1000, &device, &target), None);
}

#[test]
fn a_claim_opens_enrolment_until_the_first_proof_and_then_a_permit_opens_it_once() {
    let mut device = enrolled();
    let key = credential(5).spki;
    assert_eq!(step::enrolment(&device, key), Enrolment::Refused(Code::AlreadyEnrolled));
    device.current = None;
    assert_eq!(step::enrolment(&device, key), Enrolment::New);
    let p = policy();
    let c = ctx(&p, NOW);
    let enrolling = step::enrolled(
        &c,
        &device,
        JobId::from_u128(1),
        Nonce([1; 16]),
        "line-1".parse().unwrap(),
        credential(5),
    );
    assert_eq!(step::enrolment(&enrolling, key), Enrolment::Again);
    assert_eq!(step::enrolment(&enrolling, credential(6).spki), Enrolment::New);
    let mut proven = enrolling.clone();
    if let Some(job) = proven.job.as_mut() {
        job.committed = true;
    }
    assert_eq!(step::enrolment(&proven, key), Enrolment::Again);
    assert_eq!(
        step::enrolment(&proven, credential(6).spki),
        Enrolment::Refused(Code::AlreadyEnrolled),
        "only forward once commit is sent"
    );
    let mut permitted = enrolled();
    permitted.reenrol = Some("ticket-1".to_owned());
    assert_eq!(step::enrolment(&permitted, key), Enrolment::New);
    let used = step::enrolled(
        &c,
        &permitted,
        JobId::from_u128(1),
        Nonce([1; 16]),
        "line-1".parse().unwrap(),
        credential(5),
    );
    let tested = Event::Tested {
        mark: mark(&used),
        signer: Signer::Pending,
        session: Nonce([3; 16]),
        subject: Subject::Certificate(credential(5).fingerprint),
    };
    let (committing, _) = after(decide(&used, &tested));
    let (done, _) = after(decide(
        &committing,
        &status(&committing, Step::Committed, Signer::Pending),
    ));
    assert_eq!(
        step::enrolment(&done, credential(6).spki),
        Enrolment::Refused(Code::AlreadyEnrolled)
    );
}

#[test]
fn every_state_has_exactly_one_row_and_ended_states_hold_no_slot() {
    for row in &TABLE {
        assert_eq!(TABLE.iter().filter(|r| r.state == row.state).count(), 1);
        assert!(!(row.state.ended() && row.state.in_flight()));
    }
}

fn signer() -> impl Strategy<Value = Signer> {
    prop_oneof![Just(Signer::Current), Just(Signer::Previous), Just(Signer::Pending)]
}

/// Any message of this or another job, from any key, with any content.
fn event() -> impl Strategy<Value = Event> {
    let mark = (0u8..4, 0u8..4, 0u8..4).prop_map(|(id, nonce, epoch)| JobMark {
        id: JobId::from_u128(if id == 0 { 1 } else { 9 }),
        nonce: (nonce != 1).then_some(Nonce([if nonce == 0 { 1 } else { 9 }; 16])),
        epoch: (epoch != 1).then_some(if epoch == 0 { EPOCH + 1 } else { EPOCH }),
    });
    let step = prop_oneof![
        Just(Step::Accepted),
        Just(Step::Rejected),
        Just(Step::Failed),
        Just(Step::Committed),
        Just(Step::RolledBack)
    ];
    let progress = prop_oneof![
        Just(Progress::Accepted),
        Just(Progress::Stored),
        Just(Progress::Trial),
        Just(Progress::TrialOver),
        Just(Progress::Committed),
        Just(Progress::RolledBack),
        Just(Progress::Failed)
    ];
    let session = Nonce([4; 16]);
    prop_oneof![
        (mark.clone(), signer(), step).prop_map(move |(mark, signer, step)| Event::Status {
            mark,
            signer,
            session,
            step,
            code: None,
            detail: None
        }),
        (mark.clone(), signer(), 1u8..4).prop_map(move |(mark, signer, n)| Event::Csr {
            mark,
            signer,
            session,
            key: credential(n).spki
        }),
        (mark, signer(), 1u8..4).prop_map(move |(mark, signer, n)| Event::Tested {
            mark,
            signer,
            session,
            subject: Subject::Certificate(credential(n).fingerprint)
        }),
        (proptest::option::of(progress), signer(), any::<bool>()).prop_map(move |(progress, signer, b)| Event::Hello {
            hello: Hello {
                agent: "test".to_owned(),
                active: if b { Slot::B } else { Slot::A },
                slots: Slots {
                    a: Some(credential(1).fingerprint),
                    b: Some(credential(2).fingerprint)
                },
                job: progress.map(|progress| JobView {
                    id: JobId::from_u128(9),
                    progress
                }),
                clock: 0,
                bundle: Fingerprint([0; 32]),
                reconnect: None,
                alert: None,
            },
            signer,
            session
        }),
        Just(Event::Offer),
        Just(Event::Deadline),
        Just(Event::Postpone),
        Just(Event::Cancel),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    /// Whatever is said in whatever order: states follow the table, the current certificate is never lost, it changes
    /// only by proof of the new key after a test by the new key, and what has ended stays ended unless it was committed.
    #[test]
    fn no_history_breaks_the_rules(history in proptest::collection::vec((event(), 0i64..4_000_000), 1..60)) {
        let p = policy();
        let mut now = NOW;
        let (mut device, _) = after(step::start(&ctx(&p, now), &enrolled(), new_job(JobKind::Rotate)));
        let mut proven = false;
        for (event, pause) in history {
            now += pause;
            let c = ctx(&p, now);
            let before = device.job.clone().unwrap();
            let decision = match step::step(&c, &device, &event) {
                Decision::Issue => step::issued(&c, &device, Nonce([4; 16]), credential(2)),
                other => other,
            };
            let Decision::Change { device: next, send } = decision else { continue };
            let job = next.job.clone().unwrap();
            if job.state != before.state {
                prop_assert!(before.state.row().next.contains(&job.state), "{:?} -> {:?}", before.state, job.state);
                prop_assert!(!before.state.ended() || before.committed || job.state != JobState::Confirmed);
            }
            if let Event::Tested { signer: Signer::Pending, .. } = &event { proven |= job.committed; }
            prop_assert!(!job.committed || proven, "committed without proof");
            prop_assert!(send != Some(Send::Commit) || job.committed, "commit is said only once it is written");
            prop_assert!(before.committed <= job.committed, "only forward");
            prop_assert!(next.current.is_some());
            if next.current != device.current {
                prop_assert_eq!(job.state, JobState::Confirmed);
                prop_assert!(proven);
                prop_assert_eq!(&next.previous, &device.current);
            }
            if let Some(d) = job.deadline { prop_assert!(d >= now || job.state == before.state); }
            device = *next;
        }
    }

    /// Every job that is under way ends when nobody says anything any more.
    #[test]
    fn every_job_ends_or_waits_without_a_slot(history in proptest::collection::vec(event(), 0..20)) {
        let p = policy();
        let (mut device, _) = after(step::start(&ctx(&p, NOW), &enrolled(), new_job(JobKind::Rotate)));
        let mut now = NOW;
        let apply = |device: &mut Device, event: &Event, now: Millis| {
            let c = ctx(&p, now);
            let decision = match step::step(&c, device, event) {
                Decision::Issue => step::issued(&c, device, Nonce([4; 16]), credential(2)),
                other => other,
            };
            if let Decision::Change { device: next, .. } = decision { *device = *next; }
        };
        for event in &history { apply(&mut device, event, now); }
        for _ in 0..1000 {
            let Some(deadline) = device.job.as_ref().unwrap().next_deadline() else { break };
            now = now.max(deadline);
            apply(&mut device, &Event::Deadline, now);
        }
        prop_assert!(!device.job.unwrap().state.in_flight());
    }

    /// A pause lies between half and the whole of what it is to be, and never above a day.
    #[test]
    fn pauses_grow_and_are_bounded(base in 1i64..100_000_000, attempt in 1u32..100, seed in any::<u64>()) {
        let pause = backoff::pause(base, attempt, seed);
        let full = base.saturating_mul(1 << (attempt - 1).min(20)).min(backoff::MAX);
        prop_assert!(pause >= full / 2 && pause <= full);
    }
}

#[test]
fn a_device_that_does_not_answer_is_asked_ever_more_seldom() {
    let p = policy();
    let queued = rotating(JobState::Queued);
    assert!(due::may_offer(NOW, &queued), "the first time at once");
    assert!(!due::may_offer(NOW, &rotating(JobState::Sent)), "only what waits");

    let (mut device, mut now, mut pauses) = (queued, NOW, Vec::new());
    for _ in 0..3 {
        let asked = Device {
            session: Some(Nonce([2; 16])),
            ..device
        };
        (device, _) = after(step::step(&ctx(&p, now), &asked, &Event::Offer));
        now += p.offline_after;
        (device, _) = after(step::step(&ctx(&p, now), &device, &Event::Deadline));
        let since = now;
        assert!(!due::may_offer(now + 1, &device));
        now += now - NOW;
        assert!(due::may_offer(now, &device));
        pauses.push(now - since);
    }
    assert!(pauses.is_sorted_by(|a, b| a < b), "{pauses:?}");
    assert!(due::may_offer(now - 100 * p.offline_after, &device), "a clock set back");
}

//! What must hold over random histories.

use certwave_core::backoff;
use certwave_core::model::{Device, JobKind, JobState, Millis};
use certwave_core::revocation::Bar;
use certwave_core::step::{self, Context, Decision, Event, JobMark, Report, Send, Signer};
use certwave_protocol::code::Code;
use certwave_protocol::ids::{JobId, Nonce};
use certwave_protocol::message::{JobView, Progress, Slot, Step, Subject};
use proptest::prelude::*;

use crate::fixtures::{EPOCH, NOW, after, credential, ctx, enrolled, hello, new_job, policy};

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
            report: Report {
                signer,
                session,
                step,
                code: None,
                detail: None,
            },
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
        (proptest::option::of(progress), signer(), any::<bool>()).prop_map(move |(progress, signer, b)| {
            let id = JobId::from_u128(9);
            let job = progress.map(|progress| JobView { id, progress });
            let active = if b { Slot::B } else { Slot::A };
            hello(active, [&credential(1), &credential(2)], job, signer)
        }),
        Just(Event::Offer),
        Just(Event::Deadline),
        Just(Event::Postpone),
        Just(Event::Cancel),
    ]
}

fn signer_of(event: &Event) -> Signer {
    match event {
        Event::Csr { signer, .. } => *signer,
        _ => Signer::Current,
    }
}

/// What follows; a certificate that is to be issued is issued.
fn decide(ctx: &Context<'_>, device: &Device, event: &Event) -> Decision {
    match step::step(ctx, device, event) {
        Decision::Issue => step::issued(ctx, device, signer_of(event), Nonce([4; 16]), credential(2)),
        other => other,
    }
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
            let before = device.job.clone().unwrap();
            let Decision::Change { device: next, send } = decide(&ctx(&p, now), &device, &event) else { continue };
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

    /// Whatever is said in the name of a device that a person has revoked or put on hold, wherever its job stood: nothing moves but
    /// the job, and that by time alone, to an end that is nobody's failure.
    #[test]
    fn nothing_that_a_barred_device_says_moves_anything(
        before in proptest::collection::vec((event(), 0i64..4_000_000), 0..30),
        later in proptest::collection::vec((event(), 0i64..4_000_000), 1..30),
        held in any::<bool>(),
    ) {
        let p = policy();
        let mut now = NOW;
        let (mut device, _) = after(step::start(&ctx(&p, now), &enrolled(), new_job(JobKind::Rotate)));
        for (event, pause) in before {
            now += pause;
            if let Decision::Change { device: next, .. } = decide(&ctx(&p, now), &device, &event) { device = *next; }
        }
        device.bar = Some(if held { Bar::Held } else { Bar::Revoked });
        for (event, pause) in later {
            now += pause;
            let said = !matches!(event, Event::Offer | Event::Deadline | Event::Postpone | Event::Cancel);
            match decide(&ctx(&p, now), &device, &event) {
                Decision::Refuse(code, _) => prop_assert_eq!(code, Code::Revoked),
                Decision::Same(send) => prop_assert!(!said && send.is_none()),
                Decision::Issue => prop_assert!(false, "a certificate for a barred device"),
                Decision::Change { device: next, send } => {
                    prop_assert!(!said && send.is_none());
                    let (was, is) = (device.job.as_ref().unwrap().state, next.job.as_ref().unwrap());
                    prop_assert!(was.row().next.contains(&is.state) && is.state.ended(), "{:?} -> {:?}", was, is.state);
                    let kept = Device { job: device.job.clone(), not_before: device.not_before, ..(*next).clone() };
                    prop_assert_eq!(&kept, &device);
                    device = *next;
                }
            }
        }
    }

    /// Every job that is under way ends when nobody says anything any more.
    #[test]
    fn every_job_ends_or_waits_without_a_slot(history in proptest::collection::vec(event(), 0..20)) {
        let p = policy();
        let (mut device, _) = after(step::start(&ctx(&p, NOW), &enrolled(), new_job(JobKind::Rotate)));
        let mut now = NOW;
        let apply = |device: &mut Device, event: &Event, now: Millis| {
            if let Decision::Change { device: next, .. } = decide(&ctx(&p, now), device, event) { *device = *next; }
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

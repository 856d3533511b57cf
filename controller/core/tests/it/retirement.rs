//! Retiring an old certificate: what must hold one by one and over random histories.

use certwave_core::model::{Device, JobKind, JobState, Millis};
use certwave_core::retire::{
    Act, Admission, Decision, Event, Heard, MAX_ATTEMPTS, PAUSE, Phase, Policy, Retirement, Seen, Speaker, Why,
    refused, step, working,
};
use certwave_core::step as job;
use certwave_protocol::ids::Nonce;
use certwave_protocol::message::{JobView, Progress, Slot, Step};
use proptest::prelude::*;

use crate::fixtures::{self, NOW, after, credential, ctx, enrolled, new_job, rotating, status, tested};

const GRACE: Millis = 3_600_000;
const PROBATION: Millis = 60_000;
const POLICY: Policy = Policy { probation: PROBATION };
const NONCE: Nonce = Nonce([7; 16]);

/// That of a device which has just confirmed its second certificate.
fn begun() -> Retirement {
    let (before, after) = (rotating(JobState::Committing), rotating(JobState::Confirmed));
    Retirement::of(NOW, &before, &after, GRACE).unwrap()
}

/// All is well.
fn well() -> Seen {
    Seen {
        current: Some(credential(2).fingerprint),
        current_good: true,
        old_ended: false,
        barred: false,
        declared: true,
        working: false,
        wanted: false,
        online: true,
    }
}

fn look(seen: Seen, loaded: bool, heard: Heard) -> Event {
    Event::Look {
        seen,
        admission: Admission::Now,
        loaded,
        waited: None,
        heard,
        nonce: NONCE,
    }
}

/// By the process that asked.
fn waited(seen: Seen, waited: Millis, heard: Heard) -> Event {
    Event::Look {
        seen,
        admission: Admission::Full,
        loaded: true,
        waited: Some(waited),
        heard,
        nonce: NONCE,
    }
}

fn said(speaker: Speaker, echo: Option<Nonce>) -> Event {
    Event::Hello {
        seen: well(),
        speaker,
        echo,
    }
}

fn changed(decision: Decision) -> (Retirement, Option<Act>, bool) {
    match decision {
        Decision::Change { next, act, ask } => (next, act, ask),
        other => panic!("no change: {other:?}"),
    }
}

fn held() -> Retirement {
    let (held, act, ask) = changed(step(NOW + GRACE, &begun(), &look(well(), false, Heard::Whole), POLICY));
    assert_eq!((held.phase, act, ask), (Phase::Held, Some(Act::Hold), false));
    held
}

fn asked() -> Retirement {
    let (asked, act, ask) = changed(step(
        NOW + GRACE + 1,
        &held(),
        &look(well(), true, Heard::Whole),
        POLICY,
    ));
    assert_eq!((asked.phase, act, ask), (Phase::Asked, None, true));
    assert_eq!(asked.nonce, Some(NONCE));
    asked
}

#[test]
fn the_old_certificate_is_revoked_once_the_device_has_come_back_by_the_new_one() {
    let (over, act, _) = changed(step(
        NOW + GRACE + 2,
        &asked(),
        &said(Speaker::New, Some(NONCE)),
        POLICY,
    ));
    assert_eq!((over.phase, act, over.wake), (Phase::Revoked, Some(Act::Revoke), None));
    assert_eq!(over.old, credential(1).fingerprint);
}

#[test]
fn within_grace_nothing_is_put_on_hold() {
    let early = look(well(), false, Heard::Whole);
    assert_eq!(step(NOW + GRACE - 1, &begun(), &early, POLICY), Decision::Stay);
}

#[test]
fn a_device_that_is_away_or_busy_or_wanted_back_is_not_put_to_the_test() {
    let seen = [
        Seen {
            online: false,
            ..well()
        },
        Seen {
            working: true,
            ..well()
        },
        Seen { wanted: true, ..well() },
    ];
    for seen in seen {
        let now = NOW + GRACE;
        let (later, act, _) = changed(step(now, &begun(), &look(seen, false, Heard::Whole), POLICY));
        assert_eq!((later.phase, act), (Phase::Waiting, None), "{seen:?}");
        assert_eq!(later.wake, Some(now + PAUSE.min(PROBATION)));
    }
}

#[test]
fn a_device_that_does_not_come_back_is_let_in_again_and_its_wave_hears_of_it() {
    // Whatever the clock says by now: it may have been set.
    for now in [NOW - 1, NOW + GRACE + 1 + PROBATION, NOW + 1000 * GRACE] {
        let early = step(now, &asked(), &waited(well(), PROBATION / 2 - 1, Heard::Whole), POLICY);
        assert_eq!(early, Decision::Stay);
        let half = waited(well(), PROBATION / 2, Heard::Whole);
        let (again, act, ask) = changed(step(now, &asked(), &half, POLICY));
        assert_eq!(
            (again.phase, act, ask),
            (Phase::Asked, None, true),
            "once more, in between"
        );
        assert_eq!(again.nonce, asked().nonce);
        assert_eq!(
            step(now, &again, &waited(well(), PROBATION - 1, Heard::Whole), POLICY),
            Decision::Stay
        );
        // Asked and asleep, or cut off: nobody can tell.
        let seen = Seen {
            online: false,
            ..well()
        };
        let (over, act, _) = changed(step(now, &again, &waited(seen, PROBATION, Heard::Whole), POLICY));
        assert_eq!(
            (over.phase, act, over.why),
            (Phase::Released, Some(Act::Release), Some(Why::NoHello))
        );
    }
    assert!(Why::NoHello.counts());
}

#[test]
fn faults_of_ours_let_go_and_are_charged_to_nobody() {
    let faults = [
        (held(), look(well(), false, Heard::Whole), Why::NotLoaded),
        (asked(), waited(well(), PROBATION, Heard::Broken), Why::NotHeard),
        // Another process asked.
        (asked(), look(well(), true, Heard::Whole), Why::NotHeard),
    ];
    for (mut retirement, event, why) in faults {
        let phase = retirement.phase;
        for attempt in 1..MAX_ATTEMPTS {
            let now = retirement.since + PROBATION;
            let (next, act, _) = changed(step(now, &retirement, &event, POLICY));
            assert_eq!(
                (next.phase, act, next.attempt),
                (Phase::Waiting, Some(Act::Release), attempt)
            );
            assert!(next.wake > Some(now), "at once would be too soon");
            retirement = Retirement { phase, ..next };
        }
        let (over, act, _) = changed(step(retirement.since + PROBATION, &retirement, &event, POLICY));
        assert_eq!(
            (over.phase, act, over.why),
            (Phase::Released, Some(Act::Release), Some(why))
        );
        assert!(!why.counts());
    }
}

#[test]
fn nobody_is_charged_before_it_is_known_that_the_device_could_be_heard() {
    let now = NOW + GRACE + 1 + 10 * PROBATION;
    assert_eq!(
        step(now, &asked(), &waited(well(), PROBATION, Heard::Unknown), POLICY),
        Decision::Stay
    );
}

#[test]
fn whoever_says_hello_without_the_nonce_is_asked_again() {
    let now = NOW + GRACE + 2;
    for echo in [None, Some(Nonce([8; 16]))] {
        assert_eq!(step(now, &asked(), &said(Speaker::New, echo), POLICY), Decision::Ask);
        // It may be an old message repeated by the broker: it must not end anything.
        assert_eq!(step(now, &asked(), &said(Speaker::Old, echo), POLICY), Decision::Ask);
        assert_eq!(step(now, &held(), &said(Speaker::Old, echo), POLICY), Decision::Stay);
    }
    // Nor does a nonce that nobody was given.
    assert_eq!(
        step(now, &held(), &said(Speaker::New, Some(NONCE)), POLICY),
        Decision::Stay
    );
}

#[test]
fn whoever_answers_with_the_old_key_has_gone_back() {
    let (over, act, _) = changed(step(
        NOW + GRACE + 2,
        &asked(),
        &said(Speaker::Old, Some(NONCE)),
        POLICY,
    ));
    assert_eq!(
        (over.phase, act, over.why),
        (Phase::Released, Some(Act::Release), Some(Why::WentBack))
    );
}

#[test]
fn what_comes_between_ends_it() {
    let cases = [
        (Seen { barred: true, ..well() }, Why::Barred),
        (
            Seen {
                declared: false,
                ..well()
            },
            Why::Withdrawn,
        ),
        (
            Seen {
                current: Some(credential(1).fingerprint),
                ..well()
            },
            Why::WentBack,
        ),
        (
            Seen {
                current: Some(credential(3).fingerprint),
                ..well()
            },
            Why::Overtaken,
        ),
        (
            Seen {
                current_good: false,
                ..well()
            },
            Why::Overtaken,
        ),
        (
            Seen {
                working: true,
                ..well()
            },
            Why::Overtaken,
        ),
        (
            Seen {
                old_ended: true,
                ..well()
            },
            Why::Ended,
        ),
    ];
    for (seen, why) in cases {
        for retirement in [held(), asked()] {
            let (over, act, _) = changed(step(
                NOW + GRACE + 2,
                &retirement,
                &look(seen, true, Heard::Whole),
                POLICY,
            ));
            assert_eq!(
                (over.phase, act, over.why),
                (Phase::Released, Some(Act::Release), Some(why)),
                "{seen:?}"
            );
        }
    }
}

#[test]
fn only_a_confirmed_job_that_replaced_a_certificate_begins_one() {
    for (before, after) in [
        (JobState::Issued, JobState::Committing),
        (JobState::Confirmed, JobState::Confirmed),
        (JobState::Queued, JobState::Sent),
    ] {
        assert_eq!(Retirement::of(NOW, &rotating(before), &rotating(after), GRACE), None);
    }
    let mut ended = rotating(JobState::Confirmed);
    ended.previous.as_mut().unwrap().not_after = NOW / 1000;
    assert_eq!(
        Retirement::of(NOW, &rotating(JobState::Committing), &ended, GRACE),
        None,
        "what has ended needs no retirement"
    );
}

#[test]
fn a_device_that_was_sent_back_leaves_the_new_certificate_to_be_retired_without_grace() {
    let p = fixtures::policy();
    let c = ctx(&p, NOW);
    let mut back = new_job(JobKind::Rollback);
    back.id = certwave_protocol::ids::JobId::from_u128(10);
    let (device, _) = after(job::start(&c, &rotating(JobState::Confirmed), back));
    let (device, _) = after(job::step(&c, &device, &job::Event::Offer));
    let (device, _) = after(job::step(
        &c,
        &device,
        &status(&device, Step::Accepted, job::Signer::Current),
    ));
    let proof = job::Event::Tested {
        mark: fixtures::mark(&device),
        signer: job::Signer::Previous,
        session: Nonce([3; 16]),
        subject: certwave_protocol::message::Subject::Certificate(credential(1).fingerprint),
    };
    let (before, _) = after(job::step(&c, &device, &proof));
    let (after, _) = after(job::step(
        &c,
        &before,
        &status(&before, Step::Committed, job::Signer::Previous),
    ));
    let retirement = Retirement::of(NOW, &before, &after, GRACE).unwrap();
    assert_eq!(
        (retirement.old, retirement.new, retirement.wake),
        (credential(2).fingerprint, credential(1).fingerprint, Some(NOW))
    );
}

fn anything() -> impl Strategy<Value = Event> {
    let seen = (0u8..24, any::<bool>(), any::<bool>()).prop_map(|(what, wanted, online)| {
        let seen = Seen {
            wanted,
            online,
            ..well()
        };
        match what {
            0 => Seen { barred: true, ..seen },
            1 => Seen {
                declared: false,
                ..seen
            },
            2 => Seen {
                current: Some(credential(1).fingerprint),
                ..seen
            },
            3 => Seen {
                current: Some(credential(3).fingerprint),
                ..seen
            },
            4 => Seen {
                current_good: false,
                ..seen
            },
            5 => Seen {
                old_ended: true,
                ..seen
            },
            6 => Seen { working: true, ..seen },
            _ => seen,
        }
    });
    let admission = prop_oneof![Just(Admission::Now), Just(Admission::Full), Just(Admission::Shut)];
    let heard = prop_oneof![Just(Heard::Whole), Just(Heard::Broken), Just(Heard::Unknown)];
    let speaker = prop_oneof![1 => Just(Speaker::Old), 4 => Just(Speaker::New)];
    let echo = proptest::option::of((1u8..4).prop_map(|n| Nonce([n; 16])));
    prop_oneof![
        3 => (seen.clone(), admission, any::<bool>(), proptest::option::of(0..2 * PROBATION), heard, 1u8..4).prop_map(
            |(seen, admission, loaded, waited, heard, n)| Event::Look {
                seen, admission, loaded, waited, heard, nonce: Nonce([n; 16]),
            }
        ),
        2 => (seen, speaker, echo).prop_map(|(seen, speaker, echo)| Event::Hello { seen, speaker, echo }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, ..ProptestConfig::default() })]

    /// Whatever happens in whatever order: nothing is revoked but after a hello with the nonce, by the new key, over a hold
    /// that every node had loaded before the nonce was made; a hold has one beginning and one end; the certificate that the
    /// device starts from is never the one.
    #[test]
    fn nothing_is_revoked_without_the_proof(history in proptest::collection::vec((anything(), 0..PROBATION), 1..80)) {
        let mut retirement = Retirement { wake: Some(NOW), ..begun() };
        let (mut now, mut on_hold, mut given) = (NOW, false, None);
        for (event, pause) in history {
            now += pause;
            let before = retirement.clone();
            let Decision::Change { next, act, ask } = step(now, &before, &event, POLICY) else { continue };
            prop_assert!(!before.phase.ended(), "an end is an end");
            prop_assert_eq!((next.old, next.new, next.job), (before.old, before.new, before.job));
            match act {
                Some(Act::Hold) => {
                    prop_assert!(!on_hold);
                    let Event::Look { seen, admission: Admission::Now, .. } = event else { panic!("held by {event:?}") };
                    prop_assert!(seen.online && seen.current == Some(next.new) && seen.current_good);
                    (on_hold, given) = (true, None);
                }
                Some(Act::Release) => {
                    prop_assert!(on_hold);
                    on_hold = false;
                }
                Some(Act::Revoke) => {
                    prop_assert!(on_hold);
                    let Event::Hello { seen, speaker: Speaker::New, echo: Some(echo) } = event else {
                        panic!("revoked by {event:?}")
                    };
                    prop_assert_eq!(Some(echo), given, "the nonce was made once the hold was loaded");
                    prop_assert!(seen.current == Some(next.new) && seen.current_good && !seen.barred);
                    on_hold = false;
                }
                None => {}
            }
            if ask && before.phase == Phase::Held {
                let Event::Look { loaded: true, nonce, .. } = event else { panic!("asked by {event:?}") };
                given = Some(nonce);
            }
            prop_assert!(!ask || next.nonce == given, "asked again with the same nonce");
            prop_assert_eq!(next.phase.holds(), on_hold, "{:?}", next.phase);
            prop_assert_eq!(next.phase.ended(), next.wake.is_none());
            prop_assert_eq!(next.phase == Phase::Released, next.why.is_some());
            retirement = next;
        }
    }

    /// Whatever came before, whatever the doors do and whether or not devices are heard: a device that is there, and has nothing
    /// else to do, comes to the end of it, and no hold outlasts one probation time for loading and one for coming back.
    #[test]
    fn every_retirement_ends(
        history in proptest::collection::vec((anything(), 0..PROBATION), 0..20),
        rest in proptest::collection::vec((any::<bool>(), any::<bool>()), 64),
    ) {
        let mut retirement = Retirement { wake: Some(NOW), ..begun() };
        let mut now = NOW;
        for (event, pause) in history {
            now += pause;
            if let Decision::Change { next, .. } = step(now, &retirement, &event, POLICY) { retirement = next; }
        }
        for (loaded, whole) in rest {
            if retirement.phase.ended() { break; }
            let since = if retirement.phase.holds() { retirement.since + PROBATION } else { now };
            now = now.max(retirement.wake.unwrap()).max(since);
            let heard = if whole { Heard::Whole } else { Heard::Broken };
            let (next, ..) = changed(step(now, &retirement, &look(well(), loaded, heard), POLICY));
            retirement = next;
        }
        prop_assert!(retirement.phase.ended(), "{retirement:?}");
    }
}

/// What a device may say of its job, and what may happen to it.
fn word() -> impl Strategy<Value = (u8, bool)> {
    (0u8..8, any::<bool>())
}

fn hear(device: &Device, word: u8, swap: bool) -> job::Event {
    let signer = if swap {
        job::Signer::Previous
    } else {
        job::Signer::Current
    };
    match word {
        0 => job::Event::Offer,
        1 => status(device, Step::Accepted, signer),
        2 => job::Event::Csr {
            mark: fixtures::mark(device),
            signer: job::Signer::Current,
            session: Nonce([2; 16]),
            key: credential(2).spki,
        },
        3 => tested(device, job::Signer::Pending),
        4 => status(device, Step::RolledBack, signer),
        5 => status(device, Step::Failed, signer),
        6 => job::Event::Deadline,
        _ => {
            let id = device.job.as_ref().unwrap().id;
            let progress = if swap {
                Progress::RolledBack
            } else {
                Progress::TrialOver
            };
            let view = Some(JobView { id, progress });
            fixtures::hello(Slot::A, [&credential(1), &credential(2)], view, job::Signer::Current)
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, ..ProptestConfig::default() })]

    /// An unconfirmed certificate is of no use only by the device's own word that it went back; and once it is, no word makes
    /// the device's certificate of it.
    #[test]
    fn only_what_the_device_went_back_from_is_refused(history in proptest::collection::vec((word(), 0i64..400_000), 1..40)) {
        let p = fixtures::policy();
        let mut now = NOW;
        let (mut device, _) = after(job::start(&ctx(&p, now), &enrolled(), new_job(JobKind::Rotate)));
        let mut gone = None;
        for ((word, swap), pause) in history {
            now += pause;
            let event = hear(&device, word, swap);
            let decision = match job::step(&ctx(&p, now), &device, &event) {
                job::Decision::Issue => {
                    job::issued(&ctx(&p, now), &device, job::Signer::Current, Nonce([4; 16]), credential(2))
                }
                other => other,
            };
            let job::Decision::Change { device: next, .. } = decision else { continue };
            if let Some(fingerprint) = refused(&device, &next) {
                let word_of_it = match &event {
                    job::Event::Status { report, .. } => report.step == Step::RolledBack && report.signer != job::Signer::Pending,
                    job::Event::Hello { hello, .. } => hello.job.as_ref().is_some_and(|j| j.progress == Progress::RolledBack),
                    _ => false,
                };
                prop_assert!(word_of_it, "{event:?}");
                prop_assert_eq!(gone.replace(fingerprint), None, "once");
            }
            if let Some(gone) = gone {
                prop_assert!(next.current.as_ref().is_some_and(|current| current.fingerprint != gone));
            }
            device = *next;
        }
    }
}

#[test]
fn a_way_back_that_was_committed_keeps_the_certificate_that_it_leads_to() {
    let mut device = rotating(JobState::Confirmed);
    assert!(!working(&device));
    device.job.as_mut().unwrap().kind = JobKind::Rollback;
    for (state, committed, is) in [
        (JobState::Committing, true, true),
        (JobState::TimedOut, true, true),
        (JobState::Lost, true, true),
        (JobState::TimedOut, false, false),
        (JobState::RolledBack, true, false),
    ] {
        let job = device.job.as_mut().unwrap();
        (job.state, job.committed) = (state, committed);
        assert_eq!(working(&device), is, "{state:?}");
    }
}

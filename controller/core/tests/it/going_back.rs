//! Devices that went back to their previous certificate.

use certwave_core::backoff;
use certwave_core::due::{self, Target};
use certwave_core::model::{Device, JobKind, JobState};
use certwave_core::revocation::Bar;
use certwave_core::step::{self, Event, Signer};
use certwave_protocol::code::Code;
use certwave_protocol::ids::{Fingerprint, JobId, Nonce};
use certwave_protocol::message::{JobView, Progress, Slot, Step};

use crate::fixtures::{NOW, after, credential, ctx, decide, enrolled, hello, mark, new_job, policy, rotating, status};

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
fn the_certificate_that_a_device_went_back_to_is_the_one_to_renew_in_time() {
    let p = policy();
    let mut device = rotating(JobState::Confirmed);
    device.bundle = Some(Fingerprint([0; 32]));
    let (used, broken) = (device.previous.clone().unwrap(), device.current.clone().unwrap());
    let hello = |id| {
        let progress = Progress::Committed;
        hello(
            Slot::A,
            [&used, &broken],
            Some(JobView { id, progress }),
            Signer::Previous,
        )
    };
    let (same, _) = after(step::step(&ctx(&p, NOW), &device, &hello(JobId::from_u128(1))));
    assert_eq!(same.current, device.current, "an old hello says nothing");
    let latest = device.job.as_ref().unwrap().id;
    let (back, _) = after(step::step(&ctx(&p, NOW), &device, &hello(latest)));
    assert_eq!((back.current, back.previous), (Some(used), Some(broken)));
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
fn a_device_that_went_back_is_believed_though_another_job_ended_that_it_never_heard_of() {
    let p = policy();
    let mut device = rotating(JobState::Confirmed);
    let known = device.job.as_ref().unwrap().id;
    let later = |device: &mut Device| device.current.as_mut().unwrap().not_before += 1;
    later(&mut device);
    let (queued, _) = after(step::start(&ctx(&p, NOW), &device, new_job(JobKind::Rotate)));
    let (cancelled, _) = after(decide(&queued, &Event::Cancel));
    let (used, refused) = (cancelled.previous.clone().unwrap(), cancelled.current.clone().unwrap());
    let other = credential(8);
    let says = |slots, progress| {
        let job = Some(JobView { id: known, progress });
        hello(Slot::A, slots, job, Signer::Previous)
    };
    let current = |device: &Device, event| after(decide(device, &event)).0.current;
    let true_word = || says([&used, &refused], Progress::Committed);
    assert_eq!(current(&cancelled, true_word()), Some(used.clone()));

    let stale = says([&used, &other], Progress::Committed);
    assert_eq!(
        current(&cancelled, stale),
        Some(refused.clone()),
        "before it had the newer one"
    );
    let on_trial = says([&used, &refused], Progress::Trial);
    assert_eq!(current(&cancelled, on_trial), Some(refused.clone()), "before it obeyed");
    assert_eq!(
        current(&queued, true_word()),
        Some(refused.clone()),
        "its answer to the job will tell"
    );
    let mut silent = cancelled.clone();
    silent.job.as_mut().unwrap().state = JobState::TimedOut;
    assert_eq!(
        current(&silent, true_word()),
        Some(refused.clone()),
        "whoever accepted that one names it"
    );
    silent.current.as_mut().unwrap().not_after = NOW / 1000;
    assert_eq!(
        current(&silent, true_word()),
        Some(used.clone()),
        "nobody starts from what has ended"
    );
    let mut sent_back = cancelled.clone();
    later(&mut sent_back);
    std::mem::swap(&mut sent_back.current, &mut sent_back.previous);
    let before_that = hello(
        Slot::B,
        [&used, &refused],
        Some(JobView {
            id: known,
            progress: Progress::Committed,
        }),
        Signer::Previous,
    );
    assert_eq!(
        current(&sent_back, before_that),
        Some(used.clone()),
        "before it was sent back"
    );
}

#[test]
fn whatever_a_device_that_went_back_says_of_its_rotation_tells_which_certificate_it_uses() {
    let mut sent = rotating(JobState::Sent);
    sent.previous = Some(credential(8));
    let (used, emptied) = (sent.previous.clone(), sent.current.clone());
    let p = policy();
    let requested = |signer| step::issued(&ctx(&p, NOW), &sent, signer, Nonce([4; 16]), credential(2));
    let (taken_for_current, _) = after(requested(Signer::Current));
    let id = sent.job.as_ref().unwrap().id;
    let unsound = Event::CsrRefused {
        mark: mark(&sent),
        signer: Signer::Previous,
        code: Code::CsrInvalid,
        detail: String::new(),
    };
    let progress = Progress::RolledBack;
    let back = hello(
        Slot::A,
        [&credential(8), &credential(2)],
        Some(JobView { id, progress }),
        Signer::Previous,
    );
    for decision in [
        requested(Signer::Previous),
        decide(&sent, &status(&sent, Step::Failed, Signer::Previous)),
        decide(&sent, &status(&sent, Step::RolledBack, Signer::Previous)),
        decide(&sent, &unsound),
        decide(&taken_for_current, &back),
    ] {
        let (heard, _) = after(decision);
        assert_eq!((&heard.current, &heard.previous), (&used, &emptied), "{heard:?}");
    }
    // It may have gone forward since, and has emptied nothing.
    let (rejected, _) = after(decide(&sent, &status(&sent, Step::Rejected, Signer::Previous)));
    assert_eq!(rejected.current, emptied);
}

#[test]
fn a_device_that_went_back_is_believed_though_its_accepted_was_lost() {
    let p = policy();
    let mut device = enrolled();
    device.previous = Some(credential(8));
    let (queued, _) = after(step::start(&ctx(&p, NOW), &device, new_job(JobKind::Rollback)));
    let (sent, _) = after(step::step(&ctx(&p, NOW), &queued, &Event::Offer));
    let (back, _) = after(decide(&sent, &status(&sent, Step::RolledBack, Signer::Current)));
    assert_eq!(back.job.unwrap().state, JobState::RolledBack);
    assert_eq!(back.current, Some(credential(1)));
}

#[test]
fn what_was_committed_is_confirmed_after_a_hold_that_outlasted_the_job() {
    let p = policy();
    let mut device = rotating(JobState::Committing);
    device.bar = Some(Bar::Held);
    let mut now = NOW;
    for _ in 0..3 {
        now += p.job_timeout + p.lost_after;
        if let step::Decision::Change { device: next, .. } = step::step(&ctx(&p, now), &device, &Event::Deadline) {
            device = *next;
        }
    }
    assert!(device.job.as_ref().unwrap().state.ended());
    device.bar = None;
    let (next, _) = after(step::start(&ctx(&p, now), &device, new_job(JobKind::Rotate)));
    assert_eq!(
        next.pending,
        Some(credential(2)),
        "the key that it may start from stays known"
    );
    let (confirmed, _) = after(decide(&device, &status(&device, Step::Committed, Signer::Pending)));
    assert_eq!(confirmed.current, Some(credential(2)));
}

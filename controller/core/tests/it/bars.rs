//! Devices that a person has revoked or put on hold.

use certwave_core::due::{self, Target};
use certwave_core::model::{Device, JobKind, JobState};
use certwave_core::revocation::Bar;
use certwave_core::step::{self, Decision, Enrolment, Event, Signer};
use certwave_protocol::code::Code;
use certwave_protocol::ids::{Fingerprint, JobId, Nonce};
use certwave_protocol::message::{JobView, Progress, Slot, Step};

use crate::fixtures::{
    NOW, after, credential, ctx, decide, enrolled, hello, new_job, policy, refused, rotating, status,
};

fn barred(device: Device, bar: Bar) -> Device {
    Device {
        bar: Some(bar),
        ..device
    }
}

const BARS: [Bar; 2] = [Bar::Held, Bar::Revoked];

#[test]
fn a_barred_device_gets_no_job_and_no_certificate() {
    let p = policy();
    let c = ctx(&p, NOW);
    for bar in BARS {
        let device = barred(enrolled(), bar);
        let target = Target {
            issuer: "another",
            bundle: Fingerprint([0; 32]),
            renew_before: None,
        };
        assert!(due::next_job(NOW, &enrolled(), &target).is_some());
        assert_eq!(due::next_job(NOW, &device, &target), None);
        let started = step::start(&c, &device, new_job(JobKind::Rotate));
        assert!(matches!(started, Decision::Refuse(Code::Revoked, _)), "{started:?}");
        let queued = barred(rotating(JobState::Queued), bar);
        assert!(!due::may_offer(NOW, &queued));
        assert_eq!(decide(&queued, &Event::Offer), Decision::Same(None));
        let accepted = barred(rotating(JobState::Accepted), bar);
        let issued = step::issued(&c, &accepted, Signer::Current, Nonce([2; 16]), credential(2));
        assert!(matches!(issued, Decision::Refuse(Code::Revoked, _)), "{issued:?}");
    }
}

#[test]
fn the_job_of_a_barred_device_ends_by_its_deadline_and_is_not_tried_again() {
    use JobState::{Accepted, Cancelled, Committing, Failed, Issued, Queued, Sent, TimedOut};
    let p = policy();
    for (state, bar, end) in [
        (Queued, Bar::Held, Cancelled),
        (Sent, Bar::Held, Cancelled),
        (Accepted, Bar::Held, Failed),
        (Issued, Bar::Held, Failed),
        (Committing, Bar::Revoked, Failed),
        // It may start from the new certificate, and be released.
        (Committing, Bar::Held, TimedOut),
    ] {
        let device = barred(rotating(state), bar);
        let deadline = device.job.as_ref().unwrap().next_deadline().unwrap();
        let early = step::step(&ctx(&p, deadline - 1), &device, &Event::Deadline);
        assert_eq!(early, Decision::Same(None), "{state:?}: a hold may be released in time");
        for event in [Event::Deadline, Event::Postpone] {
            let (ended, _) = after(step::step(&ctx(&p, deadline), &device, &event));
            let job = ended.job.unwrap();
            assert_eq!((job.state, job.code), (end, Some(Code::Revoked)), "{state:?}");
            assert!(!step::will_retry(&p, &job));
        }
    }
}

#[test]
fn a_hold_released_in_time_lets_the_job_go_on() {
    let held = barred(rotating(JobState::Sent), Bar::Held);
    let accepted = status(&held, Step::Accepted, Signer::Current);
    assert_eq!(refused(&held, &accepted), Code::Revoked);
    let released = Device { bar: None, ..held };
    let (device, _) = after(decide(&released, &accepted));
    assert_eq!(device.job.unwrap().state, JobState::Accepted);
}

#[test]
fn a_revoked_device_enrols_only_by_a_permit_and_one_on_hold_not_at_all() {
    let key = credential(5).spki;
    for device in [
        enrolled(),
        Device {
            current: None,
            ..enrolled()
        },
    ] {
        for (permit, used, opens) in [
            (None, None, false),
            (Some("ticket-1"), Some("ticket-1"), false),
            (Some("ticket-2"), Some("ticket-1"), true),
            (Some("ticket-1"), None, true),
        ] {
            let permitted = Device {
                reenrol: permit.map(str::to_owned),
                reenrol_used: used.map(str::to_owned),
                ..device.clone()
            };
            let expected = if opens {
                Enrolment::New
            } else {
                Enrolment::Refused(Code::Revoked)
            };
            assert_eq!(
                step::enrolment(&barred(permitted.clone(), Bar::Revoked), key),
                expected,
                "{permit:?} {used:?}"
            );
            let held = barred(permitted, Bar::Held);
            assert_eq!(step::enrolment(&held, key), Enrolment::Refused(Code::Revoked));
        }
    }
}

#[test]
fn enrolling_again_lifts_the_bar_once_and_forgets_the_keys_that_somebody_else_may_have() {
    let p = policy();
    let c = ctx(&p, NOW);
    let mut device = barred(rotating(JobState::Confirmed), Bar::Revoked);
    assert!(device.current.is_some() && device.previous.is_some());
    device.reenrol = Some("ticket-1".to_owned());
    let claim = "line-1".parse().unwrap();
    let anew = step::enrolled(&c, &device, JobId::from_u128(10), Nonce([1; 16]), claim, credential(5));
    assert_eq!((anew.bar, &anew.current, &anew.previous), (None, &None, &None));
    assert_eq!(anew.reenrol_used.as_deref(), Some("ticket-1"));
    // The thief says what would have sent the device back.
    let view = JobView {
        id: anew.job.as_ref().unwrap().id,
        progress: Progress::RolledBack,
    };
    for signer in [Signer::Current, Signer::Previous] {
        let thief = hello(Slot::A, [&credential(2), &credential(1)], Some(view.clone()), signer);
        assert_eq!(refused(&anew, &thief), Code::WrongKey);
    }
    let again = barred(anew, Bar::Revoked);
    assert_eq!(
        step::enrolment(&again, credential(6).spki),
        Enrolment::Refused(Code::Revoked)
    );
}

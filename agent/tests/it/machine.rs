//! The state machine, rule by rule.

use certwave_agent::journal::Phase;
use certwave_agent::machine::{Credential, Effect, Failure, Input, Link, Signer, Timer, TrustedBy, Wait};
use certwave_protocol::code::Code;
use certwave_protocol::ids::{Fingerprint, Nonce};
use certwave_protocol::message::{
    Body, Certificate, Commit, Der, Job, Payload, Progress, Reconnect, Rejected, Slot, Status, Step, Subject, Task,
    Type,
};

use crate::world::{World, certificate, job_id, rotate};

pub(crate) fn statuses(world: &World) -> Vec<(Step, Option<Code>)> {
    let status = |b: &&Body| match b {
        Body::Status(Status { step, code, .. }) => Some((*step, *code)),
        _ => None,
    };
    world.said().iter().filter_map(status).collect()
}

fn csr(world: &World) -> Der {
    world.journal().job.as_ref().unwrap().csr.clone().unwrap()
}

pub(crate) fn commit(world: &World) -> Body {
    let job = world.journal().job.as_ref().unwrap();
    let leaf = world.journal().held(job.goal.slot().unwrap()).unwrap().leaf;
    Body::Commit(Commit {
        subject: Subject::Certificate(leaf),
    })
}

pub(crate) fn task(task: Task) -> Body {
    Body::Job(Job {
        task,
        attempt: 1,
        step_timeout: 30,
        trial_timeout: 60,
    })
}

/// Connected with the new certificate, `tested` sent.
pub(crate) fn tested() -> World {
    let mut world = on_trial();
    world.network(true);
    assert!(matches!(world.said()[..], [Body::Tested(_)]));
    world
}

/// The certificate is stored, the device connects with it.
fn on_trial() -> World {
    let mut world = accepted();
    let body = certificate(&csr(&world));
    world.down(world.message(1, body));
    assert_eq!(world.connecting.unwrap().credential, Credential::Slot(Slot::B));
    world
}

/// The job is taken on and the request sent.
pub(crate) fn accepted() -> World {
    let mut world = World::enrolled();
    world.down(world.message(1, rotate()));
    assert!(matches!(world.said()[..], [Body::Status(_), Body::Csr(_)]));
    world
}

#[test]
fn a_rotation_ends_with_the_new_slot_active_and_the_old_one_kept() {
    let mut world = tested();
    let body = commit(&world);
    world.down(world.message(1, body));
    assert_eq!(statuses(&world), [(Step::Committed, None)]);
    let signers: Vec<_> = world.up.iter().rev().take(2).map(|(_, signer, ..)| *signer).collect();
    assert_eq!(signers, [Signer::Slot(Slot::B); 2], "by the new key");
    assert_eq!(world.journal().active, Some(Slot::B));
    assert!(world.journal().is_confirmed(Slot::A) && world.journal().is_confirmed(Slot::B));
    assert!(!world.timers.contains(&Timer::Trial));
}

#[test]
fn a_message_that_no_bundle_in_force_vouches_for_is_not_believed() {
    let mut world = World::enrolled();
    let payload = Box::new(world.message(1, rotate()));
    world.input(Input::Down(payload, TrustedBy { a: false, b: true }));
    assert_eq!((world.ignored(), world.phase()), (Some(Code::UntrustedControl), None));
}

#[test]
fn a_message_of_another_connection_is_answered_with_hello_once_in_a_while() {
    let mut world = World::enrolled();
    let payload = Payload {
        session: Nonce([99; 16]),
        ..world.message(1, rotate())
    };
    world.down(payload.clone());
    assert!(matches!(world.said()[..], [Body::Hello(_)]));
    world.down(payload.clone());
    assert!(world.said().is_empty());
    world.fire(Timer::Unmute);
    world.down(payload);
    assert!(matches!(world.said()[..], [Body::Hello(_)]));
}

#[test]
fn the_same_job_again_gets_the_same_answers() {
    let mut world = accepted();
    let first = csr(&world);
    world.down(world.message(1, rotate()));
    assert_eq!(statuses(&world), [(Step::Accepted, None)]);
    assert!(world.said().iter().any(|b| matches!(b, Body::Csr(c) if c.csr == first)));
    assert!(!world.effects.iter().any(|e| matches!(e, Effect::MakeKey { .. })));
}

#[test]
fn the_first_refusal_of_a_trial_is_not_final() {
    let mut world = on_trial();
    world.input(Input::ConnectFailed(Failure::Refused(Some(
        "bad_certificate".to_owned(),
    ))));
    let Some(Effect::StartTimer(Timer::Retry, Wait::Backoff { cap: Some(10), .. })) = world.effects.last() else {
        panic!("{:?}", world.effects)
    };
    world.fire(Timer::Retry);
    assert_eq!(world.connecting.unwrap().credential, Credential::Slot(Slot::B));
    world.network(true);
    assert_eq!(world.phase(), Some(&Phase::Tested));
}

#[test]
fn a_trial_refused_to_its_end_rolls_back_and_no_commit_is_obeyed_any_more() {
    let mut world = on_trial();
    let leaf = world.journal().held(Slot::B).unwrap().leaf;
    world.refused.insert(leaf);
    world.network(true);
    world.fire(Timer::Trial);
    assert_eq!(world.connecting.unwrap().credential, Credential::Slot(Slot::A));
    assert_eq!(
        world.phase(),
        Some(&Phase::Stored),
        "no verdict before the old one is seen to work"
    );
    world.network(true);
    let [Body::Status(status), Body::Hello(hello)] = &world.said()[..] else {
        panic!("{:?}", world.said())
    };
    assert_eq!((status.step, status.code), (Step::RolledBack, Some(Code::TestFailed)));
    assert_eq!(status.alert.as_deref(), Some("certificate_revoked"));
    assert_eq!(
        (hello.active, hello.job.as_ref().unwrap().progress),
        (Slot::A, Progress::RolledBack)
    );
    let body = Body::Commit(Commit {
        subject: Subject::Certificate(leaf),
    });
    world.down(world.message(1, body));
    assert_eq!(statuses(&world), [(Step::RolledBack, Some(Code::TestFailed))]);
    assert_eq!(world.journal().active, Some(Slot::A));
}

#[test]
fn a_broker_that_is_away_for_the_whole_trial_is_no_verdict() {
    let mut world = on_trial();
    world.network(false);
    world.fire(Timer::Trial);
    world.network(false);
    assert_eq!(world.phase(), Some(&Phase::Stored));
}

#[test]
fn after_a_trial_without_commit_the_old_slot_is_active_and_the_commit_is_obeyed_whenever_it_comes() {
    let mut world = tested();
    let body = commit(&world);
    world.fire(Timer::Trial);
    world.network(true);
    let [Body::Hello(hello)] = &world.said()[..] else {
        panic!("{:?}", world.said())
    };
    assert_eq!(
        (hello.active, hello.job.as_ref().unwrap().progress),
        (Slot::A, Progress::TrialOver)
    );
    world.lose_power();
    world.network(true);
    world.down(world.message(1, body));
    assert_eq!(world.connecting.unwrap().credential, Credential::Slot(Slot::B));
    world.network(true);
    assert_eq!(statuses(&world), [(Step::Committed, None)]);
    assert_eq!(world.journal().active, Some(Slot::B));
}

#[test]
fn the_same_certificate_again_starts_the_trial_again() {
    let mut world = tested();
    world.fire(Timer::Trial);
    world.network(true);
    let body = certificate(&csr(&world));
    world.down(world.message(1, body));
    assert!(world.timers.contains(&Timer::Trial));
    world.network(true);
    assert!(matches!(world.said()[..], [Body::Tested(_)]));
}

#[test]
fn a_device_refused_with_one_slot_tries_the_other_for_ever_and_starts_from_the_one_that_works() {
    let mut world = tested();
    let body = commit(&world);
    world.down(world.message(1, body));
    world.refused.insert(world.journal().held(Slot::B).unwrap().leaf);
    world.input(Input::Disconnected);
    for _ in 0..10 {
        world.fire(Timer::Retry);
        world.network(true);
    }
    assert!(matches!(world.state.link(), Link::Up(via, _) if via.credential == Credential::Slot(Slot::A)));
    assert_eq!(world.journal().active, Some(Slot::A));
    // The next job takes the slot that does not work.
    world.down(world.message(2, rotate()));
    assert!(
        world
            .effects
            .iter()
            .any(|e| matches!(e, Effect::MakeKey { slot: Slot::B, .. }))
    );
}

#[test]
fn only_refusals_in_a_row_move_a_device_to_its_old_slot() {
    let mut world = tested();
    let body = commit(&world);
    world.down(world.message(1, body));
    let new = world.journal().held(Slot::B).unwrap().leaf;
    for _ in 0..10 {
        world.refused.insert(new);
        world.input(Input::Disconnected);
        world.fire(Timer::Retry);
        world.network(true);
        world.refused.clear();
        world.fire(Timer::Retry);
        assert_eq!(world.connecting.unwrap().credential, Credential::Slot(Slot::B));
        world.network(true);
    }
}

#[test]
fn a_device_that_went_back_stays_with_what_works() {
    let mut world = tested();
    let body = commit(&world);
    world.down(world.message(1, body));
    world.refused.insert(world.journal().held(Slot::B).unwrap().leaf);
    world.input(Input::Disconnected);
    while world.journal().active == Some(Slot::B) {
        world.fire(Timer::Retry);
        world.network(true);
    }
    for _ in 0..3 {
        world.input(Input::Disconnected);
        world.fire(Timer::Retry);
        assert_eq!(world.connecting.unwrap().credential, Credential::Slot(Slot::A));
        world.network(true);
    }
}

#[test]
fn an_unreachable_broker_moves_no_device_to_its_old_slot() {
    let mut world = tested();
    let body = commit(&world);
    world.down(world.message(1, body));
    world.input(Input::Disconnected);
    for _ in 0..20 {
        world.fire(Timer::Retry);
        assert_eq!(world.connecting.unwrap().credential, Credential::Slot(Slot::B));
        world.network(false);
    }
}

#[test]
fn a_rollback_goes_back_with_the_same_care() {
    let mut world = tested();
    let body = commit(&world);
    world.down(world.message(1, body));
    let to = world.journal().held(Slot::A).unwrap().leaf;
    world.down(world.message(2, task(Task::Rollback { to })));
    assert_eq!(statuses(&world), [(Step::Accepted, None)]);
    assert_eq!(world.journal().active, Some(Slot::B));
    world.network(true);
    assert!(matches!(world.said()[..], [Body::Tested(_)]));
    let body = commit(&world);
    world.down(world.message(2, body));
    assert_eq!(statuses(&world), [(Step::Committed, None)]);
    assert_eq!(world.journal().active, Some(Slot::A));
}

#[test]
fn a_trust_job_is_tried_against_the_new_bundle_alone_and_its_commit_must_come_from_there() {
    let mut world = World::enrolled();
    let anchors = vec![Der(vec![1, 2, 3])];
    let bundle = Fingerprint::of_bundle(&anchors);
    world.down(world.message(1, task(Task::Trust { anchors, bundle })));
    assert_eq!(statuses(&world), [(Step::Accepted, None)]);
    let via = world.connecting.unwrap();
    assert_eq!(
        (via.trust, via.trial, via.credential),
        (Slot::B, true, Credential::Slot(Slot::A))
    );
    world.network(true);
    let [Body::Tested(tested)] = &world.said()[..] else {
        panic!("{:?}", world.said())
    };
    assert_eq!(tested.subject, Subject::Bundle(bundle));
    let payload = world.message(
        1,
        Body::Commit(Commit {
            subject: Subject::Bundle(bundle),
        }),
    );
    world.input(Input::Down(Box::new(payload.clone()), TrustedBy { a: true, b: false }));
    assert_eq!(
        (world.ignored(), world.journal().trust),
        (Some(Code::UntrustedControl), Slot::A)
    );
    world.input(Input::Down(Box::new(payload), TrustedBy { a: false, b: true }));
    assert_eq!(
        (statuses(&world), world.journal().bundle()),
        (vec![(Step::Committed, None)], bundle)
    );
}

#[test]
fn a_bundle_that_does_not_fit_the_broker_is_rolled_back() {
    let mut world = World::enrolled();
    let anchors = vec![Der(vec![1, 2, 3])];
    let bundle = Fingerprint::of_bundle(&anchors);
    world.down(world.message(1, task(Task::Trust { anchors, bundle })));
    world.input(Input::ConnectFailed(Failure::Untrusted));
    world.connecting = None;
    world.fire(Timer::Trial);
    world.network(true);
    assert_eq!(statuses(&world), [(Step::RolledBack, Some(Code::TestFailed))]);
    assert_eq!(world.journal().trust, Slot::A);
}

#[test]
fn a_trial_that_reached_nobody_says_so_in_words() {
    let mut world = on_trial();
    world.input(Input::ConnectFailed(Failure::Unreachable));
    world.connecting = None;
    world.fire(Timer::Trial);
    world.network(true);
    let seconds = world.journal().job.as_ref().unwrap().trial_timeout;
    let said = world.said();
    let Some(Body::Status(status)) = said.first() else {
        panic!("{said:?}")
    };
    assert_eq!((status.step, status.code), (Step::RolledBack, Some(Code::TestFailed)));
    let words = format!("no connection within {seconds} s");
    assert_eq!((status.detail.as_ref(), status.alert.as_ref()), (Some(&words), None));
}

#[test]
fn an_epoch_never_goes_down_within_a_job_even_over_a_power_cut() {
    let mut world = accepted();
    let newer = Payload {
        epoch: Some(9),
        ..world.message(1, rotate())
    };
    world.down(newer);
    world.lose_power();
    world.network(true);
    let body = certificate(&csr(&world));
    world.down(world.message(1, body));
    assert_eq!(
        (world.ignored(), world.phase()),
        (Some(Code::WrongEpoch), Some(&Phase::Accepted))
    );
}

#[test]
fn a_later_job_takes_the_place_of_one_that_waits_for_its_certificate() {
    let mut world = accepted();
    let first = csr(&world);
    world.down(world.message(2, rotate()));
    assert_eq!(world.journal().job.as_ref().unwrap().id, job_id(2));
    assert_ne!(csr(&world), first, "a fresh key for each job");
}

#[test]
fn a_certificate_for_another_key_fails_the_job_and_changes_nothing() {
    let mut world = accepted();
    let body = certificate(&Der(vec![b'r', 0, 0, 0, 99]));
    world.down(world.message(1, body));
    assert_eq!(statuses(&world), [(Step::Failed, Some(Code::CertificateInvalid))]);
    assert_eq!(world.journal().active, Some(Slot::A));
}

#[test]
fn a_reconnect_is_echoed_once_and_only_after_a_new_connection() {
    let mut world = World::enrolled();
    let nonce = Nonce([42; 16]);
    let payload = Payload {
        nonce: Some(nonce),
        job: None,
        ..world.message(1, Body::Reconnect(Reconnect { within: 60 }))
    };
    world.down(payload);
    world.fire(Timer::Beat);
    let echo = |world: &World| match &world.said()[..] {
        [Body::Hello(hello)] => hello.reconnect,
        other => panic!("{other:?}"),
    };
    assert_eq!(echo(&world), None);
    world.fire(Timer::Reconnect);
    world.network(true);
    assert_eq!(echo(&world), Some(nonce));
    world.fire(Timer::Beat);
    assert_eq!(echo(&world), None);
}

#[test]
fn a_device_whose_owner_says_no_rejects_and_a_refused_csr_ends_the_job() {
    let mut world = World::enrolled();
    world.config.accepts_jobs = false;
    world.down(world.message(1, rotate()));
    assert_eq!(statuses(&world), [(Step::Rejected, Some(Code::Refused))]);

    let mut world = accepted();
    let rejected = |code| Rejected {
        of: Type::Csr,
        code,
        message: String::new(),
        job_state: None,
    };
    world.down(world.message(1, Body::Rejected(rejected(Code::TryLater))));
    assert_eq!(world.phase(), Some(&Phase::Accepted));
    world.down(world.message(1, Body::Rejected(rejected(Code::KeyAlgorithm))));
    assert_eq!(
        world.phase(),
        Some(&Phase::Failed {
            code: Code::KeyAlgorithm
        })
    );
}

#[test]
fn a_certificate_message_with_another_leaf_on_trial_is_out_of_order() {
    let mut world = tested();
    let leaf = Der(vec![b'c', 0, 0, 0, 1, 8]);
    let body = Body::Certificate(Certificate {
        leaf,
        chain: Vec::new(),
        trial_timeout: 60,
    });
    world.down(world.message(1, body));
    assert_eq!(
        (world.ignored(), world.phase()),
        (Some(Code::OutOfOrder), Some(&Phase::Tested))
    );
}

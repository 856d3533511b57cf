//! From a claim to a certificate of one's own.

use certwave_agent::journal::Phase;
use certwave_agent::machine::{Credential, Effect, Input, Link, Timer, Wait};
use certwave_protocol::code::Code;
use certwave_protocol::message::{Body, Rejected, Slot, Step, Type};

use crate::machine::{commit, statuses, tested};
use crate::world::{World, certificate};

#[test]
fn enrolment_asks_with_the_same_request_until_its_certificate_is_committed() {
    let mut world = World::new(true);
    world.start();
    world.network(true);
    let [Body::Enrol(first)] = &world.said()[..] else {
        panic!("{:?}", world.said())
    };
    let first = first.csr.clone();
    // The answer is lost, and power too.
    world.lose_power();
    world.network(true);
    assert!(matches!(&world.said()[..], [Body::Enrol(again)] if again.csr == first));
    let body = certificate(&first);
    world.down(world.message(1, body));
    assert_eq!(world.connecting.unwrap().credential, Credential::Slot(Slot::A));
    // The certificate does not work yet: the claim is asked again in between.
    let mut asked = false;
    world.refused.insert(world.journal().held(Slot::A).unwrap().leaf);
    world.fire(Timer::Trial);
    for _ in 0..4 {
        world.network(true);
        asked |= world
            .said()
            .iter()
            .any(|b| matches!(b, Body::Enrol(e) if e.csr == first));
        world.fire(Timer::Retry);
    }
    assert!(asked);
    world.refused.clear();
    for _ in 0..20 {
        if world.phase() == Some(&Phase::Tested) {
            break;
        }
        if let Link::Up(..) = world.state.link() {
            let body = certificate(&first);
            world.down(world.message(1, body));
        }
        world.network(true);
        world.fire(Timer::Retry);
    }
    let body = commit(&world);
    world.down(world.message(1, body));
    assert_eq!(
        (statuses(&world), world.journal().active),
        (vec![(Step::Committed, None)], Some(Slot::A))
    );
    assert_eq!(world.journal().enrolment, None);
}

#[test]
fn a_refused_enrolment_is_tried_again_slowly() {
    let mut world = World::new(true);
    world.start();
    world.network(true);
    let rejected = Rejected {
        of: Type::Enrol,
        code: Code::AlreadyEnrolled,
        message: String::new(),
        job_state: None,
    };
    world.down(world.message(1, Body::Rejected(rejected)));
    assert!(matches!(
        world.effects.last(),
        Some(Effect::StartTimer(Timer::Retry, Wait::Backoff { attempt: 4.., .. }))
    ));
}

#[test]
fn a_device_that_nobody_lets_in_any_more_asks_with_its_claim_and_keeps_its_active_slot() {
    let mut world = World::enrolled();
    world.config.claim = true;
    world.refused.insert(world.journal().held(Slot::A).unwrap().leaf);
    world.input(Input::Disconnected);
    let mut enrolled = false;
    for _ in 0..40 {
        world.fire(Timer::Retry);
        world.network(true);
        enrolled |= world.said().iter().any(|b| matches!(b, Body::Enrol(_)));
    }
    assert!(enrolled);
    assert!(world.journal().is_confirmed(Slot::A));
    assert!(!matches!(world.journal().enrolment, Some(ref e) if e.slot == Slot::A));
}

#[test]
fn a_tested_that_is_rejected_ends_no_trial_early_but_sends_a_new_device_back_to_its_claim() {
    let rejected = || {
        let message = String::new();
        Body::Rejected(Rejected {
            of: Type::Tested,
            code: Code::UnknownJob,
            message,
            job_state: None,
        })
    };
    let mut world = tested();
    world.down(world.message(1, rejected()));
    assert_eq!((world.phase(), world.connecting), (Some(&Phase::Tested), None));

    let mut world = World::new(true);
    world.start();
    world.network(true);
    let csr = world.journal().enrolment.as_ref().unwrap().csr.clone().unwrap();
    let body = certificate(&csr);
    world.down(world.message(1, body));
    world.network(true);
    world.down(world.message(1, rejected()));
    world.fire(Timer::Retry);
    assert_eq!(world.connecting.unwrap().credential, Credential::Claim);
}

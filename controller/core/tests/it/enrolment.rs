//! Who may enrol, and who may enrol again.

use certwave_core::step::{self, Enrolment, Event, Signer};
use certwave_protocol::code::Code;
use certwave_protocol::ids::{JobId, Nonce};
use certwave_protocol::message::{Step, Subject};

use crate::fixtures::{NOW, after, credential, ctx, decide, enrolled, mark, policy, status};

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

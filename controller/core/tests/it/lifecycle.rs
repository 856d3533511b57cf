//! From the first offer to the proof: who may say what when.

use certwave_core::job::TABLE;
use certwave_core::model::{JobKind, JobState};
use certwave_core::step::{self, Decision, Event, JobMark, Send, Signer};
use certwave_protocol::code::Code;
use certwave_protocol::ids::{Fingerprint, JobId, Nonce};
use certwave_protocol::message::{JobView, Progress, Slot, Subject};

use crate::fixtures::{
    EPOCH, NOW, after, credential, ctx, decide, hello, mark, new_job, policy, refused, rotating, tested,
};

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
    let slots = [&credential(1), &credential(2)];
    let id = device.job.as_ref().unwrap().id;
    let view = |progress| Some(JobView { id, progress });
    let over = hello(Slot::A, slots, view(Progress::TrialOver), Signer::Current);
    let (waiting, send) = after(decide(&device, &over));
    assert_eq!(send, Some(Send::Commit));
    assert_eq!(waiting.job.unwrap().state, JobState::Committing);
    let committed = hello(Slot::B, slots, view(Progress::Committed), Signer::Pending);
    let (confirmed, _) = after(decide(&device, &committed));
    assert_eq!(confirmed.job.unwrap().state, JobState::Confirmed);
    assert_eq!(confirmed.current, Some(credential(2)));
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
fn every_state_has_exactly_one_row_and_ended_states_hold_no_slot() {
    for row in &TABLE {
        assert_eq!(TABLE.iter().filter(|r| r.state == row.state).count(), 1);
        assert!(!(row.state.ended() && row.state.in_flight()));
    }
}

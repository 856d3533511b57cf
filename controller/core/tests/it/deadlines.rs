//! What time ends, and what comes after all.

use certwave_core::model::{JobKind, JobState};
use certwave_core::revocation::Bar;
use certwave_core::step::{self, Decision, Event, NewJob, Send, Signer};
use certwave_protocol::ids::JobId;
use certwave_protocol::message::{Slot, Step};

use crate::fixtures::{NOW, YEAR, after, credential, ctx, decide, hello, new_job, policy, rotating, status, tested};

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
fn a_deadline_that_a_clock_years_ahead_has_set_is_set_anew_when_it_is_put_back() {
    let p = policy();
    let accepted = rotating(JobState::Accepted);
    let job = accepted.job.as_ref().unwrap();
    let now = job.since - 3 * YEAR * 1000;
    let left = job.job_deadline.unwrap() - job.since;
    let (again, send) = after(step::step(&ctx(&p, now), &accepted, &Event::Postpone));
    let job = again.job.as_ref().unwrap();
    assert_eq!((job.state, job.since, send), (JobState::Accepted, now, None));
    assert_eq!(job.deadline, Some(now + p.step_timeout));
    assert_eq!(job.job_deadline, Some(now + left));

    // Who was barred meanwhile gets no time anew; whose clock is right, only what is over ends.
    let mut barred = accepted.clone();
    barred.bar = Some(Bar::Revoked);
    let (ended, _) = after(step::step(&ctx(&p, now), &barred, &Event::Postpone));
    assert_eq!(ended.job.unwrap().state, JobState::Failed);
    let since = accepted.job.as_ref().unwrap().since;
    let waits = step::step(&ctx(&p, since), &barred, &Event::Postpone);
    assert_eq!(waits, Decision::Same(None));
}

#[test]
fn a_deadline_that_was_put_off_by_a_clock_ahead_shows_that_it_was() {
    let p = policy();
    let accepted = rotating(JobState::Accepted);
    let ahead = NOW + YEAR * 1000;
    let (put_off, _) = after(step::step(&ctx(&p, ahead), &accepted, &Event::Postpone));
    let job = put_off.job.as_ref().unwrap();
    // The ledger finds those that have to be put right by this.
    assert!(job.since == ahead && job.next_deadline().unwrap() > ahead);
    let (right, _) = after(step::step(&ctx(&p, NOW), &put_off, &Event::Postpone));
    let job = right.job.as_ref().unwrap();
    assert_eq!(job.since, NOW);
    assert_eq!(job.next_deadline(), Some(NOW + p.step_timeout));
}

#[test]
fn a_deadline_that_passed_for_a_fault_of_ours_is_put_off_and_the_device_asked() {
    let p = policy();
    for (state, said) in [
        (JobState::Accepted, Send::Job),
        (JobState::Issued, Send::Certificate),
        (JobState::Committing, Send::Commit),
    ] {
        let device = rotating(state);
        let late = device.job.as_ref().unwrap().job_deadline.unwrap() + 1;
        let (waits, send) = after(step::step(&ctx(&p, late), &device, &Event::Postpone));
        let job = waits.job.as_ref().unwrap();
        assert_eq!((job.state, send), (state, Some(said)));
        let anew = job.next_deadline().unwrap();
        assert!(anew >= late + p.step_timeout);
        let again = step::step(&ctx(&p, anew), &waits, &Event::Deadline);
        assert_eq!(after(again).0.job.unwrap().state, JobState::TimedOut);
    }
}

#[test]
fn a_job_that_was_sent_before_a_fault_of_ours_is_sent_again_and_has_all_its_time_to_be_accepted() {
    let p = policy();
    let sent = rotating(JobState::Sent);
    // Another leader takes over when it would have gone back in line long ago; the device is connected all the while.
    let over = NOW + 10 * p.offline_after;
    let (resumed, told) = after(step::step(&ctx(&p, over), &sent, &Event::Postpone));
    assert_eq!(told, Some(Send::Job));
    assert_eq!(resumed.session, sent.session);
    let first = resumed.job.as_ref().unwrap().next_deadline().unwrap();
    assert_eq!(first, over + p.step_timeout.min(p.offline_after));
    let (asked, _) = after(step::step(
        &ctx(&p, over + p.offline_after - 1),
        &resumed,
        &Event::Deadline,
    ));
    assert_eq!(asked.job.as_ref().unwrap().state, JobState::Sent);
    let (queued, _) = after(step::step(
        &ctx(&p, over + 2 * p.offline_after),
        &asked,
        &Event::Deadline,
    ));
    assert_eq!(queued.job.unwrap().state, JobState::Queued);
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
    let slots = [lost.current.as_ref().unwrap(), &pending];
    let hello = hello(Slot::B, slots, None, Signer::Pending);
    let (back, _) = after(step::step(&ctx(&p, late), &next, &hello));
    assert_eq!(
        (back.current, back.previous, back.pending),
        (Some(pending), lost.current, None)
    );
    assert_eq!(back.job.unwrap().state, JobState::Queued);
}

//! What becomes of a Rotation's members, and who gets another turn; for every database behind the trait.

use std::sync::Arc;

use certwave_core::model::{Credential, Device, JobKind, JobState};
use certwave_core::rollout::run::{Run, WaveCounts};
use certwave_ledger::{
    Declaration, Ledger, LedgerError, MemberOutcome, NewMember, Retry, Revert, RotationOutcome, RunWrite, Write,
};
use certwave_protocol::ids::Epoch;

use crate::fixtures::*;
use crate::staged::{anybody, candidates, counts, job_to, outcome, place, rotate, staged, step, waiting};

/// Device `n` confirms a new certificate in job `id` of Rotation `r` at `at`.
async fn confirm(ledger: &dyn Ledger, epoch: Epoch, n: u32, id: u64, at: i64) {
    let mut d = device(ledger, n).await;
    let record = certificate(&identity(n), 2_000_000 + id, 90);
    d.previous = d.current.replace(Credential::from(&record));
    let mut j = job(id, JobState::Confirmed);
    j.rotation = Some("r".to_owned());
    d.job = Some(j);
    let write = Write {
        certificate: Some(record),
        ..Write::of(d, at)
    };
    ledger.write(epoch, write).await.unwrap();
}

pub(crate) async fn a_timed_out_member_counts_as_gone_until_it_accepts_another_job(ledger: Arc<dyn Ledger>) {
    use JobState::{Accepted, Cancelled, Lost, Queued, Rejected, Sent, TimedOut};
    let epoch = staged(&*ledger, &[0, 0, 0]).await;
    for ended in [TimedOut, Lost] {
        let base = if ended == Lost { 10 } else { 0 };
        rotate(&*ledger, epoch, 0, base + 1, Accepted).await;
        rotate(&*ledger, epoch, 0, base + 1, ended).await;
        let gone = outcome(&*ledger, 0).await;
        for state in [Queued, Sent, Queued, Cancelled] {
            rotate(&*ledger, epoch, 0, base + 2, state).await;
            assert_eq!(outcome(&*ledger, 0).await, gone, "{state:?}");
            assert_eq!(counts(&*ledger, 0).await.vanished(), 1);
        }
        rotate(&*ledger, epoch, 0, base + 3, Sent).await;
        rotate(&*ledger, epoch, 0, base + 3, Accepted).await;
        assert_eq!(outcome(&*ledger, 0).await, MemberOutcome::Running);
        assert_eq!(counts(&*ledger, 0).await.vanished(), 0);
    }
    // Its own late word counts, and so does a refusal.
    rotate(&*ledger, epoch, 1, 21, TimedOut).await;
    rotate(&*ledger, epoch, 1, 21, JobState::RolledBack).await;
    assert_eq!(outcome(&*ledger, 1).await, MemberOutcome::RolledBack);
    rotate(&*ledger, epoch, 2, 31, TimedOut).await;
    rotate(&*ledger, epoch, 2, 32, Sent).await;
    rotate(&*ledger, epoch, 2, 32, Rejected).await;
    assert_eq!(outcome(&*ledger, 2).await, MemberOutcome::Rejected);
}

pub(crate) async fn who_timed_out_is_tried_again_once_heard(ledger: Arc<dyn Ledger>) {
    let epoch = staged(&*ledger, &[0; 8]).await;
    for n in 0..8 {
        change(&*ledger, epoch, n, |d| {
            let mut j = job(u64::from(n), JobState::TimedOut);
            j.rotation = Some("r".to_owned());
            match n {
                1 => j.deadline = Some(NOW + 9), // Not heard of since.
                2 => j.committed = true,
                3 => j.attempt = 3,
                4 => j.attempt = 4,
                5 => d.not_before = Some(NOW + 1),
                7 => j.state = JobState::Failed,
                _ => {}
            }
            d.job = Some(j);
        })
        .await;
    }
    ledger.withdraw(epoch, NOW, &object("plant", 6)).await.unwrap();
    assert_eq!(ledger.retryable("r", NOW, 3, 9).await.unwrap(), [0, 3].map(identity));
    assert_eq!(ledger.retryable("r", NOW, 3, 1).await.unwrap(), [identity(0)]);
    assert_eq!(
        ledger.retryable("r", NOW + 1, 2, 9).await.unwrap(),
        [0, 5].map(identity)
    );
    change(&*ledger, epoch, 1, |d| d.last_seen = Some(NOW + 1)).await;
    rotate(&*ledger, epoch, 0, 10, JobState::Queued).await;
    assert_eq!(ledger.retryable("r", NOW, 3, 9).await.unwrap(), [1, 3].map(identity));
    let expired = NOW + 10 * DAY_S * 1000;
    assert!(ledger.retryable("r", expired, 9, 9).await.unwrap().is_empty());
}

pub(crate) async fn who_went_back_by_itself_is_not_sent_to_the_new_certificate(ledger: Arc<dyn Ledger>) {
    let epoch = staged(&*ledger, &[0, 0, 0]).await;
    for n in 0..3 {
        confirm(&*ledger, epoch, n, u64::from(n), NOW).await;
    }
    let go_back = |d: &mut Device| std::mem::swap(&mut d.current, &mut d.previous);
    change(&*ledger, epoch, 0, go_back).await;
    let revert = RunWrite {
        revert: Some(Revert {
            from_wave: 0,
            through_wave: 0,
            min_not_after_s: NOW_S,
            confirmed_after: NOW,
        }),
        ..RunWrite::of(Run::default())
    };
    step(&*ledger, epoch, revert).await;
    assert_eq!(outcome(&*ledger, 0).await, MemberOutcome::Reverted, "it is back");
    assert_eq!(ledger.reverting("r", NOW, 9).await.unwrap(), [1, 2].map(identity));

    // Another goes back before its job is made: nobody asks it to, and whoever was about to may not.
    change(&*ledger, epoch, 1, go_back).await;
    assert_eq!(ledger.reverting("r", NOW, 9).await.unwrap(), [identity(2)]);
    let mut d = device(&*ledger, 1).await;
    let mut way_back = job(51, JobState::Queued);
    (way_back.kind, way_back.rotation) = (JobKind::Rollback, Some("r".to_owned()));
    d.job = Some(way_back);
    let refused = ledger.write(epoch, Write::of(d, NOW)).await;
    assert!(matches!(refused, Err(LedgerError::Conflict)), "{refused:?}");
    assert_eq!(outcome(&*ledger, 1).await, MemberOutcome::Reverting);
    assert_eq!(ledger.skip_expired(epoch, "r", NOW + 2).await.unwrap(), 1);
    assert_eq!(outcome(&*ledger, 1).await, MemberOutcome::Reverted);
    let expected = WaveCounts {
        members: 3,
        reverting: 1,
        reverted: 2,
        changed: NOW + 2,
        ..WaveCounts::default()
    };
    assert_eq!(counts(&*ledger, 0).await, expected);
}

pub(crate) async fn confirmed_members_are_sent_back_while_they_can_be(ledger: Arc<dyn Ledger>) {
    let epoch = staged(&*ledger, &[0, 1, 1, 1, 1, 1, 2]).await;
    for n in 0..6 {
        confirm(&*ledger, epoch, n, u64::from(n), if n == 2 { NOW - 1000 } else { NOW }).await;
    }
    // One has had another job since, one is in the middle of one, and one has lost its old certificate.
    change(&*ledger, epoch, 3, |d| d.job = Some(job(33, JobState::Failed))).await;
    change(&*ledger, epoch, 4, |d| d.job = Some(job(34, JobState::Sent))).await;
    change(&*ledger, epoch, 5, |d| d.previous = None).await;
    let revert = RunWrite {
        revert: Some(Revert {
            from_wave: 1,
            through_wave: 2,
            min_not_after_s: NOW_S + 9 * DAY_S,
            confirmed_after: NOW,
        }),
        ..RunWrite::of(Run::default())
    };
    for _ in 0..2 {
        step(&*ledger, epoch, revert.clone()).await;
        let expected = WaveCounts {
            members: 5,
            reverting: 1,
            unreverted: 4,
            changed: NOW + 1,
            ..WaveCounts::default()
        };
        assert_eq!(counts(&*ledger, 1).await, expected);
        assert_eq!(counts(&*ledger, 0).await.confirmed, 1, "not of this wave");
    }
    assert_eq!(ledger.reverting("r", NOW, 9).await.unwrap(), [identity(1)]);
    let examples = ledger.rotation_examples("r", 20).await.unwrap();
    let named: Vec<_> = examples.iter().map(|e| (e.identity.clone(), e.outcome)).collect();
    assert_eq!(named, [2, 3, 4, 5].map(|n| (identity(n), MemberOutcome::Unreverted)));

    // The way back: in line, open, tried again, done.
    job_to(&*ledger, epoch, 1, 51, JobKind::Rollback, JobState::Queued).await;
    assert!(ledger.reverting("r", NOW, 9).await.unwrap().is_empty());
    let mut d = device(&*ledger, 1).await;
    d.job.as_mut().unwrap().state = JobState::Failed;
    d.not_before = Some(NOW + 5);
    let again = Write {
        member: Some(MemberOutcome::Planned),
        ..Write::of(d, NOW)
    };
    ledger.write(epoch, again).await.unwrap();
    assert_eq!(outcome(&*ledger, 1).await, MemberOutcome::Reverting);
    assert!(ledger.reverting("r", NOW, 9).await.unwrap().is_empty());
    assert_eq!(ledger.reverting("r", NOW + 5, 9).await.unwrap(), [identity(1)]);
    for (state, expected) in [
        (JobState::Committing, MemberOutcome::Reverting),
        (JobState::TimedOut, MemberOutcome::Unreverted),
        (JobState::Confirmed, MemberOutcome::Reverted),
    ] {
        job_to(&*ledger, epoch, 1, 52, JobKind::Rollback, state).await;
        assert_eq!(outcome(&*ledger, 1).await, expected);
    }
    let back = RunWrite {
        retry: Some(Retry {
            through_wave: 1,
            failed: false,
            reverted: true,
        }),
        ..RunWrite::of(Run::default())
    };
    for _ in 0..2 {
        step(&*ledger, epoch, back.clone()).await;
        assert_eq!(outcome(&*ledger, 1).await, MemberOutcome::Planned);
    }
}

pub(crate) async fn nobody_waits_for_a_way_back_that_is_closed(ledger: Arc<dyn Ledger>) {
    let epoch = staged(&*ledger, &[0; 6]).await;
    for n in 0..6 {
        confirm(&*ledger, epoch, n, u64::from(n), NOW).await;
    }
    let revert = Revert {
        from_wave: 0,
        through_wave: 0,
        min_not_after_s: NOW_S,
        confirmed_after: NOW,
    };
    let revert = RunWrite {
        revert: Some(revert),
        ..RunWrite::of(Run::default())
    };
    step(&*ledger, epoch, revert).await;
    assert_eq!(counts(&*ledger, 0).await.reverting, 6);
    // Withdrawn; withdrawn with its job unsent; enrolled anew; still on its way; expired; and one when the Rotation ends.
    ledger.withdraw(epoch, NOW, &object("plant", 0)).await.unwrap();
    job_to(&*ledger, epoch, 1, 11, JobKind::Rollback, JobState::Queued).await;
    ledger.withdraw(epoch, NOW, &object("plant", 1)).await.unwrap();
    change(&*ledger, epoch, 2, |d| {
        let mut j = job(12, JobState::Issued);
        j.kind = JobKind::Enrol;
        d.job = Some(j);
    })
    .await;
    job_to(&*ledger, epoch, 3, 13, JobKind::Rollback, JobState::Sent).await;
    assert_eq!(counts(&*ledger, 0).await.reverting, 3);
    change(&*ledger, epoch, 4, |d| d.previous = None).await;
    assert_eq!(ledger.skip_expired(epoch, "r", NOW).await.unwrap(), 1);
    ledger
        .end_rotation(epoch, "r", RotationOutcome::Failed, NOW)
        .await
        .unwrap();
    let last = counts(&*ledger, 0).await;
    assert_eq!((last.reverting, last.unreverted), (1, 5), "an open job goes on");
    job_to(&*ledger, epoch, 3, 13, JobKind::Rollback, JobState::Confirmed).await;
    assert_eq!(outcome(&*ledger, 3).await, MemberOutcome::Reverted);
}

pub(crate) async fn failed_members_get_another_turn_when_a_person_says_so(ledger: Arc<dyn Ledger>) {
    use JobState::{Confirmed, Failed, Lost, Rejected, RolledBack, TimedOut};
    let states = [Failed, Rejected, RolledBack, TimedOut, Lost, Confirmed, Failed, Failed];
    let epoch = staged(&*ledger, &[0, 0, 0, 0, 0, 0, 1, 0]).await;
    for (n, state) in (0u32..).zip(states) {
        rotate(&*ledger, epoch, n, u64::from(n), state).await;
        // The pause after a failure, longer than a person wants to wait who has mended something.
        change(&*ledger, epoch, n, |d| d.not_before = Some(NOW + 600_000)).await;
    }
    ledger.withdraw(epoch, NOW, &object("plant", 7)).await.unwrap();
    let retry = RunWrite {
        retry: Some(Retry {
            through_wave: 0,
            failed: true,
            reverted: false,
        }),
        ..RunWrite::of(Run::default())
    };
    for _ in 0..2 {
        step(&*ledger, epoch, retry.clone()).await;
        assert_eq!(waiting(&*ledger, &anybody(NOW)).await, [0, 1, 2]);
        let left = counts(&*ledger, 0).await;
        assert_eq!((left.failures(), left.vanished(), left.confirmed), (1, 2, 1));
        assert!(
            device(&*ledger, 3).await.not_before.is_some(),
            "who vanished is heard first"
        );
    }
}

pub(crate) async fn a_confirmed_trust_job_leads_to_the_leaf_and_only_who_is_there_gets_another_turn(
    ledger: Arc<dyn Ledger>,
) {
    let epoch = staged(&*ledger, &[0; 3]).await;
    let trust = || JobKind::Trust(hash("bundle", 1));
    for n in 0..3 {
        job_to(&*ledger, epoch, n, u64::from(n), trust(), JobState::Accepted).await;
    }
    job_to(&*ledger, epoch, 0, 0, trust(), JobState::Confirmed).await;
    assert_eq!(outcome(&*ledger, 0).await, MemberOutcome::Planned);
    // These two leave in the middle of their jobs.
    ledger.withdraw(epoch, NOW, &object("plant", 1)).await.unwrap();
    let moved = Declaration {
        fleet: "valves".to_owned(),
        ..declaration(2)
    };
    ledger.declare(epoch, NOW, vec![moved]).await.unwrap();
    assert_eq!(counts(&*ledger, 0).await.in_flight, 2, "an open job goes on");
    for n in 1..3 {
        job_to(&*ledger, epoch, n, u64::from(n), trust(), JobState::Confirmed).await;
        assert_eq!(outcome(&*ledger, n).await, MemberOutcome::Skipped);
    }
}

pub(crate) async fn who_is_in_the_way_and_who_is_left_is_known_by_group_and_end(ledger: Arc<dyn Ledger>) {
    let epoch = begin(&*ledger, 7).await;
    for n in 0..7 {
        enrol(&*ledger, epoch, n, 2 + i64::from(n)).await;
    }
    let members = candidates(&*ledger)
        .await
        .into_iter()
        .zip(0u32..)
        .map(|(c, n)| NewMember {
            group: ["a", "b"][n as usize % 2].to_owned(),
            ..place(c.row, 0, n)
        });
    ledger
        .begin_rotation(epoch, rotation("r"), members.collect())
        .await
        .unwrap();
    assert!(ledger.groups_in_use("r").await.unwrap().is_empty());
    rotate(&*ledger, epoch, 0, 1, JobState::Accepted).await;
    rotate(&*ledger, epoch, 1, 2, JobState::Queued).await;
    rotate(&*ledger, epoch, 2, 3, JobState::TimedOut).await;
    rotate(&*ledger, epoch, 2, 4, JobState::Sent).await;
    rotate(&*ledger, epoch, 3, 5, JobState::Confirmed).await;
    job_to(&*ledger, epoch, 4, 6, JobKind::Rollback, JobState::Committing).await;
    change(&*ledger, epoch, 5, |d| d.job = Some(job(7, JobState::Sent))).await;
    let in_use = ledger.groups_in_use("r").await.unwrap();
    assert_eq!(in_use, [("a".to_owned(), 3)]);

    let end = |n: u32| NOW_S + (2 + i64::from(n)) * DAY_S;
    let hour = |n| (end(n) / 3600 * 3600, 1);
    assert_eq!(ledger.remaining("r").await.unwrap(), [1, 5, 6].map(hour));
    assert_eq!(
        ledger.expiring_members("r", end(6), 9).await.unwrap(),
        [1, 5].map(identity)
    );
    assert_eq!(ledger.expiring_members("r", i64::MAX, 1).await.unwrap(), [identity(1)]);
    let expected = WaveCounts {
        members: 7,
        planned: 2,
        offline: 1,
        in_flight: 1,
        confirmed: 1,
        timed_out: 1,
        reverting: 1,
        changed: NOW,
        ..WaveCounts::default()
    };
    assert_eq!(counts(&*ledger, 0).await, expected);
    // A wave that is planned and has nobody is there all the same.
    assert_eq!(ledger.wave_counts("r").await.unwrap().len(), 3);
}

pub(crate) async fn a_way_back_that_is_called_off_leaves_the_new_certificate(ledger: Arc<dyn Ledger>) {
    let epoch = staged(&*ledger, &[0, 0, 0, 0, 1]).await;
    for n in 0..5 {
        confirm(&*ledger, epoch, n, u64::from(n), NOW).await;
    }
    let revert = Revert {
        from_wave: 0,
        through_wave: 1,
        min_not_after_s: NOW_S,
        confirmed_after: NOW,
    };
    let revert = RunWrite {
        revert: Some(revert),
        ..RunWrite::of(Run::default())
    };
    step(&*ledger, epoch, revert).await;
    // Not asked yet; offline with its job waiting; on its way; back already.
    job_to(&*ledger, epoch, 1, 11, JobKind::Rollback, JobState::Queued).await;
    job_to(&*ledger, epoch, 2, 12, JobKind::Rollback, JobState::Accepted).await;
    job_to(&*ledger, epoch, 3, 13, JobKind::Rollback, JobState::Confirmed).await;
    let now = counts(&*ledger, 0).await;
    assert_eq!(
        (now.reverting, now.offline, now.reverted),
        (2, 1, 1),
        "who is offline blocks nobody"
    );

    let resume = |reverted| RunWrite {
        retry: Some(Retry {
            through_wave: 0,
            failed: true,
            reverted,
        }),
        ..RunWrite::of(Run::default())
    };
    step(&*ledger, epoch, resume(false)).await;
    assert_eq!(
        counts(&*ledger, 0).await,
        now,
        "another try for who failed sends nobody anywhere"
    );
    for _ in 0..2 {
        step(&*ledger, epoch, resume(true)).await;
        let now = counts(&*ledger, 0).await;
        assert_eq!((now.confirmed, now.planned, now.reverting, now.offline), (3, 1, 0, 0));
        assert_eq!(waiting(&*ledger, &anybody(NOW)).await, [3], "taken back in line");
        assert_eq!(counts(&*ledger, 1).await.reverting, 1, "not of this wave");
    }
    assert_eq!(ledger.reverting("r", NOW, 9).await.unwrap(), [identity(4)]);
    // The job that still waited is cancelled: nothing has happened to the device.
    job_to(&*ledger, epoch, 1, 11, JobKind::Rollback, JobState::Cancelled).await;
    assert_eq!(outcome(&*ledger, 1).await, MemberOutcome::Confirmed);
    // What was under way ends as it ends.
    job_to(&*ledger, epoch, 2, 12, JobKind::Rollback, JobState::Confirmed).await;
    assert_eq!(outcome(&*ledger, 2).await, MemberOutcome::Reverted);
    // A cancelled way back of one that nobody has called back is a way back that failed.
    job_to(&*ledger, epoch, 4, 14, JobKind::Rollback, JobState::Queued).await;
    job_to(&*ledger, epoch, 4, 14, JobKind::Rollback, JobState::Cancelled).await;
    assert_eq!(outcome(&*ledger, 4).await, MemberOutcome::Unreverted);
}

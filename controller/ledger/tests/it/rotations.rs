//! Rotations, for every database behind the trait.

use std::collections::BTreeMap;
use std::sync::Arc;

use certwave_core::model::{Job, JobState};
use certwave_ledger::{Declaration, Ledger, LedgerError, MemberOutcome, RotationCounts, RotationOutcome, Write};
use certwave_protocol::code::Code;

use crate::fixtures::*;

fn member_job(n: u64, state: JobState) -> Job {
    Job {
        rotation: Some("r".to_owned()),
        ..job(n, state)
    }
}

pub(crate) async fn members_are_chosen_once_in_the_order_of_their_end(ledger: Arc<dyn Ledger>) {
    let epoch = begin(&*ledger, 8).await;
    for (n, days) in [(0, 9), (1, 9), (2, 9), (3, 9), (4, 5), (5, 9)] {
        enrol(&*ledger, epoch, n, days).await;
    }
    ledger.withdraw(epoch, NOW, &object("plant", 5)).await.unwrap();
    let selector = BTreeMap::from([("ring".to_owned(), "0".to_owned())]);
    assert_eq!(
        ledger
            .start_rotation(epoch, rotation("r"), selector.clone())
            .await
            .unwrap(),
        3
    );
    assert_eq!(
        ledger.next_members("r", NOW, 10).await.unwrap(),
        [4, 0, 2].map(identity)
    );
    enrol(&*ledger, epoch, 6, 1).await;
    assert_eq!(
        ledger.start_rotation(epoch, rotation("r"), selector).await.unwrap(),
        3,
        "chosen once"
    );
    assert_eq!(
        ledger
            .start_rotation(epoch, rotation("all"), BTreeMap::new())
            .await
            .unwrap(),
        6
    );
    let none = BTreeMap::from([("site".to_owned(), "0".to_owned())]);
    assert_eq!(ledger.start_rotation(epoch, rotation("none"), none).await.unwrap(), 0);

    let stored = ledger.rotation("r").await.unwrap().unwrap();
    assert_eq!((stored.members, stored.ended), (3, None));
    assert_eq!(stored.record.plan.waves[0].size, 3);
    assert_eq!(ledger.rotation("unknown").await.unwrap(), None);
    assert!(ledger.next_members("unknown", NOW, 1).await.unwrap().is_empty());

    // Who has a job, or a pause, waits for its turn.
    change(&*ledger, epoch, 4, |d| d.job = Some(job(4, JobState::Sent))).await;
    change(&*ledger, epoch, 0, |d| d.not_before = Some(NOW + 1)).await;
    assert_eq!(ledger.next_members("r", NOW, 10).await.unwrap(), [identity(2)]);
    assert_eq!(
        ledger.next_members("r", NOW + 1, 10).await.unwrap(),
        [identity(0), identity(2)]
    );
    assert_eq!(ledger.next_members("r", NOW + 1, 1).await.unwrap(), [identity(0)]);
}

pub(crate) async fn a_members_outcome_follows_its_job(ledger: Arc<dyn Ledger>) {
    let epoch = begin(&*ledger, 12).await;
    for n in 0..12 {
        enrol(&*ledger, epoch, n, 9).await;
    }
    ledger
        .start_rotation(epoch, rotation("r"), BTreeMap::new())
        .await
        .unwrap();
    let states = [
        JobState::Queued,
        JobState::Sent,
        JobState::Committing,
        JobState::Confirmed,
        JobState::Rejected,
        JobState::Failed,
        JobState::TimedOut,
        JobState::RolledBack,
        JobState::Cancelled,
        JobState::Lost,
    ];
    for (n, state) in (0u32..).zip(states) {
        let mut j = member_job(u64::from(n), state);
        j.code = state.went_wrong().then_some(Code::Storage);
        change(&*ledger, epoch, n, |d| d.job = Some(j)).await;
    }
    let expected = RotationCounts {
        members: 12,
        planned: 2,
        offline: 1,
        in_flight: 2,
        confirmed: 1,
        rejected: 1,
        failed: 1,
        timed_out: 1,
        rolled_back: 1,
        lost: 1,
        skipped: 1,
    };
    assert_eq!(ledger.rotation_counts("r").await.unwrap(), expected);
    let examples = ledger.rotation_examples("r", 20).await.unwrap();
    let wrong: Vec<_> = examples
        .iter()
        .map(|e| (e.identity.clone(), e.outcome, e.code))
        .collect();
    let code = Some(Code::Storage);
    assert_eq!(
        wrong,
        [
            (identity(4), MemberOutcome::Rejected, code),
            (identity(5), MemberOutcome::Failed, code),
            (identity(6), MemberOutcome::TimedOut, code),
            (identity(7), MemberOutcome::RolledBack, code),
            (identity(9), MemberOutcome::Lost, code),
        ]
    );
    assert_eq!(ledger.rotation_examples("r", 2).await.unwrap().len(), 2);

    // A late proof still counts.
    change(&*ledger, epoch, 6, |d| {
        d.job.as_mut().unwrap().state = JobState::Confirmed;
    })
    .await;
    let counts = ledger.rotation_counts("r").await.unwrap();
    assert_eq!((counts.confirmed, counts.timed_out), (2, 0));
}

pub(crate) async fn a_planned_retry_keeps_its_place_in_line(ledger: Arc<dyn Ledger>) {
    let epoch = begin(&*ledger, 1).await;
    enrol(&*ledger, epoch, 0, 9).await;
    ledger
        .start_rotation(epoch, rotation("r"), BTreeMap::new())
        .await
        .unwrap();
    let mut d = device(&*ledger, 0).await;
    d.job = Some(member_job(1, JobState::Failed));
    d.not_before = Some(NOW + 5);
    let retry = Write {
        member: Some(MemberOutcome::Planned),
        ..Write::of(d, NOW)
    };
    ledger.write(epoch, retry).await.unwrap();
    // A hello afterwards does not touch the job, and so not the member.
    change(&*ledger, epoch, 0, |d| d.last_seen = Some(NOW)).await;
    assert_eq!(ledger.rotation_counts("r").await.unwrap().planned, 1);
    assert!(ledger.next_members("r", NOW, 1).await.unwrap().is_empty());
    assert_eq!(ledger.next_members("r", NOW + 5, 1).await.unwrap(), [identity(0)]);
    assert!(ledger.rotation_examples("r", 20).await.unwrap().is_empty());
}

pub(crate) async fn who_is_busy_elsewhere_keeps_no_rotation_from_ending(ledger: Arc<dyn Ledger>) {
    let epoch = begin(&*ledger, 2).await;
    for n in 0..2 {
        enrol(&*ledger, epoch, n, 9).await;
    }
    // Another job waits for this one, which is offline.
    change(&*ledger, epoch, 0, |d| d.job = Some(job(7, JobState::Queued))).await;
    ledger
        .start_rotation(epoch, rotation("r"), BTreeMap::new())
        .await
        .unwrap();
    change(&*ledger, epoch, 1, |d| d.job = Some(member_job(1, JobState::Accepted))).await;
    let expected = RotationCounts {
        members: 2,
        offline: 1,
        in_flight: 1,
        ..RotationCounts::default()
    };
    assert_eq!(ledger.rotation_counts("r").await.unwrap(), expected);
    // A permit lets this one enrol in the middle of its job.
    change(&*ledger, epoch, 1, |d| d.job = Some(job(8, JobState::Issued))).await;
    let expected = RotationCounts {
        members: 2,
        offline: 1,
        skipped: 1,
        ..RotationCounts::default()
    };
    assert_eq!(ledger.rotation_counts("r").await.unwrap(), expected);
}

pub(crate) async fn who_leaves_the_fleet_is_skipped(ledger: Arc<dyn Ledger>) {
    let epoch = begin(&*ledger, 4).await;
    for n in 0..4 {
        enrol(&*ledger, epoch, n, 9).await;
    }
    ledger
        .start_rotation(epoch, rotation("r"), BTreeMap::new())
        .await
        .unwrap();
    change(&*ledger, epoch, 1, |d| d.job = Some(member_job(1, JobState::Queued))).await;
    for n in 0..2 {
        ledger.withdraw(epoch, NOW, &object("plant", n)).await.unwrap();
    }
    let moved = Declaration {
        fleet: "valves".to_owned(),
        ..declaration(2)
    };
    ledger.declare(epoch, NOW, vec![moved]).await.unwrap();
    let expected = RotationCounts {
        members: 4,
        planned: 1,
        skipped: 3,
        ..RotationCounts::default()
    };
    assert_eq!(ledger.rotation_counts("r").await.unwrap(), expected);
}

pub(crate) async fn a_rotation_ends_once_and_nobody_else_gets_a_turn(ledger: Arc<dyn Ledger>) {
    let epoch = begin(&*ledger, 2).await;
    for n in 0..2 {
        enrol(&*ledger, epoch, n, 9).await;
    }
    ledger
        .start_rotation(epoch, rotation("r"), BTreeMap::new())
        .await
        .unwrap();
    change(&*ledger, epoch, 0, |d| d.job = Some(member_job(1, JobState::Sent))).await;
    ledger
        .end_rotation(epoch, "r", RotationOutcome::Cancelled, NOW + 7)
        .await
        .unwrap();
    ledger
        .end_rotation(epoch, "r", RotationOutcome::Succeeded, NOW + 8)
        .await
        .unwrap();
    assert_eq!(
        ledger.rotation("r").await.unwrap().unwrap().ended,
        Some((NOW + 7, RotationOutcome::Cancelled))
    );
    assert!(ledger.next_members("r", NOW, 10).await.unwrap().is_empty());
    let mut d = device(&*ledger, 0).await;
    d.job.as_mut().unwrap().state = JobState::Failed;
    let retry = Write {
        member: Some(MemberOutcome::Planned),
        ..Write::of(d, NOW)
    };
    ledger.write(epoch, retry).await.unwrap();
    assert_eq!(ledger.rotation_counts("r").await.unwrap().skipped, 2);
    let unknown = ledger
        .end_rotation(epoch, "unknown", RotationOutcome::Failed, NOW)
        .await;
    assert_eq!(unknown, Err(LedgerError::NotFound("such Rotation")));
}

pub(crate) async fn who_has_expired_gets_no_turn(ledger: Arc<dyn Ledger>) {
    let epoch = begin(&*ledger, 4).await;
    for (n, days) in [(0, -1), (1, 1), (2, 1), (3, 9)] {
        enrol(&*ledger, epoch, n, days).await;
    }
    assert_eq!(
        ledger
            .start_rotation(epoch, rotation("r"), BTreeMap::new())
            .await
            .unwrap(),
        4
    );
    let expected = RotationCounts {
        members: 4,
        planned: 3,
        skipped: 1,
        ..RotationCounts::default()
    };
    assert_eq!(ledger.rotation_counts("r").await.unwrap(), expected);
    assert_eq!(
        ledger.next_members("r", NOW, 10).await.unwrap(),
        [1, 2, 3].map(identity)
    );
    change(&*ledger, epoch, 2, |d| d.job = Some(member_job(2, JobState::Sent))).await;

    let later = NOW + 2 * DAY_S * 1000;
    assert_eq!(ledger.next_members("r", later, 10).await.unwrap(), [identity(3)]);
    assert_eq!(
        ledger.skip_expired(epoch, "r", later).await.unwrap(),
        1,
        "the one with a job ends by its job"
    );
    assert_eq!(ledger.skip_expired(epoch, "r", later).await.unwrap(), 0);
    let expected = RotationCounts {
        members: 4,
        planned: 1,
        in_flight: 1,
        skipped: 2,
        ..RotationCounts::default()
    };
    assert_eq!(ledger.rotation_counts("r").await.unwrap(), expected);
}

//! Rotations, for every database behind the trait.

use std::sync::Arc;

use certwave_core::model::{Credential, Job, JobState};
use certwave_core::rollout::run::WaveCounts;
use certwave_ledger::{Declaration, Ledger, LedgerError, MemberOutcome, RotationOutcome, RotationRecord, Write};
use certwave_protocol::code::Code;

use crate::fixtures::*;
use crate::staged::{anybody, candidates, counts, outcome, place, staged, waiting};

fn member_job(n: u64, state: JobState) -> Job {
    Job {
        rotation: Some("r".to_owned()),
        ..job(n, state)
    }
}

pub(crate) async fn a_members_outcome_follows_its_job(ledger: Arc<dyn Ledger>) {
    let epoch = staged(&*ledger, &[0; 12]).await;
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
    let expected = WaveCounts {
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
        changed: NOW,
        ..WaveCounts::default()
    };
    assert_eq!(counts(&*ledger, 0).await, expected);
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
    let after = counts(&*ledger, 0).await;
    assert_eq!((after.confirmed, after.timed_out), (2, 0));
}

pub(crate) async fn a_planned_retry_keeps_its_place_in_line(ledger: Arc<dyn Ledger>) {
    let epoch = staged(&*ledger, &[0]).await;
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
    assert_eq!(counts(&*ledger, 0).await.planned, 1);
    assert!(waiting(&*ledger, &anybody(NOW)).await.is_empty());
    assert_eq!(waiting(&*ledger, &anybody(NOW + 5)).await, [0]);
    assert!(ledger.rotation_examples("r", 20).await.unwrap().is_empty());
}

pub(crate) async fn who_is_busy_elsewhere_keeps_no_rotation_from_ending(ledger: Arc<dyn Ledger>) {
    let epoch = staged(&*ledger, &[0; 4]).await;
    // A job of nobody's, and of Rotations before and behind this one by name, waits for these, which are offline.
    for (n, other) in [(0, None), (2, Some("q")), (3, Some("s"))] {
        let mut j = job(20 + u64::from(n), JobState::Queued);
        j.rotation = other.map(str::to_owned);
        change(&*ledger, epoch, n, |d| d.job = Some(j)).await;
    }
    change(&*ledger, epoch, 1, |d| d.job = Some(member_job(1, JobState::Accepted))).await;
    let expected = WaveCounts {
        members: 4,
        offline: 3,
        in_flight: 1,
        changed: NOW,
        ..WaveCounts::default()
    };
    assert_eq!(counts(&*ledger, 0).await, expected);
    let tallied = WaveCounts {
        planned: 3,
        offline: 0,
        ..expected
    };
    assert_eq!(ledger.wave_tallies("r").await.unwrap()[0], tallied);
    // A permit lets this one enrol in the middle of its job.
    change(&*ledger, epoch, 1, |d| d.job = Some(job(8, JobState::Issued))).await;
    let expected = WaveCounts {
        members: 4,
        offline: 3,
        skipped: 1,
        changed: NOW,
        ..WaveCounts::default()
    };
    assert_eq!(counts(&*ledger, 0).await, expected);
}

pub(crate) async fn who_leaves_the_fleet_is_skipped(ledger: Arc<dyn Ledger>) {
    let epoch = staged(&*ledger, &[0; 4]).await;
    change(&*ledger, epoch, 1, |d| d.job = Some(member_job(1, JobState::Queued))).await;
    for n in 0..2 {
        ledger.withdraw(epoch, NOW, &object("plant", n)).await.unwrap();
    }
    let moved = Declaration {
        fleet: "valves".to_owned(),
        ..declaration(2)
    };
    ledger.declare(epoch, NOW, vec![moved]).await.unwrap();
    let expected = WaveCounts {
        members: 4,
        planned: 1,
        skipped: 3,
        changed: NOW,
        ..WaveCounts::default()
    };
    assert_eq!(counts(&*ledger, 0).await, expected);
}

pub(crate) async fn a_rotation_ends_once_and_nobody_else_gets_a_turn(ledger: Arc<dyn Ledger>) {
    let epoch = staged(&*ledger, &[0; 2]).await;
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
    assert!(waiting(&*ledger, &anybody(NOW)).await.is_empty());
    let mut d = device(&*ledger, 0).await;
    d.job.as_mut().unwrap().state = JobState::Failed;
    let retry = Write {
        member: Some(MemberOutcome::Planned),
        ..Write::of(d, NOW)
    };
    ledger.write(epoch, retry).await.unwrap();
    assert_eq!(counts(&*ledger, 0).await.skipped, 2);
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
    // Planned while all of them could still have a turn.
    let early = NOW - 2 * DAY_S * 1000;
    let chosen = ledger.candidates(&fleet("pumps"), early, None, 9).await.unwrap();
    let members = chosen.iter().zip(0..).map(|(c, n)| place(c.row, 0, n)).collect();
    assert_eq!(ledger.begin_rotation(epoch, rotation("r"), members).await.unwrap(), 4);
    let expected = WaveCounts {
        members: 4,
        planned: 3,
        skipped: 1,
        changed: NOW,
        ..WaveCounts::default()
    };
    assert_eq!(counts(&*ledger, 0).await, expected);
    assert_eq!(waiting(&*ledger, &anybody(NOW)).await, [1, 2, 3]);
    change(&*ledger, epoch, 2, |d| d.job = Some(member_job(2, JobState::Sent))).await;

    let later = NOW + 2 * DAY_S * 1000;
    assert_eq!(waiting(&*ledger, &anybody(later)).await, [3]);
    assert_eq!(
        ledger.skip_expired(epoch, "r", later).await.unwrap(),
        1,
        "the one with a job ends by its job"
    );
    assert_eq!(ledger.skip_expired(epoch, "r", later).await.unwrap(), 0);
    let expected = WaveCounts {
        members: 4,
        planned: 1,
        in_flight: 1,
        skipped: 2,
        changed: later,
        ..WaveCounts::default()
    };
    assert_eq!(counts(&*ledger, 0).await, expected);
}

pub(crate) async fn the_last_rotation_of_a_fleet_is_the_one_that_ended_last(ledger: Arc<dyn Ledger>) {
    let epoch = begin(&*ledger, 1).await;
    let pumps = fleet("pumps");
    assert_eq!(ledger.last_rotation(&pumps).await.unwrap(), None, "an unknown fleet's");
    for n in 0..4 {
        let record = RotationRecord {
            object: object("plant", n),
            fleet: fleet(if n == 3 { "valves" } else { "pumps" }),
            ..rotation(&n.to_string())
        };
        ledger.begin_rotation(epoch, record, Vec::new()).await.unwrap();
    }
    assert_eq!(ledger.last_rotation(&pumps).await.unwrap(), None, "none has ended");
    assert!(!ledger.open_rotations().await.unwrap().is_empty());
    // Against the order in which they began; one of another fleet is the last of all, and one goes on.
    for (n, at, last) in [("1", NOW + 2, 1), ("0", NOW + 3, 0), ("3", NOW + 9, 0)] {
        let cancelled = RotationOutcome::Cancelled;
        ledger.end_rotation(epoch, n, cancelled, at).await.unwrap();
        assert_eq!(ledger.last_rotation(&pumps).await.unwrap(), Some(object("plant", last)));
    }
    // In the same moment, the one that began later.
    ledger
        .end_rotation(epoch, "2", RotationOutcome::Succeeded, NOW + 3)
        .await
        .unwrap();
    assert_eq!(ledger.last_rotation(&pumps).await.unwrap(), Some(object("plant", 2)));
}

pub(crate) async fn who_was_renewed_meanwhile_is_skipped_unless_the_ca_is_to_change(ledger: Arc<dyn Ledger>) {
    let epoch = begin(&*ledger, 4).await;
    for n in 0..4 {
        enrol(&*ledger, epoch, n, 9).await;
    }
    let started = NOW + 5;
    for (uid, issuer) in [("r", None), ("to another CA", Some("bb".repeat(20)))] {
        let members = candidates(&*ledger).await.into_iter().zip(0..);
        let record = RotationRecord {
            started,
            issuer,
            ..rotation(uid)
        };
        let members = members.map(|(c, n)| place(c.row, 0, n)).collect();
        ledger.begin_rotation(epoch, record, members).await.unwrap();
    }
    // By a clock that was ahead and is put right; and with another job open since. Nothing was done to the first and the last.
    for (n, at) in [(1, started - 100_000), (2, started)] {
        let mut d = device(&*ledger, n).await;
        let record = certificate(&identity(n), 3_000_000 + u64::from(n), 90);
        d.current = Some(Credential::from(&record));
        d.job = Some(job(
            u64::from(n),
            if n == 2 { JobState::Sent } else { JobState::Confirmed },
        ));
        let write = Write {
            certificate: Some(record),
            ..Write::of(d, at)
        };
        ledger.write(epoch, write).await.unwrap();
    }
    for skipped in [1, 0] {
        assert_eq!(ledger.skip_renewed(epoch, "r", started + 1).await.unwrap(), skipped);
        assert_eq!(outcome(&*ledger, 1).await, MemberOutcome::Skipped);
        assert_eq!(counts(&*ledger, 0).await.planned, 3);
    }
    let kept = ledger.skip_renewed(epoch, "to another CA", started + 1).await.unwrap();
    assert_eq!(kept, 0);
}

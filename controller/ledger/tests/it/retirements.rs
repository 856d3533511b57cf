//! The suite: retiring an old certificate in two phases.

use std::sync::Arc;

use certwave_core::model::{Credential, Job, JobKind, JobState};
use certwave_core::retire::{Phase, Retirement, RetirementCounts, Why};
use certwave_core::revocation::{Holder, Reason, Standing};
use certwave_ledger::{Act, Ledger, LedgerError, Mark, MemberOutcome, NewMember, Target, Write};
use certwave_protocol::ids::Epoch;

use crate::fixtures::*;
use crate::revocations::{REVOKE, mark, one, standing};
use crate::staged::anybody;

/// Rotates device `n` in Rotation `r`, which begins the retirement of its certificate.
async fn rotated(ledger: &dyn Ledger, epoch: Epoch, n: u32) -> Retirement {
    let old = enrol(ledger, epoch, n, 30).await;
    let new = certificate(&identity(n), 3_000_000 + u64::from(n), 60);
    let mut d = device(ledger, n).await;
    d.previous = d.current.replace(Credential::from(&new));
    let mut done = job(u64::from(n), JobState::Confirmed);
    done.rotation = Some("r".to_owned());
    d.job = Some(done);
    let retirement = Retirement {
        job: job_id(u64::from(n)),
        identity: identity(n),
        rotation: Some("r".to_owned()),
        old: old.fingerprint,
        new: new.fingerprint,
        phase: Phase::Waiting,
        since: NOW,
        wake: Some(NOW + i64::from(n) + 10),
        nonce: None,
        attempt: 0,
        why: None,
    };
    let write = Write {
        certificate: Some(new),
        retirement: Some(retirement.clone()),
        ..Write::of(d, NOW)
    };
    let revision = ledger.write(epoch, write).await.unwrap();
    assert_eq!(device(ledger, n).await.revision, revision);
    retirement
}

fn step(r: &Retirement, phase: Phase, wake: i64) -> Retirement {
    Retirement {
        phase,
        since: r.since + 1,
        wake: Some(wake),
        ..r.clone()
    }
}

fn act(r: &Retirement, act: Act) -> Mark {
    mark(Target::Certificate(r.old), act)
}

fn hold(r: &Retirement) -> Mark {
    act(r, Act::Hold(Holder::Retirement(r.job)))
}

pub(crate) async fn a_retirement_goes_from_waiting_over_the_hold_to_revoked(ledger: Arc<dyn Ledger>) {
    let ledger = &*ledger;
    let epoch = begin(ledger, 1).await;
    let waiting = rotated(ledger, epoch, 0).await;
    let broker = &identity(0).broker;
    let old = ledger.certificate(&waiting.old).await.unwrap().unwrap().record;
    assert_eq!(ledger.retirement(&identity(0)).await.unwrap(), Some(waiting.clone()));
    assert_eq!(ledger.due_retirements(broker, false, NOW, 9).await.unwrap(), []);
    let due = ledger.due_retirements(broker, false, NOW + 10, 9).await.unwrap();
    assert_eq!(due, std::slice::from_ref(&waiting));

    let held = step(&waiting, Phase::Held, NOW + 100);
    let before = (Phase::Waiting, waiting.since);
    let changed = ledger
        .step_retirement(epoch, NOW, before, held.clone(), Some(hold(&held)))
        .await
        .unwrap();
    assert_eq!(changed.len(), 1);
    assert_eq!(standing(ledger, &old).await, Standing::Held { since: NOW_S });
    let d = device(ledger, 0).await;
    assert_eq!(
        (d.bar, d.previous.is_some()),
        (None, true),
        "nobody is barred, nothing forgotten"
    );
    assert_eq!(
        ledger.open_sessions(broker, 9).await.unwrap(),
        [],
        "its session goes on"
    );
    assert_eq!(ledger.holding(broker).await.unwrap(), 1);
    assert_eq!(ledger.due_retirements(broker, false, NOW + 1000, 9).await.unwrap(), []);
    assert_eq!(
        ledger.due_retirements(broker, true, NOW + 1000, 9).await.unwrap(),
        std::slice::from_ref(&held)
    );
    let again = ledger
        .step_retirement(epoch, NOW, before, held.clone(), Some(hold(&held)))
        .await;
    assert_eq!(again, Err(LedgerError::Conflict));

    let revoked = step(&held, Phase::Revoked, NOW);
    let superseded = Act::Revoke {
        reason: Reason::Superseded,
        invalid_since: None,
    };
    let before = (Phase::Held, held.since);
    ledger
        .step_retirement(
            epoch,
            NOW + 9000,
            before,
            revoked.clone(),
            Some(act(&revoked, superseded)),
        )
        .await
        .unwrap();
    let expected = Standing::Revoked {
        since: NOW_S,
        reason: Reason::Superseded,
    };
    assert_eq!(standing(ledger, &old).await, expected);
    let d = device(ledger, 0).await;
    assert_eq!((d.bar, d.previous), (None, None));
    assert_eq!(ledger.open_sessions(broker, 9).await.unwrap(), []);
    assert_eq!(ledger.retirement(&identity(0)).await.unwrap(), None);
    assert_eq!(ledger.due_retirements(broker, true, i64::MAX, 9).await.unwrap(), []);
    let counts = RetirementCounts {
        revoked: 1,
        ..RetirementCounts::default()
    };
    assert_eq!(ledger.retirement_counts("r").await.unwrap(), counts);
}

pub(crate) async fn the_next_retirement_of_a_device_lets_go_of_what_the_last_one_held(ledger: Arc<dyn Ledger>) {
    let ledger = &*ledger;
    let epoch = begin(ledger, 1).await;
    let first = rotated(ledger, epoch, 0).await;
    let held = step(&first, Phase::Held, NOW + 100);
    ledger
        .step_retirement(
            epoch,
            NOW,
            (Phase::Waiting, first.since),
            held.clone(),
            Some(hold(&held)),
        )
        .await
        .unwrap();
    let mut d = device(ledger, 0).await;
    let newest = certificate(&identity(0), 99, 90);
    d.previous = d.current.replace(Credential::from(&newest));
    let next = Retirement {
        job: job_id(5),
        old: first.new,
        new: newest.fingerprint,
        ..first.clone()
    };
    let write = Write {
        certificate: Some(newest),
        retirement: Some(next.clone()),
        ..Write::of(d, NOW + 1)
    };
    let revision = ledger.write(epoch, write).await.unwrap();
    assert_eq!(device(ledger, 0).await.revision, revision);
    let old = ledger.certificate(&first.old).await.unwrap().unwrap().record;
    assert_eq!(standing(ledger, &old).await, Standing::Good);
    assert_eq!(ledger.retirement(&identity(0)).await.unwrap(), Some(next));
    let counts = ledger.retirement_counts("r").await.unwrap();
    assert_eq!((counts.waiting, counts.released), (1, 1));
}

/// A Rotation of every device, in one wave.
async fn all_in_one_wave(ledger: &dyn Ledger, epoch: Epoch) {
    let rows = ledger.candidates(&fleet("pumps"), NOW, None, 9).await.unwrap();
    let members = (0..).zip(rows).map(|(ordinal, c)| NewMember {
        row: c.row,
        wave: 0,
        ordinal,
        group: String::new(),
        windows: u64::MAX,
    });
    ledger
        .begin_rotation(epoch, rotation("r"), members.collect())
        .await
        .unwrap();
}

pub(crate) async fn the_wave_hears_of_who_did_not_come_back(ledger: Arc<dyn Ledger>) {
    let ledger = &*ledger;
    let epoch = begin(ledger, 2).await;
    for n in 0..2 {
        enrol(ledger, epoch, n, 30).await;
    }
    all_in_one_wave(ledger, epoch).await;
    for (n, why) in [(0, Why::NoHello), (1, Why::NotLoaded)] {
        let mut d = device(ledger, n).await;
        let new = certificate(&identity(n), 3_000_000 + u64::from(n), 60);
        let old = d.current.replace(Credential::from(&new)).unwrap();
        d.previous = Some(old.clone());
        let mut done = job(u64::from(n), JobState::Confirmed);
        done.rotation = Some("r".to_owned());
        d.job = Some(done);
        let begun = Retirement {
            job: job_id(u64::from(n)),
            identity: identity(n),
            rotation: Some("r".to_owned()),
            old: old.fingerprint,
            new: new.fingerprint,
            phase: Phase::Asked,
            since: NOW,
            wake: Some(NOW),
            nonce: None,
            attempt: 0,
            why: None,
        };
        let write = Write {
            certificate: Some(new),
            retirement: Some(begun.clone()),
            ..Write::of(d, NOW)
        };
        ledger.write(epoch, write).await.unwrap();
        let released = Retirement {
            why: Some(why),
            ..step(&begun, Phase::Released, NOW)
        };
        ledger
            .step_retirement(epoch, NOW, (Phase::Asked, NOW), released, None)
            .await
            .unwrap();
    }
    let outcome = async |n| ledger.member("r", &identity(n)).await.unwrap().unwrap().outcome;
    assert_eq!(outcome(0).await, MemberOutcome::ProbationFailed);
    assert_eq!(outcome(1).await, MemberOutcome::Confirmed, "a fault of ours");
}

pub(crate) async fn no_job_begins_amid_a_hold_and_no_hold_amid_a_job(ledger: Arc<dyn Ledger>) {
    let ledger = &*ledger;
    let epoch = begin(ledger, 2).await;
    let first = rotated(ledger, epoch, 0).await;
    enrol(ledger, epoch, 1, 30).await;
    all_in_one_wave(ledger, epoch).await;
    let waiting = async || {
        let found = ledger.waiting_members("r", &anybody(NOW)).await.unwrap();
        found.into_iter().map(|member| member.identity).collect::<Vec<_>>()
    };
    assert_eq!(waiting().await, [identity(0), identity(1)]);

    let old = ledger.certificate(&first.old).await.unwrap().unwrap().record;
    let held = step(&first, Phase::Held, NOW + 100);
    let before = (Phase::Waiting, first.since);
    let put = || ledger.step_retirement(epoch, NOW, before, held.clone(), Some(hold(&held)));
    change(ledger, epoch, 0, |d| d.job = Some(job(7, JobState::Queued))).await;
    assert_eq!(put().await, Err(LedgerError::Conflict), "a job has come since");
    assert_eq!(standing(ledger, &old).await, Standing::Good);
    change(ledger, epoch, 0, |d| d.job = Some(job(7, JobState::Cancelled))).await;
    put().await.unwrap();

    assert_eq!(waiting().await, [identity(1)], "and nobody behind it waits for it");
    let with = async |job: Job| {
        let mut d = device(ledger, 0).await;
        d.job = Some(job);
        ledger.write(epoch, Write::of(d, NOW)).await
    };
    for kind in [JobKind::Rotate, JobKind::Rollback] {
        let refused = Job {
            kind,
            ..job(8, JobState::Queued)
        };
        assert_eq!(with(refused).await, Err(LedgerError::Conflict));
    }
    // Whoever enrols anew has nothing left to lose.
    let enrolment = Job {
        kind: JobKind::Enrol,
        ..job(9, JobState::Issued)
    };
    with(enrolment).await.unwrap();
}

pub(crate) async fn nobody_is_sent_back_to_a_certificate_that_is_held_or_revoked(ledger: Arc<dyn Ledger>) {
    let ledger = &*ledger;
    let epoch = begin(ledger, 3).await;
    for n in 0..3 {
        enrol(ledger, epoch, n, 30).await;
    }
    all_in_one_wave(ledger, epoch).await;
    let mut olds = Vec::new();
    for n in 0..3 {
        let mut d = device(ledger, n).await;
        let new = certificate(&identity(n), 3_000_000 + u64::from(n), 60);
        d.previous = d.current.replace(Credential::from(&new));
        olds.push(d.previous.clone().unwrap());
        let mut done = job(u64::from(n), JobState::Confirmed);
        done.rotation = Some("r".to_owned());
        d.job = Some(done);
        let write = Write {
            certificate: Some(new),
            ..Write::of(d, NOW)
        };
        ledger.write(epoch, write).await.unwrap();
    }
    let serial = |n: u32| Target::DeviceSerial(identity(n), olds[n as usize].serial.clone());
    one(
        ledger,
        epoch,
        NOW,
        mark(serial(0), Act::Hold(Holder::Retirement(job_id(0)))),
    )
    .await;
    one(ledger, epoch, NOW, mark(serial(1), REVOKE)).await;
    let back = certwave_ledger::RunWrite {
        revert: Some(certwave_ledger::Revert {
            from_wave: 0,
            through_wave: 0,
            min_not_after_s: NOW_S,
            confirmed_after: 0,
        }),
        ..certwave_ledger::RunWrite::of(certwave_core::rollout::run::Run::default())
    };
    ledger.write_run(epoch, "r", NOW, back).await.unwrap();
    assert_eq!(ledger.reverting("r", NOW, 9).await.unwrap(), [identity(2)]);
    // And who is to be sent back is not waited for once that way is shut.
    one(ledger, epoch, NOW, mark(serial(2), REVOKE)).await;
    ledger.skip_expired(epoch, "r", NOW).await.unwrap();
    assert_eq!(ledger.wave_counts("r").await.unwrap()[0].unreverted, 3);
}

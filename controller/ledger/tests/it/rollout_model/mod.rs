//! Random histories of one Rotation on the ledger and on a model of plain maps, which must agree at every step; at the end
//! the ledger's tallies must be what a recount of its members gives.

mod check;
mod op;
mod plain;

use std::collections::BTreeMap;

use certwave_core::model::{Credential, JobKind, JobState, Millis};
use certwave_core::rollout::run::Run;
use certwave_ledger::{
    Declaration, DeviceRow, Ledger, LedgerError, MemberOutcome, NewMember, RotationOutcome, RotationRecord, RunWrite,
    SqlLedger, SqliteLedger, Write,
};
use certwave_protocol::ids::Epoch;
use proptest::prelude::*;

use crate::fixtures::*;
use check::{compare, recount};
use op::{Op, STATES, each, op};
use plain::{Device, Job, Model, kind};

const DEVICES: u32 = 6;
const WAVES: u32 = 3;
/// When the Rotation begins; its devices have enrolled before.
const START: Millis = NOW + 1000;
const HALF_DAY: Millis = 43_200_000;
/// Device `n`'s place in the plan.
fn place(row: DeviceRow, n: u32, wave: u32) -> NewMember {
    NewMember {
        row,
        wave,
        ordinal: DEVICES - n,
        group: ["a", "b", ""][n as usize % 3].to_owned(),
        windows: [1, 2, 0, u64::MAX][n as usize % 4],
    }
}

async fn start(ledger: &dyn Ledger) -> (Epoch, Model) {
    let epoch = begin(ledger, DEVICES).await;
    for n in 0..DEVICES {
        enrol(ledger, epoch, n, 3 + i64::from(n)).await;
    }
    let candidates = ledger.candidates(&fleet("pumps"), NOW, None, 99).await.unwrap();
    let rows: Vec<_> = candidates.iter().map(|c| c.row).collect();
    let mut model = Model {
        now: START,
        ended: false,
        devices: (0..DEVICES)
            .map(|n| Device {
                declared: true,
                pumps: true,
                job: None,
                current: plain::Certificate {
                    number: 0,
                    not_after: NOW_S + (3 + i64::from(n)) * DAY_S,
                    confirmed_at: NOW,
                },
                previous: None,
                not_before: None,
                last_seen: None,
            })
            .collect(),
        rows: rows.clone(),
        members: BTreeMap::new(),
        changed: [0; WAVES as usize],
        next: 0,
    };
    let members: Vec<_> = (0..DEVICES - 1)
        .map(|n| place(rows[n as usize], n, n % WAVES))
        .collect();
    for (n, new) in (0..).zip(&members) {
        model.join(n, new.clone());
    }
    let record = RotationRecord {
        started: START,
        ..rotation("r")
    };
    ledger.begin_rotation(epoch, record, members).await.unwrap();
    (epoch, model)
}

async fn apply(ledger: &dyn Ledger, epoch: Epoch, model: &mut Model, op: Op) {
    let run = async |model: &Model, write: RunWrite| {
        let answer = ledger.write_run(epoch, "r", model.now, write).await;
        assert_eq!(answer.is_err(), model.ended, "{answer:?}");
        answer.is_ok()
    };
    match op {
        Op::Job {
            device: n,
            fresh,
            state,
            in_line,
            days,
            pause,
        } => {
            let present = model.devices[n as usize].job.clone();
            let state = STATES[state];
            let new = fresh.is_some() || present.is_none();
            model.next += 1;
            let mut job = match (fresh, present) {
                (None, Some(job)) if job.state == state => job,
                (None, Some(job)) => Job {
                    state,
                    since: model.now,
                    ..job
                },
                (fresh, _) => {
                    let (kind, ours) = fresh.unwrap_or((0, true));
                    Job {
                        id: model.next,
                        kind,
                        // Who is no member has no job of the Rotation.
                        ours: ours && model.outcome(n).is_some(),
                        state,
                        since: model.now,
                    }
                }
            };
            // An end is given as "in line again", as after a failure; the open ones never.
            let in_line = in_line && state.ended() && job.ours;
            let mut d = device(ledger, n).await;
            let mut j = crate::fixtures::job(job.id, state);
            (j.kind, j.rotation, j.since) = (kind(job.kind), job.ours.then(|| "r".to_owned()), job.since);
            let same = d.job.as_ref() == Some(&j);
            d.job = Some(j);
            d.not_before = pause.then_some(model.now + HALF_DAY);
            let renewed = state == JobState::Confirmed && kind(job.kind) == JobKind::Rotate && !same;
            let record = renewed.then(|| certificate(&identity(n), 5_000_000 + model.next, days));
            if let Some(record) = &record {
                d.previous = d.current.replace(Credential::from(record));
            }
            let write = Write {
                member: in_line.then_some(MemberOutcome::Planned),
                certificate: record,
                ..Write::of(d, model.now)
            };
            let written = ledger.write(epoch, write).await;
            if new && job.kind == plain::ROLLBACK && model.devices[n as usize].went_back() {
                assert!(matches!(written, Err(LedgerError::Conflict)), "{written:?}");
                return;
            }
            written.unwrap();

            let withdrawn = !model.devices[n as usize].declared && state == JobState::Queued;
            if withdrawn {
                (job.state, job.since) = (JobState::Cancelled, model.now);
            }
            // What is stored already is no news.
            if !same || in_line && !withdrawn {
                model.job(n, &job, new, in_line && !withdrawn);
            }
            let now = model.now;
            let d = &mut model.devices[n as usize];
            d.not_before = pause.then_some(now + HALF_DAY);
            d.job = Some(job);
            if renewed {
                let new = plain::Certificate {
                    number: model.next,
                    not_after: NOW_S + days * DAY_S,
                    confirmed_at: now,
                };
                d.previous = Some(std::mem::replace(&mut d.current, new));
            }
        }
        Op::GoBack(n) => {
            let mut d = device(ledger, n).await;
            if d.previous.is_none() || model.devices[n as usize].open() {
                return;
            }
            std::mem::swap(&mut d.current, &mut d.previous);
            ledger.write(epoch, Write::of(d, model.now)).await.unwrap();
            let d = &mut model.devices[n as usize];
            if let Some(previous) = d.previous.as_mut() {
                std::mem::swap(&mut d.current, previous);
            }
        }
        Op::Heard(n) => {
            let mut d = device(ledger, n).await;
            d.last_seen = Some(model.now);
            ledger.write(epoch, Write::of(d, model.now)).await.unwrap();
            model.devices[n as usize].last_seen = Some(model.now);
        }
        Op::Withdraw(n) => {
            ledger.withdraw(epoch, model.now, &object("plant", n)).await.unwrap();
            let now = model.now;
            let d = &mut model.devices[n as usize];
            if !d.declared {
                return;
            }
            d.declared = false;
            let waits = d.job.as_mut().filter(|j| j.state == JobState::Queued);
            let ours = waits.is_some_and(|j| {
                (j.state, j.since) = (JobState::Cancelled, now);
                j.ours
            });
            match model.outcome(n).filter(|_| ours) {
                Some(MemberOutcome::Running) => model.set(n, MemberOutcome::Skipped),
                Some(MemberOutcome::Reverting) => model.set(n, MemberOutcome::Unreverted),
                _ => {}
            }
            model.leave(n);
        }
        Op::Declare(n, pumps) => {
            let d = Declaration {
                fleet: if pumps { "pumps" } else { "valves" }.to_owned(),
                ..declaration(n)
            };
            ledger.declare(epoch, model.now, vec![d]).await.unwrap();
            if model.devices[n as usize].pumps != pumps {
                model.leave(n);
            }
            let d = &mut model.devices[n as usize];
            (d.declared, d.pumps) = (true, pumps);
        }
        Op::Retry(retry) => {
            let write = RunWrite {
                retry: Some(retry),
                ..RunWrite::of(Run::default())
            };
            if run(model, write).await {
                if retry.failed {
                    model.hurry(retry.through_wave);
                }
                model.each(|d, p| match p.outcome {
                    _ if p.new.wave > retry.through_wave => None,
                    MemberOutcome::Failed | MemberOutcome::Rejected | MemberOutcome::RolledBack => {
                        (retry.failed && d.home()).then_some(MemberOutcome::Planned)
                    }
                    MemberOutcome::Reverted => (retry.reverted && d.home()).then_some(MemberOutcome::Planned),
                    MemberOutcome::Reverting => retry.reverted.then_some(MemberOutcome::Confirmed),
                    _ => None,
                });
            }
        }
        Op::Revert(revert) => {
            let write = RunWrite {
                revert: Some(revert),
                ..RunWrite::of(Run::default())
            };
            if run(model, write).await {
                model.each(|d, p| {
                    let last = !d.open() && d.job.as_ref().map(|j| j.id) == p.job;
                    let can = d.home()
                        && d.previous.is_some_and(|c| c.not_after >= revert.min_not_after_s)
                        && d.current.confirmed_at >= revert.confirmed_after;
                    let concerned = p.outcome == MemberOutcome::Confirmed
                        && (revert.from_wave..=revert.through_wave).contains(&p.new.wave);
                    concerned.then_some(match last {
                        true if d.is_back(p) => MemberOutcome::Reverted,
                        true if can => MemberOutcome::Reverting,
                        _ => MemberOutcome::Unreverted,
                    })
                });
            }
        }
        Op::Substitute(wave) => {
            let write = RunWrite {
                substitute: Some(wave),
                ..RunWrite::of(Run::default())
            };
            if run(model, write).await {
                model.substitute(wave);
            }
        }
        Op::Join(n, wave) => {
            let new = place(model.rows[n as usize], n, wave);
            let write = RunWrite {
                join: vec![new.clone()],
                ..RunWrite::of(Run::default())
            };
            if run(model, write).await {
                model.join(n, new);
            }
        }
        Op::SkipExpired => {
            ledger.skip_expired(epoch, "r", model.now).await.unwrap();
            let now_s = model.now / 1000;
            model.each(|d, p| match p.outcome {
                MemberOutcome::Planned if d.home() && !d.open() && d.current.not_after <= now_s => {
                    Some(MemberOutcome::Skipped)
                }
                MemberOutcome::Reverting if !d.open() && d.is_back(p) => Some(MemberOutcome::Reverted),
                MemberOutcome::Reverting if !d.open() && d.previous.is_none_or(|c| c.not_after <= now_s) => {
                    Some(MemberOutcome::Unreverted)
                }
                _ => None,
            });
        }
        Op::SkipRenewed => {
            ledger.skip_renewed(epoch, "r", model.now).await.unwrap();
            model.each(|d, p| {
                let renewed = p.outcome == MemberOutcome::Planned && !d.open() && d.current.number > p.held;
                renewed.then_some(MemberOutcome::Skipped)
            });
        }
        Op::HalfADayPasses => model.now += HALF_DAY,
        Op::End => {
            ledger
                .end_rotation(epoch, "r", RotationOutcome::Cancelled, model.now)
                .await
                .unwrap();
            if !model.ended {
                model.ended = true;
                model.each(|d, p| match p.outcome {
                    MemberOutcome::Planned => Some(MemberOutcome::Skipped),
                    MemberOutcome::Reverting if !d.open() => Some(MemberOutcome::Unreverted),
                    _ => None,
                });
            }
        }
        Op::Reopen | Op::SendBack | Op::CallOff => {}
    }
}

/// Does them to a ledger that `open` opens, and to the model.
async fn live<D: Send + Sync + 'static>(open: impl Fn() -> SqlLedger<D>, ops: Vec<Op>) {
    let mut ledger = open();
    let (epoch, mut model) = start(&ledger).await;
    for op in ops {
        if matches!(op, Op::Reopen) {
            ledger.close().await;
            ledger = open();
        }
        for op in each(&model, op) {
            apply(&ledger, epoch, &mut model, op).await;
        }
        compare(&ledger, &model).await;
    }
    ledger.close().await;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn a_rotation_in_the_ledger_agrees_with_plain_maps(ops in proptest::collection::vec(op(), 1..80)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger.db");
        runtime.block_on(live(|| SqliteLedger::open(&path).unwrap(), ops));
        let db = rusqlite::Connection::open(&path).unwrap();
        recount(|sql| db.query_row(sql, [], |row| row.get(0)).unwrap());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn a_rotation_in_postgresql_agrees_with_plain_maps(ops in proptest::collection::vec(op(), 1..80)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let server = crate::postgres::server();
        let url = server.database().unwrap();
        runtime.block_on(live(|| crate::postgres::open(&url).unwrap(), ops));
        recount(|sql| server.sql(crate::postgres::name(&url), sql).unwrap().parse().unwrap());
    }
}

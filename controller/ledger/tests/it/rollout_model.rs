//! Random histories of one Rotation on the ledger and on a model of plain maps, which must agree at every step; at the end
//! the ledger's tallies must be what a recount of its members gives.

use std::collections::BTreeMap;
use std::path::Path;

use certwave_core::model::{JobKind, JobState, Millis};
use certwave_core::rollout::run::{Run, WaveCounts};
use certwave_ledger::{
    Declaration, DeviceRow, Ledger, Member, MemberOutcome, MemberQuery, NewMember, Retry, Revert, RotationOutcome,
    RunWrite, SqliteLedger, Write,
};
use certwave_protocol::ids::Epoch;
use proptest::prelude::*;
use rusqlite::Connection;

use crate::fixtures::*;

const DEVICES: u32 = 6;
const WAVES: u32 = 3;
const HALF_DAY: Millis = 43_200_000;
const STATES: [JobState; 12] = [
    JobState::Queued,
    JobState::Sent,
    JobState::Accepted,
    JobState::Issued,
    JobState::Committing,
    JobState::Confirmed,
    JobState::Rejected,
    JobState::Failed,
    JobState::TimedOut,
    JobState::RolledBack,
    JobState::Cancelled,
    JobState::Lost,
];

#[derive(Debug, Clone)]
enum Op {
    /// Another job, of the Rotation or of none; or the present one in another state.
    Job {
        device: u32,
        fresh: Option<(u8, bool)>,
        state: usize,
        in_line: bool,
        days: i64,
        pause: bool,
    },
    Withdraw(u32),
    Declare(u32, bool),
    Retry(Retry),
    Revert(Revert),
    Join(u32, u32),
    SkipExpired,
    HalfADayPasses,
    End,
    Reopen,
}

fn op() -> impl proptest::strategy::Strategy<Value = Op> {
    let job = (
        0..DEVICES,
        proptest::option::of((0u8..4, prop::bool::weighted(0.8))),
        0..STATES.len(),
        prop::bool::weighted(0.2),
        1i64..40,
        prop::bool::weighted(0.1),
    );
    let waves = (0..WAVES, 0..WAVES);
    prop_oneof![
        14 => job.prop_map(|(device, fresh, state, in_line, days, pause)| {
            Op::Job { device, fresh, state, in_line, days, pause }
        }),
        1 => (0..DEVICES).prop_map(Op::Withdraw),
        2 => (0..DEVICES, any::<bool>()).prop_map(|(n, pumps)| Op::Declare(n, pumps)),
        1 => (0..WAVES, any::<bool>(), any::<bool>())
            .prop_map(|(through_wave, failed, reverted)| Op::Retry(Retry { through_wave, failed, reverted })),
        2 => (waves, 0i64..20, 0i64..6).prop_map(|((from_wave, through_wave), days, age)| Op::Revert(Revert {
            from_wave,
            through_wave,
            min_not_after_s: NOW_S + days * DAY_S,
            confirmed_after: NOW + age * HALF_DAY,
        })),
        1 => (0..DEVICES, 0..WAVES).prop_map(|(n, wave)| Op::Join(n, wave)),
        1 => Just(Op::SkipExpired),
        2 => Just(Op::HalfADayPasses),
        1 => prop::bool::weighted(0.1).prop_map(|end| if end { Op::End } else { Op::Reopen }),
    ]
}

#[derive(Debug, Clone)]
struct Job {
    id: u64,
    kind: u8,
    ours: bool,
    state: JobState,
}

/// A device as far as Rotations care.
#[derive(Debug, Clone)]
struct Device {
    declared: bool,
    pumps: bool,
    job: Option<Job>,
    not_after: i64,
    previous: Option<i64>,
    confirmed_at: Millis,
    not_before: Option<Millis>,
}

impl Device {
    fn open(&self) -> bool {
        self.job.as_ref().is_some_and(|j| !j.state.ended())
    }

    fn ours(&self) -> Option<&Job> {
        self.job.as_ref().filter(|j| j.ours)
    }

    fn home(&self) -> bool {
        self.declared && self.pumps
    }
}

#[derive(Debug, Clone)]
struct Place {
    new: NewMember,
    outcome: MemberOutcome,
    job: Option<u64>,
}

struct Model {
    now: Millis,
    ended: bool,
    devices: Vec<Device>,
    rows: Vec<DeviceRow>,
    members: BTreeMap<u32, Place>,
    changed: [Millis; WAVES as usize],
    next: u64,
}

const ROLLBACK: u8 = 3;

fn kind(kind: u8) -> JobKind {
    match kind {
        0 | 1 => JobKind::Rotate,
        2 => JobKind::Trust(hash("bundle", 1)),
        _ => JobKind::Rollback,
    }
}

impl Model {
    fn set(&mut self, n: u32, outcome: MemberOutcome) {
        let now = self.now;
        if let Some(place) = self.members.get_mut(&n)
            && place.outcome != outcome
        {
            place.outcome = outcome;
            let changed = &mut self.changed[place.new.wave as usize];
            *changed = now.max(*changed);
        }
    }

    fn outcome(&self, n: u32) -> Option<MemberOutcome> {
        self.members.get(&n).map(|p| p.outcome)
    }

    fn member(&self, n: u32) -> Option<Member> {
        let place = self.members.get(&n)?;
        Some(Member {
            identity: identity(n),
            wave: place.new.wave,
            ordinal: place.new.ordinal,
            group: place.new.group.clone(),
            windows: place.new.windows,
            not_after: self.devices[n as usize].not_after,
            outcome: place.outcome,
        })
    }

    fn join(&mut self, n: u32, new: NewMember) {
        let d = &self.devices[n as usize];
        let alive = d.home() && d.not_after > self.now / 1000;
        let outcome = if alive {
            MemberOutcome::Planned
        } else {
            MemberOutcome::Skipped
        };
        let changed = &mut self.changed[new.wave as usize];
        if let std::collections::btree_map::Entry::Vacant(entry) = self.members.entry(n) {
            *changed = self.now.max(*changed);
            entry.insert(Place {
                new,
                outcome,
                job: None,
            });
        }
    }

    /// The device leaves the fleet.
    fn leave(&mut self, n: u32) {
        match self.outcome(n) {
            Some(MemberOutcome::Planned) => self.set(n, MemberOutcome::Skipped),
            Some(MemberOutcome::Reverting) if !self.devices[n as usize].open() => {
                self.set(n, MemberOutcome::Unreverted)
            }
            _ => {}
        }
    }

    /// The device's job is a new one, or has come to another state.
    fn job(&mut self, n: u32, job: &Job, new: bool, in_line: bool) {
        use MemberOutcome as M;
        let before = self.devices[n as usize].job.clone();
        if new {
            if self.outcome(n) == Some(M::Running) && before.is_some_and(|b| b.ours) {
                self.set(n, M::Skipped);
            }
            if self.outcome(n) == Some(M::Reverting) && !(job.ours && job.kind == ROLLBACK) {
                self.set(n, M::Unreverted);
            }
        }
        let Some(place) = self.members.get(&n).filter(|_| job.ours) else {
            return;
        };
        let silent = matches!(job.state, JobState::Queued | JobState::Sent | JobState::Cancelled);
        if matches!(place.outcome, M::TimedOut | M::Lost) && place.job != Some(job.id) && silent {
            return;
        }
        let over = self.ended || !self.devices[n as usize].home();
        let again = in_line || job.kind == 2 && job.state == JobState::Confirmed;
        let outcome = if job.kind == ROLLBACK {
            match job.state {
                _ if in_line => {
                    if over {
                        M::Unreverted
                    } else {
                        M::Reverting
                    }
                }
                JobState::Confirmed => M::Reverted,
                state if state.ended() => M::Unreverted,
                _ => M::Reverting,
            }
        } else if again {
            if over { M::Skipped } else { M::Planned }
        } else {
            match job.state {
                JobState::Confirmed => M::Confirmed,
                JobState::Rejected => M::Rejected,
                JobState::Failed => M::Failed,
                JobState::TimedOut => M::TimedOut,
                JobState::RolledBack => M::RolledBack,
                JobState::Cancelled => M::Skipped,
                JobState::Lost => M::Lost,
                _ => M::Running,
            }
        };
        self.set(n, outcome);
        if let Some(place) = self.members.get_mut(&n) {
            place.job = Some(job.id);
        }
    }

    fn each(&mut self, mut outcome: impl FnMut(&Device, &Place) -> Option<MemberOutcome>) {
        for n in 0..DEVICES {
            let to = self.members.get(&n).and_then(|p| outcome(&self.devices[n as usize], p));
            if let Some(to) = to {
                self.set(n, to);
            }
        }
    }

    fn counts(&self) -> Vec<WaveCounts> {
        let mut waves = vec![WaveCounts::default(); WAVES as usize];
        for (wave, changed) in waves.iter_mut().zip(self.changed) {
            wave.changed = changed;
        }
        for (n, place) in &self.members {
            let w = &mut waves[place.new.wave as usize];
            let state = self.devices[*n as usize].job.as_ref().map(|j| j.state);
            w.members += 1;
            *match place.outcome {
                MemberOutcome::Planned | MemberOutcome::Running if state == Some(JobState::Queued) => &mut w.offline,
                MemberOutcome::Planned => &mut w.planned,
                MemberOutcome::Running => &mut w.in_flight,
                MemberOutcome::Confirmed => &mut w.confirmed,
                MemberOutcome::Rejected => &mut w.rejected,
                MemberOutcome::Failed => &mut w.failed,
                MemberOutcome::TimedOut => &mut w.timed_out,
                MemberOutcome::RolledBack => &mut w.rolled_back,
                MemberOutcome::Lost => &mut w.lost,
                MemberOutcome::Skipped => &mut w.skipped,
                MemberOutcome::Reverting => &mut w.reverting,
                MemberOutcome::Reverted => &mut w.reverted,
                MemberOutcome::Unreverted => &mut w.unreverted,
            } += 1;
        }
        waves
    }

    fn waiting(&self, q: &MemberQuery) -> Vec<Member> {
        let mut waiting: Vec<_> = (0..DEVICES)
            .filter(|n| {
                let d = &self.devices[*n as usize];
                d.declared && !d.open() && d.not_before.is_none_or(|t| t <= q.now) && d.not_after > q.now / 1000
            })
            .filter_map(|n| self.member(n))
            .filter(|m| m.outcome == MemberOutcome::Planned && m.wave <= q.through_wave)
            .filter(|m| !q.full_groups.contains(&m.group))
            .filter(|m| {
                let near = q.override_before_s.is_some_and(|before| m.not_after < before);
                q.windows == u64::MAX || m.windows & q.windows != 0 || near
            })
            .collect();
        waiting.sort_by_key(|m| (m.wave, m.ordinal));
        waiting.truncate(q.limit as usize);
        waiting
    }

    fn groups_in_use(&self) -> Vec<(String, u32)> {
        let mut groups = BTreeMap::new();
        for (n, place) in &self.members {
            let job = self.devices[*n as usize].ours();
            if place.outcome == MemberOutcome::TimedOut || job.is_some_and(|j| j.state.in_flight()) {
                *groups.entry(place.new.group.clone()).or_default() += 1;
            }
        }
        groups.into_iter().collect()
    }

    fn left(&self) -> Vec<u32> {
        let queued = |n: u32| {
            self.devices[n as usize]
                .job
                .as_ref()
                .is_some_and(|j| j.state == JobState::Queued)
        };
        let left = self.members.iter().filter(|(n, p)| match p.outcome {
            MemberOutcome::Planned => true,
            MemberOutcome::Running => queued(**n),
            _ => false,
        });
        left.map(|(n, _)| *n).collect()
    }
}

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

async fn start(ledger: &SqliteLedger) -> (Epoch, Model) {
    let epoch = begin(ledger, DEVICES).await;
    for n in 0..DEVICES {
        enrol(ledger, epoch, n, 3 + i64::from(n)).await;
    }
    let candidates = ledger.candidates(&fleet("pumps"), NOW, None, 99).await.unwrap();
    let rows: Vec<_> = candidates.iter().map(|c| c.row).collect();
    let mut model = Model {
        now: NOW,
        ended: false,
        devices: (0..DEVICES)
            .map(|n| Device {
                declared: true,
                pumps: true,
                job: None,
                not_after: NOW_S + (3 + i64::from(n)) * DAY_S,
                previous: None,
                confirmed_at: NOW,
                not_before: None,
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
    ledger.begin_rotation(epoch, rotation("r"), members).await.unwrap();
    (epoch, model)
}

async fn apply(ledger: &SqliteLedger, epoch: Epoch, model: &mut Model, op: Op) {
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
                (None, Some(job)) => Job { state, ..job },
                (fresh, _) => {
                    let (kind, ours) = fresh.unwrap_or((0, true));
                    Job {
                        id: model.next,
                        kind,
                        ours,
                        state,
                    }
                }
            };
            // An end is given as "in line again", as after a failure; the open ones never.
            let in_line = in_line && state.ended() && job.ours;
            let mut d = device(ledger, n).await;
            let mut j = crate::fixtures::job(job.id, state);
            (j.kind, j.rotation) = (kind(job.kind), job.ours.then(|| "r".to_owned()));
            let same = d.job.as_ref() == Some(&j);
            d.job = Some(j);
            d.not_before = pause.then_some(model.now + HALF_DAY);
            let renewed = state == JobState::Confirmed && kind(job.kind) == JobKind::Rotate && !same;
            let record = renewed.then(|| certificate(&identity(n), 5_000_000 + model.next, days));
            if let Some(record) = &record {
                d.previous = d.current.replace(credential(record));
            }
            let write = Write {
                member: in_line.then_some(MemberOutcome::Planned),
                certificate: record,
                ..Write::of(d, model.now)
            };
            ledger.write(epoch, write).await.unwrap();

            let withdrawn = !model.devices[n as usize].declared && state == JobState::Queued;
            if withdrawn {
                job.state = JobState::Cancelled;
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
                (d.previous, d.not_after) = (Some(d.not_after), NOW_S + days * DAY_S);
                d.confirmed_at = now;
            }
        }
        Op::Withdraw(n) => {
            ledger.withdraw(epoch, model.now, &object("plant", n)).await.unwrap();
            let d = &mut model.devices[n as usize];
            if !d.declared {
                return;
            }
            d.declared = false;
            let waits = d.job.as_mut().filter(|j| j.state == JobState::Queued);
            let ours = waits.is_some_and(|j| {
                j.state = JobState::Cancelled;
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
                model.each(|d, p| {
                    let again = match p.outcome {
                        MemberOutcome::Failed | MemberOutcome::Rejected | MemberOutcome::RolledBack => retry.failed,
                        MemberOutcome::Reverted => retry.reverted,
                        _ => false,
                    };
                    (again && p.new.wave <= retry.through_wave && d.home()).then_some(MemberOutcome::Planned)
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
                    let back = d.home()
                        && !d.open()
                        && d.job.as_ref().map(|j| j.id) == p.job
                        && d.previous.is_some_and(|end| end >= revert.min_not_after_s)
                        && d.confirmed_at >= revert.confirmed_after;
                    let concerned = p.outcome == MemberOutcome::Confirmed
                        && (revert.from_wave..=revert.through_wave).contains(&p.new.wave);
                    concerned.then_some(if back {
                        MemberOutcome::Reverting
                    } else {
                        MemberOutcome::Unreverted
                    })
                });
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
                MemberOutcome::Planned if d.home() && !d.open() && d.not_after <= now_s => Some(MemberOutcome::Skipped),
                MemberOutcome::Reverting if !d.open() && d.previous.is_none_or(|end| end <= now_s) => {
                    Some(MemberOutcome::Unreverted)
                }
                _ => None,
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
        Op::Reopen => {}
    }
}

async fn compare(ledger: &SqliteLedger, model: &Model) {
    for n in 0..DEVICES {
        assert_eq!(ledger.member("r", &identity(n)).await.unwrap(), model.member(n));
    }
    assert_eq!(ledger.wave_counts("r").await.unwrap(), model.counts());
    assert_eq!(ledger.groups_in_use("r").await.unwrap(), model.groups_in_use());
    for (windows, wave, full) in [(u64::MAX, 9, "a"), (1, 9, "none"), (2, 1, "b"), (0, 9, "none")] {
        let query = MemberQuery {
            now: model.now,
            through_wave: wave,
            windows,
            override_before_s: Some(model.now / 1000 + 2 * DAY_S),
            full_groups: vec![full.to_owned()],
            limit: 4,
        };
        assert_eq!(
            ledger.waiting_members("r", &query).await.unwrap(),
            model.waiting(&query)
        );
    }
    let mut back: Vec<_> = (0..DEVICES)
        .filter(|n| {
            let d = &model.devices[*n as usize];
            let may = d.declared && !d.open() && d.not_before.is_none_or(|t| t <= model.now);
            may && model.outcome(*n) == Some(MemberOutcome::Reverting)
        })
        .filter_map(|n| model.member(n))
        .collect();
    back.sort_by_key(|m| (m.wave, m.ordinal));
    let back: Vec<_> = back.into_iter().map(|m| m.identity).collect();
    assert_eq!(ledger.reverting("r", model.now, 99).await.unwrap(), back);
    let left: u32 = ledger.remaining("r").await.unwrap().iter().map(|(_, n)| n).sum();
    assert_eq!(left as usize, model.left().len());
    let strangers: Vec<_> = (0..DEVICES)
        .filter(|n| !model.members.contains_key(n))
        .filter(|n| model.devices[*n as usize].home() && model.devices[*n as usize].not_after > model.now / 1000)
        .map(|n| identity(n).device)
        .collect();
    let found = ledger.strangers("r", model.now, None, 99).await.unwrap();
    assert_eq!(found.into_iter().map(|c| c.device).collect::<Vec<_>>(), strangers);
}

/// The file's tallies and buckets are what its members say.
fn recount(path: &Path) {
    let db = Connection::open(path).unwrap();
    for sql in [
        "SELECT count(*) FROM (SELECT rotation, wave, outcome, n FROM tallies WHERE n <> 0
             EXCEPT SELECT rotation, wave, outcome, count(*) FROM members GROUP BY rotation, wave, outcome)",
        "SELECT count(*) FROM (SELECT rotation, wave, outcome, count(*) FROM members GROUP BY rotation, wave, outcome
             EXCEPT SELECT rotation, wave, outcome, n FROM tallies)",
        "SELECT count(*) FROM buckets b WHERE planned <>
             (SELECT count(*) FROM members m WHERE m.bucket = b.id AND m.outcome = 'Planned')",
        "SELECT count(*) FROM members m JOIN buckets b ON b.id = m.bucket
             WHERE b.rotation <> m.rotation OR b.wave <> m.wave",
    ] {
        let wrong: i64 = db.query_row(sql, [], |row| row.get(0)).unwrap();
        assert_eq!(wrong, 0, "{sql}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn a_rotation_in_the_ledger_agrees_with_plain_maps(ops in proptest::collection::vec(op(), 1..80)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("ledger.db");
            let mut ledger = SqliteLedger::open(&path).unwrap();
            let (epoch, mut model) = start(&ledger).await;
            for op in ops {
                if matches!(op, Op::Reopen) {
                    ledger.close().await;
                    ledger = SqliteLedger::open(&path).unwrap();
                }
                apply(&ledger, epoch, &mut model, op).await;
                compare(&ledger, &model).await;
            }
            ledger.close().await;
            recount(&path);
        });
    }
}

//! Random operations on the ledger and on a model of plain maps, which must agree at every step.

use std::collections::BTreeMap;

use certwave_core::model::{Credential, Device, DeviceState, Job, JobState, Millis};
use certwave_ledger::{
    Declaration, Declared, DueQuery, FleetCounts, FleetKey, Ledger, LedgerError, SqlLedger, SqliteLedger, Write,
};
use certwave_protocol::ids::{DeviceId, Epoch};
use proptest::prelude::*;

use crate::fixtures::*;

const DEVICES: u32 = 5;
const NAMESPACES: [&str; 2] = ["plant", "annex"];
const STATES: [Option<JobState>; 13] = [
    None,
    Some(JobState::Queued),
    Some(JobState::Sent),
    Some(JobState::Accepted),
    Some(JobState::Issued),
    Some(JobState::Committing),
    Some(JobState::Confirmed),
    Some(JobState::Rejected),
    Some(JobState::Failed),
    Some(JobState::TimedOut),
    Some(JobState::RolledBack),
    Some(JobState::Cancelled),
    Some(JobState::Lost),
];

#[derive(Debug, Clone)]
enum Op {
    Declare {
        device: u32,
        object: u32,
        namespace: usize,
        fleet: bool,
    },
    Withdraw {
        object: u32,
        namespace: usize,
    },
    Write {
        device: u32,
        state: usize,
        days: Option<i64>,
        seen: Millis,
        pause: bool,
        back: u64,
        enrol: bool,
    },
    TakeEpoch,
    OldEpoch {
        device: u32,
    },
    Reopen,
}

fn op() -> impl Strategy<Value = Op> {
    let namespace = 0..NAMESPACES.len();
    prop_oneof![
        4 => (0..DEVICES, 0..DEVICES, namespace.clone(), any::<bool>())
            .prop_map(|(device, object, namespace, fleet)| Op::Declare { device, object, namespace, fleet }),
        2 => (0..DEVICES, namespace).prop_map(|(object, namespace)| Op::Withdraw { object, namespace }),
        8 => (0..DEVICES, 0..STATES.len(), proptest::option::of(-5i64..60), 0i64..100, any::<bool>(),
              prop_oneof![9 => Just(0u64), 1 => Just(1)], any::<bool>())
            .prop_map(|(device, state, days, seen, pause, back, enrol)| {
                Op::Write { device, state, days, seen: NOW + seen, pause, back, enrol }
            }),
        1 => Just(Op::TakeEpoch),
        1 => (0..DEVICES).prop_map(|device| Op::OldEpoch { device }),
        1 => Just(Op::Reopen),
    ]
}

/// What the ledger should hold.
#[derive(Default)]
struct Model {
    epoch: Epoch,
    devices: BTreeMap<DeviceId, (Device, bool)>,
    issued: u64,
}

impl Model {
    fn declare(&mut self, d: &Declaration) -> Declared {
        for (device, declared) in self.devices.values_mut() {
            if *declared && device.object == d.object && device.id != d.identity {
                withdraw(device, declared);
            }
        }
        let Some((device, declared)) = self.devices.get_mut(&d.identity.device) else {
            let mut device = Device::declared(d.identity.clone(), d.object.clone(), d.fleet.clone());
            device.labels.clone_from(&d.labels);
            device.revision = 1;
            self.devices.insert(d.identity.device.clone(), (device, true));
            return Declared::New;
        };
        let stranger = device.object.namespace != d.object.namespace && device.enrolled();
        if *declared && device.object != d.object || !*declared && stranger {
            return Declared::Duplicate {
                holder: device.object.clone(),
            };
        }
        if *declared && device.fleet == d.fleet {
            return Declared::Unchanged;
        }
        let answer = if *declared { Declared::Changed } else { Declared::New };
        (device.object, device.fleet, *declared) = (d.object.clone(), d.fleet.clone(), true);
        device.revision += 1;
        answer
    }

    fn counts(&self, fleet: &FleetKey, online_after: Millis) -> FleetCounts {
        let mut c = FleetCounts::default();
        for (d, _) in self
            .devices
            .values()
            .filter(|(d, declared)| *declared && FleetKey::of(d) == *fleet)
        {
            c.total += 1;
            *match d.state(NOW) {
                DeviceState::Declared => &mut c.declared,
                DeviceState::Enrolling => &mut c.enrolling,
                DeviceState::Active => &mut c.active,
                DeviceState::Rotating => &mut c.rotating,
                DeviceState::Failed => &mut c.failed,
                DeviceState::Expired => &mut c.expired,
            } += 1;
            let state = d.job.as_ref().map(|j| j.state);
            c.offline += u32::from(state == Some(JobState::Queued));
            c.in_flight += u32::from(d.job.as_ref().is_some_and(Job::holds_slot));
            c.online += u32::from(d.last_seen.is_some_and(|t| t >= online_after));
            let ends = d.current.as_ref().map(|c| c.not_after).filter(|t| *t > NOW_S);
            c.next_expiry = c.next_expiry.into_iter().chain(ends).min();
            c.lost += u32::from(state == Some(JobState::Lost));
            c.expiring += u32::from(ends.is_some_and(|end| end < SOON_S));
        }
        c
    }

    fn due(&self, fleet: &FleetKey, before: i64, failed_before: i64) -> Vec<DeviceId> {
        let mut due: Vec<_> = self
            .devices
            .values()
            .filter(|(d, declared)| *declared && FleetKey::of(d) == *fleet && d.open_job().is_none())
            .filter(|(d, _)| d.not_before.is_none_or(|t| t <= NOW))
            .filter_map(|(d, _)| Some((d.current.as_ref()?.not_after, d)))
            .filter(|(end, d)| (NOW_S + 1..before).contains(end) && (*end < failed_before || !failed(d)))
            .map(|(end, d)| (end, d.id.device.clone()))
            .collect();
        due.sort();
        due.into_iter().map(|(_, id)| id).collect()
    }
}

/// Its last job went wrong, and if it vanished, it has not been heard since.
fn failed(d: &Device) -> bool {
    let Some(job) = &d.job else { return false };
    let gone = matches!(job.state, JobState::TimedOut | JobState::Lost);
    job.state.went_wrong() && !(gone && d.last_seen.is_some_and(|t| t > job.since))
}

fn withdraw(device: &mut Device, declared: &mut bool) {
    *declared = false;
    device.revision += 1;
    if let Some(job) = device.job.as_mut().filter(|j| j.state == JobState::Queued) {
        job.state = JobState::Cancelled;
        job.code = Some(certwave_protocol::code::Code::Cancelled);
        job.since = NOW;
        job.deadline = None;
    }
}

async fn apply(ledger: &dyn Ledger, model: &mut Model, op: Op) {
    match op {
        Op::Declare {
            device,
            object: n,
            namespace,
            fleet,
        } => {
            let d = Declaration {
                object: object(NAMESPACES[namespace], n),
                uid: "uid".to_owned(),
                fleet: if fleet { "pumps" } else { "valves" }.to_owned(),
                ..declaration(device)
            };
            let expected = model.declare(&d);
            assert_eq!(ledger.declare(model.epoch, NOW, vec![d]).await.unwrap(), [expected]);
        }
        Op::Withdraw { object: n, namespace } => {
            let object = object(NAMESPACES[namespace], n);
            let found = model
                .devices
                .values_mut()
                .find(|(d, declared)| *declared && d.object == object);
            let expected = found.map(|(d, declared)| {
                withdraw(d, declared);
                d.id.clone()
            });
            assert_eq!(ledger.withdraw(model.epoch, NOW, &object).await.unwrap(), expected);
        }
        Op::Write {
            device,
            state,
            days,
            seen,
            pause,
            back,
            enrol,
        } => {
            let Some((d, declared)) = model.devices.get_mut(&identity(device).device) else {
                return;
            };
            let mut new = d.clone();
            new.revision -= back;
            model.issued += 1;
            let record = days.map(|days| certificate(&d.id, model.issued, days));
            if let Some(r) = &record {
                new.previous = new.current.replace(Credential::from(r));
            }
            new.job = STATES[state].map(|s| job(model.issued, s));
            if let Some(job) = new.job.as_mut().filter(|_| enrol) {
                job.kind = certwave_core::model::JobKind::Enrol;
            }
            new.last_seen = Some(seen);
            new.not_before = pause.then_some(NOW + 1);
            let write = Write {
                certificate: record,
                ..Write::of(new.clone(), NOW)
            };
            let answer = ledger.write(model.epoch, write).await;
            if back > 0 {
                assert_eq!(answer, Err(LedgerError::Conflict));
                return;
            }
            new.revision += 1;
            assert_eq!(answer, Ok(new.revision));
            if !*declared {
                let revision = new.revision;
                withdraw(&mut new, declared);
                new.revision = revision;
            }
            *d = new;
        }
        Op::TakeEpoch => {
            let next = ledger.take_epoch("next", NOW).await.unwrap();
            assert!(next > model.epoch);
            model.epoch = next;
        }
        Op::OldEpoch { device } => {
            let old = model.epoch - 1;
            let refused = ledger.declare(old, NOW, vec![declaration(device)]).await;
            assert_eq!(
                refused,
                Err(LedgerError::StaleEpoch {
                    given: old,
                    present: model.epoch
                })
            );
        }
        Op::Reopen => {}
    }
}

async fn compare(ledger: &dyn Ledger, model: &Model) {
    assert_eq!(ledger.epoch().await.unwrap(), model.epoch);
    for n in 0..DEVICES {
        let expected = model.devices.get(&identity(n).device).map(|(d, _)| d.clone());
        assert_eq!(ledger.device(&identity(n)).await.unwrap(), expected);
    }
    for namespace in NAMESPACES {
        for name in ["pumps", "valves"] {
            let fleet = FleetKey {
                namespace: namespace.to_owned(),
                name: name.to_owned(),
            };
            assert_eq!(
                ledger.counts(&fleet, counting(NOW + 50)).await.unwrap(),
                model.counts(&fleet, NOW + 50)
            );
            let before = NOW_S + 30 * DAY_S;
            let query = DueQuery {
                now: NOW,
                expires_before_s: before,
                failed_before_s: NOW_S + 10 * DAY_S,
                limit: 100,
            };
            let due: Vec<_> = ledger
                .due(&fleet, &query)
                .await
                .unwrap()
                .into_iter()
                .map(|i| i.device)
                .collect();
            assert_eq!(due, model.due(&fleet, before, query.failed_before_s));
            let slots = model.devices.values().filter(|(d, _)| FleetKey::of(d) == fleet);
            let slots = slots
                .filter(|(d, _)| d.job.as_ref().is_some_and(Job::holds_slot))
                .count();
            assert_eq!(ledger.in_flight(&fleet).await.unwrap() as usize, slots);
        }
    }
}

/// Does them to a ledger that `open` opens, and to the model.
async fn live<D: Send + Sync + 'static>(open: impl Fn() -> SqlLedger<D>, ops: Vec<Op>) {
    let mut ledger = open();
    let mut model = Model {
        epoch: ledger.take_epoch("first", NOW).await.unwrap(),
        ..Model::default()
    };
    for op in ops {
        if matches!(op, Op::Reopen) {
            ledger.close().await;
            ledger = open();
        }
        apply(&ledger, &mut model, op).await;
        compare(&ledger, &model).await;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn the_ledger_agrees_with_plain_maps(ops in proptest::collection::vec(op(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger.db");
        runtime.block_on(live(|| SqliteLedger::open(&path).unwrap(), ops));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    #[test]
    fn the_ledger_in_postgresql_agrees_with_plain_maps(ops in proptest::collection::vec(op(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let url = crate::postgres::server().database().unwrap();
        runtime.block_on(live(|| crate::postgres::open(&url).unwrap(), ops));
    }
}

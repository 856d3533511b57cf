//! Random holds, releases, revocations, permits and issuing, on the ledger and on a model of plain maps, which must agree at
//! every step.

use std::collections::{BTreeMap, BTreeSet};

use certwave_core::model::{Credential, JobKind, JobState};
use certwave_core::revocation::{Bar, Holder, Reason, Standing};
use certwave_ledger::{
    Act, CertificateRecord, CrlLines, Declaration, Ledger, LedgerError, SqliteLedger, Target, Write,
};
use certwave_protocol::ids::Epoch;
use proptest::prelude::*;

use crate::fixtures::*;
use crate::revocations::{key, mark, publish};

const DEVICES: u32 = 3;

#[derive(Debug, Clone)]
enum Op {
    Rotate {
        device: u32,
        days: i64,
    },
    Enrol {
        device: u32,
    },
    Mark {
        device: u32,
        which: Option<usize>,
        act: Act,
    },
    Permit {
        device: u32,
        permit: u8,
    },
    Publish,
    Reopen,
}

fn holder() -> impl Strategy<Value = Holder> {
    prop_oneof![
        Just(Holder::Person),
        Just(Holder::Revocation("r".to_owned())),
        (0u64..2).prop_map(|n| Holder::Retirement(job_id(n))),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let act = prop_oneof![
        1 => proptest::sample::select(vec![Reason::KeyCompromise, Reason::Superseded, Reason::Unspecified])
            .prop_map(|reason| Act::Revoke { reason, invalid_since: None }),
        4 => holder().prop_map(Act::Hold),
        4 => holder().prop_map(Act::Release),
    ];
    let device = 0..DEVICES;
    prop_oneof![
        4 => (device.clone(), -5i64..60).prop_map(|(device, days)| Op::Rotate { device, days }),
        2 => device.clone().prop_map(|device| Op::Enrol { device }),
        8 => (device.clone(), proptest::option::of(0usize..4), act)
            .prop_map(|(device, which, act)| Op::Mark { device, which, act }),
        2 => (device, 0u8..3).prop_map(|(device, permit)| Op::Permit { device, permit }),
        1 => Just(Op::Publish),
        1 => Just(Op::Reopen),
    ]
}

struct Plain {
    record: CertificateRecord,
    holders: BTreeSet<Holder>,
    held: Option<i64>,
    revoked: Option<(i64, Reason)>,
    change: u64,
    listed: bool,
}

impl Plain {
    fn standing(&self) -> Standing {
        match (self.revoked, self.held) {
            (Some((since, reason)), _) => Standing::Revoked { since, reason },
            (None, Some(since)) => Standing::Held { since },
            (None, None) => Standing::Good,
        }
    }
}

#[derive(Default)]
struct PlainDevice {
    certificates: Vec<Plain>,
    current: Option<usize>,
    previous: Option<usize>,
    holds: BTreeSet<Holder>,
    revoked: bool,
    permit: Option<String>,
    used: Option<String>,
    /// All that were ever used up: none counts twice.
    spent: BTreeSet<String>,
}

impl PlainDevice {
    fn use_up(&mut self) {
        if let Some(permit) = self.permit.take() {
            self.spent.insert(permit.clone());
            self.used = Some(permit);
        }
    }

    fn bar(&self) -> Option<Bar> {
        match (self.revoked, self.holds.is_empty()) {
            (true, _) => Some(Bar::Revoked),
            (false, false) => Some(Bar::Held),
            (false, true) => None,
        }
    }
}

#[derive(Default)]
struct Model {
    epoch: Epoch,
    /// Seconds since the beginning: each step is one later.
    now: i64,
    change: u64,
    issued: u64,
    devices: BTreeMap<u32, PlainDevice>,
}

impl Model {
    fn mark(&mut self, n: u32, which: Option<usize>, act: &Act) {
        let (now, device) = (NOW_S + self.now, self.devices.entry(n).or_default());
        let release = matches!(act, Act::Release(_));
        for (i, c) in device.certificates.iter_mut().enumerate() {
            let met = which.map_or(release || c.record.not_after > now, |w| w == i);
            if !met || c.revoked.is_some() {
                continue;
            }
            let before = c.standing();
            match act {
                Act::Revoke { reason, .. } => {
                    c.revoked = Some((c.held.take().unwrap_or(now), *reason));
                    c.holders.clear();
                    if device.previous == Some(i) {
                        device.previous = None;
                    }
                }
                Act::Hold(holder) => {
                    c.holders.insert(holder.clone());
                    c.held.get_or_insert(now);
                }
                Act::Release(holder) => {
                    c.holders.remove(holder);
                    c.held = c.held.filter(|_| !c.holders.is_empty());
                }
            }
            if c.standing() != before {
                self.change += 1;
                (c.change, c.listed) = (self.change, false);
            }
        }
        let whole = which.is_none() || which == device.current;
        match act {
            Act::Revoke { .. } if whole => {
                device.holds.clear();
                device.revoked = true;
                device.use_up();
            }
            Act::Hold(holder) if whole && !device.revoked && !matches!(holder, Holder::Retirement(_)) => {
                device.holds.insert(holder.clone());
            }
            Act::Release(holder) => {
                let held = device
                    .current
                    .is_some_and(|i| device.certificates[i].holders.contains(holder));
                if whole || !held {
                    device.holds.remove(holder);
                }
            }
            _ => {}
        }
    }
}

async fn issue(ledger: &SqliteLedger, model: &mut Model, n: u32, days: i64, enrols: bool) {
    let now = (NOW_S + model.now) * 1000;
    model.issued += 1;
    let record = certificate(&identity(n), model.issued, days);
    let plain = model.devices.entry(n).or_default();
    let mut d = device(ledger, n).await;
    let mut work = job(model.issued, JobState::Confirmed);
    if enrols {
        work.kind = JobKind::Enrol;
        // As the door to enrolment does: by permit only.
        if d.bar == Some(Bar::Revoked) && d.reenrol.is_some() {
            d.bar = None;
            d.reenrol_used = d.reenrol.take();
        }
    }
    let allowed = plain.bar().is_none() || enrols && plain.bar() == Some(Bar::Revoked) && plain.permit.is_some();
    d.previous = d.current.replace(Credential::from(&record));
    d.job = Some(work);
    let write = Write {
        certificate: Some(record.clone()),
        ..Write::of(d, now)
    };
    let written = ledger.write(model.epoch, write).await;
    if !allowed {
        assert_eq!(written, Err(LedgerError::Barred));
        return;
    }
    written.unwrap();
    if enrols && plain.revoked {
        plain.revoked = false;
        plain.use_up();
    }
    plain.certificates.push(Plain {
        record,
        holders: BTreeSet::new(),
        held: None,
        revoked: None,
        change: 0,
        listed: false,
    });
    plain.previous = plain.current.replace(plain.certificates.len() - 1);
}

async fn apply(ledger: &SqliteLedger, model: &mut Model, op: Op) {
    model.now += 1;
    let now = (NOW_S + model.now) * 1000;
    match op {
        Op::Rotate { device, days } => issue(ledger, model, device, days, false).await,
        Op::Enrol { device } => issue(ledger, model, device, 30, true).await,
        Op::Mark { device: n, which, act } => {
            let plain = model.devices.entry(n).or_default();
            let which = which.filter(|w| *w < plain.certificates.len());
            let target = which.map_or(Target::Device(identity(n)), |w| {
                Target::DeviceSerial(identity(n), plain.certificates[w].record.serial.clone())
            });
            ledger
                .mark(model.epoch, now, vec![mark(target, act.clone())])
                .await
                .unwrap();
            model.mark(n, which, &act);
        }
        Op::Permit { device: n, permit } => {
            let permit = permit.to_string();
            let declared = Declaration {
                reenrol: Some(permit.clone()),
                ..declaration(n)
            };
            ledger.declare(model.epoch, now, vec![declared]).await.unwrap();
            let plain = model.devices.entry(n).or_default();
            plain.permit = (!plain.spent.contains(&permit)).then_some(permit);
        }
        Op::Publish => {
            // Each certificate's partition is the month of its end.
            let partitions: BTreeSet<_> = ["2026-12", "2027-01", "2027-02", "2027-03", "2027-04"].into();
            for partition in partitions {
                publish(ledger, model.epoch, partition, u64::try_from(model.now).unwrap(), now).await;
            }
            for plain in model.devices.values_mut().flat_map(|d| &mut d.certificates) {
                plain.listed = plain.change > 0;
            }
        }
        Op::Reopen => {}
    }
}

async fn compare(ledger: &SqliteLedger, model: &Model) {
    assert_eq!(ledger.last_change().await.unwrap(), model.change);
    let mut listed = BTreeMap::new();
    for (n, plain) in &model.devices {
        let d = device(ledger, *n).await;
        assert_eq!(d.bar, plain.bar(), "device {n}");
        assert_eq!((d.reenrol, d.reenrol_used), (plain.permit.clone(), plain.used.clone()));
        let of = |i: Option<usize>| i.map(|i| plain.certificates[i].record.fingerprint);
        assert_eq!(d.current.map(|c| c.fingerprint), of(plain.current));
        assert_eq!(d.previous.map(|c| c.fingerprint), of(plain.previous));
        for c in &plain.certificates {
            let found = ledger
                .standings(&c.record.issuer, std::slice::from_ref(&c.record.serial))
                .await
                .unwrap();
            assert_eq!(found[0].unwrap().standing, c.standing());
            let marked = ledger.marked_certificate(&key(&c.record)).await.unwrap();
            assert_eq!(marked.as_ref().map_or(0, |m| m.change), c.change);
            if let Some(marked) = marked {
                assert_eq!(marked.holders.into_iter().collect::<BTreeSet<_>>(), c.holders);
                assert_eq!(marked.crl.is_some(), c.listed);
            }
            if c.standing() != Standing::Good {
                listed.insert(c.record.serial.clone(), c.standing());
            }
        }
    }
    let all = CrlLines {
        issuer: "aa".repeat(20),
        partition: None,
        ends_at_or_after: 0,
        changed_after: None,
    };
    let lines = ledger.crl_lines(&all, None, 1000).await.unwrap();
    let said: BTreeMap<_, _> = lines.into_iter().map(|l| (l.serial, l.standing)).collect();
    assert_eq!(said, listed);
    let changes = ledger.changes(0, 1000).await.unwrap();
    assert!(changes.is_sorted_by(|a, b| a.change < b.change));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn holds_and_revocations_in_the_ledger_agree_with_plain_maps(ops in proptest::collection::vec(op(), 1..50)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("ledger.db");
            let mut ledger = SqliteLedger::open(&path).unwrap();
            let mut model = Model { epoch: begin(&ledger, DEVICES).await, ..Model::default() };
            for op in ops {
                if matches!(op, Op::Reopen) {
                    ledger.close().await;
                    ledger = SqliteLedger::open(&path).unwrap();
                }
                apply(&ledger, &mut model, op).await;
                compare(&ledger, &model).await;
            }
            ledger.verify_audit().await.unwrap();
        });
    }
}

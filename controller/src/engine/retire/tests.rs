//! A retirement through ledger and engine, with a door that says what the test wants.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use async_trait::async_trait;
use certwave_core::model::{Credential, Device, Job, JobKind, JobState, ObjectRef};
use certwave_core::revocation::Standing;
use certwave_core::rollout::run::{Plan, PlannedWave};
use certwave_core::rollout::strategy::Strategy;
use certwave_ledger::{
    CertificateRecord, CrlRecord, Declaration, DoorLoad, Ledger, Marked, MemberOutcome, NewMember, RotationRecord,
    SerialKey, SqliteLedger, Write,
};
use certwave_protocol::ids::JobId;
use certwave_protocol::message::Online;
use tempfile::TempDir;
use tokio::sync::mpsc;

use super::super::act::With;
use super::super::fixtures::certificate;
use super::super::link::tests::connect;
use super::super::schedule::Want;
use super::*;
use crate::door::{Abilities, Door, DoorError, Kicked, Published};
use crate::gate::Gate;
use crate::metrics::Metrics;
use crate::publish::Publisher;
use crate::registry::Registry;

const ROTATION: &str = "uid-run";
const NODE: &str = "node-1";

/// It is asked for its abilities and nothing else.
struct Reports;

#[async_trait]
impl Door for Reports {
    fn abilities(&self) -> Abilities {
        Abilities {
            reports_loading: true,
            kicks: false,
        }
    }
    async fn admit(&self, _: &SerialKey, _: &[u8]) -> Result<(), DoorError> {
        Err(DoorError::Unable)
    }
    async fn revoke(&self, _: &[SerialKey], _: &[Published]) -> Result<(), DoorError> {
        Err(DoorError::Unable)
    }
    async fn hold(&self, _: &[SerialKey], _: &[Published]) -> Result<(), DoorError> {
        Err(DoorError::Unable)
    }
    async fn release(&self, _: &[SerialKey], _: &[Published]) -> Result<(), DoorError> {
        Err(DoorError::Unable)
    }
    async fn loaded(
        &self,
        _: &std::collections::BTreeMap<certwave_core::door::Scope, u64>,
    ) -> Result<Vec<certwave_core::door::Node>, DoorError> {
        Err(DoorError::Unable)
    }
    async fn kick(&self, _: &certwave_protocol::ids::DeviceId) -> Result<Kicked, DoorError> {
        Err(DoorError::Unable)
    }
}

/// An engine with one device, whose second certificate is committed.
struct World {
    engine: Arc<Engine>,
    id: Identity,
    _dir: TempDir,
}

fn fleet() -> FleetKey {
    FleetKey {
        namespace: "plant".to_owned(),
        name: "meters".to_owned(),
    }
}

fn job(n: u128, kind: JobKind, state: JobState) -> Job {
    Job {
        id: JobId::from_u128(n),
        rotation: (kind == JobKind::Rotate).then(|| ROTATION.to_owned()),
        kind,
        claim: None,
        state,
        attempt: 1,
        nonce: Nonce([1; 16]),
        epoch: 1,
        created: now(),
        since: now(),
        deadline: None,
        job_deadline: None,
        csr_key: None,
        subject: None,
        committed: true,
        code: None,
        detail: None,
    }
}

fn rotation() -> RotationRecord {
    RotationRecord {
        uid: ROTATION.to_owned(),
        object: ObjectRef {
            namespace: "plant".to_owned(),
            name: "run".to_owned(),
        },
        fleet: fleet(),
        reason: "Manual".to_owned(),
        issuer: None,
        started: now(),
        strategy: Strategy {
            grace: 0,
            retiring: Some(Retiring {
                probation: 60_000,
                per_second: 1000,
            }),
            ..Strategy::default()
        },
        plan: Plan {
            waves: vec![PlannedWave {
                name: "all".to_owned(),
                size: 1,
                max_failed: 0,
                max_lost: 0,
            }],
            hash: "00".repeat(32),
        },
    }
}

impl World {
    /// The job that brought the second certificate is confirmed, the device is connected.
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let ledger: Arc<dyn Ledger> = Arc::new(SqliteLedger::open(dir.path().join("ledger.sqlite")).unwrap());
        let epoch = ledger.take_epoch("test", now()).await.unwrap();
        let id = Identity {
            broker: "b".parse().unwrap(),
            device: "meter-1".parse().unwrap(),
        };
        let declaration = Declaration {
            identity: id.clone(),
            object: ObjectRef {
                namespace: "plant".to_owned(),
                name: "meter-1".to_owned(),
            },
            uid: "uid-1".to_owned(),
            fleet: "meters".to_owned(),
            labels: std::collections::BTreeMap::new(),
            reenrol: None,
        };
        ledger.declare(epoch, now(), vec![declaration]).await.unwrap();
        let metrics = Arc::new(Metrics::new().unwrap());
        let publisher = Publisher::new(Arc::clone(&ledger), epoch, Arc::default(), Arc::clone(&metrics));
        let engine = Engine::new(
            ledger,
            ("b".parse().unwrap(), epoch),
            Arc::new(Registry::default()),
            mpsc::channel(8).0,
            metrics,
            Arc::default(),
            Gate::open(),
            publisher,
            Arc::new(crate::engine::dial::Mqtt),
        );
        connect(&engine);
        let world = Self { engine, id, _dir: dir };
        let registry = &world.engine.registry;
        registry.set_door(world.id.broker.clone(), Some(Arc::new(Reports)));
        let birth = Online {
            v: VERSION,
            online: true,
            session: Nonce([2; 16]),
        };
        registry.presence.heard(world.id.clone(), &birth);
        world.rotate().await;
        world
    }

    async fn device(&self) -> Device {
        self.engine.ledger.device(&self.id).await.unwrap().unwrap()
    }

    async fn put(&self, change: impl FnOnce(&mut Device), certificate: Option<CertificateRecord>) {
        let mut device = self.device().await;
        change(&mut device);
        let mut write = Write::of(device, now());
        write.certificate = certificate;
        self.engine.ledger.write(self.engine.epoch, write).await.unwrap();
    }

    async fn rotate(&self) {
        let (first, second) = (certificate(&self.id, 1), certificate(&self.id, 2));
        let (old, new) = (Credential::from(&first), Credential::from(&second));
        let current = old.clone();
        let enrolled = move |device: &mut Device| {
            device.current = Some(current);
            device.session = Some(Nonce([2; 16]));
            device.job = Some(job(1, JobKind::Enrol, JobState::Confirmed));
        };
        self.put(enrolled, Some(first)).await;
        let candidates = self.engine.ledger.candidates(&fleet(), now(), None, 10).await.unwrap();
        let member = NewMember {
            row: candidates[0].row,
            wave: 0,
            ordinal: 0,
            group: String::new(),
            windows: 0,
        };
        let (ledger, epoch) = (&self.engine.ledger, self.engine.epoch);
        ledger.begin_rotation(epoch, rotation(), vec![member]).await.unwrap();
        let pending = new.clone();
        let committing = move |device: &mut Device| {
            device.pending = Some(pending);
            device.job = Some(job(2, JobKind::Rotate, JobState::Committing));
        };
        self.put(committing, Some(second)).await;
        let before = self.device().await;
        let mut after = before.clone();
        after.pending = None;
        after.previous = after.current.replace(new);
        after.job = Some(job(2, JobKind::Rotate, JobState::Confirmed));
        self.engine.write(&before, after, With::default()).await.unwrap();
    }

    async fn retirement(&self) -> Option<Retirement> {
        self.engine.ledger.retirement(&self.id).await.unwrap()
    }

    async fn phase(&self) -> Option<Phase> {
        self.retirement().await.map(|retirement| retirement.phase)
    }

    /// Rounds until the retirement is in this phase.
    async fn reaches(&self, phase: Phase) -> Retirement {
        let end = Instant::now() + Duration::from_secs(10);
        loop {
            self.engine.retire(&self.id.broker).await.unwrap();
            let retirement = self.retirement().await.unwrap();
            if retirement.phase == phase {
                return retirement;
            }
            assert!(Instant::now() < end, "{retirement:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn old(&self) -> Marked {
        let first = certificate(&self.id, 1);
        let key = SerialKey {
            issuer: first.issuer,
            serial: first.serial,
        };
        self.engine.ledger.marked_certificate(&key).await.unwrap().unwrap()
    }

    /// A CRL says what is known by now, and the broker's only node has loaded it.
    async fn load(&self) {
        let (ledger, epoch, marked) = (&self.engine.ledger, self.engine.epoch, self.old().await);
        let at = now();
        let crl = CrlRecord {
            issuer: marked.key.issuer.clone(),
            partition: marked.partition.clone(),
            number: u64::try_from(at).unwrap(),
            this_update: at / 1000,
            next_update: at / 1000 + 3600,
            der: vec![0x30],
        };
        let load = DoorLoad {
            broker: self.id.broker.clone(),
            node: NODE.to_owned(),
            issuer: crl.issuer.clone(),
            partition: crl.partition.clone(),
            number: crl.number,
            at,
        };
        let covers = ledger.last_change().await.unwrap();
        ledger.publish_crl(epoch, crl, covers, at).await.unwrap();
        ledger
            .doors_loaded(epoch, vec![load], &[NODE.to_owned()])
            .await
            .unwrap();
    }

    async fn hello(&self, signed: u8, echo: Option<Nonce>) {
        self.engine
            .came_back(&self.id, Some(Fingerprint([signed; 32])), echo)
            .await;
    }
}

#[tokio::test]
async fn on_hold_loaded_asked_and_come_back_the_old_certificate_is_revoked_as_superseded() {
    let world = World::new().await;
    assert_eq!(world.phase().await, Some(Phase::Waiting), "begun with the confirmation");
    world.reaches(Phase::Held).await;
    let held = world.old().await;
    assert!(matches!(held.standing, Standing::Held { .. }), "{held:?}");
    let previous = world.device().await.previous.unwrap();
    assert_eq!(
        previous.fingerprint,
        Fingerprint([1; 32]),
        "released it may be gone back to"
    );

    // Before every node has loaded it nobody is asked, and a hello proves nothing.
    world.engine.retire(&world.id.broker).await.unwrap();
    world.hello(2, Some(Nonce([9; 16]))).await;
    assert_eq!(world.phase().await, Some(Phase::Held));

    world.load().await;
    let asked = world.reaches(Phase::Asked).await;
    world.hello(2, None).await;
    world.hello(2, Some(Nonce([9; 16]))).await;
    world.hello(1, None).await;
    assert_eq!(world.phase().await, Some(Phase::Asked), "only the nonce counts");
    world.hello(2, asked.nonce).await;
    assert_eq!(world.phase().await, None, "it has ended");
    let revoked = world.old().await;
    let superseded = |reason| reason == Reason::Superseded;
    assert!(
        matches!(revoked.standing, Standing::Revoked { reason, .. } if superseded(reason)),
        "{revoked:?}"
    );
    assert_eq!(revoked.holders, []);
    assert_eq!(world.device().await.previous, None);
    let counts = world.engine.ledger.retirement_counts(ROTATION).await.unwrap();
    assert_eq!((counts.revoked, counts.open()), (1, 0));
}

#[tokio::test]
async fn a_device_that_answers_with_the_old_key_is_let_in_again_and_counts_in_its_wave() {
    let world = World::new().await;
    world.reaches(Phase::Held).await;
    world.load().await;
    let asked = world.reaches(Phase::Asked).await;
    // A person holds it beside.
    let person = Mark {
        target: Target::Certificate(asked.old),
        act: Marking::Hold(Holder::Revocation("a-person".to_owned())),
        requested_at: now(),
        who: "a-person".to_owned(),
        detail: None,
        revocation: None,
    };
    let (ledger, epoch) = (&world.engine.ledger, world.engine.epoch);
    ledger.mark(epoch, now(), vec![person]).await.unwrap();
    world.hello(1, asked.nonce).await;
    assert_eq!(world.phase().await, None);
    let old = world.old().await;
    assert_eq!(old.holders, [Holder::Revocation("a-person".to_owned())]);
    assert!(matches!(old.standing, Standing::Held { .. }), "{old:?}");
    let member = ledger.member(ROTATION, &world.id).await.unwrap().unwrap();
    assert_eq!(member.outcome, MemberOutcome::ProbationFailed);
    let waves = ledger.wave_counts(ROTATION).await.unwrap();
    assert_eq!((waves[0].failures(), waves[0].proven()), (1, 0));
}

#[tokio::test]
async fn a_device_that_went_back_gets_no_job_before_the_door_lets_it_in_again() {
    let world = World::new().await;
    world.reaches(Phase::Held).await;
    let engine = &world.engine;
    let went_back = |device: &mut Device| std::mem::swap(&mut device.current, &mut device.previous);
    world.put(went_back, None).await;
    let current = world.device().await.current.unwrap();
    let target = certwave_core::due::Target {
        issuer: &current.issuer,
        bundle: Fingerprint([0; 32]),
        renew_before: None,
    };
    let job_of = async || {
        let started = vec![(world.id.clone(), true)];
        let sent = engine.start(started, &Want::Closer(&target), ROTATION).await;
        (sent, world.device().await.open_job().map(|job| job.state))
    };
    assert_eq!(job_of().await, (0, None), "its certificate is on hold");
    world.hello(1, None).await;
    assert_eq!(world.phase().await, None);
    assert_eq!(world.old().await.standing, Standing::Good);
    assert_eq!(
        job_of().await,
        (0, Some(JobState::Queued)),
        "no node has loaded the release"
    );
    world.load().await;
    let called_off = |device: &mut Device| device.job = Some(job(2, JobKind::Rotate, JobState::Confirmed));
    world.put(called_off, None).await;
    assert_eq!(job_of().await, (1, Some(JobState::Sent)));
}

#[tokio::test]
async fn nothing_is_put_on_hold_while_the_broker_is_away_or_does_not_say_what_it_has_loaded() {
    let world = World::new().await;
    world.engine.registry.set_door(world.id.broker.clone(), None);
    for _ in 0..3 {
        world.engine.retire(&world.id.broker).await.unwrap();
    }
    let waiting = world.retirement().await.unwrap();
    assert_eq!(waiting.phase, Phase::Waiting);
    assert!(waiting.wake > Some(now()), "it is looked at later");
}

#[tokio::test]
async fn a_certificate_that_its_device_went_back_from_is_revoked_and_no_other_unconfirmed_one() {
    let world = World::new().await;
    let key = |n| {
        let record = certificate(&world.id, n);
        SerialKey {
            issuer: record.issuer,
            serial: record.serial,
        }
    };
    for (n, end) in [
        (3, JobState::Failed),
        (4, JobState::TimedOut),
        (5, JobState::RolledBack),
    ] {
        let record = certificate(&world.id, n);
        let pending = Credential::from(&record);
        let mut present = job(n.into(), JobKind::Rotate, JobState::Issued);
        present.csr_key = Some(pending.spki);
        let issued = present.clone();
        world
            .put(
                |device| {
                    device.pending = Some(pending);
                    device.job = Some(issued);
                },
                Some(record),
            )
            .await;
        let before = world.device().await;
        let mut after = before.clone();
        present.state = end;
        after.job = Some(present);
        world.engine.write(&before, after, With::default()).await.unwrap();
        let marked = world.engine.ledger.marked_certificate(&key(n)).await.unwrap();
        let revoked = |marked: &Marked| {
            let unspecified = |reason| reason == Reason::Unspecified;
            matches!(marked.standing, Standing::Revoked { reason, .. } if unspecified(reason))
        };
        assert_eq!(
            marked.as_ref().is_some_and(revoked),
            end == JobState::RolledBack,
            "{end:?}: {marked:?}"
        );
    }
}

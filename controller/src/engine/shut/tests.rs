//! Rounds with a door that says what the test wants.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::Mutex;

use async_trait::async_trait;
use certwave_core::door::Scope;
use certwave_core::model::{Identity, ObjectRef};
use certwave_core::revocation::Reason;
use certwave_ledger::{Act, Declaration, Ledger, Mark, SqliteLedger, Target};
use certwave_protocol::ids::DeviceId;
use tempfile::TempDir;
use tokio::sync::mpsc;

use super::super::door::tests::entry;
use super::super::fixtures::certificate;
use super::*;
use crate::clock::now;
use crate::door::{Abilities, Kicked};
use crate::gate::Gate;
use crate::metrics::Metrics;
use crate::publish::Publisher;

/// Counts whom it was to kick.
#[derive(Default)]
struct Fake {
    /// What it says when asked for its nodes.
    looks: Option<DoorError>,
    /// What it says to a kick.
    kicks: Option<DoorError>,
    kicked: Mutex<Vec<DeviceId>>,
}

#[async_trait]
impl Door for Fake {
    fn abilities(&self) -> Abilities {
        Abilities {
            reports_loading: true,
            kicks: true,
        }
    }
    async fn loaded(&self, _: &BTreeMap<Scope, u64>) -> Result<Vec<Node>, DoorError> {
        self.looks.clone().map_or(Ok(Vec::new()), Err)
    }
    async fn kick(&self, device: &DeviceId) -> Result<Kicked, DoorError> {
        self.kicked.lock().unwrap().push(device.clone());
        // A broker answers later.
        tokio::task::yield_now().await;
        self.kicks.clone().map_or(Ok(Kicked::Closed), Err)
    }
}

/// A keeper whose broker has so many sessions of revoked devices.
struct World {
    keeper: Keeper,
    fake: Arc<Fake>,
    _dir: TempDir,
}

impl World {
    async fn new(revoked: u8, fake: Fake) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let ledger: Arc<dyn Ledger> = Arc::new(SqliteLedger::open(dir.path().join("ledger.sqlite")).unwrap());
        let epoch = ledger.take_epoch("test", now()).await.unwrap();
        let (mut declarations, mut marks) = (Vec::new(), Vec::new());
        let identity = |n: u8| Identity {
            broker: "b".parse().unwrap(),
            device: format!("meter-{n}").parse().unwrap(),
        };
        for n in 1..=revoked {
            declarations.push(Declaration {
                identity: identity(n),
                object: ObjectRef {
                    namespace: "plant".to_owned(),
                    name: identity(n).device.to_string(),
                },
                uid: format!("uid-{n}"),
                fleet: "meters".to_owned(),
                labels: BTreeMap::new(),
                reenrol: None,
            });
            marks.push(Mark {
                target: Target::Device(identity(n)),
                act: Act::Revoke {
                    reason: Reason::KeyCompromise,
                    invalid_since: None,
                },
                requested_at: now(),
                who: "test".to_owned(),
                detail: None,
                revocation: None,
            });
        }
        ledger.declare(epoch, now(), declarations).await.unwrap();
        for n in 1..=revoked {
            ledger.record(epoch, certificate(&identity(n), n)).await.unwrap();
        }
        ledger.mark(epoch, now(), marks).await.unwrap();
        let open = ledger.open_sessions(&"b".parse().unwrap(), 1000).await.unwrap();
        assert_eq!(open.len(), usize::from(revoked));
        let metrics = Arc::new(Metrics::new().unwrap());
        let publisher = Publisher::new(Arc::clone(&ledger), epoch, Arc::default(), Arc::clone(&metrics));
        let engine = Engine::new(
            ledger,
            ("b".parse().unwrap(), epoch),
            Arc::default(),
            mpsc::channel(8).0,
            metrics,
            Arc::default(),
            Gate::open(),
            publisher,
            Arc::new(crate::engine::dial::Mqtt),
        );
        let fake = Arc::new(fake);
        let door = Arc::clone(&fake) as Arc<dyn Door>;
        Self {
            keeper: Keeper::new(engine, Arc::new(entry(None)), door),
            fake,
            _dir: dir,
        }
    }

    fn kicked(&self) -> usize {
        self.fake.kicked.lock().unwrap().len()
    }

    fn shown(&self) -> Option<&'static str> {
        let view = self.keeper.engine.registry.door_view(&self.keeper.entry.id).unwrap();
        view.fault.as_ref().map(|fault| fault.reason)
    }
}

#[tokio::test]
async fn a_node_that_is_away_keeps_no_session_open_at_the_others() {
    let away = DoorError::Partial("2 of the 3 servers answer".to_owned());
    let looks = Some(away);
    let mut world = World::new(
        3,
        Fake {
            looks,
            ..Fake::default()
        },
    )
    .await;
    world.keeper.round().await.unwrap();
    assert_eq!(world.kicked(), 3);
    assert_eq!(world.shown(), Some("CannotBeTold"));
}

#[tokio::test]
async fn all_are_told_although_each_is_closed_in_part_only_and_none_at_every_turn() {
    let kicks = Some(DoorError::Partial("one node is silent".to_owned()));
    let mut world = World::new(
        200,
        Fake {
            kicks,
            ..Fake::default()
        },
    )
    .await;
    world.keeper.round().await.unwrap();
    assert_eq!(world.kicked(), 200);
    world.keeper.round().await.unwrap();
    assert!(world.kicked() < 400, "there is a pause between two attempts");
    assert_eq!(world.shown(), Some("CannotBeTold"));
}

#[tokio::test]
async fn a_broker_that_gives_no_answer_holds_up_no_round() {
    let kicks = Some(DoorError::Timeout(PATIENCE));
    let mut world = World::new(
        200,
        Fake {
            kicks,
            ..Fake::default()
        },
    )
    .await;
    world.keeper.round().await.unwrap();
    assert!(world.kicked() < 200, "{}", world.kicked());
}

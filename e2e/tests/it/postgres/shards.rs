//! Two brokers spread over two replicas.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use certwave_core::spread;
use certwave_crds::{Broker, RotationPhase};
use certwave_e2e::process::Process;
use certwave_e2e::stack::objects;
use certwave_e2e::{ports, wait_for};
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::PostParams;
use serde_json::json;

use super::world::Shared;

const PODS: [&str; 2] = ["certwave-0", "certwave-1"];
/// A Lease that nobody renews holds 15 s.
const TAKEN_OVER: Duration = Duration::from_mins(2);
const ENDS: Duration = Duration::from_mins(4);

/// The second broker's id.
const SPARE: &str = "spare";

/// A stack with a second replica, and a second broker that is the other replica's to look after. Nobody listens there.
struct Replicas {
    world: Shared,
    second: SocketAddr,
    /// The second replica, while it runs.
    follower: Option<Process>,
    main: String,
}

impl Replicas {
    async fn new(name: &str) -> Self {
        let world = Shared::new(name).await;
        let second: SocketAddr = (Ipv4Addr::LOCALHOST, ports::free().unwrap()).into();
        let follower = Some(world.stack.start_replica(PODS[1], second).await.unwrap());
        let main = world.stack.namespace().to_owned();
        let broker: Broker = serde_json::from_value(json!({
            "apiVersion": "certwave.dev/v1alpha1", "kind": "Broker",
            "metadata": { "name": "spare", "namespace": main },
            "spec": {
                "id": SPARE, "url": "mqtts://127.0.0.1:1", "trust": { "issuerRef": { "name": objects::CA } },
                "issuerRef": { "name": objects::CA },
            },
        }))
        .unwrap();
        let brokers = world.stack.objects::<Broker>();
        brokers.create(&PostParams::default(), &broker).await.unwrap();
        Self {
            world,
            second,
            follower,
            main,
        }
    }

    /// Who should look after a broker while both replicas are there.
    fn chosen(&self, broker: &str) -> &'static str {
        let brokers = [self.main.as_str(), SPARE].into();
        PODS.into_iter()
            .find(|pod| spread::shares(&brokers, &PODS.into())[broker] == *pod)
            .unwrap()
    }

    async fn holder(&self, broker: &str) -> anyhow::Result<Option<String>> {
        let lease = self
            .world
            .stack
            .objects::<Lease>()
            .get(&format!("certwave-broker-{broker}"))
            .await?;
        Ok(lease.spec.context("no spec")?.holder_identity)
    }

    /// Waits until these pods look after the brokers.
    async fn held(&self, main: &str, spare: &str) {
        let held = wait_for("the brokers' holders", TAKEN_OVER, || async {
            let found = (self.holder(&self.main).await?, self.holder(SPARE).await?);
            ensure!(found == (Some(main.to_owned()), Some(spare.to_owned())), "{found:?}");
            Ok(())
        });
        self.world.told(held.await);
    }

    /// Each looks after the broker that it should.
    async fn spread(&self) {
        self.held(self.chosen(&self.main), self.chosen(SPARE)).await;
    }

    fn process(&mut self, pod: &str) -> &mut Process {
        match pod {
            pod if pod == PODS[0] => self.world.stack.controller().unwrap(),
            _ => self.follower.as_mut().unwrap(),
        }
    }

    async fn start(&mut self, pod: &str) {
        if pod == PODS[0] {
            self.world.stack.start_controller().await.unwrap();
        } else {
            self.follower = Some(self.world.stack.start_replica(pod, self.second).await.unwrap());
        }
    }

    /// How often the controller has connected to the broker, and how many terms of it have begun.
    fn spoken(&self) -> (usize, usize) {
        let connections = self.world.stack.broker.connections_of("~controller").unwrap();
        let terms = format!("SELECT count(*) FROM epochs WHERE part = '{}'", self.main);
        (connections, self.world.sql(&terms).unwrap().parse().unwrap())
    }

    /// Has who writes the audit noted, by the address of its connection.
    fn note_writers(&self) {
        let sql = "
            CREATE TABLE wrote (line BIGINT, port INT, epoch BIGINT);
            CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                INSERT INTO wrote VALUES (NEW.id, inet_client_port(), (SELECT max(epoch) FROM epochs WHERE part = NEW.broker));
                RETURN NULL;
            END $$;
            CREATE TRIGGER note AFTER INSERT ON audit FOR EACH ROW WHEN (NEW.what LIKE 'job-%') EXECUTE FUNCTION note();";
        self.world.sql(sql).unwrap();
    }
}

#[tokio::test]
async fn a_broker_is_taken_over_from_a_killed_replica_and_handed_back_when_it_returns() {
    let mut replicas = Replicas::new("pg-shards").await;
    let ids = replicas.world.enrol("m", 8, &["--fault", "slow:1s=*"]).await;
    replicas.spread().await;
    let before = replicas.world.certificates().await;
    let (dies, lives) = (replicas.chosen(&replicas.main), replicas.chosen(SPARE));

    replicas.world.rotate("now", &json!({}));
    replicas.world.wait_reached("confirmed", 1).await;
    replicas.process(dies).kill();
    assert!(replicas.world.reached("confirmed") < ids.len(), "it was in the middle");
    replicas.held(lives, lives).await;
    replicas.world.rotated_once("now", &ids).await;
    replicas.world.wait_renewed(&ids, &before).await;

    // Back again, and by now nobody waits for a Lease to run out.
    replicas.start(dies).await;
    let before = replicas.world.certificates().await;
    replicas.world.rotate("again", &json!({}));
    replicas.spread().await;
    let ended = wait_for("the Rotation's end", ENDS, || async {
        let status = replicas.world.stack.rotation("again").await?.status.unwrap_or_default();
        ensure!(status.phase == Some(RotationPhase::Complete), "{status:?}");
        Ok(())
    });
    replicas.world.told(ended.await);
    replicas.world.wait_renewed(&ids, &before).await;
    let jobs = replicas
        .world
        .sql("SELECT count(*), count(DISTINCT device) FROM jobs WHERE kind = 'rotate'");
    assert_eq!(jobs.unwrap(), format!("{}|{}", 2 * ids.len(), ids.len()), "two each");
    let ended = replicas
        .world
        .sql("SELECT count(*) FROM jobs WHERE state <> 'Confirmed'")
        .unwrap();
    assert_eq!(ended, "0", "{}", replicas.world.log());
    for pod in PODS {
        replicas.process(pod).check_running().unwrap();
    }
    let terms = format!("SELECT count(*) FROM epochs WHERE part = '{SPARE}'");
    let terms: usize = replicas.world.sql(&terms).unwrap().parse().unwrap();
    assert!(terms <= 2, "who stayed kept its own broker: {terms}");
}

#[tokio::test]
async fn a_replica_that_stood_still_for_longer_than_its_lease_writes_nothing_more_of_its_broker() {
    let mut replicas = Replicas::new("pg-shard-deposed").await;
    let ids = replicas.world.enrol("m", 8, &["--fault", "slow:1s=*"]).await;
    replicas.spread().await;
    replicas.note_writers();
    let (stands, goes) = (replicas.chosen(&replicas.main), replicas.chosen(SPARE));

    replicas.world.rotate("now", &json!({}));
    replicas.world.wait_reached("accepted", 2).await;
    let before = replicas.spoken();
    replicas.process(stands).pause().unwrap();
    replicas.held(goes, goes).await;
    // It wakes up in the middle of what the other one does.
    replicas.process(stands).resume().unwrap();
    replicas.world.rotated_once("now", &ids).await;
    // One that led as well has ended, and Kubernetes starts it again.
    if replicas.process(stands).exited().unwrap().is_some() {
        replicas.start(stands).await;
    }
    replicas.spread().await;
    let after = replicas.spoken();
    assert!(
        after.0 - before.0 <= after.1 - before.1,
        "who is deposed does not speak at the broker: (connections, terms) {before:?}, then {after:?}"
    );
    let both = "SELECT count(*) FROM (SELECT epoch FROM wrote GROUP BY epoch HAVING count(DISTINCT port) > 1) AS e";
    assert_eq!(replicas.world.sql(both).unwrap(), "0", "one writer in each term");
    let back = "SELECT count(*) FROM wrote a JOIN wrote b ON a.line < b.line AND a.epoch > b.epoch";
    assert_eq!(
        replicas.world.sql(back).unwrap(),
        "0",
        "no term goes on once the next has begun"
    );
}

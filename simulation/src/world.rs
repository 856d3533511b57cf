//! Everything that runs, and one run of it: the fleet enrols, everything goes wrong while it rotates, the weather clears up, it rotates
//! once more where somebody was left behind, and all must agree.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use certwave_agent::claim::Claim;
use certwave_agent::mqtt::Address;
use certwave_agent::trust::Trusts;
use certwave_controller::clock::Clock;
use certwave_ledger::{Ledger, Open, SqliteLedger};
use certwave_pki::{KeyAlgorithm, PrivateKey, certificates_from_pem, create_leaf_csr, csr_to_pem};
use certwave_protocol::ids::{ClaimName, Fingerprint};
use certwave_protocol::jws::SigningKey;
use certwave_protocol::message::Der;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};

use crate::api::{ApiServer, Key};
use crate::broker::{Broker, PREFIX};
use crate::campaign::Campaign;
use crate::course::Course;
use crate::device::{Surroundings, Unit, name};
use crate::faults::Faults;
use crate::history::History;
use crate::judge::{Judge, Patience};
use crate::mutant::Mutant;
use crate::os;
use crate::person::Person;
use crate::replica::{Ground, LEDGER, PUBLICATION, Replica};
use crate::rollout::{self, Rollout};
use crate::standing;
use crate::weather::Weather;

/// The namespace of all objects but the Leases.
pub const NAMESPACE: &str = "plant";
/// The Fleet.
pub const FLEET: &str = "meters";
/// The Broker's id.
pub const BROKER: &str = "main";
const API_VERSION: &str = "certwave.dev/v1alpha1";
/// Devices that enrol at a time: whoever has the same claim hears all answers to it.
const ENROLLING: usize = 50;
/// Replicas there are.
const REPLICAS: usize = 2;
/// Devices in flight at once, of so many.
const IN_FLIGHT: usize = 2;
/// Seconds: for a step, and for a trial.
const STEP: i64 = 20;
const TRIAL: i64 = 20;
/// One run of so many is long.
const LONG_ONE_OF: u32 = 64;
/// One run of so many rotates once more although all devices have new certificates.
const ONCE_MORE_ONE_OF: u32 = 4;
/// How often somebody looks.
pub const LOOK: Duration = Duration::from_millis(500);

/// See the module.
pub struct World {
    /// What replicas are made of.
    pub ground: Arc<Ground>,
    /// The replicas.
    pub replicas: Vec<Replica>,
    /// The devices.
    pub units: Vec<Unit>,
    /// The ledger, by a way that nothing is in.
    pub ledger: Arc<dyn Ledger>,
}

/// How much a run lives through. Of all that can go wrong together most shows in a short time, so most runs are brief, and there are many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// One Rotation, and what goes wrong in some seconds.
    Brief,
    /// Rotation after Rotation, and what goes wrong in a minute.
    Long,
}

impl Extent {
    fn draw(random: &mut StdRng) -> Self {
        if random.random_range(0..LONG_ONE_OF) == 0 {
            Self::Long
        } else {
            Self::Brief
        }
    }
}

/// What came of a run.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Outcome {
    /// What must not have been.
    pub breaches: Vec<String>,
    /// The last lines of the history.
    pub last: Vec<String>,
    /// A hash of the whole history.
    pub hash: u64,
    /// How many lines it has.
    pub lines: u64,
    /// How long it took in simulated time, seconds.
    pub seconds: i64,
    /// The most devices that were busy at once, and the jobs that they began.
    pub peak: (usize, usize),
    /// How many faults there were.
    pub faults: usize,
}

/// How many devices may be in flight at once in a fleet of so many.
pub fn in_flight(devices: usize) -> usize {
    IN_FLIGHT.max(devices / 20)
}

impl World {
    /// Sets everything up, and has all devices enrol in fair weather.
    ///
    /// # Errors
    /// When that takes too long.
    pub async fn prepare(devices: usize, seed: u64) -> anyhow::Result<Self> {
        let weather = Weather::fair(seed);
        let history = Arc::new(History::default());
        let patience = Patience {
            answer: STEP * 1000,
            trial: (STEP + TRIAL) * 1000,
        };
        let judge = Judge::new(Arc::clone(&history), patience);
        judge.allow(in_flight(devices));
        let broker = Broker::new(Arc::clone(&weather), Arc::clone(&history), Arc::clone(&judge));
        let api = ApiServer::new(Arc::clone(&weather))?;
        let clock = Arc::new(Clock::default());
        clock.rule();
        let ledger: Arc<dyn Ledger> = Arc::new(SqliteLedger::in_memory(LEDGER, Arc::new(Open))?);
        judge.watch(mutable(LEDGER)?);
        let ground = Arc::new(Ground {
            api,
            broker,
            weather,
            judge,
            history,
            clock,
        });
        let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256)?;
        for object in foundation(devices, &key)? {
            let created = ground.api.create(object);
            created.map_err(|refusal| anyhow::anyhow!("an object was refused: {refusal:?}"))?;
        }
        let replicas: Vec<Replica> = (0..REPLICAS).map(|number| Replica::new(number, &ground)).collect();
        for replica in &replicas {
            replica.start()?;
        }
        tokio::spawn(Arc::clone(&ground.broker).accompany(Arc::clone(&ledger), || true));
        let mut world = Self {
            ground,
            replicas,
            units: Vec::new(),
            ledger,
        };
        world.enrol(devices, &key, seed).await?;
        Ok(world)
    }

    async fn enrol(&mut self, devices: usize, key: &PrivateKey, seed: u64) -> anyhow::Result<()> {
        let fleet = Key::new("fleets", NAMESPACE, FLEET);
        let api = Arc::clone(&self.ground.api);
        let issued = || {
            let fleet = api.get(&fleet)?;
            let issued = fleet.pointer("/status/claims/0/certificate")?;
            issued.as_str().map(str::to_owned)
        };
        let issued = wait_for("the claim's certificate", 120, issued).await?;
        let ca = api
            .get(&Key::new("certificateauthorities", NAMESPACE, "root"))
            .context("the CA is gone")?;
        let claim = claim(&issued, ca["status"]["certificate"].as_str().unwrap_or_default(), key)?;
        let around = Arc::new(Surroundings {
            broker: Arc::clone(&self.ground.broker),
            judge: Arc::clone(&self.ground.judge),
            history: Arc::clone(&self.ground.history),
            claim: Arc::new(claim),
            trusts: Arc::new(Trusts::default()),
        });
        while self.units.len() < devices {
            let begun = devices.min(self.units.len() + ENROLLING);
            for number in self.units.len()..begun {
                self.units.push(Unit::begin(number, &around, seed)?);
            }
            let active = || {
                let all = api.all("devicecertificates");
                let active = all.iter().filter(|device| device["status"]["state"] == "Active");
                (active.count() == begun).then_some(())
            };
            wait_for("all devices' first certificates", 600, active).await?;
        }
        Ok(())
    }

    /// One run from this seed.
    ///
    /// # Errors
    /// When a mistake cannot be made.
    pub async fn run(&mut self, seed: u64, mutant: Option<Mutant>) -> anyhow::Result<Outcome> {
        let history = Arc::clone(&self.ground.history);
        let begun = os::elapsed_ms();
        os::seeded(seed);
        let _ = rand::rng().reseed();
        self.ground.weather.seeded(seed);
        let mut random = StdRng::seed_from_u64(seed);
        // Not at the same moment in each run.
        tokio::time::sleep(Duration::from_millis(random.random_range(0..2000))).await;
        if let Some(mutant) = mutant {
            mutant.make(self)?;
        }
        let extent = Extent::draw(&mut random);
        let faults = Faults::plan(&mut random, extent);
        let kinds = faults.len();
        let told = self.go(&mut random, extent, faults, mutant).await;
        if let Err(error) = told {
            history.breach(format!("{error:#}"));
        }
        let (hash, lines) = history.hash();
        Ok(Outcome {
            breaches: history.breaches(),
            last: history.last(),
            hash,
            lines,
            seconds: (os::elapsed_ms() - begun) / 1000,
            peak: self.ground.judge.peak(),
            faults: kinds,
        })
    }

    async fn go(
        &mut self,
        random: &mut StdRng,
        extent: Extent,
        faults: Faults,
        mutant: Option<Mutant>,
    ) -> anyhow::Result<()> {
        let mut person = Person::new(random, extent, self.units.len());
        let mut campaign = Campaign::new(random, extent, self.units.len(), mutant);
        faults.happen(self, random, &mut person, &mut campaign).await?;
        self.clear_up()?;
        person.settle(self)?;
        campaign.settle(self).await?;
        // Whoever was released is in the line again.
        let free = || (!self.ground.judge.awaits_release()).then_some(());
        wait_for("the release of who was on hold", 120, free).await?;
        // Whoever was on hold meanwhile may have gone back since, so that only another Rotation brings everybody something new.
        let mut before = vec![None; self.units.len()];
        let once_more = random.random_range(0..ONCE_MORE_ONE_OF) == 0;
        if once_more || !standing::all_confirmed(self).await {
            before = self.certificates();
            self.rotate("last", &Rollout::plain(in_flight(self.units.len())), mutant)?;
            self.complete("last", 400).await?;
        }
        // Until all have been told of the end, and old certificates are retired.
        let mut left = Vec::new();
        for _ in 0..240 {
            left = standing::disagreements(self, &before).await;
            if left.is_empty() {
                break;
            }
            tokio::time::sleep(LOOK).await;
        }
        if let Err(error) = self.ledger.verify_audit().await {
            left.push(format!("the audit is damaged: {error}"));
        }
        for what in left {
            self.ground.history.breach(what);
        }
        Ok(())
    }

    /// Everything works again.
    ///
    /// # Errors
    /// When a replica cannot be started.
    pub fn clear_up(&self) -> anyhow::Result<()> {
        self.ground.history.say("the weather clears up");
        self.ground.weather.clear_up();
        self.ground.judge.clears_up();
        self.ground
            .api
            .misbehave(|faults| (faults.refuse, faults.stale) = (0, 0));
        self.ground.broker.mislay(0, 0);
        os::set_skew(0, 0);
        self.replicas.iter().try_for_each(Replica::start)
    }

    /// What each device starts from.
    pub fn certificates(&self) -> Vec<Option<Fingerprint>> {
        self.units.iter().map(Unit::starts_from).collect()
    }

    /// Creates a Rotation that goes like this, if no mistake is made on purpose.
    ///
    /// # Errors
    /// When it is refused.
    pub fn rotate(&self, name: &str, rollout: &Rollout, mutant: Option<Mutant>) -> anyhow::Result<()> {
        let course = Course::new(rollout.clone(), self.units.len(), STEP * 1000, os::elapsed_ms());
        self.ground.judge.follow(course);
        let created = self
            .ground
            .api
            .create(object("Rotation", name, &rollout.spec(FLEET, mutant)));
        created.map_err(|refusal| anyhow::anyhow!("a Rotation was refused: {refusal:?}"))?;
        self.ground
            .history
            .say(format!("the Rotation {name} is created: {rollout:?}"));
        Ok(())
    }

    /// A person changes an object.
    ///
    /// # Errors
    /// When it is refused.
    pub fn change(&self, key: &Key, change: &Value) -> anyhow::Result<()> {
        let changed = self.ground.api.merge(key, change);
        changed
            .map(drop)
            .map_err(|refusal| anyhow::anyhow!("a change was refused: {refusal:?}"))
    }

    /// How a Rotation has ended, if it has.
    pub fn over(&self, name: &str) -> Option<String> {
        let rotation = self.ground.api.get(&Key::new("rotations", NAMESPACE, name))?;
        let phase = rotation["status"]["phase"].as_str()?;
        matches!(phase, "Complete" | "Failed" | "Aborted").then(|| phase.to_owned())
    }

    /// Waits for a Rotation's end; whoever has ended is started again meanwhile.
    async fn complete(&self, name: &str, seconds: i64) -> anyhow::Result<()> {
        let over = || {
            self.keep_running();
            self.over(name)
        };
        let phase = match wait_for(&format!("the end of the Rotation {name}"), seconds, over).await {
            Ok(phase) => phase,
            Err(error) => return Err(error.context(standing::unfinished(self, name).await)),
        };
        self.ground.history.say(format!("the Rotation {name} is over: {phase}"));
        if phase != "Complete" {
            bail!("the Rotation {name} has ended as {phase}");
        }
        Ok(())
    }

    /// Starts those again that have ended.
    pub fn keep_running(&self) {
        for replica in &self.replicas {
            if let Err(error) = replica.keep() {
                self.ground
                    .history
                    .breach(format!("a replica cannot be started: {error}"));
            }
        }
    }
}

/// A connection to the ledger's tables themselves.
///
/// # Errors
/// When it cannot be opened.
pub fn mutable(name: &str) -> anyhow::Result<rusqlite::Connection> {
    use rusqlite::OpenFlags;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Ok(rusqlite::Connection::open_with_flags(
        format!("file:/{name}?vfs=memdb"),
        flags,
    )?)
}

/// Waits until there is something, for so many simulated seconds.
async fn wait_for<T>(what: &str, seconds: i64, mut found: impl FnMut() -> Option<T>) -> anyhow::Result<T> {
    let end = os::elapsed_ms() + seconds * 1000;
    loop {
        if let Some(found) = found() {
            return Ok(found);
        }
        if os::elapsed_ms() > end {
            bail!("{what} did not come within {seconds} s");
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn object(kind: &str, name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": API_VERSION, "kind": kind, "metadata": { "name": name, "namespace": NAMESPACE }, "spec": spec,
    })
}

/// What a person would write in YAML.
fn foundation(devices: usize, key: &PrivateKey) -> anyhow::Result<Vec<Value>> {
    let csr = create_leaf_csr(key, "~claim.line")?;
    let ca =
        json!({ "root": {}, "commonName": "Simulated root", "publication": { "baseURL": PUBLICATION, "ocsp": false } });
    let broker = json!({
        "id": BROKER, "url": "mqtts://broker.example.com:8883",
        "trust": { "issuerRef": { "name": "root" } }, "issuerRef": { "name": "root" },
        "mosquitto": { "crlSync": { "lateAfter": "60s" } },
    });
    let limit = in_flight(devices);
    let fleet = json!({
        "issuerRef": { "name": "root" }, "brokerRef": { "name": "mqtt" },
        "certificate": { "validity": "30d", "renewBefore": "1d" },
        "enrolment": { "claims": [{
            "name": "line", "quota": devices, "notAfter": "2027-09-21T00:00:00Z", "csr": csr_to_pem(&csr),
        }] },
        "rotation": {
            "waves": [{ "name": "all", "percent": 100 }],
            "defaults": { "successPercent": 0, "maxFailedPercent": 100, "maxLost": 10_000 },
            "limits": { "maxInFlight": limit, "maxPerMinute": 100_000 },
            "device": {
                "stepTimeout": format!("{STEP}s"), "trialTimeout": format!("{TRIAL}s"), "jobTimeout": "3m",
                "offlineAfter": "30s", "lostAfter": "4m", "retries": { "max": 10, "backoff": "1s" },
            },
            "oldCertificate": { "retire": "Revoke", "grace": "3s", "probation": "30s", "reconnectsPerSecond": 50 },
        },
    });
    let mut all = vec![
        object("CertificateAuthority", "root", &ca),
        object("Broker", "mqtt", &broker),
        object("Fleet", FLEET, &fleet),
    ];
    for number in 0..devices {
        let device =
            json!({ "fleetRef": { "name": FLEET }, "deviceId": name(number), "labels": rollout::labels(number) });
        all.push(object("DeviceCertificate", &name(number), &device));
    }
    Ok(all)
}

/// The bundle that a person would get for the claim.
fn claim(issued: &str, anchor: &str, key: &PrivateKey) -> anyhow::Result<Claim> {
    let chain = certificates_from_pem(issued).context("the claim's certificate cannot be read")?;
    let anchors = certificates_from_pem(anchor).context("the CA's certificate cannot be read")?;
    let leaf = chain.first().context("no certificate")?;
    let der = key.secret_pkcs8_der();
    let address = || Address {
        host: "broker.example.com".to_owned(),
        port: 8883,
    };
    let name: ClaimName = "line".parse().map_err(|_| anyhow::anyhow!("not a name"))?;
    Ok(Claim {
        name,
        broker: BROKER.parse().map_err(|_| anyhow::anyhow!("not an id"))?,
        url: address(),
        claims_url: address(),
        prefix: PREFIX.to_owned(),
        device: None,
        anchors: anchors.iter().map(|anchor| Der(anchor.to_vec())).collect(),
        leaf: Fingerprint::of(leaf),
        signer: SigningKey::from_pkcs8(der).map_err(|error| anyhow::anyhow!("{error}"))?,
        tls_key: rustls::crypto::aws_lc_rs::sign::any_supported_type(&PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(
            der.to_vec(),
        )))?,
        chain,
    })
}

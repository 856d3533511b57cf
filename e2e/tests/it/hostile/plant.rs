//! The shared stack, and a fleet with claims for each test.

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use certwave_crds::{ClaimState, DeviceCertificate, DeviceCertificateStatus, Fleet};
use certwave_e2e::http::sample;
use certwave_e2e::lasting;
use certwave_e2e::stack::{FleetOptions, Stack, objects};
use certwave_e2e::wait_for;
use certwave_protocol::ids::{BrokerId, ClaimName, Fingerprint};
use certwave_protocol::message::Der;
use kube::api::{Patch, PatchParams, PostParams};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use super::keys::{Credential, Key};
use crate::shared;

const SOON: Duration = Duration::from_secs(30);

const OPTIONS: FleetOptions = FleetOptions {
    max_in_flight: 50,
    step_timeout: "2m",
    trial_timeout: "1m",
    job_timeout: "10m",
};

/// What all tests of this module share.
pub(super) struct World {
    pub(super) stack: Stack,
    pub(super) anchors: Vec<Der>,
    pub(super) anchors_pem: String,
    pub(super) broker: BrokerId,
}

impl World {
    /// The stack, started by whoever comes first.
    pub(super) async fn get() -> &'static Self {
        static WORLD: OnceCell<World> = OnceCell::const_new();
        WORLD
            .get_or_init(|| async { lasting::runtime().spawn(Self::start()).await.unwrap() })
            .await
    }

    async fn start() -> Self {
        let mut stack = Stack::on(shared::api().await, "hostile").await.unwrap();
        stack.apply_foundation(&OPTIONS).unwrap();
        stack.start_controller().await.unwrap();
        stack.start_broker().await.unwrap();
        let anchors_pem = std::fs::read_to_string(&stack.broker.files().ca).unwrap();
        let anchors = CertificateDer::pem_slice_iter(anchors_pem.as_bytes());
        Self {
            anchors: anchors.map(|der| Der(der.unwrap().to_vec())).collect(),
            anchors_pem,
            broker: stack.namespace().parse().unwrap(),
            stack,
        }
    }

    /// The controller's sample `name` with these labels, now.
    pub(super) async fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let metrics = self.stack.controller_metrics().await.unwrap();
        sample(&metrics, name, labels).unwrap_or(0.0)
    }

    /// Waits until the controller has counted at least one more than `before`.
    pub(super) async fn counted(&self, name: &str, labels: &[&str], before: f64) {
        let what = format!("{name} {labels:?} above {before}");
        wait_for(&what, SOON, || async {
            match self.metric(name, labels).await {
                now if now > before => Ok(()),
                now => bail!("{now}"),
            }
        })
        .await
        .unwrap();
    }
}

/// Unix seconds.
pub(super) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(since.as_secs()).unwrap()
}

/// A claim with its key.
pub(super) struct Claim {
    pub(super) name: ClaimName,
    pub(super) credential: Credential,
}

/// A fleet of one test.
pub(super) struct Plant {
    pub(super) world: &'static World,
    name: String,
    claims: HashMap<String, Value>,
    /// Of the devices' certificates, as the CRD writes durations.
    validity: &'static str,
}

impl Plant {
    /// A fleet called `name`, with these devices declared, and with a claim of the same name for all of them.
    pub(super) async fn new(name: &str, devices: &[&str]) -> (Self, Claim) {
        Self::with_validity(name, devices, "30d").await
    }

    /// The same, with certificates of another validity.
    pub(super) async fn with_validity(name: &str, devices: &[&str], validity: &'static str) -> (Self, Claim) {
        let world = World::get().await;
        let mut plant = Self {
            world,
            name: name.to_owned(),
            claims: HashMap::new(),
            validity,
        };
        let (claim, ()) = tokio::join!(plant.claim(name, json!({ "quota": 50 })), async {
            for id in devices {
                declare(world, name, id).await;
            }
        });
        for id in devices {
            plant
                .wait_status(id, "to be known", |status| status.state.is_some())
                .await;
        }
        (plant, claim)
    }

    /// Another claim of this fleet: `whom` is its `quota` or `deviceId`.
    pub(super) async fn claim(&mut self, name: &str, whom: Value) -> Claim {
        let (key, name): (Key, ClaimName) = (Key::new(), name.parse().unwrap());
        let mut spec = whom;
        spec["name"] = json!(name.as_str());
        spec["notAfter"] = json!("2099-01-01T00:00:00Z");
        spec["csr"] = json!(certwave_pki::csr_to_pem(&key.request(&name.user())));
        self.claims.insert(name.to_string(), spec);
        self.apply_fleet().await;
        let certificate = self
            .wait_claim(name.as_str(), ClaimState::Active)
            .await
            .context("a certificate")
            .unwrap();
        let leaf = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
        Claim {
            name,
            credential: Credential::from_pem(key, Fingerprint::of(&leaf), certificate),
        }
    }

    /// Changes a field of a claim, and waits until it counts.
    pub(super) async fn change_claim(&mut self, name: &str, field: &str, value: Value, becomes: ClaimState) {
        self.claims.get_mut(name).unwrap()[field] = value;
        self.apply_fleet().await;
        self.wait_claim(name, becomes).await;
    }

    /// Takes a claim out of the Fleet.
    pub(super) async fn remove_claim(&mut self, name: &str) {
        self.claims.remove(name);
        self.apply_fleet().await;
        let fleets = self.world.stack.objects::<Fleet>();
        wait_for(&format!("claim {name} to go"), SOON, || async {
            let status = fleets.get(&self.name).await?.status.context("no status")?;
            match status.claims.iter().find(|claim| claim.name == name) {
                None => Ok(()),
                Some(claim) => bail!("{:?}", claim.state),
            }
        })
        .await
        .unwrap();
    }

    async fn apply_fleet(&self) {
        let claims: Vec<&Value> = self.claims.values().collect();
        let fleet = json!({
            "apiVersion": "certwave.dev/v1alpha1",
            "kind": "Fleet",
            "metadata": { "name": self.name, "namespace": self.world.stack.namespace() },
            "spec": {
                "issuerRef": { "name": objects::CA },
                "brokerRef": { "name": objects::BROKER },
                "certificate": { "validity": self.validity, "renewBefore": "1s", "keyAlgorithms": ["ECDSA-P256"] },
                "enrolment": { "claims": claims },
                "rotation": {
                    // All at once, whatever fails: by default the first device soaks for an hour.
                    "waves": [{ "name": "all", "percent": 100 }],
                    "defaults": { "successPercent": 0, "maxFailedPercent": 100, "maxLost": 10_000 },
                    "limits": { "maxInFlight": 50 },
                    "device": {
                        "stepTimeout": "2m",
                        "trialTimeout": "1m",
                        "jobTimeout": "10m",
                        // A device that failed may be asked again at once, by another Rotation.
                        "retries": { "max": 0, "backoff": "1ms" },
                    },
                },
            },
        });
        self.world
            .stack
            .objects::<Fleet>()
            .patch(&self.name, &PatchParams::apply("test").force(), &Patch::Apply(fleet))
            .await
            .unwrap();
    }

    async fn wait_claim(&self, name: &str, state: ClaimState) -> Option<String> {
        let fleets = self.world.stack.objects::<Fleet>();
        wait_for(&format!("claim {name} to be {state:?}"), SOON, || async {
            let status = fleets.get(&self.name).await?.status.context("no status")?;
            let claim = status.claims.into_iter().find(|claim| claim.name == name);
            match claim.context("no such claim")? {
                claim if claim.state == state => Ok(claim.certificate),
                claim => bail!("{:?}: {:?}", claim.state, claim.message),
            }
        })
        .await
        .unwrap()
    }

    /// Asks for a rotation of this fleet.
    pub(super) async fn rotate(&self, run: &str) {
        self.rotate_with(run, &json!({})).await;
    }

    /// The same, with more in its spec.
    pub(super) async fn rotate_with(&self, run: &str, spec: &Value) {
        let mut rotation = objects::rotation(self.world.stack.namespace(), &format!("{}-{run}", self.name));
        rotation["spec"]["fleetRef"]["name"] = json!(self.name);
        for (field, value) in spec.as_object().into_iter().flatten() {
            rotation["spec"][field] = value.clone();
        }
        let rotation = serde_json::from_value(rotation).unwrap();
        self.world
            .stack
            .objects::<certwave_crds::Rotation>()
            .create(&PostParams::default(), &rotation)
            .await
            .unwrap();
    }

    /// Calls a rotation off.
    pub(super) async fn abort(&self, run: &str) {
        let patch = json!({ "spec": { "control": { "state": "Aborted" } } });
        self.world
            .stack
            .objects::<certwave_crds::Rotation>()
            .patch(
                &format!("{}-{run}", self.name),
                &PatchParams::default(),
                &Patch::Merge(patch),
            )
            .await
            .unwrap();
    }

    /// Waits until the Rotation has ended.
    pub(super) async fn rotated(&self, run: &str) {
        let name = format!("{}-{run}", self.name);
        wait_for("the Rotation to end", SOON, || async {
            let rotation = self.world.stack.rotation(&name).await?;
            let status = rotation.status.context("no status")?;
            status.completed_at.map(drop).context(format!("{:?}", status.counts))
        })
        .await
        .unwrap();
    }

    /// Gives a permit to enrol again.
    pub(super) async fn permit(&self, id: &str, word: &str) {
        self.change(id, json!({ "reenrol": { "permit": word } })).await;
    }

    /// Changes what a device's object declares.
    pub(super) async fn change(&self, id: &str, spec: Value) {
        let patch = json!({ "spec": spec });
        self.world
            .stack
            .objects::<DeviceCertificate>()
            .patch(&object(id), &PatchParams::default(), &Patch::Merge(patch))
            .await
            .unwrap();
    }

    /// What people see of a device.
    pub(super) async fn status(&self, id: &str) -> DeviceCertificateStatus {
        let devices = self.world.stack.objects::<DeviceCertificate>();
        devices.get(&object(id)).await.unwrap().status.unwrap_or_default()
    }

    /// Waits until people see this of a device.
    pub(super) async fn wait_status(
        &self,
        id: &str,
        what: &str,
        holds: impl Fn(&DeviceCertificateStatus) -> bool,
    ) -> DeviceCertificateStatus {
        wait_for(&format!("{id} {what}"), SOON, || async {
            match self.status(id).await {
                status if holds(&status) => Ok(status),
                status => bail!("{status:?}"),
            }
        })
        .await
        .unwrap()
    }
}

async fn declare(world: &World, fleet: &str, id: &str) {
    let mut device = objects::device(world.stack.namespace(), id);
    device["metadata"]["name"] = json!(object(id));
    device["spec"]["fleetRef"]["name"] = json!(fleet);
    let device: DeviceCertificate = serde_json::from_value(device).unwrap();
    let devices = world.stack.objects::<DeviceCertificate>();
    devices.create(&PostParams::default(), &device).await.unwrap();
}

/// A Kubernetes name for a deviceId, which may hold more.
fn object(id: &str) -> String {
    format!("d-{}-x", id.to_lowercase().replace(['_', '.'], "-"))
}

//! A small stack with short timeouts, and simulated devices that can be switched off and on.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use certwave_crds::{CertificateAuthority, DeviceCertificate, DeviceState, Fleet, RotationPhase, RotationStatus};
use certwave_e2e::process::Process;
use certwave_e2e::proxy::Proxy;
use certwave_e2e::stack::{FleetOptions, Stack, objects};
use certwave_e2e::tally::{Certificates, certificates, current};
use certwave_e2e::{programs, tools, wait_for};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{ListParams, Patch, PatchParams};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::{Value, json};

use super::history::{History, Lock};
use crate::shared;

/// For what takes a second or two.
pub(crate) const SOON: Duration = Duration::from_secs(30);
/// For a whole rotation in which things go wrong.
pub(crate) const ENDS: Duration = Duration::from_mins(2);
/// For a note that takes seconds.
const NOTED: Duration = Duration::from_secs(90);
const GRACE: Duration = Duration::from_secs(10);

/// A stack and its devices.
pub(crate) struct World {
    // The devices end before the stack.
    simulators: BTreeMap<String, Process>,
    claim: PathBuf,
    pub(crate) stack: Stack,
}

/// How a fleet's devices are treated: every wait is short, a failed job is tried again at once.
pub(crate) fn device_limits() -> Value {
    json!({
        "stepTimeout": "20s", "trialTimeout": "30s", "jobTimeout": "90s", "offlineAfter": "3s", "lostAfter": "20s",
        "retries": { "max": 3, "backoff": "1s" },
    })
}

impl World {
    /// A stack that is ready, on the API server of all tests.
    pub(crate) async fn new(name: &str, max_in_flight: i32) -> Self {
        let stack = Stack::on(shared::api().await, name).await.unwrap();
        Self::on(stack, max_in_flight).await
    }

    /// The same, with a proxy between the controller and the API server.
    pub(crate) async fn behind_proxy(name: &str, max_in_flight: i32) -> (Self, Proxy) {
        let mut stack = Stack::on(shared::api().await, name).await.unwrap();
        let proxy = stack.put_proxy().await.unwrap();
        (Self::on(stack, max_in_flight).await, proxy)
    }

    /// A stack that is ready.
    pub(crate) async fn on(mut stack: Stack, max_in_flight: i32) -> Self {
        Self::prepare(&stack, max_in_flight).await;
        stack.start_controller().await.unwrap();
        stack.start_broker().await.unwrap();
        let claim = stack.create_claim(100).unwrap();
        Self {
            simulators: BTreeMap::new(),
            claim,
            stack,
        }
    }

    /// Declares CA, Broker and Fleet.
    pub(crate) async fn prepare(stack: &Stack, max_in_flight: i32) {
        let options = FleetOptions {
            max_in_flight,
            step_timeout: "20s",
            trial_timeout: "30s",
            job_timeout: "90s",
        };
        stack.apply_foundation(&options).unwrap();
        let change = json!({ "spec": { "rotation": { "device": device_limits() } } });
        patch::<Fleet>(stack, objects::FLEET, &change).await;
    }

    /// Declares devices.
    pub(crate) async fn declare(&self, prefix: &str, count: usize) -> Vec<String> {
        let ids: Vec<String> = (1..=count).map(|number| format!("{prefix}-{number}")).collect();
        self.stack.declare_devices(ids.clone()).await.unwrap();
        ids
    }

    /// Declares devices, switches them on and waits until each has its first certificate.
    pub(crate) async fn enrol(&mut self, prefix: &str, count: usize, options: &[&str]) -> Vec<String> {
        let ids = self.declare(prefix, count).await;
        self.switch_on(prefix, &ids, options);
        self.wait_enrolled(&ids).await;
        ids
    }

    /// Waits until the leader has noted on its Lease that the ledger's audit has so many lines.
    pub(crate) async fn wait_noted(&self, lines: u64) {
        let leases = self.stack.objects::<Lease>();
        let noted = wait_for("the Lease to say how far the ledger is", NOTED, || async {
            let lease = leases.get("certwave-controller").await?;
            let noted = lease.metadata.annotations.context("no annotations")?;
            let noted: u64 = noted["certwave.dev/audit-lines"].parse()?;
            ensure!(noted >= lines, "{noted} of {lines}");
            Ok(())
        });
        self.told(noted.await);
    }

    /// Waits until each of these has a certificate.
    pub(crate) async fn wait_enrolled(&self, ids: &[String]) {
        let enrolled = wait_for("the devices' first certificates", SOON, || async {
            let have = self.certificates().await;
            let without: Vec<_> = ids.iter().filter(|id| !have.contains_key(*id)).collect();
            let states = self.states().await;
            if without.is_empty() && ids.iter().all(|id| states.get(id) == Some(&Some(DeviceState::Active))) {
                return Ok(());
            }
            bail!("without: {without:?}; {states:?}")
        });
        self.told(enrolled.await);
    }

    /// Switches devices on under a name; they keep their files when they are switched off.
    pub(crate) fn switch_on(&mut self, name: &str, ids: &[String], options: &[&str]) {
        let directory = self.stack.directory().to_owned();
        let file = |ending: &str| directory.join(format!("{name}.{ending}"));
        std::fs::write(file("ids"), ids.join("\n")).unwrap();
        let mut command = Command::new(programs::agent().unwrap());
        command.args(["simulate", "--backoff-max", "2", "--keep-alive", "10"]);
        if !options.contains(&"--beat") {
            command.args(["--beat", "3"]);
        }
        command
            .arg("--ids-from")
            .arg(file("ids"))
            .arg("--claim")
            .arg(&self.claim);
        command.arg("--state-dir").arg(directory.join("devices"));
        command.arg("--report").arg(file("json")).args(options);
        if let Some(filter) = self.stack.log_filter() {
            command.env("RUST_LOG", filter);
        }
        let process = Process::spawn(name, &command, &file("log")).unwrap();
        self.simulators.insert(name.to_owned(), process);
    }

    /// Switches devices off, orderly.
    pub(crate) fn switch_off(&mut self, name: &str) {
        self.simulators.remove(name).unwrap().stop(GRACE).unwrap();
    }

    /// Names under which devices are switched on.
    pub(crate) fn switched_on(&self) -> impl Iterator<Item = &str> {
        self.simulators.keys().map(String::as_str)
    }

    /// A power cut for all devices of this name.
    pub(crate) fn cut_power(&mut self, name: &str) {
        self.simulators.remove(name).unwrap().kill();
    }

    /// The devices' current certificates, as their objects show them.
    pub(crate) async fn certificates(&self) -> Certificates {
        certificates(&self.stack.devices().await.unwrap())
    }

    /// The devices' states, as their objects show them.
    pub(crate) async fn states(&self) -> BTreeMap<String, Option<DeviceState>> {
        let devices = self.stack.devices().await.unwrap();
        let state = |device: DeviceCertificate| (device.spec.device_id, device.status.and_then(|status| status.state));
        devices.into_iter().map(state).collect()
    }

    /// Creates a Rotation of the whole fleet, with more in its spec.
    pub(crate) fn rotate(&self, name: &str, more: &Value) {
        let mut rotation = objects::rotation(self.stack.namespace(), name);
        for (key, value) in more.as_object().unwrap() {
            rotation["spec"][key] = value.clone();
        }
        self.stack.api.apply(&rotation.to_string()).unwrap();
    }

    /// Waits for the Rotation's end, and starts the controller again where it has ended, as Kubernetes would.
    pub(crate) async fn ended(&mut self, name: &str) -> RotationStatus {
        let end = Instant::now() + ENDS;
        loop {
            self.keep_controller().await;
            let status = self.stack.rotation(name).await.unwrap().status.unwrap_or_default();
            let over = [RotationPhase::Complete, RotationPhase::Failed, RotationPhase::Aborted];
            if status.phase.is_some_and(|phase| over.contains(&phase)) {
                return status;
            }
            assert!(
                Instant::now() < end,
                "{} {status:#?}\n{}",
                self.stack.keep_files(),
                self.log()
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Starts the controller again where it has ended.
    pub(crate) async fn keep_controller(&mut self) {
        if self.stack.controller().unwrap().exited().unwrap().is_some() {
            self.stack.start_controller().await.unwrap();
        }
    }

    /// How long a fault lasts is part of the fault. The controller is started again where it ends meanwhile.
    pub(crate) async fn lasts(&mut self, fault: Duration) {
        let end = Instant::now() + fault;
        while Instant::now() < end {
            self.keep_controller().await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Kills the controller, and starts it again.
    pub(crate) async fn kill_controller(&mut self) {
        self.stack.controller().unwrap().kill();
        self.stack.start_controller().await.unwrap();
    }

    /// The ledger.
    pub(crate) fn history(&self) -> History {
        History::open(&self.stack.directory().join("ledger.sqlite")).unwrap()
    }

    /// Locks the ledger: nothing can be written to it.
    pub(super) fn lock_ledger(&self) -> Lock {
        Lock::take(&self.stack.directory().join("ledger.sqlite")).unwrap()
    }

    /// Waits until the ledger says so, looking often: the next instant is another one.
    pub(crate) async fn when(&self, what: &str, true_of: impl Fn(&History) -> bool) {
        let (history, end) = (self.history(), Instant::now() + ENDS);
        while !true_of(&history) {
            assert!(Instant::now() < end, "waited for {what}\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Waits until the objects of all of these show another certificate than before.
    pub(crate) async fn wait_renewed(&self, ids: &[String], before: &Certificates) {
        let renewed = wait_for("new certificates", ENDS, || async {
            let now = self.certificates().await;
            let old: Vec<_> = ids.iter().filter(|id| now.get(*id) == before.get(*id)).collect();
            if old.is_empty() {
                return Ok(());
            }
            bail!("still the old one: {old:?}")
        });
        self.told(renewed.await);
    }

    /// Waits until the objects show these certificates and no others. What a Rotation's status says may be shown before them.
    pub(crate) async fn wait_shown(&self, expected: &Certificates) {
        let shown = wait_for("the certificates of before", SOON, || async {
            let now = self.certificates().await;
            ensure!(now == *expected, "{now:?}, not {expected:?}");
            Ok(())
        });
        self.told(shown.await);
    }

    /// Asserts that each device starts from the certificate that its object shows, and that OpenSSL accepts that.
    pub(crate) async fn verify(&self) {
        let roots = self.roots().await;
        let file = self.stack.directory().join("roots.pem");
        std::fs::write(&file, roots).unwrap();
        for name in self.simulators.keys() {
            let agree = wait_for("objects to show what devices hold", SOON, || async {
                self.agree(name, &file).await
            });
            self.told(agree.await);
        }
    }

    async fn agree(&self, name: &str, roots: &std::path::Path) -> Result<()> {
        let report = std::fs::read(self.stack.directory().join(format!("{name}.json")))?;
        let report: Value = serde_json::from_slice(&report)?;
        let shown = self.certificates().await;
        for device in report["devices"].as_array().context("no devices")? {
            let id = device["id"].as_str().context("no id")?;
            let pem = device["certificate"]
                .as_str()
                .with_context(|| format!("{id} has none"))?;
            let digest = aws_lc_rs::digest::digest(
                &aws_lc_rs::digest::SHA256,
                &CertificateDer::from_pem_slice(pem.as_bytes())?,
            );
            if shown.get(id) != Some(&hex::encode(digest)) {
                bail!("{id} starts from another certificate than its object shows: {device}");
            }
            let chain = self.stack.directory().join(format!("{id}.chain.pem"));
            std::fs::write(&chain, format!("{pem}{}", device["chain"].as_str().unwrap_or_default()))?;
            let mut openssl = Command::new(tools::openssl()?);
            openssl.args([
                "verify",
                "-x509_strict",
                "-purpose",
                "sslclient",
                "-no-CApath",
                "-no-CAstore",
            ]);
            openssl
                .arg("-CAfile")
                .arg(roots)
                .arg("-untrusted")
                .arg(&chain)
                .arg(&chain);
            tools::output(&mut openssl)?;
        }
        Ok(())
    }

    /// Certificates of all roots, PEM.
    pub(crate) async fn roots(&self) -> String {
        let all = self
            .stack
            .objects::<CertificateAuthority>()
            .list(&ListParams::default())
            .await
            .unwrap();
        let roots = all.items.into_iter().filter(|ca| ca.spec.root.is_some());
        roots.filter_map(|ca| ca.status?.certificate).collect()
    }

    /// The certificate that the device was last verified with, as OpenSSL tells it.
    pub(crate) fn certificate_text(&self, id: &str) -> String {
        let mut openssl = Command::new(tools::openssl().unwrap());
        openssl.args(["x509", "-noout", "-text", "-in"]);
        openssl.arg(self.stack.directory().join(format!("{id}.chain.pem")));
        tools::output(&mut openssl).unwrap()
    }

    /// The device's condition of this type.
    pub(crate) async fn device_condition(&self, id: &str, condition: &str) -> Option<Condition> {
        let device = self.stack.objects::<DeviceCertificate>().get(id).await.unwrap();
        let found = device.status?.conditions;
        found.into_iter().find(|found| found.type_ == condition)
    }

    /// SHA-256 of the current certificate that the device's object shows.
    pub(crate) async fn current_of(&self, id: &str) -> Option<String> {
        current(&self.stack.objects::<DeviceCertificate>().get(id).await.unwrap())
    }

    /// The value, or a failed test with the logs.
    pub(crate) fn told<T>(&self, result: Result<T>) -> T {
        result.unwrap_or_else(|error| panic!("{error:#}\n{}", self.log()))
    }

    /// The end of the controller's log.
    pub(crate) fn log(&self) -> String {
        let log = std::fs::read_to_string(self.stack.directory().join("certwave.log")).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        let mut log = lines[lines.len().saturating_sub(40)..].join("\n");
        for simulator in self.simulators.values() {
            log.push('\n');
            log.push_str(&simulator.log_tail());
        }
        log
    }
}

/// Changes an object as a person would.
pub(crate) async fn patch<K>(stack: &Stack, name: &str, change: &Value)
where
    K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope> + Clone + std::fmt::Debug,
    K: serde::de::DeserializeOwned,
    K::DynamicType: Default,
{
    let objects = stack.objects::<K>();
    objects
        .patch(name, &PatchParams::default(), &Patch::Merge(change))
        .await
        .unwrap();
}

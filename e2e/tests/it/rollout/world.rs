//! A stack, a fleet with labels, and Rotations in waves with short times.

use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};
use std::time::{Duration, Instant};

use certwave_crds::{RotationPhase, RotationStatus};
use certwave_e2e::stack::{Stack, objects};
use certwave_e2e::wait_for;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::ListParams;
use serde_json::{Value, json};

use crate::faults::world::{SOON, World};
use crate::shared;

/// For a whole run in waves.
const RUN: Duration = Duration::from_mins(1);

/// A [`World`] whose devices have labels.
pub(crate) struct Staged {
    world: World,
    sites: BTreeMap<String, String>,
}

impl Deref for Staged {
    type Target = World;
    fn deref(&self) -> &World {
        &self.world
    }
}

impl DerefMut for Staged {
    fn deref_mut(&mut self) -> &mut World {
        &mut self.world
    }
}

/// A device's labels.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Labels {
    pub(crate) site: &'static str,
    pub(crate) ring: &'static str,
}

/// Most devices in flight at once, where a strategy does not say otherwise.
pub(crate) const MAX_IN_FLIGHT: usize = 4;

/// Three waves (a fifth of the fleet, half of it, the rest), short times, nothing may fail, nothing is tried again; `changes`
/// are merged into that.
pub(crate) fn strategy(changes: &Value) -> Value {
    let mut strategy = json!({
        "order": { "spreadBy": "site" },
        "waves": [
            { "name": "canary", "percent": 20, "soak": "1s" },
            { "name": "early", "percent": 50, "soak": "1s" },
            { "name": "rest", "percent": 100 },
        ],
        "defaults": { "maxFailedPercent": 0, "maxLost": 0, "onBreach": "Pause" },
        "limits": { "maxInFlight": MAX_IN_FLIGHT, "maxPerMinute": 100_000 },
        "device": {
            "stepTimeout": "5s", "trialTimeout": "5s", "jobTimeout": "20s", "offlineAfter": "3s", "lostAfter": "8s",
            "retries": { "max": 0, "backoff": "1s" },
        },
    });
    merge(&mut strategy, changes);
    strategy
}

/// As a JSON merge patch does it.
fn merge(into: &mut Value, changes: &Value) {
    let (Value::Object(old), Value::Object(new)) = (&mut *into, changes) else {
        *into = changes.clone();
        return;
    };
    for (key, value) in new {
        merge(old.entry(key.clone()).or_insert(Value::Null), value);
    }
}

impl Staged {
    /// A stack that is ready; its Fleet asks for little, as each Rotation brings its own strategy.
    pub(crate) async fn new(name: &str) -> Self {
        Self {
            world: World::new(name, i32::try_from(MAX_IN_FLIGHT).unwrap()).await,
            sites: BTreeMap::new(),
        }
    }

    /// The same with a broker that checks CRLs and reports what it has loaded.
    pub(crate) async fn revoking(name: &str) -> Self {
        let mut stack = Stack::on(shared::api().await, name).await.unwrap();
        stack.check_crls().unwrap();
        Self {
            world: World::on(stack, i32::try_from(MAX_IN_FLIGHT).unwrap()).await,
            sites: BTreeMap::new(),
        }
    }

    /// Declares devices `name-1`, `name-2` and so on, with these labels, switches them on under `name` and waits until each
    /// has its first certificate.
    pub(crate) async fn enrol(&mut self, name: &str, devices: &[Labels], options: &[&str]) -> Vec<String> {
        let ids = self.declare(name, devices);
        self.world.switch_on(name, &ids, options);
        self.world.wait_enrolled(&ids).await;
        ids
    }

    /// Declares devices `name-1`, `name-2` and so on, with these labels.
    pub(crate) fn declare(&mut self, name: &str, devices: &[Labels]) -> Vec<String> {
        let mut ids = Vec::new();
        let mut list = Vec::new();
        for (number, labels) in devices.iter().enumerate() {
            let id = format!("{name}-{}", number + 1);
            let mut device = objects::device(self.world.stack.namespace(), &id);
            device["spec"]["labels"] = json!({ "site": labels.site, "ring": labels.ring });
            list.push(device);
            self.sites.insert(id.clone(), labels.site.to_owned());
            ids.push(id);
        }
        self.world.stack.api.apply(&objects::list(&list)).unwrap();
        ids
    }

    /// The Rotation as it is now.
    pub(crate) async fn status(&self, name: &str) -> RotationStatus {
        self.stack.rotation(name).await.unwrap().status.unwrap_or_default()
    }

    /// Waits until the Rotation's status is so.
    pub(crate) async fn until(
        &mut self,
        name: &str,
        what: &str,
        so: impl Fn(&RotationStatus) -> bool,
    ) -> RotationStatus {
        let end = Instant::now() + RUN;
        loop {
            self.keep_controller().await;
            let status = self.status(name).await;
            sums_up(&status);
            if so(&status) {
                return status;
            }
            if Instant::now() >= end {
                let files = self.stack.keep_files();
                let members = self.history().members(name);
                panic!(
                    "waited for {what}: {status:#?}\n{members:#?}\nfiles are in {files}\n{}",
                    self.log()
                );
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Waits until the Rotation is in this phase.
    pub(crate) async fn phase(&mut self, name: &str, phase: RotationPhase) -> RotationStatus {
        self.until(name, &format!("{phase:?}"), |status| status.phase == Some(phase))
            .await
    }

    /// Changes `spec.control` as a person would, with kubectl, under this name of a field manager.
    pub(crate) fn control_as(&self, person: &str, name: &str, control: &Value) {
        let (manager, change) = (
            format!("--field-manager={person}"),
            json!({ "spec": { "control": control } }).to_string(),
        );
        let namespace = self.stack.namespace();
        let arguments = [
            "--namespace",
            namespace,
            "patch",
            "rotation",
            name,
            "--type=merge",
            &manager,
            "-p",
            &change,
        ];
        self.stack.api.kubectl(arguments).unwrap();
    }

    /// What kubectl says in the stack's namespace.
    pub(crate) fn kubectl(&self, arguments: &[&str]) -> String {
        let namespace = ["--namespace", self.stack.namespace()];
        let all = namespace.into_iter().chain(arguments.iter().copied());
        self.stack.api.kubectl(all).unwrap()
    }

    /// Reasons and notes of the events about the Rotation, in no order.
    pub(crate) async fn events(&self, name: &str) -> Vec<(String, String)> {
        let all = self
            .stack
            .objects::<Event>()
            .list(&ListParams::default())
            .await
            .unwrap();
        let about = |event: &Event| {
            event
                .regarding
                .as_ref()
                .is_some_and(|r| r.name.as_deref() == Some(name))
        };
        let told = all.items.into_iter().filter(about);
        told.map(|event| (event.reason.unwrap_or_default(), event.note.unwrap_or_default()))
            .collect()
    }

    /// Waits for an event about the Rotation with this reason, and returns its note.
    pub(crate) async fn event(&self, name: &str, reason: &str) -> String {
        let what = format!("an event {reason}");
        let event = wait_for(&what, SOON, || async {
            let events = self.events(name).await;
            let found = events.iter().find(|(found, _)| found == reason);
            found
                .map(|(_, note)| note.clone())
                .ok_or_else(|| anyhow::anyhow!("{events:?}"))
        });
        self.told(event.await)
    }

    /// What must hold when all is over: every device is connected, by a certificate that OpenSSL accepts and that the ledger
    /// and its object have as the current one, and no more devices held a slot at once than `in_flight`, of a site `of_site`.
    pub(crate) async fn sound(&self, in_flight: usize, of_site: usize) {
        self.verify().await;
        self.connected().await;
        let agree = wait_for("the ledger and the objects to agree", SOON, || async {
            let (history, shown) = (self.history(), self.certificates().await);
            for id in self.reported().keys() {
                let (current, shown) = (history.current(id), shown.get(id));
                anyhow::ensure!(current.as_ref() == shown, "{id}: {current:?} and {shown:?}");
            }
            Ok(())
        });
        self.told(agree.await);
        let history = self.history();
        let peak = history.peak_in_flight();
        assert!(peak <= in_flight, "{peak} devices were in flight where {in_flight} may");
        let site = |device: &str| self.sites.get(device).cloned().unwrap_or_default();
        for (site, peak) in history.peaks(site) {
            assert!(
                peak <= of_site,
                "{peak} devices of {site} were in flight where {of_site} may"
            );
        }
    }

    /// Waits until each device that is switched on is connected.
    pub(crate) async fn connected(&self) {
        let connected = wait_for("all devices to be connected", SOON, || async {
            let away: Vec<_> = self.reported().into_iter().filter(|(_, up)| !up).collect();
            anyhow::ensure!(away.is_empty(), "{away:?}");
            Ok(())
        });
        self.told(connected.await);
    }

    /// Whether each device that is switched on is connected, by its own word.
    fn reported(&self) -> BTreeMap<String, bool> {
        let mut all = BTreeMap::new();
        for name in self.switched_on() {
            let report = std::fs::read(self.stack.directory().join(format!("{name}.json"))).unwrap();
            let report: Value = serde_json::from_slice(&report).unwrap();
            for device in report["devices"].as_array().unwrap() {
                all.insert(device["id"].as_str().unwrap().to_owned(), device["connected"] == true);
            }
        }
        all
    }
}

/// Asserts that the counts of the waves add up to those of the run, and that nobody is counted twice.
fn sums_up(status: &RotationStatus) {
    let columns = |counts: &Value| -> BTreeMap<String, i64> {
        let numbers = counts.as_object().unwrap().iter();
        numbers
            .filter_map(|(name, n)| Some((name.clone(), n.as_i64()?)))
            .collect()
    };
    let counts = columns(&serde_json::to_value(status.counts).unwrap());
    let waves: Vec<_> = status
        .waves
        .iter()
        .map(|wave| columns(&serde_json::to_value(wave).unwrap()))
        .collect();
    for (name, count) in counts {
        let sum: i64 = waves.iter().map(|wave| wave[&name]).sum();
        assert_eq!(sum, count, "{name}: {status:#?}");
    }
    for wave in waves {
        // Limits, and sums of what stands beside them.
        let others = ["planned", "maxFailed", "maxLost", "failures", "losses"];
        let all: i64 = wave
            .iter()
            .filter(|(name, _)| !others.contains(&name.as_str()))
            .map(|(_, n)| n)
            .sum();
        assert!(all <= wave["planned"], "{status:#?}");
    }
}

/// The condition of this type.
pub(crate) fn condition<'a>(status: &'a RotationStatus, kind: &str) -> &'a Condition {
    let found = status.conditions.iter().find(|condition| condition.type_ == kind);
    found.unwrap_or_else(|| panic!("no condition {kind}: {status:#?}"))
}

/// Devices at these sites in turn; the first `canaries` are in ring `canary`, the rest in ring `main`.
pub(crate) fn fleet(devices: usize, canaries: usize, sites: &[&'static str]) -> Vec<Labels> {
    let labels = |number: usize| Labels {
        site: sites[number % sites.len()],
        ring: if number < canaries { "canary" } else { "main" },
    };
    (0..devices).map(labels).collect()
}

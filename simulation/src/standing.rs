//! Whether device, ledger and object say the same of each device when all is over, and nothing is left undone.

use certwave_agent::journal::Phase;
use certwave_core::model::{Device, Identity, JobState};
use certwave_ledger::{FleetKey, LedgerError, OpenSession};
use certwave_protocol::ids::{BrokerId, Fingerprint};

use crate::api::Key;
use crate::device::Unit;
use crate::os;
use crate::world::{BROKER, FLEET, NAMESPACE, World};

/// So many are told: of thousands nobody wants to read all.
const SAID: usize = 20;

/// What keeps the devices from standing as they should after a Rotation in fair weather. `before` is what they started from
/// before it, where it must have brought each something new.
pub async fn disagreements(world: &World, before: &[Option<Fingerprint>]) -> Vec<String> {
    let mut found = Vec::new();
    for (unit, before) in world.units.iter().zip(before) {
        let said = if world.ground.judge.is_barred(unit.number) {
            barred(world, unit)
        } else {
            well(world, unit, before.as_ref()).await
        };
        found.extend(said.into_iter().map(|what| format!("d{} {what}", unit.number)));
        if found.len() >= SAID {
            break;
        }
    }
    let fleet = FleetKey {
        namespace: NAMESPACE.to_owned(),
        name: FLEET.to_owned(),
    };
    match world.ledger.in_flight(&fleet).await {
        Ok(0) => {}
        other => found.push(format!("devices in flight: {other:?}")),
    }
    if let Ok(broker) = BROKER.parse::<BrokerId>() {
        match world.ledger.holding(&broker).await {
            Ok(0) => {}
            other => found.push(format!("certificates on hold by retirements: {other:?}")),
        }
        let open: Result<Vec<OpenSession>, _> = world.ledger.open_sessions(&broker, 10).await;
        if !matches!(&open, Ok(open) if open.is_empty()) {
            found.push("sessions of revoked devices are not known to be closed".to_owned());
        }
    }
    if let Err(error) = published(world, &mut found).await {
        found.push(format!("the ledger does not say what is published: {error}"));
    }
    found
}

/// Whether every device that is let in has confirmed its last job.
pub async fn all_confirmed(world: &World) -> bool {
    for unit in &world.units {
        let job = in_ledger(world, unit).await.and_then(|device| device.job);
        let confirmed = job.is_some_and(|job| job.state == JobState::Confirmed);
        if !confirmed && !world.ground.judge.is_barred(unit.number) {
            return false;
        }
    }
    true
}

/// Every CRL that is published must be one that relying parties go by, and say all.
async fn published(world: &World, found: &mut Vec<String>) -> Result<(), LedgerError> {
    let now = os::now_ms() / 1000;
    for (issuer, scope) in world.ledger.crl_scopes().await? {
        let Some(crl) = world.ledger.crl(&issuer, &scope).await? else {
            continue;
        };
        if crl.this_update > now || crl.next_update <= now {
            let (from, until) = (crl.this_update - now, crl.next_update - now);
            found.push(format!("the CRL of {scope} holds from {from} s to {until} s from now"));
        }
    }
    let behind = world.ledger.crls_behind().await?;
    found.extend(
        behind
            .iter()
            .map(|(_, scope)| format!("the CRL of {scope} does not say all")),
    );
    Ok(())
}

/// How a Rotation is that should have ended: its phase, what it waits for, who is where, and the jobs that have not ended, with their times as
/// seconds from now.
pub async fn unfinished(world: &World, rotation: &str) -> String {
    let object = world.ground.api.get(&Key::new("rotations", NAMESPACE, rotation));
    let status = &object.unwrap_or_default()["status"];
    let conditions = status["conditions"].as_array().into_iter().flatten();
    let waits = conditions
        .filter(|condition| condition["type"] == "Progressing")
        .find_map(|condition| condition["message"].as_str());
    let counts = status["counts"].as_object().into_iter().flatten();
    let counts = counts.filter(|(_, n)| **n != 0).map(|(name, n)| format!("{name} {n}"));
    let mut found: Vec<String> = counts.collect();
    for unit in &world.units {
        let device = in_ledger(world, unit).await;
        if let Some(job) = device.as_ref().and_then(Device::open_job) {
            let from_now = |at: i64| (at - os::now_ms()) / 1000;
            found.push(format!(
                "d{}: {} since {} s, to end at {:?} s",
                unit.number,
                job.state.as_str(),
                from_now(job.since),
                job.next_deadline().map(from_now)
            ));
        }
    }
    format!(
        "{}: {}; {}",
        status["phase"],
        waits.unwrap_or_default(),
        found.join(", ")
    )
}

async fn in_ledger(world: &World, unit: &Unit) -> Option<Device> {
    let identity = Identity {
        broker: BROKER.parse().ok()?,
        device: unit.id.clone(),
    };
    world.ledger.device(&identity).await.ok()?
}

/// One whom a person has revoked is out, and its object says so.
fn barred(world: &World, unit: &Unit) -> Vec<String> {
    let mut found = Vec::new();
    if world.ground.broker.is_connected(unit.id.as_str()) {
        found.push("was revoked and is connected".to_owned());
    }
    let object = object(world, unit);
    if object["status"]["state"] != "Revoked" {
        found.push(format!(
            "was revoked and is {} by its object",
            object["status"]["state"]
        ));
    }
    found
}

async fn well(world: &World, unit: &Unit, before: Option<&Fingerprint>) -> Vec<String> {
    let mut found = Vec::new();
    let judge = &world.ground.judge;
    if !world.ground.broker.is_connected(unit.id.as_str()) {
        found.push("is not connected".to_owned());
    }
    let starts_from = unit.starts_from();
    let called = |leaf: Option<&Fingerprint>| leaf.map_or_else(|| "nothing".to_owned(), |leaf| judge.name(leaf));
    if starts_from.is_none() || starts_from.as_ref() == before {
        let leaf = called(starts_from.as_ref());
        found.push(format!("starts from {leaf}, which the last Rotation did not bring"));
    }
    let journal = unit.journal();
    let job = journal.as_ref().and_then(|journal| journal.job.as_ref());
    if !job.is_some_and(|job| job.phase == Phase::Committed) {
        found.push(format!(
            "had a last job that it left as {:?}",
            job.map(|job| &job.phase)
        ));
    }
    let Some(device) = in_ledger(world, unit).await else {
        found.push("is not in the ledger".to_owned());
        return found;
    };
    let current = device.current.as_ref().map(|current| current.fingerprint);
    if current != starts_from {
        let (ledger, own) = (called(current.as_ref()), called(starts_from.as_ref()));
        found.push(format!("starts from {own}; the ledger has {ledger}"));
    }
    let last = device.job.as_ref();
    if last.map(|last| last.id) != job.map(|job| job.id) {
        found.push("had another last job than the ledger has".to_owned());
    }
    if last.map(|last| last.state) != Some(JobState::Confirmed) {
        found.push(format!(
            "had a last job that is {:?} in the ledger",
            last.map(|last| last.state)
        ));
    }
    let object = object(world, unit);
    let shown = object
        .pointer("/status/certificates/current/sha256")
        .and_then(serde_json::Value::as_str);
    if shown != current.map(|current| current.to_string()).as_deref() {
        found.push("has an object that shows another certificate than the ledger has".to_owned());
    }
    if object["status"]["state"] != "Active" {
        found.push(format!("is {} by its object", object["status"]["state"]));
    }
    if object.pointer("/status/job/state").and_then(serde_json::Value::as_str) != Some("Confirmed") {
        found.push("has an object that does not show its job's end".to_owned());
    }
    found
}

fn object(world: &World, unit: &Unit) -> serde_json::Value {
    let key = Key::new("devicecertificates", NAMESPACE, unit.id.as_str());
    world.ground.api.get(&key).unwrap_or_default()
}

//! `DeviceCertificate`: what objects declare goes into the ledger, in batches, as the watch shows it.

mod deletion;
mod home;
mod revocation;
mod seen;
mod waiting;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use certwave_core::model::{Device, Identity, ObjectRef};
use certwave_crds::DeviceCertificate;
use certwave_ledger::{Declaration, Declared, FleetKey, LedgerError};
use certwave_protocol::ids::{BrokerId, DeviceId};
use kube::ResourceExt;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use crate::notice::Notice;

use super::drive::{backoff, name};
use super::error::{Error, Result};
use super::feed::{Feed, Seen};
use super::projection::Show;
use super::shared::Shared;
use super::status::Verdict;
use super::time::now_ms;
use super::views::{Key, Views, digest};
use deletion::Deletion;
use home::{MOVING, Whose, fleet_of};
use revocation::Said;
pub(super) use revocation::{act, invalid_since, reason};
use waiting::{News, Waiting, devices_of};

/// Objects in one transaction.
const BATCH: usize = 500;

/// Watches for ever, once the ledger is complete.
pub(super) async fn run(
    shared: Arc<Shared>,
    feed: Arc<Feed>,
    views: Arc<Views>,
    show: mpsc::Sender<Show>,
    tell: mpsc::Sender<Notice>,
) -> Result<()> {
    shared.whole().await;
    let mut feed = feed.listen();
    let mut seen = Vec::with_capacity(BATCH);
    let mut intake = Intake {
        shared: Arc::clone(&shared),
        views,
        show,
        tell,
        pass: 0,
        refused: HashMap::new(),
        moving: Vec::new(),
        revoking: HashSet::new(),
    };
    let mut waiting = Waiting::new(&shared);
    // By its own time: objects change all the while.
    let mut moving = tokio::time::interval(MOVING);
    moving.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            many = feed.recv_many(&mut seen, BATCH) => match many {
                0 => return Err(Error::Ended("DeviceCertificate")),
                _ => intake.take(seen.drain(..), &mut waiting).await?,
            },
            _ = moving.tick(), if !intake.moving.is_empty() => intake.again(&mut waiting).await?,
            news = waiting.next(&shared) => match news {
                News::Ready(fleet) => {
                    let listed = intake.take_over(&fleet, &mut waiting).await;
                    heard(fleet, listed, &mut waiting)?;
                }
                News::Late(fleet) => {
                    let listed = intake.tell(&fleet).await;
                    heard(fleet, listed, &mut waiting)?;
                }
            }
        }
    }
}

/// Notes whether a fleet's devices could be listed; that an API server could not is for later, anything else for the caller.
fn heard(fleet: FleetKey, listed: Result<()>, waiting: &mut Waiting) -> Result<()> {
    match listed {
        Err(Error::Api(error)) => {
            tracing::warn!(namespace = fleet.namespace, fleet = fleet.name, %error, "cannot list a fleet's devices; trying again");
            waiting.failed(fleet);
        }
        other => {
            other?;
            waiting.done(&fleet);
        }
    }
    Ok(())
}

/// Whether what the ledger knows by a deleted object's name is another device: the object was made again for that one, and read by itself before
/// the watch told of either. That device stays; the one that it was for before was let go when the object was read.
fn is_another(known: Option<&Identity>, gone: &DeviceCertificate) -> bool {
    known.is_some_and(|known| known.device.as_str() != gone.spec.device_id)
}

struct Intake {
    shared: Arc<Shared>,
    views: Arc<Views>,
    show: mpsc::Sender<Show>,
    /// What people should hear of.
    tell: mpsc::Sender<Notice>,
    /// Counts listings.
    pass: u16,
    /// Objects that were refused, by the identity that another one holds: they get their turn when it goes.
    refused: HashMap<Identity, Vec<ObjectRef>>,
    /// Objects that another broker's holder has to let go of first.
    moving: Vec<ObjectRef>,
    /// Objects of which the ledger has a revocation or hold that they declare, or did before they were deleted: when they do no more, it
    /// must hear of it.
    revoking: HashSet<(Key, DeviceId)>,
}

/// What an object declares.
struct Taken {
    key: Key,
    /// The digest.
    declared: u64,
    declaration: Declaration,
    /// Of its revocation, if it says anything or did before.
    said: Option<Said>,
}

impl Intake {
    /// Takes over what happened, in order.
    async fn take(&mut self, seen: impl Iterator<Item = Seen>, waiting: &mut Waiting) -> Result<()> {
        let mut batch = Vec::new();
        for seen in seen {
            match seen {
                Seen::Is(object) => batch.push(object),
                Seen::Gone(object) => {
                    self.apply(std::mem::take(&mut batch), waiting).await?;
                    self.gone(&object, waiting).await?;
                }
                Seen::Begins => {
                    self.apply(std::mem::take(&mut batch), waiting).await?;
                    self.pass = self.pass.wrapping_add(1);
                }
                Seen::Complete => {
                    self.apply(std::mem::take(&mut batch), waiting).await?;
                    self.sweep(waiting).await?;
                }
            }
        }
        self.apply(batch, waiting).await
    }

    /// Declares objects that are new or changed.
    async fn apply(&mut self, objects: Vec<Arc<DeviceCertificate>>, waiting: &mut Waiting) -> Result<()> {
        let mut taken: Vec<Taken> = Vec::new();
        for object in objects {
            let own = name(&*object);
            let (key, declared) = (Key::of(&own), declared_digest(&object));
            match self.whose(key, &own, &object, waiting).await? {
                Whose::Mine => {}
                Whose::Anothers => {
                    // What it was before in this batch was let go.
                    taken.retain(|other| other.key != key);
                    continue;
                }
                Whose::Open => {
                    taken.retain(|other| other.key != key);
                    // Perhaps its Fleet is only late.
                    if self.shared.broker().is_some() {
                        waiting.add(fleet_of(&own, &object));
                    }
                    continue;
                }
            }
            self.recall(key, &own, &object).await;
            let view = self.see(key, &object);
            if view.declared == declared || object.metadata.deletion_timestamp.is_some() {
                continue;
            }
            let fleet = fleet_of(&own, &object);
            // The API server lets no other deviceId in.
            let Ok(device) = object.spec.device_id.parse::<DeviceId>() else {
                continue;
            };
            let speaks = object.spec.revocation.is_some() || self.revoking.contains(&(key, device.clone()));
            let said = speaks.then(|| Said::of(&object, now_ms()));
            let Some(broker) = self.broker(&fleet) else {
                // A fleet that is not ready must not keep a stolen device in.
                if let Some(said) = &said {
                    self.revoke_known(&own, &device, said).await?;
                }
                waiting.add(fleet);
                continue;
            };
            let Some(declaration) = declaration(&object, broker) else {
                continue;
            };
            // Twice in one batch: the later one counts.
            taken.retain(|other| other.key != key);
            taken.push(Taken {
                key,
                declared,
                declaration,
                said,
            });
        }
        while !taken.is_empty() {
            let batch: Vec<_> = taken.drain(..taken.len().min(BATCH)).collect();
            self.declare(batch).await?;
        }
        Ok(())
    }

    async fn declare(&mut self, batch: Vec<Taken>) -> Result<()> {
        for taken in &batch {
            if let Some(said) = &taken.said {
                self.take_revocation(&taken.declaration, said).await?;
            }
        }
        let declarations: Vec<Declaration> = batch.iter().map(|taken| taken.declaration.clone()).collect();
        let ledger = &self.shared.ledger;
        let answers = persist(&self.shared, || {
            ledger.declare(self.shared.epoch, now_ms(), declarations.clone())
        })
        .await?;
        let mut news = false;
        for (taken, answer) in batch.into_iter().zip(answers) {
            let declaration = taken.declaration;
            self.views.touch(taken.key, |view| view.declared = taken.declared);
            match answer {
                Declared::Unchanged => {}
                Declared::Elsewhere { broker } => {
                    let message = format!(
                        "the object declared a device of the broker {broker} before; it is served here once the holder of that has \
                         let go of it"
                    );
                    if !self.moving.contains(&declaration.object) {
                        self.moving.push(declaration.object.clone());
                    }
                    self.views.touch(taken.key, |view| view.declared = 0);
                    self.refuse(declaration.object, Verdict::no("DeviceMoving", message))
                        .await;
                }
                Declared::New | Declared::Changed => {
                    news = true;
                    self.shared.counting.mark(FleetKey {
                        namespace: declaration.object.namespace.clone(),
                        name: declaration.fleet.clone(),
                    });
                }
                Declared::Duplicate { holder } => {
                    let refused = self.refused.entry(declaration.identity.clone()).or_default();
                    if !refused.contains(&declaration.object) {
                        refused.push(declaration.object.clone());
                    }
                    let message = format!(
                        "deviceId {} on the broker {} belongs to the DeviceCertificate {}/{}; delete one of the two",
                        declaration.identity.device, declaration.identity.broker, holder.namespace, holder.name
                    );
                    self.refuse(declaration.object, Verdict::no("DuplicateDeviceId", message))
                        .await;
                }
            }
        }
        if news {
            self.shared.registry.nudge();
        }
        Ok(())
    }

    async fn refuse(&self, object: ObjectRef, verdict: Verdict) {
        // The projection lives as long as this does.
        let _ = self.show.send(Show::Refused { object, verdict }).await;
    }

    /// The watch tells that an object was deleted.
    async fn gone(&mut self, object: &DeviceCertificate, waiting: &mut Waiting) -> Result<()> {
        let (own, ledger) = (name(object), &self.shared.ledger);
        let known = persist(&self.shared, || ledger.device_by_object(&own)).await?;
        if !is_another(known.as_ref().map(|device| &device.id), object) {
            return self.delete(&own, known, Deletion::Witnessed, waiting).await;
        }
        // Another broker's part does as much for its own.
        let (Some(broker), Ok(device)) = (self.shared.broker().cloned(), object.spec.device_id.parse()) else {
            return Ok(());
        };
        let identity = Identity { broker, device };
        self.revoke_left(&identity, &own, &fleet_of(&own, object)).await?;
        self.turn_of(&identity, waiting).await
    }

    /// The object is gone; `known` is the device that it declares, by the ledger.
    async fn delete(
        &mut self,
        object: &ObjectRef,
        known: Option<Device>,
        deletion: Deletion,
        waiting: &mut Waiting,
    ) -> Result<()> {
        let elsewhere = |known: &Device| Some(&known.id.broker) != self.shared.broker();
        // The controller's part has no devices, and another broker's has its own holder.
        if self.shared.leads() || known.as_ref().is_some_and(elsewhere) {
            self.views.remove(Key::of(object));
            let _ = self.show.send(Show::Gone(object.clone())).await;
            return Ok(());
        }
        // A duplicate declares no device.
        if let Some(device) = known {
            self.revoke_deleted(device, deletion).await?;
        }
        self.views.remove(Key::of(object));
        let _ = self.show.send(Show::Gone(object.clone())).await;
        self.let_go(object, waiting).await
    }

    /// Where the fleet's devices are known.
    fn broker(&self, fleet: &FleetKey) -> Option<BrokerId> {
        let home = ObjectRef {
            namespace: fleet.namespace.clone(),
            name: fleet.name.clone(),
        };
        self.shared.fleets.get(&home)?.broker.clone()
    }

    /// Takes the devices of a fleet over that is there now.
    async fn take_over(&mut self, fleet: &FleetKey, waiting: &mut Waiting) -> Result<()> {
        let mut pages = devices_of(&self.shared, fleet);
        while let Some(page) = pages.next().await? {
            self.apply(page.items.into_iter().map(Arc::new).collect(), waiting)
                .await?;
        }
        Ok(())
    }

    /// Tells the devices of a fleet that is missing what they wait for.
    async fn tell(&self, fleet: &FleetKey) -> Result<()> {
        if !self.shared.is_home(self.shared.home_of(fleet).as_ref()) {
            return Ok(());
        }
        let mut pages = devices_of(&self.shared, fleet);
        while let Some(page) = pages.next().await? {
            let unknown = page.items.iter().map(name).filter(|object| {
                let view = self.views.get(Key::of(object));
                view.is_some_and(|view| view.declared == 0)
            });
            for object in unknown {
                let message = format!(
                    "the Fleet {} does not exist, or its broker is not ready; the device is served when it is",
                    fleet.name
                );
                self.refuse(object, Verdict::no("FleetNotReady", message)).await;
            }
        }
        Ok(())
    }
}

/// What an object declares of a device of this broker.
pub(super) fn declaration(object: &DeviceCertificate, broker: BrokerId) -> Option<Declaration> {
    // The API server lets no other deviceId in.
    let device = object.spec.device_id.parse().ok()?;
    Some(Declaration {
        identity: Identity { broker, device },
        uid: object.uid().unwrap_or_default(),
        fleet: object.spec.fleet_ref.name.clone(),
        labels: object.spec.labels.clone(),
        reenrol: object.spec.reenrol.as_ref().map(|reenrol| reenrol.permit.clone()),
        object: name(object),
    })
}

/// Changes with everything that the object declares: its uid, and its generation.
fn declared_digest(object: &DeviceCertificate) -> u64 {
    let text = format!(
        "{} {}",
        object.metadata.uid.as_deref().unwrap_or_default(),
        object.metadata.generation.unwrap_or(0)
    );
    digest(text.as_bytes()).max(1)
}

/// Repeats an operation until it succeeds; only the end of leadership ends it otherwise.
async fn persist<T, E: Into<Error>, F>(shared: &Shared, mut operation: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = std::result::Result<T, E>>,
{
    let mut failures = 0_u32;
    loop {
        match operation().await.map_err(Into::into) {
            Ok(value) => return Ok(value),
            Err(error @ Error::Ledger(LedgerError::StaleEpoch { .. })) => return Err(error),
            Err(error) => {
                failures = failures.saturating_add(1);
                tracing::warn!(%error, failures, "declarations cannot be taken over; trying again");
                shared.failed("DeviceCertificate", &error);
                tokio::time::sleep(backoff(failures, rand::random()).max(Duration::from_millis(100))).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn a_deletion_that_is_told_late_is_not_that_of_the_object_made_again_for_another_device() {
        let gone = json!({ "metadata": { "name": "pump" }, "spec": { "deviceId": "pump-3", "fleetRef": { "name": "pumps" } } });
        let gone: DeviceCertificate = serde_json::from_value(gone).unwrap();
        let known = |device: &str| Identity {
            broker: "main".parse().unwrap(),
            device: device.parse().unwrap(),
        };
        assert!(!is_another(None, &gone), "a duplicate");
        assert!(!is_another(Some(&known("pump-3")), &gone));
        assert!(is_another(Some(&known("pump-4")), &gone));
    }
}

//! `DeviceCertificate`: what objects declare goes into the ledger, in batches, as the watch shows it.

mod waiting;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use certwave_core::model::{Identity, ObjectRef};
use certwave_crds::DeviceCertificate;
use certwave_ledger::{Declaration, Declared, FleetKey, LedgerError};
use certwave_protocol::ids::BrokerId;
use futures::StreamExt;
use kube::ResourceExt;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch};
use tokio::sync::mpsc;

use super::drive::{backoff, name};
use super::error::{Error, Result};
use super::projection::{Show, digest_of, lasting};
use super::shared::Shared;
use super::status::Verdict;
use super::time::now_ms;
use super::views::{Key, Views, digest};
use waiting::{News, Pages, Waiting};

/// Objects in one page of a list, and in one transaction.
const BATCH: usize = 500;

/// Watches for ever.
pub(super) async fn run(shared: Arc<Shared>, views: Arc<Views>, show: mpsc::Sender<Show>) -> Result<()> {
    let config = watcher::Config::default().page_size(500);
    let stream = watch(shared.api_all::<DeviceCertificate>(), config).default_backoff();
    let mut events = std::pin::pin!(stream.ready_chunks(BATCH));
    let mut intake = Intake {
        shared: Arc::clone(&shared),
        views,
        show,
        pass: 0,
        refused: HashMap::new(),
    };
    let mut waiting = Waiting::new(&shared);
    loop {
        tokio::select! {
            chunk = events.next() => match chunk {
                Some(chunk) => intake.take(chunk, &mut waiting).await?,
                None => return Err(Error::Ended("DeviceCertificate")),
            },
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

struct Intake {
    shared: Arc<Shared>,
    views: Arc<Views>,
    show: mpsc::Sender<Show>,
    /// Counts listings.
    pass: u16,
    /// Objects that were refused, by the identity that another one holds: they get their turn when it goes.
    refused: HashMap<Identity, Vec<ObjectRef>>,
}

impl Intake {
    /// Takes over what happened, in order.
    async fn take(
        &mut self,
        chunk: Vec<std::result::Result<Event<DeviceCertificate>, watcher::Error>>,
        waiting: &mut Waiting,
    ) -> Result<()> {
        let mut batch = Vec::new();
        for event in chunk {
            match event {
                Ok(Event::Apply(object) | Event::InitApply(object)) => batch.push(object),
                Ok(Event::Delete(object)) => {
                    self.apply(std::mem::take(&mut batch), waiting).await?;
                    self.delete(&name(&object), waiting).await?;
                }
                Ok(Event::Init) => {
                    self.apply(std::mem::take(&mut batch), waiting).await?;
                    self.pass = self.pass.wrapping_add(1);
                }
                Ok(Event::InitDone) => {
                    self.apply(std::mem::take(&mut batch), waiting).await?;
                    self.sweep(waiting).await?;
                }
                Err(error) => tracing::warn!(kind = "DeviceCertificate", %error, "watch failed, trying again"),
            }
        }
        self.apply(batch, waiting).await
    }

    /// Declares objects that are new or changed.
    async fn apply(&mut self, objects: Vec<DeviceCertificate>, waiting: &mut Waiting) -> Result<()> {
        let mut declarations: Vec<(Key, u64, Declaration)> = Vec::new();
        for object in objects {
            let own = name(&object);
            let (key, declared) = (Key::of(&own), declared_digest(&object));
            self.recall(key, &own, &object).await;
            let view = self.see(key, &object);
            if view.declared == declared || object.metadata.deletion_timestamp.is_some() {
                continue;
            }
            let fleet = FleetKey {
                namespace: own.namespace.clone(),
                name: object.spec.fleet_ref.name.clone(),
            };
            // The API server lets no other deviceId in.
            let Ok(device) = object.spec.device_id.parse() else {
                continue;
            };
            let Some(broker) = self.broker(&fleet) else {
                waiting.add(fleet);
                continue;
            };
            let identity = Identity { broker, device };
            // Twice in one batch: the later one counts.
            declarations.retain(|(other, ..)| *other != key);
            let declaration = Declaration {
                identity,
                uid: object.uid().unwrap_or_default(),
                fleet: fleet.name,
                labels: object.spec.labels,
                reenrol: object.spec.reenrol.map(|reenrol| reenrol.permit),
                object: own,
            };
            declarations.push((key, declared, declaration));
        }
        while !declarations.is_empty() {
            let batch: Vec<_> = declarations.drain(..declarations.len().min(BATCH)).collect();
            self.declare(batch).await?;
        }
        Ok(())
    }

    async fn declare(&mut self, batch: Vec<(Key, u64, Declaration)>) -> Result<()> {
        let declarations: Vec<Declaration> = batch.iter().map(|(.., declaration)| declaration.clone()).collect();
        let ledger = &self.shared.ledger;
        let answers = persist(&self.shared, || {
            ledger.declare(self.shared.epoch, now_ms(), declarations.clone())
        })
        .await?;
        let mut news = false;
        for ((key, declared, declaration), answer) in batch.into_iter().zip(answers) {
            self.views.touch(key, |view| view.declared = declared);
            match answer {
                Declared::Unchanged => {}
                Declared::New | Declared::Changed => {
                    news = true;
                    self.shared.mark(FleetKey {
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

    async fn delete(&mut self, object: &ObjectRef, waiting: &mut Waiting) -> Result<()> {
        self.views.remove(Key::of(object));
        self.refused.retain(|_, refused| {
            refused.retain(|other| other != object);
            !refused.is_empty()
        });
        let _ = self.show.send(Show::Gone(object.clone())).await;
        let fleet = self
            .shared
            .ledger
            .device_by_object(object)
            .await
            .ok()
            .flatten()
            .map(|d| FleetKey::of(&d));
        let ledger = &self.shared.ledger;
        let freed = persist(&self.shared, || ledger.withdraw(self.shared.epoch, now_ms(), object)).await?;
        if let Some(fleet) = fleet {
            self.shared.mark(fleet);
        }
        // Whoever waited for this identity gets its turn.
        for next in freed
            .and_then(|identity| self.refused.remove(&identity))
            .unwrap_or_default()
        {
            self.views.touch(Key::of(&next), |view| view.declared = 0);
            let api = self.shared.api::<DeviceCertificate>(&next.namespace);
            let found = persist(&self.shared, || api.get_opt(&next.name)).await?;
            if let Some(found) = found {
                Box::pin(self.apply(vec![found], waiting)).await?;
            }
        }
        Ok(())
    }

    /// Withdraws what was deleted while nobody watched: what the ledger has and the listing had not.
    async fn sweep(&mut self, waiting: &mut Waiting) -> Result<()> {
        let mut after: Option<ObjectRef> = None;
        loop {
            let ledger = &self.shared.ledger;
            let page = persist(&self.shared, || ledger.declared_objects(after.as_ref(), 1000)).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.object.clone());
            for declared in page {
                let seen = self
                    .views
                    .get(Key::of(&declared.object))
                    .is_some_and(|view| view.pass == self.pass);
                if !seen && self.in_scope(&declared.object) {
                    self.delete(&declared.object, waiting).await?;
                }
            }
        }
        self.views.keep(self.pass);
        tracing::info!("every DeviceCertificate is known");
        Ok(())
    }

    fn in_scope(&self, object: &ObjectRef) -> bool {
        self.shared
            .scope
            .as_ref()
            .is_none_or(|namespace| *namespace == object.namespace)
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
        let mut pages = Pages::of(&self.shared, fleet);
        while let Some(page) = pages.next().await? {
            self.apply(page, waiting).await?;
        }
        Ok(())
    }

    /// Tells the devices of a fleet that is missing what they wait for.
    async fn tell(&self, fleet: &FleetKey) -> Result<()> {
        let mut pages = Pages::of(&self.shared, fleet);
        while let Some(page) = pages.next().await? {
            let unknown = page.iter().map(name).filter(|object| {
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

    /// Tells the projection what an object shows that nobody but it remembers, when it is first seen.
    async fn recall(&self, key: Key, own: &ObjectRef, object: &DeviceCertificate) {
        let conditions = object.status.as_ref().map(|status| lasting(&status.conditions));
        let conditions = conditions.filter(|found| !found.is_empty() && self.views.get(key).is_none());
        if let Some(conditions) = conditions {
            let object = own.clone();
            let _ = self.show.send(Show::Recalled { object, conditions }).await;
        }
    }

    /// Notes what the object shows at present.
    fn see(&self, key: Key, object: &DeviceCertificate) -> super::views::View {
        let status = object.status.as_ref();
        let ready = status.and_then(|status| status.conditions.iter().find(|c| c.type_ == "Ready"));
        self.views.update(key, |view| {
            view.pass = self.pass;
            view.generation = u32::try_from(object.metadata.generation.unwrap_or(0)).unwrap_or(u32::MAX);
            view.shown = status.map_or(0, digest_of);
            if let Some(ready) = ready {
                view.since = u32::try_from(ready.last_transition_time.0.as_second()).unwrap_or(0);
                view.ready = match ready.status.as_str() {
                    "True" => Some(true),
                    "False" => Some(false),
                    _ => None,
                };
            }
        })
    }
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

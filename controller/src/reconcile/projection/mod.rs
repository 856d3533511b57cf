//! What the ledger knows of each device, written to its status: the one writer of `DeviceCertificate` statuses.
//!
//! Changes are gathered for a moment, so a rotation costs one or two writes. What cannot be written is tried again: the ledger
//! remembers what its objects do not show yet.

mod aspects;
mod build;
mod revoked;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use certwave_core::model::{Device, Identity, ObjectRef};
use certwave_crds::{DeviceCertificate, DeviceCertificateStatus};
use certwave_ledger::FleetKey;
use futures::StreamExt;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use tokio::sync::mpsc;

use super::drive::backoff;
use super::error::Result;
use super::shared::Shared;
use super::time::{now_ms, now_s};
use super::views::{Key, View, Views};
use aspects::{Aspect, Aspects};
pub(super) use aspects::{CLOCK_SKEW, ENROLMENT_REFUSED, REVOCATION_FAULT, Show, lasting};
pub(super) use build::digest_of;
use revoked::Heard;

/// How often the ledger is asked when there is nothing to do.
const PERIOD: Duration = Duration::from_millis(200);
/// Devices taken from the ledger at once.
const BATCH: u32 = 256;
/// Writes at the same time, at most.
const CONCURRENCY: usize = 16;
/// Writes at the same time while few statuses are due: those can wait, and devices, which are answered meanwhile, should not have to
/// for the sake of the API server's work.
const CALM: usize = 2;
/// For one write.
const TIMEOUT: Duration = Duration::from_secs(10);
/// A write that met another one is tried again after this long at most.
const CONFLICT: Duration = Duration::from_secs(5);
/// Devices with conditions besides Ready that are remembered at most; what is beyond is only an event.
const MOST_ASPECTS: usize = 10_000;

/// Runs for ever; ends when this process no longer leads.
pub(super) async fn run(
    shared: Arc<Shared>,
    views: Arc<Views>,
    mut shown: mpsc::Receiver<Show>,
    delay: Duration,
) -> Result<()> {
    let delay = i64::try_from(delay.as_millis()).unwrap_or(i64::MAX);
    let mut projection = Projection {
        shared,
        views,
        aspects: HashMap::new(),
        later: Vec::new(),
        deferred: HashMap::new(),
        waiting: 0,
    };
    let mut outages = 0_u32;
    loop {
        while let Ok(show) = shown.try_recv() {
            projection.hear(show);
        }
        let wait = match projection.round(delay).await {
            Ok(Round { outage: true, written }) => {
                // One that takes some of them is there, and asks for a moment only.
                outages = if written > 0 { 1 } else { outages.saturating_add(1) };
                backoff(outages, rand::random())
            }
            Ok(Round { written, .. }) => {
                outages = 0;
                if written >= BATCH as usize {
                    Duration::ZERO
                } else {
                    PERIOD
                }
            }
            Err(error) => {
                projection.shared.failed("projection", &error);
                tracing::warn!(%error, "cannot project statuses");
                outages = outages.saturating_add(1);
                backoff(outages, rand::random())
            }
        };
        tokio::time::sleep(wait).await;
    }
}

struct Projection {
    shared: Arc<Shared>,
    views: Arc<Views>,
    aspects: HashMap<ObjectRef, Aspects>,
    /// Statuses that are due though the ledger does not say so.
    later: Vec<ObjectRef>,
    /// Writes that were refused: not before this time, after so many failures.
    deferred: HashMap<ObjectRef, (Instant, u32)>,
    /// Statuses that waited in the last round.
    waiting: i64,
}

impl Drop for Projection {
    fn drop(&mut self) {
        self.shared.metrics.statuses_waiting.sub(self.waiting);
    }
}

/// A status to write.
struct Due {
    object: ObjectRef,
    key: Key,
    status: DeviceCertificateStatus,
    digest: u64,
    /// What the ledger wants to be told.
    device: Option<(Identity, u64)>,
}

/// What came of a write.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
enum Outcome {
    /// The object shows it, or is gone.
    Done,
    /// The API server cannot take it now, nor anything else.
    Outage,
    /// Something else was written at the same moment.
    Conflict,
    /// It does not take this one.
    Refused,
}

struct Round {
    written: usize,
    outage: bool,
}

impl Projection {
    fn hear(&mut self, show: Show) {
        match show {
            Show::Gone(object) => {
                self.shared.skewed.remove(&object);
                self.aspects.remove(&object);
                self.deferred.remove(&object);
            }
            Show::Looked(object) => self.later.push(object),
            Show::Refused { object, verdict } => {
                self.aspects.entry(object.clone()).or_default().refused = Some(verdict);
                self.later.push(object);
            }
            Show::Aspect { object, kind, verdict } => {
                let since = now_s();
                self.set(object, kind, Aspect { verdict, since });
            }
            Show::Settled { object, kind } => {
                if self.aspects.get_mut(&object).is_some_and(|aspects| aspects.end(kind)) {
                    self.later.push(object);
                }
            }
            Show::Recalled { object, conditions } => {
                for (kind, aspect) in conditions {
                    if kind == CLOCK_SKEW {
                        self.shared.skewed.add(&object);
                    }
                    self.set(object.clone(), kind, aspect);
                }
            }
        }
    }

    fn set(&mut self, object: ObjectRef, kind: &'static str, aspect: Aspect) {
        if self.aspects.len() >= MOST_ASPECTS && !self.aspects.contains_key(&object) {
            return;
        }
        if self.aspects.entry(object.clone()).or_default().set(kind, aspect) {
            self.later.push(object);
        }
    }

    async fn round(&mut self, delay: i64) -> Result<Round> {
        if self.shared.is_restored() {
            // The backup knows less than the objects show; that is what it is completed from.
            return Ok(Round {
                written: 0,
                outage: false,
            });
        }
        let now = now_ms();
        self.deferred
            .retain(|_, (until, _)| *until + Duration::from_mins(10) > Instant::now());
        let limit = BATCH.saturating_add(u32::try_from(self.deferred.len()).unwrap_or(BATCH));
        let devices = match self.shared.broker() {
            Some(broker) => {
                let before = now.saturating_sub(delay);
                self.shared.ledger.unprojected(broker, limit, before).await?
            }
            None => Vec::new(),
        };
        let (mut due, mut done) = (Vec::new(), Vec::new());
        for device in &devices {
            self.shared.counting.mark(FleetKey::of(device));
            let heard = self.heard(device).await?;
            self.judge(device, heard.as_ref(), now, &mut due, &mut done);
        }
        let later: HashSet<ObjectRef> = std::mem::take(&mut self.later).into_iter().collect();
        for object in &later {
            if devices.iter().any(|device| device.object == *object) {
                continue;
            }
            if self.waits(object) {
                self.later.push(object.clone());
                continue;
            }
            match self.find(object).await {
                Ok(Some((device, heard))) => self.judge(&device, heard.as_ref(), now, &mut due, &mut done),
                Ok(None) => self.refusal(object.clone(), &mut due),
                Err(error) => {
                    self.later.extend(later.iter().cloned());
                    return Err(error);
                }
            }
        }
        let shared = &self.shared;
        let abreast = (due.len() / CONCURRENCY).clamp(CALM, CONCURRENCY);
        let waiting = i64::try_from(due.len()).unwrap_or(i64::MAX);
        // The gauge is of all parts that this process holds.
        shared.metrics.statuses_waiting.add(waiting - self.waiting);
        self.waiting = waiting;
        let writes = due.into_iter().map(|due| async move {
            let outcome = write(shared, &due).await;
            (due, outcome)
        });
        let results: Vec<(Due, Outcome)> = futures::stream::iter(writes).buffer_unordered(abreast).collect().await;
        let mut round = Round {
            written: 0,
            outage: false,
        };
        for (due, outcome) in results {
            // The ledger does not ask for these again.
            if outcome != Outcome::Done && later.contains(&due.object) {
                self.later.push(due.object.clone());
            }
            match outcome {
                Outcome::Done => {
                    round.written += 1;
                    self.note(&due);
                    done.extend(due.device);
                }
                Outcome::Outage => round.outage = true,
                Outcome::Conflict | Outcome::Refused => {
                    let (_, failures) = self.deferred.remove(&due.object).unwrap_or((Instant::now(), 0));
                    let wait = match outcome {
                        Outcome::Conflict => backoff(failures.saturating_add(1), rand::random()).min(CONFLICT),
                        _ => backoff(failures.saturating_add(3), rand::random()),
                    };
                    self.deferred
                        .insert(due.object, (Instant::now() + wait, failures.saturating_add(1)));
                }
            }
        }
        if !done.is_empty() {
            self.shared.ledger.projected(self.shared.epoch, done).await?;
        }
        Ok(round)
    }

    /// Whether this object's status was refused, and its time has not come again.
    fn waits(&self, object: &ObjectRef) -> bool {
        let deferred = self.deferred.get(object);
        deferred.is_some_and(|(until, _)| *until > Instant::now())
    }

    /// The device that an object declares.
    async fn find(&self, object: &ObjectRef) -> Result<Option<(Device, Option<Heard>)>> {
        let Some(device) = self.shared.ledger.device_by_object(object).await? else {
            return Ok(None);
        };
        let heard = self.heard(&device).await?;
        Ok(Some((device, heard)))
    }

    /// What the ledger has of a device's revocation.
    async fn heard(&self, device: &Device) -> Result<Option<Heard>> {
        let declared = self.views.get(Key::of(&device.object)).is_some_and(|view| view.revoked);
        let (ledger, broker) = (&self.shared.ledger, &device.id.broker);
        let marks = ledger.marked(&device.id, revoked::READ).await?;
        let Some(mut heard) = Heard::of(marks, device.bar, declared) else {
            return Ok(None);
        };
        for mark in &heard.last {
            let loaded = ledger.loaded_since(broker, &mark.key.issuer, &mark.partition, mark.change);
            heard.loads.push(loaded.await?);
        }
        let revocations = self.shared.revocations.all();
        let named = |uid: &str| revocations.iter().find(|(_, known)| ***known == *uid);
        heard.names = heard
            .revocations()
            .filter_map(|uid| Some((uid.to_owned(), named(uid)?.0.clone())))
            .collect();
        Ok(Some(heard))
    }

    /// Decides whether a device's status is written, or shows what it should already.
    fn judge(
        &mut self,
        device: &Device,
        heard: Option<&Heard>,
        now: i64,
        due: &mut Vec<Due>,
        done: &mut Vec<(Identity, u64)>,
    ) {
        if self.waits(&device.object) {
            return;
        }
        let key = Key::of(&device.object);
        // Not listed yet since the start, or deleted just now: the listing or the withdrawal follows.
        let Some(view) = self.views.get(key) else {
            return;
        };
        if let Some(aspects) = self.aspects.get_mut(&device.object) {
            aspects.refused = None;
            aspects.settle(device);
            if aspects.is_empty() {
                self.aspects.remove(&device.object);
            }
        }
        let status = build::status(device, &view, self.aspects.get(&device.object), heard, now);
        let digest = digest_of(&status);
        let revision = (device.id.clone(), device.revision);
        if digest == view.shown {
            done.push(revision);
        } else {
            due.push(Due {
                object: device.object.clone(),
                key,
                status,
                digest,
                device: Some(revision),
            });
        }
    }

    fn refusal(&self, object: ObjectRef, due: &mut Vec<Due>) {
        let key = Key::of(&object);
        let verdict = self.aspects.get(&object).and_then(|aspects| aspects.refused.as_ref());
        if let (Some(view), Some(verdict)) = (self.views.get(key), verdict) {
            let status = build::refused(verdict, &view, now_s());
            let digest = digest_of(&status);
            if digest != view.shown {
                due.push(Due {
                    object,
                    key,
                    status,
                    digest,
                    device: None,
                });
            }
        }
    }

    fn note(&mut self, due: &Due) {
        self.deferred.remove(&due.object);
        let ready = due
            .status
            .conditions
            .iter()
            .find(|condition| condition.type_ == "Ready");
        self.views.touch(due.key, |view: &mut View| {
            view.shown = due.digest;
            if let Some(ready) = ready {
                view.since = u32::try_from(ready.last_transition_time.0.as_second()).unwrap_or(0);
                view.ready = build::truth(&ready.status);
            }
        });
    }
}

async fn write(shared: &Shared, due: &Due) -> Outcome {
    let api = shared.api::<DeviceCertificate>(&due.object.namespace);
    // One operation that replaces the whole status: no reading, no merging, nothing left over.
    let patch = match serde_json::from_value(json!([{"op": "add", "path": "/status", "value": due.status}])) {
        Ok(patch) => Patch::Json::<()>(patch),
        Err(error) => {
            tracing::error!(%error, "a status cannot be written as JSON");
            return Outcome::Refused;
        }
    };
    let params = PatchParams {
        field_manager: Some("certwave-device".to_owned()),
        ..PatchParams::default()
    };
    let answer = tokio::time::timeout(TIMEOUT, api.patch_status(&due.object.name, &params, &patch)).await;
    judge_answer(answer.map(|result| result.map(drop)).map_err(drop))
}

/// What an answer means for this write and for those after it.
fn judge_answer(answer: std::result::Result<kube::Result<()>, ()>) -> Outcome {
    match answer {
        Ok(Ok(())) => Outcome::Done,
        Ok(Err(kube::Error::Api(status))) => match status.code {
            404 => Outcome::Done,
            409 => Outcome::Conflict,
            429 | 500.. => Outcome::Outage,
            _ => {
                tracing::warn!(
                    code = status.code,
                    message = status.message,
                    "the API server refuses a device's status"
                );
                Outcome::Refused
            }
        },
        Ok(Err(error)) => {
            tracing::warn!(%error, "the API server does not take statuses");
            Outcome::Outage
        }
        Err(()) => Outcome::Outage,
    }
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    #[test]
    fn what_the_api_server_answers_decides_on_what_follows() {
        let api = |code: u16| {
            let status = Status {
                code,
                ..Status::default()
            };
            judge_answer(Ok(Err(kube::Error::Api(Box::new(status)))))
        };
        assert_eq!(judge_answer(Ok(Ok(()))), Outcome::Done);
        assert_eq!(api(404), Outcome::Done, "an object that is gone needs no status");
        assert_eq!(api(409), Outcome::Conflict);
        assert_eq!(api(422), Outcome::Refused);
        for code in [429, 500, 503, 504] {
            assert_eq!(api(code), Outcome::Outage, "{code}");
        }
        assert_eq!(judge_answer(Err(())), Outcome::Outage);
    }
}

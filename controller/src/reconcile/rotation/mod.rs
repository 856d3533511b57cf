//! `Rotation`: its members chosen once, its entry for the engine, its counts and its end.

mod decide;
mod view;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use certwave_core::model::ObjectRef;
use certwave_crds::{ControlState, Rotation, RotationPhase};
use certwave_ledger::{FleetKey, RotationCounts, RotationOutcome, RotationRecord};
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::controller::Action;
use kube::runtime::reflector::Store;
use kube::{Resource, ResourceExt};
use serde_json::json;

use super::authority::ready;
use super::drive::{Reconciler, name};
use super::error::Result;
use super::fleet::job_policy;
use super::shared::{Run, Shared};
use super::status::{Verdict, publish};
use super::time::{now_ms, now_s};
use crate::registry::{FleetEntry, IssuerEntry, RotationControl, RotationEntry};
use decide::{Phase, decide};

const MANAGER: &str = "certwave-rotation";
/// How often the counts of a running Rotation are looked at, and written if they changed.
const COUNTING: Duration = Duration::from_secs(2);
/// How soon one that waits is looked at again.
const WAITING: Duration = Duration::from_secs(5);
/// Failures shown.
const EXAMPLES: u32 = 20;

/// The reconciler of `Rotation`.
pub(super) struct Rotations {
    pub(super) shared: Arc<Shared>,
    /// All of them: one runs over a fleet at a time.
    pub(super) store: Store<Rotation>,
    pub(super) quiet: Quiet,
    pub(super) seen: Seen,
}

/// Those that have been looked at since the start, with their uids.
#[derive(Default)]
pub(super) struct Seen(Mutex<HashMap<ObjectRef, String>>);

impl Seen {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<ObjectRef, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn uid(&self, object: &ObjectRef) -> Option<String> {
        self.lock().get(object).cloned()
    }
}

/// Since when nothing but offline devices is left of a Rotation, by uid.
#[derive(Default)]
pub(super) struct Quiet(Mutex<HashMap<String, (RotationCounts, Instant)>>);

impl Quiet {
    /// For how long the counts have been these.
    fn since(&self, uid: &str, counts: RotationCounts, now: Instant) -> Duration {
        let mut quiet = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = quiet.entry(uid.to_owned()).or_insert((counts, now));
        if entry.0 != counts {
            *entry = (counts, now);
        }
        now.saturating_duration_since(entry.1)
    }

    fn forget(&self, uid: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }
}

/// What a Rotation runs with.
struct Plan {
    fleet: Arc<FleetEntry>,
    issuer: Option<(IssuerEntry, Vec<u8>)>,
}

impl Reconciler for Rotations {
    type Object = Rotation;
    const KIND: &'static str = "Rotation";

    async fn reconcile(&self, object: Arc<Rotation>) -> Result<Action> {
        let (own, uid) = (name(&*object), object.uid().unwrap_or_default());
        if self.seen.uid(&own).is_some_and(|known| known != uid) {
            // Deleted, and another one of this name created, faster than the watch shows.
            self.forget(&own).await?;
        }
        let action = self.look_at(&object).await?;
        self.seen.lock().insert(own, uid);
        Ok(action)
    }

    async fn forget(&self, object: &ObjectRef) -> Result<()> {
        if let Some(uid) = self.seen.uid(object) {
            self.stop(&uid, object);
            if self.shared.ledger.rotation(&uid).await?.is_some() {
                self.end(&uid, RotationOutcome::Cancelled).await?;
            }
            self.seen.lock().remove(object);
        }
        self.shared.rotations.set(object, None);
        Ok(())
    }

    fn knows(&self, object: &ObjectRef) -> bool {
        self.seen.uid(object).is_some()
    }
}

impl Rotations {
    async fn look_at(&self, object: &Rotation) -> Result<Action> {
        let Some(uid) = object.uid() else {
            return Ok(Action::await_change());
        };
        if view::is_over(object) {
            self.stop(&uid, &name(object));
            return Ok(Action::await_change());
        }
        let stored = self.shared.ledger.rotation(&uid).await?;
        let verdict = match (&stored, self.plan(object)) {
            // It began: what is missing now pauses it, and counts go on.
            (Some(_), plan) => plan,
            (None, Ok(plan)) if object.spec.control.state == ControlState::Running => {
                self.begin(object, &uid, &plan).await?;
                Ok(plan)
            }
            (None, Ok(_)) if object.spec.control.state == ControlState::Aborted => {
                return self.show(object, Phase::Aborted, RotationCounts::default(), &[]).await;
            }
            (None, Ok(_)) => Err(Verdict::no("Paused", "spec.control.state is Paused; nothing has begun")),
            (None, Err(verdict)) => Err(verdict),
        };
        match verdict {
            Ok(plan) => self.advance(object, &uid, plan).await,
            Err(verdict) => {
                self.shared.registry.set_waiting(&uid, stored.is_some());
                self.shared.registry.set_rotation(uid.clone(), None);
                let counts = if stored.is_some() {
                    self.shared.ledger.rotation_counts(&uid).await?
                } else {
                    RotationCounts::default()
                };
                self.show(object, Phase::Waiting(verdict), counts, &[]).await
            }
        }
    }

    /// What the Rotation needs, or what is missing.
    fn plan(&self, object: &Rotation) -> std::result::Result<Plan, Verdict> {
        let own = name(object);
        if let Some(other) = self.before(object) {
            let message = format!("the Rotation {other} runs over this fleet; this one begins when it has ended");
            return Err(Verdict::no("AnotherRotation", message));
        }
        let fleet_name = &object.spec.fleet_ref.name;
        let key = FleetKey {
            namespace: own.namespace.clone(),
            name: fleet_name.clone(),
        };
        let fleet = self.shared.registry.fleet(&key).ok_or_else(|| {
            let there = self.shared.fleets.get(&ObjectRef {
                namespace: key.namespace.clone(),
                name: key.name.clone(),
            });
            match there {
                None => Verdict::no(
                    "FleetNotFound",
                    format!("there is no Fleet {fleet_name} in {}", own.namespace),
                ),
                Some(_) => Verdict::no(
                    "FleetNotReady",
                    format!("the Fleet {fleet_name} is not ready; see its conditions"),
                ),
            }
        })?;
        let issuer = match &object.spec.issuer_ref {
            None => None,
            Some(reference) => {
                let target = ObjectRef {
                    namespace: own.namespace.clone(),
                    name: reference.name.clone(),
                };
                let state = self.shared.authorities.get(&target);
                let authority = ready(state.as_deref(), &target, "spec.issuerRef")?;
                Some((authority.entry.clone(), authority.anchor().to_vec()))
            }
        };
        Ok(Plan { fleet, issuer })
    }

    /// An older Rotation over the same fleet that has not ended.
    fn before(&self, object: &Rotation) -> Option<String> {
        let age = |rotation: &Rotation| (rotation.meta().creation_timestamp.clone(), rotation.name_any());
        let own = age(object);
        let older = self.store.state().into_iter().filter(|other| {
            other.namespace() == object.namespace()
                && other.spec.fleet_ref == object.spec.fleet_ref
                && !view::is_over(other)
                && age(other) < own
        });
        older.map(|other| other.name_any()).min()
    }

    /// Chooses the members, once.
    async fn begin(&self, object: &Rotation, uid: &str, plan: &Plan) -> Result<()> {
        let record = RotationRecord {
            uid: uid.to_owned(),
            object: name(object),
            fleet: plan.fleet.key.clone(),
            reason: format!("{:?}", object.spec.reason),
            issuer: plan.issuer.as_ref().map(|(entry, _)| entry.ca.key_id().to_string()),
            started: now_ms(),
            // Of a Rotation of one wave the ledger makes these itself.
            strategy: certwave_core::rollout::strategy::Strategy::default(),
            plan: certwave_core::rollout::run::Plan {
                waves: Vec::new(),
                hash: String::new(),
            },
        };
        let selector = object.spec.selector.clone().unwrap_or_default().match_labels;
        let members = self
            .shared
            .ledger
            .start_rotation(self.shared.epoch, record, selector)
            .await?;
        tracing::info!(rotation = object.name_any(), members, "rotation begins");
        self.adopt(object, &plan.fleet).await
    }

    /// The Fleet owns its Rotations.
    async fn adopt(&self, object: &Rotation, fleet: &FleetEntry) -> Result<()> {
        let owned = object.owner_references().iter().any(|owner| owner.uid == fleet.uid);
        if owned {
            return Ok(());
        }
        let api: Api<Rotation> = self.shared.api(&fleet.key.namespace);
        let patch = json!({
            "apiVersion": Rotation::api_version(&()),
            "kind": Rotation::kind(&()),
            "metadata": {"name": object.name_any(), "ownerReferences": [{
                "apiVersion": certwave_crds::Fleet::api_version(&()),
                "kind": certwave_crds::Fleet::kind(&()),
                "name": fleet.key.name,
                "uid": fleet.uid,
                "controller": true,
            }]},
        });
        let params = PatchParams::apply("certwave-rotation-owner").force();
        match api
            .patch_metadata(&object.name_any(), &params, &Patch::Apply(patch))
            .await
        {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Hands it to the engine, counts, and ends it when there is nothing left to do.
    async fn advance(&self, object: &Rotation, uid: &str, plan: Plan) -> Result<Action> {
        let own = name(object);
        let control = object.spec.control.state;
        let fleet = plan.fleet.clone();
        if control != ControlState::Aborted {
            let (issuer, anchor) = plan.issuer.unzip();
            let trusted = anchor
                .as_ref()
                .is_none_or(|anchor| fleet.anchors.iter().any(|der| der.0 == *anchor));
            self.shared.rotations.set(
                &own,
                Some(Run {
                    fleet: fleet.key.clone(),
                    anchor,
                }),
            );
            // No leaf of the new CA before its anchor is in the fleet's bundle, which the fleet's reconciler sees to next.
            let control = if trusted { control } else { ControlState::Paused };
            self.hand_over(object, uid, &fleet, issuer, control);
        }
        let mut counts = self.shared.ledger.rotation_counts(uid).await?;
        // Those whose certificates end while they wait for their turn never get it.
        let ledger = &self.shared.ledger;
        if counts.planned > 0
            && counts.in_flight == 0
            && ledger.skip_expired(self.shared.epoch, uid, now_ms()).await? > 0
        {
            counts = ledger.rotation_counts(uid).await?;
        }
        let quiet = self.quiet.since(uid, counts, Instant::now());
        let phase = decide(control, &counts, quiet);
        if let Some(outcome) = phase.outcome() {
            self.stop(uid, &own);
            self.end(uid, outcome).await?;
        }
        let examples = if counts.failures() > 0 {
            self.shared.ledger.rotation_examples(uid, EXAMPLES).await?
        } else {
            Vec::new()
        };
        self.show(object, phase, counts, &examples).await
    }

    fn hand_over(
        &self,
        object: &Rotation,
        uid: &str,
        fleet: &FleetEntry,
        issuer: Option<IssuerEntry>,
        control: ControlState,
    ) {
        let spec = &object.spec;
        let limit = spec
            .limits
            .as_ref()
            .map(|limits| limits.max_in_flight.max(1).unsigned_abs());
        let entry = RotationEntry {
            uid: uid.to_owned(),
            object: name(object),
            fleet: fleet.key.clone(),
            issuer,
            max_in_flight: limit.unwrap_or(fleet.policy.max_in_flight),
            job: spec
                .device
                .as_ref()
                .map_or_else(|| fleet.policy.job.clone(), job_policy),
            control: match control {
                ControlState::Running => RotationControl::Running,
                ControlState::Paused | ControlState::Aborted => RotationControl::Paused,
            },
        };
        let same = self.shared.registry.rotation(uid).is_some_and(|old| {
            let key = |e: &RotationEntry| e.issuer.as_ref().map(|issuer| issuer.ca.certificate_der().clone());
            old.max_in_flight == entry.max_in_flight
                && old.job == entry.job
                && old.control == entry.control
                && key(&old) == key(&entry)
        });
        if !same {
            self.shared.registry.set_rotation(uid.to_owned(), Some(entry));
        }
        self.shared.registry.set_waiting(uid, false);
    }

    fn stop(&self, uid: &str, object: &ObjectRef) {
        self.shared.registry.set_rotation(uid.to_owned(), None);
        self.shared.registry.set_waiting(uid, false);
        self.shared.rotations.set(object, None);
        self.quiet.forget(uid);
    }

    async fn end(&self, uid: &str, outcome: RotationOutcome) -> Result<()> {
        Ok(self
            .shared
            .ledger
            .end_rotation(self.shared.epoch, uid, outcome, now_ms())
            .await?)
    }

    async fn show(
        &self,
        object: &Rotation,
        phase: Phase,
        counts: RotationCounts,
        examples: &[certwave_ledger::RotationExample],
    ) -> Result<Action> {
        let status = view::status(object, &phase, &counts, examples, now_s());
        let over = matches!(
            status.phase,
            Some(RotationPhase::Complete | RotationPhase::Failed | RotationPhase::Aborted)
        );
        let api = self.shared.api(&object.namespace().unwrap_or_default());
        if publish(&api, object, MANAGER, object.status.as_ref(), &status).await? {
            self.shared.wrote("Rotation", "ok");
        }
        Ok(match phase {
            _ if over => Action::await_change(),
            Phase::Waiting(_) => Action::requeue(WAITING),
            _ => Action::requeue(COUNTING),
        })
    }
}

/// Sums over [`RotationCounts`].
trait Sums {
    /// Devices that went wrong.
    fn failures(&self) -> u32;
}

impl Sums for RotationCounts {
    fn failures(&self) -> u32 {
        self.rejected + self.failed + self.timed_out + self.rolled_back + self.lost
    }
}

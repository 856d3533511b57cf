//! `Rotation`: planned once, judged every other second, handed to the engine, shown.
//!
//! What follows is decided in [`certwave_core::rollout`]; here it is stored and made visible. `draft` chooses members, `progress`
//! judges, `gates` asks outside, `outlook` says whether all will be in time, `people` reads what people want, `tell` makes events,
//! audit and metrics of what happened, `view` the status.

mod automatic;
mod counts;
mod draft;
mod gates;
mod outlook;
mod people;
mod precedence;
mod preview;
mod progress;
mod tell;
mod view;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use certwave_core::model::ObjectRef;
use certwave_core::rollout::plan::{Fit, PlanError};
use certwave_core::rollout::run::{Plan, Run};
use certwave_core::rollout::strategy::Strategy;
use certwave_core::rollout::window::Calendar;
use certwave_crds::{ControlState, Fleet, Rotation, RotationMode, RotationReason};
use certwave_ledger::{FleetKey, RotationOutcome, RotationRecord};
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::controller::Action;
use kube::runtime::reflector::{self, Store};
use kube::{Resource, ResourceExt};
use serde_json::json;

use super::authority::{ready, revoked};
use super::drive::{Reconciler, name};
use super::error::Result;
use super::shared::Shared;
use super::status::{Verdict, publish};
use super::strategy::strategy;
use super::time::{now_ms, now_s};
use crate::registry::{FleetEntry, IssuerEntry};
use draft::Scope;
use view::Observed;

pub(super) use automatic::{run as automatic, template};

const MANAGER: &str = "certwave-rotation";
/// How often a running Rotation is judged; its status is written if it changed.
const JUDGING: Duration = Duration::from_secs(2);
/// How soon one that waits is looked at again.
const WAITING: Duration = Duration::from_secs(5);
/// Devices named in a status.
const EXAMPLES: u32 = 20;

/// The reconciler of `Rotation`.
pub(super) struct Rotations {
    shared: Arc<Shared>,
    /// All of them: one runs over a fleet at a time.
    store: Store<Rotation>,
    fleets: Store<Fleet>,
    gates: gates::Gates,
    teller: tell::Teller,
    outlooks: outlook::Outlooks,
    /// When each Rotation's members were last compared with its fleet's devices.
    joined: Mutex<HashMap<String, i64>>,
    seen: Seen,
}

/// Those that have been looked at since the start, with their uids.
#[derive(Default)]
struct Seen(Mutex<HashMap<ObjectRef, String>>);

impl Seen {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<ObjectRef, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn uid(&self, object: &ObjectRef) -> Option<String> {
        self.lock().get(object).cloned()
    }
}

/// What a Rotation runs with.
struct Needs {
    fleet: Arc<FleetEntry>,
    /// The CA that the fleet moves to, and its anchor, DER.
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
            self.shared.metrics.rotations.forget(&uid);
            if self.shared.ledger.rotation(&uid).await?.is_some() {
                let (ledger, epoch) = (&self.shared.ledger, self.shared.epoch);
                ledger
                    .end_rotation(epoch, &uid, RotationOutcome::Cancelled, now_ms())
                    .await?;
            }
            self.seen.lock().remove(object);
        }
        self.shared.rotations.set(object, None);
        self.shared.registry.set_crl_use(&crl_use(object), None);
        Ok(())
    }

    fn knows(&self, object: &ObjectRef) -> bool {
        self.seen.uid(object).is_some()
    }

    fn is_mine(&self, object: &Rotation) -> bool {
        let shared = &*self.shared;
        let home = shared.home_of(&fleet_key(object));
        if shared.leads()
            && let Some(issuer) = &object.spec.issuer_ref
        {
            let brokers = shared.known_brokers.all();
            let broker = brokers.iter().find(|(_, known)| Some(&known.id) == home.as_ref());
            let reads = broker.is_none_or(|(_, known)| known.reads_crls) && !view::is_over(object);
            let own = name(object);
            shared.note_crl_use(&crl_use(&own), &own.namespace, &issuer.name, reads);
        }
        shared.is_home(home.as_ref())
    }

    fn leave(&self, object: &ObjectRef) {
        let Some(uid) = self.seen.lock().remove(object) else {
            return;
        };
        self.stop(&uid, object);
        self.shared.metrics.rotations.forget(&uid);
        self.shared.rotations.set(object, None);
    }
}

/// Where it is noted who goes by the CRLs of the CA that a Rotation moves to.
fn crl_use(object: &ObjectRef) -> String {
    format!("Rotation {}/{}", object.namespace, object.name)
}

impl Rotations {
    pub(super) fn new(
        shared: Arc<Shared>,
        store: Store<Rotation>,
        fleets: Store<Fleet>,
        client: crate::gates::Client,
    ) -> Self {
        Self {
            gates: gates::Gates::new(client, Arc::clone(&shared.metrics)),
            teller: tell::Teller::new(&shared),
            outlooks: outlook::Outlooks::default(),
            joined: Mutex::default(),
            seen: Seen::default(),
            shared,
            store,
            fleets,
        }
    }

    /// Ends those in the ledger whose objects were deleted while nobody led: their devices must not wait for them. To be called
    /// once the list of objects is known.
    pub(super) async fn end_orphans(&self) -> Result<()> {
        let objects = self.store.state();
        for (uid, object, broker) in self.shared.ledger.open_rotations().await? {
            let scope = self.shared.scope.as_ref();
            let mine = scope.is_none_or(|scope| *scope == object.namespace) && self.shared.is_home(broker.as_ref());
            let there = objects.iter().any(|other| other.metadata.uid.as_ref() == Some(&uid));
            if mine && !there {
                tracing::info!(rotation = object.name, "the rotation was deleted while nobody led");
                let (ledger, epoch) = (&self.shared.ledger, self.shared.epoch);
                ledger
                    .end_rotation(epoch, &uid, RotationOutcome::Cancelled, now_ms())
                    .await?;
            }
        }
        Ok(())
    }

    async fn look_at(&self, object: &Rotation) -> Result<Action> {
        let Some(uid) = object.uid() else {
            return Ok(Action::await_change());
        };
        if view::is_over(object) {
            self.stop(&uid, &name(object));
            return self.afterwards(object, &uid).await;
        }
        if object.spec.mode == RotationMode::Preview {
            return self.preview(object).await;
        }
        if let Some(stored) = self.shared.ledger.rotation(&uid).await? {
            return self.go_on(object, &uid, stored).await;
        }
        if object.spec.control.state == ControlState::Aborted {
            return self.show(object, &Observed::aborted()).await;
        }
        match self.begin(object, &uid).await? {
            Ok(true) => match self.shared.ledger.rotation(&uid).await? {
                Some(stored) => self.go_on(object, &uid, stored).await,
                None => Ok(Action::requeue(WAITING)),
            },
            Ok(false) => self.show(object, &Observed::nobody()).await,
            Err(verdict) => self.show(object, &Observed::waiting(verdict)).await,
        }
    }

    /// It has ended, and nothing of it changes any more but how the retirements of old certificates stand: they take `grace` at
    /// least, and no Rotation waits for that.
    async fn afterwards(&self, object: &Rotation, uid: &str) -> Result<Action> {
        let before = object.status.as_ref();
        let open = before.and_then(|status| status.retirements);
        if open.is_none_or(|r| r.waiting + r.held + r.asked == 0) {
            return Ok(Action::await_change());
        }
        self.judge_late(object, uid).await?;
        let counted = self.shared.ledger.retirement_counts(uid).await?;
        let mut status = before.cloned().unwrap_or_default();
        status.retirements = Some(counts::retirements(&counted));
        let api = self.shared.api(&object.namespace().unwrap_or_default());
        publish(&api, object, MANAGER, before, &status).await?;
        Ok(Action::requeue(WAITING))
    }

    /// Plans it, once. `Ok(false)`: there is no device to rotate.
    async fn begin(&self, object: &Rotation, uid: &str) -> Result<std::result::Result<bool, Verdict>> {
        if let Some(other) = precedence::before(object, &self.store) {
            let message = format!("the Rotation {other} runs over this fleet; this one begins when it has ended");
            return Ok(Err(Verdict::no("AnotherRotation", message)));
        }
        let needs = match self.needs(object) {
            Ok(needs) => needs,
            Err(verdict) => return Ok(Err(verdict)),
        };
        if object.spec.control.state == ControlState::Paused {
            let message = "spec.control.state is Paused; nothing has begun";
            return Ok(Err(Verdict::no("Paused", message)));
        }
        let strategy = match self.strategy(object) {
            Ok((strategy, _)) => strategy,
            Err(verdict) => return Ok(Err(verdict)),
        };
        let ledger = &*self.shared.ledger;
        let (now, clock_turned) = self.shared.publisher.clock().now_and_turned();
        let scope = scope(object, &needs, &strategy, now);
        let drafted = draft::draft(ledger, &needs.fleet.key, now, &strategy, &scope, fit(object)).await?;
        let draft = match drafted {
            Ok(draft) => draft,
            Err(PlanError::Nobody) => {
                self.adopt(object, &needs.fleet).await?;
                return Ok(Ok(false));
            }
            Err(error) => return Ok(Err(invalid_plan(&error))),
        };
        let online = self.online(&strategy, &needs.fleet.key).await?;
        let record = RotationRecord {
            uid: uid.to_owned(),
            object: name(object),
            fleet: needs.fleet.key.clone(),
            reason: format!("{:?}", object.spec.reason),
            issuer: needs.issuer.as_ref().map(|(entry, _)| entry.ca.key_id().to_string()),
            started: now,
            plan: draft.plan,
            strategy,
        };
        let epoch = self.shared.epoch;
        let members = ledger.begin_rotation(epoch, record, draft.members).await?;
        let run = Run {
            wave_since: now,
            clock_turned,
            online_before: online,
            ..Run::default()
        };
        ledger
            .write_run(epoch, uid, now, certwave_ledger::RunWrite::of(run))
            .await?;
        tracing::info!(rotation = object.name_any(), members, "rotation begins");
        self.adopt(object, &needs.fleet).await?;
        Ok(Ok(true))
    }

    /// Fleet and CA, or which of them is missing.
    fn needs(&self, object: &Rotation) -> std::result::Result<Needs, Verdict> {
        let own = name(object);
        let fleet_name = &object.spec.fleet_ref.name;
        let key = fleet_key(object);
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
            None if fleet.issuer.revoked => return Err(revoked(&fleet.issuer.object, "the Fleet's spec.issuerRef")),
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
        Ok(Needs { fleet, issuer })
    }

    /// What a Rotation that begins now would go by.
    fn strategy(&self, object: &Rotation) -> std::result::Result<(Strategy, Calendar), Verdict> {
        let key =
            reflector::ObjectRef::new(&object.spec.fleet_ref.name).within(&object.namespace().unwrap_or_default());
        let fleet = self.fleets.get(&key).ok_or_else(|| {
            Verdict::no(
                "FleetNotFound",
                format!("there is no Fleet {}", object.spec.fleet_ref.name),
            )
        })?;
        let strategy = strategy(&fleet, Some(object)).map_err(|e| Verdict::no("InvalidStrategy", e.to_string()))?;
        let calendar = Calendar::compile(&strategy.windows)
            .map_err(|e| Verdict::no("InvalidStrategy", format!("spec.windows: {e}")))?;
        Ok((strategy, calendar))
    }

    /// Devices online, where a gate wants to know.
    async fn online(&self, strategy: &Strategy, fleet: &FleetKey) -> Result<Option<u32>> {
        if !gates::Gates::count_online(strategy) {
            return Ok(None);
        }
        let (mut online, mut after) = (0, None);
        let Some(broker) = self.shared.registry.fleet(fleet).map(|entry| entry.broker.clone()) else {
            return Ok(None);
        };
        loop {
            let page = self.shared.ledger.candidates(fleet, now_ms(), after, 5_000).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.row);
            let there = page.iter().filter(|device| {
                let id = certwave_core::model::Identity {
                    broker: broker.clone(),
                    device: device.device.clone(),
                };
                self.shared.registry.presence.online(&id)
            });
            online += u32::try_from(there.count()).unwrap_or(u32::MAX);
        }
        Ok(Some(online))
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

    fn stop(&self, uid: &str, object: &ObjectRef) {
        self.shared.registry.set_rotation(uid.to_owned(), None);
        self.shared.registry.set_waiting(uid, false);
        self.shared.rotations.set(object, None);
        self.gates.forget(uid);
        self.teller.forget(uid);
        self.outlooks.forget(uid);
        self.joined.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }

    async fn show(&self, object: &Rotation, observed: &Observed<'_>) -> Result<Action> {
        let status = view::status(object, observed, now_s());
        self.teller.phase(object, status.phase, observed).await;
        let api = self.shared.api(&object.namespace().unwrap_or_default());
        publish(&api, object, MANAGER, object.status.as_ref(), &status).await?;
        Ok(match status.phase {
            phase if view::over(phase) => Action::await_change(),
            Some(certwave_crds::RotationPhase::Pending) => Action::requeue(WAITING),
            _ => Action::requeue(JUDGING),
        })
    }
}

/// The fleet that it is about.
fn fleet_key(object: &Rotation) -> FleetKey {
    FleetKey {
        namespace: object.namespace().unwrap_or_default(),
        name: object.spec.fleet_ref.name.clone(),
    }
}

/// Whom it is for.
fn scope(object: &Rotation, needs: &Needs, strategy: &Strategy, now: i64) -> Scope {
    let automatic = automatic::made(object);
    let seconds = |ahead: i64| now.saturating_add(ahead).div_euclid(1000);
    let moves = matches!(
        object.spec.reason,
        RotationReason::CaChange | RotationReason::CaCompromise
    );
    let target = needs.issuer.as_ref().filter(|_| moves);
    Scope {
        selector: object.spec.selector.clone().unwrap_or_default().match_labels,
        due_before: automatic.then(|| seconds(needs.fleet.policy.renew_before)),
        failed_before: automatic.then(|| seconds(automatic::last_chance(strategy))),
        not_of: target.map(|(entry, _)| entry.ca.key_id().to_string()),
        not_renewed: false,
    }
}

/// When a compromised CA is cut off, Unix seconds.
fn cutoff(object: &Rotation) -> Option<i64> {
    object.spec.cutoff.as_ref().map(|time| time.0.as_second())
}

/// An automatic Rotation takes the waves as far as the devices reach: nobody is there to mend its plan.
fn fit(object: &Rotation) -> Fit {
    if automatic::made(object) {
        Fit::Shrink
    } else {
        Fit::Exact
    }
}

fn invalid_plan(error: &PlanError) -> Verdict {
    Verdict::no("InvalidPlan", format!("nothing is started: {error}"))
}

/// The plan and how far it is, for those who only look.
struct Stored<'a> {
    plan: &'a Plan,
    run: &'a Run,
}

//! Rotations that nobody has to ask for: what is due by `renewBefore` gets one, by the Fleet's strategy.
//!
//! After a breach none is made for the same template until a person has answered, so that a bad profile costs a canary and not
//! one canary after the other.

use std::sync::Arc;
use std::time::Duration;

use certwave_core::model::ObjectRef;
use certwave_core::rollout::strategy::Strategy;
use certwave_crds::{Fleet, LocalRef, Rotation, RotationReason, RotationSpec};
use certwave_ledger::DueQuery;
use certwave_protocol::ids::Fingerprint;
use kube::api::{Api, DeleteParams, ObjectMeta, PostParams};
use kube::runtime::reflector::{self, Store};
use kube::{Resource, ResourceExt};

use super::super::error::Result;
use super::super::shared::Shared;
use super::super::time::now_ms;
use super::view;
use crate::registry::FleetEntry;

/// How often fleets are looked through for what is due.
const LOOKING: Duration = Duration::from_secs(5);
/// Marks a Rotation as made here: it takes only what is due.
const LABEL: &str = "certwave.dev/automatic";
/// A device that failed is left alone until this long before its certificate ends, milliseconds.
const LAST_CHANCE: i64 = 72 * 60 * 60 * 1000;

/// Whether it was made here.
pub(super) fn made(object: &Rotation) -> bool {
    object.labels().get(LABEL).is_some_and(|value| value == "true")
}

/// What certificates of `issuer` are made of in this fleet, as one word: after a breach an automatic Rotation needs another one.
pub(in crate::reconcile) fn template(fleet: &Fleet, issuer: &LocalRef) -> String {
    let parts = (&fleet.spec.certificate, issuer);
    // Custom resources are made of plain values only.
    Fingerprint::of(serde_json::to_string(&parts).unwrap_or_default().as_bytes()).to_string()
}

/// A device that failed is taken once more when its certificate ends within this time, milliseconds.
pub(super) fn last_chance(strategy: &Strategy) -> i64 {
    strategy.override_before_expiry.unwrap_or(0).max(LAST_CHANCE)
}

/// Makes Rotations for ever.
pub(in crate::reconcile) async fn run(
    shared: Arc<Shared>,
    fleets: Store<Fleet>,
    rotations: Store<Rotation>,
) -> Result<()> {
    let mut tick = tokio::time::interval(LOOKING);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        for entry in shared.registry.fleets() {
            let key = reflector::ObjectRef::new(&entry.key.name).within(&entry.key.namespace);
            let Some(fleet) = fleets.get(&key) else { continue };
            let maker = Maker {
                shared: &shared,
                entry: &entry,
                fleet: &fleet,
                rotations: &rotations,
            };
            if let Err(error) = maker.look().await {
                shared.failed("Rotation", &error);
                tracing::warn!(fleet = entry.key.name, %error, "cannot look for due devices");
            }
        }
    }
}

struct Maker<'a> {
    shared: &'a Shared,
    entry: &'a FleetEntry,
    fleet: &'a Fleet,
    rotations: &'a Store<Rotation>,
}

impl Maker<'_> {
    async fn look(&self) -> Result<()> {
        let mine: Vec<_> = self
            .rotations
            .state()
            .into_iter()
            .filter(|r| self.about_this(r))
            .collect();
        self.tidy(&mine).await?;
        let waits = mine
            .iter()
            .any(|r| !view::is_over(r) && !view::stuck(r) && r.spec.mode != certwave_crds::RotationMode::Preview);
        if waits
            // By a clock that is wrong everything may be due.
            || !self.shared.publisher.clock().is_trusted()
            || self.entry.strategy_fault.is_some()
            || self.entry.issuer.revoked
            || !self.anything_due().await?
            || self.blocked().await?
        {
            return Ok(());
        }
        self.make().await
    }

    fn about_this(&self, rotation: &Rotation) -> bool {
        rotation.namespace().as_deref() == Some(&self.entry.key.namespace)
            && rotation.spec.fleet_ref.name == self.entry.key.name
    }

    async fn anything_due(&self) -> Result<bool> {
        let now = now_ms();
        let before = |ahead: i64| now.saturating_add(ahead).div_euclid(1000);
        let query = DueQuery {
            now,
            expires_before_s: before(self.entry.policy.renew_before),
            failed_before_s: before(last_chance(&self.entry.strategy)),
            limit: 1,
        };
        Ok(!self.shared.ledger.due(&self.entry.key, &query).await?.is_empty())
    }

    async fn blocked(&self) -> Result<bool> {
        let block = self.shared.ledger.template_block(&self.entry.key).await?;
        Ok(block.is_some_and(|block| block.template == template(self.fleet, &self.fleet.spec.issuer_ref)))
    }

    /// Two replicas cannot both make one: only the leader gets here, and the name collides.
    async fn make(&self) -> Result<()> {
        let api: Api<Rotation> = self.shared.api(&self.entry.key.namespace);
        let strategy = &self.fleet.spec.rotation;
        let object = Rotation {
            metadata: ObjectMeta {
                generate_name: Some(format!("{}-", self.entry.key.name)),
                labels: Some([(LABEL.to_owned(), "true".to_owned())].into()),
                owner_references: self.fleet.controller_owner_ref(&()).map(|owner| vec![owner]),
                ..ObjectMeta::default()
            },
            spec: RotationSpec {
                fleet_ref: LocalRef {
                    name: self.entry.key.name.clone(),
                },
                reason: RotationReason::Expiry,
                order: Some(strategy.order.clone()),
                waves: Some(strategy.waves.clone()),
                defaults: Some(strategy.defaults.clone()),
                limits: Some(strategy.limits.clone()),
                device: Some(strategy.device.clone()),
                windows: Some(strategy.windows.clone()),
                window_override_before_expiry: Some(strategy.window_override_before_expiry.clone()),
                joiners: Some(strategy.joiners),
                old_certificate: Some(strategy.old_certificate.clone()),
                gates: Some(strategy.gates.clone()),
                ..RotationSpec::default()
            },
            status: None,
        };
        let made = api.create(&PostParams::default(), &object).await?;
        tracing::info!(
            fleet = self.entry.key.name,
            rotation = made.name_any(),
            "devices are due"
        );
        self.known(&made).await;
        Ok(())
    }

    /// Waits a moment until the watch shows it, lest another one is made.
    async fn known(&self, made: &Rotation) {
        let key = reflector::ObjectRef::from_obj(made);
        for _ in 0..100 {
            if self.rotations.get(&key).is_some() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Removes the oldest of those that are over, beyond the Fleet's history limit.
    async fn tidy(&self, mine: &[Arc<Rotation>]) -> Result<()> {
        let keep = usize::try_from(self.fleet.spec.rotation.history_limit).unwrap_or(0);
        let mut over: Vec<_> = mine.iter().filter(|r| made(r) && view::is_over(r)).collect();
        over.sort_by_key(|r| std::cmp::Reverse(r.metadata.creation_timestamp.as_ref().map(|time| time.0)));
        for old in over.into_iter().skip(keep) {
            let name = ObjectRef {
                namespace: self.entry.key.namespace.clone(),
                name: old.name_any(),
            };
            let api: Api<Rotation> = self.shared.api(&name.namespace);
            match api.delete(&name.name, &DeleteParams::default()).await {
                Ok(_) => {}
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

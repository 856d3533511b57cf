//! `Fleet`: its CA and broker resolved for the engine, its claims, its counts.

mod claims;
mod resolve;
mod view;

pub(super) use resolve::job_policy;
pub(super) use view::retire_unavailable;

use std::sync::Arc;
use std::time::{Duration, Instant};

use certwave_core::model::ObjectRef;
use certwave_crds::{DeletionPolicy, Fleet};
use certwave_ledger::{CountQuery, FleetKey, TemplateBlock};
use kube::runtime::controller::Action;

use super::drive::{Reconciler, name};
use super::error::Result;
use super::shared::{FleetHome, Shared};
use super::status::{door_current, publish, skew};
use super::time::{now_ms, now_s};

const MANAGER: &str = "certwave-fleet";
/// Counts depend on the time as well (offline, expired), so an idle fleet is looked at once in a while.
const IDLE: Duration = Duration::from_secs(30);

/// The reconciler of `Fleet`.
pub(super) struct Fleets {
    pub(super) shared: Arc<Shared>,
}

/// The fleet's key in the ledger.
pub(super) fn key(object: &ObjectRef) -> FleetKey {
    FleetKey {
        namespace: object.namespace.clone(),
        name: object.name.clone(),
    }
}

/// Where it is noted who goes by the CRLs of the fleet's CA.
fn crl_use(object: &ObjectRef) -> String {
    format!("Fleet {}/{}", object.namespace, object.name)
}

/// How long before its end a certificate should have been renewed by now, seconds: devices have two thirds of `renewBefore` for it.
fn late(object: &Fleet) -> i64 {
    object.spec.certificate.renew_before.as_secs() / 3
}

/// The Rotation after whose breach nothing is rotated by itself with the fleet's present template.
async fn blocked_by(shared: &Shared, object: &Fleet, fleet: &FleetKey) -> Result<Option<TemplateBlock>> {
    let block = shared.ledger.template_block(fleet).await?;
    Ok(block.filter(|block| block.template == super::rotation::template(object, &object.spec.issuer_ref)))
}

impl Reconciler for Fleets {
    type Object = Fleet;
    const KIND: &'static str = "Fleet";

    async fn reconcile(&self, object: Arc<Fleet>) -> Result<Action> {
        let shared = &*self.shared;
        let own = name(&*object);
        let fleet = key(&own);
        let resolved = resolve::resolve(shared, &object).await?;
        let broker = resolved.broker.clone();
        let claims = claims::keep(shared, &object, &fleet, &resolved, now_s()).await?;
        let offline_after = object.spec.rotation.device.offline_after.as_millis();
        let clock = shared.publisher.clock();
        let counts = shared
            .ledger
            .counts(
                &fleet,
                CountQuery {
                    now: now_ms(),
                    online_after: now_ms().saturating_sub(offline_after),
                    expiring_before_s: now_s() + late(&object),
                },
            )
            .await?;
        shared.counting.counted(&fleet, counts.total, Instant::now());
        shared.metrics.fleets.show(&fleet, &counts);
        let link = broker.as_ref().map(|id| shared.registry.link(id)).unwrap_or_default();
        let expires = |id| !shared.registry.reports_loading(id);
        let observed = view::Observed {
            cannot_retire: broker.as_ref().is_some_and(expires) && object.spec.rotation.revokes(),
            counts,
            claims,
            rotation: shared.rotation_of(&fleet),
            last_rotation: shared.ledger.last_rotation(&fleet).await?.map(|object| object.name),
            in_time: shared.in_time(&fleet),
            blocked_by: blocked_by(shared, &object, &fleet).await?,
            connected: link.connected,
            error: link.error,
            door: broker.as_ref().and_then(|id| {
                let entry = shared.registry.broker(id);
                door_current(
                    entry.map(|entry| entry.door.clone()).as_ref(),
                    shared.registry.door_view(id).as_deref(),
                )
            }),
            skew: skew(clock),
            now: now_s(),
        };
        let status = view::status(&object, &resolved, &observed);
        match resolved.entry {
            Ok(entry) => {
                if shared
                    .registry
                    .fleet(&fleet)
                    .is_none_or(|old| !resolve::same(&old, &entry))
                {
                    shared.registry.set_fleet(fleet.clone(), Some(entry));
                }
            }
            Err(_) => shared.registry.set_fleet(fleet.clone(), None),
        }
        let revokes_deleted = object.spec.deletion_policy == DeletionPolicy::Revoke;
        shared.fleets.set(
            &own,
            Some(FleetHome {
                broker,
                revokes_deleted,
            }),
        );
        publish(
            &shared.api(&own.namespace),
            &*object,
            MANAGER,
            object.status.as_ref(),
            &status,
        )
        .await?;
        Ok(Action::requeue(
            claims::next_end(&object, now_s()).map_or(IDLE, |end| end.min(IDLE)),
        ))
    }

    async fn forget(&self, object: &ObjectRef) -> Result<()> {
        self.shared.homes.set(object, None);
        self.shared.registry.set_crl_use(&crl_use(object), None);
        if self.shared.fleets.get(object).is_none() {
            return Ok(());
        }
        // First: what failed is done again, and whose the fleet was is known by its entry.
        claims::withdraw(&self.shared, &key(object), &[]).await?;
        self.leave(object);
        Ok(())
    }

    fn is_mine(&self, object: &Fleet) -> bool {
        let shared = &*self.shared;
        let own = name(object);
        let broker = shared.known_brokers.get(&resolve::broker_of(object));
        let home = broker.as_ref().map(|known| known.id.clone());
        let mine = shared.is_home(home.as_ref());
        shared.homes.set(&own, Some(home));
        if shared.leads() {
            let reads = broker.is_none_or(|known| known.reads_crls);
            shared.note_crl_use(&crl_use(&own), &own.namespace, &object.spec.issuer_ref.name, reads);
        }
        mine
    }

    fn leave(&self, object: &ObjectRef) {
        if self.shared.fleets.get(object).is_none() {
            return;
        }
        let fleet = key(object);
        self.shared.registry.set_fleet(fleet.clone(), None);
        self.shared.fleets.set(object, None);
        self.shared.metrics.fleets.forget(&fleet);
        self.shared.metrics.rotations.forget_fleet(&fleet);
    }

    fn knows(&self, object: &ObjectRef) -> bool {
        self.shared.fleets.get(object).is_some()
    }
}

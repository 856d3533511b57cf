//! `Fleet`: its CA and broker resolved for the engine, its claims, its counts.

mod claims;
mod resolve;
mod view;

pub(super) use resolve::job_policy;

use std::sync::Arc;
use std::time::Duration;

use certwave_core::model::ObjectRef;
use certwave_crds::Fleet;
use certwave_ledger::FleetKey;
use kube::runtime::controller::Action;

use super::drive::{Reconciler, name};
use super::error::Result;
use super::shared::{FleetHome, Shared};
use super::status::publish;
use super::time::{now_ms, now_s};

const MANAGER: &str = "certwave-fleet";
/// Counts depend on the time as well (offline, expired), so an idle fleet is looked at once in a while.
const IDLE: Duration = Duration::from_secs(30);
/// Marked fleets are counted at most this often.
pub(super) const COUNTING: Duration = Duration::from_secs(2);

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

/// The Rotation after whose breach nothing is rotated by itself with the fleet's present template.
async fn blocked_by(shared: &Shared, object: &Fleet, fleet: &FleetKey) -> Result<Option<String>> {
    let block = shared.ledger.template_block(fleet).await?;
    let mine = block.filter(|block| block.template == super::rotation::template(object, &object.spec.issuer_ref));
    Ok(mine.map(|block| block.rotation.name))
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
        let now = now_ms();
        let counts = shared
            .ledger
            .counts(&fleet, now, now.saturating_sub(offline_after))
            .await?;
        shared.show_counts(&fleet, &counts);
        let link = broker.as_ref().map(|id| shared.registry.link(id)).unwrap_or_default();
        let observed = view::Observed {
            counts,
            claims,
            rotation: shared.rotation_of(&fleet),
            last_rotation: shared.ledger.last_rotation(&fleet).await?.map(|object| object.name),
            in_time: shared.in_time(&fleet),
            blocked_by: blocked_by(shared, &object, &fleet).await?,
            connected: link.connected,
            error: link.error,
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
        shared.fleets.set(&own, Some(FleetHome { broker }));
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
        let fleet = key(object);
        self.shared.registry.set_fleet(fleet.clone(), None);
        self.shared.fleets.set(object, None);
        self.shared.hide_counts(&fleet);
        claims::withdraw(&self.shared, &fleet, &[]).await
    }

    fn knows(&self, object: &ObjectRef) -> bool {
        self.shared.fleets.get(object).is_some()
    }
}

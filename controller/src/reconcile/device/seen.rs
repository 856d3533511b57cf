//! What objects show at present, as the watch has it, and which of them are no longer there.

use certwave_core::model::ObjectRef;
use certwave_crds::DeviceCertificate;

use super::waiting::Waiting;
use super::{Intake, persist};
use crate::reconcile::error::Result;
use crate::reconcile::projection::{Show, digest_of, lasting};
use crate::reconcile::views::{Key, View};

impl Intake {
    /// Tells the projection what an object shows that nobody but it remembers, when it is first seen.
    pub(super) async fn recall(&self, key: Key, own: &ObjectRef, object: &DeviceCertificate) {
        let conditions = object.status.as_ref().map(|status| lasting(&status.conditions));
        let conditions = conditions.filter(|found| !found.is_empty() && self.views.get(key).is_none());
        if let Some(conditions) = conditions {
            let object = own.clone();
            let _ = self.show.send(Show::Recalled { object, conditions }).await;
        }
    }

    /// Notes what the object shows at present.
    pub(super) fn see(&self, key: Key, object: &DeviceCertificate) -> View {
        let status = object.status.as_ref();
        let ready = status.and_then(|status| status.conditions.iter().find(|c| c.type_ == "Ready"));
        self.views.update(key, |view| {
            view.pass = self.pass;
            view.revoked = object.spec.revocation.is_some();
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

    /// Withdraws what was deleted while nobody watched: what the ledger has and the listing had not.
    pub(super) async fn sweep(&mut self, waiting: &mut Waiting) -> Result<()> {
        let Some(broker) = self.shared.broker().cloned() else {
            self.views.keep(self.pass);
            return Ok(());
        };
        let mut after: Option<ObjectRef> = None;
        loop {
            let ledger = &self.shared.ledger;
            let page = persist(&self.shared, || ledger.declared_objects(&broker, after.as_ref(), 1000)).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.object.clone());
            for declared in page {
                let seen = self
                    .views
                    .get(Key::of(&declared.object))
                    .is_some_and(|view| view.pass == self.pass);
                if !seen && self.in_scope(&declared.object) {
                    self.vanished(&declared.object, waiting).await?;
                } else if seen && declared.revocation && !self.declares_revocation(&declared.object) {
                    self.take_back(&declared.object, &declared.identity.device).await?;
                }
            }
        }
        // Whoever comes by the name of one that is gone, and says nothing of it, takes its hold back.
        let ledger = &self.shared.ledger;
        let gone = persist(&self.shared, || ledger.withdrawn_revocations(&broker)).await?;
        self.revoking
            .extend(gone.into_iter().map(|(object, device)| (Key::of(&object), device)));
        self.views.keep(self.pass);
        tracing::info!("every DeviceCertificate is known");
        Ok(())
    }

    fn declares_revocation(&self, object: &ObjectRef) -> bool {
        self.views.get(Key::of(object)).is_some_and(|view| view.revoked)
    }

    fn in_scope(&self, object: &ObjectRef) -> bool {
        self.shared
            .scope
            .as_ref()
            .is_none_or(|namespace| *namespace == object.namespace)
    }
}

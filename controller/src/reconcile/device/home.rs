//! Whose an object is, and what becomes of one that moves from one broker's fleet to another's.

use std::sync::Arc;
use std::time::Duration;

use certwave_core::model::{Identity, ObjectRef};
use certwave_crds::DeviceCertificate;
use certwave_ledger::FleetKey;

use super::deletion::Deletion;
use super::waiting::Waiting;
use super::{Intake, persist};
use crate::reconcile::error::{Error, Result};
use crate::reconcile::projection::Show;
use crate::reconcile::time::now_ms;
use crate::reconcile::views::Key;

/// How often it is looked whether an object that comes from another broker was let go there.
pub(super) const MOVING: Duration = Duration::from_secs(2);

/// Who looks after an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whose {
    /// This part's holder.
    Mine,
    /// The holder of another broker.
    Anothers,
    /// Nobody knew its Fleet when this was asked.
    Open,
}

impl Intake {
    /// Whose the object is: its Fleet's broker's. Where there is no such Fleet, the broker's that knows its device; where none does,
    /// the controller's, who says so. One that has moved away is let go.
    pub(super) async fn whose(
        &mut self,
        key: Key,
        own: &ObjectRef,
        object: &DeviceCertificate,
        waiting: &mut Waiting,
    ) -> Result<Whose> {
        let ledger = &self.shared.ledger;
        let known = || async {
            let device = persist(&self.shared, || ledger.device_by_object(own)).await?;
            Ok::<_, Error>(device.map(|device| device.id.broker))
        };
        // Asked once: the Fleet may come at any moment.
        let of_fleet = self.shared.home_of(&fleet_of(own, object));
        let other = if of_fleet.is_some() {
            Whose::Anothers
        } else {
            Whose::Open
        };
        let home = match of_fleet {
            Some(home) => Some(home),
            None => known().await?,
        };
        if self.shared.is_home(home.as_ref()) {
            return Ok(Whose::Mine);
        }
        if self.views.get(key).is_some() {
            self.views.remove(key);
            let _ = self.show.send(Show::Gone(own.clone())).await;
            if self.shared.broker().is_some()
                && known()
                    .await?
                    .is_none_or(|broker| Some(&broker) == self.shared.broker())
            {
                self.let_go(own, waiting).await?;
            }
        }
        Ok(other)
    }

    /// Declares once more what another broker's holder had not let go of.
    pub(super) async fn again(&mut self, waiting: &mut Waiting) -> Result<()> {
        for object in std::mem::take(&mut self.moving) {
            let api = self.shared.api::<DeviceCertificate>(&object.namespace);
            let found = persist(&self.shared, || api.get_opt(&object.name)).await?;
            self.apply(found.map(Arc::new).into_iter().collect(), waiting).await?;
        }
        Ok(())
    }

    /// The listing had no such object of this part's: it was deleted, or has moved to another broker's fleet.
    pub(super) async fn vanished(&mut self, object: &ObjectRef, waiting: &mut Waiting) -> Result<()> {
        let api = self.shared.api::<DeviceCertificate>(&object.namespace);
        let found = persist(&self.shared, || api.get_metadata_opt(&object.name)).await?;
        if found.is_none() {
            let ledger = &self.shared.ledger;
            let known = persist(&self.shared, || ledger.device_by_object(object)).await?;
            return self.delete(object, known, Deletion::Found, waiting).await;
        }
        self.let_go(object, waiting).await
    }

    /// Nothing declares the object's device any more here. Whoever waited for this identity gets its turn.
    pub(super) async fn let_go(&mut self, object: &ObjectRef, waiting: &mut Waiting) -> Result<()> {
        self.refused.retain(|_, refused| {
            refused.retain(|other| other != object);
            !refused.is_empty()
        });
        let ledger = &self.shared.ledger;
        let known = persist(&self.shared, || ledger.device_by_object(object)).await?;
        let freed = persist(&self.shared, || ledger.withdraw(self.shared.epoch, now_ms(), object)).await?;
        if let Some(device) = known {
            self.shared.counting.mark(FleetKey::of(&device));
        }
        match freed {
            Some(identity) => self.turn_of(&identity, waiting).await,
            None => Ok(()),
        }
    }

    /// Nobody has this identity any more: whoever was refused it gets its turn.
    pub(super) async fn turn_of(&mut self, identity: &Identity, waiting: &mut Waiting) -> Result<()> {
        for next in self.refused.remove(identity).unwrap_or_default() {
            self.views.touch(Key::of(&next), |view| view.declared = 0);
            let api = self.shared.api::<DeviceCertificate>(&next.namespace);
            let found = persist(&self.shared, || api.get_opt(&next.name)).await?;
            if let Some(found) = found {
                Box::pin(self.apply(vec![Arc::new(found)], waiting)).await?;
            }
        }
        Ok(())
    }
}

/// The Fleet that an object names.
pub(super) fn fleet_of(own: &ObjectRef, object: &DeviceCertificate) -> FleetKey {
    FleetKey {
        namespace: own.namespace.clone(),
        name: object.spec.fleet_ref.name.clone(),
    }
}

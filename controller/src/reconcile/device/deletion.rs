//! What deleting a `DeviceCertificate` means: nothing is revoked, unless its Fleet says so and goes on.

use certwave_core::model::{Device, Identity, ObjectRef};
use certwave_core::revocation::Reason;
use certwave_crds::{DeletionPolicy, Fleet};
use certwave_ledger::{Act, FleetKey, Mark, Target};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::Api;

use super::{Intake, persist};
use crate::notice::Notice;
use crate::reconcile::error::Result;
use crate::reconcile::time::now_ms;

/// How a deletion became known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Deletion {
    /// The watch showed it.
    Witnessed,
    /// The object is missing in a listing: nobody saw why.
    Found,
}

impl Intake {
    /// Revokes a deleted object's device, where that is what its Fleet asks for. To be called before the object is withdrawn.
    pub(super) async fn revoke_deleted(&self, device: Device, deletion: Deletion) -> Result<()> {
        let ledger = &self.shared.ledger;
        let fleet = FleetKey::of(&device);
        let home = ObjectRef {
            namespace: fleet.namespace.clone(),
            name: fleet.name.clone(),
        };
        // As far as is known: without the policy a deletion costs nothing more.
        if !self.shared.fleets.get(&home).is_some_and(|home| home.revokes_deleted) {
            return Ok(());
        }
        if let Some(kept) = self.kept(&fleet, deletion).await? {
            tracing::info!(device = %device.id.device, kept, "a deleted object's device is not revoked");
            self.notify(Notice::DeletionKept {
                fleet,
                device: device.id.device,
                why: kept.to_owned(),
            });
            return Ok(());
        }
        let mark = Mark {
            target: Target::Device(device.id.clone()),
            act: Act::Revoke {
                reason: Reason::CessationOfOperation,
                invalid_since: None,
            },
            requested_at: now_ms(),
            who: "controller".to_owned(),
            detail: Some("deletionPolicy: the DeviceCertificate was deleted".to_owned()),
            revocation: None,
        };
        let epoch = self.shared.epoch;
        let marks = persist(&self.shared, || ledger.mark(epoch, now_ms(), vec![mark.clone()])).await?;
        let certificates = marks.iter().map(Vec::len).sum();
        self.shared.registry.standing_moved();
        self.notify(Notice::DeletionRevoked {
            fleet,
            device: device.id.device,
            certificates,
        });
        Ok(())
    }

    /// [`revoke_deleted`](Self::revoke_deleted) for the device of an object of this fleet whose name is another device's by now, unless some object
    /// declares it.
    pub(super) async fn revoke_left(&self, identity: &Identity, object: &ObjectRef, fleet: &FleetKey) -> Result<()> {
        let ledger = &self.shared.ledger;
        let known = persist(&self.shared, || ledger.device(identity)).await?;
        // One that was refused as a duplicate says nothing of whose device it is.
        let own = |device: &Device| device.object == *object && FleetKey::of(device) == *fleet;
        let Some(device) = known.filter(own) else {
            return Ok(());
        };
        let declared = persist(&self.shared, || ledger.device_by_object(&device.object)).await?;
        if declared.is_some_and(|declared| declared.id == *identity) {
            return Ok(());
        }
        self.revoke_deleted(device, Deletion::Witnessed).await
    }

    /// Why nothing is revoked, if nothing is. Asked of the API server itself: what the watches show may be late.
    async fn kept(&self, fleet: &FleetKey, deletion: Deletion) -> Result<Option<&'static str>> {
        if deletion == Deletion::Found {
            return Ok(Some("the deletion was not seen as it happened"));
        }
        let fleets: Api<Fleet> = self.shared.api(&fleet.namespace);
        let Some(found) = persist(&self.shared, || fleets.get_opt(&fleet.name)).await? else {
            return Ok(Some("its Fleet is gone too"));
        };
        if found.metadata.deletion_timestamp.is_some() {
            return Ok(Some("its Fleet is being deleted too"));
        }
        if found.spec.deletion_policy != DeletionPolicy::Revoke {
            return Ok(Some("its Fleet says so no more"));
        }
        let namespaces: Api<Namespace> = Api::all(self.shared.client.clone());
        let namespace = persist(&self.shared, || namespaces.get_opt(&fleet.namespace)).await?;
        let ends = namespace.is_none_or(|namespace| namespace.metadata.deletion_timestamp.is_some());
        Ok(ends.then_some("its namespace is being deleted too"))
    }

    fn notify(&self, notice: Notice) {
        if self.tell.try_send(notice).is_err() {
            tracing::warn!("too much to tell at once; the audit has it all");
        }
    }
}

//! What is seen of a device whose old certificate is being retired.

use std::time::Duration;

use certwave_core::model::{Device, Millis};
use certwave_core::retire::{Heard, Phase, Retirement, Seen, working};
use certwave_core::revocation::Standing;
use certwave_ledger::{LedgerError, Marked, MemberOutcome, SerialKey};
use certwave_protocol::ids::{BrokerId, Fingerprint};

use super::super::Engine;
use super::super::hearing;
use crate::clock::now;

/// So long a job waits for nodes to load a release, milliseconds.
const LOADS_WITHIN: Millis = 600_000;
/// Marks that are read of a device, the last ones: more than can change within that time.
const MARKS: u32 = 16;

impl Engine {
    /// Whether certificates may be put on hold, and holds judged: the doors say what they have loaded, and nothing of ours is at
    /// fault.
    pub(super) fn can_retire(&self, broker: &BrokerId) -> bool {
        let well = self.links.get(broker).is_some() && self.publisher.clock().is_trusted();
        well && self.registry.reports_loading(broker)
    }

    pub(super) async fn seen(&self, retirement: &Retirement, device: Option<&Device>) -> Result<Seen, LedgerError> {
        let Some(device) = device else {
            return Ok(Seen {
                current: None,
                current_good: false,
                old_ended: false,
                barred: false,
                declared: false,
                working: false,
                wanted: false,
                online: false,
            });
        };
        let working = working(device);
        Ok(Seen {
            current: device.current.as_ref().map(|current| current.fingerprint),
            current_good: self
                .stands(&retirement.new, |standing| standing == Standing::Good)
                .await?,
            old_ended: !self.stands(&retirement.old, |standing| !revoked(standing)).await?,
            barred: device.bar.is_some(),
            declared: self.is_declared(device).await?,
            working,
            wanted: (device.open_job().is_some() && !working) || self.goes_back(retirement).await?,
            online: self.registry.presence.online(&device.id),
        })
    }

    /// Whether every node of the broker has loaded how this certificate stands.
    pub(super) async fn shut_out(&self, fingerprint: &Fingerprint) -> Result<bool, LedgerError> {
        let marked = self.marks(fingerprint).await?;
        Ok(marked.is_some_and(|(_, marked)| marked.is_some_and(|marked| marked.shut_at.is_some())))
    }

    /// Whether the door goes by it that the device's certificates are released, those of them that were on hold: before every node has loaded
    /// that they open nothing, and a job empties the slot of the one that the device does not start from. A node that is away for good keeps
    /// nobody from being renewed.
    pub(in crate::engine) async fn lets_in(&self, device: &Device) -> Result<bool, LedgerError> {
        if !self.registry.reports_loading(&device.id.broker) {
            return Ok(true);
        }
        let starts_from = |fingerprint| {
            let mut known = device.current.iter().chain(&device.previous);
            known.any(|credential| Some(credential.fingerprint) == fingerprint)
        };
        let at = now();
        let awaited = |marked: &Marked| {
            let recently = (0..LOADS_WITHIN).contains(&(at - marked.recorded_at));
            marked.standing == Standing::Good && marked.shut_at.is_none() && recently && starts_from(marked.fingerprint)
        };
        Ok(!self.ledger.marked(&device.id, MARKS).await?.iter().any(awaited))
    }

    /// Whether the device could have been heard through the probation time up to its end.
    pub(super) fn heard(&self, retirement: &Retirement, waited: Option<Millis>, probation: Millis) -> Heard {
        if retirement.phase != Phase::Asked {
            return Heard::Unknown;
        }
        let broker = &retirement.identity.broker;
        if !self.can_retire(broker) {
            return Heard::Broken;
        }
        let overdue = millis(waited.unwrap_or_default().saturating_sub(probation));
        match self.heard_through(broker, millis(probation), overdue) {
            hearing::Heard::Whole => Heard::Whole,
            hearing::Heard::Broken => Heard::Broken,
            hearing::Heard::Unknown => Heard::Unknown,
        }
    }

    /// Whether a certificate has not ended and stands as it should.
    async fn stands(
        &self,
        fingerprint: &Fingerprint,
        well: impl FnOnce(Standing) -> bool,
    ) -> Result<bool, LedgerError> {
        let marks = self.marks(fingerprint).await?;
        Ok(marks.is_some_and(|(not_after, marked)| {
            let standing = marked.map_or(Standing::Good, |marked| marked.standing);
            not_after.saturating_mul(1000) > now() && well(standing)
        }))
    }

    /// The end of a certificate and its marks; `None` where there is no such certificate.
    async fn marks(&self, fingerprint: &Fingerprint) -> Result<Option<(i64, Option<Marked>)>, LedgerError> {
        let Some(stored) = self.ledger.certificate(fingerprint).await? else {
            return Ok(None);
        };
        let key = SerialKey {
            issuer: stored.record.issuer,
            serial: stored.record.serial,
        };
        let marked = self.ledger.marked_certificate(&key).await?;
        Ok(Some((stored.record.not_after, marked)))
    }

    async fn is_declared(&self, device: &Device) -> Result<bool, LedgerError> {
        let declared = self.ledger.device_by_object(&device.object).await?;
        Ok(declared.is_some_and(|declared| declared.id == device.id))
    }

    /// Whether it is to be sent back, or is on its way.
    async fn goes_back(&self, retirement: &Retirement) -> Result<bool, LedgerError> {
        let Some(uid) = &retirement.rotation else {
            return Ok(false);
        };
        let member = self.ledger.member(uid, &retirement.identity).await?;
        Ok(member.is_some_and(|member| member.outcome == MemberOutcome::Reverting))
    }
}

fn revoked(standing: Standing) -> bool {
    matches!(standing, Standing::Revoked { .. })
}

fn millis(millis: Millis) -> Duration {
    Duration::from_millis(u64::try_from(millis).unwrap_or(0))
}

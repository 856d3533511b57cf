//! Where retirements begin, and what they go by.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use certwave_core::model::{Device, Millis};
use certwave_core::retire::{Retirement, refused};
use certwave_core::revocation::Reason;
use certwave_core::rollout::strategy::{Retiring, Strategy};
use certwave_ledger::{Act, FleetKey, LedgerError, Mark, Target};

use super::super::Engine;

/// Strategies of ended Rotations that are remembered.
const REMEMBERED: usize = 256;
/// Where the strategy that began a retirement is not to be had any more.
const DEFAULT: Retiring = Retiring {
    probation: 600_000,
    per_second: 10,
};

/// Strategies of Rotations that have ended: their retirements go on.
#[derive(Default)]
pub(in crate::engine) struct Strategies(Mutex<HashMap<String, Arc<Strategy>>>);

impl Strategies {
    fn get(&self, uid: &str) -> Option<Arc<Strategy>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(uid).cloned()
    }

    fn put(&self, uid: &str, strategy: &Arc<Strategy>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= REMEMBERED {
            all.clear();
        }
        all.insert(uid.to_owned(), Arc::clone(strategy));
    }
}

impl Engine {
    /// The retirement that begins with this step of a device, if one does.
    pub(in crate::engine) async fn retirement(
        &self,
        before: &Device,
        after: &Device,
        now: Millis,
    ) -> Result<Option<Retirement>, LedgerError> {
        // Most steps begin none.
        if Retirement::of(now, before, after, 0).is_none() || !self.registry.reports_loading(&after.id.broker) {
            return Ok(None);
        }
        let rotation = after.job.as_ref().and_then(|job| job.rotation.as_deref());
        let strategy = self.strategy_of(rotation, Some(after)).await?;
        Ok(strategy
            .filter(|strategy| strategy.retiring.is_some())
            .and_then(|strategy| Retirement::of(now, before, after, strategy.grace)))
    }

    /// How this retirement goes.
    pub(super) async fn retiring(
        &self,
        retirement: &Retirement,
        device: Option<&Device>,
    ) -> Result<Retiring, LedgerError> {
        let strategy = self.strategy_of(retirement.rotation.as_deref(), device).await?;
        Ok(strategy.and_then(|strategy| strategy.retiring).unwrap_or(DEFAULT))
    }

    /// The strategy of a Rotation, also of one that has ended; without one the Fleet's.
    async fn strategy_of(
        &self,
        rotation: Option<&str>,
        device: Option<&Device>,
    ) -> Result<Option<Arc<Strategy>>, LedgerError> {
        let fleet = || {
            let fleet = self.registry.fleet(&FleetKey::of(device?))?;
            Some(Arc::clone(&fleet.strategy))
        };
        let Some(uid) = rotation else { return Ok(fleet()) };
        if let Some(running) = self.registry.rotation(uid) {
            return Ok(Some(Arc::clone(&running.strategy)));
        }
        if let Some(known) = self.strategies.get(uid) {
            return Ok(Some(known));
        }
        let Some(stored) = self.ledger.rotation(uid).await? else {
            return Ok(fleet());
        };
        let strategy = Arc::new(stored.record.strategy);
        self.strategies.put(uid, &strategy);
        Ok(Some(strategy))
    }
}

/// The revocation of a certificate that its device has gone back from: no other unconfirmed one is revoked.
pub(in crate::engine) fn void(before: &Device, after: &Device, now: Millis) -> Option<Mark> {
    refused(before, after).map(|fingerprint| Mark {
        target: Target::Certificate(fingerprint),
        act: Act::Revoke {
            reason: Reason::Unspecified,
            invalid_since: None,
        },
        requested_at: now,
        who: "controller".to_owned(),
        revocation: None,
        detail: Some("the device went back from it".to_owned()),
    })
}

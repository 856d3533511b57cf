//! Starts jobs: what is due and what Rotations ask for, never more at once than the fleet's limit allows.
//!
//! One task does all of it, so two devices never race for the last slot. The count of devices in flight is the
//! ledger's, so a restart forgets none.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use certwave_core::due::{self, Target};
use certwave_core::model::Identity;
use certwave_core::step::{self, Context, Decision, Event, NewJob};
use certwave_ledger::{DueQuery, FleetKey, LedgerError, RotationOutcome};
use certwave_protocol::ids::Nonce;
use futures::StreamExt as _;

use super::act::With;
use super::{Engine, now};
use crate::registry::{FleetEntry, RotationControl, RotationEntry};

const TICK: Duration = Duration::from_millis(500);
/// Devices that wait are looked through this often for those that are online by now.
const SWEEP: Duration = Duration::from_secs(10);
/// Jobs made in one go.
const BATCH: u32 = 256;
const CONCURRENCY: usize = 32;
/// Waiting devices that one sweep looks at, the longest waiting first.
const SWEPT: u32 = 10_000;

/// Devices with a queued job that were just heard, by fleet, each once, the first heard first.
#[derive(Default)]
pub(super) struct Ready(Mutex<HashMap<FleetKey, Line>>);

#[derive(Default)]
struct Line {
    order: VecDeque<Identity>,
    members: HashSet<Identity>,
}

impl Ready {
    pub(super) fn push(&self, fleet: FleetKey, identity: Identity) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let line = lines.entry(fleet).or_default();
        if line.members.insert(identity.clone()) {
            line.order.push_back(identity);
        }
    }

    fn take(&self, fleet: &FleetKey, most: u32) -> Vec<Identity> {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(line) = lines.get_mut(fleet) else {
            return Vec::new();
        };
        let most = line.order.len().min(most as usize);
        let taken: Vec<_> = line.order.drain(..most).collect();
        for identity in &taken {
            line.members.remove(identity);
        }
        if line.order.is_empty() {
            lines.remove(fleet);
        }
        taken
    }
}

/// Starts jobs, for ever.
pub(super) async fn run(engine: &Engine) {
    let mut swept = tokio::time::Instant::now();
    loop {
        let _ = tokio::time::timeout(TICK, engine.registry.work()).await;
        if !engine.registry.is_open() {
            continue;
        }
        let sweep = swept.elapsed() >= SWEEP;
        if sweep {
            swept = tokio::time::Instant::now();
        }
        for fleet in engine.registry.fleets() {
            if let Err(error) = engine.serve(&fleet, sweep).await {
                engine.ledger_failed(&error);
            }
        }
    }
}

impl Engine {
    /// One round for one fleet. While its broker is out nothing starts: that is our fault, not the devices'.
    async fn serve(&self, fleet: &FleetEntry, sweep: bool) -> Result<(), LedgerError> {
        if self.links.get(&fleet.broker).is_none() {
            return Ok(());
        }
        if sweep {
            for identity in self.ledger.queued(&fleet.key, SWEPT).await? {
                if self.presence.online(&identity) {
                    self.ready.push(fleet.key.clone(), identity);
                }
            }
        }
        let rotation = self
            .registry
            .rotations()
            .into_iter()
            .filter(|r| r.fleet == fleet.key)
            .min_by(|a, b| a.uid.cmp(&b.uid));
        let limit = rotation
            .as_ref()
            .map_or(fleet.policy.max_in_flight, |r| r.max_in_flight);
        let mut room = limit.saturating_sub(self.ledger.in_flight(&fleet.key).await?);
        let heard = self.ready.take(&fleet.key, room);
        if !heard.is_empty() {
            self.offer(fleet, heard).await;
            // Not all of them were asked.
            room = limit.saturating_sub(self.ledger.in_flight(&fleet.key).await?);
        }
        if room == 0 {
            return Ok(());
        }
        if let Some(rotation) = rotation.filter(|r| r.control == RotationControl::Running) {
            let asked = room.min(BATCH);
            if self.members(fleet, &rotation, asked).await? >= asked {
                return Ok(());
            }
            room = limit.saturating_sub(self.ledger.in_flight(&fleet.key).await?);
        }
        // Also beside a Rotation, paused or not: no certificate may end because of it.
        if room == 0 {
            return Ok(());
        }
        self.due(fleet, room).await
    }

    async fn due(&self, fleet: &FleetEntry, room: u32) -> Result<(), LedgerError> {
        let at = now();
        let query = DueQuery {
            now: at,
            expires_before_s: at.saturating_add(fleet.policy.renew_before) / 1000,
            issuer: None,
            bundle: None,
            limit: room.min(BATCH),
        };
        let identities = self.ledger.due(&fleet.key, &query).await?;
        let target = Target {
            issuer: &fleet.policy.issuer,
            bundle: fleet.bundle,
            renew_before: Some(fleet.policy.renew_before),
        };
        self.start(identities, &target, None).await
    }

    /// Starts at most `room` members; answers how many were there to start.
    async fn members(&self, fleet: &FleetEntry, rotation: &RotationEntry, room: u32) -> Result<u32, LedgerError> {
        let identities = self.ledger.next_members(&rotation.uid, now(), room).await?;
        let found = u32::try_from(identities.len()).unwrap_or(u32::MAX);
        let issuer = rotation.issuer.as_ref().map(|i| i.ca.key_id().to_string());
        let target = Target {
            issuer: issuer.as_deref().unwrap_or(&fleet.policy.issuer),
            bundle: fleet.bundle,
            renew_before: None,
        };
        self.start(identities, &target, Some(&rotation.uid)).await?;
        Ok(found)
    }

    /// Makes a job for each, and offers it at once where the device is online.
    async fn start(
        &self,
        identities: Vec<Identity>,
        target: &Target<'_>,
        rotation: Option<&str>,
    ) -> Result<(), LedgerError> {
        futures::stream::iter(identities)
            .for_each_concurrent(CONCURRENCY, |identity| async move {
                match self.start_one(&identity, target, rotation).await {
                    Ok(()) | Err(LedgerError::Conflict) => {}
                    Err(error) => self.ledger_failed(&error),
                }
            })
            .await;
        Ok(())
    }

    async fn start_one(&self, id: &Identity, target: &Target<'_>, rotation: Option<&str>) -> Result<(), LedgerError> {
        let Some(device) = self.ledger.device(id).await? else {
            return Ok(());
        };
        let Some(kind) = due::next_job(now(), &device, target) else {
            return Ok(());
        };
        let new = NewJob {
            id: uuid::Uuid::now_v7(),
            nonce: Nonce(rand::random()),
            kind,
            rotation: rotation.map(str::to_owned),
        };
        let policy = self.policy(&device);
        let ctx = Context {
            now: now(),
            epoch: self.epoch,
            policy: &policy,
        };
        let Decision::Change { device: queued, .. } = step::start(&ctx, &device, new) else {
            return Ok(());
        };
        // Online and room: queued and sent in one transaction.
        let waits = Decision::Change {
            device: queued.clone(),
            send: None,
        };
        let decision = if self.presence.online(id) {
            match step::step(&ctx, &queued, &Event::Offer) {
                Decision::Same(_) => waits,
                offered => offered,
            }
        } else {
            waits
        };
        self.carry_out(&device, decision, With::default()).await
    }

    async fn offer(&self, fleet: &FleetEntry, identities: Vec<Identity>) {
        futures::stream::iter(identities)
            .for_each_concurrent(CONCURRENCY, |identity| async move {
                if let Err(error) = self.offer_one(fleet, &identity).await {
                    self.ledger_failed(&error);
                }
            })
            .await;
    }

    /// Offers a queued job, or cancels it where it is not to be done any more.
    async fn offer_one(&self, fleet: &FleetEntry, identity: &Identity) -> Result<(), LedgerError> {
        let Some(device) = self.ledger.device(identity).await? else {
            return Ok(());
        };
        let mut event = Event::Offer;
        if !due::still_wanted(&device, fleet.bundle) {
            event = Event::Cancel;
        } else if let Some(uid) = device.open_job().and_then(|job| job.rotation.as_ref()) {
            match self.registry.rotation(uid) {
                // The next sweep finds it again.
                Some(rotation) if rotation.control == RotationControl::Paused => return Ok(()),
                Some(_) => {}
                None => {
                    let ended = self.ledger.rotation(uid).await?.and_then(|stored| stored.ended);
                    if ended.is_some_and(|(_, outcome)| outcome == RotationOutcome::Cancelled) {
                        event = Event::Cancel;
                    }
                }
            }
        }
        if event == Event::Offer && !due::may_offer(now(), &device) {
            return Ok(());
        }
        self.happen(identity, event).await
    }
}

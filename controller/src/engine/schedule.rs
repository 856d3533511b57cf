//! Starts jobs: those of the Rotation that runs over each fleet, and those that waited for devices which are back.
//!
//! One task does all of it, so two devices never race for the last slot. The count of devices in flight is the
//! ledger's, so a restart forgets none.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use certwave_core::due::{self, Target};
use certwave_core::model::{Identity, JobKind};
use certwave_core::step::{self, Context, Decision, Event, NewJob};
use certwave_ledger::{FleetKey, LedgerError};
use certwave_protocol::ids::Nonce;
use futures::StreamExt as _;

use super::Engine;
use super::act::With;
use crate::clock::now;

const TICK: Duration = Duration::from_millis(500);
/// Devices that wait are looked through this often for those that are online by now.
const SWEEP: Duration = Duration::from_secs(10);
const CONCURRENCY: usize = 32;

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

    pub(super) fn take(&self, fleet: &FleetKey, most: u32) -> Vec<Identity> {
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

/// What a device's job is to be.
pub(super) enum Want<'a> {
    /// Closer to this.
    Closer(&'a Target<'a>),
    /// Back to the certificate before.
    Back,
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
            // Boxed, as it would make every future around it large.
            if let Err(error) = Box::pin(engine.serve(&fleet, sweep)).await {
                engine.ledger_failed(&error);
            }
        }
    }
}

impl Engine {
    /// Makes a job for each of these devices, and offers it at once to those for which there is room, as the flag says. Answers
    /// how many were sent one.
    pub(super) async fn start(&self, devices: Vec<(Identity, bool)>, want: &Want<'_>, rotation: &str) -> u32 {
        let sent = futures::stream::iter(devices)
            .map(|(identity, room)| async move {
                match self.start_one(&identity, room, want, rotation).await {
                    Ok(sent) => sent,
                    Err(LedgerError::Conflict) => false,
                    Err(error) => {
                        self.ledger_failed(&error);
                        false
                    }
                }
            })
            .buffer_unordered(CONCURRENCY)
            .fold(0_u32, |sum, sent| async move { sum + u32::from(sent) });
        sent.await
    }

    async fn start_one(&self, id: &Identity, room: bool, want: &Want<'_>, rotation: &str) -> Result<bool, LedgerError> {
        let Some(device) = self.ledger.device(id).await? else {
            return Ok(false);
        };
        let kind = match want {
            Want::Closer(target) => due::next_job(now(), &device, target),
            Want::Back => device.open_job().is_none().then_some(JobKind::Rollback),
        };
        let Some(kind) = kind else { return Ok(false) };
        let new = NewJob {
            id: uuid::Uuid::now_v7(),
            nonce: Nonce(rand::random()),
            kind,
            rotation: Some(rotation.to_owned()),
        };
        let policy = self.policy_of(&device, Some(rotation));
        let ctx = Context {
            now: now(),
            epoch: self.epoch,
            policy: &policy,
        };
        let Decision::Change { device: queued, .. } = step::start(&ctx, &device, new) else {
            return Ok(false);
        };
        // Online and room: queued and sent in one transaction. One that has come online since, or is to be let in first, is offered its
        // job when its turn comes.
        let offered = if room && self.registry.presence.online(id) && self.lets_in(&device).await? {
            step::step(&ctx, &queued, &Event::Offer)
        } else {
            Decision::Same(None)
        };
        let sent = matches!(offered, Decision::Change { .. });
        let decision = match offered {
            Decision::Change { .. } => offered,
            _ => Decision::Change {
                device: queued,
                send: None,
            },
        };
        self.carry_out(&device, decision, With::default()).await?;
        Ok(sent)
    }

    /// Lets these events happen to devices; answers how many offers were sent.
    pub(super) async fn offer(&self, events: Vec<(Identity, Event)>) -> u32 {
        let sent = futures::stream::iter(events)
            .map(|(identity, event)| async move {
                let offers = event == Event::Offer;
                match self.happen(&identity, event).await {
                    Ok(()) => u32::from(offers),
                    Err(error) => {
                        self.ledger_failed(&error);
                        0
                    }
                }
            })
            .buffer_unordered(CONCURRENCY)
            .fold(0_u32, |sum, sent| async move { sum + sent });
        sent.await
    }
}

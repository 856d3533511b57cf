//! One round over a fleet: who may start now, by the limits, waves and windows of the Rotation that runs, or, for devices that
//! come back after it, by the Fleet's.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use certwave_core::due::{self, Target};
use certwave_core::model::{Device, Identity, JobKind, Millis};
use certwave_core::rollout::admit::{self, Doors, Rate, Steady, Waiting};
use certwave_core::rollout::judge;
use certwave_core::rollout::select;
use certwave_core::rollout::strategy::Strategy;
use certwave_core::step::Event;
use certwave_ledger::{FleetKey, LedgerError, Member, MemberOutcome, MemberQuery, RotationOutcome};

use super::schedule::Want;
use super::{Engine, now};
use crate::registry::{FleetEntry, RotationEntry};

/// Members looked at in one go.
const BATCH: u32 = 256;
/// Waiting devices that one sweep looks at, the longest waiting first.
const SWEPT: u32 = 10_000;

/// Jobs sent in the last minute, by fleet.
pub(super) struct Pace {
    began: Instant,
    /// The same by the wall clock.
    began_at: Millis,
    rates: Mutex<HashMap<FleetKey, Rate>>,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            began: Instant::now(),
            began_at: now(),
            rates: Mutex::default(),
        }
    }
}

impl Pace {
    fn with<T>(
        &self,
        fleet: &FleetKey,
        first: impl FnOnce(Steady) -> Rate,
        f: impl FnOnce(&mut Rate, Steady) -> T,
    ) -> T {
        let mut rates = self.rates.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Steady::from(self.began.elapsed());
        let rate = rates.entry(fleet.clone()).or_insert_with(|| first(now));
        f(rate, now)
    }
}

/// What a round has to go by.
struct Round<'a> {
    fleet: &'a FleetEntry,
    /// The Rotation that runs.
    rotation: Option<&'a RotationEntry>,
    strategy: &'a Strategy,
    doors: Doors,
    /// Devices that may start by the limit in flight.
    room: u32,
    /// Jobs that may be sent by the rate.
    rate: u32,
    /// Devices unavailable, by group, in the Rotation.
    groups: BTreeMap<String, u32>,
    /// The Rotation exceeds a limit that nobody has acted on yet: nothing of it starts.
    breached: bool,
}

impl Round<'_> {
    fn left(&self) -> u32 {
        self.room.min(self.rate)
    }

    fn full_groups(&self) -> Vec<String> {
        admit::full_groups(&self.strategy.limits, &self.groups)
    }

    /// Whether this one member may be sent something now; counts it if so.
    fn take(&mut self, member: &Member) -> bool {
        let left = self.left();
        let waiting = [waiting(member)];
        let chosen = admit::choose(&self.doors, &self.strategy.limits, left, &mut self.groups, waiting);
        let taken = !chosen.is_empty();
        if taken {
            self.spend();
        }
        taken
    }

    fn spend(&mut self) {
        self.room = self.room.saturating_sub(1);
        self.rate = self.rate.saturating_sub(1);
    }
}

fn waiting(member: &Member) -> Waiting<'_> {
    Waiting {
        wave: member.wave,
        group: &member.group,
        windows: member.windows,
        not_after: member.not_after,
    }
}

impl Engine {
    /// One round for one fleet. While its broker is out nothing starts: that is our fault, not the devices'.
    pub(super) async fn serve(&self, fleet: &FleetEntry, sweep: bool) -> Result<(), LedgerError> {
        if self.links.get(&fleet.broker).is_none() {
            return Ok(());
        }
        let rotation = self.registry.running(&fleet.key);
        if sweep {
            for identity in self.ledger.queued(&fleet.key, SWEPT).await? {
                if self.registry.presence.online(&identity) {
                    self.ready.push(fleet.key.clone(), identity);
                }
            }
        }
        let mut round = self.round(fleet, rotation.as_deref()).await?;
        if round.room == 0 {
            return Ok(());
        }
        if let Some(rotation) = rotation.as_deref().filter(|r| r.reverts) {
            self.send_back(&mut round, rotation).await?;
        }
        self.serve_heard(&mut round).await?;
        if let Some(rotation) = rotation.as_deref().filter(|r| r.admits) {
            if sweep {
                self.try_again(&mut round, rotation).await?;
            }
            self.begin_members(&mut round, rotation).await?;
        }
        Ok(())
    }

    async fn round<'a>(
        &self,
        fleet: &'a FleetEntry,
        rotation: Option<&'a RotationEntry>,
    ) -> Result<Round<'a>, LedgerError> {
        let at = now();
        let strategy = rotation.map_or(&fleet.strategy, |r| &r.strategy);
        let calendar = rotation.map_or(&fleet.calendar, |r| &r.calendar);
        let (mut succeeded, mut breached, mut groups) = (0, false, BTreeMap::new());
        if let Some(rotation) = rotation {
            let waves = self.ledger.wave_counts(&rotation.uid).await?;
            succeeded = waves.iter().map(certwave_core::rollout::run::WaveCounts::proven).sum();
            breached = judge::breached(strategy, &rotation.plan, &rotation.run, &waves).is_some();
            if breached && rotation.admits {
                self.registry.rejudge();
            }
            if strategy.limits.per_group.is_some() {
                groups = self.ledger.groups_in_use(&rotation.uid).await?.into_iter().collect();
            }
        }
        let limits = &strategy.limits;
        // Whoever was sent a job in the minute before this process began is not known.
        let older = rotation.is_some_and(|r| r.run.wave > 0 || r.run.wave_since < self.pace.began_at);
        let first = |at| if older { Rate::full(at, limits) } else { Rate::new() };
        let allowed = |rate: &mut Rate, at| rate.allowed(at, limits, succeeded);
        let rate = self.pace.with(&fleet.key, first, allowed);
        Ok(Round {
            fleet,
            rotation,
            strategy,
            doors: Doors::new(at, strategy, rotation.map_or(0, |r| r.run.wave), calendar.open(at)),
            room: admit::room(limits, self.ledger.in_flight(&fleet.key).await?),
            rate,
            groups,
            breached,
        })
    }

    fn sent(&self, fleet: &FleetKey, jobs: u32) {
        self.pace.with(fleet, |_| Rate::new(), |rate, at| rate.record(at, jobs));
    }

    /// Devices whose turn it is to go back: windows and rate do not hold them up.
    async fn send_back(&self, round: &mut Round<'_>, rotation: &RotationEntry) -> Result<(), LedgerError> {
        let going = self
            .ledger
            .reverting(&rotation.uid, now(), round.room.min(BATCH))
            .await?;
        let sent = self.start(going, &Want::Back, &rotation.uid).await;
        round.room = round.room.saturating_sub(sent);
        self.sent(&round.fleet.key, sent);
        Ok(())
    }

    /// Members whose turn it is. Those that are offline get their job too, to find it when they come back; they use up nothing.
    async fn begin_members(&self, round: &mut Round<'_>, rotation: &RotationEntry) -> Result<(), LedgerError> {
        if round.breached || round.left() == 0 {
            return Ok(());
        }
        let query = MemberQuery {
            now: now(),
            through_wave: round.doors.through_wave,
            windows: round.doors.open,
            override_before_s: round.doors.override_before,
            full_groups: round.full_groups(),
            limit: BATCH,
        };
        let members = self.ledger.waiting_members(&rotation.uid, &query).await?;
        let mut chosen = Vec::new();
        for member in &members {
            if !self.registry.presence.online(&member.identity) || round.take(member) {
                chosen.push(member.identity.clone());
            } else if round.left() == 0 {
                break;
            }
        }
        let issuer = rotation.issuer.as_ref().map(|i| i.ca.key_id().to_string());
        let target = target(round.fleet, issuer.as_deref());
        let sent = self.start(chosen, &Want::Closer(&target), &rotation.uid).await;
        self.sent(&round.fleet.key, sent);
        Ok(())
    }

    /// Devices that timed out and are back.
    async fn try_again(&self, round: &mut Round<'_>, rotation: &RotationEntry) -> Result<(), LedgerError> {
        let job = &rotation.strategy.job;
        if round.breached || !job.retry_timed_out {
            return Ok(());
        }
        let found = self
            .ledger
            .retryable(&rotation.uid, now(), job.max_retries, BATCH)
            .await?;
        let mut chosen = Vec::new();
        for identity in found {
            // Its own group counts it already, so that is not asked again.
            if self.registry.presence.online(&identity) && round.left() > 0 {
                round.spend();
                chosen.push(identity);
            }
        }
        let issuer = rotation.issuer.as_ref().map(|i| i.ca.key_id().to_string());
        let target = target(round.fleet, issuer.as_deref());
        let sent = self.start(chosen, &Want::Closer(&target), &rotation.uid).await;
        self.sent(&round.fleet.key, sent);
        Ok(())
    }

    /// Devices that were just heard, and for which a job waits.
    async fn serve_heard(&self, round: &mut Round<'_>) -> Result<(), LedgerError> {
        let mut events = Vec::new();
        for identity in self.ready.take(&round.fleet.key, round.room.min(BATCH)) {
            if let Some(event) = self.next_event(round, &identity).await? {
                events.push((identity, event));
            }
        }
        let sent = self.offer(events).await;
        self.sent(&round.fleet.key, sent);
        Ok(())
    }

    /// Offers a queued job, or cancels it where it is not to be done any more. What must wait, the next sweep finds again.
    async fn next_event(&self, round: &mut Round<'_>, identity: &Identity) -> Result<Option<Event>, LedgerError> {
        let Some(device) = self.ledger.device(identity).await? else {
            return Ok(None);
        };
        if !due::still_wanted(&device, round.fleet.bundle) {
            return Ok(Some(Event::Cancel));
        }
        let Some(uid) = device.open_job().and_then(|job| job.rotation.clone()) else {
            return Ok(due::may_offer(now(), &device).then_some(Event::Offer));
        };
        let member = self.ledger.member(&uid, identity).await?;
        let back = device.open_job().is_some_and(|job| job.kind == JobKind::Rollback);
        if back && member.as_ref().is_none_or(|m| m.outcome != MemberOutcome::Reverting) {
            return Ok(Some(Event::Cancel));
        }
        if !due::may_offer(now(), &device) {
            return Ok(None);
        }
        let offered = match (round.rotation.filter(|r| r.uid == uid), member) {
            (Some(rotation), _) if back => rotation.reverts && round.room > 0,
            (Some(rotation), Some(member)) => rotation.admits && !round.breached && round.take(&member),
            (Some(_), None) => false,
            (None, _) => match self.ledger.rotation(&uid).await?.and_then(|stored| stored.ended) {
                Some((_, RotationOutcome::Succeeded)) => late(round, &device, now()),
                // What was stopped is not carried on behind people's backs.
                Some((_, RotationOutcome::Failed | RotationOutcome::Cancelled)) => return Ok(Some(Event::Cancel)),
                // It waits for something.
                None => false,
            },
        };
        if offered && (back || round.rotation.is_none_or(|r| r.uid != uid)) {
            round.spend();
        }
        Ok(offered.then_some(Event::Offer))
    }
}

/// Whether a device that was left for later may be served now: beside a Rotation that runs, or by the Fleet's windows.
fn late(round: &Round<'_>, device: &Device, now: Millis) -> bool {
    let Some(current) = &device.current else { return false };
    let strategy = &round.fleet.strategy;
    let open = round.fleet.calendar.open(now);
    let waiting = Waiting {
        wave: 0,
        group: "",
        windows: select::windows(&strategy.windows, &device.labels),
        not_after: current.not_after,
    };
    round.left() > 0 && Doors::new(now, strategy, 0, open).admit(&waiting)
}

fn target<'a>(fleet: &'a FleetEntry, issuer: Option<&'a str>) -> Target<'a> {
    Target {
        issuer: issuer.unwrap_or(&fleet.policy.issuer),
        bundle: fleet.bundle,
        renew_before: None,
    }
}

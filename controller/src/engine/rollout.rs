//! One round over a fleet: who may start now, by the limits, waves and windows of the Rotation that runs, or, for devices that
//! come back after it, by the Fleet's.

use std::collections::BTreeMap;
use std::time::Instant;

use certwave_core::due::{self, Target};
use certwave_core::model::{Device, Identity, JobKind, Millis};
use certwave_core::rollout::admit::{self, Doors, Rate, Waiting};
use certwave_core::rollout::judge;
use certwave_core::rollout::run::WaveCounts;
use certwave_core::rollout::select;
use certwave_core::rollout::strategy::Strategy;
use certwave_core::rollout::window::Calendar;
use certwave_core::step::Event;
use certwave_ledger::{FleetKey, LedgerError, Member, MemberOutcome, MemberQuery, RotationOutcome};

use super::Engine;
use super::pace::{Still, Wanted};
use super::schedule::Want;
use crate::clock::now;
use crate::registry::{FleetEntry, RotationEntry};

/// Members looked at in one round, and devices in one go.
const BATCH: u32 = 256;
/// A round begins by looking at so many members more than there is room for.
const FEW: u32 = 4;
/// A place in the order of members that none stands at.
const BEHIND_ALL: (u32, u32) = (u32::MAX, 0);
/// The time that a rate is counted over.
const MINUTE: Millis = 60_000;
/// Waiting devices that one sweep looks at, the longest waiting first.
const SWEPT: u32 = 10_000;

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
    /// Devices unavailable, by group.
    groups: BTreeMap<String, u32>,
    /// The Rotation exceeds a limit that nobody has acted on yet: nothing of it starts.
    breached: bool,
    /// Somebody of it has timed out, and may be back.
    vanished: bool,
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
        self.enter(&waiting(member), self.doors, self.left())
    }

    /// Whether this one member may be sent back now; counts it if so. Windows and rate do not hold it up.
    fn take_back(&mut self, member: &Member) -> bool {
        self.enter(&waiting(member), Doors::WIDE, self.room)
    }

    /// Whether a device that was left for later may be served now: by the Fleet's windows, within the limits of what runs.
    fn take_late(&mut self, device: &Device, now: Millis) -> bool {
        let Some(current) = &device.current else { return false };
        let strategy = &self.fleet.strategy;
        let limited = self.strategy.limits.per_group.as_ref();
        let late = Waiting {
            wave: 0,
            group: limited
                .and_then(|group| device.labels.get(&group.by))
                .map_or("", String::as_str),
            windows: select::windows(&strategy.windows, &device.labels),
            not_after: current.not_after,
        };
        let doors = Doors::new(now, strategy, 0, self.fleet.calendar.open(now));
        self.enter(&late, doors, self.left())
    }

    fn enter(&mut self, waiting: &Waiting<'_>, doors: Doors, left: u32) -> bool {
        let chosen = admit::choose(&doors, &self.strategy.limits, left, &mut self.groups, [*waiting]);
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

fn still(rotation: &RotationEntry, waves: &[WaveCounts]) -> Option<Still> {
    let begun = waves.iter().take(rotation.run.wave as usize + 1);
    let busy = begun.clone().any(|wave| wave.planned + wave.in_flight > 0);
    let changed = begun.map(|wave| wave.changed).max()?;
    (!busy).then(|| (rotation.uid.clone(), rotation.run.wave, changed))
}

fn doors(at: Millis, strategy: &Strategy, rotation: Option<&RotationEntry>, calendar: &Calendar) -> Doors {
    Doors::new(at, strategy, rotation.map_or(0, |r| r.run.wave), calendar.open(at))
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
            // At once, as the run may end before the next sweep.
            if round.vanished {
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
        let (mut succeeded, mut breached, mut vanished, mut groups) = (0, false, false, BTreeMap::new());
        if let Some(rotation) = rotation {
            // Who of the planned waits for something else only tells when a wave is done: the judge counts those.
            let waves = self.ledger.wave_tallies(&rotation.uid).await?;
            succeeded = waves.iter().map(WaveCounts::proven).sum();
            vanished = waves.iter().any(|wave| wave.vanished() > 0);
            breached = judge::breached(strategy, &rotation.plan, &rotation.run, &waves).is_some();
            // The next wave need not wait for the next look at this one.
            let still = still(rotation, &waves).is_some_and(|still| self.pace.news(&fleet.key, still));
            if rotation.admits && (breached || still) {
                self.registry.rejudge();
            }
            if strategy.limits.per_group.is_some() {
                groups = self.ledger.groups_in_use(&rotation.uid).await?.into_iter().collect();
            }
        }
        let limits = &strategy.limits;
        if let Some(per_group) = &limits.per_group {
            let uid = rotation.map(|r| r.uid.as_str());
            for (group, devices) in self.ledger.groups_elsewhere(&fleet.key, uid, &per_group.by).await? {
                *groups.entry(group).or_default() += devices;
            }
        }
        if !self.pace.knows(&fleet.key) {
            // What the process before this one sent.
            let sent = self.ledger.jobs_sent(&fleet.key, at.saturating_sub(MINUTE)).await?;
            self.pace.begin(&fleet.key, sent);
        }
        let allowed = |rate: &mut Rate, at| rate.allowed(at, limits, succeeded);
        let rate = self.pace.with(&fleet.key, allowed);
        Ok(Round {
            fleet,
            rotation,
            strategy,
            doors: doors(at, strategy, rotation, calendar),
            room: admit::room(limits, self.ledger.in_flight(&fleet.key).await?),
            rate,
            groups,
            breached,
            vanished,
        })
    }

    fn sent(&self, fleet: &FleetKey, jobs: u32) {
        self.pace.with(fleet, |rate, at| rate.record(at, jobs));
    }

    /// Devices whose turn it is to go back. Those that are offline get their job too.
    async fn send_back(&self, round: &mut Round<'_>, rotation: &RotationEntry) -> Result<(), LedgerError> {
        let mut going = Vec::new();
        for identity in self.ledger.reverting(&rotation.uid, now(), BATCH).await? {
            if !self.registry.presence.online(&identity) {
                going.push((identity, false));
                continue;
            }
            if round.room == 0 {
                break;
            }
            let member = self.ledger.member(&rotation.uid, &identity).await?;
            if member.is_some_and(|member| round.take_back(&member)) {
                going.push((identity, true));
            }
        }
        let sent = self.start(going, &Want::Back, &rotation.uid).await;
        self.sent(&round.fleet.key, sent);
        Ok(())
    }

    /// Members whose turn it is. Those that are offline get their job too, to find it when they come back; they use up nothing.
    async fn begin_members(&self, round: &mut Round<'_>, rotation: &RotationEntry) -> Result<(), LedgerError> {
        let issuer = rotation.issuer.as_ref().map(|i| i.ca.key_id().to_string());
        let target = target(round.fleet, issuer.as_deref());
        // Mostly there is room for one, who is among the first. Who is offline uses up none: then more are looked at.
        let (mut looked_at, mut next) = (0, round.left().saturating_add(FEW));
        while looked_at < BATCH && round.left() > 0 && !round.breached {
            next = next.min(BATCH - looked_at);
            // Reading and writing takes time, in which windows close.
            round.doors = doors(now(), round.strategy, Some(rotation), &rotation.calendar);
            let members = self.next_members(round, rotation, next).await?;
            let mut chosen = Vec::new();
            for member in &members {
                if !self.registry.presence.online(&member.identity) {
                    chosen.push((member.identity.clone(), false));
                } else if round.take(member) {
                    chosen.push((member.identity.clone(), true));
                } else if round.left() == 0 {
                    break;
                }
            }
            let (none, to_send) = (chosen.is_empty(), chosen.iter().filter(|(_, room)| *room).count());
            let sent = self.start(chosen, &Want::Closer(&target), &rotation.uid).await;
            self.sent(&round.fleet.key, sent);
            // Whoever could not be started is found again, in the next round.
            if none || members.len() < next as usize || sent as usize != to_send {
                break;
            }
            looked_at += next;
            next *= 4;
        }
        Ok(())
    }

    /// Members that may start, in their order. Many may stand before the first of them, waiting for other jobs: these are gone past
    /// now and then, not in each round.
    async fn next_members(
        &self,
        round: &Round<'_>,
        rotation: &RotationEntry,
        limit: u32,
    ) -> Result<Vec<Member>, LedgerError> {
        let (fleet, doors) = (&round.fleet.key, &round.doors);
        let wanted = Wanted {
            rotation: rotation.uid.clone(),
            through_wave: doors.through_wave,
            windows: doors.open,
            full_groups: round.full_groups(),
        };
        let from = self.pace.first(fleet, &wanted);
        let query = MemberQuery {
            now: now(),
            through_wave: wanted.through_wave,
            windows: wanted.windows,
            override_before_s: doors.override_before,
            full_groups: wanted.full_groups.clone(),
            from: from.unwrap_or_default(),
            limit,
        };
        let began = Instant::now();
        let members = self.ledger.waiting_members(&rotation.uid, &query).await?;
        let first = members.first().map(|member| (member.wave, member.ordinal));
        let took = from.is_none().then(|| began.elapsed());
        self.pace.found(fleet, wanted, first.unwrap_or(BEHIND_ALL), took);
        Ok(members)
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
            if round.left() == 0 || !self.registry.presence.online(&identity) {
                continue;
            }
            // Its own group counts it already, so that is not asked again.
            let member = self.ledger.member(&rotation.uid, &identity).await?;
            if member.is_some_and(|member| round.doors.admit(&waiting(&member))) {
                round.spend();
                chosen.push((identity, true));
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
            let offered = due::may_offer(now(), &device) && self.lets_in(&device).await?;
            return Ok(offered.then_some(Event::Offer));
        };
        let member = self.ledger.member(&uid, identity).await?;
        let back = device.open_job().is_some_and(|job| job.kind == JobKind::Rollback);
        if back && member.as_ref().is_none_or(|m| m.outcome != MemberOutcome::Reverting) {
            return Ok(Some(Event::Cancel));
        }
        if self.taken_over(round, &uid, identity).await? {
            return Ok(Some(Event::Cancel));
        }
        if !due::may_offer(now(), &device) || !self.lets_in(&device).await? {
            return Ok(None);
        }
        let offered = match (round.rotation.filter(|r| r.uid == uid), member) {
            (Some(rotation), Some(member)) if back => rotation.reverts && round.take_back(&member),
            (Some(rotation), Some(member)) => rotation.admits && !round.breached && round.take(&member),
            (Some(_), None) => false,
            (None, _) => match self.ledger.rotation(&uid).await?.and_then(|stored| stored.ended) {
                Some((_, RotationOutcome::Succeeded)) => round.take_late(&device, now()),
                // What was stopped is not carried on behind people's backs.
                Some((_, RotationOutcome::Failed | RotationOutcome::Cancelled)) => return Ok(Some(Event::Cancel)),
                // It waits for something.
                None => false,
            },
        };
        Ok(offered.then_some(Event::Offer))
    }

    /// Whether a device waits for a job of another Rotation while an emergency waits for the device: that comes first.
    async fn taken_over(&self, round: &Round<'_>, uid: &str, identity: &Identity) -> Result<bool, LedgerError> {
        let emergency = round
            .rotation
            .filter(|r| r.admits && r.strategy.emergency && r.uid != uid);
        let Some(emergency) = emergency else { return Ok(false) };
        let member = self.ledger.member(&emergency.uid, identity).await?;
        Ok(member.is_some_and(|member| member.outcome == MemberOutcome::Planned))
    }
}

fn target<'a>(fleet: &'a FleetEntry, issuer: Option<&'a str>) -> Target<'a> {
    Target {
        issuer: issuer.unwrap_or(&fleet.policy.issuer),
        bundle: fleet.bundle,
        renew_before: None,
    }
}

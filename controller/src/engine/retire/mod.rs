//! Retires old certificates (`retire: Revoke`): looks at each retirement when its time has come, and hears who comes back.
//! What follows is decided in `certwave_core::retire`.

mod begin;
mod look;
mod pace;
mod watch;

use std::time::{Duration, Instant};

use certwave_core::model::{Device, Identity, Millis};
use certwave_core::retire::{Act, Admission, Decision, Event, Phase, Policy, Retirement, Speaker, Why, step};
use certwave_core::revocation::{Holder, Reason};
use certwave_core::rollout::strategy::Retiring;
use certwave_ledger::{Act as Marking, FleetKey, LedgerError, Mark, Target};
use certwave_protocol::VERSION;
use certwave_protocol::ids::{BrokerId, Fingerprint, Nonce};
use certwave_protocol::message::{Body, Payload, Reconnect};
use certwave_protocol::topic::User;
use futures::StreamExt as _;

use super::act::seconds;
use super::{Engine, describe};
use crate::clock::now;
use crate::notice::Notice;

pub(super) use begin::{Strategies, void};
pub(super) use pace::Pace;
use pace::What;
pub(super) use watch::Watch;

const TICK: Duration = Duration::from_millis(500);
/// Retirements with certificates on hold that one round looks at.
const HOLDING: u32 = 1024;
/// Waiting ones that one round looks at.
const WAITING: u32 = 64;
/// Certificates of a broker's devices on hold at once, at most: so many devices are cut off if all of them took the wrong door.
const MOST_HELD: u32 = 512;
const CONCURRENCY: usize = 16;
/// Whoever is asked comes back within so long. That many are not asked at once is the pace's business.
const WITHIN: Millis = 2_000;
/// Whoever is asked again may be one of many that have just come back together: they are spread over at most this.
const SPREAD: Millis = 60_000;

/// Looks at what is due, for ever.
pub(super) async fn run(engine: &Engine) {
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        if !engine.registry.is_open() {
            continue;
        }
        for broker in engine.registry.brokers() {
            if let Err(error) = engine.retire(&broker.id).await {
                engine.ledger_failed(&error);
            }
        }
    }
}

impl Engine {
    /// One round for one broker: first those whose certificates are on hold, lest they stay so for longer than they must.
    async fn retire(&self, broker: &BrokerId) -> Result<(), LedgerError> {
        if self.restored().await? {
            return Ok(());
        }
        // All of them, whatever the clock says: it may have been set.
        let holding = self.ledger.due_retirements(broker, true, Millis::MAX, HOLDING).await?;
        self.retire_watch.keep(broker, &holding);
        let due = holding
            .into_iter()
            .filter(|held| self.retire_watch.due(held, Instant::now()));
        let mut looks = futures::stream::iter(due)
            .map(|retirement| async move { self.look_at(&retirement, Admission::Full).await })
            .buffer_unordered(CONCURRENCY);
        while let Some(looked) = looks.next().await {
            looked?;
        }
        let waiting = self.ledger.due_retirements(broker, false, now(), WAITING).await?;
        if waiting.is_empty() {
            return Ok(());
        }
        let mut room = MOST_HELD.saturating_sub(self.ledger.holding(broker).await?);
        let shut = !self.can_retire(broker);
        for retirement in waiting {
            let admission = if shut {
                Admission::Shut
            } else if room > 0 && self.retire_pace.open(broker, What::Hold, Instant::now()) {
                Admission::Now
            } else {
                return Ok(());
            };
            if self.look_at(&retirement, admission).await? {
                room -= 1;
            }
        }
        Ok(())
    }

    /// Whether the ledger comes from a backup and does not know all that was revoked: nothing is done by it.
    pub(in crate::engine) async fn restored(&self) -> Result<bool, LedgerError> {
        Ok(self.ledger.provenance().await?.restored_at.is_some())
    }

    /// Looks at one; answers whether its certificate went on hold.
    async fn look_at(&self, retirement: &Retirement, admission: Admission) -> Result<bool, LedgerError> {
        let device = self.ledger.device(&retirement.identity).await?;
        let retiring = self.retiring(retirement, device.as_ref()).await?;
        let (broker, at) = (&retirement.identity.broker, Instant::now());
        let waited = self.retire_watch.waited(retirement, at);
        // Where the pace would let the time run out, the question goes first.
        let late = waited.is_none_or(|waited| waited >= retiring.probation / 2);
        let may_ask = late || self.retire_pace.open(broker, What::Ask, at);
        let event = Event::Look {
            seen: self.seen(retirement, device.as_ref()).await?,
            admission,
            loaded: may_ask && retirement.phase == Phase::Held && self.shut_out(&retirement.old).await?,
            waited,
            heard: self.heard(retirement, waited, retiring.probation),
            nonce: Nonce(rand::random()),
        };
        let after = self.take(retirement, device.as_ref(), &event, &retiring).await?;
        match after {
            Some(Phase::Held) => self.retire_pace.spend(broker, What::Hold, retiring.per_second, at),
            Some(Phase::Asked) => self.retire_pace.spend(broker, What::Ask, retiring.per_second, at),
            _ => {}
        }
        Ok(after == Some(Phase::Held))
    }

    /// A device has said hello, signed with the key of this certificate.
    pub(super) async fn came_back(&self, identity: &Identity, signed: Option<Fingerprint>, echo: Option<Nonce>) {
        if let Err(error) = self.hear_hello(identity, signed, echo).await {
            // It is asked once more before its time is over.
            self.ledger_failed(&error);
        }
    }

    async fn hear_hello(
        &self,
        identity: &Identity,
        signed: Option<Fingerprint>,
        echo: Option<Nonce>,
    ) -> Result<(), LedgerError> {
        let Some(retirement) = self.ledger.retirement(identity).await? else {
            return Ok(());
        };
        let speaker = match signed {
            Some(key) if key == retirement.new => Speaker::New,
            Some(key) if key == retirement.old => Speaker::Old,
            _ => return Ok(()),
        };
        // A proof that cannot be judged now is asked for again.
        if !retirement.phase.holds() || !self.can_retire(&identity.broker) || self.restored().await? {
            return Ok(());
        }
        let device = self.ledger.device(identity).await?;
        let retiring = self.retiring(&retirement, device.as_ref()).await?;
        let seen = self.seen(&retirement, device.as_ref()).await?;
        let event = Event::Hello { seen, speaker, echo };
        self.take(&retirement, device.as_ref(), &event, &retiring).await?;
        Ok(())
    }

    /// Decides, writes, speaks. Answers the phase that was entered.
    async fn take(
        &self,
        before: &Retirement,
        device: Option<&Device>,
        event: &Event,
        retiring: &Retiring,
    ) -> Result<Option<Phase>, LedgerError> {
        let at = now();
        let probation = retiring.probation;
        let spread = (probation / 4).clamp(WITHIN, SPREAD);
        match step(at, before, event, Policy { probation }) {
            Decision::Stay => Ok(None),
            Decision::Ask => {
                self.ask_back(device, before.nonce, spread);
                Ok(None)
            }
            Decision::Change { next, act, ask } => {
                let mark = act.map(|act| mark(before, &next, act, at));
                let stored = self
                    .ledger
                    .step_retirement(self.epoch, at, (before.phase, before.since), next.clone(), mark)
                    .await;
                match stored {
                    Ok(marked) if marked.is_empty() => {}
                    Ok(_) => self.registry.standing_moved(),
                    // Somebody was faster; it is looked at again.
                    Err(LedgerError::Conflict) => return Ok(None),
                    Err(error) => return Err(error),
                }
                let entered = (next.phase != before.phase).then_some(next.phase);
                if ask {
                    self.ask_back(device, next.nonce, if entered.is_some() { WITHIN } else { spread });
                }
                if entered.is_some() {
                    self.retire_watch.enter(&next, probation, Instant::now());
                    self.entered(&next, device);
                }
                Ok(entered)
            }
        }
    }

    /// Asks a device to come back within so many milliseconds, on the connection that it was last heard on.
    fn ask_back(&self, device: Option<&Device>, nonce: Option<Nonce>, within: Millis) {
        let Some(device) = device else { return };
        let (Some(speaker), Some(session)) = (self.links.get(&device.id.broker), device.session) else {
            return;
        };
        let payload = Payload {
            v: VERSION,
            broker: device.id.broker.clone(),
            device: device.id.device.clone(),
            session,
            job: None,
            nonce,
            epoch: Some(self.epoch),
            body: Body::Reconnect(Reconnect {
                within: seconds(within),
            }),
        };
        speaker.say(&User::Device(device.id.device.clone()), &payload);
    }

    /// Counts and tells.
    fn entered(&self, next: &Retirement, device: Option<&Device>) {
        let identity = describe(&next.identity);
        tracing::debug!(device = identity, job = %next.job, phase = next.phase.as_str(), "retirement");
        if !next.phase.ended() {
            return;
        }
        let outcome = next.why.map_or("revoked", Why::as_str);
        self.metrics.retirements_ended.with_label_values(&[outcome]).inc();
        let Some(why) = next.why.filter(|why| why.counts()) else {
            return;
        };
        tracing::warn!(device = identity, job = %next.job, why = why.as_str(), "the old certificate is let go");
        if let Some(device) = device {
            self.notify(Notice::ProbationFailed {
                object: device.object.clone(),
                fleet: FleetKey::of(device),
                why,
            });
        }
        self.registry.rejudge();
    }
}

/// What becomes of the old certificate, by its own serial number and no name.
fn mark(before: &Retirement, next: &Retirement, act: Act, at: Millis) -> Mark {
    let holder = Holder::Retirement(before.job);
    let (act, detail) = match act {
        Act::Hold => (
            Marking::Hold(holder),
            "until the device comes back by its new certificate",
        ),
        Act::Release => (
            Marking::Release(holder),
            next.why.map_or("to be tried again", Why::as_str),
        ),
        Act::Revoke => (
            Marking::Revoke {
                reason: Reason::Superseded,
                invalid_since: None,
            },
            "the device came back by its new certificate",
        ),
    };
    Mark {
        target: Target::Certificate(before.old),
        act,
        requested_at: at,
        who: "controller".to_owned(),
        revocation: None,
        detail: Some(format!("retirement: {detail}")),
    }
}

#[cfg(test)]
mod tests;

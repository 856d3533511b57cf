//! Live sessions of devices that a person has revoked or put on hold.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use certwave_core::model::Identity;
use certwave_ledger::OpenSession;
use certwave_protocol::ids::DeviceId;
use futures::StreamExt as _;

use super::{Keeper, ShutError};
use crate::clock::now;
use crate::door::DoorError;

/// Sessions looked at in one round.
const BATCH: u32 = 10_000;
/// Closed at the same time: what a broker does beside its work.
const AT_ONCE: usize = 64;
/// Written to the ledger at once.
const WRITTEN: usize = 500;

/// The pause before one that could not be closed is tried again, doubled with each,
const AGAIN: Duration = Duration::from_millis(250);
/// up to this.
const LONGEST: Duration = Duration::from_secs(4);

/// A session, by its device and the change for which it is closed.
type Key = (DeviceId, u64);

/// What was tried.
#[derive(Default)]
pub(super) struct Sessions {
    /// Closed before the door was shut; their devices may be back.
    early: HashSet<Key>,
    /// Not closed, or not everywhere: when they are tried again, and how long the pause is.
    failed: HashMap<Key, (Instant, Duration)>,
    /// Why, the last time: that is so until they are tried again.
    error: Option<DoorError>,
}

impl Sessions {
    fn is_wanted(&self, session: &OpenSession, now: Instant) -> bool {
        let key = key(session);
        (session.shut || !self.early.contains(&key)) && !self.is_waiting(session, now)
    }

    fn is_waiting(&self, session: &OpenSession, now: Instant) -> bool {
        self.failed.get(&key(session)).is_some_and(|(at, _)| *at > now)
    }

    fn failed(&mut self, key: Key) {
        let before = self.failed.get(&key).map(|(_, pause)| *pause);
        let pause = before.map_or(AGAIN, |pause| (pause * 2).min(LONGEST));
        self.failed.insert(key, (Instant::now() + pause, pause));
    }
}

fn key(session: &OpenSession) -> Key {
    (session.identity.device.clone(), session.change)
}

impl Keeper {
    /// Closes what is to be closed. That of a device whose door is shut is closed for good; so is one at a broker that does not
    /// say when it is: its adapter keeps the device out until then.
    pub(super) async fn close_sessions(&mut self) -> Result<(), ShutError> {
        if !self.door.abilities().kicks {
            return Ok(());
        }
        let mut open = self.engine.ledger.open_sessions(&self.entry.id, BATCH).await?;
        if open.is_empty() {
            self.sessions = Sessions::default();
            return Ok(());
        }
        // Those who are said to be there go first: of ten thousand that are revoked together most may be away.
        open.sort_by_cached_key(|session| !self.engine.registry.presence.online(&session.identity));
        let begun = Instant::now();
        let waiting = open.iter().any(|session| self.sessions.is_waiting(session, begun));
        let wanted = open.into_iter().filter(|s| self.sessions.is_wanted(s, begun));
        let mut kicks = futures::stream::iter(wanted.collect::<Vec<_>>())
            .map(|session| self.kick(session))
            .buffer_unordered(AT_ONCE)
            .ready_chunks(WRITTEN);
        let unsaid = !self.door.abilities().reports_loading;
        let (mut early, mut late, mut failed) = (Vec::new(), Vec::new(), None::<DoorError>);
        while let Some(chunk) = kicks.next().await {
            let mut closed: Vec<(Identity, u64)> = Vec::new();
            for (kicked, session) in chunk {
                match kicked {
                    Ok(()) if session.shut || unsaid => closed.push((session.identity, session.change)),
                    Ok(()) => early.push(key(&session)),
                    Err(error) => {
                        late.push(key(&session));
                        failed = Some(error);
                    }
                }
            }
            if !closed.is_empty() {
                let count = closed.len() as u64;
                let engine = &self.engine;
                engine.ledger.sessions_closed(engine.epoch, now(), closed).await?;
                engine.metrics.brokers.sessions_closed.inc_by(count);
            }
            if matches!(failed, Some(DoorError::Unreachable(_) | DoorError::Timeout(_))) {
                // Nobody answers: to try each of ten thousand would keep this round, and what it has to write, for long.
                break;
            }
        }
        drop(kicks);
        for key in &early {
            self.sessions.failed.remove(key);
        }
        self.sessions.early.extend(early);
        for key in late {
            self.sessions.failed(key);
        }
        if failed.is_some() || !waiting {
            self.sessions.error = failed;
        }
        // Whoever is left is still there in the next round.
        self.sessions.error.clone().map_or(Ok(()), |error| Err(error.into()))
    }

    async fn kick(&self, session: OpenSession) -> (Result<(), DoorError>, OpenSession) {
        let kicked = self.asked(self.door.kick(&session.identity.device)).await;
        (kicked.map(drop), session)
    }
}

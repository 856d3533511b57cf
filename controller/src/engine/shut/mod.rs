//! Keeps each broker's door shut to whom it should be.
//!
//! One task for each broker with an adapter, in rounds: what was revoked and is published is told to the adapter ([`tell`]), what
//! its nodes have loaded goes into the ledger ([`load`]), and the sessions of revoked devices are closed ([`sessions`]): once as
//! soon as the ledger knows, as a stolen device must be out within seconds, and once the door is shut, as it may have come back.

mod load;
mod sessions;
mod tell;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use certwave_core::door::Node;
use certwave_ledger::LedgerError;
use certwave_protocol::ids::BrokerId;

use super::Engine;
use super::link::Guard;
use crate::door::{self, Door, DoorError, DoorView, Fault, Voice};
use crate::registry::BrokerEntry;

/// How often a broker's door is looked at; whatever it says is looked at in between.
const PERIOD: Duration = Duration::from_millis(250);
/// After a fault of the ledger.
const PAUSE: Duration = Duration::from_secs(2);
/// For one call of an adapter.
const PATIENCE: Duration = Duration::from_secs(10);

/// Keeps a task for each broker that has an adapter, for ever.
pub(super) async fn supervise(engine: Arc<Engine>) {
    let mut tasks: HashMap<BrokerId, (String, Guard)> = HashMap::new();
    let registry = Arc::clone(&engine.registry);
    loop {
        let mut changed = std::pin::pin!(registry.brokers_changed());
        changed.as_mut().enable();
        let wanted = registry.brokers();
        tasks.retain(|id, (version, _)| {
            let same = wanted.iter().any(|b| b.id == *id && b.version == *version);
            if !same {
                registry.set_door(id.clone(), None);
                registry.set_door_view(id.clone(), None);
                // Not there is as good.
                let _ = engine.metrics.brokers.door_current.remove_label_values(&[id.as_str()]);
            }
            same
        });
        for entry in wanted {
            if tasks.contains_key(&entry.id) {
                continue;
            }
            let voice = Arc::new(LinkVoice {
                engine: Arc::clone(&engine),
                broker: entry.id.clone(),
            });
            if let Some(door) = door::open(&entry, voice) {
                registry.set_door(entry.id.clone(), Some(Arc::clone(&door)));
                let keeper = Keeper::new(Arc::clone(&engine), Arc::clone(&entry), door);
                let guard = Guard(tokio::spawn(keeper.keep()).abort_handle());
                tasks.insert(entry.id.clone(), (entry.version.clone(), guard));
            }
        }
        changed.await;
    }
}

/// Speaks over the connection that there is at the time.
struct LinkVoice {
    engine: Arc<Engine>,
    broker: BrokerId,
}

impl Voice for LinkVoice {
    fn say(&self, topic: String, message: Vec<u8>) -> bool {
        let speaker = self.engine.links.get(&self.broker);
        speaker.is_some_and(|speaker| speaker.say_plainly(topic, message))
    }
}

/// Why a part of a round broke off.
#[derive(Debug, thiserror::Error)]
enum ShutError {
    #[error("the ledger: {0}")]
    Ledger(#[from] LedgerError),
    #[error("the broker {0}")]
    Door(#[from] DoorError),
}

/// Takes the ledger's errors out: they end a round.
fn of_door(result: Result<(), ShutError>) -> Result<Result<(), DoorError>, LedgerError> {
    match result {
        Ok(()) => Ok(Ok(())),
        Err(ShutError::Door(error)) => Ok(Err(error)),
        Err(ShutError::Ledger(error)) => Err(error),
    }
}

/// Works on one broker's door.
struct Keeper {
    engine: Arc<Engine>,
    entry: Arc<BrokerEntry>,
    door: Arc<dyn Door>,
    told: tell::Told,
    loads: load::Loads,
    sessions: sessions::Sessions,
}

impl Keeper {
    fn new(engine: Arc<Engine>, entry: Arc<BrokerEntry>, door: Arc<dyn Door>) -> Self {
        Self {
            engine,
            entry,
            door,
            told: tell::Told::default(),
            loads: load::Loads::default(),
            sessions: sessions::Sessions::default(),
        }
    }

    async fn keep(mut self) {
        while self.engine.gate.is_open() {
            let pause = match self.round().await {
                Ok(()) => PERIOD,
                Err(error) => {
                    self.engine.ledger_failed(&error);
                    PAUSE
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.door.changed() => {}
            }
        }
    }

    /// What the broker refuses holds up nothing else: a node that is away must not keep sessions open at the others.
    async fn round(&mut self) -> Result<(), LedgerError> {
        let published = self.published().await?;
        let told = of_door(self.tell(&published).await)?;
        let asked = self.asked(self.door.loaded(&published)).await;
        let (nodes, late) = match &asked {
            Ok(nodes) => (nodes.clone(), self.load(nodes, &published).await?),
            Err(_) => (Vec::new(), None),
        };
        let closed = of_door(self.close_sessions().await)?;
        let errors: Vec<DoorError> = [told.err(), asked.err(), closed.err()].into_iter().flatten().collect();
        for error in &errors {
            self.failed(error);
        }
        self.show(nodes, errors.first().map(Fault::untold).or(late));
        Ok(())
    }

    /// A call of the adapter, within a time.
    async fn asked<T>(&self, call: impl Future<Output = Result<T, DoorError>>) -> Result<T, DoorError> {
        tokio::time::timeout(PATIENCE, call)
            .await
            .unwrap_or(Err(DoorError::Timeout(PATIENCE)))
    }

    fn failed(&self, error: &DoorError) {
        tracing::debug!(broker = %self.entry.id, %error, "the broker's door");
        let labels = [self.entry.door.kind(), error.category()];
        self.engine.metrics.brokers.door_errors.with_label_values(&labels).inc();
    }

    fn show(&self, nodes: Vec<Node>, fault: Option<Fault>) {
        let current = &self.engine.metrics.brokers.door_current;
        current
            .with_label_values(&[self.entry.id.as_str()])
            .set(fault.is_none().into());
        let view = DoorView {
            abilities: self.door.abilities(),
            nodes,
            fault,
        };
        self.engine.registry.set_door_view(self.entry.id.clone(), Some(view));
    }
}

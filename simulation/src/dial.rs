//! A replica's way to the broker.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use certwave_controller::engine::dial::{Destination, Dial, Happened, Line, Opened, Outbox};
use certwave_protocol::envelope::Unverified;
use tokio::sync::Notify;

use crate::broker::{Broker, Connection, Mouth, Packet, Shut};
use crate::judge::Judge;
use crate::weather::{Life, Place};

/// A ping is sent after this long.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// See the module.
pub struct ToBroker {
    /// The broker.
    pub broker: Arc<Broker>,
    /// Whose way.
    pub life: Arc<Life>,
    /// Who hears what is said.
    pub judge: Arc<Judge>,
}

impl Dial for ToBroker {
    fn dial(&self, to: Destination<'_>) -> Result<Opened, String> {
        let leaf = to.chain.first().ok_or("no certificate")?.to_vec();
        let outbox = Arc::new(Out {
            life: Arc::clone(&self.life),
            judge: Arc::clone(&self.judge),
            mouth: Mutex::default(),
            asked: Mutex::default(),
            news: Notify::new(),
        });
        let line = Over {
            broker: Arc::clone(&self.broker),
            life: Arc::clone(&self.life),
            client: to.client_id,
            leaf,
            outbox: Arc::clone(&outbox),
            connection: None,
        };
        Ok((outbox, Box::new(line)))
    }
}

struct Out {
    life: Arc<Life>,
    judge: Arc<Judge>,
    mouth: Mutex<Option<Mouth>>,
    /// What left and is not told of yet.
    asked: Mutex<VecDeque<Happened>>,
    news: Notify,
}

impl Out {
    fn with(&self, say: impl FnOnce(&Mouth) -> bool) -> bool {
        if self.life.is_over() {
            return true;
        }
        let said = self
            .mouth
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .as_ref()
            .is_some_and(say);
        if said {
            self.asked
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push_back(Happened::Asked);
            self.news.notify_one();
        }
        said
    }
}

impl Outbox for Out {
    fn publish(&self, topic: String, message: Vec<u8>) -> bool {
        if !self.life.is_over()
            && let Ok(said) = Unverified::parse(&message)
        {
            let payload = said.claimed();
            self.judge.said(payload.epoch, payload.body.kind().as_str());
        }
        self.with(|mouth| mouth.publish(topic, message))
    }

    fn subscribe(&self, filter: &str) -> bool {
        self.with(|mouth| mouth.subscribe(filter))
    }

    fn unsubscribe(&self, _: String) -> bool {
        self.with(Mouth::ask)
    }
}

struct Over {
    broker: Arc<Broker>,
    life: Arc<Life>,
    client: String,
    leaf: Vec<u8>,
    outbox: Arc<Out>,
    connection: Option<Connection>,
}

#[async_trait]
impl Line for Over {
    async fn next(&mut self) -> Result<Happened, String> {
        self.life.goes_on().await;
        let Some(connection) = &mut self.connection else {
            let place = Place::Broker(self.life.replica);
            let made = self.broker.connect(place, self.client.clone(), &self.leaf, None).await;
            self.life.goes_on().await;
            let connection = made.map_err(|shut| match shut {
                Shut::Unreachable => "nobody answers".to_owned(),
                Shut::Refused(alert) => format!("TLS alert {alert}"),
            })?;
            *self.outbox.mouth.lock().unwrap_or_else(PoisonError::into_inner) = Some(connection.mouth());
            self.connection = Some(connection);
            return Ok(Happened::Connected);
        };
        loop {
            let asked = self
                .outbox
                .asked
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .pop_front();
            if let Some(asked) = asked {
                return Ok(asked);
            }
            tokio::select! {
                biased;
                () = self.outbox.news.notified() => {}
                packet = connection.next() => {
                    self.life.goes_on().await;
                    return match packet {
                        None => Err("the connection broke".to_owned()),
                        Some(Packet::Subscribed) => Ok(Happened::Subscribed(true)),
                        Some(Packet::Taken) => Ok(Happened::Answered),
                        Some(Packet::Message(topic, payload)) => Ok(Happened::Message { topic: Bytes::from(topic), payload }),
                    };
                }
                () = tokio::time::sleep(KEEP_ALIVE) => {
                    self.outbox.with(Mouth::ask);
                }
            }
        }
    }
}

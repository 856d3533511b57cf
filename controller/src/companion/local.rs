//! The Mosquitto beside it, over a Unix socket that only who may work on this broker can reach.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use certwave_protocol::ids::DeviceId;
use rumqttc::{AsyncClient, Broker, Event, Incoming, MqttOptions, PublishOptions, QoS};
use rustix::process::{Pid, Signal, kill_process};
use tokio::net::UnixStream;
use tokio::sync::{Semaphore, mpsc};

use crate::door::mosquitto::wire::{self, DownType, Kick, Kicked, NodeName, UpType};

/// A Mosquitto that reads a list of a million entries answers nothing meanwhile.
const PROOF: Duration = Duration::from_mins(1);
/// For one session to be closed.
const KICK: Duration = Duration::from_secs(3);
/// Sessions closed at the same time.
const KICKS: usize = 32;
const PAUSE: Duration = Duration::from_millis(500);
const OUTBOX: usize = 1024;

/// Why the broker beside it could not be made to load, or to close a session.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// No connection.
    #[error("no connection to Mosquitto's socket {}: {why}", path.display())]
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// It cannot be told who listens, or be signalled.
    #[error("Mosquitto cannot be told to reload: {0}; run as its user, and in its process namespace")]
    Signal(String),
    /// It does not answer after the signal.
    #[error("Mosquitto did not answer within {} s after it was told to reload", PROOF.as_secs())]
    Unproven,
    /// It refuses.
    #[error("Mosquitto refuses the connection that would end the session: {0}")]
    Refused(String),
}

impl LocalError {
    /// A short word of a closed set.
    pub const fn category(&self) -> &'static str {
        match self {
            Self::Unreachable { .. } => "unreachable",
            Self::Signal(_) => "signal",
            Self::Unproven => "unproven",
            Self::Refused(_) => "refused",
        }
    }
}

/// What the broker beside it says.
#[derive(Debug)]
pub(super) enum Said {
    /// A connection has begun: perhaps to a process that has read another file.
    Connected,
    /// It has ended.
    Gone,
    /// The controller says something.
    Told(DownType, Vec<u8>),
}

/// The connection.
pub(super) struct Local {
    socket: PathBuf,
    client: AsyncClient,
    nothing: String,
}

impl Local {
    /// Connects, again and again, for as long as somebody listens. Orders to close sessions are carried out at once, whatever else
    /// is going on.
    pub(super) fn start(socket: &Path, prefix: &str, node: &NodeName) -> (Self, mpsc::Receiver<Said>) {
        let mut options = MqttOptions::new(format!("~door.{}", node.as_str()), Broker::unix(socket));
        options.set_keep_alive(30);
        options.set_clean_session(true);
        let (client, mut events) = AsyncClient::builder(options).capacity(OUTBOX).build();
        let (say, said) = mpsc::channel(OUTBOX);
        let kicker = Arc::new(Kicker {
            socket: socket.to_owned(),
            client: client.clone(),
            answers: node.up(prefix, UpType::Kicked),
            room: Semaphore::new(KICKS),
        });
        let local = Self {
            socket: socket.to_owned(),
            client: client.clone(),
            nothing: format!("{prefix}/~nothing"),
        };
        let topics = [
            node.down(prefix, DownType::Crl),
            node.down(prefix, DownType::Kick),
            wire::everybody(prefix),
        ];
        tokio::spawn(async move {
            let mut connected = false;
            loop {
                let next = match events.poll().await {
                    Ok(Event::Incoming(Incoming::ConnAck(_))) => {
                        connected = true;
                        for topic in &topics {
                            if let Err(error) = client.try_subscribe(topic, QoS::AtLeastOnce) {
                                tracing::error!(topic, %error, "not subscribed");
                            }
                        }
                        Said::Connected
                    }
                    Ok(Event::Incoming(Incoming::Publish(message))) => {
                        let topic = String::from_utf8_lossy(&message.topic);
                        match wire::parse_down(&topic) {
                            Some(DownType::Kick) => {
                                tokio::spawn(Arc::clone(&kicker).obey(message.payload.to_vec()));
                                continue;
                            }
                            Some(kind) => Said::Told(kind, message.payload.to_vec()),
                            None => continue,
                        }
                    }
                    Ok(_) => continue,
                    Err(error) => {
                        tracing::warn!(%error, "not connected to Mosquitto");
                        tokio::time::sleep(PAUSE).await;
                        if !std::mem::take(&mut connected) {
                            continue;
                        }
                        Said::Gone
                    }
                };
                if say.send(next).await.is_err() {
                    return;
                }
            }
        });
        (local, said)
    }

    /// Says something to the controller; lost while there is no connection, and said again on the next beat.
    pub(super) fn say(&self, topic: &str, message: Vec<u8>) {
        say(&self.client, topic, message);
    }

    /// Has Mosquitto read its file, and proves that it has.
    ///
    /// Who listens on the socket is asked of the kernel, so that the signal goes to the very process that the proof is of.
    /// Mosquitto notes the signal, and reloads between two rounds of its one loop. Whatever it reads from a connection after the
    /// signal it answers in a round that ends after it has noted it; so the answer to the second of two questions, one after the
    /// other, comes from a round after the reload.
    pub(super) async fn load(&self) -> Result<(), LocalError> {
        let unreachable = |error: std::io::Error| LocalError::Unreachable {
            path: self.socket.clone(),
            why: error.to_string(),
        };
        let peer = UnixStream::connect(&self.socket).await.map_err(unreachable)?;
        let pid = peer.peer_cred().map_err(unreachable)?.pid().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| LocalError::Signal("its process is not visible from here".to_owned()))?;
        kill_process(pid, Signal::HUP).map_err(|error| LocalError::Signal(error.to_string()))?;
        for _ in 0..2 {
            let answered = tokio::time::timeout(PROOF, self.ask()).await;
            if !answered.unwrap_or(false) {
                return Err(LocalError::Unproven);
            }
        }
        Ok(())
    }

    /// A question that is answered whatever it says: the end of a subscription that there is not (MQTT 3.1.1, 3.10.4).
    async fn ask(&self) -> bool {
        match self.client.unsubscribe_tracked(&self.nothing).await {
            Ok(notice) => notice.wait_async().await.is_ok(),
            Err(_) => false,
        }
    }
}

fn say(client: &AsyncClient, topic: &str, message: Vec<u8>) {
    let options = PublishOptions::new(QoS::AtLeastOnce);
    if let Err(error) = client.try_publish(topic, message, options) {
        tracing::warn!(topic, %error, "not said");
    }
}

/// Closes sessions.
struct Kicker {
    socket: PathBuf,
    client: AsyncClient,
    answers: String,
    room: Semaphore,
}

impl Kicker {
    async fn obey(self: Arc<Self>, message: Vec<u8>) {
        let Ok(kick) = serde_json::from_slice::<Kick>(&message) else {
            return;
        };
        let (mut failed, mut why) = (Vec::new(), None);
        for device in kick.devices {
            let _room = self.room.acquire().await;
            if let Err(error) = take_over(&self.socket, &device).await {
                failed.push(device);
                why = Some(error.to_string());
            }
        }
        let answer = Kicked {
            order: kick.order,
            failed,
            error: why,
        };
        if let Ok(answer) = serde_json::to_vec(&answer) {
            say(&self.client, &self.answers, answer);
        }
    }
}

/// Connects under the device's client id, which ends its connection (MQTT 3.1.1, 3.1.4), and leaves.
async fn take_over(socket: &Path, device: &DeviceId) -> Result<(), LocalError> {
    let mut options = MqttOptions::new(device.to_string(), Broker::unix(socket));
    options.set_keep_alive(5);
    options.set_clean_session(true);
    let (client, mut events) = AsyncClient::builder(options).capacity(4).build();
    let taken = async {
        loop {
            match events.poll().await {
                Ok(Event::Incoming(Incoming::ConnAck(_))) => break,
                Ok(_) => {}
                Err(error) => return Err(LocalError::Refused(error.to_string())),
            }
        }
        if client.disconnect().await.is_ok() {
            // Until the connection has ended; it is to be ended.
            while events.poll().await.is_ok() {}
        }
        Ok(())
    };
    tokio::time::timeout(KICK, taken)
        .await
        .unwrap_or_else(|_| Err(LocalError::Refused("no answer".to_owned())))
}

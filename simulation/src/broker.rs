//! The broker, and the companion beside it: sessions, topics with their rules, a door that goes by the CRLs that it has loaded.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use certwave_controller::door::mosquitto::wire::{
    DownType, Hint, Kick, Kicked, Loaded, NodeName, ScopeNumber, UpType, everybody,
};
use certwave_ledger::Ledger;
use certwave_pki::crl::{Crl, Mark};
use certwave_pki::parse_certificate_info;
use certwave_protocol::ids::{Fingerprint, Nonce};
use rand::RngExt as _;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use crate::history::History;
use crate::judge::{Judge, Scope};
use crate::os;
use crate::weather::{Fate, Place, Weather};

/// Topics begin with it.
pub const PREFIX: &str = "certwave";
/// A message takes at least so long, milliseconds.
const LATENCY: u64 = 2;
/// Somebody who does not answer for so long is gone.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often the companion looks for CRLs, and says what it has.
const LOOK: Duration = Duration::from_secs(5);
const BEATS: u64 = 3;

/// Mistakes made on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mistake {
    /// Whoever is revoked is let in.
    LetsRevokedIn,
    /// The companion says that it has loaded what it has not.
    ClaimsToHaveLoaded,
    /// The companion says that it has closed sessions that go on.
    ClaimsToHaveClosed,
}

/// What comes over a connection.
#[derive(Debug, Clone)]
pub enum Packet {
    /// A message.
    Message(String, Bytes),
    /// What was published, or asked, was taken.
    Taken,
    /// The subscription was granted.
    Subscribed,
}

/// Why somebody was not let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shut {
    /// Nobody answered.
    Unreachable,
    /// The certificate is refused, with this TLS alert.
    Refused(&'static str),
}

enum Up {
    Publish(String, Bytes),
    Subscribe(String),
    Ask,
    Leave,
}

struct Session {
    number: u64,
    user: String,
    place: Place,
    filters: Vec<String>,
    down: mpsc::UnboundedSender<(Instant, Packet)>,
    will: Option<(String, Bytes)>,
}

#[derive(Default)]
struct Inner {
    down: bool,
    sessions: BTreeMap<String, Session>,
    /// Who listens to whom: clients by the second level of what they subscribed to, some of them gone since.
    listeners: BTreeMap<String, BTreeSet<String>>,
    retained: BTreeMap<String, Bytes>,
    connections: u64,
    loaded: BTreeMap<Scope, (u64, BTreeSet<String>)>,
    sequence: u64,
    mistakes: BTreeSet<Mistake>,
    /// So many messages of a thousand come twice, and so many not at all.
    doubled: u32,
    lost: u32,
}

/// See the module.
pub struct Broker {
    inner: Mutex<Inner>,
    weather: Arc<Weather>,
    history: Arc<History>,
    judge: Arc<Judge>,
    hinted: Notify,
    companion: Nonce,
}

impl Broker {
    /// A broker that has loaded nothing.
    pub fn new(weather: Arc<Weather>, history: Arc<History>, judge: Arc<Judge>) -> Arc<Self> {
        Arc::new(Self {
            inner: Mutex::default(),
            weather,
            history,
            judge,
            hinted: Notify::new(),
            companion: Nonce([7; 16]),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What lies around it.
    pub fn weather(&self) -> &Weather {
        &self.weather
    }

    /// Has it make a mistake from now on.
    pub fn mistake(&self, mistake: Mistake) {
        self.lock().mistakes.insert(mistake);
    }

    /// So many messages of a thousand come twice, and so many not at all.
    pub fn mislay(&self, doubled: u32, lost: u32) {
        let mut inner = self.lock();
        (inner.doubled, inner.lost) = (doubled, lost);
    }

    /// Ends every connection and forgets what it retained; until it is switched on again nobody gets in.
    pub fn switch(&self, on: bool) {
        let mut inner = self.lock();
        inner.down = !on;
        inner.sessions.clear();
        inner.retained.clear();
        drop(inner);
        self.history
            .say(if on { "the broker is up" } else { "the broker is down" });
    }

    /// Whether a device is connected under its own name.
    pub fn is_connected(&self, user: &str) -> bool {
        self.lock().sessions.contains_key(user)
    }

    /// Connects.
    ///
    /// # Errors
    /// When nobody answers, or the certificate is refused.
    pub async fn connect(
        self: &Arc<Self>,
        place: Place,
        client: String,
        leaf: &[u8],
        will: Option<(String, Bytes)>,
    ) -> Result<Connection, Shut> {
        let reached = tokio::time::timeout(PATIENCE, self.weather.there(place, LATENCY * 2)).await;
        if reached != Ok(Fate::Passed) || self.lock().down {
            tokio::time::sleep(Duration::from_millis(20)).await;
            return Err(Shut::Unreachable);
        }
        let info = parse_certificate_info(leaf).map_err(|_| Shut::Refused("bad_certificate"))?;
        let user = info.common_name.clone().unwrap_or_default();
        let now = os::now_ms() / 1000;
        if info.not_after < now || info.not_before > now {
            return Err(Shut::Refused("certificate_expired"));
        }
        let issuer = issuer_of(leaf).unwrap_or_default();
        let mut inner = self.lock();
        let listed = inner
            .loaded
            .iter()
            .any(|((of, _), (_, serials))| *of == issuer && serials.contains(&info.serial));
        if listed && !inner.mistakes.contains(&Mistake::LetsRevokedIn) {
            drop(inner);
            self.history.say(format!("{user} is refused"));
            return Err(Shut::Refused("certificate_revoked"));
        }
        inner.connections += 1;
        let number = inner.connections;
        let (down, received) = mpsc::unbounded_channel();
        let (up, queue) = mpsc::unbounded_channel();
        let session = Session {
            number,
            user: user.clone(),
            place,
            filters: Vec::new(),
            down,
            will,
        };
        let before = inner.sessions.insert(client.clone(), session);
        if let Some((topic, message)) = before.and_then(|before| before.will) {
            self.route(&mut inner, &topic, &message, true);
        }
        drop(inner);
        self.judge.let_in(&user, &issuer, &info.serial);
        self.judge.saw(&issuer, &info.serial, Fingerprint::of(leaf));
        tokio::spawn(Arc::clone(self).carry(client, number, place, queue));
        Ok(Connection {
            up,
            received,
            next: None,
            place,
            weather: Arc::clone(&self.weather),
        })
    }

    /// Carries what one side says, in order, until the connection ends.
    async fn carry(self: Arc<Self>, client: String, number: u64, place: Place, mut queue: mpsc::UnboundedReceiver<Up>) {
        let mut left = false;
        loop {
            let next = tokio::select! {
                biased;
                next = queue.recv() => next,
                () = self.silence(place) => None,
            };
            let Some(next) = next else { break };
            tokio::time::sleep(self.weather.delay(place, LATENCY)).await;
            if tokio::time::timeout(PATIENCE, self.weather.passable(place))
                .await
                .is_err()
            {
                break;
            }
            let mut inner = self.lock();
            let Some(session) = inner
                .sessions
                .get_mut(&client)
                .filter(|session| session.number == number)
            else {
                return;
            };
            let (at, down, user) = (
                Instant::now() + Duration::from_millis(LATENCY),
                session.down.clone(),
                session.user.clone(),
            );
            match next {
                Up::Publish(topic, message) => {
                    if !may_write(&user, &topic) {
                        drop(inner);
                        self.history.say(format!("{user} may not write {topic}"));
                        break;
                    }
                    let retain = topic.ends_with("/up/online");
                    self.route(&mut inner, &topic, &message, retain);
                    let _ = down.send((at, Packet::Taken));
                }
                Up::Subscribe(filter) => {
                    session.filters.push(filter.clone());
                    let listeners = inner.listeners.entry(whose(&filter).to_owned());
                    listeners.or_default().insert(client.clone());
                    let _ = down.send((at, Packet::Subscribed));
                    for (topic, message) in inner.retained.iter().filter(|(topic, _)| matches(&filter, topic)) {
                        let _ = down.send((at, Packet::Message(topic.clone(), message.clone())));
                    }
                }
                Up::Ask => drop(down.send((at, Packet::Taken))),
                Up::Leave => {
                    left = true;
                    drop(inner);
                    break;
                }
            }
        }
        self.end(&client, number, left);
    }

    /// Resolves when nothing has come through for so long that either side takes the other for gone.
    async fn silence(&self, place: Place) {
        loop {
            if self.weather.is_cut(place) {
                if tokio::time::timeout(PATIENCE, self.weather.passable(place))
                    .await
                    .is_err()
                {
                    return;
                }
            } else {
                self.weather.turned().await;
            }
        }
    }

    fn end(&self, client: &str, number: u64, left: bool) {
        let mut inner = self.lock();
        if inner
            .sessions
            .get(client)
            .is_some_and(|session| session.number == number)
            && let Some(session) = inner.sessions.remove(client)
            && let Some((topic, message)) = session.will.filter(|_| !left)
        {
            self.route(&mut inner, &topic, &message, true);
        }
    }

    fn route(&self, inner: &mut Inner, topic: &str, message: &Bytes, retain: bool) {
        if retain {
            inner.retained.insert(topic.to_owned(), message.clone());
        }
        if topic.contains("/~door.") && topic.contains("/down/") {
            self.order(inner, topic, message);
            return;
        }
        let of = |level: &str| inner.listeners.get(level).into_iter().flatten();
        let clients: BTreeSet<&String> = of(whose(topic)).chain(of("+")).collect();
        for session in clients.into_iter().filter_map(|client| inner.sessions.get(client)) {
            if !session.filters.iter().any(|filter| matches(filter, topic)) {
                continue;
            }
            let copies = if self.weather.chance(inner.lost) {
                0
            } else {
                1 + usize::from(self.weather.chance(inner.doubled))
            };
            for _ in 0..copies {
                let at = Instant::now() + self.weather.delay(session.place, LATENCY);
                let _ = session
                    .down
                    .send((at, Packet::Message(topic.to_owned(), message.clone())));
            }
        }
    }

    /// The controller tells the companion something.
    fn order(&self, inner: &mut Inner, topic: &str, message: &Bytes) {
        match certwave_controller::door::mosquitto::wire::parse_down(topic) {
            Some(DownType::Crl) => {
                let _: Hint = serde_json::from_slice(message).unwrap_or_default();
                self.hinted.notify_one();
            }
            Some(DownType::Kick) => {
                let Ok(kick) = serde_json::from_slice::<Kick>(message) else {
                    return;
                };
                if !inner.mistakes.contains(&Mistake::ClaimsToHaveClosed) {
                    for device in &kick.devices {
                        if let Some(session) = inner.sessions.remove(device.as_str()) {
                            self.history.say(format!("the session of {} is closed", session.user));
                        }
                    }
                }
                let kicked = Kicked {
                    order: kick.order,
                    failed: Vec::new(),
                    error: None,
                };
                let answer = serde_json::to_vec(&kicked).unwrap_or_default();
                if let Some(node) = node() {
                    self.route(inner, &node.up(PREFIX, UpType::Kicked), &answer.into(), false);
                }
            }
            None => {}
        }
    }

    /// The companion's life: it takes CRLs from whoever serves them, which is the ledger as long as a replica runs.
    pub async fn accompany(self: Arc<Self>, ledger: Arc<dyn Ledger>, served: impl Fn() -> bool) {
        let mut beats = 0;
        loop {
            let hinted = tokio::time::timeout(LOOK, self.hinted.notified()).await.is_ok();
            beats += 1;
            let fetched = self.weather.there(Place::Crls, LATENCY).await == Fate::Passed && served();
            let news = fetched && self.look(&*ledger).await;
            if hinted || news || beats % BEATS == 0 {
                self.report();
            }
        }
    }

    async fn look(&self, ledger: &dyn Ledger) -> bool {
        let Ok(scopes) = ledger.crl_scopes().await else {
            return false;
        };
        let mut news = false;
        for scope in scopes {
            if scope.1 == certwave_ledger::FULL_PARTITION || scope.1.strip_suffix(".delta").is_some() {
                continue;
            }
            let Ok(Some(record)) = ledger.crl(&scope.0, &scope.1).await else {
                continue;
            };
            let Ok(crl) = Crl::parse(&record.der) else {
                self.history.breach("a CRL cannot be read");
                continue;
            };
            if crl.number() != record.number {
                self.history.breach("a CRL has another number than the ledger says");
            }
            // As certwave crl-sync does, whose clock is right here.
            let now = os::now_ms() / 1000;
            if crl.this_update() > now || crl.next_update() <= now {
                continue;
            }
            let listed = crl.entries().filter(|line| matches!(line.mark, Mark::Revoked(_)));
            let serials: BTreeSet<String> = listed.map(|line| line.serial.to_string()).collect();
            let mut inner = self.lock();
            if inner
                .loaded
                .get(&scope)
                .is_some_and(|(number, _)| *number == record.number)
            {
                continue;
            }
            let lies = inner.mistakes.contains(&Mistake::ClaimsToHaveLoaded) && inner.loaded.contains_key(&scope);
            let goes_by = if lies {
                inner
                    .loaded
                    .get(&scope)
                    .map(|(_, serials)| serials.clone())
                    .unwrap_or_default()
            } else {
                serials.clone()
            };
            inner.loaded.insert(scope.clone(), (record.number, goes_by));
            drop(inner);
            self.judge.loaded(&scope, record.number, serials);
            news = true;
        }
        news
    }

    fn report(&self) {
        let mut inner = self.lock();
        if inner.down {
            return;
        }
        inner.sequence += 1;
        let scopes = inner
            .loaded
            .iter()
            .map(|((issuer, partition), (number, _))| ScopeNumber {
                issuer: issuer.clone(),
                partition: partition.clone(),
                number: *number,
            });
        let loaded = Loaded {
            session: self.companion,
            sequence: inner.sequence,
            scopes: scopes.collect(),
            error: None,
        };
        let message = serde_json::to_vec(&loaded).unwrap_or_default();
        if let Some(node) = node() {
            self.route(&mut inner, &node.up(PREFIX, UpType::Loaded), &message.into(), false);
        }
    }

    /// Ends a device's session, as a network does that comes back from a fault.
    pub fn drop_session(&self, user: &str) {
        let mut inner = self.lock();
        if let Some(session) = inner.sessions.remove(user)
            && let Some((topic, message)) = session.will
        {
            self.route(&mut inner, &topic, &message, true);
        }
    }

    /// Ends one session of those there are.
    pub fn drop_any(&self, random: &mut impl rand::Rng) {
        let users: Vec<String> = self.lock().sessions.keys().cloned().collect();
        if !users.is_empty() {
            self.drop_session(&users[random.random_range(0..users.len())]);
        }
    }

    /// Those who are connected with a certificate that the broker refuses by now.
    pub fn sessions(&self) -> Vec<String> {
        self.lock().sessions.keys().cloned().collect()
    }
}

/// One side's end of a connection.
pub struct Connection {
    up: mpsc::UnboundedSender<Up>,
    received: mpsc::UnboundedReceiver<(Instant, Packet)>,
    /// What came and is not due yet.
    next: Option<(Instant, Packet)>,
    place: Place,
    weather: Arc<Weather>,
}

impl Connection {
    /// How to say something on it.
    pub fn mouth(&self) -> Mouth {
        Mouth(self.up.clone())
    }

    /// What comes next; `None` when the connection is over. Safe to cancel.
    pub async fn next(&mut self) -> Option<Packet> {
        if self.next.is_none() {
            self.next = Some(self.received.recv().await?);
        }
        let at = self.next.as_ref().map(|(at, _)| *at)?;
        tokio::time::sleep_until(at).await;
        self.weather.passable(self.place).await;
        self.next.take().map(|(_, packet)| packet)
    }
}

/// See [`Connection::mouth`].
#[derive(Clone)]
pub struct Mouth(mpsc::UnboundedSender<Up>);

impl Mouth {
    /// Publishes; whether there is a connection.
    pub fn publish(&self, topic: String, message: Vec<u8>) -> bool {
        self.0.send(Up::Publish(topic, message.into())).is_ok()
    }

    /// Subscribes.
    pub fn subscribe(&self, filter: &str) -> bool {
        self.0.send(Up::Subscribe(filter.to_owned())).is_ok()
    }

    /// Has the broker answer.
    pub fn ask(&self) -> bool {
        self.0.send(Up::Ask).is_ok()
    }

    /// Leaves without a will.
    pub fn leave(&self) {
        let _ = self.0.send(Up::Leave);
    }
}

fn node() -> Option<NodeName> {
    "node-1".parse().ok()
}

/// A device or claim speaks for itself only; the controller speaks to all.
fn may_write(user: &str, topic: &str) -> bool {
    if user == "~controller" {
        return topic.contains("/down/") || topic == everybody(PREFIX);
    }
    topic
        .strip_prefix(PREFIX)
        .and_then(|rest| rest.strip_prefix('/'))
        .and_then(|rest| rest.strip_prefix(user))
        .is_some_and(|rest| rest.starts_with("/up/"))
}

/// The level of a topic or filter that names a user.
fn whose(topic: &str) -> &str {
    topic.split('/').nth(1).unwrap_or_default()
}

/// MQTT's filters, as far as they are used: a level, or any level.
fn matches(filter: &str, topic: &str) -> bool {
    let (mut wanted, mut found): (VecDeque<_>, VecDeque<_>) = (filter.split('/').collect(), topic.split('/').collect());
    if wanted.len() != found.len() {
        return false;
    }
    while let (Some(wanted), Some(found)) = (wanted.pop_front(), found.pop_front()) {
        if wanted != "+" && wanted != found {
            return false;
        }
    }
    true
}

/// The key id of whoever issued a certificate, lower-case hex: its authority key identifier (RFC 5280 4.2.1.1).
pub(crate) fn issuer_of(der: &[u8]) -> Option<String> {
    // OID 2.5.29.35, an octet string, a sequence, and the identifier under tag 0.
    const AKI: [u8; 5] = [0x06, 0x03, 0x55, 0x1d, 0x23];
    let at = der.windows(AKI.len()).position(|window| window == AKI)? + AKI.len();
    let value = der.get(at..)?;
    let [0x04, _, 0x30, _, 0x80, length, id @ ..] = value else {
        return None;
    };
    let id = id.get(..usize::from(*length))?;
    Some(hex::encode(id))
}

//! The brokers spread over the replicas: each has a Lease of its own, and whoever holds that looks after it.
//!
//! Replicas show that they are there by Leases, too, and [`spread`] says who should hold what. Everything is read by one list a
//! second; each Lease that is held is renewed by itself, as the controller's is ([`leader`](super::leader)).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use certwave_core::spread::{self, Standing, Step};
use certwave_crds::Broker;
use certwave_protocol::ids::{BrokerId, Fingerprint};
use futures::StreamExt as _;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use kube::api::{Api, DeleteParams, ListParams, Preconditions};
use kube::runtime::reflector::{self, Store};
use kube::runtime::{WatchStreamExt as _, watcher};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use super::changes::changes;
use super::leader::{Candidate, HOLDS, Leadership, LeaseError, REQUEST};
use super::shared::scoped;
use crate::gate::Gate;

/// The label of these Leases; its value says what one is of.
const LABEL: &str = "certwave.dev/lease";
const BROKER: &str = "broker";
const REPLICA: &str = "replica";
/// How often the Leases are looked at.
const PERIOD: Duration = Duration::from_secs(1);
/// A broker whose work could not begin, or broke off, is left alone for so long.
const PAUSE: Duration = Duration::from_secs(5);
/// Leases of replicas, and of brokers that are not declared, are deleted when nobody has touched them for so long.
const FORGOTTEN: Duration = Duration::from_mins(10);

/// What is done for a broker as long as its Lease is held; it ends when the gate closes, or early.
pub type Work = Pin<Box<dyn Future<Output = anyhow::Result<()>> + Send>>;
/// Begins it.
pub type Begin = Arc<dyn Fn(BrokerId, Arc<Gate>) -> Work + Send + Sync>;

/// See the module.
pub struct Shards {
    leases: Api<Lease>,
    identity: String,
    brokers: Store<Broker>,
    listed: watch::Receiver<bool>,
    /// Keeps the store.
    _watching: JoinSet<()>,
    begin: Begin,
    /// Which brokers are held, for people.
    shown: prometheus::IntGaugeVec,
    own: Option<Leadership>,
    held: HashMap<BrokerId, Held>,
    seen: Seen,
    /// Who should hold each broker (its id), and since when that is so.
    choices: HashMap<String, (String, Instant)>,
    pauses: HashMap<BrokerId, Instant>,
}

/// A broker that this replica holds.
struct Held {
    leadership: Leadership,
    work: JoinHandle<anyhow::Result<()>>,
}

/// When each Lease was first seen at its present version, by our own clock.
#[derive(Default)]
struct Seen(HashMap<String, (String, Instant)>);

impl Seen {
    /// For how long nobody has touched a Lease (`None`: there is none).
    fn idle(&mut self, name: &str, lease: Option<&Lease>, now: Instant) -> Duration {
        let version = lease.and_then(kube::ResourceExt::resource_version).unwrap_or_default();
        match self.0.get(name) {
            Some((known, since)) if *known == version => now.saturating_duration_since(*since),
            _ => {
                self.0.insert(name.to_owned(), (version, now));
                Duration::ZERO
            }
        }
    }
}

impl Shards {
    /// Watches the Brokers; nothing is taken yet.
    pub fn new(
        client: &kube::Client,
        (namespace, scope): (&str, Option<&str>),
        identity: &str,
        shown: prometheus::IntGaugeVec,
        begin: Begin,
    ) -> Self {
        let api: Api<Broker> = scoped(client, scope);
        let (brokers, writer) = reflector::store();
        let (list, listed) = watch::channel(false);
        let mut watching = JoinSet::new();
        watching.spawn(async move {
            let events = changes(api, watcher::Config::default())
                .default_backoff()
                .reflect(writer);
            let mut events = std::pin::pin!(events);
            while let Some(event) = events.next().await {
                match event {
                    // One wakes whoever waits for the next look, too.
                    Ok(watcher::Event::InitDone) => drop(list.send_replace(true)),
                    Ok(watcher::Event::Apply(_) | watcher::Event::Delete(_)) => list.send_modify(|_| {}),
                    Ok(_) => {}
                    Err(error) => tracing::warn!(kind = "Broker", %error, "watch failed, trying again"),
                }
            }
        });
        Self {
            leases: Api::namespaced(client.clone(), namespace),
            identity: identity.to_owned(),
            brokers,
            listed,
            _watching: watching,
            begin,
            shown,
            own: None,
            held: HashMap::new(),
            seen: Seen::default(),
            choices: HashMap::new(),
            pauses: HashMap::new(),
        }
    }

    /// Takes, keeps and hands over brokers, for ever.
    ///
    /// # Errors
    /// When this process may not use the Leases at all: its Role or its token is missing.
    pub async fn run(&mut self) -> Result<(), LeaseError> {
        // The sender lives as long as this.
        let _ = self.listed.wait_for(|listed| *listed).await;
        loop {
            self.listed.mark_unchanged();
            if let Err(error) = self.round().await {
                if let LeaseError::Api(kube::Error::Api(status)) = &error
                    && self.held.is_empty()
                    && matches!(status.code, 401 | 403)
                {
                    return Err(LeaseError::Refused(status.message.clone()));
                }
                tracing::warn!(%error, "cannot look at the brokers' leases");
            }
            self.show();
            let _ = tokio::time::timeout(PERIOD, self.listed.changed()).await;
        }
    }

    /// Gives everything up, so that others need not wait.
    pub async fn release(mut self) {
        let held: Vec<_> = self.held.drain().collect();
        let all = held.into_iter().map(|(_, held)| held.let_go());
        futures::future::join_all(all).await;
        self.shown.reset();
        if let Some(own) = self.own.take() {
            own.release().await;
        }
    }

    async fn round(&mut self) -> Result<(), LeaseError> {
        self.end().await;
        self.show_up().await?;
        let params = ListParams::default().labels(LABEL);
        let leases = tokio::time::timeout(REQUEST, self.leases.list(&params)).await??;
        let mut leases: BTreeMap<String, Lease> = leases.into_iter().map(|lease| (lease.name_any(), lease)).collect();
        let replicas = self.replicas(&leases);
        let wanted = self.wanted();
        self.clear(&leases, &wanted).await;
        let all: BTreeSet<BrokerId> = self.held.keys().cloned().chain(wanted.iter().cloned()).collect();
        self.choose(&wanted, &replicas);
        for broker in all {
            let lease = leases.remove(&name_of(&broker));
            if !wanted.contains(&broker) {
                self.hand_over(&broker, "there is no such Broker any more").await;
                continue;
            }
            let (should, since) = self.choice(&broker);
            match spread::step(self.standing(&broker, lease.as_ref()), should, since) {
                Step::Stay => {}
                Step::HandOver => self.hand_over(&broker, "another replica is to look after it").await,
                Step::Take if self.pauses.get(&broker).is_some_and(|until| *until > Instant::now()) => {}
                Step::Take => self.take(broker, lease).await?,
            }
        }
        Ok(())
    }

    /// Lets go of what has ended by itself.
    async fn end(&mut self) {
        let ended = |held: &Held| held.work.is_finished() || !held.leadership.gate().is_open();
        let ended: Vec<_> = self
            .held
            .iter()
            .filter(|(_, held)| ended(held))
            .map(|(id, _)| id.clone())
            .collect();
        for broker in ended {
            self.pauses.insert(broker.clone(), Instant::now() + PAUSE);
            self.hand_over(&broker, "its work has ended").await;
        }
    }

    /// Shows that this replica is there.
    async fn show_up(&mut self) -> Result<(), LeaseError> {
        if self.own.as_ref().is_some_and(|own| own.gate().is_open()) {
            return Ok(());
        }
        let candidate = self.candidate(replica_name(&self.identity), REPLICA);
        let found = tokio::time::timeout(REQUEST, self.leases.get_opt(&candidate.name)).await??;
        self.own = candidate.take(found).await?;
        Ok(())
    }

    /// The replicas that are there, as they show.
    fn replicas(&mut self, leases: &BTreeMap<String, Lease>) -> BTreeSet<String> {
        let (now, mut there) = (Instant::now(), BTreeSet::from([self.identity.clone()]));
        for (name, lease) in leases {
            if lease.labels().get(LABEL).is_none_or(|of| of != REPLICA) {
                continue;
            }
            // One that is new to us may have ended long ago; a clock that is wrong costs a moment only.
            if !self.seen.0.contains_key(name) && is_over(lease) {
                let version = lease.resource_version().unwrap_or_default();
                let since = now.checked_sub(HOLDS).unwrap_or(now);
                self.seen.0.insert(name.clone(), (version, since));
            }
            let idle = self.seen.idle(name, Some(lease), now);
            if let Some(holder) = holder(lease).filter(|_| idle < HOLDS) {
                there.insert(holder.to_owned());
            }
        }
        there
    }

    /// Deletes the Leases of replicas and brokers that are long gone.
    async fn clear(&mut self, leases: &BTreeMap<String, Lease>, wanted: &BTreeSet<BrokerId>) {
        let wanted: BTreeSet<String> = wanted.iter().map(name_of).collect();
        for (name, lease) in leases {
            if !wanted.contains(name) && self.seen.idle(name, Some(lease), Instant::now()) > FORGOTTEN {
                let as_seen = Preconditions {
                    resource_version: lease.resource_version(),
                    uid: None,
                };
                let params = DeleteParams::default().preconditions(as_seen);
                // Another replica may have been faster, or somebody has come for it.
                let _ = tokio::time::timeout(REQUEST, self.leases.delete(name, &params)).await;
                self.seen.0.remove(name);
            }
        }
    }

    /// Every broker that is declared.
    fn wanted(&self) -> BTreeSet<BrokerId> {
        let all = self.brokers.state();
        all.iter().filter_map(|broker| broker.spec.id.parse().ok()).collect()
    }

    /// Shows which brokers this replica holds, of all that are declared.
    fn show(&self) {
        for broker in self.wanted() {
            let held = i64::from(self.held.contains_key(&broker));
            self.shown.with_label_values(&[broker.as_str()]).set(held);
        }
    }

    /// Decides who should hold which broker.
    fn choose(&mut self, brokers: &BTreeSet<BrokerId>, replicas: &BTreeSet<String>) {
        let brokers: BTreeSet<&str> = brokers.iter().map(BrokerId::as_str).collect();
        let shares = spread::shares(&brokers, &replicas.iter().map(String::as_str).collect());
        self.choices.retain(|broker, _| {
            let declared = brokers.contains(broker.as_str());
            if !declared {
                // Not there is as good.
                let _ = self.shown.remove_label_values(&[broker.as_str()]);
            }
            declared
        });
        let now = Instant::now();
        for (broker, chosen) in shares {
            match self.choices.get(broker) {
                Some((before, _)) if before == chosen => {}
                _ => drop(self.choices.insert(broker.to_owned(), (chosen.to_owned(), now))),
            }
        }
    }

    /// Whether this replica should hold a broker, and for how long that has been decided like this.
    fn choice(&self, broker: &BrokerId) -> (bool, Duration) {
        let choice = self.choices.get(broker.as_str());
        choice.map_or((false, Duration::ZERO), |(chosen, since)| {
            (*chosen == self.identity, since.elapsed())
        })
    }

    fn standing(&mut self, broker: &BrokerId, lease: Option<&Lease>) -> Standing {
        if self.held.contains_key(broker) {
            return Standing::Mine;
        }
        let idle = self.seen.idle(&name_of(broker), lease, Instant::now());
        match lease.and_then(holder) {
            None => Standing::Free(idle),
            // Of a life before this one, under the same name.
            Some(holder) if holder == self.identity => Standing::Free(Duration::MAX),
            Some(_) => idle.checked_sub(HOLDS).map_or(Standing::Taken, Standing::Free),
        }
    }

    async fn take(&mut self, broker: BrokerId, lease: Option<Lease>) -> Result<(), LeaseError> {
        let candidate = self.candidate(name_of(&broker), BROKER);
        let Some(leadership) = candidate.take(lease).await? else {
            return Ok(());
        };
        tracing::info!(%broker, identity = self.identity, "looking after a broker");
        let work = (self.begin)(broker.clone(), leadership.gate());
        let work = tokio::spawn(work);
        self.held.insert(broker, Held { leadership, work });
        Ok(())
    }

    async fn hand_over(&mut self, broker: &BrokerId, why: &str) {
        let Some(held) = self.held.remove(broker) else { return };
        tracing::info!(%broker, why, "letting go of a broker");
        held.let_go().await;
    }

    fn candidate(&self, name: String, of: &str) -> Candidate {
        Candidate {
            leases: self.leases.clone(),
            name,
            identity: self.identity.clone(),
            labels: BTreeMap::from([(LABEL.to_owned(), of.to_owned())]),
            progress: watch::Sender::default(),
        }
    }
}

impl Held {
    /// Says nothing from now on, ends the work, then releases the Lease. What the ledger was given to write it writes; whoever takes
    /// the broker over begins a term after that.
    async fn let_go(mut self) {
        self.leadership.gate().close();
        self.work.abort();
        match (&mut self.work).await {
            Ok(Err(error)) => tracing::warn!(%error, "the work for a broker has ended"),
            Err(error) if error.is_panic() => {
                tracing::error!(%error, "a fault of the program: the work for a broker panicked");
            }
            Ok(Ok(())) | Err(_) => {}
        }
        self.leadership.release().await;
    }
}

/// A broker's Lease: ids have at most 40 characters.
fn name_of(broker: &BrokerId) -> String {
    format!("certwave-broker-{broker}")
}

/// A replica's Lease. Whatever its name is, this can be one of an object.
fn replica_name(identity: &str) -> String {
    let hash = Fingerprint::of(identity.as_bytes()).to_string();
    format!(
        "certwave-replica-{}",
        hash.chars().take(16).collect::<String>().to_lowercase()
    )
}

fn holder(lease: &Lease) -> Option<&str> {
    let holder = lease.spec.as_ref()?.holder_identity.as_deref()?;
    (!holder.is_empty()).then_some(holder)
}

/// Whether a Lease has run out by its holder's clock and ours.
fn is_over(lease: &Lease) -> bool {
    let renewed = lease.spec.as_ref().and_then(|spec| spec.renew_time.as_ref());
    renewed.is_none_or(|renewed| Timestamp::now().as_second() - renewed.0.as_second() > HOLDS.as_secs().cast_signed())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use k8s_openapi::api::coordination::v1::LeaseSpec;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
    use k8s_openapi::jiff::SignedDuration;

    use super::*;

    fn lease(version: &str, renewed_ago: Duration) -> Lease {
        let renewed = Timestamp::now() - SignedDuration::try_from(renewed_ago).unwrap();
        Lease {
            metadata: ObjectMeta {
                resource_version: Some(version.to_owned()),
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec {
                holder_identity: Some("certwave-0".to_owned()),
                renew_time: Some(MicroTime(renewed)),
                ..LeaseSpec::default()
            }),
        }
    }

    #[test]
    fn a_lease_is_idle_by_our_own_clock_whatever_time_stands_in_it() {
        let (mut seen, start) = (Seen::default(), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        // Renewed tomorrow, as its holder's clock says.
        let mut ahead = lease("1", Duration::ZERO);
        ahead.spec.as_mut().unwrap().renew_time = Some(MicroTime(Timestamp::now() + SignedDuration::from_hours(24)));
        assert_eq!(seen.idle("a", Some(&ahead), start), Duration::ZERO);
        assert_eq!(seen.idle("a", Some(&ahead), after(20)), Duration::from_secs(20));
        // Touched: from the beginning.
        assert_eq!(
            seen.idle("a", Some(&lease("2", Duration::ZERO)), after(21)),
            Duration::ZERO
        );
        assert_eq!(seen.idle("b", None, after(21)), Duration::ZERO);
        assert_eq!(seen.idle("b", None, after(31)), Duration::from_secs(10));
    }

    #[test]
    fn a_lease_is_over_when_it_was_not_renewed_for_as_long_as_it_holds() {
        assert!(!is_over(&lease("1", Duration::from_secs(1))));
        assert!(is_over(&lease("1", HOLDS + Duration::from_secs(2))));
        assert!(is_over(&Lease::default()));
    }

    #[test]
    fn names_are_those_of_objects() {
        let broker: BrokerId = "b".repeat(40).parse().unwrap();
        for name in [name_of(&broker), replica_name("Pod.With_Anything at all")] {
            let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            assert!(name.len() <= 63 && name.chars().all(fits), "{name}");
        }
        assert_ne!(replica_name("a"), replica_name("b"));
    }

    #[test]
    fn a_released_lease_has_no_holder() {
        let mut lease = lease("1", Duration::ZERO);
        assert_eq!(holder(&lease), Some("certwave-0"));
        lease.spec.as_mut().unwrap().holder_identity = Some(String::new());
        assert_eq!(holder(&lease), None);
    }
}

//! Kubernetes: the only place that reads custom resources and writes to the API server.
//!
//! Each kind has a reconciler that resolves its objects for the engine ([`crate::registry`]) and says in their status what is
//! missing. Devices are too many for that: `device` streams them into the ledger, `projection` writes what the ledger knows
//! back into their status.

mod author;
mod authority;
mod broker;
mod changes;
mod counting;
mod device;
mod directory;
mod drive;
mod error;
mod events;
mod feed;
mod fleet;
pub mod leader;
mod pages;
mod projection;
pub mod provenance;
mod recovery;
mod revocation;
mod rotation;
mod secrets;
pub mod shards;
mod shared;
mod status;
pub mod strategy;
mod time;
mod views;

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use certwave_ledger::{FleetKey, Ledger, Part};
use certwave_protocol::ids::Epoch;
use futures::{Stream, StreamExt};
use kube::runtime::reflector;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

pub use authority::follow_signers;
pub use error::{Error, Result};
pub use feed::Feed;

use crate::metrics::Metrics;
use crate::notice::{Notice, Skewed};
use crate::ocsp::Signers;
use crate::publish::{self, Monitor, Publisher};
use crate::registry::Registry;
use drive::{Again, Objects};
use shared::Shared;
use views::Views;

/// How long those who build on a kind wait for its objects to be looked at once after the start.
const SETTLING: Duration = Duration::from_secs(20);

/// What the reconcilers work with.
pub struct Context {
    /// The API server.
    pub client: kube::Client,
    /// The ledger.
    pub ledger: Arc<dyn Ledger>,
    /// The part of the work that this is for.
    pub part: Part,
    /// The epoch that was taken for it.
    pub epoch: Epoch,
    /// Where the engine finds what is resolved.
    pub registry: Arc<Registry>,
    /// What the engine wants people to know.
    pub notices: mpsc::Receiver<Notice>,
    /// Devices whose clocks are known to be wrong.
    pub skewed: Arc<Skewed>,
    /// Base URL of CRLs and CA certificates for CAs that name none; `None`: those publish nothing.
    pub publication_base: Option<String>,
    /// Only objects of this namespace; `None`: of all.
    pub namespace: Option<String>,
    /// Who signs OCSP answers, for the responder.
    pub ocsp: Arc<Signers>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Makes CRLs.
    pub publisher: Arc<Publisher>,
    /// Reads them back.
    pub monitor: Arc<Monitor>,
    /// How long a device's changes are gathered before its status is written.
    pub status_delay: Duration,
    /// Asks the gates of Rotations.
    pub gates: crate::gates::Client,
    /// Shows devices' objects.
    pub feed: Arc<Feed>,
}

/// Reconciles what is of one part until this process no longer holds that. Dropping the future stops everything.
///
/// # Errors
/// When another process has taken over, or a watch ends.
pub async fn run(context: Context) -> Result<()> {
    let shared = Arc::new(Shared::new(&context));
    let leads = shared.leads();
    let _shown = Shown(Arc::clone(&shared));
    if shared.ledger.provenance().await?.restored_at.is_some() {
        // Before anything is written into a status.
        shared.set_recovery(Some("the objects have not been read yet".to_owned()));
    }
    let mut parts = JoinSet::new();

    let authorities = Arc::new(authority::Authorities {
        shared: Arc::clone(&shared),
    });
    let objects = Objects::new();
    let (store, listed) = (objects.store.clone(), objects.listed());
    // A subordinate waits for its issuer.
    let again = futures::stream::select_all([
        all(shared.authorities.changes()).boxed(),
        all(directory::changes(shared.marked_authorities())).boxed(),
        all(directory::changes(shared.monitor.changes())).boxed(),
        all(directory::changes(shared.recovery_changes())).boxed(),
        all(shared.export_changes()).boxed(),
        all(directory::changes(shared.publisher.clock().changes())).boxed(),
        published(&shared.publisher).boxed(),
    ]);
    parts.spawn(drive::run(
        Arc::clone(&authorities),
        Arc::clone(&shared),
        objects,
        again,
    ));
    guard(&shared, drive::settled(&*authorities, &store, listed, SETTLING)).await?;
    if leads {
        shared.ocsp.set_complete();
    }

    let objects = Objects::new();
    let (store, listed) = (objects.store.clone(), objects.listed());
    let brokers = Arc::new(broker::Brokers {
        shared: Arc::clone(&shared),
        store: store.clone(),
    });
    let again = futures::stream::select_all([
        all(shared.authorities.changes()).boxed(),
        all(links(Arc::clone(&shared.registry))).boxed(),
        all(directory::changes(shared.publisher.clock().changes())).boxed(),
    ]);
    parts.spawn(drive::run(Arc::clone(&brokers), Arc::clone(&shared), objects, again));
    guard(&shared, drive::settled(&*brokers, &store, listed, SETTLING)).await?;

    let objects = Objects::new();
    let (store, listed) = (objects.store.clone(), objects.listed());
    let fleet_store = store.clone();
    let fleets = Arc::new(fleet::Fleets {
        shared: Arc::clone(&shared),
    });
    let again = futures::stream::select_all([
        all(shared.authorities.changes()).boxed(),
        all(shared.brokers.changes()).boxed(),
        all(shared.known_brokers.changes()).boxed(),
        all(shared.rotations.changes()).boxed(),
        all(links(Arc::clone(&shared.registry))).boxed(),
        all(directory::changes(shared.publisher.clock().changes())).boxed(),
        marked(Arc::clone(&shared)).boxed(),
    ]);
    parts.spawn(drive::run(Arc::clone(&fleets), Arc::clone(&shared), objects, again));
    guard(&shared, drive::settled(&*fleets, &store, listed, SETTLING)).await?;

    let objects = Objects::new();
    let (store, listed) = (objects.store.clone(), objects.listed());
    let rotations = Arc::new(rotation::Rotations::new(
        Arc::clone(&shared),
        store.clone(),
        fleet_store.clone(),
        context.gates.clone(),
    ));
    let again = futures::stream::select_all([
        all(shared.fleets.changes()).boxed(),
        all(shared.homes.changes()).boxed(),
        all(shared.authorities.changes()).boxed(),
        all(links(Arc::clone(&shared.registry))).boxed(),
        all(judging(Arc::clone(&shared.registry))).boxed(),
    ]);
    parts.spawn(drive::run(Arc::clone(&rotations), Arc::clone(&shared), objects, again));
    let known = listed.clone();
    guard(&shared, drive::settled(&*rotations, &store, listed, SETTLING)).await?;
    if *known.borrow() {
        rotations.end_orphans().await?;
    }
    parts.spawn(rotation::automatic(Arc::clone(&shared), fleet_store, store));
    shared.registry.open();

    let objects = Objects::new();
    let (store, listed) = (objects.store.clone(), objects.listed());
    let revocations = Arc::new(revocation::Revocations::new(Arc::clone(&shared), store.clone()));
    let again = all(shared.authorities.changes());
    parts.spawn(drive::run(
        Arc::clone(&revocations),
        Arc::clone(&shared),
        objects,
        again,
    ));
    let known = listed.clone();
    guard(&shared, drive::settled(&*revocations, &store, listed, SETTLING)).await?;
    if leads && *known.borrow() {
        let shared = Arc::clone(&shared);
        parts.spawn(async move {
            shared.whole().await;
            revocations.release_orphans().await?;
            std::future::pending().await
        });
    }

    let views = Arc::new(Views::default());
    let (show, shown) = mpsc::channel(1024);
    let (tell, told) = mpsc::channel(1024);
    let (devices, seen) = (Arc::clone(&shared), Arc::clone(&views));
    parts.spawn(device::run(devices, context.feed, seen, show.clone(), tell));
    parts.spawn(projection::run(Arc::clone(&shared), views, shown, context.status_delay));
    parts.spawn(events::run(Arc::clone(&shared), context.notices, told, show));
    if leads {
        parts.spawn(recovery::run(Arc::clone(&shared)));
        parts.spawn(authority::export_crls(Arc::clone(&shared)));
        let (publisher, registry) = (Arc::clone(&shared.publisher), Arc::clone(&shared.registry));
        parts.spawn(async move { Ok(publish::run(publisher, registry).await?) });
        let (monitor, registry) = (Arc::clone(&shared.monitor), Arc::clone(&shared.registry));
        parts.spawn(async move {
            monitor.run(&registry).await;
            Ok(())
        });
    } else {
        parts.spawn(recovery::follow(Arc::clone(&shared)));
    }
    tokio::select! {
        error = shared.fatal() => Err(error),
        ended = parts.join_next() => match ended {
            Some(Ok(result)) => result,
            Some(Err(error)) => Err(Error::Panicked(error.to_string())),
            None => Ok(()),
        },
    }
}

/// What metrics show of a part, until this is dropped: whoever holds the part then shows it.
struct Shown(Arc<Shared>);

impl Drop for Shown {
    fn drop(&mut self) {
        let metrics = &self.0.metrics;
        for (object, _) in self.0.fleets.all() {
            let fleet = fleet::key(&object);
            metrics.fleets.forget(&fleet);
            metrics.rotations.forget_fleet(&fleet);
        }
        for entry in self.0.registry.brokers() {
            metrics.brokers.forget_links(&entry.id);
            metrics.brokers.forget(&entry.object);
            // Not there is as good.
            let _ = metrics.brokers.door_current.remove_label_values(&[entry.id.as_str()]);
        }
    }
}

/// Waits, but not beyond the end of the term.
async fn guard(shared: &Shared, wait: impl Future<Output = ()>) -> Result<()> {
    tokio::select! {
        () = wait => Ok(()),
        error = shared.fatal() => Err(error),
    }
}

fn all<K: kube::Resource<DynamicType = ()>>(
    changes: impl Stream<Item = ()> + Send + 'static,
) -> impl Stream<Item = Again<K>> + Send + 'static {
    changes.map(|()| Again::All)
}

/// CAs whose CRLs were published: their status says the numbers at once, as a ledger that is restored later is completed by them.
fn published(publisher: &Publisher) -> impl Stream<Item = Again<certwave_crds::CertificateAuthority>> + Send + 'static {
    futures::stream::unfold(publisher.published(), |mut published| async move {
        let again = match published.recv().await {
            Ok(object) => Again::One(reflector::ObjectRef::new(&object.name).within(&object.namespace)),
            Err(RecvError::Lagged(_)) => Again::All,
            Err(RecvError::Closed) => return None,
        };
        Some((again, published))
    })
}

/// An item for each change of a connection to a broker.
fn links(registry: Arc<Registry>) -> impl Stream<Item = ()> + Send + 'static {
    let (sender, receiver) = watch::channel(());
    tokio::spawn(async move {
        loop {
            tokio::select! {
                () = registry.links_changed() => {}
                () = sender.closed() => return,
            }
            sender.send_replace(());
        }
    });
    directory::changes(receiver)
}

/// An item whenever running Rotations should be judged at once.
fn judging(registry: Arc<Registry>) -> impl Stream<Item = ()> + Send + 'static {
    futures::stream::unfold(registry, |registry| async move {
        registry.judging().await;
        Some(((), registry))
    })
}

/// The fleets whose devices have changed, each at most once in a while.
fn marked(shared: Arc<Shared>) -> impl Stream<Item = Again<certwave_crds::Fleet>> + Send + 'static {
    let ticks = futures::stream::unfold(shared, |shared| async move {
        tokio::time::sleep(counting::COUNTING).await;
        Some((shared.counting.due(Instant::now()), shared))
    });
    ticks.flat_map(|names| {
        let one = |fleet: FleetKey| Again::One(reflector::ObjectRef::new(&fleet.name).within(&fleet.namespace));
        futures::stream::iter(names.into_iter().map(one))
    })
}

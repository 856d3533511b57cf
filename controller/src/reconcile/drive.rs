//! Runs the reconciler of one kind: its watch, its store, what else triggers it, and retries.

use std::collections::HashMap;
use std::future::Future;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use certwave_core::model::ObjectRef as Name;
use futures::channel::mpsc;
use futures::{Stream, StreamExt};
use k8s_openapi::NamespaceResourceScope;
use kube::api::Api;
use kube::runtime::controller::{Action, Error as ControllerError};
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::{WatchStreamExt, controller, watcher};
use kube::{Resource, ResourceExt};
use serde::de::DeserializeOwned;

use tokio::sync::watch;

use super::changes::{changes, reflected};
use super::error::{Error, Result};
use super::shared::Shared;

/// Retries wait from this long, doubled each time,
const FIRST_RETRY: Duration = Duration::from_millis(500);
/// up to this long.
const LONGEST_RETRY: Duration = Duration::from_secs(30);
/// Reconciles of one kind at the same time.
const CONCURRENCY: u16 = 8;
/// Deleted objects that wait to be forgotten at the same time.
const FORGETTING: usize = 1024;

/// A kind's reconciler.
pub(super) trait Reconciler: Send + Sync + 'static {
    /// The kind.
    type Object: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + DeserializeOwned
        + Send
        + Sync
        + 'static;
    /// The kind's name, for logs.
    const KIND: &'static str;

    /// Brings one object forward and says when to look again.
    fn reconcile(&self, object: Arc<Self::Object>) -> impl Future<Output = Result<Action>> + Send;
    /// The object is gone.
    fn forget(&self, object: &Name) -> impl Future<Output = Result<()>> + Send;
    /// Whether an object has been looked at since the start.
    fn knows(&self, object: &Name) -> bool;
    /// Whether this part's holder looks after the object. Notes what others need to know of it, whoever does.
    fn is_mine(&self, _object: &Self::Object) -> bool {
        true
    }
    /// The object, if it was this part's, is so no more.
    fn leave(&self, _object: &Name) {}
}

/// The objects of one kind as the watch shows them.
pub(super) struct Objects<K: Resource<DynamicType = ()> + Clone + Send + Sync + 'static> {
    pub(super) store: Store<K>,
    writer: reflector::store::Writer<K>,
    listed: watch::Sender<bool>,
}

impl<K: Resource<DynamicType = ()> + Clone + Send + Sync + 'static> Objects<K> {
    pub(super) fn new() -> Self {
        let (store, writer) = reflector::store();
        Self {
            store,
            writer,
            listed: watch::Sender::new(false),
        }
    }

    /// Turns true when the store holds everything that there was at the start.
    pub(super) fn listed(&self) -> watch::Receiver<bool> {
        self.listed.subscribe()
    }
}

/// A name as `core` has it.
pub(super) fn name<K: Resource>(object: &K) -> Name {
    Name {
        namespace: object.namespace().unwrap_or_default(),
        name: object.name_any(),
    }
}

/// What each reconcile works with.
struct Worker<R> {
    reconciler: Arc<R>,
    retries: Arc<Retries<Name>>,
    shared: Arc<Shared>,
}

/// Runs for ever; ends with an error only when this process no longer leads or the watch ends.
pub(super) async fn run<R: Reconciler>(
    reconciler: Arc<R>,
    shared: Arc<Shared>,
    objects: Objects<R::Object>,
    again: impl Stream<Item = Again<R::Object>> + Send + 'static,
) -> Result<()> {
    let api: Api<R::Object> = shared.api_all();
    let Objects { store, writer, listed } = objects;
    // By way of the queue, where it is noticed when there is such an object again.
    let (unforgotten, to_forget) = mpsc::unbounded::<(Name, Duration)>();
    let watched = changes(api, watcher::Config::default()).default_backoff();
    let gone = unforgotten.clone();
    let watched = reflected(watched, writer, move |object| {
        // The other end lives as long as `results`.
        let _ = gone.unbounded_send((object, Duration::ZERO));
    })
    .inspect(move |event| {
        if matches!(event, Ok(watcher::Event::InitDone)) {
            listed.send_replace(true);
        }
    })
    .touched_objects();
    let own = controller::trigger_self(watched, ());
    let others = {
        let store = store.clone();
        again.flat_map(move |again| {
            let objects = match again {
                Again::All => store
                    .state()
                    .iter()
                    .map(|object| ObjectRef::from_obj(&**object))
                    .collect(),
                Again::One(name) => vec![name],
            };
            futures::stream::iter(objects.into_iter().map(|object| Ok(object.into())))
        })
    };
    let to_forget = to_forget.map(|(gone, wait)| async move {
        tokio::time::sleep(wait).await;
        Ok(ObjectRef::new(&gone.name).within(&gone.namespace).into())
    });
    let others = futures::stream::select(others, to_forget.buffer_unordered(FORGETTING));
    let queue = Box::pin(futures::stream::select(own, others));
    let retries = Arc::new(Retries::default());
    let context = Arc::new(Worker {
        reconciler: Arc::clone(&reconciler),
        retries: Arc::clone(&retries),
        shared: Arc::clone(&shared),
    });
    let config = controller::Config::default().concurrency(CONCURRENCY);
    let results = kube::runtime::applier(
        move |object: Arc<R::Object>, context: Arc<Worker<R>>| {
            Box::pin(async move {
                let key = name(&*object);
                if !context.reconciler.is_mine(&object) {
                    context.reconciler.leave(&key);
                    context.retries.clear(&key);
                    return Ok(Action::await_change());
                }
                let action = context.reconciler.reconcile(object).await?;
                context.retries.clear(&key);
                Ok::<_, Error>(action)
            })
        },
        |object, error, context| {
            let key = name(&*object);
            context.shared.failed(R::KIND, error);
            let wait = context.retries.next(key.clone());
            tracing::warn!(kind = R::KIND, namespace = key.namespace, name = key.name, %error, ?wait, "reconcile failed");
            Action::requeue(wait)
        },
        context,
        store,
        queue,
        config,
    );
    let mut results = std::pin::pin!(results);
    while let Some(result) = results.next().await {
        match result {
            Err(ControllerError::ObjectNotFound(gone)) => {
                let gone = Name {
                    namespace: gone.namespace.clone().unwrap_or_default(),
                    name: gone.name.clone(),
                };
                if let Err(error) = reconciler.forget(&gone).await {
                    shared.failed(R::KIND, &error);
                    let wait = retries.next(gone.clone());
                    tracing::warn!(kind = R::KIND, %error, ?wait, "cannot forget a deleted object; trying again");
                    // The other end lives as long as `results`.
                    let _ = unforgotten.unbounded_send((gone, wait));
                } else {
                    retries.clear(&gone);
                }
            }
            Err(ControllerError::QueueError(error)) => {
                tracing::warn!(kind = R::KIND, %error, "watch failed, trying again");
            }
            Err(ControllerError::RunnerError(error)) => tracing::error!(kind = R::KIND, %error, "runner failed"),
            Err(ControllerError::ReconcilerFailed(..)) | Ok(_) => {}
        }
    }
    Err(Error::Ended(R::KIND))
}

/// What to look at again, besides what the watch shows.
pub(super) enum Again<K: Resource<DynamicType = ()>> {
    /// Every object, as something that all depend on has changed.
    All,
    /// One object.
    One(ObjectRef<K>),
}

/// Waits until each object that is there has been looked at once, or `deadline` has passed: those who build on this kind
/// would otherwise report things as missing that are only late.
pub(super) async fn settled<R: Reconciler>(
    reconciler: &R,
    store: &Store<R::Object>,
    mut listed: watch::Receiver<bool>,
    deadline: Duration,
) {
    let all = async {
        // Not the store's own readiness: that wakes only one of those who wait for it, and the runner does.
        if listed.wait_for(|listed| *listed).await.is_err() {
            return;
        }
        let known = |object: &Arc<R::Object>| !reconciler.is_mine(object) || reconciler.knows(&name(&**object));
        while !store.state().iter().all(known) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    if tokio::time::timeout(deadline, all).await.is_err() {
        tracing::warn!(kind = R::KIND, "not every object could be looked at yet; going on");
    }
}

/// How often each object has failed in a row.
pub(super) struct Retries<K> {
    failures: Mutex<HashMap<K, u32>>,
}

impl<K> Default for Retries<K> {
    fn default() -> Self {
        Self {
            failures: Mutex::default(),
        }
    }
}

impl<K: Hash + Eq> Retries<K> {
    fn next(&self, key: K) -> Duration {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let count = failures.entry(key).or_default();
        *count = count.saturating_add(1);
        backoff(*count, rand::random())
    }

    fn clear(&self, key: &K) {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }
}

/// The wait after the `failures`-th failure in a row: doubled each time, up to half of it random.
pub(super) fn backoff(failures: u32, random: u32) -> Duration {
    let doubled = FIRST_RETRY
        .saturating_mul(1 << failures.saturating_sub(1).min(16))
        .min(LONGEST_RETRY);
    let half = doubled / 2;
    half + half.mul_f64(f64::from(random) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_wait_longer_each_time_with_a_limit_and_jitter() {
        assert_eq!(backoff(1, u32::MAX), FIRST_RETRY);
        assert_eq!(backoff(1, 0), FIRST_RETRY / 2);
        assert_eq!(backoff(3, u32::MAX), FIRST_RETRY * 4);
        assert_eq!(backoff(100, u32::MAX), LONGEST_RETRY);
    }
}

//! One watch of all `DeviceCertificate`s for all parts of a process, so that the API server lists and sends each object once however
//! many parts that has.

use std::sync::Arc;
use std::time::Duration;

use certwave_crds::DeviceCertificate;
use futures::StreamExt as _;
use kube::api::{Api, ListParams};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::changes::changes;
use super::drive::backoff;
use super::pages::{PAGE, Pages};
use super::shared::scoped;

/// What may wait for a part; when there is more, all parts wait for it.
const BACKLOG: usize = 1024;
/// Parts often begin together: one listing is for all that come within this time.
const TOGETHER: Duration = Duration::from_millis(100);

/// What a part sees.
#[derive(Debug, Clone)]
pub(super) enum Seen {
    /// A listing begins.
    Begins,
    /// An object as it is now.
    Is(Arc<DeviceCertificate>),
    /// An object that is gone.
    Gone(Arc<DeviceCertificate>),
    /// The listing is complete: objects that were not in it are gone.
    Complete,
}

type Joining = mpsc::UnboundedSender<mpsc::Sender<Seen>>;

/// The watch. Dropping it ends that.
#[derive(Debug)]
pub struct Feed {
    joining: Joining,
    task: AbortHandle,
}

impl Feed {
    /// A watch of the objects of one namespace, or of all. It begins when a part listens.
    pub fn new(client: &kube::Client, namespace: Option<&str>) -> Self {
        let api = scoped(client, namespace);
        let (joining, joined) = mpsc::unbounded_channel();
        Self {
            joining,
            task: tokio::spawn(run(api, joined)).abort_handle(),
        }
    }

    /// What there is from now on, a listing of everything first.
    pub(super) fn listen(&self) -> mpsc::Receiver<Seen> {
        let (listener, seen) = mpsc::channel(BACKLOG);
        // Where the watch has ended, the channel has as well.
        let _ = self.joining.send(listener);
        seen
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A part that listens.
struct Listener {
    sender: mpsc::Sender<Seen>,
    /// What the listing that was made for it had; `None`: the watch's own listings are all it saw.
    listed: Option<Version>,
}

impl Listener {
    /// Whether the listing that was made for it has what happened then.
    fn has(&self, happened: Option<Version>) -> bool {
        self.listed
            .zip(happened)
            .is_some_and(|(listed, happened)| happened <= listed)
    }
}

/// A resource version. Clients may compare them as integers (*Resource versions* in Kubernetes' API concepts).
type Version = u128;

fn version(text: Option<&String>) -> Option<Version> {
    text?.parse().ok()
}

async fn run(api: Api<DeviceCertificate>, mut joining: mpsc::UnboundedReceiver<mpsc::Sender<Seen>>) {
    let mut listeners = Vec::new();
    while let Some(first) = joining.recv().await {
        listeners.extend(together(first, &mut joining).await);
        let config = watcher::Config::default().page_size(PAGE);
        let begin = || Box::pin(changes(api.clone(), config.clone()).default_backoff());
        let mut events = begin();
        // All that there was has been told, and what changes is told as it does.
        let mut current = false;
        while !listeners.is_empty() {
            tokio::select! {
                biased;
                joined = joining.recv() => {
                    let Some(joined) = joined else { return };
                    let joined = together(joined, &mut joining).await;
                    if current {
                        // The watch goes on behind that listing: whoever sees it from there has missed nothing, and whoever watched
                        // before has witnessed every deletion.
                        listeners.extend(list(&api, joined).await);
                    } else {
                        listeners.extend(joined);
                        events = begin();
                    }
                }
                event = events.next() => match event {
                    Some(Ok(event)) => {
                        match event {
                            Event::Init => current = false,
                            Event::InitDone => current = true,
                            _ => {}
                        }
                        tell(&listeners, event).await;
                    }
                    Some(Err(error)) => tracing::warn!(kind = "DeviceCertificate", %error, "watch failed, trying again"),
                    None => return,
                },
            }
            listeners.retain(|listener| !listener.sender.is_closed());
        }
    }
}

/// Everyone who joins within a moment of the first.
async fn together(
    first: mpsc::Sender<Seen>,
    joining: &mut mpsc::UnboundedReceiver<mpsc::Sender<Seen>>,
) -> Vec<Listener> {
    tokio::time::sleep(TOGETHER).await;
    let mut joined = vec![first];
    while let Ok(another) = joining.try_recv() {
        joined.push(another);
    }
    let fresh = |sender| Listener { sender, listed: None };
    joined.into_iter().map(fresh).collect()
}

/// Lists everything for those who have joined, as often as it takes.
async fn list(api: &Api<DeviceCertificate>, mut joined: Vec<Listener>) -> Vec<Listener> {
    let mut failures = 0_u32;
    loop {
        match list_once(api, &mut joined).await {
            Ok(()) => return joined,
            Err(error) => {
                failures = failures.saturating_add(1);
                tracing::warn!(kind = "DeviceCertificate", %error, failures, "listing failed, trying again");
                tokio::time::sleep(backoff(failures, rand::random())).await;
            }
        }
        joined.retain(|listener| !listener.sender.is_closed());
        if joined.is_empty() {
            return joined;
        }
    }
}

async fn list_once(api: &Api<DeviceCertificate>, joined: &mut [Listener]) -> kube::Result<()> {
    let mut pages = Pages::new(api.clone(), ListParams::default());
    send(joined, None, &Seen::Begins).await;
    let mut listed = None;
    while let Some(page) = pages.next().await? {
        listed = version(page.metadata.resource_version.as_ref());
        for object in page.items {
            send(joined, None, &Seen::Is(Arc::new(object))).await;
        }
    }
    send(joined, None, &Seen::Complete).await;
    for listener in joined {
        listener.listed = listed;
    }
    Ok(())
}

/// Tells all of it.
async fn tell(listeners: &[Listener], event: Event<DeviceCertificate>) {
    // Of an object that is listed it says nothing: that may be older than the listing.
    let happened = match &event {
        Event::Apply(object) | Event::Delete(object) => version(object.metadata.resource_version.as_ref()),
        Event::Init | Event::InitApply(_) | Event::InitDone => None,
    };
    let seen = match event {
        Event::Apply(object) | Event::InitApply(object) => Seen::Is(Arc::new(object)),
        Event::Delete(object) => Seen::Gone(Arc::new(object)),
        Event::Init => Seen::Begins,
        Event::InitDone => Seen::Complete,
    };
    send(listeners, happened, &seen).await;
}

/// Sends it to each as fast as it takes it, unless its listing had what happened then.
async fn send(listeners: &[Listener], happened: Option<Version>, seen: &Seen) {
    for listener in listeners.iter().filter(|listener| !listener.has(happened)) {
        // Who listens no more is forgotten by the caller.
        let _ = listener.sender.send(seen.clone()).await;
    }
}

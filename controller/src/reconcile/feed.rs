//! One watch of all `DeviceCertificate`s for all parts of a process, so that the API server sends each change once however many parts
//! that has. Who joins gets a listing of its own, while those who joined before go on hearing what happens.

use std::sync::Arc;
use std::time::Duration;

use certwave_crds::DeviceCertificate;
use futures::StreamExt as _;
use futures::future::BoxFuture;
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
/// What may happen during a listing before it holds up the watch: the memory of 64 parts' backlogs.
const MEANWHILE: usize = 64 * BACKLOG;

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

/// The way to a part.
type Sender = mpsc::Sender<Seen>;

/// The watch. Dropping it ends that.
#[derive(Debug)]
pub struct Feed {
    joining: mpsc::UnboundedSender<Sender>,
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
        let (sender, seen) = mpsc::channel(BACKLOG);
        // Where the watch has ended, the channel has as well.
        let _ = self.joining.send(sender);
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
    sender: Sender,
    /// What the listing that was made for it had; `None`: the watch's own listings are all it saw.
    listed: Option<Version>,
}

/// A resource version. They may be compared as integers where Kubernetes says so, from 1.35 (*Resource versions* in its API concepts), and
/// before that are revisions of etcd. What is no integer is told rather than left out.
type Version = u128;

fn version(text: Option<&String>) -> Option<Version> {
    text?.parse().ok()
}

/// What happened, and when that was; a listing's parts, which all must see, have no time.
type Happened = (Option<Version>, Seen);

/// Those who have joined and are listed for; the watch goes on meanwhile.
struct Listing {
    joined: Vec<Sender>,
    failures: u32,
    /// One attempt.
    attempt: BoxFuture<'static, kube::Result<Option<Version>>>,
    /// What the watch has told since that was begun.
    since: Vec<Happened>,
}

impl Listing {
    fn begin(api: &Api<DeviceCertificate>, joined: Vec<Sender>, failures: u32) -> Self {
        let (api, to) = (api.clone(), joined.clone());
        let attempt = async move {
            if failures > 0 {
                tokio::time::sleep(backoff(failures, rand::random())).await;
            }
            list(api, &to).await
        };
        Self {
            joined,
            failures,
            attempt: Box::pin(attempt),
            since: Vec::new(),
        }
    }
}

async fn run(api: Api<DeviceCertificate>, mut joining: mpsc::UnboundedReceiver<Sender>) {
    while let Some(first) = joining.recv().await {
        let fresh = |sender| Listener { sender, listed: None };
        let mut listeners: Vec<Listener> = together(first, &mut joining).await.into_iter().map(fresh).collect();
        let config = watcher::Config::default().page_size(PAGE);
        let mut events = Box::pin(changes(api.clone(), config).default_backoff());
        // All that there was has been told, and what changes is told as it does.
        let mut current = false;
        // A listing is under way that nobody has been told of.
        let mut begins = false;
        let mut listing: Option<Listing> = None;
        while listing.is_some() || !listeners.is_empty() {
            tokio::select! {
                event = events.next(), if listing.as_ref().is_none_or(|listing| listing.since.len() < MEANWHILE) => match event {
                    Some(Ok(Event::Init)) => {
                        (current, begins) = (false, true);
                        // All is listed anew for everybody: from then on the watch has nothing that was before.
                        let joined = listing.take().map(|listing| listing.joined);
                        let all = listeners.into_iter().map(|listener| listener.sender);
                        listeners = all.chain(joined.into_iter().flatten()).map(fresh).collect();
                    }
                    Some(Ok(event)) => {
                        // Not before the first page is there, as in [`list`].
                        if std::mem::take(&mut begins) {
                            tell(&listeners, &happened(Event::Init)).await;
                        }
                        current |= matches!(event, Event::InitDone);
                        let happened = happened(event);
                        tell(&listeners, &happened).await;
                        if let Some(listing) = &mut listing {
                            listing.since.push(happened);
                        }
                    }
                    Some(Err(error)) => tracing::warn!(kind = "DeviceCertificate", %error, "watch failed, trying again"),
                    None => return,
                },
                // Who comes while all is listed waits until that is over.
                joined = joining.recv(), if current && listing.is_none() => {
                    let Some(joined) = joined else { return };
                    listing = Some(Listing::begin(&api, together(joined, &mut joining).await, 0));
                }
                listed = attempted(listing.as_mut()) => {
                    let Some(Listing { mut joined, failures, since, .. }) = listing.take() else { continue };
                    joined.retain(|sender| !sender.is_closed());
                    match listed {
                        Ok(listed) => {
                            let joined = joined.into_iter().map(|sender| Listener { sender, listed });
                            let joined: Vec<Listener> = joined.collect();
                            for happened in &since {
                                tell(&joined, happened).await;
                            }
                            listeners.extend(joined);
                        }
                        Err(error) => {
                            let failures = failures.saturating_add(1);
                            tracing::warn!(kind = "DeviceCertificate", %error, failures, "listing failed, trying again");
                            listing = (!joined.is_empty()).then(|| Listing::begin(&api, joined, failures));
                        }
                    }
                }
            }
            listeners.retain(|listener| !listener.sender.is_closed());
        }
    }
}

/// What comes of the listing, if there is one.
async fn attempted(listing: Option<&mut Listing>) -> kube::Result<Option<Version>> {
    match listing {
        Some(listing) => (&mut listing.attempt).await,
        None => std::future::pending().await,
    }
}

/// Everyone who joins within a moment of the first.
async fn together(first: Sender, joining: &mut mpsc::UnboundedReceiver<Sender>) -> Vec<Sender> {
    tokio::time::sleep(TOGETHER).await;
    let mut joined = vec![first];
    while let Ok(another) = joining.try_recv() {
        joined.push(another);
    }
    joined
}

/// Lists everything for those who have joined, and says of when it is.
async fn list(api: Api<DeviceCertificate>, joined: &[Sender]) -> kube::Result<Option<Version>> {
    let mut pages = Pages::new(api, ListParams::default());
    let mut next = pages.next().await?;
    // Not before: whatever a part reads by itself from here on is as new as the listing, and its end is told.
    send(joined, &Seen::Begins).await;
    let mut listed = None;
    while let Some(page) = next {
        listed = version(page.metadata.resource_version.as_ref());
        for object in page.items {
            send(joined, &Seen::Is(Arc::new(object))).await;
        }
        if joined.iter().all(Sender::is_closed) {
            return Ok(None);
        }
        next = pages.next().await?;
    }
    send(joined, &Seen::Complete).await;
    Ok(listed)
}

fn happened(event: Event<DeviceCertificate>) -> Happened {
    match event {
        Event::Apply(object) => (
            version(object.metadata.resource_version.as_ref()),
            Seen::Is(Arc::new(object)),
        ),
        Event::Delete(object) => (
            version(object.metadata.resource_version.as_ref()),
            Seen::Gone(Arc::new(object)),
        ),
        Event::InitApply(object) => (None, Seen::Is(Arc::new(object))),
        Event::Init => (None, Seen::Begins),
        Event::InitDone => (None, Seen::Complete),
    }
}

/// Tells all of it but those whose listing had it.
async fn tell(listeners: &[Listener], (at, seen): &Happened) {
    for listener in listeners {
        let had = listener.listed.zip(*at).is_some_and(|(listed, at)| at <= listed);
        if !had {
            send(std::slice::from_ref(&listener.sender), seen).await;
        }
    }
}

/// Sends it to each as fast as it takes it.
async fn send(to: &[Sender], seen: &Seen) {
    for sender in to {
        // Who listens no more is forgotten by the caller.
        let _ = sender.send(seen.clone()).await;
    }
}

#[cfg(test)]
mod tests;

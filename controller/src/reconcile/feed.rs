//! One watch of all `DeviceCertificate`s for all parts of a process, so that the API server lists and sends each object once however
//! many parts that has.

use std::sync::Arc;
use std::time::Duration;

use certwave_crds::DeviceCertificate;
use futures::StreamExt as _;
use kube::api::Api;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::changes::changes;
use super::shared::scoped;

/// Objects in one page of a listing.
const PAGE: u32 = 500;
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

/// The watch. Dropping it ends that.
#[derive(Debug)]
pub struct Feed {
    joining: mpsc::UnboundedSender<mpsc::Sender<Seen>>,
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

    /// What there is from now on, a listing of everything first. Who listened before sees that too.
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

async fn run(api: Api<DeviceCertificate>, mut joining: mpsc::UnboundedReceiver<mpsc::Sender<Seen>>) {
    let mut listeners = Vec::new();
    let mut joined = joining.recv().await;
    while let Some(listener) = joined {
        listeners.push(listener);
        tokio::time::sleep(TOGETHER).await;
        while let Ok(another) = joining.try_recv() {
            listeners.push(another);
        }
        let config = watcher::Config::default().page_size(PAGE);
        let mut events = Box::pin(changes(api.clone(), config).default_backoff());
        // Until another one joins, for whom all is listed anew.
        joined = loop {
            tokio::select! {
                biased;
                joined = joining.recv() => break joined,
                event = events.next() => match event {
                    Some(event) => tell(&mut listeners, event).await,
                    None => return,
                },
            }
            if listeners.is_empty() {
                break joining.recv().await;
            }
        };
    }
}

/// Tells all of it, each as fast as it takes it, and forgets whoever listens no more.
async fn tell(listeners: &mut Vec<mpsc::Sender<Seen>>, event: Result<Event<DeviceCertificate>, watcher::Error>) {
    let seen = match event {
        Ok(Event::Apply(object) | Event::InitApply(object)) => Seen::Is(Arc::new(object)),
        Ok(Event::Delete(object)) => Seen::Gone(Arc::new(object)),
        Ok(Event::Init) => Seen::Begins,
        Ok(Event::InitDone) => Seen::Complete,
        Err(error) => {
            tracing::warn!(kind = "DeviceCertificate", %error, "watch failed, trying again");
            return;
        }
    };
    let mut gone = false;
    for listener in &*listeners {
        gone |= listener.send(seen.clone()).await.is_err();
    }
    if gone {
        listeners.retain(|listener| !listener.is_closed());
    }
}

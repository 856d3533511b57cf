//! Devices whose fleet is not known yet. Not the devices are remembered but the fleet: when it comes, its devices are listed.

use std::collections::HashMap;
use std::pin::Pin;
use std::time::Duration;

use certwave_core::model::ObjectRef;
use certwave_crds::DeviceCertificate;
use certwave_ledger::FleetKey;
use futures::{Stream, StreamExt};
use kube::api::{Api, ListParams};
use tokio::time::Instant;

use crate::reconcile::drive::backoff;
use crate::reconcile::shared::Shared;

/// Objects in one page.
const PAGE: u32 = 500;
/// Attempts for one page.
const ATTEMPTS: u32 = 8;

/// Devices that are applied together with their fleet wait for it for a moment only: nobody needs to be told of that.
const PATIENCE: Duration = Duration::from_secs(10);

/// Fleets that devices wait for.
pub(super) struct Waiting {
    /// When people are told that the fleet is missing; `None`: they have been told.
    fleets: HashMap<FleetKey, Option<Instant>>,
    changes: Pin<Box<dyn Stream<Item = ()> + Send>>,
}

/// What became of a fleet that devices wait for.
pub(super) enum News {
    /// It is there.
    Ready(FleetKey),
    /// It is not, for longer than one would expect.
    Late(FleetKey),
}

impl Waiting {
    pub(super) fn new(shared: &Shared) -> Self {
        Self {
            fleets: HashMap::new(),
            changes: Box::pin(shared.fleets.changes()),
        }
    }

    pub(super) fn add(&mut self, fleet: FleetKey) {
        // One who comes later is told as well.
        let due = self.fleets.entry(fleet).or_default();
        due.get_or_insert_with(|| Instant::now() + PATIENCE);
    }

    /// The next news of a fleet that devices wait for.
    pub(super) async fn next(&mut self, shared: &Shared) -> News {
        loop {
            if let Some(key) = self.fleets.keys().find(|key| is_there(shared, key)).cloned() {
                self.fleets.remove(&key);
                return News::Ready(key);
            }
            let first = self.fleets.iter().filter_map(|(key, due)| Some(((*due)?, key.clone())));
            let first = first.min_by_key(|(due, _)| *due);
            let late = async {
                match first {
                    Some((due, key)) => {
                        tokio::time::sleep_until(due).await;
                        key
                    }
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                change = self.changes.next() => if change.is_none() {
                    std::future::pending::<()>().await;
                },
                key = late => {
                    self.fleets.insert(key.clone(), None);
                    return News::Late(key);
                }
            }
        }
    }
}

fn is_there(shared: &Shared, key: &FleetKey) -> bool {
    let object = ObjectRef {
        namespace: key.namespace.clone(),
        name: key.name.clone(),
    };
    shared.fleets.get(&object).is_some_and(|home| home.broker.is_some())
}

/// Lists a fleet's devices, page by page.
pub(super) struct Pages {
    api: Api<DeviceCertificate>,
    params: ListParams,
    over: bool,
}

impl Pages {
    pub(super) fn of(shared: &Shared, fleet: &FleetKey) -> Self {
        let params = ListParams::default()
            .fields(&format!("spec.fleetRef.name={}", fleet.name))
            .limit(PAGE);
        Self {
            api: shared.api(&fleet.namespace),
            params,
            over: false,
        }
    }

    /// The next page. When the API server fails for long, the listing ends; the watch's next one brings the others.
    pub(super) async fn next(&mut self) -> Option<Vec<DeviceCertificate>> {
        let mut failures = 0;
        while !self.over {
            match self.api.list(&self.params).await {
                Ok(page) => {
                    match page.metadata.continue_.filter(|token| !token.is_empty()) {
                        Some(token) => self.params = self.params.clone().continue_token(&token),
                        None => self.over = true,
                    }
                    return Some(page.items);
                }
                Err(error) if failures < ATTEMPTS => {
                    failures += 1;
                    tracing::warn!(%error, "cannot list a fleet's devices; trying again");
                    tokio::time::sleep(backoff(failures, rand::random())).await;
                }
                Err(error) => {
                    tracing::error!(%error, "cannot list a fleet's devices");
                    self.over = true;
                }
            }
        }
        None
    }
}

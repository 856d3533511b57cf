//! Devices whose fleet is not known yet. Not the devices are remembered but the fleet: when it comes, its devices are listed.

use std::collections::HashSet;
use std::pin::Pin;

use certwave_core::model::ObjectRef;
use certwave_crds::DeviceCertificate;
use certwave_ledger::FleetKey;
use futures::{Stream, StreamExt};
use kube::api::{Api, ListParams};

use crate::reconcile::drive::backoff;
use crate::reconcile::shared::Shared;

/// Objects in one page.
const PAGE: u32 = 500;
/// Attempts for one page.
const ATTEMPTS: u32 = 8;

/// Fleets that devices wait for.
pub(super) struct Waiting {
    fleets: HashSet<FleetKey>,
    changes: Pin<Box<dyn Stream<Item = ()> + Send>>,
}

impl Waiting {
    pub(super) fn new(shared: &Shared) -> Self {
        Self {
            fleets: HashSet::new(),
            changes: Box::pin(shared.fleets.changes()),
        }
    }

    pub(super) fn add(&mut self, fleet: FleetKey) {
        self.fleets.insert(fleet);
    }

    /// The next fleet that devices wait for and that is there now.
    pub(super) async fn next(&mut self, shared: &Shared) -> FleetKey {
        loop {
            let there = self.fleets.iter().find(|key| {
                let object = ObjectRef {
                    namespace: key.namespace.clone(),
                    name: key.name.clone(),
                };
                shared.fleets.get(&object).is_some_and(|home| home.broker.is_some())
            });
            if let Some(key) = there.cloned() {
                self.fleets.remove(&key);
                return key;
            }
            if self.changes.next().await.is_none() {
                std::future::pending::<()>().await;
            }
        }
    }
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

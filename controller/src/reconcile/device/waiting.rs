//! Devices whose fleet is not known yet. Not the devices are remembered but the fleet: when it comes, its devices are listed.

use std::collections::HashMap;
use std::pin::Pin;
use std::time::Duration;

use certwave_core::model::ObjectRef;
use certwave_crds::DeviceCertificate;
use certwave_ledger::FleetKey;
use futures::{Stream, StreamExt};
use kube::api::ListParams;
use tokio::time::Instant;

use crate::reconcile::drive::backoff;
use crate::reconcile::pages::Pages;
use crate::reconcile::shared::Shared;

/// Devices that are applied together with their fleet wait for it for a moment only: nobody needs to be told of that.
const PATIENCE: Duration = Duration::from_secs(10);

/// Fleets that devices wait for.
pub(super) struct Waiting {
    /// When people are told that the fleet is missing; `None`: they have been told.
    fleets: HashMap<FleetKey, Option<Instant>>,
    /// Fleets whose devices could not be listed: not before this time, after so many failures.
    failed: HashMap<FleetKey, (Instant, u32)>,
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
            failed: HashMap::new(),
            changes: Box::pin(shared.fleets.changes()),
        }
    }

    pub(super) fn add(&mut self, fleet: FleetKey) {
        // One who comes later is told as well.
        let due = self.fleets.entry(fleet).or_default();
        due.get_or_insert_with(|| Instant::now() + PATIENCE);
    }

    /// The fleet's devices have been listed, and told or taken over as the news was.
    pub(super) fn done(&mut self, fleet: &FleetKey) {
        self.failed.remove(fleet);
    }

    /// They could not be listed: the same news comes again, later each time.
    pub(super) fn failed(&mut self, fleet: FleetKey) {
        let (due, failures) = self.failed.entry(fleet.clone()).or_insert((Instant::now(), 0));
        *failures = failures.saturating_add(1);
        *due = Instant::now() + backoff(*failures, rand::random());
        self.fleets.insert(fleet, Some(*due));
    }

    /// The next news of a fleet that devices wait for.
    pub(super) async fn next(&mut self, shared: &Shared) -> News {
        loop {
            let now = Instant::now();
            let ready = self.fleets.keys().find(|key| {
                let deferred = self.failed.get(*key).is_some_and(|(due, _)| *due > now);
                !deferred && is_there(shared, key)
            });
            if let Some(key) = ready.cloned() {
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
                // It may be there by now, with devices that could not be listed.
                key = late => if !is_there(shared, &key) {
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

/// Lists a fleet's devices.
pub(super) fn devices_of(shared: &Shared, fleet: &FleetKey) -> Pages<DeviceCertificate> {
    let fields = format!("spec.fleetRef.name={}", fleet.name);
    Pages::new(shared.api(&fleet.namespace), ListParams::default().fields(&fields))
}

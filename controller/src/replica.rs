//! One replica of the operator: it takes what parts of the work it is to do, and does them. What it works with it is given.

use std::sync::{Arc, OnceLock};

use anyhow::Context as _;
use certwave_ledger::Ledger;

use crate::clock::now;
use crate::parts::Parts;
use crate::reconcile::leader::Leadership;
use crate::reconcile::shards::{Begin, Shards};
use crate::{fitting, reconcile};

/// The Lease that elects the leader.
pub const LEASE: &str = "certwave-controller";

/// Looks whether the ledger is the one that was in use last, by what is noted on the Lease (namespace and name). Where the API server
/// is out, whoever leads looks again.
pub async fn settle(client: kube::Client, ledger: &dyn Ledger, (namespace, lease): (&str, &str)) {
    match reconcile::leader::noted(client, namespace, lease).await {
        Ok(noted) => {
            if let Err(error) = reconcile::provenance::settle(ledger, &noted, now()).await {
                tracing::warn!(%error, "cannot see whether the ledger is the one that was in use last");
            }
        }
        Err(error) => tracing::warn!(%error, lease, "cannot read which ledger was in use last"),
    }
}

/// Works until told to stop or deposed. What is held then is handed over.
///
/// # Errors
/// When leadership was lost, a term could not begin, or this process may not use the Leases at all.
pub async fn run(parts: &Arc<Parts>, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
    let mut shards = Shards::new(
        &parts.client,
        (&parts.lease.0, parts.namespace.as_deref()),
        &parts.identity,
        parts.metrics.brokers.held.clone(),
        looking_after(parts),
    );
    let leadership = OnceLock::new();
    let outcome = tokio::select! {
        ended = lead(parts, &leadership) => ended,
        ended = shards.run() => Ok(ended?),
        () = stop => Ok(()),
    };
    parts.metrics.leader.set(0);
    // Whoever found out first: from now on nobody says anything.
    if let Some(leadership) = leadership.get() {
        leadership.gate().close();
    }
    shards.release().await;
    if let Some(leadership) = leadership.into_inner() {
        leadership.release().await;
    }
    outcome
}

/// What a broker that this replica holds is looked after by.
fn looking_after(parts: &Arc<Parts>) -> Begin {
    let parts = Arc::clone(parts);
    Arc::new(move |broker, gate| {
        let parts = Arc::clone(&parts);
        Box::pin(async move { parts.broker(broker, gate).await })
    })
}

/// Waits for the controller's Lease, takes an epoch, and does what is of all until that is over.
async fn lead(parts: &Parts, held: &OnceLock<Leadership>) -> anyhow::Result<()> {
    let (client, (namespace, lease)) = (&parts.client, &parts.lease);
    let follow = reconcile::follow_signers(client.clone(), parts.namespace.clone(), Arc::clone(&parts.signers));
    let leadership = tokio::select! {
        () = follow => return Ok(()),
        l = reconcile::leader::acquire(client.clone(), namespace, lease, &parts.identity) => l?,
    };
    // Set once.
    let leadership = held.get_or_init(|| leadership);
    // It may have waited for days.
    match fitting::look(client).await {
        Err(unfit) if unfit.is_known() => return Err(unfit.into()),
        Err(unfit) => tracing::warn!(%unfit, "going on with the CRDs of the start"),
        Ok(()) => {}
    }
    let ledger = &*parts.ledger;
    reconcile::provenance::settle(ledger, leadership.found(), now()).await?;
    let epoch = ledger
        .take_epoch(&parts.identity, now())
        .await
        .context("the ledger gives no epoch")?;
    leadership
        .note(reconcile::provenance::Progress::of(ledger).await?)
        .await?;
    parts.metrics.leader.set(1);
    tracing::info!(identity = parts.identity, epoch, "leading");
    tokio::select! {
        ended = parts.controller(epoch, leadership.progress()) => ended,
        () = leadership.lost() => Err(anyhow::anyhow!("the Lease was lost; another replica takes over")),
    }
}

//! What is done for each part of the work as long as this process holds it: everything is made anew when a term begins and dropped
//! when it ends, so nothing of one is left in the next.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use certwave_ledger::{Ledger, Part};
use certwave_protocol::ids::{BrokerId, Epoch};
use tokio::sync::{mpsc, watch};

use crate::clock::{Clock, now};
use crate::engine::Engine;
use crate::engine::dial::Dial;
use crate::gate::Gate;
use crate::metrics::Metrics;
use crate::notice::{Notice, Skewed};
use crate::publish::{Monitor, Publisher};
use crate::reconcile::{self, leader, provenance};
use crate::registry::Registry;
use crate::{archive, fitting, gates, ocsp};

/// What all parts of a process work with.
pub struct Parts {
    /// The API server.
    pub client: kube::Client,
    /// The ledger.
    pub ledger: Arc<dyn Ledger>,
    /// This replica's name.
    pub identity: String,
    /// Where the controller's Lease is, and its name.
    pub lease: (String, &'static str),
    /// The clock.
    pub clock: Arc<Clock>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Who signs OCSP answers.
    pub signers: Arc<ocsp::Signers>,
    /// As in [`reconcile::Context`].
    pub publication_base: Option<String>,
    /// As in [`reconcile::Context`].
    pub namespace: Option<String>,
    /// As in [`reconcile::Context`].
    pub status_delay: Duration,
    /// As in [`archive::run`].
    pub archive_after_days: u32,
    /// Changes when one part has changed a certificate's standing, for the others.
    pub standing: watch::Sender<u64>,
    /// Opens the connections to brokers.
    pub dial: Arc<dyn Dial>,
    /// Asks gates, and reads CRLs back.
    pub http: gates::Client,
    /// As in [`reconcile::Context`].
    pub feed: Arc<reconcile::Feed>,
}

impl Parts {
    /// Does what is of all, in the term of this epoch.
    ///
    /// # Errors
    /// When the term is over, or a watch ends.
    pub async fn controller(&self, epoch: Epoch, progress: &watch::Sender<provenance::Progress>) -> anyhow::Result<()> {
        let registry = Arc::new(Registry::beside(self.standing.clone()));
        let publisher = self.publisher(epoch);
        // Nobody speaks to devices here.
        let (_notices, heard) = mpsc::channel(1);
        let context = self.context((Part::Controller, epoch), registry, publisher, heard, Arc::default());
        let trusted = || self.clock.is_trusted();
        tokio::select! {
            () = archive::run(&*self.ledger, epoch, self.archive_after_days, trusted) => Ok(()),
            why = provenance::follow(&*self.ledger, progress) => {
                Err(anyhow::anyhow!("the ledger has lost what was written, {why}: it is looked at anew from the start"))
            }
            () = self.deposed(epoch) => Err(anyhow::anyhow!("another replica leads")),
            ended = reconcile::run(context) => Ok(ended?),
        }
    }

    /// Looks after one broker until the gate closes.
    ///
    /// # Errors
    /// When the term is over otherwise, could not begin, or a watch ends.
    pub async fn broker(&self, broker: BrokerId, gate: Arc<Gate>) -> anyhow::Result<()> {
        tokio::select! {
            () = gate.closed() => Ok(()),
            ended = self.serve(broker, Arc::clone(&gate)) => {
                gate.close();
                ended
            }
        }
    }

    async fn serve(&self, broker: BrokerId, gate: Arc<Gate>) -> anyhow::Result<()> {
        match fitting::look(&self.client).await {
            Err(unfit) if unfit.is_known() => return Err(unfit.into()),
            Err(unfit) => tracing::warn!(%unfit, "going on with the CRDs of the start"),
            Ok(()) => {}
        }
        // Before an epoch is taken, by which a ledger that was put back would look like a new one.
        let (namespace, lease) = &self.lease;
        let noted = leader::noted(self.client.clone(), namespace, lease).await?;
        provenance::settle(&*self.ledger, &noted, now()).await?;
        let part = Part::Broker(broker.clone());
        let epoch = self
            .ledger
            .begin_term(&part, &self.identity, now())
            .await
            .context("the ledger gives no epoch")?;
        tracing::info!(%broker, epoch, "a term begins");
        let registry = Arc::new(Registry::beside(self.standing.clone()));
        let (notices, heard) = mpsc::channel(1024);
        let skewed = Arc::new(Skewed::default());
        let publisher = self.publisher(epoch);
        let engine = Engine::new(
            Arc::clone(&self.ledger),
            (broker, epoch),
            Arc::clone(&registry),
            notices,
            Arc::clone(&self.metrics),
            Arc::clone(&skewed),
            gate,
            Arc::clone(&publisher),
            Arc::clone(&self.dial),
        );
        let context = self.context((part, epoch), registry, publisher, heard, skewed);
        tokio::select! {
            ended = engine.run() => Ok(ended?),
            ended = reconcile::run(context) => Ok(ended?),
        }
    }

    /// Resolves when another replica has taken the part over: who has nothing to write would not hear of it otherwise.
    async fn deposed(&self, epoch: Epoch) {
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            if matches!(self.ledger.is_present(epoch).await, Ok(false)) {
                return;
            }
        }
    }

    fn publisher(&self, epoch: Epoch) -> Arc<Publisher> {
        let (clock, metrics) = (Arc::clone(&self.clock), Arc::clone(&self.metrics));
        Publisher::new(Arc::clone(&self.ledger), epoch, clock, metrics)
    }

    fn context(
        &self,
        (part, epoch): (Part, Epoch),
        registry: Arc<Registry>,
        publisher: Arc<Publisher>,
        notices: mpsc::Receiver<Notice>,
        skewed: Arc<Skewed>,
    ) -> reconcile::Context {
        let metrics = Arc::clone(&self.metrics);
        reconcile::Context {
            client: self.client.clone(),
            ledger: Arc::clone(&self.ledger),
            part,
            epoch,
            registry,
            notices,
            skewed,
            publication_base: self.publication_base.clone(),
            namespace: self.namespace.clone(),
            ocsp: Arc::clone(&self.signers),
            monitor: Monitor::new(Arc::clone(&publisher), self.http.clone(), Arc::clone(&metrics)),
            gates: self.http.clone(),
            metrics,
            publisher,
            status_delay: self.status_delay,
            feed: Arc::clone(&self.feed),
        }
    }
}

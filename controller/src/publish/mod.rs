//! CRLs: made from the ledger, stored in it, served over HTTP, and read back from where relying parties get them.
//!
//! A CA has one CRL for each month in which certificates of its end, one for its subordinates (`ca`), one of everything
//! (`full`), and with `spec.crl.delta` one of what is new for each but the last. The leader makes them (`Publisher`, `run`);
//! every process serves them (`serve`).

mod build;
mod cache;
mod monitor;
mod run;
mod scope;
mod select;
mod serve;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use certwave_core::model::{Millis, ObjectRef};
use certwave_ledger::{Ledger, LedgerError};
use certwave_pki::crl::{Crl, CrlError};
use certwave_protocol::ids::Epoch;
use tokio::sync::broadcast;

use crate::clock::Clock;
use crate::metrics::Metrics;
use crate::registry::IssuerEntry;
use build::Plan;

pub use cache::Cache;
pub use monitor::{Monitor, Trouble, Watched};
pub use run::run;
pub use scope::{Now, Stamp, is_over, kind_of};
pub(crate) use scope::{end_of, is_key_id};
pub(crate) use select::{has_tag, http_date};
pub use serve::router;

/// How often a CRL is built anew because a greater number turned out to be there.
const ATTEMPTS: usize = 4;

/// News of published CRLs that may wait for their reader.
const PUBLISHED: usize = 1024;

/// Why there is no CRL.
#[derive(Debug, thiserror::Error)]
pub enum CrlFault {
    /// The ledger refused or could not answer.
    #[error("the ledger: {0}")]
    Ledger(#[from] LedgerError),
    /// It cannot be made.
    #[error(transparent)]
    Crl(#[from] CrlError),
    /// The ledger comes from a backup, and what was revoked since is not known yet.
    #[error("the ledger was restored from a backup and does not know yet what was revoked since")]
    Restored,
    /// The CA has no publication base URL.
    #[error("the CA has no publication base URL")]
    NotPublished,
    /// The lines ended early, or another process kept publishing.
    #[error("the list was not finished")]
    Abandoned,
}

impl CrlFault {
    /// A short word of a closed set, for metric labels.
    pub fn category(&self) -> &'static str {
        match self {
            Self::Ledger(error) => error.category(),
            Self::Crl(error) => error.category(),
            Self::Restored => "restored",
            Self::NotPublished => "not-published",
            Self::Abandoned => "abandoned",
        }
    }
}

/// Issuer's key id and scope.
pub(crate) type Key = (String, String);

/// Makes CRLs in one term. It sees to it that no two builds of a scope overtake each other; of two of one process or of several, whose
/// number is not greater builds once more.
pub struct Publisher {
    ledger: Arc<dyn Ledger>,
    epoch: Epoch,
    clock: Arc<Clock>,
    metrics: Arc<Metrics>,
    /// The last CRL of each scope. Scopes are never taken away: this grows by one for each CA and month.
    stamps: RwLock<HashMap<Key, Stamp>>,
    building: Mutex<HashMap<Key, Arc<tokio::sync::Mutex<()>>>>,
    faults: RwLock<HashMap<Key, String>>,
    published: broadcast::Sender<ObjectRef>,
}

impl Publisher {
    /// The publisher of the term with this epoch.
    pub fn new(ledger: Arc<dyn Ledger>, epoch: Epoch, clock: Arc<Clock>, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self {
            ledger,
            epoch,
            clock,
            metrics,
            stamps: RwLock::default(),
            building: Mutex::default(),
            faults: RwLock::default(),
            published: broadcast::Sender::new(PUBLISHED),
        })
    }

    /// The CAs (their objects) of which a CRL was published, as it happens.
    pub(crate) fn published(&self) -> broadcast::Receiver<ObjectRef> {
        self.published.subscribe()
    }

    /// The clock that CRLs are dated by.
    pub fn clock(&self) -> &Arc<Clock> {
        &self.clock
    }

    /// Sees to it that a CRL of this scope is out that has begun and not ended, before the first certificate of it leaves. Costs a look
    /// into a map once it is there. A CA that publishes nothing needs none.
    ///
    /// # Errors
    /// When it is not there and cannot be made.
    pub async fn ensure(&self, issuer: &IssuerEntry, scope: &str) -> Result<(), CrlFault> {
        let now = Now::of(&self.clock);
        let key = (issuer.ca.key_id().to_string(), scope.to_owned());
        if issuer.ca.publication().is_none() || self.known(&key).is_some_and(|stamp| stamp.holds(now)) {
            return Ok(());
        }
        let lock = self.lock(&key);
        let _building = lock.lock().await;
        // Another process may have made one since.
        match self.read(&key).await? {
            Some(stamp) if stamp.holds(now) => Ok(()),
            _ => self.build(issuer, &key, None).await.map(drop),
        }
    }

    /// Makes, signs and stores the next CRL of a scope.
    ///
    /// # Errors
    /// When it cannot be made or stored; the one before stays.
    pub async fn publish(&self, issuer: &IssuerEntry, scope: &str) -> Result<Stamp, CrlFault> {
        let key = (issuer.ca.key_id().to_string(), scope.to_owned());
        let lock = self.lock(&key);
        let _building = lock.lock().await;
        let base = match scope.strip_suffix(".delta") {
            Some(partition) => self.stamp(&(key.0.clone(), partition.to_owned())).await?,
            None => None,
        };
        let result = self.build(issuer, &key, base).await;
        let mut faults = self.faults.write().unwrap_or_else(PoisonError::into_inner);
        match &result {
            Ok(_) => drop(faults.remove(&key)),
            Err(fault) => drop(faults.insert(key, fault.to_string())),
        }
        result
    }

    /// Makes a scope's CRL anew if the one in the ledger is damaged.
    ///
    /// # Errors
    /// When the ledger cannot be read, or as [`publish`](Self::publish).
    pub(super) async fn mend(&self, issuer: &IssuerEntry, scope: &str) -> Result<(), CrlFault> {
        let key_id = issuer.ca.key_id().to_string();
        let Some(crl) = self.ledger.crl(&key_id, scope).await? else {
            return Ok(());
        };
        let ca = issuer.ca.certificate_der().clone();
        let sound = crate::apart::run(move || Crl::parse(&crl.der).is_ok_and(|crl| crl.verify(&ca).is_ok()));
        if sound.await.unwrap_or(true) {
            return Ok(());
        }
        tracing::error!(
            issuer = key_id,
            scope,
            "the CRL in the ledger is damaged: it is made anew"
        );
        self.publish(issuer, scope).await.map(drop)
    }

    /// Why the last attempt at a scope failed, if it did.
    pub fn fault(&self, issuer: &str, scope: &str) -> Option<String> {
        let faults = self.faults.read().unwrap_or_else(PoisonError::into_inner);
        faults.get(&(issuer.to_owned(), scope.to_owned())).cloned()
    }

    /// The scopes of a CA with their last CRLs, by name.
    pub fn scopes(&self, issuer: &str) -> Vec<(String, Stamp)> {
        let stamps = self.stamps.read().unwrap_or_else(PoisonError::into_inner);
        let own = stamps.iter().filter(|((key_id, _), _)| key_id == issuer);
        let mut scopes: Vec<_> = own.map(|((_, scope), stamp)| (scope.clone(), *stamp)).collect();
        scopes.sort_by(|a, b| a.0.cmp(&b.0));
        scopes
    }

    /// When the next CRL of a scope is made, Unix milliseconds: not in the second in which the one before was. Of two with one
    /// `thisUpdate` OpenSSL goes by the one that it has had for longer, whatever their numbers say.
    async fn another_second(&self, last: Option<Stamp>) -> Millis {
        let now = self.clock.signing_time();
        if last.is_none_or(|last| last.this_update != now.div_euclid(1000)) {
            return now;
        }
        let left = u64::try_from(1000 - now.rem_euclid(1000)).unwrap_or(1000);
        tokio::time::sleep(Duration::from_millis(left)).await;
        self.clock.signing_time()
    }

    /// The caller holds the scope's lock: numbers are taken and lines read in the same order by all.
    #[tracing::instrument(level = "debug", name = "crl", skip_all, fields(scope = %key.1))]
    async fn build(&self, issuer: &IssuerEntry, key: &Key, base: Option<Stamp>) -> Result<Stamp, CrlFault> {
        if self.ledger.provenance().await?.restored_at.is_some() {
            return Err(CrlFault::Restored);
        }
        let last = self.stamp(key).await?;
        let mut highest = self.highest(key).await?;
        for _ in 0..ATTEMPTS {
            let now = self.another_second(last).await;
            let plan = Plan {
                issuer,
                scope: &key.1,
                last,
                base,
                highest,
                now,
            };
            let made = build::make(&*self.ledger, &plan).await?;
            let stored = self
                .ledger
                .publish_crl(self.epoch, made.record, made.stamp.covers, now)
                .await;
            match stored {
                Ok(()) => {
                    self.remember(key, made.stamp);
                    self.metrics.crls_published.inc();
                    // Nobody may listen.
                    let _ = self.published.send(issuer.object.clone());
                    tracing::info!(
                        issuer = key.0,
                        scope = key.1,
                        number = made.stamp.number,
                        entries = made.stamp.entries,
                        "CRL published"
                    );
                    return Ok(made.stamp);
                }
                // Known only from a backup's floor, or somebody else's: what was read may be older than that. From the start.
                Err(error) => match build::overtaken(&error) {
                    Some(present) => highest = highest.max(present),
                    None => return Err(error.into()),
                },
            }
        }
        Err(CrlFault::Abandoned)
    }

    /// The greatest number of a scope; complete and delta CRLs share one sequence (RFC 5280, 5.2.4).
    async fn highest(&self, key: &Key) -> Result<u64, CrlFault> {
        let own = key.1.strip_suffix(".delta").unwrap_or(&key.1);
        let numbers = self.ledger.crl_numbers(&key.0).await?;
        let of_scope = numbers
            .into_iter()
            .filter(|(scope, _)| scope.strip_suffix(".delta").unwrap_or(scope) == own);
        Ok(of_scope.map(|(_, number)| number).max().unwrap_or(0))
    }

    fn lock(&self, key: &Key) -> Arc<tokio::sync::Mutex<()>> {
        // A scope's delta CRLs take numbers of the same sequence.
        let scope = key.1.strip_suffix(".delta").unwrap_or(&key.1);
        let mut building = self.building.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(building.entry((key.0.clone(), scope.to_owned())).or_default())
    }

    fn known(&self, key: &Key) -> Option<Stamp> {
        self.stamps
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(key)
            .copied()
    }

    fn remember(&self, key: &Key, stamp: Stamp) {
        self.stamps
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(key.clone(), stamp);
    }

    /// The last CRL of a scope: as remembered, else as the ledger has it.
    pub(crate) async fn stamp(&self, key: &Key) -> Result<Option<Stamp>, CrlFault> {
        match self.known(key) {
            Some(stamp) => Ok(Some(stamp)),
            None => self.read(key).await,
        }
    }

    /// The last CRL of a scope as the ledger has it.
    async fn read(&self, key: &Key) -> Result<Option<Stamp>, CrlFault> {
        let Some(crl) = self.ledger.crl(&key.0, &key.1).await? else {
            return Ok(None);
        };
        let covers = self.ledger.crl_covers(&key.0, &key.1, 1).await?;
        let (number, this_update, next_update) = (crl.number, crl.this_update, crl.next_update);
        let read = crate::apart::run(move || {
            Crl::parse(&crl.der).map_or((0, false), |crl| (crl.len(), crl.freshest().is_some()))
        });
        let (entries, names_deltas) = read.await.unwrap_or_default();
        let stamp = Stamp {
            number,
            this_update,
            next_update,
            covers: covers.first().map_or(0, |cover| cover.covers),
            entries,
            names_deltas,
        };
        self.remember(key, stamp);
        Ok(Some(stamp))
    }
}

//! When CRLs are made: on their period, and at once after a change.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use certwave_ledger::LedgerError;
use certwave_pki::{CA_PARTITION, FULL_PARTITION};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::scope::{Now, delta_of, is_delta, is_due, is_over};
use super::{CrlFault, Key, Publisher, Stamp};
use crate::registry::{IssuerEntry, Registry};

/// How often the ledger is asked for changes that nobody told us of.
const PERIOD: Duration = Duration::from_secs(1);
/// How often CRLs are looked at for their age.
const AGING: Duration = Duration::from_secs(10);
/// A burst of changes is over when none came for this long,
const QUIET: Duration = Duration::from_millis(200);
/// or has gone on for this long.
const PATIENCE: Duration = Duration::from_secs(1);
/// A list is made again only after so many times as long as it took: a million lines must not keep a core busy.
const REST: u32 = 4;
/// The pause after a failure, doubled with each,
const AGAIN: Duration = Duration::from_secs(1);
/// up to this.
const LONGEST: Duration = Duration::from_mins(1);

/// When a scope may be made next, and how long the pause was.
struct Pause {
    until: Instant,
    failed: Option<Duration>,
}

/// Makes CRLs for as long as this process leads. One scope's fault holds up no other.
///
/// # Errors
/// When another leader has taken over.
pub async fn run(publisher: Arc<Publisher>, registry: Arc<Registry>) -> Result<(), LedgerError> {
    let mut moved = registry.standing();
    let mut pauses: HashMap<Key, Pause> = HashMap::new();
    let mut busy: HashSet<Key> = HashSet::new();
    let mut tasks = JoinSet::new();
    let mut aged = None::<Instant>;
    loop {
        let aging = aged.is_none_or(|at| at.elapsed() >= AGING);
        match publisher.wanted(&registry, aging).await {
            Ok(wanted) => {
                if aging {
                    aged = Some(Instant::now());
                }
                for (issuer, scope) in wanted {
                    let key = (issuer.ca.key_id().to_string(), scope.clone());
                    let resting = pauses.get(&key).is_some_and(|pause| pause.until > Instant::now());
                    if resting || !busy.insert(key.clone()) {
                        continue;
                    }
                    let publisher = Arc::clone(&publisher);
                    tasks.spawn(async move {
                        let begun = Instant::now();
                        let result = publisher.publish(&issuer, &scope).await;
                        (key, begun.elapsed(), result)
                    });
                }
            }
            Err(fault) => {
                deposed(&fault)?;
                publisher.failed(&fault);
                tracing::warn!(error = %fault, "cannot tell which CRLs are to be made");
            }
        }
        tokio::select! {
            Some(done) = tasks.join_next() => {
                if let Ok((key, took, result)) = done {
                    busy.remove(&key);
                    let before = pauses.remove(&key).and_then(|pause| pause.failed);
                    let pause = match result {
                        Ok(_) => Pause { until: Instant::now() + took * REST, failed: None },
                        Err(fault) => {
                            deposed(&fault)?;
                            publisher.failed(&fault);
                            tracing::error!(issuer = key.0, scope = key.1, error = %fault, "cannot make a CRL");
                            let wait = before.map_or(AGAIN, |wait| (wait * 2).min(LONGEST));
                            Pause { until: Instant::now() + wait, failed: Some(wait) }
                        }
                    };
                    pauses.insert(key, pause);
                }
            }
            () = settled(&mut moved) => {}
            () = tokio::time::sleep(PERIOD) => {}
        }
    }
}

/// Resolves when a burst of changes is over.
async fn settled(moved: &mut watch::Receiver<u64>) {
    if moved.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
    let burst = async { while tokio::time::timeout(QUIET, moved.changed()).await.is_ok() {} };
    let _ = tokio::time::timeout(PATIENCE, burst).await;
}

fn deposed(fault: &CrlFault) -> Result<(), LedgerError> {
    match fault {
        CrlFault::Ledger(error @ LedgerError::StaleEpoch { .. }) => Err(error.clone()),
        _ => Ok(()),
    }
}

impl Publisher {
    fn failed(&self, fault: &CrlFault) {
        let labels = ["CRL", fault.category()];
        self.metrics.reconcile_errors.with_label_values(&labels).inc();
    }

    /// The scopes whose CRLs are to be made now, small ones first. Of a restored ledger none.
    pub(super) async fn wanted(
        &self,
        registry: &Registry,
        aging: bool,
    ) -> Result<Vec<(IssuerEntry, String)>, CrlFault> {
        let mut wanted = Vec::new();
        let issuers: Vec<_> = registry
            .issuers()
            .into_iter()
            .filter(|issuer| issuer.ca.publication().is_some())
            .collect();
        if issuers.is_empty() || self.ledger.provenance().await?.restored_at.is_some() {
            return Ok(wanted);
        }
        let now = Now::of(&self.clock);
        let behind = self.ledger.crls_behind().await?;
        for issuer in &issuers {
            let key_id = issuer.ca.key_id().to_string();
            self.keep_up(issuer, &key_id).await?;
            let changed = behind.iter().filter(|(key, scope)| *key == key_id && !is_delta(scope));
            for (_, scope) in changed {
                let key = (key_id.clone(), scope.clone());
                let Some(last) = self.stamp(&key).await?.filter(|last| !is_over(scope, last, now)) else {
                    continue;
                };
                // A broker's node knows no deltas, and lets in for as long whoever stands in one alone.
                let scope = if registry.reads_crls(&key_id) {
                    Some(scope.clone())
                } else {
                    self.answer_to_change(issuer, key, &last, now).await?
                };
                if let Some(scope) = scope {
                    wanted.push((issuer.clone(), scope));
                }
            }
            if aging {
                self.aged(issuer, &key_id, now, &mut wanted).await?;
            }
        }
        wanted.sort_by(|a, b| (a.1 == FULL_PARTITION, &a.1).cmp(&(b.1 == FULL_PARTITION, &b.1)));
        wanted.dedup_by(|a, b| a.1 == b.1 && a.0.ca.key_id() == b.0.ca.key_id());
        Ok(wanted)
    }

    /// Takes note of CRLs that the holders of brokers have made: the first ones of months.
    async fn keep_up(&self, issuer: &IssuerEntry, key_id: &str) -> Result<(), CrlFault> {
        for (scope, number) in self.ledger.crl_numbers(key_id).await? {
            let key = (key_id.to_owned(), scope);
            let known = self.known(&key).map(|stamp| stamp.number);
            if known.is_some_and(|known| known >= number) {
                continue;
            }
            // The number may be one that is only known from before a restore.
            let found = self.read(&key).await?.map(|stamp| stamp.number);
            if found > known {
                // Nobody may listen.
                let _ = self.published.send(issuer.object.clone());
            }
        }
        Ok(())
    }

    /// What says a change first: the complete CRL, or with deltas the delta, and the complete one in its time.
    async fn answer_to_change(
        &self,
        issuer: &IssuerEntry,
        (key_id, scope): Key,
        last: &Stamp,
        now: Now,
    ) -> Result<Option<String>, CrlFault> {
        let Some(every) = issuer.crl.complete_every.filter(|_| scope != FULL_PARTITION) else {
            return Ok(Some(scope));
        };
        // Nobody goes by a delta to one that has not begun.
        if !now.has_begun(last.this_update) || now.signing - last.this_update >= every {
            return Ok(Some(scope));
        }
        let delta = delta_of(&scope);
        let said = self.stamp(&(key_id, delta.clone())).await?;
        let newest = self.ledger.last_change().await?;
        // A delta to an older complete CRL says nothing to whoever has the newer one.
        let fresh = said.is_some_and(|said| said.number > last.number && said.covers >= newest);
        Ok((!fresh).then_some(delta))
    }

    /// Adds the scopes that are due for their age, or have no CRL although every CA should have one of them.
    async fn aged(
        &self,
        issuer: &IssuerEntry,
        key_id: &str,
        now: Now,
        wanted: &mut Vec<(IssuerEntry, String)>,
    ) -> Result<(), CrlFault> {
        let mut scopes: Vec<String> = self
            .ledger
            .crl_numbers(key_id)
            .await?
            .into_iter()
            .map(|(scope, _)| scope)
            .filter(|scope| !is_delta(scope))
            .collect();
        for always in [CA_PARTITION, FULL_PARTITION] {
            if !scopes.iter().any(|scope| scope == always) {
                scopes.push(always.to_owned());
            }
        }
        for scope in scopes {
            let key = (key_id.to_owned(), scope);
            let due = match self.stamp(&key).await? {
                Some(last) => is_due(&key.1, &last, &issuer.crl, now),
                None => true,
            };
            if due {
                wanted.push((issuer.clone(), key.1));
            } else if let Some(last) = self.known(&key)
                && issuer.crl.complete_every.is_some()
                && key.1 != FULL_PARTITION
                && !is_over(&key.1, &last, now)
            {
                // Where a complete CRL names a delta there is one to it, and it is no more out of date.
                let delta = (key.0, delta_of(&key.1));
                let said = self.stamp(&delta).await?;
                if said.is_none_or(|said| said.number < last.number || is_due(&delta.1, &said, &issuer.crl, now)) {
                    wanted.push((issuer.clone(), delta.1));
                }
            }
        }
        Ok(())
    }
}

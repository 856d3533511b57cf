//! Hears of changes, and signs anew what was asked about lately before it ages.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use certwave_ledger::{Change, LedgerError};
use certwave_pki::ocsp::SingleStatus;

use super::Responder;
use super::cache::{Known, Signed, Stale};
use super::responder::cert_status;
use crate::clock::TOLERANCE_S;

/// How often the ledger is asked for changes.
const PERIOD: Duration = Duration::from_millis(250);
/// An answer of the ledger is not waited for longer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Changes read in one go.
const BATCH: u32 = 1000;
/// Certificates read and signed anew in one go: some 5 ms of one core.
const AHEAD: usize = 256;

impl Responder {
    /// Watches the ledger, for ever: drops what has changed, and signs what was asked about. `clock` gives Unix seconds.
    pub async fn watch(self: Arc<Self>, clock: impl Fn() -> i64 + Send) {
        let mut seen = None;
        loop {
            let now = clock();
            match tokio::time::timeout(PATIENCE, self.look(&mut seen, now)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    self.failed(&error);
                    tracing::debug!(%error, "OCSP cannot hear of changes");
                }
                Err(_) => {
                    self.metrics.ledger_errors.with_label_values(&["timeout"]).inc();
                }
            }
            tokio::time::sleep(PERIOD).await;
        }
    }

    /// One round; `seen` is the last change heard of.
    pub(super) async fn look(&self, seen: &mut Option<u64>, now: i64) -> Result<(), LedgerError> {
        // By a clock that was ahead nobody knows of when what is kept is, whether the ledger answers or not.
        if self.heard_at.load(Ordering::Acquire) > now.saturating_add(TOLERANCE_S) {
            self.heard_at.store(now, Ordering::Release);
            self.forget();
        }
        let restored = self.source.restored().await?;
        let last = self.source.last_change().await?;
        match *seen {
            Some(before) if before < last => self.hear(before, seen, now).await?,
            Some(before) if before == last => {}
            // The first time; or another ledger stands in the place of the one before, an older copy perhaps.
            _ => {
                self.forget();
                *seen = Some(last);
            }
        }
        if restored {
            self.forget();
        }
        self.heard_at.store(now, Ordering::Release);
        self.metrics.ledger_heard.set(now);
        if self.trusted.swap(!restored, Ordering::AcqRel) == restored {
            tracing::info!(answers = !restored, "OCSP: the ledger was looked at");
        }
        let aged = self.cache.aged(now - self.options.validity / 2, AHEAD);
        self.sign_ahead(aged, now).await?;
        if restored {
            return Ok(());
        }
        self.sign_for_devices(now).await
    }

    /// Nothing that was read or signed counts any more.
    fn forget(&self) {
        self.cache.clear();
        self.rounds.restart();
    }

    /// Reads all changes after `before`.
    async fn hear(&self, mut before: u64, seen: &mut Option<u64>, now: i64) -> Result<(), LedgerError> {
        loop {
            let changes = self.source.changes(before, BATCH).await?;
            let Some(last) = changes.last() else { return Ok(()) };
            before = last.change;
            let stale = self.cache.changed(changes.iter().filter_map(|change| self.key(change)));
            *seen = Some(before);
            self.sign_ahead(stale, now).await?;
        }
    }

    fn key(&self, change: &Change) -> Option<super::cache::Key> {
        let serial = change.key.serial.parse().ok()?;
        Some((self.signers.slot(&change.key.issuer), serial))
    }

    /// Reads these certificates anew and signs an answer for each name that they were asked about by.
    pub(super) async fn sign_ahead(&self, stale: Vec<Stale>, now: i64) -> Result<(), LedgerError> {
        let mut by_issuer = BTreeMap::<u32, Vec<Stale>>::new();
        for one in stale {
            by_issuer.entry(one.key.0).or_default().push(one);
        }
        for (slot, stale) in by_issuer {
            let Some(signer) = self.signers.of(slot) else { continue };
            let mark = self.cache.mark();
            let serials: Vec<_> = stale.iter().map(|one| one.key.1).collect();
            let standings = match self.read(&signer, &serials, now).await {
                Ok(standings) => standings,
                Err(error) => {
                    for one in &stale {
                        self.cache.keep(&one.key);
                    }
                    return Err(error);
                }
            };
            for (one, status) in stale.into_iter().zip(standings) {
                let Some(status) = status else { continue };
                let sign = |name: Box<[u8]>| {
                    let single = SingleStatus {
                        cert_id: &name,
                        status: cert_status(Some(status)),
                    };
                    let answer = signer.signer.sign(&[single], None, self.times(now, now)).ok()?;
                    self.metrics.signed_ahead.inc();
                    Some((name, Arc::new(Signed::new(answer))))
                };
                let answers = one.names.into_iter().filter_map(sign).collect();
                let known = Known { status, read_at: now };
                self.cache.put(mark, one.key, known, answers);
            }
            tokio::task::yield_now().await;
        }
        Ok(())
    }
}

//! Answers requests.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use certwave_core::revocation::{Reason, Standing};
use certwave_ledger::{LedgerError, SerialStatus};
use certwave_pki::Serial;
use certwave_pki::ocsp::{Answer, CertStatus, Failure, OcspRequest, SingleStatus, StatusTimes};
use tokio::sync::Semaphore;

use super::ahead::Rounds;
use super::cache::{Cache, Known, Signed};
use super::flight::Flights;
use super::signers::CaSigner;
use super::{OcspMetrics, Signers, Source};

/// Requests that read the ledger at the same time; more wait,
const READS: usize = 128;
/// but not longer than this, together with the read itself. Clients and caches ask again.
const PATIENCE: Duration = Duration::from_secs(2);

/// How a responder answers.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// From `thisUpdate` to `nextUpdate`, seconds: for so long answers serve while the ledger is away.
    pub validity: i64,
    /// How long caches of HTTP may hand out an answer, seconds: so late a revocation shows behind them.
    pub max_age: i64,
    /// What signed answers may take in memory, bytes.
    pub cache_bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            validity: 3600,
            max_age: 10,
            cache_bytes: 64 << 20,
        }
    }
}

/// What a client is told.
#[derive(Debug, Clone)]
pub enum Reply {
    /// Why there is no answer; not signed.
    Failure(Failure),
    /// An answer for this request alone.
    Once(Answer),
    /// An answer for everybody who asks the same, which caches may keep.
    Reusable(Arc<Signed>),
}

/// See the module. The clock is passed in, Unix seconds.
pub struct Responder {
    pub(super) source: Box<dyn Source>,
    pub(super) signers: Arc<Signers>,
    pub(super) metrics: Arc<OcspMetrics>,
    pub(super) options: Options,
    pub(super) cache: Cache,
    pub(super) rounds: Rounds,
    /// Until [`watch`](super::watch) has heard from the ledger, and while the ledger lacks what a backup did not have, nobody
    /// is told anything.
    pub(super) trusted: AtomicBool,
    /// When the ledger last said that no other standing than those it named has changed, Unix seconds.
    pub(super) heard_at: AtomicI64,
    flights: Flights<Reply>,
    reads: Semaphore,
}

impl Responder {
    /// A responder that says `tryLater` until it is [watched](Self::watch).
    pub fn new(source: impl Source, signers: Arc<Signers>, metrics: Arc<OcspMetrics>, options: Options) -> Self {
        metrics.answer_validity.set(options.validity);
        Self {
            source: Box::new(source),
            signers,
            metrics,
            cache: Cache::new(options.cache_bytes),
            rounds: Rounds::default(),
            options,
            trusted: AtomicBool::new(false),
            heard_at: AtomicI64::new(0),
            flights: Flights::default(),
            reads: Semaphore::new(READS),
        }
    }

    /// Who signs.
    pub fn signers(&self) -> &Signers {
        &self.signers
    }

    /// Why it cannot answer for any CA yet, for people; `None` once it can. `now` in Unix seconds.
    pub fn waits_for(&self, now: i64) -> Option<&'static str> {
        let signers = self.signers.all();
        if !self.trusted.load(Ordering::Acquire) {
            Some("the ledger was not heard yet, or was restored and is incomplete")
        } else if signers.is_empty() {
            Some("no CA's OCSP signer is there: mount the Secrets <ca>-ocsp below --signers")
        } else if signers.iter().all(|entry| entry.signer.not_after() <= now) {
            Some("every OCSP signer has ended: mount Secrets that the controller has renewed")
        } else {
            None
        }
    }

    /// Answers a DER request that came to the URL of this CA (key id), if it came to any one's.
    pub async fn answer(&self, named: Option<&str>, der: &[u8], now: i64) -> Reply {
        let request = match OcspRequest::parse(der) {
            Ok(request) => request,
            Err(error) => return Reply::Failure(error.failure()),
        };
        if !self.trusted.load(Ordering::Acquire) {
            return Reply::Failure(Failure::TryLater);
        }
        let Some(signer) = self.signers.find(named, &request) else {
            // Without any signer nobody knows whose the certificate is.
            let known = self.signers.is_complete() && !self.signers.all().is_empty();
            return Reply::Failure(if known {
                Failure::Unauthorized
            } else {
                Failure::TryLater
            });
        };
        let reusable = request
            .reusable()
            .and_then(|name| Some((name, request.cert_ids().first()?.serial?)));
        let Some((name, serial)) = reusable else {
            return self.answer_once(&signer, &request, now).await;
        };
        if let Some(answer) = self.cache.answer(&(signer.slot, serial), name, now) {
            self.metrics.hits.inc();
            return Reply::Reusable(answer);
        }
        let answer = self.answer_for_all(&signer, &serial, name, now);
        self.flights.share(name, answer).await
    }

    /// Answers what nobody else will ask: with a nonce, or about several certificates.
    async fn answer_once(&self, signer: &CaSigner, request: &OcspRequest<'_>, now: i64) -> Reply {
        let serials: Vec<_> = request.cert_ids().iter().filter_map(|id| id.serial).collect();
        let standings = match self.standings(signer, &serials, now).await {
            Ok(standings) => standings,
            Err(failure) => return Reply::Failure(failure),
        };
        let this_update = standings.iter().map(|(_, at)| *at).min().unwrap_or(now);
        let mut next = standings.iter();
        let times = self.times(this_update, now);
        let answer = signer.signer.answer(request, times, |_| {
            next.next()
                .map_or(CertStatus::Unknown, |(status, _)| cert_status(*status))
        });
        self.metrics.signed.inc();
        match answer {
            Ok(answer) => Reply::Once(answer),
            Err(error) => Reply::Failure(error.failure()),
        }
    }

    /// Answers what many will ask, and keeps the answer. What was never issued is not kept: anybody could fill the memory with
    /// it, and what is issued next must not be unknown.
    async fn answer_for_all(&self, signer: &CaSigner, serial: &Serial, name: &[u8], now: i64) -> Reply {
        let key = (signer.slot, *serial);
        let (status, at) = match self.standings(signer, std::slice::from_ref(serial), now).await {
            Ok(standings) => standings.first().copied().unwrap_or((None, now)),
            Err(failure) => return Reply::Failure(failure),
        };
        let single = SingleStatus {
            cert_id: name,
            status: cert_status(status),
        };
        self.metrics.signed.inc();
        let answer = match signer.signer.sign(&[single], None, self.times(at, now)) {
            Ok(answer) => answer,
            Err(error) => return Reply::Failure(error.failure()),
        };
        let Some(status) = status else {
            return Reply::Once(answer);
        };
        let answer = Arc::new(Signed::new(answer));
        if let Some(known) = self.cache.known(&key).filter(|known| known.status == status) {
            self.cache.add(&key, known, name, Arc::clone(&answer));
        }
        Reply::Reusable(answer)
    }

    /// The standing of each certificate, and as of when: from the cache, as far as it is there and fresh, else from the ledger.
    async fn standings(
        &self,
        signer: &CaSigner,
        serials: &[Serial],
        now: i64,
    ) -> Result<Vec<(Option<SerialStatus>, i64)>, Failure> {
        let heard_at = self.heard_at.load(Ordering::Acquire);
        let cached = serials.iter().map(|serial| {
            let known = self.cache.known(&(signer.slot, *serial))?;
            // Nothing has changed until we last heard.
            let at = known.read_at.max(heard_at).min(now);
            (now < at + self.options.validity / 2).then_some((Some(known.status), at))
        });
        let cached: Vec<_> = cached.collect();
        if let Some(all) = cached.iter().copied().collect::<Option<Vec<_>>>() {
            return Ok(all);
        }
        let read = tokio::time::timeout(PATIENCE, async {
            let _permit = self.reads.acquire().await;
            self.read(signer, serials, now).await
        });
        match read.await {
            Ok(Ok(standings)) => Ok(standings.into_iter().map(|status| (status, now)).collect()),
            Ok(Err(error)) => {
                self.failed(&error);
                Err(Failure::TryLater)
            }
            Err(_) => {
                self.metrics.ledger_errors.with_label_values(&["timeout"]).inc();
                Err(Failure::TryLater)
            }
        }
    }

    /// Reads the ledger, and keeps what it says of certificates that it knows.
    pub(super) async fn read(
        &self,
        signer: &CaSigner,
        serials: &[Serial],
        now: i64,
    ) -> Result<Vec<Option<SerialStatus>>, LedgerError> {
        let mark = self.cache.mark();
        let names: Vec<_> = serials.iter().map(Serial::to_string).collect();
        let standings = self.source.standings(&signer.issuer, &names).await?;
        if standings.len() != serials.len() {
            return Err(LedgerError::Invalid(format!(
                "{} standings for {} serial numbers",
                standings.len(),
                serials.len()
            )));
        }
        for (serial, status) in serials.iter().zip(&standings) {
            if let Some(status) = *status {
                let known = Known { status, read_at: now };
                self.cache.put(mark, (signer.slot, *serial), known, Vec::new());
            }
        }
        Ok(standings)
    }

    /// Counts a read of the ledger that failed.
    pub(super) fn failed(&self, error: &LedgerError) {
        self.metrics.ledger_errors.with_label_values(&[error.category()]).inc();
    }

    /// The times of an answer by what was known at `this_update`.
    pub(super) const fn times(&self, this_update: i64, now: i64) -> StatusTimes {
        StatusTimes {
            this_update,
            next_update: this_update.saturating_add(self.options.validity),
            produced_at: now,
        }
    }
}

/// As OCSP says it: who is on hold is revoked with the reason `certificateHold`, and what was never issued is unknown.
pub(super) fn cert_status(status: Option<SerialStatus>) -> CertStatus {
    match status.map(|status| status.standing) {
        None => CertStatus::Unknown,
        Some(Standing::Good) => CertStatus::Good,
        Some(Standing::Held { since }) => CertStatus::Revoked {
            at: since,
            reason: Reason::CertificateHold,
        },
        Some(Standing::Revoked { since, reason }) => CertStatus::Revoked { at: since, reason },
    }
}

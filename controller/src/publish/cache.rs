//! CRLs in memory, so that a list of a million lines is read from the ledger once for each number and not for each request.

use std::collections::HashMap;
use std::io::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use certwave_ledger::{CrlRecord, Ledger, LedgerError};
use certwave_pki::crl::to_pem;
use flate2::Compression;
use flate2::write::GzEncoder;
use tokio::sync::OnceCell;

use super::Key;

/// Memory for CRLs in all their forms, bytes.
const ROOM: usize = 512 << 20;
/// How long a CRL is served without asking whether there is a newer one.
const TRUSTED: Duration = Duration::from_millis(250);
/// The ledger answers in far less.
const TIMEOUT: Duration = Duration::from_secs(3);
/// Requests that wait for the same CRL to be read wait here; CRLs that share a place are read one after the other.
const PLACES: usize = 16;

/// A form in which a CRL is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Form {
    Der,
    Pem,
}

/// One CRL with its forms, each made when it is first asked for.
pub(super) struct Cached {
    pub(super) number: u64,
    pub(super) this_update: i64,
    pub(super) next_update: i64,
    der: Bytes,
    pem: OnceCell<Bytes>,
    der_gzip: OnceCell<Bytes>,
    pem_gzip: OnceCell<Bytes>,
}

impl Cached {
    fn new(crl: CrlRecord) -> Self {
        Self {
            number: crl.number,
            this_update: crl.this_update,
            next_update: crl.next_update,
            der: crl.der.into(),
            pem: OnceCell::new(),
            der_gzip: OnceCell::new(),
            pem_gzip: OnceCell::new(),
        }
    }

    /// What it may come to occupy: DER, its PEM, and both compressed.
    fn weight(&self) -> usize {
        self.der.len() * 4
    }

    /// The CRL in a form.
    pub(super) async fn body(&self, form: Form, gzip: bool) -> Bytes {
        let plain = match form {
            Form::Der => self.der.clone(),
            Form::Pem => {
                let der = self.der.clone();
                self.pem
                    .get_or_init(|| apart(move || to_pem(&der).into()))
                    .await
                    .clone()
            }
        };
        if !gzip {
            return plain;
        }
        let cell = match form {
            Form::Der => &self.der_gzip,
            Form::Pem => &self.pem_gzip,
        };
        cell.get_or_init(|| apart(move || compressed(&plain))).await.clone()
    }
}

/// On a thread where it holds up nobody.
async fn apart(make: impl FnOnce() -> Bytes + Send + 'static) -> Bytes {
    crate::apart::run(make).await.unwrap_or_default()
}

/// Writing to memory does not fail.
fn compressed(plain: &[u8]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::with_capacity(plain.len() / 2), Compression::fast());
    let written = encoder.write_all(plain).and_then(|()| encoder.finish());
    written.unwrap_or_default().into()
}

struct Slot {
    crl: Arc<Cached>,
    /// When the ledger last said that there is no newer one, or did not answer.
    checked: Instant,
    used: Instant,
}

/// See the module.
pub struct Cache {
    ledger: Arc<dyn Ledger>,
    slots: Mutex<HashMap<Key, Slot>>,
    reading: [tokio::sync::Mutex<()>; PLACES],
}

/// Why there is no CRL to serve.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unserved {
    #[error("the ledger: {0}")]
    Ledger(#[from] LedgerError),
    #[error("the ledger does not answer")]
    Timeout,
}

impl Cache {
    /// An empty cache over this ledger.
    pub fn new(ledger: Arc<dyn Ledger>) -> Arc<Self> {
        Arc::new(Self {
            ledger,
            slots: Mutex::default(),
            reading: Default::default(),
        })
    }

    /// The last CRL of a scope. While the ledger is out the one in memory is served, as long as it has not ended at `now` (Unix
    /// seconds).
    pub(super) async fn get(&self, issuer: &str, scope: &str, now: i64) -> Result<Option<Arc<Cached>>, Unserved> {
        let key = (issuer.to_owned(), scope.to_owned());
        if let Some((crl, true)) = self.look(&key) {
            return Ok(Some(crl));
        }
        let _alone = self.reading[place(&key)].lock().await;
        // Whoever waited finds what the one before has read.
        let had = match self.look(&key) {
            Some((crl, true)) => return Ok(Some(crl)),
            Some((crl, false)) => Some(crl),
            None => None,
        };
        match (self.read(&key, had.as_deref()).await, had) {
            (Ok(Read::Newer(crl)), _) => {
                let crl = Arc::new(Cached::new(crl));
                self.put(&key, &crl);
                Ok(Some(crl))
            }
            (Ok(Read::Same), Some(crl)) => {
                self.put(&key, &crl);
                Ok(Some(crl))
            }
            (Ok(_), _) => Ok(None),
            (Err(_), Some(crl)) if crl.next_update > now => {
                self.put(&key, &crl);
                Ok(Some(crl))
            }
            (Err(error), _) => Err(error),
        }
    }

    async fn read(&self, key: &Key, had: Option<&Cached>) -> Result<Read, Unserved> {
        let reading = async {
            if let Some(had) = had {
                let covers = self.ledger.crl_covers(&key.0, &key.1, 1).await?;
                if covers.first().is_some_and(|cover| cover.number == had.number) {
                    return Ok(Read::Same);
                }
            }
            let crl = self.ledger.crl(&key.0, &key.1).await?;
            Ok(crl.map_or(Read::Nothing, Read::Newer))
        };
        tokio::time::timeout(TIMEOUT, reading)
            .await
            .map_err(|_| Unserved::Timeout)?
    }

    /// What is in memory, and whether it can be served unasked.
    fn look(&self, key: &Key) -> Option<(Arc<Cached>, bool)> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = slots.get_mut(key)?;
        slot.used = Instant::now();
        Some((Arc::clone(&slot.crl), slot.checked.elapsed() < TRUSTED))
    }

    /// Keeps a CRL, and as many of the others as there is room for, those used last.
    fn put(&self, key: &Key, crl: &Arc<Cached>) {
        let (mut slots, now) = (
            self.slots.lock().unwrap_or_else(PoisonError::into_inner),
            Instant::now(),
        );
        let slot = Slot {
            crl: Arc::clone(crl),
            checked: now,
            used: now,
        };
        slots.insert(key.clone(), slot);
        let mut weight: usize = slots.values().map(|slot| slot.crl.weight()).sum();
        while weight > ROOM {
            let others = slots.iter().filter(|(other, _)| *other != key);
            let Some(oldest) = others.min_by_key(|(_, slot)| slot.used).map(|(other, _)| other.clone()) else {
                break;
            };
            weight -= slots.remove(&oldest).map_or(0, |slot| slot.crl.weight());
        }
    }
}

enum Read {
    Same,
    Newer(CrlRecord),
    Nothing,
}

fn place(key: &Key) -> usize {
    let sum = key
        .0
        .bytes()
        .chain(key.1.bytes())
        .fold(0_usize, |sum, b| sum.wrapping_mul(31).wrapping_add(b.into()));
    sum % PLACES
}

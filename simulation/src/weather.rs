//! What lies between the parts of the world: how long it takes from one to another, what fails on the way, and who cannot be reached.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use certwave_ledger::{LedgerError, Way};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::sync::Notify;

/// A way from one part of the world to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// From a replica to the API server.
    Api(usize),
    /// From a replica to the ledger.
    Ledger(usize),
    /// From a replica to the broker.
    Broker(usize),
    /// From a device to the broker.
    Device(usize),
    /// From the broker's companion to the CRLs.
    Crls,
}

/// How a way is.
#[derive(Debug, Clone, Default)]
pub struct Condition {
    /// Nothing gets through, and nobody is told.
    pub cut: bool,
    /// How many of a thousand fail before anything is done.
    pub fail: u32,
    /// How many of a thousand are done, and the answer is lost.
    pub lose: u32,
    /// How long it takes at most, milliseconds.
    pub slow: u64,
}

/// The weather.
pub struct Weather {
    inner: Mutex<Inner>,
    changed: Notify,
}

struct Inner {
    random: StdRng,
    ways: BTreeMap<Place, Condition>,
}

/// What became of something on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It got there.
    Passed,
    /// It failed.
    Failed,
}

impl Weather {
    /// Fair weather.
    pub fn fair(seed: u64) -> Arc<Self> {
        Arc::new(Self {
            inner: Mutex::new(Inner {
                random: StdRng::seed_from_u64(seed),
                ways: BTreeMap::new(),
            }),
            changed: Notify::new(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What follows is drawn from this seed.
    pub fn seeded(&self, seed: u64) {
        self.lock().random = StdRng::seed_from_u64(seed);
    }

    /// A number below `end`.
    pub fn below(&self, end: u64) -> u64 {
        self.lock().random.random_range(0..end.max(1))
    }

    /// True so many times of a thousand.
    pub fn chance(&self, of_thousand: u32) -> bool {
        of_thousand > 0 && self.below(1000) < u64::from(of_thousand)
    }

    /// Changes how a way is.
    pub fn change(&self, place: Place, change: impl FnOnce(&mut Condition)) {
        change(self.lock().ways.entry(place).or_default());
        self.changed.notify_waiters();
    }

    /// Everything passes again.
    pub fn clear_up(&self) {
        self.lock().ways.clear();
        self.changed.notify_waiters();
    }

    /// How a way is now.
    pub fn condition(&self, place: Place) -> Condition {
        self.lock().ways.get(&place).cloned().unwrap_or_default()
    }

    /// Whether nothing gets through.
    pub fn is_cut(&self, place: Place) -> bool {
        self.lock().ways.get(&place).is_some_and(|way| way.cut)
    }

    /// Waits until something gets through.
    pub async fn passable(&self, place: Place) {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            if !self.is_cut(place) {
                return;
            }
            changed.await;
        }
    }

    /// Resolves when something about the weather changes.
    pub async fn turned(&self) {
        self.changed.notified().await;
    }

    /// How long something takes on its way, at least so many milliseconds.
    pub fn delay(&self, place: Place, least: u64) -> Duration {
        let slow = self.condition(place).slow;
        Duration::from_millis(least + if slow > 0 { self.below(slow) } else { 0 })
    }

    /// Goes there; the way takes some time.
    pub async fn there(&self, place: Place, least: u64) -> Fate {
        let delay = self.delay(place, least);
        if delay.is_zero() {
            tokio::task::yield_now().await;
        } else {
            tokio::time::sleep(delay).await;
        }
        self.passable(place).await;
        if self.chance(self.condition(place).fail) {
            Fate::Failed
        } else {
            Fate::Passed
        }
    }

    /// Comes back.
    pub async fn back(&self, place: Place) -> Fate {
        self.passable(place).await;
        if self.chance(self.condition(place).lose) {
            Fate::Failed
        } else {
            Fate::Passed
        }
    }
}

/// A process of the operator, from its start to its end: what a dead one still does reaches nobody.
#[derive(Debug)]
pub struct Life {
    /// Which replica it is.
    pub replica: usize,
    over: AtomicBool,
}

impl Life {
    /// It begins.
    pub fn new(replica: usize) -> Arc<Self> {
        Arc::new(Self {
            replica,
            over: AtomicBool::new(false),
        })
    }

    /// Ends it.
    pub fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    /// Whether it has ended.
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// Never resolves once it has ended.
    pub async fn goes_on(&self) {
        if self.is_over() {
            std::future::pending::<()>().await;
        }
    }
}

/// A process's way to the ledger.
pub struct ToLedger {
    /// The weather.
    pub weather: Arc<Weather>,
    /// Whose way.
    pub life: Arc<Life>,
}

#[async_trait]
impl Way for ToLedger {
    async fn there(&self, write: bool) -> Result<(), LedgerError> {
        self.life.goes_on().await;
        let place = Place::Ledger(self.life.replica);
        let fate = self.weather.there(place, u64::from(write)).await;
        self.life.goes_on().await;
        match fate {
            Fate::Passed => Ok(()),
            Fate::Failed if write => Err(LedgerError::Full),
            Fate::Failed => Err(out()),
        }
    }

    async fn back(&self, _: bool) -> Result<(), LedgerError> {
        let fate = self.weather.back(Place::Ledger(self.life.replica)).await;
        self.life.goes_on().await;
        match fate {
            Fate::Passed => Ok(()),
            Fate::Failed => Err(out()),
        }
    }
}

fn out() -> LedgerError {
    LedgerError::Unavailable("the connection broke".to_owned())
}

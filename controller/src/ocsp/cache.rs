//! What is known of certificates that were asked about lately, and the answers signed for them.
//!
//! It is bounded in bytes; the oldest goes first. What a change of standing concerns is dropped at once, and never comes back by
//! somebody who read the ledger before that change: who reads takes a [`Mark`] first.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use axum::body::Bytes;
use certwave_ledger::SerialStatus;
use certwave_pki::Serial;
use certwave_pki::ocsp::{Answer, StatusTimes};
use http::HeaderValue;

/// A certificate: the number of its CA in this process, and its serial number.
pub(super) type Key = (u32, Serial);

/// Changes that are remembered for those who read the ledger meanwhile.
const REMEMBERED: usize = 4096;
/// Ways to name one certificate: two hashes, each with NULL parameters or without.
const NAMES: usize = 4;
/// What an entry takes besides its answers, and an answer besides its bytes, roughly.
const ENTRY_BYTES: usize = 256;
const ANSWER_BYTES: usize = 512;

/// An answer for everybody who asks about one certificate without a nonce.
#[derive(Debug)]
pub struct Signed {
    /// The DER `OCSPResponse`.
    pub der: Bytes,
    /// Its times.
    pub times: StatusTimes,
    /// Strong validator for HTTP: SHA-256 of the answer, in hexadecimal and quotes.
    pub tag: String,
    /// `Last-Modified` and `Expires` of HTTP (RFC 9919, 6.2): `thisUpdate` and `nextUpdate`.
    pub(super) last_modified: HeaderValue,
    pub(super) expires: HeaderValue,
}

impl Signed {
    /// Of a signed answer.
    pub(super) fn new(answer: Answer) -> Self {
        let hash = certwave_protocol::ids::Fingerprint::of(&answer.der);
        Self {
            tag: format!("\"{hash}\""),
            last_modified: super::http::date(answer.times.this_update),
            expires: super::http::date(answer.times.next_update),
            times: answer.times,
            der: answer.der.into(),
        }
    }

    const fn is_current(&self, now: i64) -> bool {
        self.times.this_update <= now && now < self.times.next_update
    }
}

/// What the ledger said of a certificate, and when (Unix seconds).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) status: SerialStatus,
    pub(super) read_at: i64,
}

/// A place in the sequence of changes that the cache has heard of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Mark(u64);

#[derive(Debug)]
struct Entry {
    known: Known,
    answers: Vec<(Box<[u8]>, Arc<Signed>)>,
    /// Whether anybody has asked since the ledger was read.
    asked: AtomicBool,
    /// Of its place in the queue.
    ticket: u64,
}

impl Entry {
    fn bytes(&self) -> usize {
        let answers = self.answers.iter();
        ENTRY_BYTES
            + answers
                .map(|(name, answer)| name.len() + answer.der.len() + ANSWER_BYTES)
                .sum::<usize>()
    }
}

#[derive(Debug, Default)]
struct Inner {
    entries: HashMap<Key, Entry>,
    /// Those read first come first; what has left or was read again since is passed over.
    queue: VecDeque<(i64, u64, Key)>,
    tickets: u64,
    bytes: usize,
    changes: u64,
    remembered: VecDeque<(u64, Key)>,
    /// Whoever read the ledger before this cannot be told whether it still holds.
    forgotten: u64,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Cache {
    limit: usize,
    inner: RwLock<Inner>,
}

/// What is to be read and signed anew: a certificate, and the names (DER `CertID`) that it was asked about by.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Stale {
    pub(super) key: Key,
    pub(super) names: Vec<Box<[u8]>>,
}

impl Cache {
    /// One of at most about `limit` bytes.
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            inner: RwLock::default(),
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, Inner> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The answer to those who name the certificate like that, if there is one that holds at `now` (Unix seconds).
    pub(super) fn answer(&self, key: &Key, name: &[u8], now: i64) -> Option<Arc<Signed>> {
        let inner = self.read();
        let entry = inner.entries.get(key)?;
        let (_, answer) = entry.answers.iter().find(|(own, _)| **own == *name)?;
        if !answer.is_current(now) {
            return None;
        }
        entry.ask();
        Some(Arc::clone(answer))
    }

    /// What the ledger said of the certificate, if it has not changed since.
    pub(super) fn known(&self, key: &Key) -> Option<Known> {
        let inner = self.read();
        let entry = inner.entries.get(key)?;
        entry.ask();
        Some(entry.known)
    }

    /// To be taken before the ledger is read.
    pub(super) fn mark(&self) -> Mark {
        Mark(self.read().changes)
    }

    /// Keeps what the ledger said, unless it may have changed since `mark`, with the answers signed for it. What was kept of
    /// the certificate before goes.
    pub(super) fn put(&self, mark: Mark, key: Key, known: Known, answers: Vec<(Box<[u8]>, Arc<Signed>)>) {
        let mut inner = self.write();
        if inner.moved_since(mark, &key) {
            return;
        }
        inner.tickets += 1;
        let ticket = inner.tickets;
        let entry = Entry {
            known,
            answers,
            asked: AtomicBool::new(false),
            ticket,
        };
        inner.bytes += entry.bytes();
        inner.queue.push_back((known.read_at, ticket, key));
        if let Some(before) = inner.entries.insert(key, entry) {
            inner.bytes -= before.bytes();
        }
        while inner.bytes > self.limit {
            let Some((_, ticket, oldest)) = inner.queue.pop_front() else {
                break;
            };
            inner.drop_if(&oldest, ticket);
        }
    }

    /// Keeps one more answer for what is known.
    pub(super) fn add(&self, key: &Key, known: Known, name: &[u8], answer: Arc<Signed>) {
        let mut inner = self.write();
        let Some(entry) = inner.entries.get_mut(key).filter(|entry| entry.known == known) else {
            return;
        };
        let before = entry.bytes();
        entry.answers.retain(|(own, _)| **own != *name);
        if entry.answers.len() < NAMES {
            entry.answers.push((name.into(), answer));
        }
        let after = entry.bytes();
        inner.bytes = inner.bytes - before + after;
    }

    /// These certificates have another standing now. Answers those of them that were asked about.
    pub(super) fn changed(&self, keys: impl IntoIterator<Item = Key>) -> Vec<Stale> {
        let mut inner = self.write();
        let mut stale = Vec::new();
        for key in keys {
            inner.changes += 1;
            let change = inner.changes;
            inner.remembered.push_back((change, key));
            if inner.remembered.len() > REMEMBERED
                && let Some((oldest, _)) = inner.remembered.pop_front()
            {
                inner.forgotten = oldest;
            }
            stale.extend(inner.take(&key));
        }
        stale
    }

    /// Nothing that was read so far holds any more.
    pub(super) fn clear(&self) {
        let mut inner = self.write();
        let changes = inner.changes + 1;
        let tickets = inner.tickets;
        *inner = Inner {
            changes,
            tickets,
            forgotten: changes,
            ..Inner::default()
        };
    }

    /// At most `limit` certificates of which the ledger was read at or before `read_by`, and that were asked about since: they
    /// are to be read and signed anew. Those that nobody asked about are dropped.
    pub(super) fn aged(&self, read_by: i64, limit: usize) -> Vec<Stale> {
        let mut inner = self.write();
        let mut stale = Vec::new();
        while stale.len() < limit
            && inner.queue.front().is_some_and(|(read_at, _, _)| *read_at <= read_by)
            && let Some((_, ticket, key)) = inner.queue.pop_front()
        {
            let Some(entry) = inner.entries.get(&key).filter(|entry| entry.ticket == ticket) else {
                continue;
            };
            if entry.asked.load(Ordering::Relaxed) {
                // It stays until the new one is there.
                let names = entry.answers.iter().map(|(name, _)| name.clone()).collect();
                stale.push(Stale { key, names });
            } else {
                inner.drop_if(&key, ticket);
            }
        }
        stale
    }

    /// Puts a certificate that could not be read anew back into the line, with the answers that it has.
    pub(super) fn keep(&self, key: &Key) {
        let mut inner = self.write();
        inner.tickets += 1;
        let ticket = inner.tickets;
        if let Some(entry) = inner.entries.get_mut(key) {
            entry.ticket = ticket;
            let read_at = entry.known.read_at;
            inner.queue.push_front((read_at, ticket, *key));
        }
    }

    /// Whether anything is kept of the certificate. Asking this is not asking about it.
    pub(super) fn holds(&self, key: &Key) -> bool {
        self.read().entries.contains_key(key)
    }

    /// How many bytes it takes, about.
    pub(super) fn bytes(&self) -> usize {
        self.read().bytes
    }
}

impl Entry {
    fn ask(&self) {
        // Seldom written: other cores read it all the time.
        if !self.asked.load(Ordering::Relaxed) {
            self.asked.store(true, Ordering::Relaxed);
        }
    }
}

impl Inner {
    fn moved_since(&self, mark: Mark, key: &Key) -> bool {
        mark.0 < self.forgotten
            || self
                .remembered
                .iter()
                .rev()
                .take_while(|(change, _)| *change > mark.0)
                .any(|(_, changed)| changed == key)
    }

    fn take(&mut self, key: &Key) -> Option<Stale> {
        let entry = self.entries.remove(key)?;
        self.bytes -= entry.bytes();
        let names = entry.answers.into_iter().map(|(name, _)| name).collect::<Vec<_>>();
        (!names.is_empty()).then_some(Stale { key: *key, names })
    }

    fn drop_if(&mut self, key: &Key, ticket: u64) {
        if self.entries.get(key).is_some_and(|entry| entry.ticket == ticket) {
            self.take(key);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use certwave_core::revocation::Standing;

    use super::*;

    const NOW: i64 = 1_790_000_000;

    fn key(n: u32) -> Key {
        (0, Serial::from_bytes(&(n + 1).to_be_bytes()).unwrap())
    }

    fn known(read_at: i64) -> Known {
        let status = SerialStatus {
            standing: Standing::Good,
            not_after: NOW + 86_400,
        };
        Known { status, read_at }
    }

    fn signed(at: i64) -> Arc<Signed> {
        Arc::new(Signed::new(Answer {
            der: vec![7; 700],
            times: StatusTimes {
                this_update: at,
                next_update: at + 3600,
                produced_at: at,
            },
        }))
    }

    fn put(cache: &Cache, mark: Mark, n: u32, at: i64) {
        cache.put(mark, key(n), known(at), vec![(b"name"[..].into(), signed(at))]);
    }

    #[test]
    fn an_answer_is_found_by_its_name_while_it_holds() {
        let cache = Cache::new(1 << 20);
        put(&cache, cache.mark(), 1, NOW);
        assert!(cache.answer(&key(1), b"name", NOW + 3599).is_some());
        assert!(cache.answer(&key(1), b"name", NOW + 3600).is_none());
        assert!(cache.answer(&key(1), b"other", NOW).is_none());
        assert!(cache.answer(&key(2), b"name", NOW).is_none());
        cache.add(&key(1), known(NOW), b"other", signed(NOW));
        assert!(cache.answer(&key(1), b"other", NOW).is_some());
    }

    #[test]
    fn what_was_read_before_a_change_is_not_kept() {
        let cache = Cache::new(1 << 20);
        put(&cache, cache.mark(), 1, NOW);
        let before = cache.mark();
        let stale = cache.changed([key(1), key(2)]);
        assert_eq!(stale.len(), 1, "only what was asked about is signed again");
        assert!(cache.answer(&key(1), b"name", NOW).is_none());
        for n in [1, 2] {
            put(&cache, before, n, NOW);
            assert!(cache.known(&key(n)).is_none());
        }
        put(&cache, before, 3, NOW);
        assert!(cache.known(&key(3)).is_some(), "nothing changed there");
        // More changes than are remembered: whoever began before them cannot know.
        cache.changed((0..u32::try_from(REMEMBERED).unwrap() + 10).map(|n| key(100 + n)));
        put(&cache, before, 4, NOW);
        assert!(cache.known(&key(4)).is_none());
        let before = cache.mark();
        cache.clear();
        put(&cache, before, 5, NOW);
        assert!(cache.known(&key(5)).is_none());
        assert_eq!(cache.bytes(), 0);
    }

    #[test]
    fn it_stays_below_its_bound_and_the_oldest_goes_first() {
        let cache = Cache::new(100_000);
        for n in 0..1000 {
            put(&cache, cache.mark(), n, NOW + i64::from(n));
            assert!(cache.bytes() <= 100_000);
        }
        assert!(cache.known(&key(0)).is_none());
        assert!(cache.known(&key(999)).is_some());
    }

    #[test]
    fn what_was_asked_about_is_signed_again_and_the_rest_goes() {
        let cache = Cache::new(1 << 20);
        for n in 0..3 {
            put(&cache, cache.mark(), n, NOW + i64::from(n));
        }
        cache.answer(&key(0), b"name", NOW).unwrap();
        let stale = cache.aged(NOW + 1, 10);
        assert_eq!(stale.len(), 1);
        assert_eq!(stale[0].key, key(0));
        assert!(
            cache.answer(&key(0), b"name", NOW).is_some(),
            "it serves until the next is there"
        );
        assert!(cache.known(&key(1)).is_none());
        assert!(cache.aged(NOW + 1, 10).is_empty());
        cache.keep(&key(0));
        assert_eq!(cache.aged(NOW + 1, 10).len(), 1);
        put(&cache, cache.mark(), 0, NOW + 60);
        assert!(cache.aged(NOW + 59, 10).is_empty());
    }
}

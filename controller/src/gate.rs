//! Whether this process may still speak: a deposed leader says nothing to anybody.
//!
//! The ledger's epoch keeps a deposed leader from *deciding*. What it repeats, or still has in its outbox, needs no decision; so
//! everything that is said passes this gate. It closes when the Lease or the epoch is lost, and by itself when the Lease has
//! not been renewed in time: also in a process that was stopped for a while and has not yet noticed.

use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Instant;

use tokio::sync::watch;

/// See the module.
#[derive(Debug)]
pub struct Gate {
    closed: watch::Sender<bool>,
    /// When leadership ends unless it is prolonged; `None`: nothing limits it.
    until: Mutex<Option<Instant>>,
}

impl Gate {
    /// A gate that is open until it is closed.
    pub fn open() -> Arc<Self> {
        Self::new(None)
    }

    /// A gate that is open until `until`, unless that is put off.
    pub fn open_until(until: Instant) -> Arc<Self> {
        Self::new(Some(until))
    }

    fn new(until: Option<Instant>) -> Arc<Self> {
        Arc::new(Self {
            closed: watch::Sender::new(false),
            until: Mutex::new(until),
        })
    }

    /// Puts the end off; one that has come stays.
    pub fn prolong(&self, until: Instant) {
        if self.is_open() {
            *self.until.lock().unwrap_or_else(PoisonError::into_inner) = Some(until);
        }
    }

    /// Closes it for good.
    pub fn close(&self) {
        self.closed.send_replace(true);
    }

    /// Whether this process may speak now. A gate whose end has come is closed for good.
    pub fn is_open(&self) -> bool {
        if *self.closed.borrow() {
            return false;
        }
        let until = *self.until.lock().unwrap_or_else(PoisonError::into_inner);
        let over = until.is_some_and(|until| until <= Instant::now());
        if over {
            self.close();
        }
        !over
    }

    /// Resolves once it is closed. Polled together with something else, it is found closed as soon as its end has come, before
    /// any timer has run.
    pub async fn closed(&self) {
        let mut flag = self.closed.subscribe();
        let mut waiting = std::pin::pin!(flag.wait_for(|closed| *closed));
        std::future::poll_fn(|context| {
            if !self.is_open() {
                return Poll::Ready(());
            }
            waiting.as_mut().poll(context).map(drop)
        })
        .await;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::FutureExt as _;

    use super::*;

    #[test]
    fn a_gate_whose_end_has_come_stays_closed() {
        let gate = Gate::open_until(Instant::now() + Duration::from_hours(1));
        assert!(gate.is_open());
        gate.prolong(Instant::now());
        assert!(!gate.is_open());
        gate.prolong(Instant::now() + Duration::from_hours(1));
        assert!(
            !gate.is_open(),
            "whoever was deposed once does not lead again by a late renewal"
        );
    }

    #[test]
    fn whoever_waits_hears_of_it_at_once() {
        let gate = Gate::open();
        let mut waiting = std::pin::pin!(gate.closed());
        assert_eq!(waiting.as_mut().now_or_never(), None);
        gate.close();
        assert_eq!(waiting.as_mut().now_or_never(), Some(()));
        assert_eq!(gate.closed().now_or_never(), Some(()));
    }

    #[test]
    fn an_end_that_has_come_is_seen_without_a_timer() {
        let gate = Gate::open();
        let mut waiting = std::pin::pin!(gate.closed());
        assert_eq!(waiting.as_mut().now_or_never(), None);
        gate.prolong(Instant::now());
        assert_eq!(waiting.as_mut().now_or_never(), Some(()));
    }
}

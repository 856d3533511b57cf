//! Many ask for the same at the same time: one does the work, the others wait for it.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OnceCell;

type Cells<T> = Mutex<HashMap<Box<[u8]>, Arc<OnceCell<T>>>>;

/// Work under way, by what it is for.
pub(super) struct Flights<T>(Cells<T>);

impl<T> Default for Flights<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Clone> Flights<T> {
    /// What `work` gives, done by one of all those who ask for `key` meanwhile. If that one gives up, another begins anew.
    pub(super) async fn share(&self, key: &[u8], work: impl Future<Output = T>) -> T {
        let cell = {
            let mut cells = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(cells.entry(key.into()).or_default())
        };
        let seat = Seat {
            cells: &self.0,
            key,
            cell,
        };
        seat.cell.get_or_init(|| work).await.clone()
    }
}

/// One who waits. With the last one the work is forgotten: whoever comes later asks anew.
struct Seat<'a, T> {
    cells: &'a Cells<T>,
    key: &'a [u8],
    cell: Arc<OnceCell<T>>,
}

impl<T> Drop for Seat<'_, T> {
    fn drop(&mut self) {
        let mut cells = self.cells.lock().unwrap_or_else(PoisonError::into_inner);
        // What is done must not be handed to those who come later, and may know of a later change.
        let over = self.cell.initialized() || Arc::strong_count(&self.cell) <= 2;
        if over && cells.get(self.key).is_some_and(|cell| Arc::ptr_eq(cell, &self.cell)) {
            cells.remove(self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn one_works_for_all_and_nothing_is_kept() {
        let (flights, done) = (Flights::<u32>::default(), AtomicU32::new(0));
        let work = || async {
            tokio::time::sleep(Duration::from_millis(5)).await;
            done.fetch_add(1, Ordering::Relaxed)
        };
        let answers = futures::future::join_all((0..50).map(|_| flights.share(b"a", work()))).await;
        assert_eq!(answers, vec![0; 50]);
        assert_eq!(flights.share(b"a", work()).await, 1, "whoever comes later asks anew");
        assert!(flights.0.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn who_gives_up_leaves_the_work_to_the_next() {
        let flights = Flights::<u32>::default();
        let never = tokio::time::timeout(Duration::from_millis(5), flights.share(b"a", std::future::pending()));
        let (gave_up, answer) = tokio::join!(never, flights.share(b"a", async { 7 }));
        assert_eq!((gave_up.ok(), answer), (None, 7));
        assert!(flights.0.lock().unwrap().is_empty());
    }
}

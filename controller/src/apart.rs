//! Work that takes its time goes to threads where it holds up nobody. A runtime that has one thread alone wants none of them: there it
//! is done in place, and what happens follows from the order of events only.

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::task::JoinHandle;

/// Whether there are threads beside the one that asks.
pub(crate) fn is_possible() -> bool {
    Handle::current().runtime_flavor() != RuntimeFlavor::CurrentThread
}

/// Begins it; what comes of it is awaited, or let go.
pub(crate) fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    if is_possible() {
        tokio::task::spawn_blocking(work)
    } else {
        tokio::spawn(async move { work() })
    }
}

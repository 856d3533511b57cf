//! Work that takes its time goes to threads where it holds up nobody. A runtime that has one thread alone wants none of them: there it
//! is done in place, and what happens follows from the order of events only.

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::task::JoinHandle;

/// Begins it; what comes of it is awaited, or let go.
pub(crate) fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    if Handle::current().runtime_flavor() == RuntimeFlavor::CurrentThread {
        tokio::spawn(async move { work() })
    } else {
        tokio::task::spawn_blocking(work)
    }
}

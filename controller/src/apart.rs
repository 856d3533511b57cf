//! Work that takes its time goes to threads where it holds up nobody. A runtime that has one thread alone wants none of them: there it
//! is done in place, and what happens follows from the order of events only.

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::task::JoinError;

/// Whether there are threads beside the one that asks.
pub(crate) fn is_possible() -> bool {
    Handle::current().runtime_flavor() != RuntimeFlavor::CurrentThread
}

/// Does it.
///
/// # Errors
/// When it panicked, or the runtime is being shut down.
pub(crate) async fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, JoinError> {
    if is_possible() {
        tokio::task::spawn_blocking(work).await
    } else {
        tokio::spawn(async move { work() }).await
    }
}

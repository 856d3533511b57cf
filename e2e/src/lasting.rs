//! What tests share must not hang on the runtime of the test that happens to come first: it ends with that test.

use std::sync::OnceLock;

use tokio::runtime::Runtime;

/// A runtime that lasts as long as the process.
///
/// # Panics
/// When the machine gives no thread for it.
#[allow(clippy::expect_used, reason = "without threads no test can run")]
pub fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| Runtime::new().expect("the machine has threads"))
}

//! How operations get to a database and their answers back, where that is not a matter of a disk or a network.

use async_trait::async_trait;

use crate::Result;

/// The way to a ledger in memory ([`SqliteLedger::in_memory`](crate::SqliteLedger::in_memory)). Whoever simulates a database lets
/// operations wait here, or come to nothing.
#[async_trait]
pub trait Way: Send + Sync + 'static {
    /// Before an operation begins. With an error nothing is done.
    async fn there(&self, write: bool) -> Result<()>;
    /// After it was done, before it is answered. With an error nobody hears that it was.
    async fn back(&self, write: bool) -> Result<()>;
}

/// Nothing is in the way.
#[derive(Debug, Clone, Copy)]
pub struct Open;

#[async_trait]
impl Way for Open {
    async fn there(&self, _: bool) -> Result<()> {
        Ok(())
    }

    async fn back(&self, _: bool) -> Result<()> {
        Ok(())
    }
}

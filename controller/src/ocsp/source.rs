//! What a responder needs of the ledger.

use std::sync::Arc;

use async_trait::async_trait;
use certwave_ledger::{Change, DeviceRow, InUse, Ledger, Result, SerialStatus};

/// Where standings come from: the [`Ledger`], of which a responder reads these five things and writes nothing.
#[async_trait]
pub trait Source: Send + Sync + 'static {
    /// The standing of certificates of one CA (by key id), in order; `None`: never issued by it.
    async fn standings(&self, issuer: &str, serials: &[String]) -> Result<Vec<Option<SerialStatus>>>;
    /// The last change of any certificate's standing.
    async fn last_change(&self) -> Result<u64>;
    /// Changes of standing after one, in order.
    async fn changes(&self, after: u64, limit: u32) -> Result<Vec<Change>>;
    /// Devices after one, with what they start from.
    async fn in_use(&self, after: Option<DeviceRow>, limit: u32) -> Result<Vec<InUse>>;
    /// Whether the ledger comes from a backup, and not all that was lost has been taken in again.
    async fn restored(&self) -> Result<bool>;
}

#[async_trait]
impl Source for Arc<dyn Ledger> {
    async fn standings(&self, issuer: &str, serials: &[String]) -> Result<Vec<Option<SerialStatus>>> {
        Ledger::standings(&**self, issuer, serials).await
    }

    async fn last_change(&self) -> Result<u64> {
        Ledger::last_change(&**self).await
    }

    async fn changes(&self, after: u64, limit: u32) -> Result<Vec<Change>> {
        Ledger::changes(&**self, after, limit).await
    }

    async fn in_use(&self, after: Option<DeviceRow>, limit: u32) -> Result<Vec<InUse>> {
        Ledger::in_use(&**self, after, limit).await
    }

    async fn restored(&self) -> Result<bool> {
        Ok(self.provenance().await?.restored_at.is_some())
    }
}

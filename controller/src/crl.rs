//! CRLs: the first of each partition before the first certificate in it leaves, and the next number of each.

use std::collections::HashSet;
use std::sync::{LazyLock, PoisonError, RwLock};

use certwave_core::model::Millis;
use certwave_ledger::{CrlRecord, Ledger, LedgerError};
use certwave_pki::KeyId;
use certwave_pki::crl::{CrlError, CrlRequest, encode};
use certwave_protocol::ids::Epoch;

use crate::registry::IssuerEntry;

/// Why there is no CRL.
#[derive(Debug, thiserror::Error)]
pub enum CrlFault {
    /// The ledger refused or could not answer.
    #[error("the ledger: {0}")]
    Ledger(#[from] LedgerError),
    /// It cannot be made.
    #[error(transparent)]
    Crl(#[from] CrlError),
}

impl CrlFault {
    /// A short word of a closed set, for metric labels.
    pub fn category(&self) -> &'static str {
        match self {
            Self::Ledger(error) => error.category(),
            Self::Crl(error) => error.category(),
        }
    }
}

/// Scopes whose CRL this process has seen in the ledger. Partitions are never taken away, so this only grows, by one entry
/// for each CA and month; the epoch is part of it as each leader looks for itself.
static PUBLISHED: LazyLock<RwLock<HashSet<(Epoch, KeyId, String)>>> = LazyLock::new(RwLock::default);

/// Sees to it that a CRL of this partition is published, before the first certificate of it leaves.
/// Costs a look into a set once it is there. A CA that publishes nothing needs none. Answers whether one was published now.
pub async fn ensure_crl(
    ledger: &dyn Ledger,
    epoch: Epoch,
    issuer: &IssuerEntry,
    partition: &str,
    now: Millis,
) -> Result<bool, CrlFault> {
    if issuer.ca.publication().is_none() {
        return Ok(false);
    }
    let scope = (epoch, issuer.ca.key_id().clone(), partition.to_owned());
    if PUBLISHED
        .read()
        .unwrap_or_else(PoisonError::into_inner)
        .contains(&scope)
    {
        return Ok(false);
    }
    let last = ledger.crl(&scope.1.to_string(), partition).await?;
    let missing = last.as_ref().is_none_or(|crl| crl.next_update <= now / 1000);
    if missing {
        publish(ledger, epoch, issuer, partition, last.map_or(0, |crl| crl.number), now).await?;
    }
    PUBLISHED.write().unwrap_or_else(PoisonError::into_inner).insert(scope);
    Ok(missing)
}

/// Signs and stores the next CRL of a scope; one that somebody else stored in between is as good.
pub(crate) async fn publish(
    ledger: &dyn Ledger,
    epoch: Epoch,
    issuer: &IssuerEntry,
    partition: &str,
    last: u64,
    now: Millis,
) -> Result<(), CrlFault> {
    let Some(publication) = issuer.ca.publication() else {
        return Ok(());
    };
    let scope_url = publication.crl_url(issuer.ca.key_id(), partition);
    let number = next_number(last, now);
    let this_update = now / 1000;
    let next_update = this_update.saturating_add(issuer.crl_validity.max(1));
    let request = CrlRequest {
        scope_url: &scope_url,
        number,
        this_update,
        next_update,
        entries: &[],
    };
    let der = encode(&issuer.ca, &request)?;
    let record = CrlRecord {
        issuer: issuer.ca.key_id().to_string(),
        partition: partition.to_owned(),
        number,
        this_update,
        next_update,
        der,
    };
    match ledger.publish_crl(epoch, record).await {
        Ok(()) | Err(LedgerError::CrlNumber { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// CRL numbers rise over restarts and restored backups: by the clock, and by one where the clock stands behind.
fn next_number(last: u64, now: Millis) -> u64 {
    last.saturating_add(1).max(u64::try_from(now).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_rise_whatever_the_clock_says() {
        assert_eq!(next_number(0, 1_790_000_000_000), 1_790_000_000_000);
        assert_eq!(next_number(1_790_000_000_005, 1_790_000_000_000), 1_790_000_000_006);
        assert_eq!(next_number(7, -5), 8);
    }
}

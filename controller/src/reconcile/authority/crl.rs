//! CRLs: the first of each partition before the first certificate in it, and new ones before the old ones end.

use std::collections::HashSet;
use std::sync::{LazyLock, PoisonError, RwLock};
use std::time::Duration;

use certwave_ledger::{CrlRecord, Ledger, LedgerError};
use certwave_pki::crl::{CrlError, CrlRequest, encode};
use certwave_pki::{CA_PARTITION, KeyId, partition_of};
use certwave_protocol::ids::Epoch;

use super::AuthorityState;
use crate::reconcile::error::Error;
use crate::reconcile::shared::Shared;
use crate::reconcile::time::{now_ms, now_s};
use crate::registry::IssuerEntry;

/// How often CRLs near their end are looked for.
const PERIOD: Duration = Duration::from_secs(30);
/// CRLs looked at in one go, dead partitions included.
const BATCH: u32 = 1000;

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

impl From<CrlFault> for Error {
    fn from(fault: CrlFault) -> Self {
        match fault {
            CrlFault::Ledger(error) => Self::Ledger(error),
            CrlFault::Crl(error) => Self::Pki {
                what: "CRL",
                why: error.to_string(),
                category: error.category(),
            },
        }
    }
}

/// Scopes whose CRL this process has seen in the ledger. Partitions are never taken away, so this only grows, by one entry
/// for each CA and month; the epoch is part of it as each leader looks for itself.
static PUBLISHED: LazyLock<RwLock<HashSet<(Epoch, KeyId, String)>>> = LazyLock::new(RwLock::default);

/// Sees to it that a CRL of this partition is published, before the first certificate of it leaves. `now` in Unix seconds.
/// Costs a look into a set once it is there. A CA that publishes nothing needs none. Answers whether one was published now.
pub async fn ensure_crl(
    ledger: &dyn Ledger,
    epoch: Epoch,
    issuer: &IssuerEntry,
    partition: &str,
    now: i64,
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
    let missing = last.as_ref().is_none_or(|crl| crl.next_update <= now);
    if missing {
        publish(ledger, epoch, issuer, partition, last.map_or(0, |crl| crl.number), now).await?;
    }
    PUBLISHED.write().unwrap_or_else(PoisonError::into_inner).insert(scope);
    Ok(missing)
}

/// Signs and stores the next CRL of a scope; one that somebody else stored in between is as good.
async fn publish(
    ledger: &dyn Ledger,
    epoch: Epoch,
    issuer: &IssuerEntry,
    partition: &str,
    last: u64,
    now: i64,
) -> Result<(), CrlFault> {
    let Some(publication) = issuer.ca.publication() else {
        return Ok(());
    };
    let scope_url = publication.crl_url(issuer.ca.key_id(), partition);
    let number = next_number(last, now_ms());
    let next_update = now.saturating_add(issuer.crl_validity.max(1));
    let request = CrlRequest {
        scope_url: &scope_url,
        number,
        this_update: now,
        next_update,
        entries: &[],
    };
    let der = encode(&issuer.ca, &request)?;
    let record = CrlRecord {
        issuer: issuer.ca.key_id().to_string(),
        partition: partition.to_owned(),
        number,
        this_update: now,
        next_update,
        der,
    };
    match ledger.publish_crl(epoch, record).await {
        Ok(()) | Err(LedgerError::CrlNumber { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// CRL numbers rise over restarts and restored backups: by the clock, and by one where the clock stands behind.
fn next_number(last: u64, now_ms: i64) -> u64 {
    last.saturating_add(1).max(u64::try_from(now_ms).unwrap_or(0))
}

/// Whether certificates of this partition may still be valid at `now`: a month's die with it.
fn alive(partition: &str, now: i64) -> bool {
    partition == CA_PARTITION || partition >= partition_of(now).as_str()
}

/// Renews CRLs near their end, for ever. Faults are logged and tried again in the next round.
pub(in crate::reconcile) async fn renew(shared: &Shared) {
    loop {
        tokio::time::sleep(PERIOD).await;
        if let Err(error) = round(shared).await {
            shared.failed("CRL", &error);
            tracing::warn!(%error, "cannot renew CRLs");
        }
    }
}

async fn round(shared: &Shared) -> Result<(), Error> {
    let (now, authorities) = (now_s(), shared.authorities.all());
    let ready = |key: &str| {
        authorities.iter().find_map(|(_, state)| match &**state {
            AuthorityState::Ready(authority) if authority.entry.ca.key_id().to_string() == key => Some(authority),
            _ => None,
        })
    };
    let longest = authorities.iter().filter_map(|(_, state)| match &**state {
        AuthorityState::Ready(authority) => Some(authority.crl_renew_before),
        AuthorityState::NotReady(_) => None,
    });
    let Some(longest) = longest.max() else {
        return Ok(());
    };
    for crl in shared.ledger.crls_before(now.saturating_add(longest), BATCH).await? {
        let Some(authority) = ready(&crl.issuer).filter(|_| alive(&crl.partition, now)) else {
            continue;
        };
        // A renewBefore that is not below the validity would renew in every round.
        let validity = crl.next_update - crl.this_update;
        if crl.next_update - authority.crl_renew_before.min(validity / 2) <= now {
            let renewed = publish(
                &*shared.ledger,
                shared.epoch,
                &authority.entry,
                &crl.partition,
                crl.number,
                now,
            )
            .await;
            match renewed.map_err(Error::from) {
                Ok(()) => {
                    shared.published_crl();
                    tracing::info!(issuer = crl.issuer, partition = crl.partition, "CRL renewed");
                }
                // The others must not end because of this one.
                Err(error @ Error::Pki { .. }) => {
                    shared.failed("CRL", &error);
                    tracing::error!(issuer = crl.issuer, partition = crl.partition, %error, "cannot renew a CRL");
                }
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
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

    #[test]
    fn a_month_dies_when_it_is_over() {
        let september_2026 = 1_790_000_000;
        assert!(alive("ca", september_2026));
        assert!(alive("2026-09", september_2026));
        assert!(alive("2027-01", september_2026));
        assert!(!alive("2026-08", september_2026));
    }
}

//! CRLs: new ones before the old ones end.

use std::time::Duration;

use certwave_pki::{CA_PARTITION, partition_of};

use super::AuthorityState;
use crate::crl::publish;
use crate::reconcile::error::Error;
use crate::reconcile::shared::Shared;
use crate::reconcile::time::{now_ms, now_s};

/// How often CRLs near their end are looked for.
const PERIOD: Duration = Duration::from_secs(30);
/// CRLs looked at in one go, dead partitions included.
const BATCH: u32 = 1000;

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
                now_ms(),
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
    fn a_month_dies_when_it_is_over() {
        let september_2026 = 1_790_000_000;
        assert!(alive("ca", september_2026));
        assert!(alive("2026-09", september_2026));
        assert!(alive("2027-01", september_2026));
        assert!(!alive("2026-08", september_2026));
    }
}

//! Epochs, for every database behind the trait.

use std::sync::Arc;

use certwave_ledger::{CertificateKind, Ledger, LedgerError, Write};

use crate::fixtures::*;

pub(crate) async fn an_epoch_rises_above_the_last_one_and_the_clock(ledger: Arc<dyn Ledger>) {
    assert_eq!(ledger.epoch().await.unwrap(), 0);
    let first = ledger.take_epoch("a", NOW).await.unwrap();
    assert_eq!(first, NOW.unsigned_abs());
    assert_eq!(
        ledger.take_epoch("b", NOW - 5000).await.unwrap(),
        first + 1,
        "a clock that went back"
    );
    assert_eq!(ledger.epoch().await.unwrap(), first + 1);
}

pub(crate) async fn every_write_of_an_old_epoch_is_refused(ledger: Arc<dyn Ledger>) {
    let old = begin(&*ledger, 2).await;
    let new = ledger.take_epoch("other", NOW).await.unwrap();
    let stale = |r: Result<(), LedgerError>| {
        assert_eq!(
            r,
            Err(LedgerError::StaleEpoch {
                given: old,
                present: new
            })
        );
    };
    let d = device(&*ledger, 0).await;
    let mut authority = certificate(&identity(0), 1, 1);
    (authority.kind, authority.identity) = (CertificateKind::Authority, None);
    stale(ledger.declare(old, NOW, vec![declaration(7)]).await.map(|_| ()));
    stale(ledger.withdraw(old, NOW, &object("plant", 0)).await.map(|_| ()));
    stale(ledger.write(old, Write::of(d.clone(), NOW)).await.map(|_| ()));
    stale(ledger.projected(old, vec![(identity(0), 1)]).await);
    stale(ledger.record(old, authority).await);
    stale(ledger.publish_crl(old, crl(1), 0, NOW).await);
    stale(ledger.upsert_claim(old, claim("line", None)).await);
    stale(ledger.begin_rotation(old, rotation("r"), Vec::new()).await.map(|_| ()));
    let run = certwave_ledger::RunWrite::of(certwave_core::rollout::run::Run::default());
    stale(ledger.write_run(old, "r", NOW, run).await);
    stale(ledger.skip_renewed(old, "r", NOW).await.map(|_| ()));
    stale(ledger.skip_expired(old, "r", NOW).await.map(|_| ()));
    stale(ledger.append_audit(old, vec![audit(&identity(0), NOW, "x")]).await);
    stale(
        ledger
            .end_rotation(old, "r", certwave_ledger::RotationOutcome::Failed, NOW)
            .await,
    );
    // A future epoch is no better.
    let early = ledger.write(new + 1, Write::of(d.clone(), NOW)).await;
    assert_eq!(
        early,
        Err(LedgerError::StaleEpoch {
            given: new + 1,
            present: new
        })
    );

    assert_eq!(device(&*ledger, 0).await, d, "nothing changed");
    assert_eq!(ledger.device(&identity(7)).await.unwrap(), None);
    assert_eq!(ledger.crl(&crl(1).issuer, "2027-01").await.unwrap(), None);
    assert!(ledger.audit(&identity(0), 10).await.unwrap().is_empty());
    ledger.write(new, Write::of(d, NOW)).await.unwrap();
}

//! Certificates, CRLs, claims and the audit, for every database behind the trait.

use std::sync::Arc;

use certwave_core::model::ObjectRef;
use certwave_ledger::{CertificateKind, CertificateRecord, Ledger, LedgerError, Write};

use crate::fixtures::*;

pub(crate) async fn a_device_key_is_for_one_certificate_and_a_serial_for_one_per_issuer(ledger: Arc<dyn Ledger>) {
    let epoch = begin(&*ledger, 2).await;
    let first = enrol(&*ledger, epoch, 0, 90).await;
    let issue = |n: u32, record: CertificateRecord| {
        let ledger = Arc::clone(&ledger);
        async move {
            let d = device(&*ledger, n).await;
            ledger
                .write(
                    epoch,
                    Write {
                        certificate: Some(record),
                        ..Write::of(d, NOW)
                    },
                )
                .await
                .map(|_| ())
        }
    };
    assert_eq!(issue(0, first.clone()).await, Ok(()), "the same answer again");
    for n in 0..2 {
        let mut reused = certificate(&identity(n), 50 + u64::from(n), 1);
        reused.spki = first.spki;
        assert_eq!(issue(n, reused).await, Err(LedgerError::KeyReused));
        let mut serial = certificate(&identity(n), 60 + u64::from(n), 1);
        serial.serial.clone_from(&first.serial);
        assert_eq!(issue(n, serial.clone()).await, Err(LedgerError::SerialReused));
        serial.issuer = "bb".repeat(20);
        assert_eq!(issue(n, serial).await.is_ok(), n == 0, "one serial per issuer");
    }
    assert_eq!(
        issue(0, certificate(&identity(1), 70, 1)).await.unwrap_err().category(),
        "invalid"
    );

    // A claim's key is not a device's, nor the other way round.
    ledger.upsert_claim(epoch, claim("line", None)).await.unwrap();
    let mut claimed = certificate(&identity(1), 80, 1);
    claimed.spki = claim("line", None).spki;
    assert_eq!(issue(1, claimed.clone()).await, Err(LedgerError::KeyReused));
    let mut stolen = claim("other", None);
    stolen.spki = first.spki;
    assert_eq!(ledger.upsert_claim(epoch, stolen).await, Err(LedgerError::KeyReused));

    // A CA may be renewed with its key, under its name.
    let mut authority = certificate(&identity(0), 90, 1);
    (authority.kind, authority.identity, authority.holder) = (CertificateKind::Authority, None, "root".to_owned());
    ledger.record(epoch, authority.clone()).await.unwrap();
    ledger.record(epoch, authority.clone()).await.unwrap();
    let mut renewed = CertificateRecord {
        fingerprint: hash("certificate", 91),
        serial: "91".to_owned(),
        ..authority
    };
    ledger.record(epoch, renewed.clone()).await.unwrap();
    let latest = ledger.certificate_by_key(&renewed.spki).await.unwrap().unwrap();
    assert_eq!(latest.record, renewed);
    (renewed.fingerprint, renewed.serial) = (hash("certificate", 92), "92".to_owned());
    renewed.holder = "other".to_owned();
    assert_eq!(ledger.record(epoch, renewed).await, Err(LedgerError::KeyReused));
}

pub(crate) async fn a_cas_object_has_one_key_for_ever(ledger: Arc<dyn Ledger>) {
    let epoch = begin(&*ledger, 0).await;
    let object = |namespace: &str| ObjectRef {
        namespace: namespace.to_owned(),
        name: "root".to_owned(),
    };
    let note = |namespace: &str, key_id: &str| ledger.note_authority_key(epoch, object(namespace), key_id.to_owned());
    assert_eq!(ledger.authority_key(&object("plant")).await.unwrap(), None);
    note("plant", "aa").await.unwrap();
    note("plant", "aa").await.unwrap();
    assert_eq!(note("plant", "bb").await, Err(LedgerError::Conflict));
    note("mill", "bb").await.unwrap();
    assert_eq!(
        ledger.authority_key(&object("plant")).await.unwrap().as_deref(),
        Some("aa")
    );
    assert_eq!(
        ledger.authority_key(&object("mill")).await.unwrap().as_deref(),
        Some("bb")
    );
}

pub(crate) async fn crl_numbers_rise(ledger: Arc<dyn Ledger>) {
    let epoch = begin(&*ledger, 0).await;
    ledger.publish_crl(epoch, crl(5), 0, NOW).await.unwrap();
    for given in [4, 5] {
        assert_eq!(
            ledger.publish_crl(epoch, crl(given), 0, NOW).await,
            Err(LedgerError::CrlNumber { given, present: 5 })
        );
    }
    let mut other = crl(1);
    other.partition = "ca".to_owned();
    other.next_update = NOW_S + 5;
    ledger.publish_crl(epoch, other.clone(), 0, NOW).await.unwrap();
    ledger.publish_crl(epoch, crl(6), 0, NOW).await.unwrap();
    assert_eq!(ledger.crl(&crl(6).issuer, "2027-01").await.unwrap(), Some(crl(6)));
    assert_eq!(ledger.crl("cc", "2027-01").await.unwrap(), None);
    let numbers = [("2027-01".to_owned(), 6), ("ca".to_owned(), 1)];
    assert_eq!(ledger.crl_numbers(&crl(6).issuer).await.unwrap(), numbers);
    assert_eq!(
        ledger.crls_before(NOW_S + 6, 10).await.unwrap(),
        std::slice::from_ref(&other)
    );
    assert_eq!(
        ledger.crls_before(NOW_S + 2 * DAY_S, 10).await.unwrap(),
        [other, crl(6)]
    );
    let huge = ledger.publish_crl(epoch, crl(u64::MAX), 0, NOW).await.unwrap_err();
    assert_eq!(huge.category(), "invalid");
}

pub(crate) async fn a_claims_quota_holds_against_concurrent_devices(ledger: Arc<dyn Ledger>) {
    let epoch = begin(&*ledger, 20).await;
    ledger.upsert_claim(epoch, claim("line", Some(7))).await.unwrap();
    let mut tries = Vec::new();
    for n in 0..20 {
        let ledger = Arc::clone(&ledger);
        tries.push(tokio::spawn(async move {
            let d = device(&*ledger, n).await;
            let write = Write {
                claim_use: Some(claim_use("line", n)),
                ..Write::of(d, NOW)
            };
            ledger.write(epoch, write).await
        }));
    }
    let (mut served, mut refused) = (Vec::new(), 0);
    for (n, t) in (0..).zip(tries) {
        match t.await.unwrap() {
            Ok(_) => served.push(n),
            Err(e) => {
                assert_eq!(e, LedgerError::ClaimExhausted);
                refused += 1;
            }
        }
    }
    assert_eq!((served.len(), refused), (7, 13));
    // The same device again is a use, but not another device.
    let d = device(&*ledger, served[0]).await;
    let again = Write {
        claim_use: Some(claim_use("line", served[0])),
        ..Write::of(d, NOW)
    };
    ledger.write(epoch, again).await.unwrap();
    let stored = ledger
        .claim(&"main".parse().unwrap(), &"line".parse().unwrap())
        .await
        .unwrap()
        .unwrap();
    assert_eq!((stored.used, stored.last_used), (7, Some(NOW)));
    let uses = ledger
        .claim_uses(&"main".parse().unwrap(), &"line".parse().unwrap(), 100)
        .await
        .unwrap();
    assert_eq!(uses.len(), 8);
    assert_eq!(uses[0], claim_use("line", served[0]));
}

pub(crate) async fn a_claim_is_closed_by_suspension_end_and_binding(ledger: Arc<dyn Ledger>) {
    let epoch = begin(&*ledger, 2).await;
    let mut record = claim("line", None);
    let attempt = |n: u32, at: i64| {
        let ledger = Arc::clone(&ledger);
        async move {
            let d = device(&*ledger, n).await;
            let mut used = claim_use("line", n);
            used.at = at;
            ledger
                .write(
                    epoch,
                    Write {
                        claim_use: Some(used),
                        ..Write::of(d, NOW)
                    },
                )
                .await
                .map(|_| ())
        }
    };
    assert_eq!(attempt(0, NOW).await.unwrap_err().category(), "not-found");
    record.suspended = true;
    ledger.upsert_claim(epoch, record.clone()).await.unwrap();
    assert_eq!(attempt(0, NOW).await, Err(LedgerError::ClaimClosed));
    record.suspended = false;
    record.device = Some(identity(1).device);
    ledger.upsert_claim(epoch, record.clone()).await.unwrap();
    assert_eq!(attempt(0, NOW).await, Err(LedgerError::ClaimClosed));
    assert_eq!(attempt(1, record.not_after).await, Err(LedgerError::ClaimClosed));
    assert_eq!(attempt(1, record.not_after - 1).await, Ok(()));

    let mut stolen = record.clone();
    stolen.fleet = fleet("valves");
    let holder = ObjectRef {
        namespace: "plant".to_owned(),
        name: "pumps".to_owned(),
    };
    assert_eq!(
        ledger.upsert_claim(epoch, stolen).await,
        Err(LedgerError::Duplicate { holder })
    );

    let mut issued = certificate(&identity(0), 1, 1);
    (issued.kind, issued.identity, issued.spki) = (CertificateKind::Claim, None, record.spki);
    ledger.record(epoch, issued.clone()).await.unwrap();
    record.certificate = Some(issued.fingerprint);
    ledger.upsert_claim(epoch, record.clone()).await.unwrap();
    let stored = ledger.claims(&fleet("pumps")).await.unwrap();
    assert_eq!((stored.len(), stored[0].used, &stored[0].record), (1, 1, &record));
    assert!(ledger.claims(&fleet("valves")).await.unwrap().is_empty());
}

pub(crate) async fn the_audit_tells_of_a_device_the_last_first(ledger: Arc<dyn Ledger>) {
    let epoch = begin(&*ledger, 2).await;
    let mut write = Write::of(device(&*ledger, 0).await, NOW);
    let mut full = audit(&identity(0), NOW, "issued");
    full.job = Some(job_id(1));
    full.detail = Some("serial 1".to_owned());
    write.audit = vec![full.clone(), audit(&identity(1), NOW, "other")];
    ledger.write(epoch, write).await.unwrap();
    let mut lone = audit(&identity(0), NOW + 1, "suspended");
    ledger.append_audit(epoch, vec![lone.clone()]).await.unwrap();
    assert_eq!(ledger.audit(&identity(0), 10).await.unwrap(), [lone.clone(), full]);
    assert_eq!(ledger.audit(&identity(0), 1).await.unwrap(), [lone.clone()]);
    lone.identity = None;
    ledger.append_audit(epoch, vec![lone]).await.unwrap();
    assert_eq!(ledger.audit(&identity(0), 10).await.unwrap().len(), 2);
}

pub(crate) async fn jobs_sent_are_a_fleets_first_sendings_since_a_time(ledger: Arc<dyn Ledger>) {
    let epoch = begin(&*ledger, 2).await;
    let elsewhere = certwave_ledger::Declaration {
        fleet: "valves".to_owned(),
        ..declaration(2)
    };
    ledger.declare(epoch, NOW, vec![elsewhere]).await.unwrap();
    let mut nobodys = audit(&identity(0), NOW + 2, "job-sent");
    nobodys.identity = None;
    let lines = [
        audit(&identity(0), NOW, "job-sent"),
        audit(&identity(0), NOW + 1, "job-sent"),
        audit(&identity(0), NOW + 1, "job-sent-again"),
        audit(&identity(1), NOW + 2, "job-sent"),
        audit(&identity(2), NOW + 2, "job-sent"),
        audit(&identity(7), NOW + 2, "job-sent"),
        nobodys,
    ];
    ledger.append_audit(epoch, lines.into()).await.unwrap();
    for (since, pumps, valves) in [(NOW, 3, 1), (NOW + 1, 2, 1), (NOW + 2, 1, 1), (NOW + 3, 0, 0)] {
        assert_eq!(ledger.jobs_sent(&fleet("pumps"), since).await.unwrap(), pumps);
        assert_eq!(ledger.jobs_sent(&fleet("valves"), since).await.unwrap(), valves);
    }
    assert_eq!(ledger.jobs_sent(&fleet("unheard-of"), NOW).await.unwrap(), 0);
}

//! The suite: the audit's chain, the archive, and a ledger that comes from a backup.

use std::sync::Arc;

use certwave_core::model::{Credential, Job, JobKind, JobState};
use certwave_core::revocation::{Bar, Reason, Standing};
use certwave_ledger::{
    CertificateKind, CertificateRecord, CrlRecord, Held, Ledger, LedgerError, SerialKey, TakenIn, Target, Write,
};
use certwave_protocol::ids::Fingerprint;

use crate::fixtures::*;
use crate::revocations::{HOLD, REVOKE, key, mark, one, publish, standing};

pub(crate) async fn the_audit_is_a_chain(ledger: Arc<dyn Ledger>) {
    let ledger = &*ledger;
    assert_eq!(ledger.verify_audit().await.unwrap(), (0, Fingerprint([0; 32])));
    let epoch = begin(ledger, 1).await;
    let mut hashes = std::collections::BTreeSet::new();
    for n in 1..=3 {
        let lines = vec![audit(&identity(0), NOW, "seen"); 2];
        ledger.append_audit(epoch, lines).await.unwrap();
        let (lines, hash) = ledger.verify_audit().await.unwrap();
        assert_eq!(lines, 2 * n);
        assert!(hashes.insert(hash));
    }
}

fn taken(key: &SerialKey, standing: Standing) -> TakenIn {
    TakenIn {
        key: key.clone(),
        fingerprint: None,
        holder: None,
        public_key: None,
        validity: (0, NOW_S + 30 * DAY_S),
        partition: "2027-02".to_owned(),
        standing,
        invalid_since: None,
    }
}

pub(crate) async fn a_restored_ledger_issues_nothing_until_what_was_lost_is_taken_in(ledger: Arc<dyn Ledger>) {
    let ledger = &*ledger;
    let epoch = begin(ledger, 3).await;
    let known = enrol(ledger, epoch, 0, 30).await;
    let stolen = enrol(ledger, epoch, 1, 30).await;
    one(ledger, epoch, NOW, mark(Target::Device(identity(1)), REVOKE)).await;
    publish(ledger, epoch, "2027-02", 7, NOW).await;
    let id = ledger.provenance().await.unwrap().id;
    let before = ledger.last_change().await.unwrap();

    ledger.mark_restored(epoch, NOW).await.unwrap();
    let epoch = ledger.take_epoch("after", NOW).await.unwrap();
    let provenance = ledger.provenance().await.unwrap();
    assert_eq!((provenance.id, provenance.restored_at), (id, Some(NOW)));
    assert!(ledger.last_change().await.unwrap() > before, "no number is given twice");
    let lost = certificate(&identity(2), 50, 30);
    let mut write = Write::of(device(ledger, 2).await, NOW);
    write.certificate = Some(lost.clone());
    let refused = ledger.write(epoch, write).await.unwrap_err();
    assert_eq!(refused, LedgerError::Restoring);
    assert!(refused.is_outage(), "devices are told to try later");
    let authority = CertificateRecord {
        kind: CertificateKind::Authority,
        identity: None,
        ..certificate(&identity(2), 51, 30)
    };
    assert_eq!(ledger.record(epoch, authority).await, Err(LedgerError::Restoring));

    let revoked = Standing::Revoked {
        since: NOW_S - 5,
        reason: Reason::CessationOfOperation,
    };
    let unknown = SerialKey {
        issuer: known.issuer.clone(),
        serial: "beef".to_owned(),
    };
    let proven = TakenIn {
        fingerprint: Some(lost.fingerprint),
        holder: Some((identity(2), Held::Current)),
        public_key: Some(lost.public_key.clone()),
        validity: (lost.not_before, lost.not_after),
        ..taken(&key(&lost), Standing::Good)
    };
    let certificates = vec![
        taken(&key(&known), revoked),
        taken(&key(&stolen), Standing::Good),
        taken(&unknown, revoked),
        proven,
    ];
    let numbers = vec![
        (known.issuer.clone(), "2027-02".to_owned(), 40),
        (known.issuer.clone(), "2027-03".to_owned(), 9),
    ];
    let new = ledger
        .take_in(epoch, NOW, certificates.clone(), numbers.clone())
        .await
        .unwrap();
    assert_eq!(new, 2);
    assert_eq!(
        ledger.take_in(epoch, NOW, certificates, numbers).await.unwrap(),
        0,
        "the same again"
    );
    assert_eq!(standing(ledger, &known).await, revoked);
    assert!(
        matches!(standing(ledger, &stolen).await, Standing::Revoked { .. }),
        "what was revoked stays so"
    );
    let found = ledger
        .standings(&unknown.issuer, &["beef".to_owned(), "dead".to_owned()])
        .await
        .unwrap();
    assert_eq!((found[0].unwrap().standing, found[1]), (revoked, None));
    assert_eq!(device(ledger, 2).await.current.unwrap().fingerprint, lost.fingerprint);
    assert_eq!(device(ledger, 1).await.bar, Some(Bar::Revoked));
    let numbers = ledger.crl_numbers(&known.issuer).await.unwrap();
    assert_eq!(numbers, [("2027-02".to_owned(), 40), ("2027-03".to_owned(), 9)]);

    ledger.recovered(epoch, NOW + 1).await.unwrap();
    assert_eq!(ledger.provenance().await.unwrap().restored_at, None);
    let old = CrlRecord {
        partition: "2027-02".to_owned(),
        ..crl(40)
    };
    let again = ledger.publish_crl(epoch, old, 0, NOW).await;
    assert!(
        matches!(again, Err(LedgerError::CrlNumber { present: 40, .. })),
        "{again:?}"
    );
    let mut same = certificate(&identity(2), 52, 30);
    same.serial = "beef".to_owned();
    let mut write = Write::of(device(ledger, 2).await, NOW);
    write.certificate = Some(same);
    assert_eq!(ledger.write(epoch, write).await, Err(LedgerError::SerialReused));
    ledger.verify_audit().await.unwrap();
}

pub(crate) async fn after_a_recovery_it_is_known_which_certificate_is_the_newer_one(ledger: Arc<dyn Ledger>) {
    let ledger = &*ledger;
    let epoch = begin(ledger, 2).await;
    ledger.mark_restored(epoch, NOW).await.unwrap();
    let epoch = ledger.take_epoch("after", NOW).await.unwrap();
    let held = |n: u32, held: Held, begins: i64| {
        let lost = certificate(
            &identity(n),
            50 + 2 * u64::from(n) + u64::from(held == Held::Current),
            30,
        );
        TakenIn {
            fingerprint: Some(lost.fingerprint),
            holder: Some((identity(n), held)),
            public_key: Some(lost.public_key.clone()),
            validity: (begins, lost.not_after),
            ..taken(&key(&lost), Standing::Good)
        }
    };
    let certificates = vec![
        held(0, Held::Current, NOW_S - 10),
        held(0, Held::Previous, NOW_S - 1000),
        // This one went back by itself.
        held(1, Held::Current, NOW_S - 1000),
        held(1, Held::Previous, NOW_S - 10),
    ];
    ledger.take_in(epoch, NOW, certificates, Vec::new()).await.unwrap();
    ledger.recovered(epoch, NOW).await.unwrap();
    let sent_back = async |n: u32| {
        let mut d = device(ledger, n).await;
        assert!(d.current.is_some() && d.previous.is_some(), "{d:?}");
        d.job = Some(Job {
            kind: JobKind::Rollback,
            ..job(u64::from(n), JobState::Queued)
        });
        ledger.write(epoch, Write::of(d, NOW)).await
    };
    sent_back(0).await.unwrap();
    assert_eq!(sent_back(1).await, Err(LedgerError::Conflict), "that would be forward");
}

pub(crate) async fn a_device_whose_current_certificate_is_taken_in_as_revoked_needs_a_permit(ledger: Arc<dyn Ledger>) {
    let ledger = &*ledger;
    let epoch = begin(ledger, 3).await;
    let (stolen, retired, again) = (
        enrol(ledger, epoch, 0, 30).await,
        enrol(ledger, epoch, 1, 30).await,
        enrol(ledger, epoch, 2, 30).await,
    );
    change(ledger, epoch, 0, |d| {
        d.reenrol = Some("of before".to_owned());
        d.job = Some(job(1, JobState::Queued));
    })
    .await;
    ledger.mark_restored(epoch, NOW).await.unwrap();
    let epoch = ledger.take_epoch("after", NOW).await.unwrap();
    let newer = certificate(&identity(2), 50, 30);
    let proven = TakenIn {
        fingerprint: Some(newer.fingerprint),
        holder: Some((identity(2), Held::Current)),
        public_key: Some(newer.public_key.clone()),
        validity: (newer.not_before, newer.not_after),
        ..taken(&key(&newer), Standing::Good)
    };
    let revoked = |record: &CertificateRecord, reason| {
        let since = NOW_S - 5;
        taken(&key(record), Standing::Revoked { since, reason })
    };
    let told = vec![
        revoked(&stolen, Reason::KeyCompromise),
        revoked(&retired, Reason::Superseded),
        revoked(&again, Reason::KeyCompromise),
        proven,
    ];
    ledger.take_in(epoch, NOW, told, Vec::new()).await.unwrap();
    let out = device(ledger, 0).await;
    assert_eq!((out.bar, out.reenrol.as_deref()), (Some(Bar::Revoked), None));
    assert_eq!(out.job.map(|job| job.state), Some(JobState::Cancelled));
    assert_eq!(device(ledger, 1).await.bar, None, "it has a newer certificate");
    assert_eq!(device(ledger, 2).await.bar, None, "it was let in again since");
    ledger.recovered(epoch, NOW).await.unwrap();
    let mut write = Write::of(device(ledger, 0).await, NOW);
    write.certificate = Some(certificate(&identity(0), 60, 30));
    assert_eq!(ledger.write(epoch, write).await, Err(LedgerError::Barred));
}

pub(crate) async fn a_hold_that_was_taken_in_ends_when_the_object_declares_none(ledger: Arc<dyn Ledger>) {
    let ledger = &*ledger;
    let epoch = begin(ledger, 1).await;
    let record = enrol(ledger, epoch, 0, 30).await;
    ledger.mark_restored(epoch, NOW).await.unwrap();
    let epoch = ledger.take_epoch("after", NOW).await.unwrap();
    let held = Standing::Held { since: NOW_S - 9 };
    ledger
        .take_in(epoch, NOW, vec![taken(&key(&record), held)], Vec::new())
        .await
        .unwrap();
    assert_eq!(standing(ledger, &record).await, held);
    assert_eq!(
        device(ledger, 0).await.bar,
        Some(Bar::Held),
        "it gets nothing meanwhile"
    );
    let changed = ledger
        .declare_revocation(epoch, NOW, &object("plant", 0), None, "alice")
        .await
        .unwrap();
    assert_eq!(changed.len(), 1);
    assert_eq!(standing(ledger, &record).await, Standing::Good);
    assert_eq!(device(ledger, 0).await.bar, None);
}

pub(crate) async fn what_ended_long_ago_is_archived_unless_somebody_refers_to_it(ledger: Arc<dyn Ledger>) {
    let ledger = &*ledger;
    let epoch = begin(ledger, 1).await;
    let mut records: Vec<CertificateRecord> = Vec::new();
    for n in 0..5 {
        // The last two are what the device holds.
        let record = certificate(&identity(0), n, -200 + i64::try_from(n).unwrap());
        let mut d = device(ledger, 0).await;
        d.previous = d.current.replace(Credential::from(&record));
        let write = Write {
            certificate: Some(record.clone()),
            ..Write::of(d, NOW)
        };
        ledger.write(epoch, write).await.unwrap();
        let serial = Target::DeviceSerial(identity(0), record.serial.clone());
        if n == 0 {
            one(ledger, epoch, NOW, mark(serial.clone(), HOLD)).await;
            one(ledger, epoch, NOW + 9000, mark(serial, crate::revocations::RELEASE)).await;
        } else if n == 1 {
            let named = certwave_ledger::Mark {
                revocation: Some("object".to_owned()),
                target: Target::Certificate(records[0].fingerprint),
                ..mark(serial, REVOKE)
            };
            one(ledger, epoch, NOW + 10_000, named).await;
        }
        records.push(record);
    }
    let before = ledger.totals().await.unwrap();
    assert_eq!((before.certificates, before.archived), (5, 0));
    let ended = NOW_S - 90 * DAY_S;
    assert_eq!(ledger.archive(epoch, ended, 2).await.unwrap(), 2);
    assert_eq!(ledger.archive(epoch, ended, 2).await.unwrap(), 1);
    assert_eq!(ledger.archive(epoch, ended, 2).await.unwrap(), 0);
    let after = ledger.totals().await.unwrap();
    assert_eq!((after.certificates, after.archived), (2, 3));
    assert!(matches!(standing(ledger, &records[0]).await, Standing::Revoked { .. }));
    for record in &records[1..] {
        assert_eq!(standing(ledger, record).await, Standing::Good);
    }
    let progress = ledger.revocation_progress("object").await.unwrap();
    assert_eq!((progress.recorded, progress.closed), (1, 1));
    // An archived key or serial number is used for ever.
    for (n, reused, expected) in [
        (70, Some(records[2].spki), LedgerError::KeyReused),
        (71, None, LedgerError::SerialReused),
    ] {
        let mut record = certificate(&identity(0), n, 30);
        match reused {
            Some(spki) => record.spki = spki,
            None => record.serial.clone_from(&records[2].serial),
        }
        let mut write = Write::of(device(ledger, 0).await, NOW);
        write.device.bar = None;
        write.certificate = Some(record);
        assert_eq!(ledger.write(epoch, write).await, Err(expected));
    }
}

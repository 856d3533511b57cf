//! Devices, for every database behind the trait.

use std::sync::Arc;

use certwave_core::model::{Credential, JobKind, JobState};
use certwave_ledger::{DueQuery, FleetKey, Ledger, LedgerError, Write};
use certwave_protocol::code::Code;
use certwave_protocol::ids::{Fingerprint, Nonce};
use certwave_protocol::message::Subject;

use crate::fixtures::*;

pub(crate) async fn a_device_comes_back_as_it_was_written(ledger: Arc<dyn Ledger>) {
    let epoch = begin(&*ledger, 1).await;
    let records: Vec<_> = (1..=3).map(|n| certificate(&identity(0), n, 30)).collect();
    for r in &records {
        let d = device(&*ledger, 0).await;
        ledger
            .write(
                epoch,
                Write {
                    certificate: Some(r.clone()),
                    ..Write::of(d, NOW)
                },
            )
            .await
            .unwrap();
    }
    let mut d = device(&*ledger, 0).await;
    [d.previous, d.current, d.pending] = [0, 1, 2].map(|n| Some(Credential::from(&records[n])));
    d.bundle = Some(hash("bundle", 1));
    d.session = Some(Nonce([9; 16]));
    d.last_seen = Some(NOW);
    d.reenrol = Some("permit".to_owned());
    d.reenrol_used = Some("earlier".to_owned());
    d.not_before = Some(NOW + 1);
    let mut full = job(1, JobState::Committing);
    full.rotation = Some("rotation".to_owned());
    full.claim = Some("line".parse().unwrap());
    full.deadline = Some(NOW + 2);
    full.job_deadline = Some(NOW + 3);
    full.csr_key = Some(records[2].spki);
    full.subject = Some(Subject::Certificate(records[2].fingerprint));
    full.committed = true;
    full.code = Some(Code::TryLater);
    full.detail = Some("für Menschen".to_owned());
    for (n, kind) in [
        JobKind::Enrol,
        JobKind::Rotate,
        JobKind::Rollback,
        JobKind::Trust(hash("bundle", 2)),
    ]
    .into_iter()
    .enumerate()
    {
        full.id = job_id(n as u64);
        full.kind = kind;
        if n == 3 {
            full.subject = Some(Subject::Bundle(hash("bundle", 2)));
        }
        d.job = Some(full.clone());
        d.revision = ledger.write(epoch, Write::of(d.clone(), NOW)).await.unwrap();
        assert_eq!(device(&*ledger, 0).await, d);
        assert_eq!(ledger.device_by_object(&d.object).await.unwrap().unwrap(), d);
    }
    let stored = ledger.certificate(&records[1].fingerprint).await.unwrap().unwrap();
    assert_eq!(
        (&stored.record, stored.sent_at, stored.confirmed_at),
        (&records[1], None, Some(NOW))
    );
    assert_eq!(ledger.certificate(&hash("certificate", 99)).await.unwrap(), None);
    let mut write = Write::of(d, NOW + 5);
    write.sent_certificate = Some(records[2].fingerprint);
    ledger.write(epoch, write).await.unwrap();
    let stored = ledger.certificate_by_key(&records[2].spki).await.unwrap().unwrap();
    assert_eq!((stored.sent_at, stored.confirmed_at), (Some(NOW + 5), None));
}

pub(crate) async fn a_write_of_an_old_revision_conflicts(ledger: Arc<dyn Ledger>) {
    let epoch = begin(&*ledger, 1).await;
    let read = device(&*ledger, 0).await;
    let mut writes = Vec::new();
    for n in 0..20 {
        let (ledger, mut d) = (Arc::clone(&ledger), read.clone());
        d.last_seen = Some(n);
        writes.push(tokio::spawn(
            async move { ledger.write(epoch, Write::of(d, NOW)).await },
        ));
    }
    let mut stored = 0;
    for w in writes {
        match w.await.unwrap() {
            Ok(revision) => {
                assert_eq!(revision, read.revision + 1);
                stored += 1;
            }
            Err(e) => assert_eq!(e, LedgerError::Conflict),
        }
    }
    assert_eq!(stored, 1);
    let missing = certwave_core::model::Device::declared(identity(9), object("plant", 9), "pumps".to_owned());
    let unknown = ledger.write(epoch, Write::of(missing, NOW)).await.unwrap_err();
    assert_eq!(unknown.category(), "not-found");
}

pub(crate) async fn a_refused_write_leaves_nothing_behind(ledger: Arc<dyn Ledger>) {
    let epoch = begin(&*ledger, 1).await;
    ledger.upsert_claim(epoch, claim("line", Some(0))).await.unwrap();
    let before = device(&*ledger, 0).await;
    let record = certificate(&identity(0), 1, 1);
    let mut d = before.clone();
    d.pending = Some(Credential::from(&record));
    d.job = Some(job(1, JobState::Issued));
    let mut write = Write::of(d.clone(), NOW);
    write.certificate = Some(record.clone());
    write.audit = vec![audit(&identity(0), NOW, "issued")];
    write.claim_use = Some(claim_use("line", 0));
    assert_eq!(
        ledger.write(epoch, write.clone()).await,
        Err(LedgerError::ClaimExhausted)
    );
    assert_eq!(device(&*ledger, 0).await, before);
    assert_eq!(ledger.certificate(&record.fingerprint).await.unwrap(), None);
    assert!(ledger.audit(&identity(0), 10).await.unwrap().is_empty());

    write.claim_use = None;
    ledger.write(epoch, write).await.unwrap();
    assert_eq!(
        ledger.audit(&identity(0), 10).await.unwrap(),
        [audit(&identity(0), NOW, "issued")]
    );
    // A credential that was never recorded for this device.
    let mut other = device(&*ledger, 0).await;
    other.current = Some(Credential::from(&certificate(&identity(0), 2, 1)));
    assert_eq!(
        ledger.write(epoch, Write::of(other, NOW)).await.unwrap_err().category(),
        "not-found"
    );
}

pub(crate) async fn overdue_are_open_jobs_past_a_deadline_and_timed_out_ones_past_theirs(ledger: Arc<dyn Ledger>) {
    let epoch = begin(&*ledger, 6).await;
    let put = |n: u32, state: JobState, deadline: Option<i64>, job_deadline: Option<i64>| {
        let ledger = Arc::clone(&ledger);
        async move {
            let mut j = job(u64::from(n), state);
            (j.deadline, j.job_deadline) = (deadline, job_deadline);
            change(&*ledger, epoch, n, |d| d.job = Some(j)).await;
        }
    };
    put(0, JobState::Sent, Some(NOW + 20), None).await;
    put(1, JobState::Issued, Some(NOW + 90), Some(NOW + 10)).await;
    put(2, JobState::TimedOut, Some(NOW + 30), Some(NOW)).await;
    put(3, JobState::Failed, Some(NOW), Some(NOW)).await;
    put(4, JobState::Queued, None, None).await;
    put(5, JobState::Lost, Some(NOW), None).await;
    assert!(ledger.overdue(&broker(), NOW + 9, 10).await.unwrap().is_empty());
    assert_eq!(
        ledger.overdue(&broker(), NOW + 30, 10).await.unwrap(),
        [identity(1), identity(0), identity(2)]
    );
    assert_eq!(ledger.overdue(&broker(), NOW + 30, 1).await.unwrap(), [identity(1)]);
    ledger.withdraw(epoch, NOW, &object("plant", 1)).await.unwrap();
    assert_eq!(
        ledger.overdue(&broker(), NOW + 10, 10).await.unwrap(),
        [identity(1)],
        "deadlines hold for withdrawn devices too"
    );

    // Only those whose state began in the future, and that have a deadline that is their own.
    change(&*ledger, epoch, 0, |d| d.job.as_mut().unwrap().since = NOW + 9).await;
    change(&*ledger, epoch, 4, |d| d.job.as_mut().unwrap().since = NOW + 9).await;
    assert_eq!(ledger.dated_ahead(&broker(), NOW + 8, 10).await.unwrap(), [identity(0)]);
    assert!(ledger.dated_ahead(&broker(), NOW + 9, 10).await.unwrap().is_empty());
}

pub(crate) async fn due_are_idle_enrolled_devices_whose_certificates_end_soon(ledger: Arc<dyn Ledger>) {
    let epoch = begin(&*ledger, 9).await;
    for (n, days) in [(1, 30), (2, 10), (3, 10), (4, 5), (5, 5), (6, 5), (7, 300), (8, -1)] {
        enrol(&*ledger, epoch, n, days).await;
    }
    change(&*ledger, epoch, 4, |d| d.job = Some(job(4, JobState::Queued))).await;
    change(&*ledger, epoch, 5, |d| d.not_before = Some(NOW + 1)).await;
    ledger.withdraw(epoch, NOW, &object("plant", 6)).await.unwrap();
    let mut query = DueQuery {
        now: NOW,
        expires_before_s: NOW_S + 31 * DAY_S,
        failed_before_s: NOW_S,
        limit: 10,
    };
    let due = async |q: &DueQuery| ledger.due(&fleet("pumps"), q).await.unwrap();
    assert_eq!(due(&query).await, [identity(2), identity(3), identity(1)]);
    query.limit = 2;
    assert_eq!(due(&query).await, [identity(2), identity(3)]);
    query.limit = 10;
    query.expires_before_s = NOW_S + 30 * DAY_S;
    assert_eq!(
        due(&query).await,
        [identity(2), identity(3)],
        "not the one that ends then"
    );
    query.now = NOW + 1;
    assert_eq!(
        due(&query).await,
        [identity(5), identity(2), identity(3)],
        "its pause is over"
    );
    assert!(ledger.due(&fleet("nobody's"), &query).await.unwrap().is_empty());

    // A clock that was a year ahead has let a job fail, and was put back.
    let ahead = NOW + 365 * DAY_S * 1000;
    change(&*ledger, epoch, 2, |d| {
        let mut failed = job(2, JobState::Cancelled);
        failed.since = ahead;
        (d.job, d.not_before) = (Some(failed), Some(ahead + 60_000));
    })
    .await;
    assert_eq!(due(&query).await, [identity(5), identity(2), identity(3)]);
}

/// Devices 0 to 9, of which device `n` has had a job that ended in a way of its own; 9 has never had one.
async fn ended_in_every_way(ledger: &dyn Ledger) {
    use JobState::{Cancelled, Confirmed, Failed, Lost, Rejected, RolledBack, TimedOut};
    let epoch = begin(ledger, 10).await;
    let ends = [
        (Confirmed, None),
        (Cancelled, None),
        (Rejected, Some(1)),
        (Failed, Some(1)),
        (RolledBack, Some(1)),
        // Gone and never heard, heard before, and heard since.
        (TimedOut, None),
        (TimedOut, Some(0)),
        (TimedOut, Some(1)),
        (Lost, Some(1)),
    ];
    for n in 0..10 {
        enrol(ledger, epoch, n, 10 + i64::from(n)).await;
    }
    for (n, (state, heard)) in (0..).zip(ends) {
        change(ledger, epoch, n, |d| {
            d.job = Some(job(u64::from(n), state));
            d.last_seen = heard.map(|after| NOW + after);
        })
        .await;
    }
}

pub(crate) async fn who_failed_is_due_only_shortly_before_the_end(ledger: Arc<dyn Ledger>) {
    ended_in_every_way(&*ledger).await;
    let due = async |days: i64| {
        let query = DueQuery {
            now: NOW,
            expires_before_s: NOW_S + 99 * DAY_S,
            failed_before_s: NOW_S + days * DAY_S,
            limit: 10,
        };
        ledger.due(&fleet("pumps"), &query).await.unwrap()
    };
    assert_eq!(due(0).await, [0, 1, 7, 8, 9].map(identity));
    assert_eq!(due(13).await, [0, 1, 2, 7, 8, 9].map(identity));
    assert_eq!(due(99).await, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9].map(identity));
}

pub(crate) async fn candidates_tell_who_failed_and_who_has_not_been_heard_since(ledger: Arc<dyn Ledger>) {
    ended_in_every_way(&*ledger).await;
    let candidates = ledger.candidates(&fleet("pumps"), NOW, None, 99).await.unwrap();
    assert_eq!(candidates.len(), 10);
    let failed: Vec<_> = candidates.into_iter().filter(|c| c.failed).map(|c| c.device).collect();
    assert_eq!(failed, [2, 3, 4, 5, 6].map(|n| identity(n).device));
}

pub(crate) async fn waiting_devices_are_served_longest_first_and_slots_are_counted(ledger: Arc<dyn Ledger>) {
    let epoch = begin(&*ledger, 8).await;
    let states = [
        JobState::Queued,
        JobState::Queued,
        JobState::Sent,
        JobState::Accepted,
        JobState::Issued,
        JobState::Committing,
        JobState::TimedOut,
    ];
    for (n, state) in (0u32..).zip(states) {
        let mut j = job(u64::from(n), state);
        j.since = NOW - i64::from(n);
        change(&*ledger, epoch, n, |d| d.job = Some(j)).await;
    }
    assert_eq!(
        ledger.queued(&fleet("pumps"), 10).await.unwrap(),
        [identity(1), identity(0)]
    );
    assert_eq!(ledger.queued(&fleet("pumps"), 1).await.unwrap(), [identity(1)]);
    assert_eq!(ledger.in_flight(&fleet("pumps")).await.unwrap(), 4);
    let elsewhere = FleetKey {
        namespace: "other".to_owned(),
        name: "pumps".to_owned(),
    };
    assert_eq!(ledger.in_flight(&elsewhere).await.unwrap(), 0);
    assert!(ledger.queued(&elsewhere, 10).await.unwrap().is_empty());
}

pub(crate) async fn devices_in_flight_for_something_else_are_counted_by_a_label(ledger: Arc<dyn Ledger>) {
    let epoch = begin(&*ledger, 6).await;
    // Ring 0: devices 0, 2 and 4.
    let jobs = [
        (0, JobState::Sent, None),
        (1, JobState::Committing, Some("other")),
        (2, JobState::Accepted, Some("r")),
        (3, JobState::TimedOut, Some("other")),
        (4, JobState::Issued, Some("other")),
        (5, JobState::Queued, None),
    ];
    for (n, state, rotation) in jobs {
        let mut j = job(u64::from(n), state);
        j.rotation = rotation.map(str::to_owned);
        change(&*ledger, epoch, n, |d| d.job = Some(j)).await;
    }
    let fleet = fleet("pumps");
    let groups = |rotation, label| ledger.groups_elsewhere(&fleet, rotation, label);
    let ring = |zero, one| [("0".to_owned(), zero), ("1".to_owned(), one)];
    assert_eq!(groups(Some("r"), "ring").await.unwrap(), ring(2, 1));
    assert_eq!(groups(None, "ring").await.unwrap(), ring(3, 1));
    assert_eq!(groups(Some("other"), "ring").await.unwrap(), [("0".to_owned(), 2)]);
    assert_eq!(groups(None, "site").await.unwrap(), [(String::new(), 4)]);
}

pub(crate) async fn a_read_sees_what_was_acknowledged_before_it(ledger: Arc<dyn Ledger>) {
    let epoch = begin(&*ledger, 8).await;
    let mut tasks = Vec::new();
    for n in 0..8 {
        let ledger = Arc::clone(&ledger);
        tasks.push(tokio::spawn(async move {
            for _ in 0..50 {
                let d = device(&*ledger, n).await;
                let revision = ledger.write(epoch, Write::of(d, NOW)).await.unwrap();
                assert_eq!(device(&*ledger, n).await.revision, revision);
            }
        }));
    }
    for t in tasks {
        t.await.unwrap();
    }
}

/// Fingerprints are only bytes to the ledger.
pub(crate) async fn any_bundle_is_stored(ledger: Arc<dyn Ledger>) {
    let epoch = begin(&*ledger, 1).await;
    for bytes in [[0; 32], [0xff; 32]] {
        let d = change(&*ledger, epoch, 0, |d| d.bundle = Some(Fingerprint(bytes))).await;
        assert_eq!(d.bundle, Some(Fingerprint(bytes)));
    }
}

pub(crate) async fn what_devices_start_from_comes_in_pages(ledger: Arc<dyn Ledger>) {
    let epoch = begin(&*ledger, 3).await;
    let record = enrol(&*ledger, epoch, 1, 30).await;
    change(&*ledger, epoch, 1, |d| d.last_seen = Some(NOW)).await;
    let first = ledger.in_use(None, 2).await.unwrap();
    let rest = ledger.in_use(Some(first[1].device), 2).await.unwrap();
    let all: Vec<_> = first.iter().chain(&rest).collect();
    assert_eq!(all.len(), 3);
    assert_eq!(ledger.in_use(Some(rest[0].device), 2).await.unwrap(), []);
    let (seen, certificate) = (all[1].last_seen, all[1].certificate.clone().unwrap());
    assert_eq!((seen, certificate.serial), (Some(NOW), record.serial));
    assert_eq!((all[0].last_seen, &all[2].certificate), (None, &None));
}

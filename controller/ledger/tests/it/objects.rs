//! What objects declare and what is to be shown in them, for every database behind the trait.

use std::sync::Arc;

use certwave_core::model::{Credential, JobState, ObjectRef};
use certwave_ledger::{Declaration, Declared, FleetCounts, Ledger, Write};
use certwave_protocol::code::Code;

use crate::fixtures::*;

pub(crate) async fn an_identity_belongs_to_whoever_declares_it_first(ledger: Arc<dyn Ledger>) {
    let epoch = begin(&*ledger, 1).await;
    let elsewhere = Declaration {
        object: object("other", 1),
        ..declaration(0)
    };
    let beside = Declaration {
        object: object("plant", 9),
        ..declaration(0)
    };
    let batch = vec![
        declaration(0),
        elsewhere.clone(),
        beside,
        declaration(1),
        declaration(1),
    ];
    let holder = object("plant", 0);
    assert_eq!(
        ledger.declare(epoch, NOW, batch).await.unwrap(),
        [
            Declared::Unchanged,
            Declared::Duplicate { holder: holder.clone() },
            Declared::Duplicate { holder: holder.clone() },
            Declared::New,
            Declared::Unchanged,
        ]
    );
    assert_eq!(device(&*ledger, 0).await.object, holder);

    // Never enrolled and withdrawn: free for all. Enrolled: only for the namespace.
    ledger.withdraw(epoch, NOW, &holder).await.unwrap();
    assert_eq!(
        ledger.declare(epoch, NOW, vec![elsewhere.clone()]).await.unwrap(),
        [Declared::New]
    );
    enrol(&*ledger, epoch, 0, 90).await;
    assert_eq!(
        ledger.withdraw(epoch, NOW, &elsewhere.object).await.unwrap(),
        Some(identity(0))
    );
    assert_eq!(
        ledger.declare(epoch, NOW, vec![declaration(0)]).await.unwrap(),
        [Declared::Duplicate {
            holder: elsewhere.object.clone()
        }]
    );
    let again = Declaration {
        object: object("other", 2),
        ..elsewhere
    };
    assert_eq!(
        ledger.declare(epoch, NOW, vec![again.clone()]).await.unwrap(),
        [Declared::New]
    );
    let d = ledger.device_by_object(&again.object).await.unwrap().unwrap();
    assert!(d.enrolled(), "it comes back as it was");
}

pub(crate) async fn a_certificate_sent_but_not_proven_keeps_other_namespaces_out_while_it_is_valid(
    ledger: Arc<dyn Ledger>,
) {
    let epoch = begin(&*ledger, 1).await;
    let record = certificate(&identity(0), 1, 1);
    let mut d = device(&*ledger, 0).await;
    d.pending = Some(Credential::from(&record));
    ledger
        .write(
            epoch,
            Write {
                certificate: Some(record),
                ..Write::of(d, NOW)
            },
        )
        .await
        .unwrap();
    ledger.withdraw(epoch, NOW, &object("plant", 0)).await.unwrap();
    let other = vec![Declaration {
        object: object("other", 1),
        ..declaration(0)
    }];
    let refused = ledger.declare(epoch, NOW, other.clone()).await.unwrap();
    assert_eq!(
        refused,
        [Declared::Duplicate {
            holder: object("plant", 0)
        }]
    );
    let later = NOW + 2 * DAY_S * 1000;
    assert_eq!(ledger.declare(epoch, later, other).await.unwrap(), [Declared::New]);
}

pub(crate) async fn an_object_may_change_fleet_labels_and_permit(ledger: Arc<dyn Ledger>) {
    let epoch = begin(&*ledger, 1).await;
    let one = |d: Declaration| {
        let ledger = Arc::clone(&ledger);
        async move { ledger.declare(epoch, NOW, vec![d]).await.unwrap().remove(0) }
    };
    let mut d = declaration(0);
    d.fleet = "valves".to_owned();
    assert_eq!(one(d.clone()).await, Declared::Changed);
    d.labels.insert("site".to_owned(), "north".to_owned());
    assert_eq!(one(d.clone()).await, Declared::Changed);
    d.reenrol = Some("permit-1".to_owned());
    assert_eq!(one(d.clone()).await, Declared::Changed);
    assert_eq!(one(d.clone()).await, Declared::Unchanged);
    let stored = device(&*ledger, 0).await;
    assert_eq!(
        (stored.fleet.as_str(), stored.reenrol.as_deref()),
        ("valves", Some("permit-1"))
    );
    assert_eq!(stored.labels, d.labels);
    assert_eq!(ledger.counts(&fleet("pumps"), counting(NOW)).await.unwrap().total, 0);
    assert_eq!(ledger.counts(&fleet("valves"), counting(NOW)).await.unwrap().total, 1);

    // Used up, the same permit does not come back with the next declaration.
    change(&*ledger, epoch, 0, |s| s.reenrol_used = s.reenrol.take()).await;
    assert_eq!(one(d.clone()).await, Declared::Unchanged);
    d.reenrol = Some("permit-2".to_owned());
    assert_eq!(one(d.clone()).await, Declared::Changed);
    assert_eq!(device(&*ledger, 0).await.reenrol.as_deref(), Some("permit-2"));
    d.uid = "made anew".to_owned();
    assert_eq!(one(d.clone()).await, Declared::Changed);

    // The object was deleted and made anew for another device while nobody looked.
    d.identity = identity(5);
    assert_eq!(one(d.clone()).await, Declared::New);
    assert_eq!(
        ledger.device_by_object(&d.object).await.unwrap().unwrap().id,
        identity(5)
    );
    let objects = ledger.declared_objects(&broker(), None, 10).await.unwrap();
    assert_eq!(
        objects.iter().map(|o| o.identity.clone()).collect::<Vec<_>>(),
        [identity(5)]
    );
}

pub(crate) async fn withdrawing_cancels_what_waits_and_keeps_the_rest(ledger: Arc<dyn Ledger>) {
    let epoch = begin(&*ledger, 3).await;
    for n in 0..2 {
        enrol(&*ledger, epoch, n, 90).await;
    }
    change(&*ledger, epoch, 0, |d| d.job = Some(job(1, JobState::Queued))).await;
    change(&*ledger, epoch, 1, |d| d.job = Some(job(2, JobState::Issued))).await;
    for n in 0..3 {
        assert_eq!(
            ledger.withdraw(epoch, NOW + 1, &object("plant", n)).await.unwrap(),
            Some(identity(n))
        );
    }
    assert_eq!(
        ledger.withdraw(epoch, NOW + 1, &object("plant", 0)).await.unwrap(),
        None,
        "once"
    );

    let waited = device(&*ledger, 0).await;
    let ended = waited.job.unwrap();
    assert_eq!(
        (ended.state, ended.code, ended.since),
        (JobState::Cancelled, Some(Code::Cancelled), NOW + 1)
    );
    assert!(waited.current.is_some());
    assert_eq!(device(&*ledger, 1).await.job.unwrap().state, JobState::Issued);
    assert_eq!(
        ledger.in_flight(&fleet("pumps")).await.unwrap(),
        1,
        "it keeps its slot until it ends"
    );
    assert_eq!(
        ledger.counts(&fleet("pumps"), counting(NOW)).await.unwrap(),
        FleetCounts::default()
    );
    assert!(ledger.declared_objects(&broker(), None, 10).await.unwrap().is_empty());
    assert!(ledger.unprojected(&broker(), 10, NOW + 1000).await.unwrap().is_empty());
    assert_eq!(ledger.device_by_object(&object("plant", 0)).await.unwrap(), None);

    // One that falls back to waiting waits for nobody.
    let d = change(&*ledger, epoch, 1, |d| d.job.as_mut().unwrap().state = JobState::Queued).await;
    assert_eq!(d.job.unwrap().state, JobState::Cancelled);
    assert_eq!(ledger.in_flight(&fleet("pumps")).await.unwrap(), 0);
}

pub(crate) async fn declared_objects_come_in_pages(ledger: Arc<dyn Ledger>) {
    let epoch = begin(&*ledger, 5).await;
    let other = Declaration {
        object: object("annex", 9),
        ..declaration(9)
    };
    ledger.declare(epoch, NOW, vec![other]).await.unwrap();
    let mut seen: Vec<ObjectRef> = Vec::new();
    loop {
        let page = ledger.declared_objects(&broker(), seen.last(), 4).await.unwrap();
        if page.is_empty() {
            break;
        }
        seen.extend(page.into_iter().map(|o| o.object));
    }
    let mut expected: Vec<_> = (0..5).map(|n| object("plant", n)).collect();
    expected.insert(0, object("annex", 9));
    assert_eq!(seen, expected);
}

pub(crate) async fn objects_are_written_once_a_job_has_ended_or_a_change_has_aged(ledger: Arc<dyn Ledger>) {
    let epoch = begin(&*ledger, 2).await;
    let dirty = |before: i64| {
        let ledger = Arc::clone(&ledger);
        async move {
            let devices = ledger.unprojected(&broker(), 10, before).await.unwrap();
            devices.into_iter().map(|d| (d.id, d.revision)).collect::<Vec<_>>()
        }
    };
    assert_eq!(dirty(NOW).await, []);
    assert_eq!(
        dirty(NOW + 1).await,
        [(identity(0), 1), (identity(1), 1)],
        "as declared"
    );
    ledger.projected(epoch, dirty(NOW + 1).await).await.unwrap();
    assert_eq!(dirty(NOW + 1).await, []);

    let d = change(&*ledger, epoch, 0, |d| d.job = Some(job(1, JobState::Sent))).await;
    assert_eq!(dirty(NOW).await, [], "under way");
    let mut quiet = Write::of(device(&*ledger, 1).await, NOW);
    quiet.project = false;
    ledger.write(epoch, quiet).await.unwrap();
    assert_eq!(dirty(NOW + 1).await, [(identity(0), d.revision)]);
    let ended = change(&*ledger, epoch, 0, |d| {
        d.job.as_mut().unwrap().state = JobState::Confirmed;
    })
    .await;
    assert_eq!(dirty(NOW).await, [(identity(0), ended.revision)], "at once");
    ledger.projected(epoch, vec![(identity(0), d.revision)]).await.unwrap();
    assert_eq!(
        dirty(NOW).await,
        [(identity(0), ended.revision)],
        "an older revision does not do"
    );
    ledger
        .projected(epoch, vec![(identity(0), ended.revision)])
        .await
        .unwrap();
    ledger.projected(epoch, vec![(identity(0), d.revision)]).await.unwrap();
    assert_eq!(dirty(NOW + 1).await, []);
}

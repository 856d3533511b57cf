//! The suite: what follows a mark: lines of CRLs, what brokers have loaded, sessions that end.

use std::sync::Arc;

use certwave_core::revocation::Standing;
use certwave_ledger::{CertificateRecord, CrlLine, CrlLines, DoorLoad, Ledger, Mark, RevocationProgress};

use crate::fixtures::*;
use crate::revocations::{HOLD, RELEASE, REVOKE, key, mark, of, one, publish};

fn scope(record: &CertificateRecord) -> CrlLines {
    CrlLines {
        issuer: record.issuer.clone(),
        partition: Some("2027-02".to_owned()),
        ends_at_or_after: NOW_S,
        changed_after: None,
    }
}

async fn lines(ledger: &dyn Ledger, lines: &CrlLines) -> Vec<CrlLine> {
    let mut found: Vec<CrlLine> = Vec::new();
    loop {
        let after = found.last().map(|l| l.serial.clone());
        let page = ledger.crl_lines(lines, after.as_deref(), 2).await.unwrap();
        if page.is_empty() {
            return found;
        }
        found.extend(page);
    }
}

pub(crate) async fn crl_lines_come_by_scope_in_pages_and_deltas_tell_what_was_released(ledger: Arc<dyn Ledger>) {
    let ledger = &*ledger;
    let epoch = begin(ledger, 8).await;
    let mut records = Vec::new();
    for n in 0..6 {
        records.push(enrol(ledger, epoch, n, 30).await);
    }
    let later = enrol(ledger, epoch, 6, 60).await;
    let marks = (0..5).map(|n| mark(of(n), REVOKE)).chain([mark(of(6), HOLD)]).collect();
    ledger.mark(epoch, NOW, marks).await.unwrap();
    let scope = scope(&records[0]);
    let found = lines(ledger, &scope).await;
    let serials: Vec<_> = found.iter().map(|l| l.serial.as_str()).collect();
    assert_eq!(
        serials,
        records[..5].iter().map(|r| r.serial.as_str()).collect::<Vec<_>>()
    );
    assert_eq!(found[0].invalid_since, Some(NOW_S - 60));
    let full = CrlLines {
        partition: None,
        ..scope.clone()
    };
    assert_eq!(lines(ledger, &full).await.len(), 6);
    let ended = CrlLines {
        ends_at_or_after: records[0].not_after + 1,
        ..full.clone()
    };
    assert_eq!(lines(ledger, &ended).await.len(), 1);

    let base = ledger.last_change().await.unwrap();
    let delta = CrlLines {
        changed_after: Some(base),
        ..full
    };
    assert_eq!(lines(ledger, &delta).await, []);
    one(ledger, epoch, NOW + 5000, mark(of(6), RELEASE)).await;
    one(ledger, epoch, NOW + 6000, mark(of(5), HOLD)).await;
    let changed = lines(ledger, &delta).await;
    let told: Vec<_> = changed.iter().map(|l| (l.standing, l.released_at)).collect();
    assert_eq!(
        told,
        [
            (Standing::Held { since: NOW_S + 6 }, None),
            (Standing::Good, Some(NOW_S + 5))
        ]
    );
    assert_eq!(changed[1].serial, later.serial);
    let seen = ledger.changes(base, 9).await.unwrap();
    assert_eq!(seen.iter().map(|c| c.change).collect::<Vec<_>>(), [base + 1, base + 2]);
    assert_eq!(seen[1].key, key(&records[5]));
}

pub(crate) async fn a_mark_is_followed_into_its_crl_through_the_door_to_the_end_of_the_session(
    ledger: Arc<dyn Ledger>,
) {
    let ledger = &*ledger;
    let epoch = begin(ledger, 2).await;
    let record = enrol(ledger, epoch, 0, 30).await;
    let (issuer, partition) = (record.issuer.clone(), "2027-02");
    publish(ledger, epoch, partition, 5, NOW).await;
    publish(ledger, epoch, "full", 3, NOW).await;
    assert_eq!(ledger.crls_behind().await.unwrap(), []);
    let named = Mark {
        revocation: Some("object".to_owned()),
        ..mark(of(0), REVOKE)
    };
    one(ledger, epoch, NOW, named).await;
    let change = ledger.last_change().await.unwrap();
    let behind = [
        (issuer.clone(), partition.to_owned()),
        (issuer.clone(), "full".to_owned()),
    ];
    assert_eq!(ledger.crls_behind().await.unwrap(), behind);
    let progress = async || ledger.revocation_progress("object").await.unwrap();
    let mut expected = RevocationProgress {
        recorded: 1,
        ..RevocationProgress::default()
    };
    assert_eq!(progress().await, expected);
    // Its session must be closed, and that is known before the door is shut.
    let broker = identity(0).broker;
    let open = ledger.open_sessions(&broker, 9).await.unwrap();
    assert_eq!((open.len(), open[0].change, open[0].shut), (1, change, false));

    publish(ledger, epoch, partition, 6, NOW + 1000).await;
    assert_eq!(ledger.crls_behind().await.unwrap(), behind[1..]);
    let covers = ledger.crl_covers(&issuer, partition, 9).await.unwrap();
    assert_eq!(
        covers.iter().map(|c| (c.number, c.covers)).collect::<Vec<_>>(),
        [(6, change), (5, 0)]
    );
    expected.in_crl = 1;
    assert_eq!(progress().await, expected);
    let load = |node: &str, number, at| DoorLoad {
        broker: broker.clone(),
        node: node.to_owned(),
        issuer: issuer.clone(),
        partition: partition.to_owned(),
        number,
        at,
    };
    let nodes = ["a".to_owned(), "b".to_owned()];
    ledger
        .doors_loaded(epoch, vec![load("a", 6, NOW + 2000), load("b", 5, NOW + 2000)], &nodes)
        .await
        .unwrap();
    assert_eq!(progress().await, expected, "one node has not loaded it");
    ledger
        .doors_loaded(epoch, vec![load("b", 4, NOW + 2500)], &nodes)
        .await
        .unwrap();
    ledger
        .doors_loaded(epoch, vec![load("b", 7, NOW + 3000)], &nodes)
        .await
        .unwrap();
    expected.shut = 1;
    assert_eq!(progress().await, expected);
    let numbers: Vec<_> = ledger
        .door_loads(&broker)
        .await
        .unwrap()
        .into_iter()
        .map(|l| (l.node, l.number))
        .collect();
    assert_eq!(numbers, [("a".to_owned(), 6), ("b".to_owned(), 7)]);
    let since = ledger.loaded_since(&broker, &issuer, partition, change).await.unwrap();
    assert_eq!(since, [("a".to_owned(), NOW + 2000), ("b".to_owned(), NOW + 3000)]);

    assert!(ledger.open_sessions(&broker, 9).await.unwrap()[0].shut);
    ledger
        .sessions_closed(epoch, NOW + 4000, vec![(identity(0), change)])
        .await
        .unwrap();
    assert_eq!(ledger.open_sessions(&broker, 9).await.unwrap(), []);
    expected.closed = 1;
    assert_eq!(progress().await, expected);
    let marked = ledger.marked(&identity(0), 9).await.unwrap().remove(0);
    assert_eq!(marked.crl, Some((6, NOW + 1000)));
    assert_eq!((marked.shut_at, marked.closed_at), (Some(NOW + 3000), Some(NOW + 4000)));
    let shown: Vec<_> = ledger
        .unprojected(&broker, 9, NOW + 5000)
        .await
        .unwrap()
        .into_iter()
        .map(|d| d.id)
        .collect();
    assert!(shown.contains(&identity(0)));
}

pub(crate) async fn a_crl_of_all_that_was_issued_shuts_the_door_too(ledger: Arc<dyn Ledger>) {
    let ledger = &*ledger;
    let epoch = begin(ledger, 1).await;
    let record = enrol(ledger, epoch, 0, 30).await;
    one(ledger, epoch, NOW, mark(of(0), REVOKE)).await;
    publish(ledger, epoch, "full", 3, NOW).await;
    let load = DoorLoad {
        broker: identity(0).broker,
        node: "a".to_owned(),
        issuer: record.issuer.clone(),
        partition: "full".to_owned(),
        number: 3,
        at: NOW + 1,
    };
    ledger.doors_loaded(epoch, vec![load.clone()], &[]).await.unwrap();
    let marked = async || ledger.marked_certificate(&key(&record)).await.unwrap().unwrap();
    assert_eq!(
        marked().await.shut_at,
        None,
        "a broker without nodes has loaded nothing"
    );
    ledger.doors_loaded(epoch, vec![load], &["a".to_owned()]).await.unwrap();
    assert_eq!(marked().await.shut_at, Some(NOW + 1));
    let since = ledger
        .loaded_since(&identity(0).broker, &record.issuer, "2027-02", 1)
        .await
        .unwrap();
    assert_eq!(since, [("a".to_owned(), NOW + 1)]);
}

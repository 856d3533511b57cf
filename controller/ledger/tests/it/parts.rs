//! The suite: parts of the work, each with epochs of its own.

use std::sync::Arc;

use certwave_core::model::Identity;
use certwave_ledger::{Declaration, Declared, Ledger, LedgerError, Part, Target, Write};
use certwave_protocol::ids::{BrokerId, Epoch};

use crate::fixtures::*;
use crate::revocations::{HOLD, mark, one};
use crate::staged::place;

fn other() -> BrokerId {
    "other".parse().unwrap()
}

/// Device `n` of the other broker, in a fleet of its own.
fn elsewhere(n: u32) -> Declaration {
    Declaration {
        identity: Identity {
            broker: other(),
            ..identity(n)
        },
        object: object("plant", 1000 + n),
        fleet: "valves".to_owned(),
        ..declaration(n)
    }
}

/// Terms of both brokers, with a device each.
async fn both(ledger: &dyn Ledger) -> (Epoch, Epoch) {
    let one = ledger.begin_term(&Part::Broker(broker()), "a", NOW).await.unwrap();
    let two = ledger.begin_term(&Part::Broker(other()), "b", NOW).await.unwrap();
    ledger.declare(one, NOW, vec![declaration(0)]).await.unwrap();
    ledger.declare(two, NOW, vec![elsewhere(0)]).await.unwrap();
    (one, two)
}

fn is_invalid<T: std::fmt::Debug>(result: Result<T, LedgerError>) {
    let result = result.map(drop);
    assert!(matches!(result, Err(LedgerError::Invalid(_))), "{result:?}");
}

fn is_stale<T: std::fmt::Debug>(result: Result<T, LedgerError>) {
    let result = result.map(drop);
    assert!(matches!(result, Err(LedgerError::StaleEpoch { .. })), "{result:?}");
}

pub(crate) async fn holders_of_different_parts_do_not_disturb_each_other(ledger: Arc<dyn Ledger>) {
    let ledger = &*ledger;
    let controller = ledger.take_epoch("a", NOW).await.unwrap();
    let (one_, two) = both(ledger).await;
    assert!(controller < one_ && one_ < two, "one sequence");
    assert_eq!(ledger.epoch().await.unwrap(), two);
    for epoch in [controller, one_, two] {
        assert!(ledger.is_present(epoch).await.unwrap());
        ledger
            .append_audit(epoch, vec![audit(&identity(0), NOW, "x")])
            .await
            .unwrap();
    }
    let d = device(ledger, 0).await;
    ledger.write(one_, Write::of(d, NOW)).await.unwrap();
    // The controller's part is about everybody's certificates.
    let record = enrol(ledger, one_, 0, 30).await;
    assert_eq!(
        one(
            ledger,
            controller,
            NOW,
            mark(Target::Certificate(record.fingerprint), HOLD)
        )
        .await,
        1
    );
    ledger.verify_audit().await.unwrap();
}

pub(crate) async fn a_second_holder_of_a_part_fences_the_first(ledger: Arc<dyn Ledger>) {
    let ledger = &*ledger;
    let (first, two) = both(ledger).await;
    let again = ledger.begin_term(&Part::Broker(broker()), "c", NOW).await.unwrap();
    let d = device(ledger, 0).await;
    assert_eq!(
        ledger.write(first, Write::of(d.clone(), NOW)).await,
        Err(LedgerError::StaleEpoch {
            given: first,
            present: again
        })
    );
    assert!(!ledger.is_present(first).await.unwrap());
    assert!(ledger.is_present(two).await.unwrap(), "another part's");
    assert!(!ledger.is_present(again + 1).await.unwrap(), "nobody's");
    ledger.write(again, Write::of(d, NOW)).await.unwrap();
}

pub(crate) async fn a_restored_ledger_ends_the_terms_of_all_parts(ledger: Arc<dyn Ledger>) {
    let ledger = &*ledger;
    let controller = ledger.take_epoch("a", NOW).await.unwrap();
    let (one, two) = both(ledger).await;
    is_stale(ledger.mark_restored(one, NOW).await);
    ledger.mark_restored(two, NOW).await.unwrap();
    for epoch in [controller, one, two] {
        assert!(!ledger.is_present(epoch).await.unwrap());
        is_stale(ledger.append_audit(epoch, vec![audit(&identity(0), NOW, "x")]).await);
    }
    let present = ledger.epoch().await.unwrap();
    let again = ledger.begin_term(&Part::Broker(broker()), "a", NOW).await.unwrap();
    assert!(again > present && present > two);
    assert!(ledger.is_present(again).await.unwrap());
}

pub(crate) async fn a_brokers_holder_changes_nothing_of_another_broker(ledger: Arc<dyn Ledger>) {
    let ledger = &*ledger;
    let (one, two) = both(ledger).await;
    let record = enrol(ledger, one, 0, 30).await;
    let d = device(ledger, 0).await;
    let row = ledger.candidates(&fleet("pumps"), NOW, None, 9).await.unwrap()[0].row;
    ledger
        .begin_rotation(one, rotation("r"), vec![place(row, 0, 0)])
        .await
        .unwrap();

    is_invalid(ledger.declare(two, NOW, vec![declaration(1)]).await);
    assert_eq!(ledger.withdraw(two, NOW, &object("plant", 0)).await.unwrap(), None);
    is_invalid(ledger.write(two, Write::of(d.clone(), NOW)).await);
    is_invalid(ledger.projected(two, vec![(identity(0), 1)]).await);
    is_invalid(
        ledger
            .mark(two, NOW, vec![mark(Target::Certificate(record.fingerprint), HOLD)])
            .await,
    );
    is_invalid(ledger.upsert_claim(two, claim("line", None)).await);
    is_invalid(ledger.sessions_closed(two, NOW, vec![(identity(0), 1)]).await);
    is_invalid(ledger.record(two, certificate(&identity(0), 9, 30)).await);
    is_invalid(ledger.skip_expired(two, "r", NOW).await);
    is_invalid(
        ledger
            .end_rotation(two, "r", certwave_ledger::RotationOutcome::Failed, NOW)
            .await,
    );
    is_invalid(ledger.begin_rotation(two, rotation("s"), vec![place(row, 0, 0)]).await);
    assert_eq!(device(ledger, 0).await, d, "nothing changed");
    assert!(ledger.rotation("s").await.unwrap().is_none());
    assert!(ledger.rotation("r").await.unwrap().unwrap().ended.is_none());
    assert!(ledger.marked(&identity(0), 9).await.unwrap().is_empty());

    // Each is asked for its own.
    let objects = |found: Vec<certwave_ledger::DeclaredObject>| found.into_iter().map(|o| o.object).collect::<Vec<_>>();
    let found = ledger.declared_objects(&other(), None, 9).await.unwrap();
    assert_eq!(objects(found), [elsewhere(0).object]);
    let found = ledger.unprojected(&other(), 9, NOW + 9000).await.unwrap();
    assert_eq!(
        found.into_iter().map(|d| d.id).collect::<Vec<_>>(),
        [elsewhere(0).identity]
    );
}

pub(crate) async fn an_object_that_moves_to_another_broker_is_let_go_by_the_holder_of_the_one_before(
    ledger: Arc<dyn Ledger>,
) {
    let ledger = &*ledger;
    let (one, two) = both(ledger).await;
    let moved = Declaration {
        object: object("plant", 0),
        ..elsewhere(5)
    };
    let new = elsewhere(6);
    let answers = ledger.declare(two, NOW, vec![moved.clone(), new]).await.unwrap();
    assert_eq!(
        answers,
        [Declared::Elsewhere { broker: broker() }, Declared::New],
        "and it holds up nobody"
    );
    assert_eq!(ledger.device(&moved.identity).await.unwrap(), None);
    assert_eq!(
        ledger.withdraw(one, NOW, &moved.object).await.unwrap(),
        Some(identity(0))
    );
    assert_eq!(ledger.declare(two, NOW, vec![moved]).await.unwrap(), [Declared::New]);
}

//! No stampede: devices are put to the test no faster than the strategy says.

use rusqlite::params;
use serde_json::json;

use super::world::{Retiring, revoking};
use crate::faults::history::History;
use crate::rollout::world::fleet;

/// When certificates went on hold, Unix milliseconds.
fn holds(history: &History) -> Vec<i64> {
    let mut get = history
        .0
        .prepare("SELECT at FROM audit WHERE detail LIKE ?1 ORDER BY at")
        .unwrap();
    let rows = get.query_map(params!["%retirement: until%"], |row| row.get(0));
    rows.unwrap().collect::<rusqlite::Result<_>>().unwrap()
}

#[tokio::test]
async fn no_more_certificates_go_on_hold_within_a_second_than_devices_may_reconnect() {
    let mut world = Retiring::new("pace").await;
    world.enrol("m", &fleet(12, 1, &["north"]), &[]).await;
    let limits = json!({ "limits": { "maxInFlight": 12, "maxPerMinute": 100_000 } });
    world.rotate("run", &revoking(&limits, &json!({ "reconnectsPerSecond": 2 })));
    world.when("all ends", |history| history.staged("Revoked") == 12).await;
    let holds = holds(&world.history());
    assert_eq!(holds.len(), 12);
    for (first, at) in holds.iter().enumerate() {
        let within = holds[first..].iter().take_while(|other| **other < at + 1_000).count();
        assert!(within <= 4, "{within} within a second of {at}: {holds:?}");
    }
}

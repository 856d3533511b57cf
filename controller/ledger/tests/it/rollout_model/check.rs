//! Whether the ledger and the model agree, and the ledger with itself.

use certwave_ledger::{Candidate, DueQuery, Ledger, MemberOutcome, MemberQuery};

use super::DEVICES;
use super::plain::{Model, Place};
use crate::fixtures::*;

/// They do.
pub(super) async fn compare(ledger: &dyn Ledger, model: &Model) {
    for n in 0..DEVICES {
        assert_eq!(ledger.member("r", &identity(n)).await.unwrap(), model.member(n));
    }
    assert_eq!(ledger.wave_counts("r").await.unwrap(), model.counts());
    assert_eq!(ledger.groups_in_use("r").await.unwrap(), model.groups_in_use());
    for (windows, wave, full, from) in [
        (u64::MAX, 9, "a", (0, 0)),
        (u64::MAX, 9, "none", (1, 2)),
        (1, 9, "none", (0, 1)),
        (2, 1, "b", (0, 0)),
        (0, 9, "none", (1, 0)),
    ] {
        let query = MemberQuery {
            now: model.now,
            through_wave: wave,
            windows,
            override_before_s: Some(model.now / 1000 + 2 * DAY_S),
            full_groups: vec![full.to_owned()],
            from,
            limit: 4,
        };
        assert_eq!(
            ledger.waiting_members("r", &query).await.unwrap(),
            model.waiting(&query)
        );
    }
    let mut back: Vec<_> = (0..DEVICES)
        .filter(|n| {
            let d = &model.devices[*n as usize];
            let may = d.declared && !d.open() && d.not_before.is_none_or(|t| t <= model.now);
            let waits = |p: &Place| p.outcome == MemberOutcome::Reverting && !d.is_back(p);
            may && model.members.get(n).is_some_and(waits)
        })
        .filter_map(|n| model.member(n))
        .collect();
    back.sort_by_key(|m| (m.wave, m.ordinal));
    let back: Vec<_> = back.into_iter().map(|m| m.identity).collect();
    assert_eq!(ledger.reverting("r", model.now, 99).await.unwrap(), back);
    let left: u32 = ledger.remaining("r").await.unwrap().iter().map(|(_, n)| n).sum();
    assert_eq!(left as usize, model.left().len());
    let pumps = fleet("pumps");
    let ended = model.ended.then(|| object("plant", 1));
    assert_eq!(ledger.last_rotation(&pumps).await.unwrap(), ended);
    let told = |c: Candidate| (c.device, c.failed, c.renewed);
    let candidates = model.candidates();
    let found = ledger.candidates(&pumps, model.now, None, 99).await.unwrap();
    let of = |n: &u32, renewed| (identity(*n).device, model.devices[*n as usize].failed(), renewed);
    assert_eq!(
        found.into_iter().map(told).collect::<Vec<_>>(),
        candidates.iter().map(|n| of(n, false)).collect::<Vec<_>>()
    );
    let strangers = candidates.iter().filter(|n| !model.members.contains_key(n));
    let found = ledger.strangers("r", model.now, None, 99).await.unwrap();
    assert_eq!(
        found.into_iter().map(told).collect::<Vec<_>>(),
        strangers
            .map(|n| of(n, model.devices[*n as usize].current.number > 0))
            .collect::<Vec<_>>()
    );
    let query = DueQuery {
        now: model.now,
        expires_before_s: model.now / 1000 + 20 * DAY_S,
        failed_before_s: model.now / 1000 + 4 * DAY_S,
        limit: 99,
    };
    assert_eq!(ledger.due(&pumps, &query).await.unwrap(), model.due(&query));
}

/// The tallies and buckets are what the members say, by what `ask` answers to SQL.
pub(super) fn recount(ask: impl Fn(&str) -> i64) {
    for sql in [
        "SELECT count(*) FROM (SELECT rotation, wave, outcome, n FROM tallies WHERE n <> 0
             EXCEPT SELECT rotation, wave, outcome, count(*) FROM members GROUP BY rotation, wave, outcome) AS t",
        "SELECT count(*) FROM (SELECT rotation, wave, outcome, count(*) FROM members GROUP BY rotation, wave, outcome
             EXCEPT SELECT rotation, wave, outcome, n FROM tallies) AS t",
        "SELECT count(*) FROM buckets b WHERE planned <>
             (SELECT count(*) FROM members m WHERE m.bucket = b.id AND m.outcome = 'Planned')",
        "SELECT count(*) FROM members m JOIN buckets b ON b.id = m.bucket
             WHERE b.rotation <> m.rotation OR b.wave <> m.wave",
    ] {
        assert_eq!(ask(sql), 0, "{sql}");
    }
}

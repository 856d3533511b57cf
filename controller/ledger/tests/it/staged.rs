//! Staged rotation: its beginning, whose turn it is, and its steps; for every database behind the trait.

use std::sync::Arc;

use certwave_core::model::{JobKind, JobState};
use certwave_core::rollout::run::{Run, WaveCounts};
use certwave_core::rollout::strategy::{Strategy, Wave};
use certwave_ledger::{
    Candidate, Declaration, DeviceRow, Ledger, LedgerError, MemberOutcome, MemberQuery, NewMember, RotationOutcome,
    RotationRecord, RunWrite, TemplateBlock, TemplateChange,
};
use certwave_protocol::ids::Epoch;

use crate::fixtures::*;

pub(crate) async fn candidates(ledger: &dyn Ledger) -> Vec<Candidate> {
    ledger.candidates(&fleet("pumps"), NOW, None, 10_000).await.unwrap()
}

pub(crate) fn place(row: DeviceRow, wave: u32, ordinal: u32) -> NewMember {
    NewMember {
        row,
        wave,
        ordinal,
        group: String::new(),
        windows: u64::MAX,
    }
}

/// Enrols a device for each entry, which is its wave, and begins Rotation `r` with them in this order.
pub(crate) async fn staged(ledger: &dyn Ledger, waves: &[u32]) -> Epoch {
    let count = u32::try_from(waves.len()).unwrap();
    let epoch = begin(ledger, count).await;
    for n in 0..count {
        enrol(ledger, epoch, n, 9).await;
    }
    let members = candidates(ledger).await.into_iter().zip(waves).zip(0..);
    let members = members
        .map(|((c, wave), ordinal)| place(c.row, *wave, ordinal))
        .collect();
    assert_eq!(
        ledger.begin_rotation(epoch, rotation("r"), members).await.unwrap(),
        count
    );
    epoch
}

/// Everybody who may start at `now`.
pub(crate) fn anybody(now: i64) -> MemberQuery {
    MemberQuery {
        now,
        through_wave: u32::MAX,
        windows: u64::MAX,
        override_before_s: None,
        full_groups: Vec::new(),
        from: (0, 0),
        limit: 100,
    }
}

pub(crate) async fn waiting(ledger: &dyn Ledger, query: &MemberQuery) -> Vec<u32> {
    let members = ledger.waiting_members("r", query).await.unwrap();
    assert!(members.iter().all(|m| m.outcome == MemberOutcome::Planned));
    members.into_iter().map(|m| m.ordinal).collect()
}

pub(crate) async fn outcome(ledger: &dyn Ledger, n: u32) -> MemberOutcome {
    ledger.member("r", &identity(n)).await.unwrap().unwrap().outcome
}

pub(crate) async fn counts(ledger: &dyn Ledger, wave: usize) -> WaveCounts {
    ledger.wave_counts("r").await.unwrap()[wave]
}

/// Gives device `n` job number `id` of Rotation `r` in this state, or moves it there.
pub(crate) async fn job_to(ledger: &dyn Ledger, epoch: Epoch, n: u32, id: u64, kind: JobKind, state: JobState) {
    change(ledger, epoch, n, |d| {
        let mut j = job(id, state);
        (j.kind, j.rotation) = (kind, Some("r".to_owned()));
        d.job = Some(j);
    })
    .await;
}

pub(crate) async fn rotate(ledger: &dyn Ledger, epoch: Epoch, n: u32, id: u64, state: JobState) {
    job_to(ledger, epoch, n, id, JobKind::Rotate, state).await;
}

pub(crate) async fn step(ledger: &dyn Ledger, epoch: Epoch, write: RunWrite) {
    ledger.write_run(epoch, "r", NOW + 1, write).await.unwrap();
}

pub(crate) async fn candidates_are_declared_enrolled_and_alive(ledger: Arc<dyn Ledger>) {
    let epoch = begin(&*ledger, 6).await;
    for (n, days) in [(0, 9), (1, -1), (2, 5), (4, 7), (5, 7)] {
        enrol(&*ledger, epoch, n, days).await;
    }
    ledger.withdraw(epoch, NOW, &object("plant", 4)).await.unwrap();
    let all = candidates(&*ledger).await;
    let found: Vec<_> = all.iter().map(|c| c.device.clone()).collect();
    assert_eq!(found, [0, 2, 5].map(|n| identity(n).device));
    let first = &all[0];
    assert_eq!((first.not_after, first.renewed), (NOW_S + 9 * DAY_S, false));
    assert_eq!(first.issuer, "aa".repeat(20));
    assert_eq!(first.labels["ring"], "0");
    let fleet = fleet("pumps");
    let page = ledger.candidates(&fleet, NOW, Some(first.row), 1).await.unwrap();
    assert_eq!(page, all[1..2]);
    let rest = ledger.candidates(&fleet, NOW, Some(all[2].row), 9).await.unwrap();
    assert!(rest.is_empty());
    let later = NOW + 6 * DAY_S * 1000;
    assert_eq!(ledger.candidates(&fleet, later, None, 9).await.unwrap().len(), 2);
    let nobody = crate::fixtures::fleet("unheard-of");
    assert!(ledger.candidates(&nobody, NOW, None, 9).await.unwrap().is_empty());
}

pub(crate) async fn a_rotation_begins_once_with_its_members_in_waves(ledger: Arc<dyn Ledger>) {
    let epoch = begin(&*ledger, 5).await;
    for n in 0..5 {
        enrol(&*ledger, epoch, n, if n == 4 { 1 } else { 9 }).await;
    }
    let rows: Vec<_> = candidates(&*ledger).await.iter().map(|c| c.row).collect();
    // Between planning and beginning one leaves, one moves, and one expires.
    ledger.withdraw(epoch, NOW, &object("plant", 2)).await.unwrap();
    let moved = Declaration {
        fleet: "valves".to_owned(),
        ..declaration(3)
    };
    ledger.declare(epoch, NOW, vec![moved]).await.unwrap();
    let mut record = RotationRecord {
        started: NOW + 2 * DAY_S * 1000,
        ..rotation("r")
    };
    record.strategy = Strategy {
        waves: vec![Wave::percent("one", 50, 7), Wave::percent("two", 100, 0)],
        emergency: true,
        ..Strategy::default()
    };
    record.plan = plan(&[3, 2]);
    let members: Vec<_> = rows.iter().zip(0..).map(|(row, n)| place(*row, n / 3, n)).collect();

    let mut unknown = members.clone();
    unknown[4].row = DeviceRow(4711);
    let refused = ledger.begin_rotation(epoch, record.clone(), unknown).await;
    assert_eq!(refused, Err(LedgerError::NotFound("such device")));
    assert_eq!(ledger.rotation("r").await.unwrap(), None);

    assert_eq!(
        ledger
            .begin_rotation(epoch, record.clone(), members.clone())
            .await
            .unwrap(),
        5
    );
    let again = RotationRecord {
        plan: plan(&[1]),
        ..record.clone()
    };
    assert_eq!(ledger.begin_rotation(epoch, again, Vec::new()).await.unwrap(), 5);
    let stored = ledger.rotation("r").await.unwrap().unwrap();
    assert_eq!((&stored.record, stored.members), (&record, 5));
    assert_eq!((stored.run, stored.ended), (Run::default(), None));
    let changed = record.started;
    let expected = [(3, 2, 1), (2, 0, 2)].map(|(members, planned, skipped)| WaveCounts {
        members,
        planned,
        skipped,
        changed,
        ..WaveCounts::default()
    });
    assert_eq!(ledger.wave_counts("r").await.unwrap(), expected);
    assert!(ledger.wave_counts("unknown").await.unwrap().is_empty());
    assert_eq!(ledger.member("r", &identity(9)).await.unwrap(), None);
    assert_eq!(waiting(&*ledger, &anybody(changed)).await, [0, 1]);
}

/// What a query is changed to, and the ordinals that it finds.
type Case<'a> = (&'a dyn Fn(&mut MemberQuery), &'a [u32]);

pub(crate) async fn waiting_members_come_in_order_within_waves_windows_and_groups(ledger: Arc<dyn Ledger>) {
    let epoch = begin(&*ledger, 6).await;
    for n in 0..6 {
        enrol(&*ledger, epoch, n, if n == 3 { 2 } else { 9 }).await;
    }
    // Against the rows' order, two waves, a group for every second, and windows 0, 1 and none.
    let members = candidates(&*ledger)
        .await
        .into_iter()
        .zip(0u32..)
        .map(|(c, n)| NewMember {
            group: ["odd", "even"][n as usize % 2].to_owned(),
            windows: [1, 2, 0][n as usize % 3],
            ..place(c.row, u32::from(n < 3), 5 - n)
        });
    ledger
        .begin_rotation(epoch, rotation("r"), members.collect())
        .await
        .unwrap();
    let all = anybody(NOW);
    assert_eq!(waiting(&*ledger, &all).await, [0, 1, 2, 3, 4, 5]);
    let m = ledger.member("r", &identity(1)).await.unwrap().unwrap();
    assert_eq!((m.wave, m.ordinal, m.group.as_str(), m.windows), (1, 4, "even", 2));
    assert_eq!((m.not_after, m.outcome), (NOW_S + 9 * DAY_S, MemberOutcome::Planned));

    let with = |how: &dyn Fn(&mut MemberQuery)| {
        let mut query = anybody(NOW);
        how(&mut query);
        query
    };
    let cases: [Case<'_>; 11] = [
        (&|q| q.limit = 2, &[0, 1]),
        (&|q| (q.from, q.limit) = ((0, 2), 2), &[2, 3]),
        (&|q| (q.from, q.windows) = ((1, 4), 3), &[4, 5]),
        (&|q| q.from = (1, 6), &[]),
        (&|q| q.through_wave = 0, &[0, 1, 2]),
        (
            &|q| q.full_groups = vec!["odd".to_owned(), "other".to_owned()],
            &[0, 2, 4],
        ),
        (&|q| q.windows = 1, &[2, 5]),
        (&|q| q.windows = 3, &[1, 2, 4, 5]),
        (&|q| q.windows = 0, &[]),
        (
            &|q| (q.windows, q.override_before_s) = (2, Some(NOW_S + 3 * DAY_S)),
            &[1, 2, 4],
        ),
        (
            &|q| {
                (q.windows, q.override_before_s) = (0, Some(NOW_S + 3 * DAY_S));
                q.full_groups = vec!["even".to_owned()];
            },
            &[],
        ),
    ];
    for (how, expected) in cases {
        let query = with(how);
        assert_eq!(waiting(&*ledger, &query).await, expected, "{query:?}");
    }
    // Who has a job, a pause, or no life left waits.
    change(&*ledger, epoch, 5, |d| d.job = Some(job(4, JobState::Queued))).await;
    change(&*ledger, epoch, 4, |d| d.not_before = Some(NOW + 1)).await;
    assert_eq!(waiting(&*ledger, &all).await, [2, 3, 4, 5]);
    assert_eq!(waiting(&*ledger, &anybody(NOW + 3 * DAY_S * 1000)).await, [1, 3, 4, 5]);
    assert_eq!(counts(&*ledger, 0).await.offline, 1, "another job waits for it");
}

/// Enrols many devices at the speed of grouped commits.
async fn enrol_many(ledger: &Arc<dyn Ledger>, epoch: Epoch, count: u32) {
    let tasks = (0..count).map(|n| {
        let ledger = Arc::clone(ledger);
        tokio::spawn(async move {
            enrol(&*ledger, epoch, n, 5 + i64::from(n % 7)).await;
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
}

pub(crate) async fn waiting_members_are_found_behind_any_number_that_may_not_start(ledger: Arc<dyn Ledger>) {
    const COUNT: u32 = 2600;
    let epoch = begin(&*ledger, COUNT).await;
    enrol_many(&ledger, epoch, COUNT).await;
    // A great site first, then one of 200 devices, then small ones.
    let site = |n: u32| match n {
        0..1500 => 0,
        1500..1700 => 1,
        _ => n / 10,
    };
    let members: Vec<_> = candidates(&*ledger)
        .await
        .into_iter()
        .zip(0..)
        .map(|(c, n)| NewMember {
            group: format!("site-{}", site(n)),
            windows: 1 << (site(n) % 3),
            ..place(c.row, u32::from(n >= 2000), n)
        })
        .collect();
    ledger
        .begin_rotation(epoch, rotation("r"), members.clone())
        .await
        .unwrap();
    change(&*ledger, epoch, 1705, |d| d.not_before = Some(NOW + 1)).await;
    let many_full: Vec<_> = (170..250).map(|s| format!("site-{s}")).collect();
    let big_full = vec!["site-0".to_owned(), "site-1".to_owned()];
    let all_full: Vec<_> = (0..300).map(|s| format!("site-{s}")).collect();
    for full in [Vec::new(), many_full, big_full, vec!["site-0".to_owned()], all_full] {
        for (windows, through_wave, limit, from) in [
            (u64::MAX, 1, 20, (0, 0)),
            (1, 1, 20, (0, 0)),
            (1, 1, 20, (0, 1801)),
            (6, 0, 400, (0, 0)),
            (4, 1, 2, (0, 0)),
            (4, 1, 2, (1, 2002)),
            (u64::MAX, 0, 700, (0, 0)),
            (u64::MAX, 1, 700, (0, 1990)),
        ] {
            let query = MemberQuery {
                windows,
                through_wave,
                limit,
                full_groups: full.clone(),
                from,
                ..anybody(NOW)
            };
            let expected: Vec<_> = members
                .iter()
                .filter(|m| m.windows & windows != 0 && m.wave <= through_wave && !full.contains(&m.group))
                .filter(|m| (m.wave, m.ordinal) >= from)
                .map(|m| m.ordinal)
                .filter(|n| *n != 1705)
                .take(limit as usize)
                .collect();
            assert_eq!(
                waiting(&*ledger, &query).await,
                expected,
                "windows {windows}, {} full",
                full.len()
            );
        }
    }
}

pub(crate) async fn a_step_of_a_run_is_stored_whole_and_none_after_the_end(ledger: Arc<dyn Ledger>) {
    let epoch = staged(&*ledger, &[0, 1]).await;
    ledger
        .declare(epoch, NOW, vec![declaration(2), declaration(3)])
        .await
        .unwrap();
    enrol(&*ledger, epoch, 2, 9).await;
    let strangers = ledger.strangers("r", NOW, None, 9).await.unwrap();
    assert_eq!(strangers.len(), 1);
    assert_eq!(strangers[0].device, identity(2).device);
    assert!(strangers[0].renewed, "its certificate was issued since");
    let run = Run {
        wave: 1,
        wave_since: NOW,
        approved: 1,
        ..Run::default()
    };
    let join = RunWrite {
        plan: Some(plan(&[1, 2])),
        join: vec![place(strangers[0].row, 1, 2)],
        template: Some(TemplateChange::Block {
            template: "t1".to_owned(),
        }),
        audit: vec![audit(&identity(2), NOW, "joined")],
        ..RunWrite::of(run.clone())
    };
    let mut unknown = join.clone();
    unknown.join.push(place(DeviceRow(4711), 1, 3));
    let before = ledger.rotation("r").await.unwrap();
    let refused = ledger.write_run(epoch, "r", NOW, unknown).await;
    assert_eq!(refused, Err(LedgerError::NotFound("such device")));
    assert_eq!(ledger.rotation("r").await.unwrap(), before);
    assert_eq!(ledger.template_block(&fleet("pumps")).await.unwrap(), None);
    let stale = ledger.write_run(epoch - 1, "r", NOW, join.clone()).await;
    assert_eq!(stale.unwrap_err().category(), "stale-epoch");

    for members in [3, 3] {
        step(&*ledger, epoch, join.clone()).await;
        let stored = ledger.rotation("r").await.unwrap().unwrap();
        assert_eq!((stored.members, &stored.run), (members, &run));
        assert_eq!(stored.record.plan, plan(&[1, 2]));
        assert_eq!(counts(&*ledger, 1).await.planned, 2);
    }
    assert!(ledger.strangers("r", NOW, None, 9).await.unwrap().is_empty());
    assert_eq!(ledger.audit(&identity(2), 9).await.unwrap().len(), 2);
    let block = TemplateBlock {
        template: "t1".to_owned(),
        rotation: object("plant", 1),
        late: false,
        at: NOW + 1,
    };
    assert_eq!(ledger.template_block(&fleet("pumps")).await.unwrap(), Some(block));

    let end = RunWrite {
        end: Some(RotationOutcome::Failed),
        template: Some(TemplateChange::Clear),
        ..RunWrite::of(run.clone())
    };
    step(&*ledger, epoch, end.clone()).await;
    assert_eq!(ledger.template_block(&fleet("pumps")).await.unwrap(), None);
    let stored = ledger.rotation("r").await.unwrap().unwrap();
    assert_eq!(stored.ended, Some((NOW + 1, RotationOutcome::Failed)));
    assert_eq!(counts(&*ledger, 1).await.skipped, 2);
    assert_eq!(ledger.write_run(epoch, "r", NOW, end).await, Err(LedgerError::Ended));
    let unknown = ledger.write_run(epoch, "s", NOW, RunWrite::of(run)).await;
    assert_eq!(unknown, Err(LedgerError::NotFound("such Rotation")));
    assert_eq!(ledger.rotation("r").await.unwrap(), Some(stored));
}

pub(crate) async fn what_shows_after_a_rotation_was_complete_blocks_its_template_once(ledger: Arc<dyn Ledger>) {
    let ledger = &*ledger;
    let pumps = fleet("pumps");
    let epoch = begin(ledger, 1).await;
    let end = |uid: &'static str, at, outcome| async move {
        ledger.begin_rotation(epoch, rotation(uid), Vec::new()).await.unwrap();
        ledger.end_rotation(epoch, uid, outcome, at).await.unwrap();
    };
    let block = |uid: &'static str| async move {
        let line = audit(&identity(0), NOW, "rotation-breached");
        ledger.block_template(epoch, uid, "t1", NOW + 9, line).await.unwrap()
    };
    end("r", NOW, RotationOutcome::Succeeded).await;
    for news in [true, false] {
        assert_eq!(block("r").await, news);
        let found = ledger.template_block(&pumps).await.unwrap().unwrap();
        assert_eq!((found.template.as_str(), found.late, found.at), ("t1", true, NOW + 9));
        assert_eq!(ledger.audit(&identity(0), 9).await.unwrap().len(), 1);
    }
    // What a person stopped was judged; and a later Rotation has the last word.
    end("s", NOW + 1, RotationOutcome::Cancelled).await;
    assert!(!block("s").await);
    assert!(!block("r").await);
}

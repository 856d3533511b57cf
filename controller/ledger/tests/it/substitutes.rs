//! Devices that take part in an earlier wave than planned, as all of that one's are offline; for every database behind the
//! trait.

use std::sync::Arc;

use certwave_core::model::{JobState, Millis};
use certwave_core::rollout::run::Run;
use certwave_ledger::{Ledger, MemberOutcome, MemberQuery, NewMember, RunWrite};
use certwave_protocol::ids::Epoch;

use crate::fixtures::*;
use crate::staged::{anybody, candidates, counts, place, rotate, step, waiting};

const LATER: Millis = NOW + 2 * DAY_S * 1000;

/// Rotation `r` of a wave of one, of two, and of six.
async fn waves(ledger: &dyn Ledger) -> Epoch {
    let epoch = begin(ledger, 9).await;
    for n in 0..9 {
        enrol(ledger, epoch, n, if n == 8 { 1 } else { 9 }).await;
    }
    let members = candidates(ledger).await.into_iter().zip(0..).map(|(c, n)| NewMember {
        group: ["a", "b"][n as usize % 2].to_owned(),
        windows: [1, 2, 4][n as usize % 3],
        ..place(c.row, u32::from(n > 0) + u32::from(n > 2), n)
    });
    let members = members.collect();
    ledger.begin_rotation(epoch, rotation("r"), members).await.unwrap();
    epoch
}

fn substitute(wave: u32) -> RunWrite {
    RunWrite {
        substitute: Some(wave),
        ..RunWrite::of(Run::default())
    }
}

async fn heard(ledger: &dyn Ledger, epoch: Epoch, n: u32, at: Millis) {
    change(ledger, epoch, n, |d| d.last_seen = Some(at)).await;
}

pub(crate) async fn the_member_of_a_later_wave_heard_last_takes_the_place_of_who_is_offline(ledger: Arc<dyn Ledger>) {
    let epoch = waves(&*ledger).await;
    rotate(&*ledger, epoch, 0, 1, JobState::Queued).await;
    for (n, at) in [
        (1, NOW - 9),
        (3, NOW + 1),
        (4, NOW),
        (5, NOW + 2),
        (6, NOW + 3),
        (7, NOW + 4),
        (8, NOW + 5),
    ] {
        heard(&*ledger, epoch, n, at).await;
    }
    // Those heard later still are busy, gone, done, or dead.
    change(&*ledger, epoch, 5, |d| d.job = Some(job(5, JobState::Sent))).await;
    ledger.withdraw(epoch, NOW, &object("plant", 6)).await.unwrap();
    rotate(&*ledger, epoch, 7, 7, JobState::Confirmed).await;
    let before = ledger.member("r", &identity(3)).await.unwrap().unwrap();
    ledger.write_run(epoch, "r", LATER, substitute(0)).await.unwrap();

    let moved = ledger.member("r", &identity(3)).await.unwrap().unwrap();
    assert_eq!((before.wave, moved.wave), (2, 0));
    let mut same = before;
    same.wave = 0;
    assert_eq!(moved, same, "order, group and windows stay");
    let first = counts(&*ledger, 0).await;
    assert_eq!((first.members, first.offline, first.planned), (2, 1, 1));
    assert_eq!(first.changed, LATER, "its soak begins anew");
    assert_eq!(counts(&*ledger, 1).await.members, 2);
    let last = counts(&*ledger, 2).await;
    // The one that has expired is planned until somebody skips it.
    assert_eq!((last.members, last.planned, last.skipped, last.confirmed), (5, 3, 1, 1));

    // It is found where it is now, and nowhere else.
    let of = |through_wave, windows, full: &str| MemberQuery {
        through_wave,
        windows,
        full_groups: vec![full.to_owned()],
        ..anybody(NOW)
    };
    assert_eq!(waiting(&*ledger, &of(0, u64::MAX, "a")).await, [3]);
    assert!(waiting(&*ledger, &of(0, u64::MAX, "b")).await.is_empty());
    assert_eq!(waiting(&*ledger, &of(0, 1, "a")).await, [3]);
    assert!(waiting(&*ledger, &of(0, 2, "a")).await.is_empty());
    assert_eq!(waiting(&*ledger, &anybody(NOW)).await, [3, 1, 2, 4, 8]);

    // It goes its way as a member of that wave.
    rotate(&*ledger, epoch, 3, 3, JobState::Accepted).await;
    assert_eq!(counts(&*ledger, 0).await.in_flight, 1);
    rotate(&*ledger, epoch, 3, 3, JobState::Confirmed).await;
    let done = counts(&*ledger, 0).await;
    assert_eq!((done.confirmed, done.offline, done.planned), (1, 1, 0));
}

pub(crate) async fn substitutes_run_out_and_those_never_heard_come_last(ledger: Arc<dyn Ledger>) {
    let epoch = waves(&*ledger).await;
    heard(&*ledger, epoch, 7, NOW).await;
    heard(&*ledger, epoch, 4, NOW).await;
    // Of two heard at once the one whose turn comes first; nobody of the wave itself or of earlier ones.
    for (n, members) in [(4, 3), (7, 4), (3, 5), (5, 6), (6, 7), (8, 8)] {
        step(&*ledger, epoch, substitute(1)).await;
        let member = ledger.member("r", &identity(n)).await.unwrap().unwrap();
        assert_eq!((member.wave, member.outcome), (1, MemberOutcome::Planned), "device {n}");
        assert_eq!(counts(&*ledger, 1).await.members, members);
    }
    let before = ledger.wave_counts("r").await.unwrap();
    step(&*ledger, epoch, substitute(1)).await;
    assert_eq!(ledger.wave_counts("r").await.unwrap(), before);
    assert_eq!([0, 1, 2].map(|wave: usize| before[wave].planned), [1, 8, 0]);
    assert_eq!(waiting(&*ledger, &anybody(NOW)).await, [0, 1, 2, 3, 4, 5, 6, 7, 8]);
}

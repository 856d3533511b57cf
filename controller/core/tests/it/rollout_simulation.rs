//! A million devices over sixty days.

use certwave_core::model::Millis;
use certwave_core::rollout::judge::Note;
use certwave_core::rollout::run::{Ended, WaveCounts};
use certwave_core::rollout::strategy::{
    Limits, OnBreach, PerGroup, Ramp, Selector, Size, Strategy, Thresholds, Wave, Window,
};

use crate::rollout_fleets::{Device, Fleet, START};
use crate::rollout_world::{Deed, Fate, Pace, World};

const DEVICES: usize = 1_000_000;
const SITES: u32 = 2_000;
const SECOND: Millis = 1_000;
const MINUTE: Millis = 60 * SECOND;
const HOUR: Millis = 60 * MINUTE;
const DAY: Millis = 24 * HOUR;

/// The same number for the same device, spread.
fn dice(index: usize, salt: u64) -> u64 {
    let mut z = (index as u64).wrapping_add(salt.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn fleet() -> Fleet {
    let device = |index| Device {
        not_after: START + 90 * 86_400 + i64::try_from(dice(index, 1) % (60 * 86_400)).unwrap(),
        site: u32::try_from(dice(index, 2) % u64::from(SITES)).unwrap(),
        canary: dice(index, 3).is_multiple_of(1_000),
    };
    Fleet {
        ids: (0..DEVICES).map(|index| format!("meter-{index:07}")).collect(),
        devices: (0..DEVICES).map(device).collect(),
    }
}

/// Four waves at night, slowly first.
fn strategy() -> Strategy {
    let thresholds = Thresholds {
        max_failed: None,
        max_failed_percent: 1,
        max_lost: 100,
        on_breach: OnBreach::Rollback,
        ..Thresholds::default()
    };
    let wave = |name: &str, percent, soak| Wave {
        thresholds,
        ..Wave::percent(name, percent, soak)
    };
    Strategy {
        waves: vec![
            Wave {
                size: Size::Count(100),
                selector: Selector::from([("ring".to_owned(), "canary".to_owned())]),
                approval: true,
                thresholds: Thresholds {
                    max_lost: 1,
                    max_failed: Some(3),
                    ..thresholds
                },
                ..wave("canary", 1, DAY)
            },
            wave("early", 1, 12 * HOUR),
            wave("tenth", 10, 12 * HOUR),
            wave("rest", 100, HOUR),
        ],
        limits: Limits {
            max_in_flight: 2_000,
            max_per_minute: Some(80),
            ramp: Some(Ramp {
                from: 10,
                factor: 2,
                every_succeeded: 50,
            }),
            per_group: Some(PerGroup {
                by: "site".to_owned(),
                max_unavailable: 3,
            }),
        },
        windows: vec![
            Window {
                cron: "0 22 * * *".to_owned(),
                duration: 7 * HOUR,
                time_zone: "Europe/Berlin".to_owned(),
                selector: Selector::new(),
            },
            Window {
                cron: "0 9 * * MON-FRI".to_owned(),
                duration: 8 * HOUR,
                time_zone: "Europe/Berlin".to_owned(),
                selector: Selector::from([("ring".to_owned(), "canary".to_owned())]),
            },
        ],
        ..Strategy::default()
    }
}

/// A third is offline at first, and of these a third for good; a few fail, refuse, vanish or do not listen.
fn fates(index: usize) -> (Fate, Option<Millis>) {
    let fate = match dice(index, 4) % 100_000 {
        0..1_000 => Fate::Fails(1),
        1_000..1_300 => Fate::Fails(u8::MAX),
        1_300..1_400 => Fate::Rejects,
        1_400..1_420 => Fate::GoesBack,
        1_420..1_440 => Fate::Vanishes(Some(HOUR)),
        1_440..1_444 => Fate::Vanishes(None),
        1_500..2_500 => Fate::Deaf(2),
        _ => Fate::Good,
    };
    let offline = match dice(index, 5) % 9 {
        0..2 => Some(i64::try_from(dice(index, 6) % 30).unwrap() * DAY),
        2 => Some(Millis::MAX),
        _ => None,
    };
    (fate, offline)
}

#[test]
fn a_million_devices_are_rotated_in_sixty_days() {
    let pace = Pace {
        quantum: 10 * SECOND,
        jumps: false,
    };
    let began = std::time::Instant::now();
    let mut world = World::new(strategy(), &fleet(), fates, pace);
    let planned = began.elapsed();
    for (after, deed) in [
        (40 * HOUR, Deed::Approve(1)),
        (5 * DAY, Deed::Restart),
        (10 * DAY, Deed::Fault(true)),
        (10 * DAY + HOUR, Deed::Fault(false)),
        (20 * DAY, Deed::Wish(1)),
        (21 * DAY, Deed::Wish(0)),
        (30 * DAY + 4 * HOUR, Deed::Restart),
    ] {
        world.at(after, deed);
    }
    // When half of the time is over, half is foreseen: a rest of the fleet is offline for good, and nothing is in the way.
    world.live(22 * DAY);
    let seen = world.forecast(10 * SECOND, 1000);
    world.live(60 * DAY);
    let (eta, end) = (seen.eta.unwrap() - START * 1000, world.elapsed());
    println!("foreseen for day {}, over on day {}: {seen:?}", eta / DAY, end / DAY);
    assert_eq!(seen.missed, 0);
    assert!((eta - end).abs() < 5 * DAY, "foreseen for {eta}, over at {end}");
    println!(
        "planned in {planned:?}, all in {:?}: {} starts, {} judgements, {:?} after {} days, {:?}",
        began.elapsed(),
        world.starts,
        world.judgements,
        world.phase(),
        world.elapsed() / DAY,
        world.counts,
    );
    assert_eq!(world.run.ended, Some(Ended::Complete), "{:?}", world.counts);
    let waves: Vec<_> = world
        .notes
        .iter()
        .filter(|(_, note)| matches!(note, Note::WaveBegan(_)))
        .collect();
    assert_eq!(waves.len(), 3);
    assert!(world.run.breach.is_none());
    // Those for good offline are left for later, and nobody else.
    let members = world.total(|counts| counts.members);
    assert_eq!(members as usize, DEVICES);
    assert_eq!(world.total(|counts| counts.planned + counts.in_flight), 0);
    let bad = world.total(|counts| counts.failures() + counts.vanished());
    let offline = world.total(|counts| counts.offline);
    assert_eq!(world.total(WaveCounts::proven) + bad + offline, members);
    assert!(offline > members / 10 && offline < members / 8, "{offline}");
    assert!(bad > members / 400 && bad < members / 200, "{bad}");
}

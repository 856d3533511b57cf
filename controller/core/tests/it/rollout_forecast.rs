//! When it will be over, and who is too late.

use certwave_core::model::Millis;
use certwave_core::rollout::forecast::{Forecast, Outlook, forecast};
use certwave_core::rollout::run::{Plan, PlannedWave, Run};
use certwave_core::rollout::strategy::{Limits, Selector, Size, Strategy, Window};
use certwave_core::rollout::window::{ALWAYS, Calendar};

use crate::rollout_fleets::wave;

/// 2027-01-15T08:00:00Z.
const NOW: Millis = 1_800_000_000_000;
const MINUTE: Millis = 60_000;
const HOUR: Millis = 60 * MINUTE;
const DAY: Millis = 24 * HOUR;

/// A fleet of one wave at so many jobs a minute, each done in a minute.
struct Case {
    strategy: Strategy,
    sizes: Vec<u32>,
    run: Run,
    online: u32,
}

impl Case {
    fn new(per_minute: u32, sizes: &[u32]) -> Self {
        let waves = sizes
            .iter()
            .enumerate()
            .map(|(n, _)| wave(&format!("w{n}"), Size::Percent(100)));
        Self {
            strategy: Strategy {
                waves: waves.collect(),
                limits: Limits {
                    max_in_flight: 1_000_000,
                    max_per_minute: Some(per_minute),
                    ramp: None,
                    per_group: None,
                },
                override_before_expiry: None,
                ..Strategy::default()
            },
            sizes: sizes.to_vec(),
            run: Run::default(),
            online: 1000,
        }
    }

    /// The forecast for devices that end so long after now.
    fn forecast(&self, remaining: &[(Millis, u32)]) -> Forecast {
        let plan = Plan {
            waves: self
                .sizes
                .iter()
                .map(|size| PlannedWave {
                    name: String::new(),
                    size: *size,
                    max_failed: 0,
                    max_lost: 0,
                })
                .collect(),
            hash: String::new(),
        };
        let remaining: Vec<_> = remaining
            .iter()
            .map(|(life, count)| ((NOW + life) / 1000, *count))
            .collect();
        forecast(
            &self.strategy,
            &Outlook {
                now: NOW,
                plan: &plan,
                run: &self.run,
                remaining: &remaining,
                succeeded: 0,
                job_time: MINUTE,
                online_permille: self.online,
                calendar: &Calendar::compile(&self.strategy.windows).unwrap(),
                windows: ALWAYS,
            },
        )
    }
}

#[test]
fn enough_time_means_nobody_is_missed_and_the_end_is_known() {
    let seen = Case::new(10, &[600]).forecast(&[(DAY, 300), (2 * DAY, 300)]);
    assert_eq!(seen.eta, Some(NOW + HOUR));
    assert_eq!((seen.missed, seen.first_missed), (0, None));
    // 300 in a day or 600 in two.
    assert_eq!((seen.needed_per_minute, seen.needed_in_flight), (1, 1));
}

#[test]
fn those_that_end_before_their_turn_are_counted_with_the_rate_that_would_do() {
    let seen = Case::new(10, &[2000]).forecast(&[(HOUR, 1000), (5 * HOUR, 1000)]);
    assert_eq!(seen.missed, 400);
    assert_eq!(seen.first_missed, Some((NOW + HOUR) / 1000));
    // A thousand within an hour.
    assert_eq!(seen.needed_per_minute, 17);
    // 600 in the first hour, then the thousand that are still in time.
    assert_eq!(seen.eta, Some(NOW + HOUR + 100 * MINUTE));
}

#[test]
fn a_few_slots_are_as_slow_as_a_low_rate() {
    let mut case = Case::new(1000, &[600]);
    case.strategy.limits.max_in_flight = 10;
    assert_eq!(case.forecast(&[(DAY, 600)]).eta, Some(NOW + HOUR));
    case.strategy.limits.max_per_minute = None;
    assert_eq!(case.forecast(&[(DAY, 600)]).eta, Some(NOW + HOUR));
}

#[test]
fn soak_between_waves_and_at_the_end_takes_its_time() {
    let mut case = Case::new(10, &[60, 540]);
    case.strategy.waves[0].soak = 4 * HOUR;
    case.strategy.waves[1].soak = HOUR;
    let seen = case.forecast(&[(DAY, 600)]);
    assert_eq!(seen.eta, Some(NOW + 6 * HOUR));
    // The first wave is through, and has soaked for three hours of four.
    case.run.soak_since = Some(NOW - 3 * HOUR);
    let seen = case.forecast(&[(DAY, 540)]);
    assert_eq!(seen.eta, Some(NOW + HOUR + 54 * MINUTE + HOUR));
    // The soak alone is too long: no rate would help those that end before.
    case.run.soak_since = None;
    let seen = case.forecast(&[(2 * HOUR, 600)]);
    assert_eq!(seen.missed, 540);
    assert_eq!(seen.needed_per_minute, 1, "for the sixty that can be helped");
    case.strategy.emergency = true;
    let seen = case.forecast(&[(2 * HOUR, 600)]);
    assert_eq!(
        (seen.missed, seen.eta, seen.needed_per_minute),
        (0, Some(NOW + HOUR), 5)
    );
}

#[test]
fn closed_windows_do_not_serve_except_near_the_end() {
    let mut case = Case::new(10, &[3000]);
    case.strategy.windows = vec![Window {
        cron: "0 10 * * *".to_owned(),
        duration: 2 * HOUR,
        time_zone: "UTC".to_owned(),
        selector: Selector::new(),
    }];
    // It is eight: 1200 today from ten to twelve, 1200 tomorrow, 600 the day after.
    let seen = case.forecast(&[(10 * DAY, 3000)]);
    assert_eq!((seen.eta, seen.missed), (Some(NOW + 2 * DAY + 3 * HOUR), 0));
    // Three days have six open hours.
    let seen = case.forecast(&[(3 * DAY, 3000)]);
    assert_eq!((seen.missed, seen.needed_per_minute), (0, 9));
    let seen = case.forecast(&[(DAY, 3000)]);
    assert_eq!((seen.missed, seen.needed_per_minute), (1800, 25));
    // From six hours before the end on no window is waited for.
    case.strategy.override_before_expiry = Some(6 * HOUR);
    let seen = case.forecast(&[(DAY, 3000)]);
    assert_eq!((seen.missed, seen.eta), (0, Some(NOW + 18 * HOUR + 3 * HOUR)));
}

#[test]
fn a_third_online_is_a_third_of_the_rate_and_nobody_online_has_no_end() {
    let mut case = Case::new(30, &[600]);
    case.online = 333;
    let eta = case.forecast(&[(DAY, 600)]).eta.unwrap();
    assert!((NOW + HOUR..NOW + HOUR + MINUTE).contains(&eta), "{}", eta - NOW);
    case.online = 0;
    let seen = case.forecast(&[(DAY, 600)]);
    assert_eq!((seen.eta, seen.missed, seen.needed_per_minute), (None, 600, 1));
}

#[test]
fn nothing_left_is_over_when_the_last_wave_has_soaked() {
    let mut case = Case::new(10, &[600]);
    case.strategy.waves[0].soak = HOUR;
    let seen = case.forecast(&[]);
    assert_eq!(
        (seen.eta, seen.missed, seen.needed_per_minute),
        (Some(NOW + HOUR), 0, 0)
    );
}

#[test]
fn a_window_far_away_is_reckoned_by_its_average() {
    let mut case = Case::new(1, &[1_000_000]);
    case.strategy.windows = vec![Window {
        cron: "0 10 * * *".to_owned(),
        duration: 2 * HOUR,
        time_zone: "UTC".to_owned(),
        selector: Selector::new(),
    }];
    // A million at 120 a day.
    let eta = case.forecast(&[(20_000 * DAY, 1_000_000)]).eta.unwrap();
    let days = (eta - NOW) / DAY;
    assert!((8_330..8_336).contains(&days), "{days}");
}

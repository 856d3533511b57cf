//! Generated fleets and strategies.

use std::collections::BTreeMap;

use certwave_core::rollout::plan::Candidate;
use certwave_core::rollout::select;
use certwave_core::rollout::strategy::{
    Limits, OnBreach, PerGroup, Ramp, Selector, Size, Strategy as Rotation, Thresholds, Wave, Window,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

/// 2027-01-15T08:00:00Z, Unix seconds.
pub(crate) const START: i64 = 1_800_000_000;
const MINUTE: i64 = 60_000;
const DAY: i64 = 86_400;

/// A wave of everybody, without soak.
pub(crate) fn wave(name: &str, size: Size) -> Wave {
    Wave {
        size,
        ..Wave::percent(name, 100, 0)
    }
}

/// Devices, with ids apart so that a plan can borrow them.
#[derive(Debug, Clone)]
pub(crate) struct Fleet {
    pub(crate) ids: Vec<String>,
    pub(crate) devices: Vec<Device>,
}

/// What a plan asks of a device.
#[derive(Debug, Clone)]
pub(crate) struct Device {
    /// Unix seconds.
    pub(crate) not_after: i64,
    pub(crate) site: u32,
    pub(crate) canary: bool,
}

impl Device {
    pub(crate) fn labels(&self) -> BTreeMap<String, String> {
        let ring = if self.canary { "canary" } else { "main" };
        BTreeMap::from([
            ("ring".to_owned(), ring.to_owned()),
            ("site".to_owned(), self.site.to_string()),
        ])
    }
}

impl Fleet {
    pub(crate) fn candidates(&self, rotation: &Rotation) -> Vec<Candidate<'_>> {
        // Devices of a site and ring bear the same labels: a million of them need not be looked at one by one.
        let mut known = BTreeMap::new();
        let mut candidate = |(id, device): (_, &Device)| Candidate {
            id,
            not_after: device.not_after,
            group: device.site,
            waves: *known
                .entry((device.site, device.canary))
                .or_insert_with(|| select::waves(&rotation.waves, &device.labels())),
        };
        let ids = self.ids.iter().map(String::as_str);
        ids.zip(&self.devices).map(&mut candidate).collect()
    }

    /// The same devices in another order, with other numbers for the same groups.
    pub(crate) fn shuffled(&self, seed: u64) -> Self {
        let mut order: Vec<usize> = (0..self.ids.len()).collect();
        order.sort_by_key(|index| (*index as u64 + 1).wrapping_mul(seed | 1).rotate_left(17));
        let mut devices: Vec<Device> = order.iter().map(|index| self.devices[*index].clone()).collect();
        for device in &mut devices {
            device.site = device.site.wrapping_mul(7).wrapping_add(3);
        }
        Self {
            ids: order.iter().map(|index| self.ids[*index].clone()).collect(),
            devices,
        }
    }
}

/// Fleets of up to 60 devices.
pub(crate) fn fleets() -> impl Strategy<Value = Fleet> {
    let device = (0i64..20 * DAY, 0u32..4, any::<bool>()).prop_map(|(life, site, canary)| Device {
        not_after: START + DAY + life,
        site,
        canary,
    });
    vec(device, 1..60).prop_map(|devices| Fleet {
        ids: (0..devices.len()).map(|n| format!("meter-{n}")).collect(),
        devices,
    })
}

/// Strategies of one to four waves.
pub(crate) fn strategies() -> impl Strategy<Value = Rotation> {
    let middle = (
        prop_oneof![(1u32..8).prop_map(Size::Count), (1u8..100).prop_map(Size::Percent),],
        any::<bool>(),
        0i64..120,
        any::<bool>(),
    );
    (
        vec(middle, 0..4),
        thresholds(),
        limits(),
        windows(),
        option::of(0i64..72),
        0i64..60,
    )
        .prop_map(|(middles, thresholds, limits, windows, override_hours, last_soak)| {
            let mut percent = 0;
            let mut waves: Vec<Wave> = Vec::new();
            for (number, (size, canary, soak, approval)) in middles.into_iter().enumerate() {
                // Percentages must rise.
                if let Size::Percent(up_to) = size {
                    if up_to <= percent {
                        continue;
                    }
                    percent = up_to;
                }
                let ring = [("ring".to_owned(), "canary".to_owned())];
                waves.push(Wave {
                    name: format!("wave-{number}"),
                    size,
                    selector: if canary { Selector::from(ring) } else { Selector::new() },
                    thresholds,
                    soak: soak * MINUTE,
                    approval,
                });
            }
            waves.push(Wave {
                thresholds,
                ..Wave::percent("rest", 100, last_soak * MINUTE)
            });
            Rotation {
                waves,
                limits,
                windows,
                override_before_expiry: override_hours.map(|hours| hours * 60 * MINUTE),
                ..Rotation::default()
            }
        })
}

fn thresholds() -> impl Strategy<Value = Thresholds> {
    let on_breach = prop_oneof![Just(OnBreach::Pause), Just(OnBreach::Abort), Just(OnBreach::Rollback)];
    (0u8..=100, option::of(0u32..4), 0u8..=50, 0u32..10, 0u32..3, on_breach).prop_map(
        |(success_percent, max_failed, max_failed_percent, min_sample, max_lost, on_breach)| Thresholds {
            success_percent,
            max_failed,
            max_failed_percent,
            min_sample,
            max_lost,
            on_breach,
        },
    )
}

pub(crate) fn limits() -> impl Strategy<Value = Limits> {
    let ramp = (1u32..10, 1u32..4, 1u32..20).prop_map(|(from, factor, every_succeeded)| Ramp {
        from,
        factor,
        every_succeeded,
    });
    let per_group = (1u32..4).prop_map(|max_unavailable| PerGroup {
        by: "site".to_owned(),
        max_unavailable,
    });
    (1u32..20, option::of(1u32..40), option::of(ramp), option::of(per_group)).prop_map(
        |(max_in_flight, max_per_minute, ramp, per_group)| Limits {
            max_in_flight,
            max_per_minute,
            ramp,
            per_group,
        },
    )
}

/// None, one for everybody, one for the canaries, or both.
fn windows() -> impl Strategy<Value = Vec<Window>> {
    let window = |selector: Selector| {
        (0u32..24, 1i64..20).prop_map(move |(hour, hours)| Window {
            cron: format!("0 {hour} * * *"),
            duration: hours * 60 * MINUTE,
            time_zone: "Europe/Berlin".to_owned(),
            selector: selector.clone(),
        })
    };
    let canaries = Selector::from([("ring".to_owned(), "canary".to_owned())]);
    prop_oneof![
        4 => Just(Vec::new()),
        4 => window(Selector::new()).prop_map(|all| vec![all]),
        1 => window(canaries.clone()).prop_map(|canaries| vec![canaries]),
        4 => (window(Selector::new()), window(canaries)).prop_map(|(all, canaries)| vec![all, canaries]),
    ]
}

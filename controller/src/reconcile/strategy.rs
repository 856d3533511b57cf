//! From the strategy that a Fleet and a Rotation declare to the one that the core works by. Pure.

use certwave_core::rollout::strategy::{
    Gate, GateSource, Joiners, Limits, OnBreach, Order, PerGroup, Ramp, Size, Strategy, Thresholds, Wave, Window,
};
use certwave_core::rollout::window::{Calendar, WindowError};
use certwave_crds::{self as crd, Fleet, Rotation, RotationMode, RotationReason};
use kube::ResourceExt as _;

use super::fleet::job_policy;

/// Why a declared strategy cannot be worked by; each message names the field and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum StrategyError {
    /// A window that the schema lets through: an unknown zone, a pattern that never fires, a duration over its period.
    #[error("{at}.windows: {problem}")]
    Window {
        /// The object and the path of the part.
        at: String,
        /// What is wrong.
        #[source]
        problem: WindowError,
    },
    /// A wave that was kept before the API server asked for one of both.
    #[error("{at}.waves: wave {name} needs count or percent")]
    NoSize {
        /// The object and the path of the part.
        at: String,
        /// The wave.
        name: String,
    },
    /// The same for a gate.
    #[error("{at}.gates: gate {number} needs one of prometheus, webhook or online")]
    NoSource {
        /// The object and the path of the part.
        at: String,
        /// From 1.
        number: usize,
    },
}

/// The strategy of `rotation`, or of one that `fleet` begins by itself. A part that the Rotation has replaces the Fleet's
/// part as a whole.
///
/// # Errors
/// When a part cannot be worked by, though the API server accepted it.
pub(super) fn strategy(fleet: &Fleet, rotation: Option<&Rotation>) -> Result<Strategy, StrategyError> {
    let declared = &fleet.spec.rotation;
    let own = rotation.map(|rotation| &rotation.spec);
    // Where a part was found, for the message.
    let at = |is_own: bool| match rotation.filter(|_| is_own) {
        Some(rotation) => format!("Rotation {}: spec", rotation.name_any()),
        None => format!("Fleet {}: spec.rotation", fleet.name_any()),
    };
    /// The Rotation's part, or the Fleet's.
    macro_rules! part {
        ($field:ident) => {
            own.and_then(|own| own.$field.as_ref())
                .unwrap_or(&declared.$field)
        };
    }

    let mut defaults = thresholds(part!(defaults));
    // Going back would restore what is compromised. The API server says so of a Rotation's own parts; here it is the Fleet's.
    let forward_only = own.is_some_and(|own| own.reason == RotationReason::CaCompromise);
    if forward_only && defaults.on_breach == OnBreach::Rollback {
        defaults.on_breach = OnBreach::Pause;
    }
    let waves = part!(waves).iter().map(|declared| {
        let mut wave = wave(declared, &defaults).ok_or_else(|| StrategyError::NoSize {
            at: at(own.is_some_and(|own| own.waves.is_some())),
            name: declared.name.clone(),
        })?;
        if forward_only && wave.thresholds.on_breach == OnBreach::Rollback {
            wave.thresholds.on_breach = OnBreach::Pause;
        }
        Ok(wave)
    });
    let gates = (1..).zip(part!(gates)).map(|(number, declared)| {
        gate(declared).ok_or_else(|| StrategyError::NoSource {
            at: at(own.is_some_and(|own| own.gates.is_some())),
            number,
        })
    });
    let windows: Vec<_> = part!(windows).iter().map(window).collect();
    Calendar::compile(&windows).map_err(|problem| StrategyError::Window {
        at: at(own.is_some_and(|own| own.windows.is_some())),
        problem,
    })?;
    let old_certificate = part!(old_certificate);
    Ok(Strategy {
        order: Order {
            spread_by: part!(order).spread_by.clone(),
        },
        waves: waves.collect::<Result<_, _>>()?,
        limits: limits(part!(limits)),
        job: job_policy(part!(device)),
        windows,
        override_before_expiry: Some(part!(window_override_before_expiry).as_millis()).filter(|before| *before > 0),
        joiners: match part!(joiners) {
            crd::Joiners::LastWave => Joiners::LastWave,
            crd::Joiners::Ignore => Joiners::Ignore,
        },
        grace: old_certificate.grace.as_millis(),
        rollback_min_remaining: old_certificate.rollback_min_remaining.as_millis(),
        gates: gates.collect::<Result<_, _>>()?,
        emergency: own.is_some_and(|own| own.mode == RotationMode::Emergency),
    })
}

/// A number that the schema keeps from being negative.
fn number(declared: i32) -> u32 {
    declared.max(0).unsigned_abs()
}

/// A percentage that the schema keeps within 100.
fn percent(declared: i32) -> u8 {
    u8::try_from(declared.clamp(0, 100)).unwrap_or(100)
}

fn on_breach(declared: crd::OnBreach) -> OnBreach {
    match declared {
        crd::OnBreach::Pause => OnBreach::Pause,
        crd::OnBreach::Abort => OnBreach::Abort,
        crd::OnBreach::Rollback => OnBreach::Rollback,
    }
}

fn thresholds(declared: &crd::WaveDefaults) -> Thresholds {
    Thresholds {
        success_percent: percent(declared.success_percent),
        max_failed: None,
        max_failed_percent: percent(declared.max_failed_percent),
        min_sample: number(declared.min_sample),
        max_lost: number(declared.max_lost),
        on_breach: on_breach(declared.on_breach),
    }
}

/// `None` where it has neither count nor percent.
fn wave(declared: &crd::Wave, defaults: &Thresholds) -> Option<Wave> {
    let size = match (declared.count, declared.percent) {
        (Some(count), _) => Size::Count(number(count)),
        (None, Some(share)) => Size::Percent(percent(share)),
        (None, None) => return None,
    };
    Some(Wave {
        name: declared.name.clone(),
        size,
        selector: declared.selector.clone().unwrap_or_default().match_labels,
        thresholds: Thresholds {
            success_percent: declared.success_percent.map_or(defaults.success_percent, percent),
            max_failed: declared.max_failed.map(number),
            max_failed_percent: declared.max_failed_percent.map_or(defaults.max_failed_percent, percent),
            min_sample: declared.min_sample.map_or(defaults.min_sample, number),
            max_lost: declared.max_lost.map_or(defaults.max_lost, number),
            on_breach: declared.on_breach.map_or(defaults.on_breach, on_breach),
        },
        soak: declared.soak.as_millis(),
        approval: declared.approval,
    })
}

fn limits(declared: &crd::Limits) -> Limits {
    Limits {
        max_in_flight: number(declared.max_in_flight),
        max_per_minute: Some(number(declared.max_per_minute)),
        ramp: declared.ramp.map(|ramp| Ramp {
            from: number(ramp.from),
            factor: number(ramp.factor),
            every_succeeded: number(ramp.every_succeeded),
        }),
        per_group: declared.per_group.as_ref().map(|group| PerGroup {
            by: group.by.clone(),
            max_unavailable: number(group.max_unavailable),
        }),
    }
}

fn window(declared: &crd::Window) -> Window {
    Window {
        cron: declared.cron.clone(),
        duration: declared.duration.as_millis(),
        time_zone: declared.time_zone.clone(),
        selector: declared.selector.match_labels.clone(),
    }
}

/// `None` where it asks nobody.
fn gate(declared: &crd::Gate) -> Option<Gate> {
    let source = if let Some(prometheus) = &declared.prometheus {
        GateSource::Prometheus {
            url: prometheus.url.clone(),
            query: prometheus.query.clone(),
            above: declared.above.as_ref().map(ToString::to_string),
            below: declared.below.as_ref().map(ToString::to_string),
        }
    } else if let Some(webhook) = &declared.webhook {
        GateSource::Webhook {
            url: webhook.url.clone(),
            timeout: webhook.timeout.as_millis(),
        }
    } else {
        GateSource::Online {
            min_percent_of_before: percent(declared.online?.min_percent_of_before),
        }
    };
    Some(Gate {
        source,
        every: declared.every.as_millis(),
        failure_limit: number(declared.failure_limit),
        error_limit: number(declared.error_limit),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::{Value, json};

    use super::*;

    fn fleet(rotation: &Value) -> Fleet {
        serde_json::from_value(json!({
            "apiVersion": "certwave.dev/v1alpha1", "kind": "Fleet", "metadata": { "name": "meters" },
            "spec": { "issuerRef": { "name": "ca" }, "brokerRef": { "name": "mqtt" }, "rotation": rotation },
        }))
        .unwrap()
    }

    /// A Rotation with these parts, beside a reference to its fleet.
    fn rotation(parts: Value) -> Rotation {
        let mut spec = parts;
        spec["fleetRef"] = json!({ "name": "meters" });
        serde_json::from_value(json!({
            "apiVersion": "certwave.dev/v1alpha1", "kind": "Rotation", "metadata": { "name": "now" }, "spec": spec,
        }))
        .unwrap()
    }

    fn window(cron: &str, duration: &str, zone: &str) -> Value {
        json!({ "windows": [{ "cron": cron, "duration": duration, "timeZone": zone }] })
    }

    #[test]
    fn a_fleet_of_which_nobody_said_anything_is_staged_as_the_core_is_by_default() {
        assert_eq!(strategy(&fleet(&json!({})), None).unwrap(), Strategy::default());
        let by_hand = rotation(json!({ "reason": "Manual" }));
        assert_eq!(
            strategy(&fleet(&json!({})), Some(&by_hand)).unwrap(),
            Strategy::default()
        );
    }

    #[test]
    fn a_part_of_the_rotation_replaces_the_fleets_part_as_a_whole() {
        let fleet = fleet(&json!({
            "limits": { "maxInFlight": 7, "ramp": { "everySucceeded": 5 } },
            "joiners": "Ignore",
            "order": { "spreadBy": "site" },
            "waves": [{ "name": "all", "percent": 100, "soak": "5m" }],
            "device": { "retries": { "max": 1, "outcomes": ["TimedOut"] } },
        }));
        let own = rotation(json!({ "limits": { "maxInFlight": 9 }, "order": {}, "windowOverrideBeforeExpiry": "0s" }));
        let read = strategy(&fleet, Some(&own)).unwrap();
        assert_eq!(
            read.limits,
            Limits {
                max_in_flight: 9,
                ..Limits::default()
            }
        );
        assert_eq!(read.order.spread_by, None);
        assert_eq!(read.override_before_expiry, None);
        assert_eq!(read.joiners, Joiners::Ignore);
        assert_eq!(read.waves, [Wave::percent("all", 100, 300_000)]);
        assert_eq!(
            (read.job.max_retries, read.job.retry_failed, read.job.retry_timed_out),
            (1, false, true)
        );

        let of_fleet = strategy(&fleet, None).unwrap();
        assert_eq!(of_fleet.limits.max_in_flight, 7);
        assert_eq!(
            of_fleet.limits.ramp,
            Some(Ramp {
                from: 10,
                factor: 2,
                every_succeeded: 5
            })
        );
        assert_eq!(of_fleet.order.spread_by.as_deref(), Some("site"));
    }

    #[test]
    fn what_a_wave_does_not_say_is_the_defaults() {
        let own = rotation(json!({
            "defaults": { "successPercent": 90, "maxFailedPercent": 1, "minSample": 3, "maxLost": 4, "onBreach": "Abort" },
            "waves": [
                { "name": "canary", "count": 5, "selector": { "matchLabels": { "ring": "canary" } }, "maxFailed": 0,
                  "maxLost": 0, "onBreach": "Rollback", "soak": "24h", "approval": true },
                { "name": "early", "percent": 10, "maxFailedPercent": 2, "successPercent": 99, "minSample": 1 },
                { "name": "rest", "percent": 100 },
            ],
        }));
        let waves = strategy(&fleet(&json!({})), Some(&own)).unwrap().waves;
        let defaults = Thresholds {
            success_percent: 90,
            max_failed: None,
            max_failed_percent: 1,
            min_sample: 3,
            max_lost: 4,
            on_breach: OnBreach::Abort,
        };
        let canary = Wave {
            name: "canary".to_owned(),
            size: Size::Count(5),
            selector: [("ring".to_owned(), "canary".to_owned())].into(),
            thresholds: Thresholds {
                max_failed: Some(0),
                max_lost: 0,
                on_breach: OnBreach::Rollback,
                ..defaults
            },
            soak: 24 * 3_600_000,
            approval: true,
        };
        assert_eq!(waves[0], canary);
        let early = Thresholds {
            max_failed_percent: 2,
            success_percent: 99,
            min_sample: 1,
            ..defaults
        };
        assert_eq!((waves[1].size, waves[1].thresholds), (Size::Percent(10), early));
        assert_eq!((waves[2].size, waves[2].thresholds), (Size::Percent(100), defaults));
    }

    #[test]
    fn a_compromise_never_goes_back_whatever_the_fleet_says() {
        let fleet = fleet(&json!({
            "defaults": { "onBreach": "Rollback" },
            "waves": [
                { "name": "canary", "percent": 1, "onBreach": "Rollback" },
                { "name": "early", "percent": 10, "onBreach": "Abort" },
                { "name": "rest", "percent": 100 },
            ],
        }));
        let answers = |own: &Rotation| {
            let read = strategy(&fleet, Some(own)).unwrap();
            let of_waves: Vec<_> = read.waves.iter().map(|wave| wave.thresholds.on_breach).collect();
            (of_waves, read.emergency)
        };
        let (pause, abort, back) = (OnBreach::Pause, OnBreach::Abort, OnBreach::Rollback);
        let planned = rotation(json!({ "reason": "CAChange", "issuerRef": { "name": "b" } }));
        assert_eq!(answers(&planned), (vec![back, abort, back], false));
        let compromise = rotation(json!({ "reason": "CACompromise", "issuerRef": { "name": "b" } }));
        assert_eq!(answers(&compromise), (vec![pause, abort, pause], false));
        let emergency =
            rotation(json!({ "reason": "CACompromise", "mode": "Emergency", "issuerRef": { "name": "b" } }));
        assert_eq!(answers(&emergency), (vec![pause, abort, pause], true));
    }

    #[test]
    fn gates_and_their_numbers_are_as_written() {
        let own = rotation(json!({ "gates": [
            { "prometheus": { "url": "http://p:9090", "query": "up" }, "above": 0.99, "below": 3, "every": "30s",
              "failureLimit": 2, "errorLimit": 0 },
            { "webhook": { "url": "http://w" } },
            { "online": { "minPercentOfBefore": 90 } },
        ] }));
        let gates = strategy(&fleet(&json!({})), Some(&own)).unwrap().gates;
        let prometheus = GateSource::Prometheus {
            url: "http://p:9090".to_owned(),
            query: "up".to_owned(),
            above: Some("0.99".to_owned()),
            below: Some("3".to_owned()),
        };
        let webhook = GateSource::Webhook {
            url: "http://w".to_owned(),
            timeout: 5000,
        };
        let online = GateSource::Online {
            min_percent_of_before: 90,
        };
        let gate = |source, every, failure_limit, error_limit| Gate {
            source,
            every,
            failure_limit,
            error_limit,
        };
        assert_eq!(
            gates,
            [
                gate(prometheus, 30_000, 2, 0),
                gate(webhook, 60_000, 0, 4),
                gate(online, 60_000, 0, 4)
            ]
        );
    }

    #[test]
    fn a_window_that_cannot_be_is_refused_with_its_field_and_the_reason() {
        let none = fleet(&json!({}));
        let refusal = |parts: Value| strategy(&none, Some(&rotation(parts))).unwrap_err().to_string();
        for (parts, reason) in [
            (window("0 1 * * *", "4h", "Europe/Atlantis"), "Europe/Atlantis"),
            (window("0 1 30 2 *", "4h", "UTC"), "never"),
            (window("61 1 * * *", "4h", "UTC"), "61 1 * * *"),
            (window("0 1 * * *", "25h", "UTC"), "25h"),
        ] {
            let message = refusal(parts);
            assert!(
                message.starts_with("Rotation now: spec.windows: window 1") && message.contains(reason),
                "{message}"
            );
        }
        let of_fleet = fleet(&window("0 1 * * *", "4h", "Europe/Atlantis"));
        let message = strategy(&of_fleet, Some(&rotation(json!({})))).unwrap_err().to_string();
        assert!(
            message.starts_with("Fleet meters: spec.rotation.windows: window 1"),
            "{message}"
        );
        // An empty list of its own is no window at all.
        assert!(strategy(&of_fleet, Some(&rotation(json!({ "windows": [] })))).is_ok());
        let read = strategy(&none, Some(&rotation(window("0 1 * * MON-FRI", "4h", "Europe/Berlin"))));
        assert_eq!(read.unwrap().windows.len(), 1);
    }

    #[test]
    fn what_the_api_server_kept_from_before_its_rules_is_named() {
        let none = fleet(&json!({}));
        let refusal = |parts: Value| strategy(&none, Some(&rotation(parts))).unwrap_err().to_string();
        assert_eq!(
            refusal(json!({ "waves": [{ "name": "canary" }] })),
            "Rotation now: spec.waves: wave canary needs count or percent"
        );
        assert_eq!(
            refusal(json!({ "gates": [{}] })),
            "Rotation now: spec.gates: gate 1 needs one of prometheus, webhook or online"
        );
    }
}

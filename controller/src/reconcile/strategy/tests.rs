//! What is declared and what comes of it.
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
    let emergency = rotation(json!({ "reason": "CACompromise", "mode": "Emergency", "issuerRef": { "name": "b" } }));
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

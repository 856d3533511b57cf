//! Strategies that the API server refuses, of a Fleet or a Rotation, and the words that a person reads then.

use serde_json::{Value, json};

use super::objects::merge;
use super::refusals::refused_at_creation;

const DURATION: &str = "must be a duration such as 5m, 24h or 90d";
const ZERO: &str = "must be more than 0";

/// Waves: the given ones, then the rest.
fn waves(first: &[Value]) -> Value {
    let mut waves = first.to_vec();
    waves.push(json!({ "name": "rest", "percent": 100 }));
    json!({ "waves": waves })
}

/// One wave with some fields changed, then the rest.
pub(super) fn wave(changes: &Value) -> Value {
    let mut wave = json!({ "name": "canary", "percent": 1 });
    merge(&mut wave, changes);
    waves(&[wave])
}

/// One window with some fields changed.
pub(super) fn window(changes: &Value) -> Value {
    let mut window = json!({ "cron": "0 1 * * *", "duration": "4h", "timeZone": "Europe/Berlin" });
    merge(&mut window, changes);
    json!({ "windows": [window] })
}

/// A gate that asks Prometheus, with some fields changed.
pub(super) fn gate(changes: &Value) -> Value {
    let mut gate = json!({ "prometheus": { "url": "http://prometheus:9090", "query": "up" }, "above": 0.99 });
    merge(&mut gate, changes);
    json!({ "gates": [gate] })
}

fn webhook(url: &str) -> Value {
    gate(&json!({ "prometheus": null, "above": null, "webhook": { "url": url } }))
}

fn bad_waves() -> Vec<(Value, &'static str)> {
    let rises = "percent must rise from wave to wave";
    let rest = "the last wave is the rest: it must have percent: 100 and no selector";
    let either = "set exactly one of count or percent";
    vec![
        (
            wave(&json!({ "percent": 101 })),
            "waves[0].percent in body should be less than or equal to 100",
        ),
        (
            wave(&json!({ "percent": 0 })),
            "waves[0].percent in body should be greater than or equal to 1",
        ),
        (wave(&json!({ "percent": "10%" })), "must be of type integer"),
        (wave(&json!({ "percent": 100 })), rises),
        (
            waves(&[
                json!({ "name": "a", "percent": 10 }),
                json!({ "name": "b", "percent": 5 }),
            ]),
            rises,
        ),
        (
            waves(&[
                json!({ "name": "a", "percent": 10 }),
                json!({ "name": "b", "count": 3 }),
                json!({ "name": "c", "percent": 10 }),
            ]),
            rises,
        ),
        (json!({ "waves": [{ "name": "all", "percent": 99 }] }), rest),
        (json!({ "waves": [{ "name": "all", "count": 100 }] }), rest),
        (
            json!({ "waves": [{ "name": "all", "percent": 100, "selector": { "matchLabels": { "ring": "last" } } }] }),
            rest,
        ),
        (json!({ "waves": [] }), "waves in body should have at least 1 items"),
        (wave(&json!({ "count": 5 })), either),
        (wave(&json!({ "percent": null })), either),
        (
            wave(&json!({ "percent": null, "count": 0 })),
            "waves[0].count in body should be greater than or equal to 1",
        ),
        (wave(&json!({ "name": "rest" })), "Duplicate value"),
        (wave(&json!({ "name": "Canary 1" })), "the name of a wave is lower-case"),
        (wave(&json!({ "name": null })), "waves[0].name: Required value"),
        (
            wave(&json!({ "maxFailed": 1, "maxFailedPercent": 1 })),
            "set maxFailed or maxFailedPercent of a wave, not both",
        ),
        (
            wave(&json!({ "maxFailed": -1 })),
            "maxFailed in body should be greater than or equal to 0",
        ),
        (wave(&json!({ "soak": "a day" })), DURATION),
        (
            waves(
                &(0..20)
                    .map(|n| json!({ "name": format!("w{n}"), "count": 1 }))
                    .collect::<Vec<_>>(),
            ),
            "must have at most 20 items",
        ),
        (
            json!({ "defaults": { "successPercent": 101 } }),
            "successPercent in body should be less than or equal to 100",
        ),
        (
            json!({ "defaults": { "maxFailedPercent": 101 } }),
            "maxFailedPercent in body should be less than or equal to 100",
        ),
        (
            json!({ "defaults": { "minSample": 0 } }),
            "minSample in body should be greater than or equal to 1",
        ),
        (
            json!({ "defaults": { "onBreach": "Ignore" } }),
            "supported values: \"Pause\", \"Abort\", \"Rollback\"",
        ),
        (json!({ "order": { "by": "Name" } }), "supported values: \"NotAfter\""),
        (
            json!({ "order": { "spreadBy": "a b" } }),
            "spreadBy must be the key of a device's label",
        ),
        (
            json!({ "joiners": "First" }),
            "supported values: \"LastWave\", \"Ignore\"",
        ),
    ]
}

fn bad_limits() -> Vec<(Value, &'static str)> {
    vec![
        (
            json!({ "limits": { "maxInFlight": 0 } }),
            "maxInFlight in body should be greater than or equal to 1",
        ),
        (
            json!({ "limits": { "maxInFlight": 10001 } }),
            "maxInFlight in body should be less than or equal to 10000",
        ),
        (
            json!({ "limits": { "maxPerMinute": 0 } }),
            "maxPerMinute in body should be greater than or equal to 1",
        ),
        (
            json!({ "limits": { "ramp": { "factor": 1, "everySucceeded": 5 } } }),
            "factor in body should be greater than or equal to 2",
        ),
        (
            json!({ "limits": { "ramp": { "factor": 2 } } }),
            "limits.ramp.everySucceeded: Required value",
        ),
        (
            json!({ "limits": { "perGroup": { "maxUnavailable": 1 } } }),
            "limits.perGroup.by: Required value",
        ),
        (
            json!({ "limits": { "perGroup": { "by": "" } } }),
            "limits.perGroup.by in body should be at least 1 chars long",
        ),
        (
            json!({ "limits": { "perGroup": { "by": "site", "maxUnavailable": 0 } } }),
            "maxUnavailable in body should be greater than or equal to 1",
        ),
        (json!({ "device": { "stepTimeout": "five minutes" } }), DURATION),
        (json!({ "device": { "trialTimeout": "1.5h" } }), DURATION),
        (json!({ "device": { "jobTimeout": "0s" } }), ZERO),
        (
            json!({ "device": { "retries": { "max": -1 } } }),
            "retries.max in body should be greater than or equal to 0",
        ),
        (
            json!({ "device": { "retries": { "outcomes": ["Rejected"] } } }),
            "supported values: \"Failed\", \"TimedOut\"",
        ),
        (
            json!({ "device": { "retries": { "outcomes": [] } } }),
            "retries.outcomes in body should have at least 1 items",
        ),
        (
            json!({ "oldCertificate": { "retire": "Now" } }),
            "supported values: \"Expire\"",
        ),
        (json!({ "oldCertificate": { "grace": "tomorrow" } }), DURATION),
        (json!({ "oldCertificate": { "probation": "0s" } }), ZERO),
        (json!({ "oldCertificate": { "rollbackMinRemaining": "-7d" } }), DURATION),
    ]
}

fn bad_windows() -> Vec<(Value, &'static str)> {
    let cron = "cron must have five fields: minute, hour, day of month, month, day of week";
    let zone = "timeZone must be an IANA name such as Europe/Berlin or UTC";
    vec![
        (window(&json!({ "cron": "0 1 * *" })), cron),
        (window(&json!({ "cron": "0 0 1 * * *" })), cron),
        (window(&json!({ "cron": "@daily" })), cron),
        (window(&json!({ "cron": "" })), cron),
        (window(&json!({ "cron": null })), "windows[0].cron: Required value"),
        (window(&json!({ "timeZone": "" })), zone),
        (window(&json!({ "timeZone": "Europe/New York" })), zone),
        (window(&json!({ "timeZone": "+01:00" })), zone),
        (
            window(&json!({ "timeZone": null })),
            "windows[0].timeZone: Required value",
        ),
        (window(&json!({ "duration": "0h" })), ZERO),
        (
            window(&json!({ "duration": null })),
            "windows[0].duration: Required value",
        ),
        (
            window(&json!({ "selector": { "matchLabels": { "a b": "x" } } })),
            "label keys are 1 to 63",
        ),
        (
            json!({ "windows": vec![window(&json!({}))["windows"][0].clone(); 21] }),
            "must have at most 20 items",
        ),
        (json!({ "windowOverrideBeforeExpiry": "3 days" }), DURATION),
    ]
}

fn bad_gates() -> Vec<(Value, &'static str)> {
    let source = "set exactly one of prometheus, webhook or online";
    let limit = "a prometheus gate needs above or below";
    let base_url = "url must be http://host or https://host";
    let url = "url must be a URL that begins with http:// or https://";
    vec![
        (gate(&json!({ "prometheus": null, "above": null })), source),
        (gate(&json!({ "online": {} })), source),
        (
            gate(&json!({ "prometheus": null, "above": null, "online": {}, "webhook": { "url": "http://a" } })),
            source,
        ),
        (gate(&json!({ "above": null })), limit),
        (
            gate(&json!({ "prometheus": null, "online": {} })),
            "above and below are for a prometheus gate only",
        ),
        (gate(&json!({ "below": 0.99 })), "above must be less than below"),
        (
            gate(&json!({ "above": "99 %" })),
            "above in body must be of type number",
        ),
        (
            gate(&json!({ "prometheus": { "query": "" } })),
            "query must not be empty",
        ),
        (
            gate(&json!({ "prometheus": { "query": "  " } })),
            "query must not be empty",
        ),
        (
            gate(&json!({ "prometheus": { "query": null } })),
            "gates[0].prometheus.query: Required value",
        ),
        (gate(&json!({ "prometheus": { "url": "prometheus:9090" } })), base_url),
        (gate(&json!({ "prometheus": { "url": "ftp://prometheus" } })), base_url),
        (gate(&json!({ "prometheus": { "url": "" } })), base_url),
        (
            gate(&json!({ "prometheus": { "url": "http://p/?query=up" } })),
            base_url,
        ),
        (webhook("file:///etc/passwd"), url),
        (webhook("https://"), url),
        (webhook("http://a b"), url),
        (gate(&json!({ "every": "0s" })), ZERO),
        (
            gate(&json!({ "failureLimit": -1 })),
            "failureLimit in body should be greater than or equal to 0",
        ),
        (
            gate(&json!({ "prometheus": null, "above": null, "webhook": { "url": "http://a", "timeout": "0s" } })),
            ZERO,
        ),
        (
            gate(&json!({ "prometheus": null, "above": null, "online": { "minPercentOfBefore": 101 } })),
            "minPercentOfBefore in body should be less than or equal to 100",
        ),
        (
            json!({ "gates": vec![gate(&json!({}))["gates"][0].clone(); 11] }),
            "must have at most 10 items",
        ),
    ]
}

/// Every strategy, for a Rotation as it is and for a Fleet below `rotation`.
async fn refused_in_both(cases: Vec<(Value, &'static str)>) {
    let of_fleet = cases
        .iter()
        .map(|(change, says)| (json!({ "rotation": change }), *says));
    refused_at_creation("Fleet", of_fleet.collect()).await;
    refused_at_creation("Rotation", cases).await;
}

#[tokio::test]
async fn bad_waves_are_refused() {
    refused_in_both(bad_waves()).await;
}

#[tokio::test]
async fn bad_limits_are_refused() {
    refused_in_both(bad_limits()).await;
}

#[tokio::test]
async fn bad_windows_are_refused() {
    refused_in_both(bad_windows()).await;
}

#[tokio::test]
async fn bad_gates_are_refused() {
    refused_in_both(bad_gates()).await;
}

#[tokio::test]
async fn a_bad_fleet_history_is_refused() {
    let cases = vec![(
        json!({ "rotation": { "historyLimit": -1 } }),
        "historyLimit in body should be greater than or equal to 0",
    )];
    refused_at_creation("Fleet", cases).await;
}

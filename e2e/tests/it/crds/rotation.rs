//! Rotations that the API server accepts or refuses, and what of them may change later.

use serde_json::{Value, json};

use super::objects::{Objects, good, merge, refusal};
use super::refusals::{refused_at_creation, refused_later};
use super::strategy::{gate, wave, window};
use crate::shared;

/// A Rotation away from a CA that is no longer safe, with some fields changed.
fn compromise(changes: &Value) -> Value {
    let mut spec = json!({ "reason": "CACompromise", "issuerRef": { "name": "issuing-2" } });
    merge(&mut spec, changes);
    spec
}

#[tokio::test]
async fn a_bad_rotation_is_refused() {
    let rollback = "onBreach cannot be Rollback with reason CACompromise";
    let cutoff = "cutoff is for the reason CACompromise only";
    let emergency = "mode Emergency is for the reason CACompromise only";
    let through_wave = "control.approval.throughWave is above the number of waves";
    let hash = "planHash must be the 64 hexadecimal digits of status.plan.hash";
    let approval = |approval: Value| json!({ "control": { "approval": approval } });
    let approval_of_two = |through: i32| {
        let mut spec = wave(&json!({}));
        merge(&mut spec, &approval(json!({ "throughWave": through })));
        spec
    };
    let cases = vec![
        (json!({ "reason": "CAChange" }), "issuerRef says where the fleet moves"),
        (
            json!({ "reason": "CACompromise" }),
            "issuerRef says where the fleet moves",
        ),
        (
            json!({ "issuerRef": { "name": "issuing-2" } }),
            "issuerRef is for the reasons CAChange and CACompromise only",
        ),
        (json!({ "reason": "Whim" }), "supported values: \"Expiry\""),
        (json!({ "fleetRef": null }), "spec.fleetRef: Required value"),
        (
            json!({ "selector": { "matchLabels": { "a b": "x" } } }),
            "label keys are 1 to 63",
        ),
        (json!({ "mode": "Plan" }), "supported values: \"Preview\""),
        (json!({ "mode": "Emergency" }), emergency),
        (
            json!({ "mode": "Emergency", "reason": "CAChange", "issuerRef": { "name": "issuing-2" } }),
            emergency,
        ),
        (json!({ "cutoff": "2030-01-01T00:00:00Z" }), cutoff),
        (
            compromise(&json!({ "cutoff": "soon" })),
            "cutoff in body must be of type date-time",
        ),
        (compromise(&json!({ "defaults": { "onBreach": "Rollback" } })), rollback),
        (compromise(&wave(&json!({ "onBreach": "Rollback" }))), rollback),
        (
            json!({ "control": { "state": "Stopped" } }),
            "supported values: \"Running\"",
        ),
        (
            approval(json!({ "throughWave": -1 })),
            "throughWave in body should be greater than or equal to 0",
        ),
        (approval_of_two(3), through_wave),
        (
            approval(json!({ "throughWave": 21 })),
            "throughWave in body should be less than or equal to 20",
        ),
        (approval(json!({ "throughWave": 1, "planHash": "abc" })), hash),
        (approval(json!({ "throughWave": 1, "planHash": "A".repeat(64) })), hash),
        (
            json!({ "control": { "resume": "r".repeat(65) } }),
            "Too long: may not be more than 64",
        ),
        (
            json!({ "control": { "retryFailed": "r".repeat(65) } }),
            "Too long: may not be more than 64",
        ),
    ];
    refused_at_creation("Rotation", cases).await;
}

#[tokio::test]
async fn a_rotation_keeps_what_it_was_created_with_but_for_control() {
    let kept = "a Rotation keeps what it was created with; only control may change";
    let later = vec![
        (json!({ "fleetRef": { "name": "others" } }), kept),
        (json!({ "reason": "KeyPolicy" }), kept),
        (
            json!({ "reason": "CAChange", "issuerRef": { "name": "issuing-2" } }),
            kept,
        ),
        (json!({ "mode": "Preview" }), kept),
        (json!({ "limits": { "maxInFlight": 30 } }), kept),
        (json!({ "limits": { "maxPerMinute": 30 } }), kept),
        (json!({ "limits": null }), kept),
        (json!({ "selector": null }), kept),
        (json!({ "selector": { "matchLabels": { "ring": "canary" } } }), kept),
        (json!({ "device": { "stepTimeout": "1m" } }), kept),
        (json!({ "oldCertificate": {} }), kept),
        (json!({ "order": { "spreadBy": "site" } }), kept),
        (wave(&json!({})), kept),
        (json!({ "defaults": { "maxLost": 2 } }), kept),
        (window(&json!({})), kept),
        (json!({ "windowOverrideBeforeExpiry": "1h" }), kept),
        (json!({ "joiners": "Ignore" }), kept),
        (gate(&json!({})), kept),
        (json!({ "control": { "state": "Paused" } }), ""),
        (
            json!({ "control": {
                "approval": { "throughWave": 1, "planHash": "0a".repeat(32) },
                "resume": "ticket-1",
                "retryFailed": "ticket-2",
            } }),
            "",
        ),
        (json!({ "control": { "state": "Aborted" } }), ""),
    ];
    refused_later("Rotation", good("Rotation"), later).await;

    let mut staged = good("Rotation");
    merge(&mut staged, &compromise(&everything()));
    let later = vec![
        (wave(&json!({})), kept),
        (json!({ "waves": null }), kept),
        (json!({ "gates": [] }), kept),
        (json!({ "windows": [] }), kept),
        // Set after a preview has named whom it cuts off, and put off when too many are left.
        (json!({ "cutoff": "2031-01-01T00:00:00Z" }), ""),
        (json!({ "mode": "Run" }), kept),
        (json!({ "control": { "approval": { "throughWave": 1 } } }), ""),
    ];
    refused_later("Rotation", staged, later).await;

    let mut aborted = good("Rotation");
    merge(&mut aborted, &json!({ "control": { "state": "Aborted" } }));
    let stays = "an aborted Rotation stays aborted";
    let later = vec![
        (json!({ "control": { "state": "Running" } }), stays),
        (json!({ "control": null }), stays),
    ];
    refused_later("Rotation", aborted, later).await;
}

/// Every part of a Rotation, as a person might write it.
fn everything() -> Value {
    json!({
        "mode": "Emergency",
        "cutoff": "2030-01-01T00:00:00Z",
        "order": { "by": "NotAfter", "spreadBy": "site" },
        "waves": [
            {
                "name": "canary", "count": 5, "selector": { "matchLabels": { "ring": "canary" } },
                "maxFailed": 0, "maxLost": 0, "successPercent": 100, "minSample": 1, "onBreach": "Abort",
                "soak": "24h", "approval": true,
            },
            { "name": "early", "percent": 10, "maxFailedPercent": 2, "soak": "4h", "approval": false },
            { "name": "rest", "percent": 100, "soak": "0s", "approval": false },
        ],
        "defaults": { "successPercent": 90, "maxFailedPercent": 1, "minSample": 10, "maxLost": 2, "onBreach": "Pause" },
        "limits": {
            "maxInFlight": 20, "maxPerMinute": 200,
            "ramp": { "from": 5, "factor": 3, "everySucceeded": 500 },
            "perGroup": { "by": "site", "maxUnavailable": 2 },
        },
        "device": {
            "stepTimeout": "1m", "trialTimeout": "1m", "jobTimeout": "30m", "offlineAfter": "10m", "lostAfter": "48h",
            "retries": { "max": 1, "backoff": "1m", "outcomes": ["TimedOut"] },
        },
        "windows": [{
            "cron": "30 1 * * MON-FRI", "duration": "1h30m", "timeZone": "America/Argentina/Buenos_Aires",
            "selector": { "matchLabels": { "site": "salta" } },
        }],
        "windowOverrideBeforeExpiry": "0s",
        "joiners": "Ignore",
        "oldCertificate": { "retire": "Revoke", "grace": "1h", "probation": "5m", "reconnectsPerSecond": 10, "rollbackMinRemaining": "1d" },
        "gates": [
            {
                "prometheus": { "url": "https://prometheus.example.com/prefix/", "query": "avg(up)" },
                "above": 0.5, "below": 1.5, "every": "30s", "failureLimit": 1, "errorLimit": 0,
            },
            {
                "webhook": { "url": "http://[2001:db8::1]:8080/ok?fleet=meters", "timeout": "1s" },
                "every": "1m", "failureLimit": 0, "errorLimit": 4,
            },
            { "online": { "minPercentOfBefore": 90 }, "every": "1m", "failureLimit": 0, "errorLimit": 4 },
        ],
        "control": {
            "state": "Paused", "approval": { "throughWave": 2, "planHash": "ab".repeat(32) },
            "resume": "one", "retryFailed": "two",
        },
    })
}

#[tokio::test]
async fn a_rotation_that_says_everything_is_kept_as_written() {
    let server = shared::api().await;
    let namespace = server.namespace("everything").await.unwrap();
    let objects = Objects::of(&server, "Rotation", &namespace).await;
    let mut spec = good("Rotation");
    merge(&mut spec, &compromise(&everything()));
    let kept = objects.create("x", spec.clone(), false).await.unwrap();
    assert_eq!(kept.data["spec"], spec);

    let read: certwave_crds::Rotation = serde_json::from_value(json!(kept)).unwrap();
    assert_eq!(json!(read.spec), spec);
}

#[tokio::test]
async fn what_contradicts_itself_only_at_first_sight_is_accepted() {
    let server = shared::api().await;
    let namespace = server.namespace("accepted").await.unwrap();
    let objects = Objects::of(&server, "Rotation", &namespace).await;
    let accepted = [
        json!({ "waves": [{ "name": "all", "percent": 100 }] }),
        json!({ "waves": [{ "name": "all", "percent": 100, "selector": { "matchLabels": {} } }] }),
        wave(&json!({ "percent": null, "count": 3 })),
        json!({ "gates": [], "windows": [], "windowOverrideBeforeExpiry": "0s" }),
        gate(&json!({ "above": null, "below": 3 })),
        gate(&json!({ "above": -0.5, "below": 3 })),
        window(&json!({ "cron": "*/15 0-6,22,23 1-7 JAN,JUL SUN#1", "timeZone": "Etc/GMT+3" })),
        json!({ "limits": { "ramp": { "everySucceeded": 100 } } }),
        compromise(&json!({ "mode": "Run", "cutoff": "2030-01-01T00:00:00Z" })),
        compromise(&json!({ "defaults": { "onBreach": "Abort" } })),
        json!({ "mode": "Preview", "control": { "approval": { "throughWave": 0, "planHash": "" } } }),
    ];
    for change in accepted {
        let mut spec = good("Rotation");
        merge(&mut spec, &change);
        assert_eq!(refusal(objects.create("x", spec, true).await), "", "{change}");
    }
}

//! Revocations that are refused, and how.

use serde_json::json;

use super::objects::{good, merge};
use super::refusals::{refused_at_creation, refused_later};

#[tokio::test]
async fn a_bad_revocation_of_a_device_is_refused() {
    let revocation = |spec: serde_json::Value| json!({ "revocation": spec });
    let cases = vec![
        (revocation(json!({ "reason": "stolen" })), "Unsupported value"),
        (
            revocation(json!({ "reason": "cACompromise" })),
            "cACompromise is for the certificate of a CA",
        ),
        (
            revocation(json!({ "hold": true, "reason": "keyCompromise" })),
            "hold: true goes without reason",
        ),
        (
            revocation(json!({ "hold": true, "since": "2026-01-01T00:00:00Z" })),
            "hold: true goes without reason",
        ),
        (
            revocation(json!({ "serial": "0A:1B" })),
            "serial is the number in lower-case hex",
        ),
        (revocation(json!({ "since": "yesterday" })), "date-time"),
    ];
    refused_at_creation("DeviceCertificate", cases).await;
    let with = |spec| {
        let mut device = good("DeviceCertificate");
        merge(&mut device, &revocation(spec));
        device
    };
    let later = vec![
        (
            revocation(json!({ "hold": false })),
            "to release the hold take spec.revocation out",
        ),
        (revocation(json!({ "hold": false, "reason": "keyCompromise" })), ""),
        (json!({ "revocation": null }), ""),
    ];
    refused_later("DeviceCertificate", with(json!({ "hold": true })), later).await;
    let later = vec![
        (
            revocation(json!({ "hold": true, "reason": null })),
            "a revocation cannot become a hold",
        ),
        (json!({ "revocation": null }), ""),
        (revocation(json!({ "reason": "superseded" })), ""),
    ];
    refused_later("DeviceCertificate", with(json!({ "reason": "keyCompromise" })), later).await;
    let policy = vec![(json!({ "deletionPolicy": "Delete" }), "Unsupported value")];
    refused_at_creation("Fleet", policy).await;
}

#[tokio::test]
async fn a_bad_revocation_of_many_is_refused() {
    let whom = "set issuerRef, or fleetRef and selector";
    let cases = vec![
        (json!({ "issuerRef": null }), whom),
        (json!({ "fleetRef": { "name": "meters" } }), whom),
        (json!({ "certificateAuthority": { "name": "plant-1" } }), whom),
        (
            json!({ "issuerRef": null, "selector": {} }),
            "an empty selector would be every device",
        ),
        (
            json!({ "reason": "cACompromise" }),
            "cACompromise is for the certificate of a CA",
        ),
        (json!({ "hold": true }), "hold: true goes without reason"),
        (json!({ "release": true }), "only a hold can be released"),
        (
            json!({ "issuerRef": null, "reason": null, "certificateAuthority": { "name": "plant-1" }, "hold": true }),
            "a CA cannot be put on hold",
        ),
        (
            json!({ "planHash": "abc" }),
            "planHash must be the 64 hexadecimal digits",
        ),
        (json!({ "mode": "Emergency" }), "Unsupported value"),
    ];
    refused_at_creation("Revocation", cases).await;
    let later = vec![
        (json!({ "mode": "Run" }), ""),
        (
            json!({ "issuerRef": { "name": "plant-2" } }),
            "create another Revocation",
        ),
        (json!({ "reason": "superseded" }), "create another Revocation"),
        (json!({ "reason": null, "hold": true }), "create another Revocation"),
    ];
    refused_later("Revocation", good("Revocation"), later).await;
    let held = json!({ "fleetRef": { "name": "meters" }, "hold": true, "mode": "Run" });
    let later = vec![
        (json!({ "mode": "Preview" }), "cannot go back to Preview"),
        (json!({ "release": true }), ""),
        (json!({ "hold": false }), "create another Revocation"),
    ];
    refused_later("Revocation", held, later).await;
    let released = json!({ "fleetRef": { "name": "meters" }, "hold": true, "mode": "Run", "release": true });
    let later = vec![(json!({ "release": false }), "what was released stays so")];
    refused_later("Revocation", released, later).await;
}

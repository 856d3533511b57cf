//! What the API server refuses, and the words that a person reads then.

use serde_json::{Value, json};

use super::objects::{Objects, claim, good, merge, refusal, with_claim};
use crate::shared;

/// Creates each good spec with a change, and wants the part of the message.
pub(super) async fn refused_at_creation(kind: &str, cases: Vec<(Value, &str)>) {
    let server = shared::api().await;
    let namespace = server.namespace("refuse").await.unwrap();
    let objects = Objects::of(&server, kind, &namespace).await;
    assert_eq!(refusal(objects.create("x", good(kind), true).await), "", "{kind}");
    for (change, says) in cases {
        let mut spec = good(kind);
        merge(&mut spec, &change);
        let message = refusal(objects.create("x", spec, true).await);
        assert!(
            message.contains(says),
            "{kind} {change}: wanted {says:?}, got {message:?}"
        );
    }
}

/// Changes an object that exists, and wants the part of the message; an empty one means that it is accepted.
pub(super) async fn refused_later(kind: &str, first: Value, cases: Vec<(Value, &str)>) {
    let server = shared::api().await;
    let namespace = server.namespace("refuse").await.unwrap();
    let objects = Objects::of(&server, kind, &namespace).await;
    objects.create("x", first, false).await.unwrap();
    for (change, says) in cases {
        let message = refusal(objects.change("x", &change).await);
        let as_wanted = if says.is_empty() {
            message.is_empty()
        } else {
            message.contains(says)
        };
        assert!(as_wanted, "{kind} {change}: wanted {says:?}, got {message:?}");
    }
}

#[tokio::test]
async fn a_bad_device_is_refused() {
    let bad_id = "deviceId is 1 to 56 letters";
    let label_keys = "label keys are 1 to 63";
    let cases = vec![
        (json!({ "deviceId": "~controller" }), bad_id),
        (json!({ "deviceId": "~claim.run-1" }), bad_id),
        (json!({ "deviceId": "+" }), bad_id),
        (json!({ "deviceId": "meters#" }), bad_id),
        (json!({ "deviceId": "meters/1" }), bad_id),
        (json!({ "deviceId": "-1" }), bad_id),
        (json!({ "deviceId": "meter\n" }), bad_id),
        (json!({ "deviceId": "a b" }), bad_id),
        (json!({ "deviceId": "zähler" }), bad_id),
        (
            json!({ "deviceId": "m".repeat(57) }),
            "Too long: may not be more than 56",
        ),
        (
            json!({ "deviceId": "" }),
            "spec.deviceId in body should be at least 1 chars long",
        ),
        (json!({ "deviceId": null }), "spec.deviceId: Required value"),
        (json!({ "fleetRef": null }), "spec.fleetRef: Required value"),
        (json!({ "fleetRef": { "name": "" } }), "spec.fleetRef.name"),
        (json!({ "labels": { "": "x" } }), label_keys),
        (json!({ "labels": { "a b": "x" } }), label_keys),
        (json!({ "labels": { "k".repeat(64): "x" } }), label_keys),
        (
            json!({ "labels": { "site": "x".repeat(64) } }),
            "Too long: may not be more than 63",
        ),
        (json!({ "reenrol": { "permit": "" } }), "spec.reenrol.permit"),
    ];
    refused_at_creation("DeviceCertificate", cases).await;
    let later = vec![
        (json!({ "deviceId": "meter-0002" }), "deviceId cannot change"),
        (
            json!({ "labels": { "site": "berlin" }, "reenrol": { "permit": "T-1" } }),
            "",
        ),
    ];
    refused_later("DeviceCertificate", good("DeviceCertificate"), later).await;
}

#[tokio::test]
async fn a_bad_ca_is_refused() {
    let one_source = "set exactly one of root, subordinate, external or secret";
    let base_url = "baseURL must be http://host or https://host";
    let duration = "must be a duration such as 5m, 24h or 90d";
    let renew = "renewBefore must be less than validity";
    let pem = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
    let cases = vec![
        (json!({ "root": null }), one_source),
        (json!({ "secret": { "secretRef": { "name": "s" } } }), one_source),
        (
            json!({ "external": {}, "subordinate": { "issuerRef": { "name": "r" } } }),
            one_source,
        ),
        (
            json!({ "root": null, "subordinate": {} }),
            "spec.subordinate.issuerRef: Required value",
        ),
        (
            json!({ "root": null, "external": { "certificate": "MIIB" } }),
            "certificate must be PEM",
        ),
        (
            json!({ "root": null, "external": { "certificate": pem, "certificateSecretRef": { "name": "s" } } }),
            "not in both",
        ),
        (json!({ "keyAlgorithm": "DSA" }), "supported values: \"ECDSA-P256\""),
        (
            json!({ "publication": { "baseURL": "ftp://pki.example.com" } }),
            base_url,
        ),
        (json!({ "publication": { "baseURL": "pki.example.com" } }), base_url),
        (json!({ "publication": { "baseURL": "http://" } }), base_url),
        (
            json!({ "publication": { "baseURL": "http://pki.example.com/" } }),
            base_url,
        ),
        (
            json!({ "publication": { "baseURL": "http://pki.example.com/a?b" } }),
            base_url,
        ),
        (
            json!({ "publication": { "baseURL": "http://pki example.com" } }),
            base_url,
        ),
        (json!({ "validity": "10y" }), duration),
        (json!({ "validity": "3650" }), duration),
        (json!({ "validity": "-5m" }), duration),
        (json!({ "validity": "" }), duration),
        (json!({ "validity": "0d" }), "must be more than 0"),
        (json!({ "crl": { "validity": "7d", "renewBefore": "7d" } }), renew),
        (json!({ "crl": { "validity": "24h", "renewBefore": "1440m" } }), renew),
        (json!({ "crl": { "validity": "2d" } }), renew),
        (
            json!({ "pathLength": -1 }),
            "spec.pathLength in body should be greater than or equal to 0",
        ),
        (
            json!({ "commonName": "c".repeat(65) }),
            "Too long: may not be more than 64",
        ),
    ];
    refused_at_creation("CertificateAuthority", cases).await;

    let source = "the source of a CA cannot change";
    let later = vec![
        (json!({ "keyAlgorithm": "ECDSA-P384" }), "keyAlgorithm cannot change"),
        (json!({ "root": null, "external": {} }), source),
        (json!({ "keySecretName": "another" }), "keySecretName cannot change"),
        (
            json!({ "validity": "100d", "crl": { "validity": "200h", "renewBefore": "3d" } }),
            "",
        ),
    ];
    refused_later("CertificateAuthority", good("CertificateAuthority"), later).await;
    let subordinate = json!({ "subordinate": { "issuerRef": { "name": "root" } } });
    let later = vec![(
        json!({ "subordinate": { "issuerRef": { "name": "another" } } }),
        "the issuer of a subordinate CA cannot change",
    )];
    refused_later("CertificateAuthority", subordinate, later).await;
    let later = vec![
        (json!({ "external": { "certificate": pem } }), ""),
        (json!({ "external": null, "root": {} }), source),
    ];
    refused_later("CertificateAuthority", json!({ "external": {} }), later).await;
}

#[tokio::test]
async fn a_bad_broker_is_refused() {
    let url = "url must be mqtts://host:port";
    let prefix = "topicPrefix is letters, digits";
    let certificates = "set issuerRef, or both credential and controlSecretRef";
    let selector = "set selector when from is Selector, and only then";
    let cases = vec![
        (json!({ "id": "Mqtt" }), "id is lower-case letters"),
        (json!({ "id": "a/b" }), "id is lower-case letters"),
        (json!({ "id": "b".repeat(41) }), "Too long: may not be more than 40"),
        (json!({ "url": "http://mqtt.example.com:8883" }), url),
        (json!({ "url": "mqtt://mqtt.example.com:1883" }), url),
        (json!({ "url": "mqtts://mqtt.example.com" }), url),
        (json!({ "url": "mqtts://mqtt.example.com:8883/topic" }), url),
        (json!({ "url": "mqtts://::1:8883" }), url),
        (
            json!({ "claimsUrl": "mqtt.example.com:8884" }),
            "claimsUrl must be mqtts://host:port",
        ),
        (json!({ "topicPrefix": "fleet/+" }), prefix),
        (json!({ "topicPrefix": "#" }), prefix),
        (json!({ "topicPrefix": "/fleet" }), prefix),
        (json!({ "topicPrefix": "fleet/" }), prefix),
        (json!({ "topicPrefix": "$SYS" }), prefix),
        (
            json!({ "trust": { "issuerRef": null } }),
            "set exactly one of issuerRef, secretRef or caBundle",
        ),
        (
            json!({ "trust": { "secretRef": { "name": "s" } } }),
            "set exactly one of issuerRef, secretRef or caBundle",
        ),
        (
            json!({ "trust": { "issuerRef": null, "caBundle": "MIIB" } }),
            "caBundle must be PEM",
        ),
        (json!({ "issuerRef": null }), certificates),
        (
            json!({ "issuerRef": null, "credential": { "secretRef": { "name": "s" } } }),
            certificates,
        ),
        (
            json!({
                "issuerRef": null,
                "credential": { "secretRef": { "name": "s" } },
                "controlSecretRef": { "name": "s" },
                "serverCertificate": { "secretName": "s", "dnsNames": ["a"] },
            }),
            "serverCertificate needs issuerRef",
        ),
        (
            json!({ "serverCertificate": { "secretName": "s" } }),
            "name the broker in dnsNames or ipAddresses",
        ),
        (
            json!({ "serverCertificate": { "secretName": "s", "dnsNames": ["a b"] } }),
            "dnsNames holds what is no DNS name",
        ),
        (
            json!({ "serverCertificate": { "secretName": "s", "ipAddresses": ["10.0.0.300"] } }),
            "ipAddresses holds what is no IP address",
        ),
        (json!({ "allowedNamespaces": { "from": "Selector" } }), selector),
        (
            json!({ "allowedNamespaces": { "selector": { "matchLabels": { "a": "b" } } } }),
            selector,
        ),
        (
            json!({ "adapter": "Vernemq" }),
            "supported values: \"Mosquitto\", \"Generic\", \"Nats\", \"Emqx\"",
        ),
        (json!({ "adapter": "Nats" }), "set nats when adapter is Nats"),
        (
            json!({ "emqx": { "url": "https://emqx.example.com", "secretRef": { "name": "emqx" } } }),
            "set emqx when adapter is Emqx",
        ),
        (
            json!({ "adapter": "Nats", "nats": { "url": "nats://h:4222", "secretRef": { "name": "nats" } } }),
            "url must be tls://host:port of the client port",
        ),
        (
            json!({ "adapter": "Nats", "nats": { "url": "tls://h:4222", "secretRef": { "name": "nats" }, "user": "CN=x" } }),
            "user must hold {deviceId}",
        ),
        (
            json!({ "nodes": 0 }),
            "spec.nodes in body should be greater than or equal to 1",
        ),
    ];
    refused_at_creation("Broker", cases).await;
    let later = vec![
        (json!({ "id": "another" }), "id cannot change"),
        (json!({ "topicPrefix": "another" }), "topicPrefix cannot change"),
        (
            json!({ "url": "mqtts://[2001:db8::1]:8883", "claimsUrl": "mqtts://10.0.0.1:8884" }),
            "",
        ),
    ];
    refused_later("Broker", good("Broker"), later).await;
}

#[tokio::test]
async fn a_bad_fleet_is_refused() {
    let either = "a claim has either a deviceId (bound to one device) or a quota";
    let renew = "renewBefore must be less than validity";
    let twice = json!({ "enrolment": { "claims": [claim(&json!({ "quota": 1 })), claim(&json!({ "quota": 2 }))] } });
    let cases = vec![
        (with_claim(&json!({})), either),
        (with_claim(&json!({ "quota": 1, "deviceId": "meter-0001" })), either),
        (
            with_claim(&json!({ "deviceId": "~controller" })),
            "deviceId is 1 to 56 letters",
        ),
        (
            with_claim(&json!({ "quota": 0 })),
            "quota in body should be greater than or equal to 1",
        ),
        (
            with_claim(&json!({ "quota": 1, "name": "Run_1" })),
            "the name of a claim is lower-case letters",
        ),
        (with_claim(&json!({ "quota": 1, "csr": "MIIB" })), "csr must be PEM"),
        (
            with_claim(&json!({ "quota": 1, "notAfter": "tomorrow" })),
            "notAfter in body must be of type date-time",
        ),
        (
            with_claim(&json!({ "quota": 1, "notAfter": null })),
            "notAfter: Required value",
        ),
        (twice, "Duplicate value"),
        (json!({ "certificate": { "validity": "30d" } }), renew),
        (
            json!({ "certificate": { "validity": "12h", "renewBefore": "12h30m" } }),
            renew,
        ),
        (
            json!({ "certificate": { "keyAlgorithms": [] } }),
            "should have at least 1 items",
        ),
        (
            json!({ "certificate": { "keyAlgorithms": ["RSA-1024"] } }),
            "supported values: \"ECDSA-P256\"",
        ),
        (
            json!({ "certificate": { "keyAlgorithms": ["Ed25519", "Ed25519"] } }),
            "Duplicate value",
        ),
        (
            json!({ "certificate": { "subject": { "country": "Germany" } } }),
            "Too long: may not be more than 2",
        ),
        (
            json!({ "certificate": { "subject": { "country": "de" } } }),
            "country is two capital letters",
        ),
        (
            json!({ "certificate": { "sans": { "dns": ["{device}.example.com"] } } }),
            "dns may hold {deviceId}",
        ),
        (
            json!({ "certificate": { "sans": { "uris": ["urn:{x"] } } }),
            "uris may hold {deviceId}",
        ),
        (json!({ "brokerRef": null }), "spec.brokerRef: Required value"),
    ];
    refused_at_creation("Fleet", cases).await;

    let csr = "-----BEGIN CERTIFICATE REQUEST-----\nMIIC\n-----END CERTIFICATE REQUEST-----\n";
    let kept = "csr and deviceId of a claim cannot change";
    let later = vec![
        (json!({ "brokerRef": { "name": "another" } }), "brokerRef cannot change"),
        (with_claim(&json!({ "quota": 100, "csr": csr })), kept),
        (with_claim(&json!({ "deviceId": "meter-0001" })), kept),
        (with_claim(&json!({ "quota": 200, "suspended": true })), ""),
        (
            with_claim(&json!({ "name": "run-2", "deviceId": "meter-0001", "csr": csr })),
            "",
        ),
        (
            json!({ "enrolment": { "claims": [] }, "issuerRef": { "name": "issuing-2" } }),
            "",
        ),
        (json!({ "certificate": { "validity": "2d", "renewBefore": "36h" } }), ""),
    ];
    refused_later("Fleet", good("Fleet"), later).await;
}

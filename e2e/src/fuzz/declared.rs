//! What people with access to the cluster declare: CAs in Secrets, and objects, as the API server hands them over.

use anyhow::Result;
use certwave_controller::reconcile::strategy::strategy;
use certwave_crds::{Broker, DeviceCertificate, Fleet, Revocation, Rotation};
use certwave_pki::{CaProfile, CertificateAuthority, KeyAlgorithm, PrivateKey, certificates_to_pem};
use secrecy::ExposeSecret as _;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::targets::{NOW, Target};

/// A Secret with a CA: the chain, and behind a zero the key.
pub(super) fn imported_ca(root: &CertificateAuthority) -> Result<Target> {
    let [key, alone] = [KeyAlgorithm::EcdsaP256, KeyAlgorithm::EcdsaP384].map(PrivateKey::generate);
    let (key, alone) = (key?, alone?);
    let issuing = root.sign_subordinate(key.public_key(), &CaProfile::named("Plant issuing"), NOW)?;
    let secret = |chain: String, key: &PrivateKey| [&chain, key.to_pkcs8_pem().expose_secret()].join("\0").into_bytes();
    let mut seeds = vec![secret(
        certificates_to_pem([issuing.as_ref(), root.certificate_der()]),
        &key,
    )];
    let keys = [key.spki_der().to_vec(), alone.spki_der().to_vec()];
    let text = alone.to_pkcs8_pem();
    let own = CertificateAuthority::self_signed(alone, &CaProfile::named("Plant other"), NOW)?;
    let own = certificates_to_pem([own.certificate_der()]);
    seeds.push([&own, text.expose_secret()].join("\0").into_bytes());
    Ok(Target::new("imported-ca", seeds, move |input| {
        let taken = || {
            let (chain, key) = std::str::from_utf8(input).ok()?.split_once('\0')?;
            CertificateAuthority::import(chain, PrivateKey::from_pem(key).ok()?, NOW).ok()
        };
        let Some(ca) = taken() else {
            return false;
        };
        // One whose issuer did not sign it, or with another key, would issue what nobody lets in.
        assert!(
            keys.iter().any(|key| *key == ca.public_key().spki_der()),
            "another CA was taken"
        );
        true
    }))
}

/// Objects of every kind.
pub(super) fn objects() -> Result<Target> {
    let fleet: Fleet = serde_json::from_value(fleet())?;
    let seeds = seeds().iter().map(|object| object.to_string().into_bytes()).collect();
    Ok(Target::new("object", seeds, move |input| {
        let Ok(object) = serde_json::from_slice::<Value>(input) else {
            return false;
        };
        match object["kind"].as_str() {
            Some("CertificateAuthority") => taken::<certwave_crds::CertificateAuthority>(object).is_some(),
            Some("Broker") => taken::<Broker>(object).is_some(),
            Some("DeviceCertificate") => taken::<DeviceCertificate>(object).is_some(),
            Some("Revocation") => taken::<Revocation>(object).is_some(),
            // A strategy that cannot be worked by is said so, which is as good.
            Some("Fleet") => taken::<Fleet>(object).is_some_and(|fleet| strategy(&fleet, None).is_ok()),
            Some("Rotation") => {
                taken::<Rotation>(object).is_some_and(|rotation| strategy(&fleet, Some(&rotation)).is_ok())
            }
            _ => false,
        }
    }))
}

/// The object, if it is one of this kind. What is written of it later must be what was read.
fn taken<T: DeserializeOwned + Serialize>(object: Value) -> Option<T> {
    let read: T = serde_json::from_value(object).ok()?;
    let written = serde_json::to_value(&read).expect("what was read can be written");
    let again: T = serde_json::from_value(written.clone()).expect("what was written can be read");
    assert_eq!(
        serde_json::to_value(&again).ok(),
        Some(written),
        "an object changes by being read"
    );
    Some(read)
}

fn object(kind: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "certwave.dev/v1alpha1", "kind": kind,
        "metadata": { "name": "meters", "namespace": "plant", "uid": "f3", "generation": 2, "labels": { "site": "berlin" } },
        "spec": spec,
    })
}

fn fleet() -> Value {
    object(
        "Fleet",
        &json!({
            "issuerRef": { "name": "issuing" },
            "brokerRef": { "name": "mqtt" },
            "certificate": {
                "validity": "30d", "renewBefore": "10d", "backdate": "10m", "keyAlgorithms": ["ECDSA-P256", "Ed25519"],
                "subject": { "organization": "Example", "country": "DE" },
                "sans": { "dns": ["{deviceId}.example.com"], "uris": ["urn:example:{namespace}:{fleet}:{deviceId}"] },
            },
            "enrolment": { "policy": "Declared", "claims": [{ "name": "line-1", "quota": 50, "csr": "x", "notAfter": "2027-01-01T00:00:00Z" }] },
            "deletionPolicy": "Keep",
            "rotation": {
                "order": { "by": "NotAfter", "spreadBy": "site" },
                "waves": [
                    { "name": "canary", "count": 5, "selector": { "matchLabels": { "ring": "canary" } }, "maxFailed": 0, "soak": "24h", "approval": true },
                    { "name": "rest", "percent": 100 },
                ],
                "defaults": { "successPercent": 95, "maxFailedPercent": 5, "minSample": 20, "maxLost": 1, "onBreach": "Rollback" },
                "limits": {
                    "maxInFlight": 200, "maxPerMinute": 100, "ramp": { "from": 10, "factor": 2, "everySucceeded": 500 },
                    "perGroup": { "by": "site", "maxUnavailable": 1 },
                },
                "windows": [{ "cron": "0 22 * * MON-FRI", "duration": "6h", "timeZone": "Europe/Berlin" }],
                "gates": [{ "online": { "minPercentOfBefore": 98 } }],
                "oldCertificate": { "retire": "Revoke", "grace": "1d" },
            },
        }),
    )
}

fn seeds() -> Vec<Value> {
    vec![
        fleet(),
        object(
            "Rotation",
            &json!({
                "fleetRef": { "name": "meters" }, "reason": "Manual", "selector": { "matchLabels": { "site": "berlin" } },
                "waves": [{ "name": "canary", "percent": 5, "soak": "2h" }, { "name": "rest", "percent": 100 }],
                "windows": [{ "cron": "*/15 3-5 1,15 * *", "duration": "10m", "timeZone": "America/St_Johns" }],
                "control": { "state": "Paused", "approval": { "throughWave": 1, "planHash": "0a" } },
            }),
        ),
        object(
            "DeviceCertificate",
            &json!({
                "deviceId": "meter-0001", "fleetRef": { "name": "meters" }, "labels": { "ring": "canary" },
                "reenrol": { "permit": "once" },
                "revocation": { "reason": "keyCompromise", "since": "2026-11-01T00:00:00Z", "hold": false },
            }),
        ),
        object(
            "CertificateAuthority",
            &json!({ "root": {}, "commonName": "Plant root", "publication": { "baseURL": "http://pki.example.com" } }),
        ),
        object(
            "Broker",
            &json!({
                "id": "kind", "url": "mqtts://mqtt.example.com:8883", "claimsUrl": "mqtts://mqtt.example.com:8884",
                "trust": { "issuerRef": { "name": "root" } }, "issuerRef": { "name": "root" }, "mosquitto": { "crlSync": {} },
            }),
        ),
        object(
            "Revocation",
            &json!({ "issuerRef": { "name": "issuing" }, "reason": "keyCompromise", "mode": "Preview" }),
        ),
    ]
}

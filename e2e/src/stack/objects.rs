//! What a person would write in YAML.

use serde_json::{Value, json};

/// Names that the stack's objects have.
pub const CA: &str = "root";
/// The Broker.
pub const BROKER: &str = "mqtt";
/// The Fleet.
pub const FLEET: &str = "meters";
/// The Secret with the broker's server certificate.
pub const SERVER_SECRET: &str = "mqtt-server";
const API_VERSION: &str = "certwave.dev/v1alpha1";

/// How the fleet of a stack is set up.
#[derive(Debug, Clone)]
pub struct FleetOptions {
    /// Devices in flight at once.
    pub max_in_flight: i32,
    /// Time for each step, as the CRD writes durations.
    pub step_timeout: &'static str,
    /// How long a device tries its new certificate.
    pub trial_timeout: &'static str,
    /// Time for a whole job.
    pub job_timeout: &'static str,
}

/// For runs in which devices do not matter.
pub const ONE_AT_A_TIME: FleetOptions = FleetOptions {
    max_in_flight: 1,
    step_timeout: "20s",
    trial_timeout: "30s",
    job_timeout: "90s",
};

/// A CA that publishes below the URL `publication`, a Broker (with a companion, if `crl_sync`) on the two loopback ports, and a Fleet.
pub fn foundation(
    namespace: &str,
    device_port: u16,
    claim_port: u16,
    publication: &str,
    crl_sync: bool,
    fleet: &FleetOptions,
) -> Vec<Value> {
    let ca = json!({ "root": {}, "commonName": "Certwave e2e root", "publication": { "baseURL": publication } });
    let mut broker = json!({
        "id": namespace,
        "url": format!("mqtts://127.0.0.1:{device_port}"),
        "claimsUrl": format!("mqtts://127.0.0.1:{claim_port}"),
        "trust": { "issuerRef": { "name": CA } },
        "issuerRef": { "name": CA },
        "serverCertificate": { "secretName": SERVER_SECRET, "dnsNames": ["localhost"], "ipAddresses": ["127.0.0.1"] },
    });
    if crl_sync {
        broker["mosquitto"] = json!({ "crlSync": { "lateAfter": "20s" } });
    }
    let fleet = json!({
        "issuerRef": { "name": CA },
        "brokerRef": { "name": BROKER },
        "certificate": { "validity": "30d", "renewBefore": "1d" },
        "rotation": {
            // All at once, whatever fails: waves and their limits have tests of their own.
            "waves": [{ "name": "all", "percent": 100 }],
            "defaults": { "successPercent": 0, "maxFailedPercent": 100, "maxLost": 10_000 },
            "limits": { "maxInFlight": fleet.max_in_flight, "maxPerMinute": 100_000 },
            "device": {
                "stepTimeout": fleet.step_timeout,
                "trialTimeout": fleet.trial_timeout,
                "jobTimeout": fleet.job_timeout,
                "retries": { "max": 0 },
            },
        },
    });
    vec![
        object("CertificateAuthority", namespace, CA, &ca),
        object("Broker", namespace, BROKER, &broker),
        object("Fleet", namespace, FLEET, &fleet),
    ]
}

/// A `DeviceCertificate` whose name is its deviceId.
pub fn device(namespace: &str, id: &str) -> Value {
    object(
        "DeviceCertificate",
        namespace,
        id,
        &json!({ "fleetRef": { "name": FLEET }, "deviceId": id }),
    )
}

/// A Rotation of the whole fleet, asked for by a person.
pub fn rotation(namespace: &str, name: &str) -> Value {
    object(
        "Rotation",
        namespace,
        name,
        &json!({ "fleetRef": { "name": FLEET }, "reason": "Manual" }),
    )
}

/// Objects as one document that kubectl takes.
pub fn list(objects: &[Value]) -> String {
    json!({ "apiVersion": "v1", "kind": "List", "items": objects }).to_string()
}

fn object(kind: &str, namespace: &str, name: &str, spec: &Value) -> Value {
    let metadata = json!({ "name": name, "namespace": namespace });
    json!({ "apiVersion": API_VERSION, "kind": kind, "metadata": metadata, "spec": spec })
}

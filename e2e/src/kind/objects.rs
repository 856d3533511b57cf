//! What people apply beside the chart: a database, CA, Broker, Fleet, devices, and pods that play these.

use serde_json::{Value, json};

use super::{NAMESPACE, images, release};
use crate::stack::objects::{BROKER, CA, FLEET, SERVER_SECRET, device};

const API_VERSION: &str = "certwave.dev/v1alpha1";
/// Name of the Secret with the claim's bundle.
pub(super) const CLAIM: &str = "claim";

/// Devices that one pod plays.
#[derive(Debug, Clone, Copy)]
pub(super) struct Group {
    /// Part of the pod's name and of its devices'.
    pub(super) name: &'static str,
    /// How many devices.
    pub(super) devices: usize,
    /// What goes wrong on all of them, as the simulator's `--fault` has it.
    pub(super) fault: Option<&'static str>,
}

/// Two hundred devices, one of which cannot use a new certificate.
pub(super) const GROUPS: [Group; 5] = [
    Group {
        name: "a",
        devices: 50,
        fault: None,
    },
    Group {
        name: "b",
        devices: 50,
        fault: None,
    },
    Group {
        name: "c",
        devices: 50,
        fault: None,
    },
    Group {
        name: "d",
        devices: 49,
        fault: None,
    },
    Group {
        name: "x",
        devices: 1,
        fault: Some("fail-test:bad_certificate"),
    },
];
/// Sound devices among the canaries; the faulty one is a canary, too.
pub(super) const CANARIES: usize = 4;

impl Group {
    /// The device of this number, from 1.
    pub(super) fn device(&self, number: usize) -> String {
        format!("meter-{}-{number:04}", self.name)
    }

    /// Its pod's Deployment.
    pub(super) fn deployment(&self) -> String {
        format!("devices-{}", self.name)
    }
}

/// A `DeviceCertificate` for each device. Sound ones are labelled `batch: sound`; ring `canary` is the first of each group, and so
/// the faulty one.
pub(super) fn devices() -> Vec<Value> {
    let of = |group: &Group| {
        let group = *group;
        (1..=group.devices).map(move |number| {
            let mut object = device(NAMESPACE, &group.device(number));
            object["spec"]["labels"] = json!({
                "ring": if number == 1 { "canary" } else { "field" },
                "batch": if group.fault.is_none() { "sound" } else { "faulty" },
            });
            object
        })
    };
    GROUPS.iter().flat_map(of).collect()
}

/// CA, Broker and Fleet. The Broker's URLs are those of the chart's Mosquitto.
pub(super) fn foundation() -> Vec<Value> {
    let mosquitto = format!("{}-mosquitto.{NAMESPACE}.svc", crate::chart::RELEASE);
    let ca =
        json!({ "root": {}, "commonName": "Certwave on kind", "publication": { "baseURL": release::publication() } });
    let broker = json!({
        "id": "kind",
        "url": format!("mqtts://{mosquitto}:8883"),
        "claimsUrl": format!("mqtts://{mosquitto}:8884"),
        "trust": { "issuerRef": { "name": CA } },
        "issuerRef": { "name": CA },
        "serverCertificate": { "secretName": SERVER_SECRET, "dnsNames": [mosquitto] },
        "mosquitto": { "crlSync": {} },
    });
    let fleet = json!({
        "issuerRef": { "name": CA },
        "brokerRef": { "name": BROKER },
        "certificate": { "validity": "30d", "renewBefore": "1d" },
        "rotation": {
            "limits": { "maxInFlight": 20, "maxPerMinute": 300 },
            "device": { "stepTimeout": "1m", "trialTimeout": "45s", "jobTimeout": "4m", "retries": { "max": 0, "backoff": "1s" } },
        },
    });
    vec![
        object("CertificateAuthority", CA, &ca),
        object("Broker", BROKER, &broker),
        object("Fleet", FLEET, &fleet),
    ]
}

/// A Rotation of all sound devices: a canary, a fifth, the rest.
pub(super) fn staged(name: &str) -> Value {
    let spec = json!({
        "fleetRef": { "name": FLEET },
        "reason": "Manual",
        "selector": { "matchLabels": { "batch": "sound" } },
        "waves": [
            { "name": "canary", "count": CANARIES, "selector": { "matchLabels": { "ring": "canary" } }, "maxFailed": 0, "soak": "2s" },
            { "name": "early", "percent": 20, "soak": "2s" },
            { "name": "rest", "percent": 100 },
        ],
    });
    object("Rotation", name, &spec)
}

/// A Rotation of all devices whose canary holds the faulty one: it goes back.
pub(super) fn breached(name: &str) -> Value {
    let spec = json!({
        "fleetRef": { "name": FLEET },
        "reason": "Manual",
        "waves": [
            {
                "name": "canary", "count": CANARIES + 1, "selector": { "matchLabels": { "ring": "canary" } },
                "maxFailed": 0, "soak": "2s",
            },
            { "name": "rest", "percent": 100 },
        ],
        "defaults": { "successPercent": 100, "maxLost": 0, "onBreach": "Rollback" },
    });
    object("Rotation", name, &spec)
}

/// `PostgreSQL`, and the Secret with its password.
pub(super) fn database() -> Vec<Value> {
    let labels = json!({ "app": "postgres" });
    let security = json!({ "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] } });
    vec![
        json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "postgres", "namespace": NAMESPACE },
            "stringData": { "password": "only-for-this-cluster" },
        }),
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "postgres", "namespace": NAMESPACE },
            "spec": {
                "selector": { "matchLabels": labels },
                "template": {
                    "metadata": { "labels": labels },
                    "spec": {
                        "securityContext": {
                            "runAsNonRoot": true, "runAsUser": 65532, "fsGroup": 65532, "seccompProfile": { "type": "RuntimeDefault" },
                        },
                        "containers": [{
                            "name": "postgres", "image": images::scenery("postgres"), "imagePullPolicy": "IfNotPresent",
                            "env": [{
                                "name": "POSTGRES_PASSWORD",
                                "valueFrom": { "secretKeyRef": { "name": "postgres", "key": "password" } },
                            }],
                            "ports": [{ "containerPort": 5432 }],
                            "readinessProbe": { "tcpSocket": { "port": 5432 }, "periodSeconds": 2 },
                            "securityContext": security,
                            "volumeMounts": [{ "name": "data", "mountPath": "/data" }],
                        }],
                        "volumes": [{ "name": "data", "emptyDir": {} }],
                    },
                },
            },
        }),
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": { "name": "postgres", "namespace": NAMESPACE },
            "spec": { "selector": labels, "ports": [{ "port": 5432 }] },
        }),
    ]
}

/// A Deployment for each group of devices, each device with its files on disk.
pub(super) fn pods() -> Vec<Value> {
    GROUPS.iter().map(pod).collect()
}

fn pod(group: &Group) -> Value {
    let labels = json!({ "app": "devices", "group": group.name });
    let mut arguments: Vec<String> = [
        "simulate",
        "--prefix-name",
        &format!("meter-{}-", group.name),
        "--count",
        &group.devices.to_string(),
        "--claim",
        "/run/claim/claim.json",
        "--state-dir",
        "/state",
        "--backoff-max",
        "5",
    ]
    .map(str::to_owned)
    .into();
    if let Some(fault) = group.fault {
        arguments.extend(["--fault".to_owned(), format!("{fault}=*")]);
    }
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": { "name": group.deployment(), "namespace": NAMESPACE },
        "spec": {
            "selector": { "matchLabels": labels },
            "strategy": { "type": "Recreate" },
            "template": {
                "metadata": { "labels": labels },
                "spec": {
                    "automountServiceAccountToken": false,
                    "securityContext": {
                        "runAsNonRoot": true, "runAsUser": 65532, "fsGroup": 65532, "seccompProfile": { "type": "RuntimeDefault" },
                    },
                    "containers": [{
                        "name": "devices", "image": images::of("certwave-agent", images::TAG), "imagePullPolicy": "IfNotPresent",
                        "args": arguments,
                        "env": [{ "name": "RUST_LOG", "value": "warn" }],
                        "securityContext": { "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] } },
                        "volumeMounts": [
                            { "name": "state", "mountPath": "/state" },
                            { "name": "claim", "mountPath": "/run/claim", "readOnly": true },
                        ],
                    }],
                    "volumes": [
                        { "name": "state", "emptyDir": {} },
                        { "name": "claim", "secret": { "secretName": CLAIM } },
                    ],
                },
            },
        },
    })
}

fn object(kind: &str, name: &str, spec: &Value) -> Value {
    let metadata = json!({ "name": name, "namespace": NAMESPACE });
    json!({ "apiVersion": API_VERSION, "kind": kind, "metadata": metadata, "spec": spec })
}

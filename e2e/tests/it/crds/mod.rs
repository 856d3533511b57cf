//! The custom resources on a real API server: what it accepts, what it refuses and in which words.

mod objects;
mod refusals;
mod revocation;
mod rotation;
mod strategy;

use certwave_crds::{Broker, CertificateAuthority, DeviceCertificate, Fleet, Revocation, Rotation};
use kube::api::{Patch, PatchParams};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::shared;
use objects::{Objects, good};

const CRDS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../crds");
const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/examples");

#[tokio::test]
async fn the_crds_are_accepted_with_all_their_names() {
    let api = shared::api().await;
    let again = [
        "apply",
        "--server-side",
        "--dry-run=server",
        "--validate=strict",
        "-f",
        CRDS,
    ];
    let output = api.kubectl_command().args(again).output().unwrap();
    let warnings = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && warnings.is_empty(), "{warnings}");
    for crd in certwave_crds::all().unwrap() {
        let name = crd["metadata"]["name"].as_str().unwrap();
        let text = api.kubectl(["get", "crd", name, "-o", "json"]).unwrap();
        let served: Value = serde_json::from_str(&text).unwrap();
        let status = &served["status"];
        for condition in status["conditions"].as_array().unwrap() {
            let expected = match condition["type"].as_str().unwrap() {
                "Established" | "NamesAccepted" => "True",
                _ => "False",
            };
            assert_eq!(condition["status"], expected, "{name}: {condition}");
        }
        assert_eq!(status["acceptedNames"], served["spec"]["names"], "{name}");
        let served = &served["spec"]["versions"][0];
        assert_eq!(served["subresources"], json!({ "status": {} }), "{name}");
    }
    let namespace = api.namespace("crds").await.unwrap();
    for short in ["ca", "broker", "fleet", "devcert", "rot", "revoc", "certwave"] {
        api.kubectl(["get", short, "-n", &namespace]).unwrap();
    }
}

#[tokio::test]
async fn every_example_is_applied_without_a_warning() {
    let api = shared::api().await;
    let namespace = api.namespace("examples").await.unwrap();
    // Strict: a field that the schema does not know is an error.
    let apply = ["apply", "--validate=strict", "-n", &namespace, "-f", EXAMPLES];
    let output = api.kubectl_command().args(apply).output().unwrap();
    let warnings = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && warnings.is_empty(), "{warnings}");
    // Twice, as people do, and the way of tools that own fields.
    api.kubectl(apply).unwrap();
    let server_side = [
        "apply",
        "--server-side",
        "--force-conflicts",
        "-n",
        &namespace,
        "-f",
        EXAMPLES,
    ];
    api.kubectl(server_side).unwrap();

    let selector = ["get", "rot,devcert", "-n", &namespace, "-o", "name"];
    let of = |fleet: &str| {
        let field = format!("--field-selector=spec.fleetRef.name={fleet}");
        api.kubectl(selector.into_iter().chain([field.as_str()])).unwrap()
    };
    assert_eq!(of("meters").lines().count(), 6, "{}", of("meters"));
    assert_eq!(of("others"), "");
}

#[tokio::test]
async fn kubectl_explain_describes_every_object_that_people_write() {
    let api = shared::api().await;
    for crd in certwave_crds::all().unwrap() {
        let plural = crd["spec"]["names"]["plural"].as_str().unwrap();
        let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        let mut paths = vec![plural.to_owned(), format!("{plural}.status")];
        objects_below(&format!("{plural}.spec"), &schema["properties"]["spec"], &mut paths);
        for path in paths {
            let text = api.kubectl(["explain", &path]).unwrap();
            assert!(
                text.contains("DESCRIPTION:") && !text.contains("<empty>"),
                "{path}: {text}"
            );
        }
    }
}

/// The path of this object and of the objects in it, for those that have fields.
fn objects_below(path: &str, schema: &Value, paths: &mut Vec<String>) {
    let schema = schema.get("items").unwrap_or(schema);
    if let Some(properties) = schema["properties"].as_object() {
        paths.push(path.to_owned());
        for (name, child) in properties {
            objects_below(&format!("{path}.{name}"), child, paths);
        }
    }
}

/// The spec as the API server keeps it, and as the type reads what a person wrote.
async fn defaults<T: DeserializeOwned + Serialize>(objects: &Objects, kind: &str) -> (Value, Value) {
    let kept = objects.create("x", good(kind), true).await.unwrap();
    let written = json!({
        "apiVersion": kept.types.as_ref().unwrap().api_version,
        "kind": kind,
        "metadata": {},
        "spec": good(kind),
    });
    let read: T = serde_json::from_value(written).unwrap();
    let read = serde_json::to_value(read).unwrap();
    (kept.data["spec"].clone(), read["spec"].clone())
}

/// Without what says nothing: a default that the API server does not write either.
fn without_empty(value: &mut Value) {
    if let Value::Object(fields) = value {
        fields.values_mut().for_each(without_empty);
        fields.retain(|_, field| !field.as_object().is_some_and(serde_json::Map::is_empty));
    }
}

#[tokio::test]
async fn the_api_server_fills_in_what_the_types_do() {
    let server = shared::api().await;
    let namespace = server.namespace("defaults").await.unwrap();
    for crd in certwave_crds::all().unwrap() {
        let kind = crd["spec"]["names"]["kind"].as_str().unwrap();
        let objects = Objects::of(&server, kind, &namespace).await;
        let (mut kept, mut read) = match kind {
            "CertificateAuthority" => defaults::<CertificateAuthority>(&objects, kind).await,
            "Broker" => defaults::<Broker>(&objects, kind).await,
            "Fleet" => defaults::<Fleet>(&objects, kind).await,
            "DeviceCertificate" => defaults::<DeviceCertificate>(&objects, kind).await,
            "Rotation" => defaults::<Rotation>(&objects, kind).await,
            "Revocation" => defaults::<Revocation>(&objects, kind).await,
            other => panic!("{other}"),
        };
        without_empty(&mut kept);
        without_empty(&mut read);
        assert_eq!(kept, read, "{kind}");
    }
}

/// A value with every field that the schema knows.
fn sample(schema: &Value) -> Value {
    if let Some(choice) = schema["enum"].get(0) {
        return choice.clone();
    }
    match schema["type"].as_str().unwrap() {
        "string" if schema["format"] == "date-time" => json!("2030-01-01T00:00:00Z"),
        "string" => json!("x"),
        "integer" => json!(7),
        "boolean" => json!(true),
        "array" => json!([sample(&schema["items"])]),
        "object" => {
            let fields = schema["properties"].as_object().into_iter().flatten();
            fields.map(|(name, field)| (name.clone(), sample(field))).collect()
        }
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn the_types_write_every_field_of_the_status_and_the_api_server_keeps_it() {
    let server = shared::api().await;
    let namespace = server.namespace("status").await.unwrap();
    for crd in certwave_crds::all().unwrap() {
        let kind = crd["spec"]["names"]["kind"].as_str().unwrap();
        let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"];
        let full = sample(schema);
        let written = match kind {
            "CertificateAuthority" => through::<certwave_crds::CertificateAuthorityStatus>(&full),
            "Broker" => through::<certwave_crds::BrokerStatus>(&full),
            "Fleet" => through::<certwave_crds::FleetStatus>(&full),
            "DeviceCertificate" => through::<certwave_crds::DeviceCertificateStatus>(&full),
            "Rotation" => through::<certwave_crds::RotationStatus>(&full),
            "Revocation" => through::<certwave_crds::RevocationStatus>(&full),
            other => panic!("{other}"),
        };
        assert_eq!(written, full, "{kind}");

        let objects = Objects::of(&server, kind, &namespace).await;
        objects.create("x", good(kind), false).await.unwrap();
        let patch = Patch::Merge(json!({ "status": full }));
        let kept = objects.api.patch_status("x", &PatchParams::default(), &patch).await;
        assert_eq!(kept.unwrap().data["status"], full, "{kind}");
    }
}

/// The status as its type reads and writes it.
fn through<T: DeserializeOwned + Serialize>(status: &Value) -> Value {
    json!(serde_json::from_value::<T>(status.clone()).unwrap())
}

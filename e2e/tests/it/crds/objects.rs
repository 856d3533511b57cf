//! Objects that are accepted, and what the API server makes of changes to them.

use certwave_crds::{Broker, CertificateAuthority, DeviceCertificate, Fleet, Revocation, Rotation};
use certwave_e2e::api::ApiServer;
use kube::api::{Api, ApiResource, DynamicObject, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

/// Objects of one kind in a namespace.
pub(super) struct Objects {
    pub(super) api: Api<DynamicObject>,
    resource: ApiResource,
}

impl Objects {
    pub(super) async fn of(server: &ApiServer, kind: &str, namespace: &str) -> Self {
        let resource = match kind {
            "CertificateAuthority" => ApiResource::erase::<CertificateAuthority>(&()),
            "Broker" => ApiResource::erase::<Broker>(&()),
            "Fleet" => ApiResource::erase::<Fleet>(&()),
            "DeviceCertificate" => ApiResource::erase::<DeviceCertificate>(&()),
            "Rotation" => ApiResource::erase::<Rotation>(&()),
            "Revocation" => ApiResource::erase::<Revocation>(&()),
            other => panic!("{other}"),
        };
        let client = server.client().await.unwrap();
        let api = Api::namespaced_with(client, namespace, &resource);
        Self { api, resource }
    }

    /// What the API server makes of an object; nothing is kept in a dry run.
    pub(super) async fn create(&self, name: &str, spec: Value, dry_run: bool) -> kube::Result<DynamicObject> {
        let object = DynamicObject::new(name, &self.resource).data(json!({ "spec": spec }));
        let parameters = PostParams {
            dry_run,
            ..PostParams::default()
        };
        self.api.create(&parameters, &object).await
    }

    pub(super) async fn change(&self, name: &str, spec: &Value) -> kube::Result<DynamicObject> {
        let patch = Patch::Merge(json!({ "spec": spec }));
        self.api.patch(name, &PatchParams::default().dry_run(), &patch).await
    }
}

/// What the API server says against it; empty when it accepts.
pub(super) fn refusal(result: kube::Result<DynamicObject>) -> String {
    match result {
        Ok(_) => String::new(),
        Err(kube::Error::Api(status)) if status.code == 422 => status.message,
        Err(error) => panic!("not a refusal of the object: {error}"),
    }
}

/// A spec of this kind that is accepted.
pub(super) fn good(kind: &str) -> Value {
    match kind {
        "CertificateAuthority" => json!({ "root": {}, "publication": { "baseURL": "http://pki.example.com" } }),
        "Broker" => json!({
            "id": "mqtt",
            "url": "mqtts://mqtt.example.com:8883",
            "trust": { "issuerRef": { "name": "root" } },
            "issuerRef": { "name": "root" },
        }),
        "Fleet" => json!({
            "issuerRef": { "name": "root" },
            "brokerRef": { "name": "mqtt" },
            "enrolment": { "claims": [claim(&json!({ "quota": 100 }))] },
        }),
        "DeviceCertificate" => json!({ "fleetRef": { "name": "meters" }, "deviceId": "meter-0001" }),
        "Rotation" => json!({
            "fleetRef": { "name": "meters" },
            "limits": { "maxInFlight": 20 },
            "selector": { "matchLabels": { "site": "berlin" } },
        }),
        "Revocation" => json!({ "issuerRef": { "name": "plant-1" }, "reason": "keyCompromise" }),
        other => panic!("{other}"),
    }
}

/// A claim, with some fields changed.
pub(super) fn claim(changes: &Value) -> Value {
    let csr = "-----BEGIN CERTIFICATE REQUEST-----\nMIIB\n-----END CERTIFICATE REQUEST-----\n";
    let mut claim = json!({ "name": "run-1", "notAfter": "2030-01-01T00:00:00Z", "csr": csr });
    merge(&mut claim, changes);
    claim
}

/// A spec with one claim that has some fields changed.
pub(super) fn with_claim(changes: &Value) -> Value {
    json!({ "enrolment": { "claims": [claim(changes)] } })
}

/// JSON merge patch (RFC 7396): null takes a field away.
pub(super) fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(changes) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (key, change) in changes {
        if change.is_null() {
            target.as_object_mut().unwrap().remove(key);
        } else {
            merge(&mut target[key], change);
        }
    }
}

//! cert-manager with a CA issuer and many Certificates.

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject, Patch, PatchParams, PostParams};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event};
use serde_json::{Value, json};

use crate::api::ApiServer;
use crate::bench::crl;
use crate::process::Process;
use crate::scratch::Scratch;
use crate::{tools, wait_for};

const NAME: &str = "cert-manager";
const MODULE: &str = "github.com/cert-manager/cert-manager";
const GROUP: &str = "cert-manager.io";
const VERSION: &str = "v1";
const ISSUER: &str = "root";
const READY: Duration = Duration::from_mins(2);
const PATIENCE: Duration = Duration::from_mins(30);
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Requests under way at the same time; more would only wait in the API server.
const AT_ONCE: usize = 16;

/// A running cert-manager whose Certificates are all issued.
pub(super) struct CertManager {
    process: Process,
    certificates: Api<DynamicObject>,
    names: BTreeSet<String>,
    /// How often each Certificate was issued.
    revision: i64,
    _scratch: Scratch,
}

impl CertManager {
    /// The version that is built.
    pub(super) fn version() -> Result<String> {
        tools::peer_version(NAME, MODULE)
    }

    /// Starts it on an API server and waits until `count` Certificates are issued. No webhook runs: every object here is written as
    /// the webhook would have it.
    pub(super) async fn start(api: &Arc<ApiServer>, count: usize) -> Result<Self> {
        let program = tokio::task::spawn_blocking(|| tools::peer(NAME)).await??;
        let crds = tools::peer_source(NAME, MODULE)?.join("deploy/crds");
        let kubectl = |arguments: &[&str]| tools::output(api.kubectl_command().args(arguments).arg("-f").arg(&crds));
        kubectl(&["apply", "--server-side"])?;
        kubectl(&["wait", "--for=condition=Established", "--timeout=60s"])?;

        let namespace = api.namespace(NAME).await?;
        let kubeconfig = api.account_kubeconfig(&namespace, NAME).await?;
        api.apply(&foundation(&namespace)?)?;
        let scratch = Scratch::new("peers-cert-manager")?;
        let mut command = Command::new(program);
        command.arg("--kubeconfig").arg(kubeconfig);
        let process = Process::spawn(NAME, &command, &scratch.path().join("log"))?;
        let client = api.client().await?;
        ready(&client, &namespace).await.with_context(|| process.log_tail())?;

        let mut started = Self {
            process,
            certificates: Api::namespaced_with(client, &namespace, &resource("Certificate")),
            names: (1..=count).map(|number| format!("meter-{number:04}")).collect(),
            revision: 1,
            _scratch: scratch,
        };
        let certificates = started.certificates.clone();
        let create = |name: String| {
            let (certificates, certificate) = (certificates.clone(), certificate(&namespace, &name));
            async move {
                let object = serde_json::from_value(certificate)?;
                certificates.create(&PostParams::default(), &object).await.context(name)
            }
        };
        let created = futures::stream::iter(started.names.clone())
            .map(create)
            .buffer_unordered(AT_ONCE);
        created.try_for_each(|_| async { Ok(()) }).await?;
        started.issued().await?;
        Ok(started)
    }

    pub(super) fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Asks for all certificates anew, as `cmctl renew --all` does, and says how long it takes until the last one is issued.
    pub(super) async fn renew(&mut self) -> Result<Duration> {
        self.revision += 1;
        let certificates = self.certificates.clone();
        let ask = |name: String| {
            let certificates = certificates.clone();
            async move {
                let patch = Patch::Apply(to_be_issued(&name));
                let parameters = PatchParams::apply("bench").force();
                certificates
                    .patch_status(&name, &parameters, &patch)
                    .await
                    .context(name)
            }
        };
        let asked = futures::stream::iter(self.names.clone())
            .map(ask)
            .buffer_unordered(AT_ONCE);
        let start = Instant::now();
        let asked = asked.try_for_each(|_| async { Ok(()) });
        tokio::try_join!(asked, self.issued())?;
        Ok(start.elapsed())
    }

    /// Waits until every Certificate is issued in the present revision. A watch costs the API server little: what it sends was
    /// encoded for cert-manager already.
    async fn issued(&mut self) -> Result<()> {
        let events = watcher::watcher(self.certificates.clone(), watcher::Config::default());
        // A watch that breaks begins again.
        let events = events.default_backoff();
        let mut events = std::pin::pin!(events);
        let (mut missing, end) = (self.names.clone(), Instant::now() + PATIENCE);
        while !missing.is_empty() {
            if Instant::now() > end {
                bail!(
                    "{} certificates are missing:\n{}",
                    missing.len(),
                    self.process.log_tail()
                );
            }
            let Ok(event) = tokio::time::timeout(LOOK_EVERY, events.next()).await else {
                self.process.check_running()?;
                continue;
            };
            if let Ok(Event::Apply(object) | Event::InitApply(object)) = event.context("the watch ended")?
                && is_issued(&object.data, self.revision)
            {
                missing.remove(object.metadata.name.as_deref().unwrap_or_default());
            }
        }
        Ok(())
    }
}

fn resource(kind: &str) -> ApiResource {
    ApiResource {
        group: GROUP.to_owned(),
        version: VERSION.to_owned(),
        api_version: format!("{GROUP}/{VERSION}"),
        kind: kind.to_owned(),
        plural: format!("{}s", kind.to_lowercase()),
    }
}

/// The access of a service account, a CA with a P-256 key, and the issuer for it.
fn foundation(namespace: &str) -> Result<String> {
    let ca = crl::issuer()?;
    let objects = json!([
        {
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": { "name": namespace },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin" },
            "subjects": [{ "kind": "ServiceAccount", "name": NAME, "namespace": namespace }],
        },
        {
            "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
            "metadata": { "name": ISSUER, "namespace": namespace },
            "stringData": { "tls.crt": ca.pem(), "tls.key": ca.key().serialize_pem() },
        },
        object("Issuer", namespace, ISSUER, &json!({ "ca": { "secretName": ISSUER } })),
    ]);
    Ok(json!({ "apiVersion": "v1", "kind": "List", "items": objects }).to_string())
}

/// What a device's certificate would be, with the same key and lifetime as in the other fleet.
fn certificate(namespace: &str, name: &str) -> Value {
    let spec = json!({
        "commonName": name,
        "secretName": name,
        "duration": "720h",
        "renewBefore": "24h",
        "privateKey": { "algorithm": "ECDSA", "size": 256, "rotationPolicy": "Always" },
        "usages": ["client auth"],
        "issuerRef": { "name": ISSUER, "kind": "Issuer", "group": GROUP },
    });
    object("Certificate", namespace, name, &spec)
}

fn object(kind: &str, namespace: &str, name: &str, spec: &Value) -> Value {
    let metadata = json!({ "name": name, "namespace": namespace });
    json!({ "apiVersion": format!("{GROUP}/{VERSION}"), "kind": kind, "metadata": metadata, "spec": spec })
}

/// The condition with which people ask for a renewal.
fn to_be_issued(name: &str) -> Value {
    let condition = json!({
        "type": "Issuing",
        "status": "True",
        "reason": "ManuallyTriggered",
        "message": "Asked for by the benchmark",
        "observedGeneration": 1,
        "lastTransitionTime": Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
    });
    json!({
        "apiVersion": format!("{GROUP}/{VERSION}"),
        "kind": "Certificate",
        "metadata": { "name": name },
        "status": { "conditions": [condition] },
    })
}

async fn ready(client: &Client, namespace: &str) -> Result<()> {
    let issuers: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource("Issuer"));
    wait_for("cert-manager's issuer", READY, || async {
        let issuer = issuers.get(ISSUER).await?;
        ensure!(has(&issuer.data, "Ready"), "{}", issuer.data["status"]);
        Ok(())
    })
    .await
}

/// Whether a Certificate is ready in this revision or a later one, and nothing more is being done for it.
fn is_issued(certificate: &Value, revision: i64) -> bool {
    let issued = certificate["status"]["revision"].as_i64();
    issued.is_some_and(|issued| issued >= revision) && has(certificate, "Ready") && !has(certificate, "Issuing")
}

/// Whether the condition is true.
fn has(object: &Value, condition: &str) -> bool {
    let conditions = object["status"]["conditions"].as_array();
    let mut conditions = conditions.into_iter().flatten();
    conditions.any(|found| found["type"] == condition && found["status"] == "True")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_issued_when_its_revision_is_there_and_nothing_is_under_way() {
        let certificate = |revision: i64, issuing: &str| {
            let conditions = json!([
                { "type": "Ready", "status": "True" },
                { "type": "Issuing", "status": issuing },
            ]);
            json!({ "status": { "revision": revision, "conditions": conditions } })
        };
        assert!(is_issued(&certificate(2, "False"), 2));
        assert!(!is_issued(&certificate(1, "False"), 2));
        assert!(!is_issued(&certificate(2, "True"), 2));
        assert!(!is_issued(&json!({ "status": { "revision": 2 } }), 2));
        assert!(!is_issued(&json!({}), 1));
    }
}

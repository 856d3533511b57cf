//! etcd and kube-apiserver as two processes on loopback.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::client_for;
use crate::identity::{Authority, key_pair};
use crate::ports;
use crate::process::Process;
use crate::scratch::Scratch;
use crate::wait::wait_for;

const ETCD_READY: Duration = Duration::from_secs(30);
const API_READY: Duration = Duration::from_secs(90);

/// A running pair. The API server authorizes by RBAC; its administrator has a client certificate.
pub(super) struct Local {
    // Fields drop in this order: the API server ends before its store.
    api: Process,
    _etcd: Process,
    etcd_port: u16,
    arguments: ApiArguments,
    kubeconfig: PathBuf,
}

struct ApiArguments {
    program: PathBuf,
    arguments: Vec<String>,
    log: PathBuf,
}

impl ApiArguments {
    fn spawn(&self) -> Result<Process> {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments);
        Process::spawn("kube-apiserver", &command, &self.log)
    }
}

impl Local {
    pub(super) async fn start(programs: &Path, scratch: &Scratch) -> Result<Self> {
        let (etcd, etcd_port) = start_etcd(programs, scratch).await?;
        let authority = Authority::new("certwave-e2e")?;
        let port = ports::free()?;
        let arguments = ApiArguments {
            program: programs.join("kube-apiserver"),
            arguments: api_arguments(scratch, &authority, etcd_port, port)?,
            log: scratch.path().join("kube-apiserver.log"),
        };
        let admin = authority.client("certwave-e2e", Some("system:masters"))?;
        let user = json!({
            "client-certificate-data": base64(&admin.certificate),
            "client-key-data": base64(&admin.key),
        });
        let cluster = json!({
            "server": format!("https://127.0.0.1:{port}"),
            "certificate-authority-data": base64(&authority.certificate()),
        });
        let text = kubeconfig_with(&json!({ "name": "e2e", "cluster": cluster }), &user, "default");
        let kubeconfig = scratch.write("admin.kubeconfig", text)?;
        let mut local = Self {
            api: arguments.spawn()?,
            _etcd: etcd,
            etcd_port,
            arguments,
            kubeconfig,
        };
        local.wait_ready().await?;
        Ok(local)
    }

    pub(super) fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    pub(super) fn api(&self) -> &Process {
        &self.api
    }

    /// Where etcd answers.
    pub(super) fn etcd(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.etcd_port).into()
    }

    pub(super) async fn restart(&mut self) -> Result<()> {
        self.api.kill();
        self.api = self.arguments.spawn()?;
        self.wait_ready().await
    }

    async fn wait_ready(&mut self) -> Result<()> {
        let client = client_for(&self.kubeconfig).await?;
        let ready = wait_for("the API server to be ready", API_READY, || {
            let ended = self.api.exited();
            let client = client.clone();
            async move {
                if ended?.is_some() {
                    return Ok(false);
                }
                let request = http::Request::get("/readyz").body(Vec::new())?;
                client.request_text(request).await?;
                // The namespace of a fresh cluster's first objects is made after the server is ready.
                let request = http::Request::get("/api/v1/namespaces/default").body(Vec::new())?;
                client.request_text(request).await?;
                Ok(true)
            }
        })
        .await;
        match ready {
            Ok(true) => Ok(()),
            Ok(false) => self.api.check_running(),
            Err(error) => bail!("{error:#}\n{}", self.api.log_tail()),
        }
    }
}

/// A kubeconfig for one cluster (as a kubeconfig lists it) and one user, as JSON, which is YAML.
pub(super) fn kubeconfig_with(cluster: &Value, user: &Value, namespace: &str) -> String {
    let context = json!({ "cluster": cluster["name"], "user": "e2e", "namespace": namespace });
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [cluster],
        "users": [{ "name": "e2e", "user": user }],
        "contexts": [{ "name": "e2e", "context": context }],
        "current-context": "e2e",
    })
    .to_string()
}

async fn start_etcd(programs: &Path, scratch: &Scratch) -> Result<(Process, u16)> {
    let (port, peer_port) = (ports::free()?, ports::free()?);
    let (url, peer_url) = (
        format!("http://127.0.0.1:{port}"),
        format!("http://127.0.0.1:{peer_port}"),
    );
    let mut command = Command::new(programs.join("etcd"));
    command.args([
        "--name=e2e",
        "--unsafe-no-fsync",
        "--log-level=warn",
        "--quota-backend-bytes=8589934592",
    ]);
    command.arg("--data-dir").arg(scratch.path().join("etcd"));
    for (option, value) in [
        ("--listen-client-urls", &url),
        ("--advertise-client-urls", &url),
        ("--listen-peer-urls", &peer_url),
        ("--initial-advertise-peer-urls", &peer_url),
        ("--initial-cluster", &format!("e2e={peer_url}")),
    ] {
        command.args([option, value]);
    }
    let mut etcd = Process::spawn("etcd", &command, &scratch.path().join("etcd.log"))?;
    let address = ([127, 0, 0, 1], port).into();
    etcd.wait_ready(address, "/health", ETCD_READY).await.context("etcd")?;
    Ok((etcd, port))
}

fn api_arguments(scratch: &Scratch, authority: &Authority, etcd_port: u16, port: u16) -> Result<Vec<String>> {
    let server = authority.server("kube-apiserver")?;
    let file = |name: &str, content: &str| -> Result<String> {
        Ok(scratch.write(name, content)?.to_string_lossy().into_owned())
    };
    let (signing_key, public_key) = key_pair()?;
    let options = [
        ("etcd-servers", format!("http://127.0.0.1:{etcd_port}")),
        ("bind-address", "127.0.0.1".into()),
        ("secure-port", port.to_string()),
        ("advertise-address", "127.0.0.1".into()),
        ("client-ca-file", file("ca.crt", &authority.certificate())?),
        ("tls-cert-file", file("server.crt", &server.certificate)?),
        ("tls-private-key-file", file("server.key", &server.key)?),
        ("service-account-issuer", "https://kubernetes.default.svc".into()),
        ("service-account-key-file", file("service-accounts.pub", &public_key)?),
        (
            "service-account-signing-key-file",
            file("service-accounts.key", &signing_key)?,
        ),
        ("service-cluster-ip-range", "10.96.0.0/24".into()),
        // No controller-manager runs here to make a namespace's default ServiceAccount, and no pod needs one.
        ("disable-admission-plugins", "ServiceAccount".into()),
        ("authorization-mode", "RBAC".into()),
        // The server has no service network to look after.
        ("endpoint-reconciler-type", "none".into()),
    ];
    Ok(options
        .into_iter()
        .map(|(name, value)| format!("--{name}={value}"))
        .collect())
}

/// Base64 as kubeconfig files hold it, by way of the type that Kubernetes uses for bytes.
fn base64(text: &str) -> Value {
    json!(k8s_openapi::ByteString(text.as_bytes().to_vec()))
}

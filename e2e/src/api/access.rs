//! Namespaces, and the controller's own access.

use std::path::PathBuf;

use anyhow::{Context, Result};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use kube::api::{Api, ObjectMeta, PostParams};
use kube::config::Kubeconfig;
use serde_json::json;

use super::{ApiServer, local};

/// The controller's permissions, as the chart gives them (`make chart`), for a controller in the namespace `certwave-system`.
const RBAC: &str = include_str!("../../rbac.yaml");
const CONFINED_RBAC: &str = include_str!("../../rbac-confined.yaml");
const RBAC_NAMESPACE: &str = "certwave-system";
const ACCOUNT: &str = "certwave-controller";
const CONFINED_ACCOUNT: &str = "confined-certwave-controller";
/// Tokens outlive the longest test or benchmark.
const TOKEN_SECONDS: i64 = 6 * 3600;

impl ApiServer {
    /// Creates a namespace whose name begins with `prefix` and returns its name.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn namespace(&self, prefix: &str) -> Result<String> {
        let metadata = ObjectMeta {
            generate_name: Some(format!("{prefix}-")),
            ..ObjectMeta::default()
        };
        let namespace = Namespace {
            metadata,
            ..Namespace::default()
        };
        let namespaces: Api<Namespace> = Api::all(self.client().await?);
        let created = namespaces.create(&PostParams::default(), &namespace).await?;
        created.metadata.name.context("a namespace without a name")
    }

    /// Gives a controller in `namespace` exactly the permissions of the chart (`rbac.yaml`), and returns a kubeconfig
    /// with the token of its service account.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn controller_kubeconfig(&self, namespace: &str) -> Result<PathBuf> {
        // Cluster-wide bindings take the namespace into their names, so that controllers in several do not meet.
        self.apply(&RBAC.replace(RBAC_NAMESPACE, namespace))?;
        self.token_kubeconfig(namespace, ACCOUNT).await
    }

    /// The same for a controller that may work in `namespace` alone (`rbac-confined.yaml`).
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn confined_kubeconfig(&self, namespace: &str) -> Result<PathBuf> {
        self.apply(&CONFINED_RBAC.replace(RBAC_NAMESPACE, namespace))?;
        self.token_kubeconfig(namespace, CONFINED_ACCOUNT).await
    }

    /// A service account without any permission, and a kubeconfig with its token.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn account_kubeconfig(&self, namespace: &str, account: &str) -> Result<PathBuf> {
        let metadata = json!({ "name": account, "namespace": namespace });
        self.apply(&json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata }).to_string())?;
        self.token_kubeconfig(namespace, account).await
    }

    async fn token_kubeconfig(&self, namespace: &str, account: &str) -> Result<PathBuf> {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client().await?, namespace);
        let spec = TokenRequestSpec {
            expiration_seconds: Some(TOKEN_SECONDS),
            ..TokenRequestSpec::default()
        };
        let request = TokenRequest {
            spec: Some(spec),
            ..TokenRequest::default()
        };
        let answer = accounts
            .create_token_request(account, &PostParams::default(), &request)
            .await
            .with_context(|| format!("ask for a token of {account}"))?;
        let token = answer.status.context("a token request without an answer")?.token;
        let admin = Kubeconfig::read_from(self.kubeconfig())?;
        let cluster = admin
            .current_context
            .as_ref()
            .and_then(|name| admin.contexts.iter().find(|context| context.name == *name))
            .and_then(|context| context.context.as_ref())
            .and_then(|context| admin.clusters.iter().find(|cluster| cluster.name == context.cluster));
        let mut config = serde_json::to_value(cluster.context("the kubeconfig names no cluster")?)?;
        config["name"] = json!("e2e");
        let text = local::kubeconfig_with(&config, &json!({ "token": token }), namespace);
        self.scratch.write(&format!("{account}-{namespace}.kubeconfig"), text)
    }
}

//! The connection to the API server: found as kubectl finds it, and used with the user's own rights.

use std::ffi::{OsStr, OsString};
use std::fmt::Debug;
use std::path::PathBuf;
use std::time::Duration;

use certwave_crds::{DeviceCertificate, Fleet, Rotation};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config, Resource};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::OnceCell;

use crate::{Error, Result};

/// As whom changes are made, before the user's name: audit and events of the controller show it.
const MANAGER: &str = "kubectl-certwave";
/// What the API server takes as a field manager, bytes.
const MANAGER_BYTES: usize = 128;
/// Objects that are asked for at a time; of 100,000 devices nobody wants all at once in one answer.
const PAGE: u32 = 500;
/// HTTP 410, Gone.
const GONE: u16 = 410;
const CONNECT: Duration = Duration::from_secs(10);

/// Which cluster, as whom: as kubectl has it.
#[derive(clap::Args, Debug, Clone, Default)]
#[command(next_help_heading = "Connection")]
pub struct Connection {
    /// The namespace; that of the context where left out.
    #[arg(long, short, global = true)]
    pub namespace: Option<String>,
    /// The kubeconfig; KUBECONFIG or ~/.kube/config where left out.
    #[arg(long, global = true, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// The context of the kubeconfig.
    #[arg(long, global = true)]
    pub context: Option<String>,
    /// Acts as this user.
    #[arg(long = "as", global = true, value_name = "USER")]
    pub impersonate: Option<String>,
    /// Acts as a member of this group, too.
    #[arg(long = "as-group", global = true, value_name = "GROUP", requires = "impersonate")]
    pub impersonate_groups: Vec<String>,
    /// For one answer of the API server, seconds.
    #[arg(long, global = true, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..))]
    pub request_timeout: u64,
}

impl Connection {
    /// The same for kubectl, but for the namespace.
    pub fn for_kubectl(&self) -> Vec<OsString> {
        let mut arguments = Vec::new();
        let mut add = |flag: &str, value: &OsStr| {
            let mut argument = OsString::from(format!("--{flag}="));
            argument.push(value);
            arguments.push(argument);
        };
        if let Some(path) = &self.kubeconfig {
            add("kubeconfig", path.as_os_str());
        }
        if let Some(context) = &self.context {
            add("context", context.as_ref());
        }
        if let Some(user) = &self.impersonate {
            add("as", user.as_ref());
        }
        for group in &self.impersonate_groups {
            add("as-group", group.as_ref());
        }
        arguments
    }
}

/// A client with the user's rights, and the namespace.
pub struct Session {
    connection: Connection,
    client: Client,
    namespace: String,
    manager: OnceCell<String>,
}

impl Session {
    /// Reads the kubeconfig; nothing is sent yet.
    ///
    /// # Errors
    /// When there is no usable one.
    pub async fn open(connection: &Connection) -> Result<Self> {
        let mut config = configuration(connection).await?;
        config.connect_timeout = Some(CONNECT);
        config.read_timeout = Some(Duration::from_secs(connection.request_timeout));
        if connection.impersonate.is_some() {
            config.auth_info.impersonate.clone_from(&connection.impersonate);
            config.auth_info.impersonate_groups = Some(connection.impersonate_groups.clone());
        }
        let namespace = connection
            .namespace
            .clone()
            .unwrap_or_else(|| config.default_namespace.clone());
        Ok(Self {
            connection: connection.clone(),
            client: Client::try_from(config)?,
            namespace,
            manager: OnceCell::new(),
        })
    }

    /// The client.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// Which cluster, as whom.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// The namespace that was asked for.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Objects of the namespace.
    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client(), &self.namespace)
    }

    /// Objects of the namespace, or of all.
    pub fn api_of<K>(&self, all: bool) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        if all { Api::all(self.client()) } else { self.api() }
    }

    /// All objects of a kind, of which there are few.
    ///
    /// # Errors
    /// When the API server refuses or does not answer.
    pub async fn list<K>(&self, all: bool) -> Result<Vec<K>>
    where
        K: Resource<Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
        K::DynamicType: Default,
    {
        let mut found = Vec::new();
        pages(&self.api_of::<K>(all), &ListParams::default(), |page| {
            found.extend(page);
        })
        .await?;
        Ok(found)
    }

    /// Changes an object by a JSON merge patch (RFC 7386).
    ///
    /// # Errors
    /// When the API server refuses or does not answer.
    pub async fn merge<K>(&self, name: &str, change: &Value) -> Result<K>
    where
        K: Resource<Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
        K::DynamicType: Default,
    {
        let params = PatchParams {
            field_manager: Some(self.manager().await.to_owned()),
            ..PatchParams::default()
        };
        Ok(self.api::<K>().patch(name, &params, &Patch::Merge(change)).await?)
    }

    /// What to create an object with.
    pub async fn post(&self) -> PostParams {
        PostParams {
            field_manager: Some(self.manager().await.to_owned()),
            ..PostParams::default()
        }
    }

    /// As whom changes are made: the plugin, and the user as the API server knows them, for the controller's events and audit.
    pub async fn manager(&self) -> &str {
        self.manager
            .get_or_init(|| async {
                let reviews: Api<SelfSubjectReview> = Api::all(self.client());
                let asked = reviews
                    .create(&PostParams::default(), &SelfSubjectReview::default())
                    .await;
                let user = asked.ok().and_then(|review| review.status?.user_info?.username);
                manager(user.as_deref())
            })
            .await
    }

    /// A device, by the name of its object or by its deviceId.
    ///
    /// # Errors
    /// When there is none, or the API server refuses or does not answer.
    pub async fn device(&self, name: &str) -> Result<DeviceCertificate> {
        let name = without_kind(name);
        let devices = self.api::<DeviceCertificate>();
        // What the API server would refuse as a name can still be a deviceId.
        if is_object_name(name)
            && let Some(found) = devices.get_opt(name).await?
        {
            return Ok(found);
        }
        let by_id = ListParams::default().fields(&format!("spec.deviceId={name}"));
        let mut found = devices.list(&by_id).await?.items;
        match found.len() {
            0 => Err(Error::NotFound(format!(
                "no device in namespace {} has the name or the deviceId {name}",
                self.namespace
            ))),
            1 => Ok(found.remove(0)),
            _ => Err(Error::Refused(format!(
                "several DeviceCertificates declare the deviceId {name}; give the name of one: {}",
                found
                    .iter()
                    .filter_map(|d| d.metadata.name.as_deref())
                    .collect::<Vec<_>>()
                    .join(", ")
            ))),
        }
    }

    /// A Rotation by its name, or the one that runs over the Fleet of that name.
    ///
    /// # Errors
    /// When there is none, or the API server refuses or does not answer.
    pub async fn rotation(&self, name: &str) -> Result<Rotation> {
        let name = without_kind(name);
        let rotations = self.api::<Rotation>();
        if let Some(found) = rotations.get_opt(name).await? {
            return Ok(found);
        }
        let Some(fleet) = self.api::<Fleet>().get_opt(name).await? else {
            return Err(Error::NotFound(format!(
                "namespace {} has no Rotation and no Fleet called {name}; `kubectl certwave status` shows what there is",
                self.namespace
            )));
        };
        match fleet.status.and_then(|status| status.current_rotation) {
            Some(current) => Ok(rotations.get(&current).await?),
            None => Err(Error::NotFound(format!("no Rotation runs over Fleet {name}"))),
        }
    }
}

/// Reads a list page by page. One that takes so long that the API server has dropped the state it began with goes on, by the token that
/// the refusal (410) brings, with what there is by then: nothing is told twice.
///
/// # Errors
/// When the API server refuses or does not answer.
pub async fn pages<K>(api: &Api<K>, params: &ListParams, mut take: impl FnMut(Vec<K>)) -> Result<()>
where
    K: Clone + DeserializeOwned + Debug,
{
    let mut params = params.clone().limit(PAGE);
    loop {
        let page = match api.list(&params).await {
            Err(kube::Error::Api(status)) if status.code == GONE => {
                let token = status.metadata.as_ref().and_then(|list| list.continue_.clone());
                if token.is_none() || token == params.continue_token {
                    return Err(kube::Error::Api(status).into());
                }
                params.continue_token = token;
                continue;
            }
            page => page?,
        };
        let next = page.metadata.continue_.filter(|token| !token.is_empty());
        take(page.items);
        match next {
            Some(token) => params.continue_token = Some(token),
            None => return Ok(()),
        }
    }
}

async fn configuration(connection: &Connection) -> Result<Config> {
    let refused = |error: &dyn std::fmt::Display| Error::Unreachable(format!("no usable kubeconfig: {error}"));
    let options = KubeConfigOptions {
        context: connection.context.clone(),
        ..KubeConfigOptions::default()
    };
    if let Some(path) = &connection.kubeconfig {
        let file = Kubeconfig::read_from(path).map_err(|e| refused(&e))?;
        return Config::from_custom_kubeconfig(file, &options)
            .await
            .map_err(|e| refused(&e));
    }
    if connection.context.is_some() {
        return Config::from_kubeconfig(&options).await.map_err(|e| refused(&e));
    }
    Config::infer().await.map_err(|e| refused(&e))
}

/// `rotation/meters-7` as `meters-7`, as kubectl takes both.
pub fn without_kind(name: &str) -> &str {
    name.rsplit_once('/').map_or(name, |(_, name)| name)
}

fn is_object_name(name: &str) -> bool {
    let inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, b'-' | b'.');
    !name.is_empty() && name.bytes().all(inner)
}

fn manager(user: Option<&str>) -> String {
    let Some(user) = user else { return MANAGER.to_owned() };
    let user: String = user.chars().map(|c| if c.is_control() { '_' } else { c }).collect();
    let whole = format!("{MANAGER}:{user}");
    whole[..whole.floor_char_boundary(MANAGER_BYTES)].to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn changes_bear_the_users_name_as_far_as_the_api_server_takes_it() {
        assert_eq!(manager(Some("alice@example.com")), "kubectl-certwave:alice@example.com");
        assert_eq!(manager(None), "kubectl-certwave");
        let long = manager(Some(&"é".repeat(100)));
        assert!(long.len() <= 128 && long.starts_with("kubectl-certwave:é"), "{long}");
    }

    /// Two pages; between them the API server forgets what was when the first one was read.
    #[tokio::test]
    async fn a_listing_that_takes_too_long_goes_on_where_it_was() {
        use kube::client::Body;
        let list = |name: &str, next: &str| {
            serde_json::json!({
                "apiVersion": "certwave.dev/v1alpha1", "kind": "FleetList",
                "metadata": { "resourceVersion": "7", "continue": next },
                "items": [{ "metadata": { "name": name }, "spec": { "brokerRef": { "name": "b" }, "issuerRef": { "name": "i" } } }],
            })
        };
        let expired = serde_json::json!({
            "apiVersion": "v1", "kind": "Status", "status": "Failure", "reason": "Expired", "code": 410,
            "message": "The provided continue parameter is too old", "metadata": { "continue": "inconsistent" },
        });
        let service = tower::service_fn(move |request: http::Request<Body>| {
            let query = request.uri().query().unwrap_or_default();
            let (code, body) = if query.contains("continue=first") {
                (GONE, expired.clone())
            } else if query.contains("continue=inconsistent") {
                (200, list("pumps", ""))
            } else {
                (200, list("meters", "first"))
            };
            let response = http::Response::builder()
                .status(code)
                .body(Body::from(body.to_string().into_bytes()));
            async move { response }
        });
        let api: Api<Fleet> = Api::all(Client::new(service, "default"));
        let mut found = Vec::new();
        pages(&api, &ListParams::default(), |page| {
            found.extend(page.into_iter().filter_map(|fleet| fleet.metadata.name));
        })
        .await
        .unwrap();
        assert_eq!(found, ["meters", "pumps"]);
    }

    #[test]
    fn kinds_before_a_name_are_taken_as_kubectl_takes_them() {
        assert_eq!(without_kind("rotation.certwave.dev/meters-7"), "meters-7");
        assert_eq!(without_kind("meters-7"), "meters-7");
        assert!(is_object_name("meters-7.a") && !is_object_name("Pump_7") && !is_object_name(""));
    }
}

//! Whether the cluster's CRDs are those that this program was built with. Others would lose what it writes, or have it overlook what
//! people ask for: then it touches nothing.

use std::sync::OnceLock;
use std::time::Duration;

use certwave_crds::{GROUP, VERSION, misfit};
use kube::Client;
use serde_json::Value;
use tracing::{info, warn};

/// The pause between two looks.
const AGAIN: Duration = Duration::from_secs(3);
/// How long the API server has for its answer.
const ANSWER: Duration = Duration::from_secs(5);
/// What to do.
const INSTALL: &str = "helm upgrade, or kubectl apply --server-side -f crds/, installs those of this version";

/// Why the CRDs do not fit, or are not known.
#[derive(Debug, thiserror::Error)]
pub enum Unfit {
    /// The API server has none of a kind.
    #[error("the CRD of {0} is not installed; {INSTALL}")]
    Missing(String),
    /// They are older or newer.
    #[error("the CRD of {kind} is {misfit}; {INSTALL}")]
    Other {
        /// Whose.
        kind: String,
        /// How.
        misfit: certwave_crds::Misfit,
    },
    /// The API server says nothing.
    #[error("the API server does not say which CRDs it has: no answer within {} s", ANSWER.as_secs())]
    Silent,
    /// The API server does not say.
    #[error("the API server does not say which CRDs it has: {0}")]
    Unknown(#[from] kube::Error),
    /// What it says, or what we were built with, is not understood.
    #[error("the CRDs' schemas cannot be read: {0}")]
    Unreadable(#[from] serde_json::Error),
}

impl Unfit {
    /// True where the CRDs are known to be others, false where nobody knows.
    pub const fn is_known(&self) -> bool {
        matches!(self, Self::Missing(_) | Self::Other { .. })
    }
}

/// Waits until the CRDs fit, telling `say` why they do not whenever that changes.
pub async fn wait(client: &Client, mut say: impl FnMut(&Unfit)) {
    let mut said = String::new();
    while let Err(unfit) = look(client).await {
        let now = unfit.to_string();
        if now != said {
            warn!(reason = %now, "waiting for the CRDs; nothing is touched");
            say(&unfit);
            said = now;
        }
        tokio::time::sleep(AGAIN).await;
    }
    if !said.is_empty() {
        info!("the CRDs are those of this version");
    }
}

/// Those that this program was built with. Whoever takes a broker over looks, and may take over a hundred.
fn ours() -> Result<&'static [Value], serde_json::Error> {
    static OURS: OnceLock<Vec<Value>> = OnceLock::new();
    if let Some(ours) = OURS.get() {
        return Ok(ours);
    }
    let made = certwave_crds::all()?;
    Ok(OURS.get_or_init(|| made))
}

/// Looks once.
///
/// # Errors
/// When they do not fit, or the API server does not say.
pub async fn look(client: &Client) -> Result<(), Unfit> {
    // The published schemas: every authenticated client may read them, whereas CRDs take a right in the whole cluster.
    let path = format!("/openapi/v3/apis/{GROUP}/{VERSION}");
    let asked = tokio::time::timeout(ANSWER, client.request_text(request(&path)?));
    let published = match asked.await.map_err(|_| Unfit::Silent)? {
        Ok(text) => serde_json::from_str(&text)?,
        Err(kube::Error::Api(status)) if status.code == 404 => Value::Null,
        Err(error) => return Err(error.into()),
    };
    compare(ours()?, &published)
}

fn request(path: &str) -> Result<http::Request<Vec<u8>>, kube::Error> {
    let built = http::Request::get(path).body(Vec::new());
    built.map_err(kube::Error::HttpError)
}

fn compare(built: &[Value], published: &Value) -> Result<(), Unfit> {
    let none = serde_json::Map::new();
    let schemas = published
        .pointer("/components/schemas")
        .and_then(Value::as_object)
        .unwrap_or(&none);
    for crd in built {
        let kind = crd
            .pointer("/spec/names/kind")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let theirs = schemas.values().find(|schema| is_of(schema, kind));
        let theirs = theirs.ok_or_else(|| Unfit::Missing(kind.to_owned()))?;
        let versions = crd.pointer("/spec/versions").and_then(Value::as_array);
        let ours = versions
            .into_iter()
            .flatten()
            .find(|version| version["name"] == VERSION)
            .and_then(|version| version.pointer("/schema/openAPIV3Schema"));
        if let Some(misfit) = ours.and_then(|ours| misfit(ours, theirs)) {
            return Err(Unfit::Other {
                kind: kind.to_owned(),
                misfit,
            });
        }
    }
    Ok(())
}

fn is_of(schema: &Value, kind: &str) -> bool {
    let kinds = schema.get("x-kubernetes-group-version-kind").and_then(Value::as_array);
    kinds
        .into_iter()
        .flatten()
        .any(|k| k["group"] == GROUP && k["version"] == VERSION && k["kind"] == kind)
}

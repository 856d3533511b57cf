//! Secrets: read by name, created once, or kept up to date. Never listed, never watched, never deleted.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{Api, ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Resource, ResourceExt as _};

/// The certificate and those above it, PEM, its own first.
pub(super) const CERTIFICATE: &str = "tls.crt";
/// The private key, PKCS#8 PEM.
pub(super) const KEY: &str = "tls.key";
/// Trust anchors, PEM.
pub(super) const ANCHORS: &str = "ca.crt";
/// The request of a CA that is signed outside, PEM.
pub(super) const REQUEST: &str = "tls.csr";
/// Tells our Secrets from others: `<kind>.<name>` of the object that this Secret belongs to.
const OWNER_LABEL: &str = "certwave.dev/owner";

/// A Secret to be written.
pub(super) struct Content {
    pub(super) name: String,
    /// What it belongs to, as [`owned_by`] checks it.
    pub(super) owner: String,
    pub(super) kind: &'static str,
    pub(super) annotations: BTreeMap<String, String>,
    pub(super) data: BTreeMap<String, String>,
    /// Set where Kubernetes may delete the Secret with its object. Never for the keys of CAs.
    pub(super) owner_reference: Option<OwnerReference>,
}

impl Content {
    fn secret(self) -> Secret {
        Secret {
            metadata: ObjectMeta {
                annotations: Some(self.annotations),
                owner_references: self.owner_reference.map(|reference| vec![reference]),
                ..metadata(self.name, self.owner)
            },
            type_: Some(self.kind.to_owned()),
            data: Some(
                self.data
                    .into_iter()
                    .map(|(k, v)| (k, ByteString(v.into_bytes())))
                    .collect(),
            ),
            ..Secret::default()
        }
    }
}

/// Label value for an object; a name that is too long for a label is replaced by its hash.
pub(super) fn owner(kind: &str, name: &str) -> String {
    let plain = format!("{kind}.{name}");
    if plain.len() <= 63 {
        plain
    } else {
        let hash = certwave_protocol::ids::Fingerprint::of(name.as_bytes()).to_string();
        format!("{kind}.{}", &hash[..32])
    }
}

/// Whether an object was written for this owner.
pub(super) fn owned_by(object: &impl Resource, owner: &str) -> bool {
    object.labels().get(OWNER_LABEL).is_some_and(|value| value == owner)
}

/// The metadata of an object that is written for this owner.
pub(super) fn metadata(name: String, owner: String) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        labels: Some(BTreeMap::from([
            (OWNER_LABEL.to_owned(), owner),
            ("app.kubernetes.io/managed-by".to_owned(), "certwave".to_owned()),
        ])),
        ..ObjectMeta::default()
    }
}

/// One key's text, if it is there and is text.
pub(super) fn text(secret: &Secret, key: &str) -> Option<String> {
    let bytes = secret.data.as_ref()?.get(key)?;
    String::from_utf8(bytes.0.clone()).ok()
}

/// An annotation.
pub(super) fn annotation<'a>(secret: &'a Secret, key: &str) -> Option<&'a str> {
    secret.metadata.annotations.as_ref()?.get(key).map(String::as_str)
}

/// Creates a Secret; when there is one already, that one is answered and nothing is written. Of any number of processes that
/// try, one wins, and all see the same content.
pub(super) async fn create_once(api: &Api<Secret>, content: Content) -> kube::Result<Secret> {
    let name = content.name.clone();
    match api.create(&PostParams::default(), &content.secret()).await {
        Err(kube::Error::Api(status)) if status.code == 409 => api.get(&name).await,
        other => other,
    }
}

/// Writes a Secret that is ours, whatever it holds.
pub(super) async fn apply(api: &Api<Secret>, content: Content, manager: &str) -> kube::Result<Secret> {
    let name = content.name.clone();
    api.patch(
        &name,
        &PatchParams::apply(manager).force(),
        &Patch::Apply(content.secret()),
    )
    .await
}

//! OCSP signers for a replica that does not lead: it answers too, as requests go to every replica that is ready.

use std::sync::Arc;
use std::time::Duration;

use certwave_crds::CertificateAuthority as Object;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, ListParams};
use kube::{Client, ResourceExt};

use super::signer;
use crate::ocsp::Signers;
use crate::reconcile::shared::scoped;

/// How often CAs are looked at. Signers are renewed days before they end.
const PERIOD: Duration = Duration::from_secs(10);

/// Reads the signers that the leader has made, again and again, for ever.
pub async fn follow_signers(client: Client, namespace: Option<String>, signers: Arc<Signers>) {
    let mut known = std::collections::HashMap::new();
    loop {
        match look(&client, namespace.as_deref(), &signers, &mut known).await {
            Ok(()) => signers.set_complete(),
            Err(error) => tracing::warn!(%error, "cannot read the OCSP signers"),
        }
        tokio::time::sleep(PERIOD).await;
    }
}

async fn look(
    client: &Client,
    namespace: Option<&str>,
    signers: &Signers,
    known: &mut std::collections::HashMap<String, String>,
) -> kube::Result<()> {
    let all: Api<Object> = scoped(client, namespace);
    for object in all.list(&ListParams::default()).await? {
        let status = object.status.as_ref();
        let Some(shown) = status.and_then(|status| status.ocsp_signer.as_ref()) else {
            continue;
        };
        let uid = object.uid().unwrap_or_default();
        if known.get(&uid) == Some(&shown.serial) {
            continue;
        }
        let secrets: Api<Secret> = Api::namespaced(client.clone(), &object.namespace().unwrap_or_default());
        let secret = secrets.get_opt(&signer::secret_name(&object.name_any())).await?;
        if let Some((issuer, signer)) = secret.as_ref().and_then(signer::read) {
            signers.set(&issuer, signer);
            known.insert(uid, shown.serial.clone());
        }
    }
    Ok(())
}

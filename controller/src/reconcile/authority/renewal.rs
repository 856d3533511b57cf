//! A subordinate's certificate near its end: a new one for the same key, where the issuer is here.
//!
//! With the same key, name and key id, chains of what was issued before go on to build with either certificate (RFC 5280, 4.2.1.1),
//! and CRLs stay where they are.

use certwave_crds::{CertificateAuthority as Object, SubordinateSource};
use certwave_ledger::SerialKey;
use certwave_pki::{CertificateAuthority, CertificateInfo, PrivateKey, parse_certificate_info_pem};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;

use super::keys::{above, path};
use super::{MANAGER, is_revoked, profile, ready};
use crate::reconcile::error::Result;
use crate::reconcile::secrets::{self, CERTIFICATE, KEY};
use crate::reconcile::shared::Shared;

/// The CA's Secret, with a new certificate in it if that was due and could be had. `now` in Unix seconds.
pub(super) async fn renewed(
    shared: &Shared,
    object: &Object,
    source: &SubordinateSource,
    api: &Api<Secret>,
    secret: Secret,
    now: i64,
) -> Result<Secret> {
    let Some((key, info)) = own(object, &secret).filter(|(_, info)| due(object, info, now)) else {
        return Ok(secret);
    };
    let state = shared.authorities.get(&above(object, source));
    let Ok(issuer) = ready(state.as_deref(), &above(object, source), "spec.subordinate.issuerRef") else {
        return Ok(secret);
    };
    // A new certificate for the same key would undo the revocation.
    let present = SerialKey {
        issuer: issuer.entry.ca.key_id().to_string(),
        serial: info.serial.clone(),
    };
    if is_revoked(shared, &present).await? {
        return Ok(secret);
    }
    let signed = match issuer.entry.ca.subordinate(key, &profile::profile(object), now) {
        Ok(signed) => signed,
        Err(error) => {
            tracing::warn!(ca = object.name_any(), %error, "a CA's certificate is not renewed");
            return Ok(secret);
        }
    };
    if !lasts_longer(&signed, &info) {
        return Ok(secret);
    }
    tracing::info!(
        ca = object.name_any(),
        "a CA's certificate is renewed with the key that it has"
    );
    // Only for the version that was read: nothing that a person put there meanwhile is overwritten.
    let patch = json!({
        "metadata": { "resourceVersion": secret.metadata.resource_version },
        "data": { CERTIFICATE: ByteString(path(&signed).into_bytes()) },
    });
    let params = PatchParams {
        field_manager: Some(MANAGER.to_owned()),
        ..PatchParams::default()
    };
    Ok(api.patch(&secret.name_any(), &params, &Patch::Merge(patch)).await?)
}

/// Key and certificate, where they belong together and are those that the CA had.
fn own(object: &Object, secret: &Secret) -> Option<(PrivateKey, CertificateInfo)> {
    let key = PrivateKey::from_pem(&secrets::text(secret, KEY)?).ok()?;
    let info = parse_certificate_info_pem(&secrets::text(secret, CERTIFICATE)?).ok()?;
    let recorded = object.status.as_ref()?.key_id.as_deref()?;
    let same = info.spki_sha256 == hex::encode(key.public_key().spki_sha256()) && info.key_id.to_string() == recorded;
    same.then_some((key, info))
}

/// When a third of its life is left; also when it is over.
fn due(object: &Object, info: &CertificateInfo, now: i64) -> bool {
    info.not_after.saturating_sub(now) < object.spec.validity.as_secs() / 3
}

/// A certificate that is cut to its issuer's end may gain nothing.
fn lasts_longer(signed: &CertificateAuthority, than: &CertificateInfo) -> bool {
    let info = certwave_pki::parse_certificate_info(signed.certificate_der());
    info.is_ok_and(|info| info.not_after > than.not_after)
}

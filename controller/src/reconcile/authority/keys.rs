//! A CA's key and certificate: found in their Secret, or made once.
//!
//! Key and certificate are made together and stored by one create that fails when the Secret is there already, so any number
//! of replicas end up with the same CA. A CA whose key is gone is reported; nothing is ever made in its place.

use std::collections::BTreeMap;

use certwave_core::model::ObjectRef;
use certwave_crds::{
    CertificateAuthority as Object, ExternalSource, KeyAlgorithm as DeclaredAlgorithm, SubordinateSource,
};
use certwave_pki::{
    CertificateAuthority, ImportError, KeyAlgorithm, PrivateKey, certificates_to_pem, create_ca_csr, csr_to_pem,
};
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use kube::api::Api;
use secrecy::ExposeSecret as _;

use super::{AuthorityState, profile, ready, renewal};
use crate::reconcile::drive::name;
use crate::reconcile::error::{Error, Result};
use crate::reconcile::secrets::{self, CERTIFICATE, Content, KEY, REQUEST};
use crate::reconcile::shared::Shared;
use crate::reconcile::status::{Verdict, camel_case};

/// What there is of a CA.
pub(super) enum Found {
    /// Everything; it can issue.
    Ready(Box<CertificateAuthority>),
    /// Something is missing or wrong.
    Waiting {
        /// What.
        verdict: Verdict,
        /// The request to be signed outside, PEM.
        request: Option<String>,
    },
}

impl Found {
    fn waiting(verdict: Verdict) -> Self {
        Self::Waiting { verdict, request: None }
    }
}

/// Finds the CA of `object`, or makes it if it was never made. `now` in Unix seconds.
pub(super) async fn find(shared: &Shared, object: &Object, now: i64) -> Result<Found> {
    let api: Api<Secret> = shared.api(&object.namespace().unwrap_or_default());
    let before = Before::of(shared, object).await?;
    if let Some(source) = &object.spec.secret {
        return Ok(match api.get_opt(&source.secret_ref.name).await? {
            Some(secret) => judge(&before, import(&secret, text(&secret, CERTIFICATE), now)),
            None => Found::waiting(missing(&before, &source.secret_ref.name)),
        });
    }
    let name = key_secret(object);
    let secret = match api.get_opt(&name).await? {
        Some(secret) => secret,
        None if before.was_made() => return Ok(Found::waiting(missing(&before, &name))),
        None => match make(shared, object, now).await? {
            Ok(content) => secrets::create_once(&api, content).await?,
            Err(verdict) => return Ok(Found::waiting(verdict)),
        },
    };
    if !secrets::owned_by(&secret, &owner(object)) {
        let message = format!(
            "the Secret {name} was not made for this CA; set spec.keySecretName of a new CertificateAuthority to another name"
        );
        return Ok(Found::waiting(Verdict::no("SecretInUse", message)));
    }
    let secret = match &object.spec.subordinate {
        Some(source) => renewal::renewed(shared, object, source, &api, secret, now).await?,
        None => secret,
    };
    let Some(external) = &object.spec.external else {
        return Ok(judge(&before, import(&secret, text(&secret, CERTIFICATE), now)));
    };
    let request = secrets::text(&secret, REQUEST);
    Ok(match brought_back(&api, external).await? {
        Ok(chain) => match judge(&before, import(&secret, Ok(chain), now)) {
            Found::Waiting { verdict, .. } => Found::Waiting { verdict, request },
            ready @ Found::Ready(_) => ready,
        },
        Err(verdict) => Found::Waiting { verdict, request },
    })
}

/// Finds the CA of `object` as whoever makes CAs has left it, and makes nothing. `now` in Unix seconds.
pub(super) async fn look(shared: &Shared, object: &Object, now: i64) -> Result<Found> {
    let api: Api<Secret> = shared.api(&object.namespace().unwrap_or_default());
    let name = match &object.spec.secret {
        Some(source) => source.secret_ref.name.clone(),
        None => key_secret(object),
    };
    let before = Before::of(shared, object).await?;
    let Some(secret) = api.get_opt(&name).await? else {
        return Ok(Found::waiting(missing(&before, &name)));
    };
    let chain = match &object.spec.external {
        None => text(&secret, CERTIFICATE),
        Some(external) => match brought_back(&api, external).await? {
            Ok(chain) => Ok(chain),
            Err(verdict) => return Ok(Found::waiting(verdict)),
        },
    };
    Ok(judge(&before, import(&secret, chain, now)))
}

/// The algorithm as the PKI has it.
pub(in crate::reconcile) fn algorithm(declared: DeclaredAlgorithm) -> KeyAlgorithm {
    match declared {
        DeclaredAlgorithm::EcdsaP256 => KeyAlgorithm::EcdsaP256,
        DeclaredAlgorithm::EcdsaP384 => KeyAlgorithm::EcdsaP384,
        DeclaredAlgorithm::Ed25519 => KeyAlgorithm::Ed25519,
        DeclaredAlgorithm::Rsa2048 => KeyAlgorithm::Rsa2048,
        DeclaredAlgorithm::Rsa3072 => KeyAlgorithm::Rsa3072,
        DeclaredAlgorithm::Rsa4096 => KeyAlgorithm::Rsa4096,
    }
}

fn key_secret(object: &Object) -> String {
    object
        .spec
        .key_secret_name
        .clone()
        .unwrap_or_else(|| format!("{}-ca", object.name_any()))
}

fn owner(object: &Object) -> String {
    secrets::owner("ca", &object.name_any())
}

/// What a CA is known to have had.
#[derive(Debug, Default)]
struct Before {
    /// The key id, by the ledger or the status: either may have been lost, or put back without the other.
    key_id: Option<String>,
    /// A request was made with a key.
    requested: bool,
}

impl Before {
    async fn of(shared: &Shared, object: &Object) -> Result<Self> {
        let noted = shared.ledger.authority_key(&name(object)).await?;
        Ok(Self::with(object, noted))
    }

    fn with(object: &Object, noted: Option<String>) -> Self {
        let status = object.status.as_ref();
        Self {
            key_id: noted.or_else(|| status?.key_id.clone()),
            requested: status.is_some_and(|status| status.csr.is_some()),
        }
    }

    const fn was_made(&self) -> bool {
        self.key_id.is_some() || self.requested
    }
}

fn missing(before: &Before, secret: &str) -> Verdict {
    if before.was_made() {
        let message = format!(
            "the Secret {secret} with the CA's key is gone; restore it from a backup, or create another CertificateAuthority \
             and move the fleets. The key is not made anew, as devices trust the old one"
        );
        Verdict::no("KeyLost", message)
    } else {
        Verdict::no(
            "SecretNotFound",
            format!("create the Secret {secret} with tls.crt and tls.key"),
        )
    }
}

/// The certificate that was signed outside, with its chain, PEM.
async fn brought_back(api: &Api<Secret>, source: &ExternalSource) -> Result<std::result::Result<String, Verdict>> {
    if let Some(pem) = &source.certificate {
        return Ok(Ok(pem.clone()));
    }
    let Some(reference) = &source.certificate_secret_ref else {
        let message = "sign status.csr, and bring the certificate with its chain back in spec.external.certificate";
        return Ok(Err(Verdict::no("AwaitingCertificate", message)));
    };
    let key = reference.key.as_deref().unwrap_or(CERTIFICATE);
    let found = api
        .get_opt(&reference.name)
        .await?
        .and_then(|secret| secrets::text(&secret, key));
    Ok(found.ok_or_else(|| {
        let message = format!(
            "sign status.csr, and bring the certificate with its chain back in {key} of the Secret {}",
            reference.name
        );
        Verdict::no("AwaitingCertificate", message)
    }))
}

fn text(secret: &Secret, key: &'static str) -> std::result::Result<String, Verdict> {
    secrets::text(secret, key).ok_or_else(|| {
        Verdict::no(
            "SecretIncomplete",
            format!("the Secret {} lacks {key} in PEM", secret.name_any()),
        )
    })
}

fn import(
    secret: &Secret,
    chain: std::result::Result<String, Verdict>,
    now: i64,
) -> std::result::Result<CertificateAuthority, Verdict> {
    let (chain, key) = (chain?, text(secret, KEY)?);
    let key = PrivateKey::from_pem(&key).map_err(|e| {
        let message = format!("tls.key of the Secret {}: {e}", secret.name_any());
        Verdict::no(&format!("Key{}", camel_case(e.category())), message)
    })?;
    CertificateAuthority::import(&chain, key, now)
        .map_err(|e: ImportError| Verdict::no(&camel_case(e.category()), format!("{e} (Secret {})", secret.name_any())))
}

/// Refuses another key than the one that the CA had.
fn judge(before: &Before, imported: std::result::Result<CertificateAuthority, Verdict>) -> Found {
    match (imported, before.key_id.as_deref()) {
        (Ok(ca), Some(recorded)) if ca.key_id().to_string() != recorded => {
            let message = format!(
                "the Secret holds another key ({}) than the CA had ({recorded}); restore the old one, or create another \
                 CertificateAuthority and move the fleets",
                ca.key_id()
            );
            Found::waiting(Verdict::no("KeyLost", message))
        }
        (Ok(ca), _) => Found::Ready(Box::new(ca)),
        (Err(verdict), _) => Found::waiting(verdict),
    }
}

/// The CA that issues this one.
pub(super) fn above(object: &Object, source: &SubordinateSource) -> ObjectRef {
    ObjectRef {
        namespace: object.namespace().unwrap_or_default(),
        name: source.issuer_ref.name.clone(),
    }
}

/// Makes key and certificate, or key and request; nothing is stored yet.
async fn make(shared: &Shared, object: &Object, now: i64) -> Result<std::result::Result<Content, Verdict>> {
    let issuer = match &object.spec.subordinate {
        None => None,
        Some(source) => {
            let above = above(object, source);
            let state = shared.authorities.get(&above);
            match ready(state.as_deref(), &above, "spec.subordinate.issuerRef") {
                Ok(authority) => Some(authority.entry.ca.clone()),
                Err(verdict) => return Ok(Err(verdict)),
            }
        }
    };
    let (profile, kind) = (profile::profile(object), algorithm(object.spec.key_algorithm));
    let external = object.spec.external.is_some();
    // An RSA key takes seconds.
    let made = crate::apart::run(move || -> std::result::Result<_, Verdict> {
        let key = PrivateKey::generate(kind).map_err(|e| Verdict::no("KeyNotMade", e.to_string()))?;
        let refuse = |e: certwave_pki::CaError| Verdict::no(&camel_case(e.category()), e.to_string());
        let mut data = BTreeMap::from([(KEY.to_owned(), key.to_pkcs8_pem().expose_secret().to_owned())]);
        if external {
            let request = create_ca_csr(&key, &profile.subject).map_err(refuse)?;
            data.insert(REQUEST.to_owned(), csr_to_pem(&request));
        } else {
            let ca = match issuer {
                Some(issuer) => issuer.subordinate(key, &profile, now),
                None => CertificateAuthority::self_signed(key, &profile, now),
            };
            data.insert(CERTIFICATE.to_owned(), path(&ca.map_err(refuse)?));
        }
        Ok(data)
    });
    let data = made.await.map_err(|e| Error::Panicked(e.to_string()))?;
    Ok(data.map(|data| Content {
        name: key_secret(object),
        owner: owner(object),
        kind: if external { "Opaque" } else { "kubernetes.io/tls" },
        annotations: BTreeMap::new(),
        data,
        owner_reference: None,
    }))
}

/// The CA's certificate and all above it, the root last, PEM.
pub(super) fn path(ca: &CertificateAuthority) -> String {
    let above = ca.chain().iter().chain(ca.root_der().filter(|_| !ca.is_root()));
    certificates_to_pem(std::iter::once(ca.certificate_der()).chain(above))
}

/// For those who only have the state.
pub(super) fn verdict(state: &AuthorityState) -> Verdict {
    match state {
        AuthorityState::Ready(authority) if authority.revoked_above => Verdict::no(
            "CARevoked",
            "a CA above this one is revoked: whoever checks the whole chain refuses what this one has issued, so it issues nothing any \
             more, and goes on to publish what of its certificates is revoked; move its fleets to another CA",
        ),
        AuthorityState::Ready(authority) if authority.entry.revoked => Verdict::no(
            "Revoked",
            "the CA's certificate is revoked: it issues nothing any more, and goes on to publish what of its certificates is revoked; \
             move its fleets to another CA",
        ),
        AuthorityState::Ready(_) => Verdict::yes("Ready", "the CA issues certificates"),
        AuthorityState::NotReady(verdict) => verdict.clone(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use certwave_crds::{CertificateAuthoritySpec, CertificateAuthorityStatus};
    use certwave_pki::CaProfile;

    use super::*;

    const NOW: i64 = 1_790_000_000;

    fn object(status: Option<CertificateAuthorityStatus>) -> Object {
        let spec: CertificateAuthoritySpec = serde_json::from_value(serde_json::json!({"root": {}})).unwrap();
        let mut object = Object::new("root", spec);
        object.status = status;
        object
    }

    fn ca() -> CertificateAuthority {
        let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
        CertificateAuthority::self_signed(key, &CaProfile::named("root"), NOW).unwrap()
    }

    fn reason(found: &Found) -> &str {
        match found {
            Found::Ready(_) => "Ready",
            Found::Waiting { verdict, .. } => &verdict.reason,
        }
    }

    #[test]
    fn a_key_that_was_there_and_is_gone_is_lost() {
        let missing = |object: &Object, noted: Option<&str>| {
            let before = Before::with(object, noted.map(str::to_owned));
            missing(&before, "root-ca").reason
        };
        assert_eq!(missing(&object(None), None), "SecretNotFound");
        // An object that was put back without its status.
        assert_eq!(missing(&object(None), Some("aa")), "KeyLost");
        let status = CertificateAuthorityStatus {
            key_id: Some("aa".into()),
            ..Default::default()
        };
        assert_eq!(missing(&object(Some(status)), None), "KeyLost");
        let status = CertificateAuthorityStatus {
            csr: Some("pem".into()),
            ..Default::default()
        };
        assert_eq!(missing(&object(Some(status)), None), "KeyLost");
    }

    #[test]
    fn another_key_than_the_recorded_one_is_not_taken() {
        let ca = ca();
        let status = CertificateAuthorityStatus {
            key_id: Some(ca.key_id().to_string()),
            ..Default::default()
        };
        let before = [
            Before::with(&object(Some(status)), None),
            Before::with(&object(None), Some(ca.key_id().to_string())),
        ];
        for before in &before {
            assert_eq!(reason(&judge(before, Ok(self::ca()))), "KeyLost");
        }
        assert_eq!(reason(&judge(&before[0], Ok(ca))), "Ready");
    }

    #[test]
    fn each_fault_of_a_secret_has_its_own_reason() {
        let (own, other) = (ca(), ca());
        let leaf_key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
        let key = |key: &PrivateKey| key.to_pkcs8_pem().expose_secret().to_owned();
        let own_key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
        let own_pem = key(&own_key);
        let mine = CertificateAuthority::self_signed(own_key, &CaProfile::named("mine"), NOW).unwrap();
        let secret = |data: &[(&str, String)]| Secret {
            data: Some(
                data.iter()
                    .map(|(k, v)| ((*k).to_owned(), k8s_openapi::ByteString(v.clone().into_bytes())))
                    .collect(),
            ),
            ..Secret::default()
        };
        let take = |data: &[(&str, String)], now| {
            let secret = secret(data);
            let found = judge(&Before::default(), import(&secret, text(&secret, CERTIFICATE), now));
            reason(&found).to_owned()
        };
        let good = [(CERTIFICATE, path(&mine)), (KEY, own_pem.clone())];
        assert_eq!(take(&good, NOW), "Ready");
        assert_eq!(take(&good, NOW + 20 * 365 * 86_400), "Expired");
        assert_eq!(take(&good, NOW - 86_400), "NotYetValid");
        assert_eq!(
            take(&[(CERTIFICATE, path(&own)), (KEY, key(&leaf_key))], NOW),
            "KeyMismatch"
        );
        assert_eq!(take(&[(CERTIFICATE, path(&other))], NOW), "SecretIncomplete");
        assert_eq!(take(&[(KEY, own_pem.clone())], NOW), "SecretIncomplete");
        assert_eq!(
            take(&[(CERTIFICATE, path(&mine)), (KEY, "no key".into())], NOW),
            "KeyNoKey"
        );
        assert_eq!(
            take(&[(CERTIFICATE, "nothing".into()), (KEY, own_pem)], NOW),
            "NoCertificate"
        );
    }
}

//! CRLs in a `ConfigMap` or Secret, for brokers that mount a file: while they fit.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;
use std::sync::Arc;
use std::time::{Duration, Instant};

use certwave_core::model::ObjectRef;
use certwave_crds::{CertificateAuthority, CrlObject, CrlObjectKind};
use certwave_pki::FULL_PARTITION;
use certwave_pki::crl::to_pem;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::{ByteString, NamespaceResourceScope};
use kube::Resource;
use kube::api::{Api, ObjectMeta, Patch, PatchParams, PostParams};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Authority, AuthorityState};
use crate::publish::{Now, Stamp, is_over, kind_of};
use crate::reconcile::error::Result;
use crate::reconcile::secrets;
use crate::reconcile::shared::Shared;
use crate::reconcile::status::Verdict;

const MANAGER: &str = "certwave-crl";
/// An object may have 1 MiB, with all that the API server adds.
const ROOM: usize = 900 * 1024;
/// How often it is looked whether there is a newer CRL.
const PERIOD: Duration = Duration::from_millis(500);
/// How often it is written again although nothing has changed: somebody may have removed it.
const AGAIN: Duration = Duration::from_mins(2);

/// How it stands with a CA's object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::reconcile) struct Export {
    /// What holds CRLs of this CA.
    pub(in crate::reconcile) object: Option<CrlObject>,
    /// Whether they are too large for it; `None`: no object is declared.
    pub(in crate::reconcile) too_large: Option<Verdict>,
}

/// What is declared.
pub(super) fn target(object: &CertificateAuthority) -> Option<CrlObject> {
    let publication = object.spec.publication.as_ref()?;
    let of = |kind, name: &Option<String>| name.clone().map(|name| CrlObject { kind, name });
    of(CrlObjectKind::ConfigMap, &publication.config_map_name)
        .or_else(|| of(CrlObjectKind::Secret, &publication.secret_name))
}

/// What was written of a CA, where, and when.
type Written = (Vec<(String, Stamp)>, CrlObject, Instant);

/// A CRL (DER) as it was written last.
pub(in crate::reconcile) async fn kept(
    shared: &Shared,
    object: &CertificateAuthority,
    scope: &str,
) -> Result<Option<Vec<u8>>> {
    let key = format!("{scope}.crl");
    let namespace = super::name(object).namespace;
    let Some(CrlObject { kind, name }) = target(object) else {
        return Ok(None);
    };
    let binary = match kind {
        CrlObjectKind::ConfigMap => {
            let map = shared.api::<ConfigMap>(&namespace).get_opt(&name).await?;
            map.and_then(|map| map.binary_data)
        }
        CrlObjectKind::Secret => {
            let secret = shared.api::<Secret>(&namespace).get_opt(&name).await?;
            secret.and_then(|secret| secret.data)
        }
    };
    Ok(binary.and_then(|mut files| files.remove(&key)).map(|der| der.0))
}

/// Writes CRLs for ever. A CA whose object cannot be written holds up no other.
pub(in crate::reconcile) async fn run(shared: Arc<Shared>) -> Result<()> {
    let mut written: HashMap<ObjectRef, Written> = HashMap::new();
    loop {
        tokio::time::sleep(PERIOD).await;
        if shared.is_restored() {
            // What was written last may be all that is left of it.
            continue;
        }
        for (object, state) in shared.authorities.all() {
            let AuthorityState::Ready(authority) = &*state else {
                continue;
            };
            if let Err(error) = see_to(&shared, &object, authority, &mut written).await {
                shared.failed("CRL", &error);
                tracing::warn!(ca = object.name, %error, "CRLs cannot be written into an object");
            }
        }
    }
}

/// One CA's turn.
async fn see_to(
    shared: &Shared,
    object: &ObjectRef,
    authority: &Authority,
    written: &mut HashMap<ObjectRef, Written>,
) -> Result<()> {
    let (wanted, before) = (authority.export.as_ref(), authority.exported.as_ref());
    if let Some(before) = before.filter(|before| Some(*before) != wanted) {
        // They would end there, and with them whoever goes by them.
        put(shared, object, before, None).await?;
    }
    let Some(target) = wanted else {
        if before.is_some() {
            let none = Export {
                object: None,
                too_large: None,
            };
            shared.set_export(object, none);
        }
        return Ok(());
    };
    let key_id = authority.entry.ca.key_id().to_string();
    let scopes = listed(shared.publisher.scopes(&key_id), Now::of(shared.publisher.clock()));
    let same = written
        .get(object)
        .is_some_and(|(before, to, at)| *before == scopes && to == target && at.elapsed() < AGAIN);
    if same || scopes.is_empty() {
        return Ok(());
    }
    let mut crls = Vec::new();
    for (scope, _) in &scopes {
        crls.extend(
            shared
                .ledger
                .crl(&key_id, scope)
                .await?
                .map(|crl| (scope.clone(), crl.der)),
        );
    }
    let files = Files::of(&crls);
    let fits = files.is_some();
    let ours = put(shared, object, target, files).await?;
    let export = Export {
        object: ours.then(|| target.clone()),
        too_large: Some(verdict(&target.name, ours, fits)),
    };
    shared.set_export(object, export);
    written.insert(object.clone(), (scopes, target.clone(), Instant::now()));
    Ok(())
}

/// The CRLs that certificates name: months that are over, deltas and the list of all are left out.
fn listed(scopes: Vec<(String, Stamp)>, now: Now) -> Vec<(String, Stamp)> {
    let named = |scope: &str| scope != FULL_PARTITION && kind_of(scope) != "delta";
    let needed = |(scope, stamp): &(String, Stamp)| {
        named(scope) && !(is_over(scope, stamp, now) && stamp.next_update <= now.signing)
    };
    scopes.into_iter().filter(needed).collect()
}

/// What an object holds.
struct Files {
    /// DER, by name.
    binary: BTreeMap<String, ByteString>,
    /// All of them.
    pem: String,
}

impl Files {
    /// `None`: they are more than an object can hold.
    fn of(crls: &[(String, Vec<u8>)]) -> Option<Self> {
        // DER as base64, and PEM.
        let size: usize = crls.iter().map(|(_, der)| der.len() * 11 / 4).sum();
        let pem = || crls.iter().map(|(_, der)| to_pem(der)).collect();
        (size <= ROOM).then(|| Self {
            pem: pem(),
            binary: crls
                .iter()
                .map(|(scope, der)| (format!("{scope}.crl"), ByteString(der.clone())))
                .collect(),
        })
    }
}

/// A kind of object that can hold CRLs.
trait Holds:
    Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + Serialize + DeserializeOwned
{
    fn holding(metadata: ObjectMeta, files: Option<Files>) -> Self;
}

impl Holds for ConfigMap {
    fn holding(metadata: ObjectMeta, files: Option<Files>) -> Self {
        let (binary_data, pem) = files.map(|files| (files.binary, files.pem)).unzip();
        Self {
            metadata,
            data: pem.map(|pem| BTreeMap::from([("crl.pem".to_owned(), pem)])),
            binary_data,
            ..Self::default()
        }
    }
}

impl Holds for Secret {
    fn holding(metadata: ObjectMeta, files: Option<Files>) -> Self {
        let data = files.map(|files| {
            let mut data = files.binary;
            data.insert("crl.pem".to_owned(), ByteString(files.pem.into_bytes()));
            data
        });
        Self {
            metadata,
            data,
            ..Self::default()
        }
    }
}

/// Writes into the object of a CA, or takes out what was written; `false`: it is somebody else's, and stays as it is.
async fn put(shared: &Shared, ca: &ObjectRef, target: &CrlObject, files: Option<Files>) -> Result<bool> {
    let owner = secrets::owner("crl", &ca.name);
    Ok(match target.kind {
        CrlObjectKind::ConfigMap => apply(&shared.api::<ConfigMap>(&ca.namespace), &target.name, owner, files).await?,
        CrlObjectKind::Secret => apply(&shared.api::<Secret>(&ca.namespace), &target.name, owner, files).await?,
    })
}

async fn apply<K: Holds>(api: &Api<K>, name: &str, owner: String, files: Option<Files>) -> kube::Result<bool> {
    match api.get_opt(name).await? {
        Some(there) if !secrets::owned_by(&there, &owner) => return Ok(false),
        None if files.is_none() => return Ok(true),
        Some(_) => {}
        None => {
            // Of two that want the name one gets it.
            let empty = K::holding(secrets::metadata(name.to_owned(), owner.clone()), None);
            api.create(&PostParams::default(), &empty).await?;
        }
    }
    let object = K::holding(secrets::metadata(name.to_owned(), owner), files);
    api.patch(name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(object))
        .await?;
    Ok(true)
}

fn verdict(name: &str, ours: bool, fits: bool) -> Verdict {
    if !ours {
        Verdict::unknown(
            "InUse",
            format!(
                "{name} was not made for the CRLs of this CertificateAuthority: nothing is written into it; let spec.publication name \
                 another one"
            ),
        )
    } else if fits {
        Verdict::no("Fits", format!("the CRLs are in {name}"))
    } else {
        Verdict::yes(
            "TooLarge",
            format!(
                "the CRLs have more than {} KiB together: they were taken out of {name}, where they would have ended; get \
                 them over HTTP",
                ROOM / 1024
            ),
        )
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_no_certificate_names_is_left_out() {
        let made = |scope: &str, next_update| {
            let stamp = Stamp {
                number: 1,
                this_update: 1_790_000_000,
                next_update,
                covers: 0,
                entries: 0,
                names_deltas: false,
            };
            (scope.to_owned(), stamp)
        };
        let now = 1_790_100_000;
        let scopes = ["2026-01", "2027-01", "2027-01.delta", "ca", "full"];
        let kept = listed(scopes.map(|scope| made(scope, now - 1)).to_vec(), Now::at(now));
        let names: Vec<_> = kept.iter().map(|(scope, _)| scope.as_str()).collect();
        assert_eq!(names, ["2027-01", "ca"]);
    }

    #[test]
    fn what_does_not_fit_is_not_written_in_part() {
        let crls = |size: usize| vec![("ca".to_owned(), vec![0; 100]), ("2027-01".to_owned(), vec![0; size])];
        let files = Files::of(&crls(200_000)).unwrap();
        assert_eq!(files.binary["2027-01.crl"].0.len(), 200_000);
        assert_eq!(files.pem.matches("BEGIN X509 CRL").count(), 2);
        let size = |files: &Files| {
            serde_json::to_vec(&ConfigMap::holding(
                ObjectMeta::default(),
                Some(Files {
                    binary: files.binary.clone(),
                    pem: files.pem.clone(),
                }),
            ))
        };
        assert!(size(&files).unwrap().len() < ROOM);
        assert!(Files::of(&crls(400_000)).is_none());
        let reasons =
            [(true, true), (true, false), (false, true)].map(|(ours, fits)| verdict("crls", ours, fits).reason);
        assert_eq!(reasons, ["Fits", "TooLarge", "InUse"]);
    }
}

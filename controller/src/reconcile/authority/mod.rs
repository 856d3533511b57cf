//! `CertificateAuthority`: its key and certificate, its first CRL, and what others need of it.

mod crl;
mod keys;
mod profile;
mod renewal;
mod view;

use std::sync::Arc;
use std::time::Duration;

use certwave_core::model::ObjectRef;
use certwave_crds::CertificateAuthority;
use certwave_ledger::{CertificateKind, CertificateRecord};
use certwave_pki::{CA_PARTITION, Publication, SubjectPublicKey};
use certwave_protocol::ids::Fingerprint;
use kube::runtime::controller::Action;

pub(super) use crl::renew as renew_crls;
pub(super) use keys::algorithm;

use super::drive::{Reconciler, name};
use super::error::{Error, Result};
use super::shared::Shared;
use super::status::{Verdict, publish};
use super::time::{now_ms, now_s};
use crate::registry::IssuerEntry;
use keys::Found;

const MANAGER: &str = "certwave-authority";
/// How soon a CA that waits for something is looked at again: Secrets are not watched.
const WAITING: Duration = Duration::from_secs(5);
/// How often a ready one is: its Secret may be gone.
const READY: Duration = Duration::from_mins(2);

/// What others see of a CA.
pub(super) enum AuthorityState {
    /// It issues.
    Ready(Authority),
    /// It does not, and why.
    NotReady(Verdict),
}

/// A CA that issues.
pub(super) struct Authority {
    pub(super) entry: IssuerEntry,
    /// How long before `nextUpdate` its CRLs are made anew, seconds.
    pub(super) crl_renew_before: i64,
    /// How far certificates reach back unless a Fleet says otherwise.
    pub(super) backdate: Duration,
}

impl Authority {
    /// What those trust who trust this CA: its root, or the topmost certificate that was brought along.
    pub(super) fn anchor(&self) -> rustls_pki_types::CertificateDer<'static> {
        let ca = &self.entry.ca;
        ca.root_der()
            .or_else(|| ca.chain().last())
            .unwrap_or_else(|| ca.certificate_der())
            .clone()
    }
}

impl PartialEq for AuthorityState {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::NotReady(a), Self::NotReady(b)) => a == b,
            (Self::Ready(a), Self::Ready(b)) => {
                a.entry.ca.certificate_der() == b.entry.ca.certificate_der()
                    && a.entry.ca.chain() == b.entry.ca.chain()
                    && a.entry.ca.root_der() == b.entry.ca.root_der()
                    && a.entry.ca.publication() == b.entry.ca.publication()
                    && a.entry.crl_validity == b.entry.crl_validity
                    && a.crl_renew_before == b.crl_renew_before
                    && a.backdate == b.backdate
            }
            _ => false,
        }
    }
}

/// Why a CA cannot be used; the caller names it.
pub(super) fn ready<'a>(
    state: Option<&'a AuthorityState>,
    object: &ObjectRef,
    field: &str,
) -> std::result::Result<&'a Authority, Verdict> {
    match state {
        None => Err(Verdict::no(
            "CANotFound",
            format!(
                "{field} names the CertificateAuthority {}, which does not exist in {}",
                object.name, object.namespace
            ),
        )),
        Some(AuthorityState::NotReady(why)) => Err(Verdict::no(
            "CANotReady",
            format!(
                "the CertificateAuthority {} is not ready: {}: {}",
                object.name, why.reason, why.message
            ),
        )),
        Some(AuthorityState::Ready(authority)) => Ok(authority),
    }
}

/// The reconciler of `CertificateAuthority`.
pub(super) struct Authorities {
    pub(super) shared: Arc<Shared>,
}

impl Reconciler for Authorities {
    type Object = CertificateAuthority;
    const KIND: &'static str = "CertificateAuthority";

    async fn reconcile(&self, object: Arc<CertificateAuthority>) -> Result<Action> {
        let shared = &*self.shared;
        let own = name(&*object);
        let found = match publication(&object, shared) {
            Ok(publication) => (keys::find(shared, &object, now_s()).await?, publication),
            Err(verdict) => (Found::Waiting { verdict, request: None }, None),
        };
        let (state, request) = match found {
            (Found::Ready(ca), publication) => {
                let ca = match publication {
                    Some(publication) => ca.with_publication(publication),
                    None => *ca,
                };
                let entry = IssuerEntry {
                    ca: Arc::new(ca),
                    object: own.clone(),
                    crl_validity: object.spec.crl.validity.as_secs(),
                };
                record(shared, &entry).await?;
                shared.registry.add_issuer(&entry);
                shared.ensure_crl(&entry, CA_PARTITION).await?;
                let authority = Authority {
                    entry,
                    crl_renew_before: object.spec.crl.renew_before.as_secs(),
                    backdate: object.spec.backdate.as_std(),
                };
                (AuthorityState::Ready(authority), None)
            }
            (Found::Waiting { verdict, request }, _) => (AuthorityState::NotReady(verdict), request),
        };
        let crls = view::crls(&*shared.ledger, &state).await?;
        let status = view::status(&object, &state, request, crls, now_s());
        if let (AuthorityState::Ready(_), Some(end)) = (&state, &status.not_after) {
            shared.show_authority_end(&own, Some(end.0.as_second()));
        }
        publish(
            &shared.api(&own.namespace),
            &*object,
            MANAGER,
            object.status.as_ref(),
            &status,
        )
        .await?;
        // Only now: whoever issues by this CA may rely on its key id standing in its status.
        let wait = if matches!(state, AuthorityState::Ready(_)) {
            READY
        } else {
            WAITING
        };
        shared.authorities.set(&own, Some(state));
        Ok(Action::requeue(wait))
    }

    async fn forget(&self, object: &ObjectRef) -> Result<()> {
        self.shared.authorities.set(object, None);
        self.shared.show_authority_end(object, None);
        Ok(())
    }

    fn knows(&self, object: &ObjectRef) -> bool {
        self.shared.authorities.get(object).is_some()
    }
}

/// Where this CA publishes: as its object says, else at this controller's own base URL, if there is one.
fn publication(object: &CertificateAuthority, shared: &Shared) -> std::result::Result<Option<Publication>, Verdict> {
    let base = object
        .spec
        .publication
        .as_ref()
        .map(|p| &p.base_url)
        .or(shared.publication_base.as_ref());
    base.map(|base| Publication::new(base))
        .transpose()
        .map_err(|e| Verdict::no("InvalidPublication", e.to_string()))
}

/// Tells the ledger of the CA's certificate.
async fn record(shared: &Shared, entry: &IssuerEntry) -> Result<()> {
    let der = entry.ca.certificate_der();
    let unreadable = |e: certwave_pki::ParseError| Error::Pki {
        what: "the CA's certificate",
        why: e.to_string(),
        category: e.category(),
    };
    let info = certwave_pki::parse_certificate_info(der).map_err(unreadable)?;
    let issuer = match entry.ca.issuing_chain().nth(1).or(entry.ca.root_der()) {
        Some(above) => certwave_pki::parse_certificate_info(above).map_err(unreadable)?.key_id,
        None => entry.ca.key_id().clone(),
    };
    let key: &SubjectPublicKey = entry.ca.public_key();
    let certificate = CertificateRecord {
        fingerprint: Fingerprint::of(der),
        serial: info.serial,
        issuer: issuer.to_string(),
        spki: Fingerprint::of(key.spki_der()),
        public_key: key.spki_der().to_vec(),
        not_before: info.not_before,
        not_after: info.not_after,
        kind: CertificateKind::Authority,
        // Two objects may bring the same CA along, so the holder is the key, not the object.
        holder: entry.ca.key_id().to_string(),
        identity: None,
        job: None,
        der: der.to_vec(),
        issued_at: now_ms(),
    };
    Ok(shared.ledger.record(shared.epoch, certificate).await?)
}

//! `CertificateAuthority`: its key and certificate, its first CRL, and what others need of it.

mod crls;
mod export;
mod follow;
mod keys;
mod profile;
mod renewal;
mod signer;
mod view;

use std::sync::Arc;
use std::time::Duration;

use certwave_core::model::ObjectRef;
use certwave_core::revocation::Standing;
use certwave_crds::{CertificateAuthority as Object, CrlObject};
use certwave_ledger::{CertificateKind, CertificateRecord, SerialKey};
use certwave_pki::{
    CA_PARTITION, CertificateAuthority, FULL_PARTITION, Publication, PublicationError, SubjectPublicKey,
};
use certwave_protocol::ids::Fingerprint;
use kube::runtime::controller::Action;

pub(super) use export::{Export, kept as kept_crl, run as export_crls};
pub use follow::follow_signers;
pub(super) use keys::algorithm;

use super::drive::{Reconciler, name};
use super::error::{Error, Result};
use super::shared::Shared;
use super::status::{Verdict, publish};
use super::time::{now_ms, now_s};
use crate::publish::CrlFault;
use crate::registry::{CrlPolicy, IssuerEntry};
use keys::Found;

const MANAGER: &str = "certwave-authority";
/// How soon a CA that waits for something is looked at again: Secrets are not watched.
const WAITING: Duration = Duration::from_secs(5);
/// How often a ready one is: its Secret may be gone.
const READY: Duration = Duration::from_mins(2);

/// A renewal that is due and does not happen is not tried more often.
const SOONEST: Duration = Duration::from_secs(1);

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
    /// The object that its CRLs are written into, too.
    pub(super) export: Option<CrlObject>,
    /// The one that holds CRLs of it, by its status.
    pub(super) exported: Option<CrlObject>,
    /// How far certificates reach back unless a Fleet says otherwise.
    pub(super) backdate: Duration,
    /// A CA above it is revoked, and not its own certificate: whoever checks the whole chain refuses what it issues.
    pub(super) revoked_above: bool,
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
                    && a.entry.crl == b.entry.crl
                    && a.entry.revoked == b.entry.revoked
                    && a.export == b.export
                    && a.exported == b.exported
                    && a.backdate == b.backdate
                    && a.revoked_above == b.revoked_above
            }
            _ => false,
        }
    }
}

/// Why nobody gets a certificate from a CA that is revoked, or one above it.
pub(super) fn revoked(object: &ObjectRef, field: &str) -> Verdict {
    Verdict::no(
        "CARevoked",
        format!(
            "the certificate of the CertificateAuthority {}, or of one above it, is revoked, so it issues nothing any more; let \
             {field} name another one",
            object.name
        ),
    )
}

/// A CA that issues, or why not; the caller names it.
pub(super) fn ready<'a>(
    state: Option<&'a AuthorityState>,
    object: &ObjectRef,
    field: &str,
) -> std::result::Result<&'a Authority, Verdict> {
    let authority = known(state, object, field)?;
    if authority.entry.revoked {
        return Err(revoked(object, field));
    }
    Ok(authority)
}

/// A CA with its key and certificate, revoked or not, or why it cannot be used; the caller names it.
pub(super) fn known<'a>(
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
    type Object = Object;
    const KIND: &'static str = "CertificateAuthority";

    async fn reconcile(&self, object: Arc<Object>) -> Result<Action> {
        let shared = &*self.shared;
        if !shared.leads() {
            return self.look(&object).await;
        }
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
                let authority = issuing(shared, &object, ca, Makes::Yes).await?;
                first_crls(shared, &authority.entry).await?;
                (AuthorityState::Ready(authority), None)
            }
            (Found::Waiting { verdict, request }, _) => (AuthorityState::NotReady(verdict), request),
        };
        let signer = signer::keep(shared, &object, &state, now_s()).await?;
        let mut aspects = crls::aspects(shared, &object, &state);
        aspects.extend(signer.expiring.map(|verdict| ("OCSPSignerExpiring", verdict)));
        let crls = crls::shown(shared, &object, &state);
        let shown = view::Shown {
            request,
            crls,
            crl_object: crls::object(shared, &object),
            signer: signer.status,
            aspects,
        };
        let status = view::status(&object, &state, shown, now_s());
        crls::tell(shared, &object, &status).await;
        if let (AuthorityState::Ready(_), Some(end)) = (&state, &status.not_after) {
            let begin = status.not_before.as_ref().map_or(0, |begin| begin.0.as_second());
            shared.metrics.authorities.show(&own, begin, end.0.as_second());
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
            signer.due_in.map_or(READY, |due| due.clamp(SOONEST, READY))
        } else {
            WAITING
        };
        shared.authorities.set(&own, Some(state));
        Ok(Action::requeue(wait))
    }

    async fn forget(&self, object: &ObjectRef) -> Result<()> {
        self.shared.authorities.set(object, None);
        if self.shared.leads() {
            self.shared.metrics.authorities.forget(object);
        }
        Ok(())
    }

    fn knows(&self, object: &ObjectRef) -> bool {
        self.shared.authorities.get(object).is_some()
    }
}

impl Authorities {
    /// Takes a CA over as the controller's holder shows it, and makes nothing.
    async fn look(&self, object: &Object) -> Result<Action> {
        let shared = &*self.shared;
        let shown = object.status.as_ref().and_then(|status| status.key_id.as_ref());
        let state = match (publication(object, shared), shown) {
            (Err(verdict), _) => AuthorityState::NotReady(verdict),
            (Ok(_), None) => AuthorityState::NotReady(said(object)),
            (Ok(publication), Some(key_id)) => match keys::look(shared, object, now_s()).await? {
                Found::Waiting { verdict, .. } => AuthorityState::NotReady(verdict),
                Found::Ready(ca) if ca.key_id().to_string() != *key_id => {
                    AuthorityState::NotReady(Verdict::no("NotReadYet", "its Secret has another key than its status"))
                }
                Found::Ready(ca) => {
                    let ca = match publication {
                        Some(publication) => ca.with_publication(publication),
                        None => *ca,
                    };
                    AuthorityState::Ready(issuing(shared, object, ca, Makes::No).await?)
                }
            },
        };
        let wait = match state {
            AuthorityState::Ready(_) => READY,
            AuthorityState::NotReady(_) => WAITING,
        };
        shared.authorities.set(&name(object), Some(state));
        Ok(Action::requeue(wait))
    }
}

/// Why a CA without a key is not ready, as its object says.
fn said(object: &Object) -> Verdict {
    let conditions = object.status.iter().flat_map(|status| &status.conditions);
    let ready = conditions.into_iter().find(|condition| condition.type_ == "Ready");
    match ready.filter(|condition| condition.observed_generation == object.metadata.generation) {
        Some(condition) => Verdict::no(&condition.reason, condition.message.clone()),
        None => Verdict::no("NotReadYet", "it has not been looked at yet"),
    }
}

/// Whether this part's holder makes CAs, or only uses them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Makes {
    Yes,
    No,
}

/// A CA with its key and certificate, as others see it.
async fn issuing(shared: &Shared, object: &Object, ca: CertificateAuthority, makes: Makes) -> Result<Authority> {
    let crl = &object.spec.crl;
    let mut entry = IssuerEntry {
        ca: Arc::new(ca),
        object: name(object),
        crl: CrlPolicy {
            validity: crl.validity.as_secs(),
            renew_before: crl.renew_before.as_secs(),
            complete_every: crl.delta.as_ref().map(|delta| delta.complete_every.as_secs()),
        },
        revoked: false,
    };
    let certificate = certificate(&entry)?;
    let key = SerialKey {
        issuer: certificate.issuer.clone(),
        serial: certificate.serial.clone(),
    };
    if makes == Makes::Yes {
        shared.ledger.record(shared.epoch, certificate).await?;
        let key_id = entry.ca.key_id().to_string();
        if shared.ledger.authority_key(&entry.object).await?.as_ref() != Some(&key_id) {
            let object = entry.object.clone();
            shared.ledger.note_authority_key(shared.epoch, object, key_id).await?;
        }
    }
    let own_revoked = is_revoked(shared, &key).await?;
    let revoked_above = !own_revoked && is_revoked_above(shared, &entry.ca).await?;
    entry.revoked = own_revoked || revoked_above;
    shared.registry.add_issuer(&entry);
    Ok(Authority {
        entry,
        export: export::target(object),
        exported: object.status.as_ref().and_then(|status| status.crl_object.clone()),
        backdate: object.spec.backdate.as_std(),
        revoked_above,
    })
}

/// Where this CA publishes: as its object says, else at this controller's own base URL, if there is one.
fn publication(object: &Object, shared: &Shared) -> std::result::Result<Option<Publication>, Verdict> {
    let base = object
        .spec
        .publication
        .as_ref()
        .map(|p| &p.base_url)
        .or(shared.publication_base.as_ref());
    let publish = |base: &String| {
        let publication = Publication::new(base)?;
        Ok(if signer::wanted(shared, object) {
            publication.with_ocsp()
        } else {
            publication
        })
    };
    base.map(publish)
        .transpose()
        .map_err(|e: PublicationError| Verdict::no("InvalidPublication", e.to_string()))
}

/// The CRLs that every CA has. A restored ledger makes none yet, and those of before are still served.
async fn first_crls(shared: &Shared, entry: &IssuerEntry) -> Result<()> {
    for scope in [CA_PARTITION, FULL_PARTITION] {
        match shared.publisher.ensure(entry, scope).await {
            Ok(()) | Err(CrlFault::Restored) => {}
            Err(fault) => return Err(fault.into()),
        }
    }
    Ok(())
}

/// Whether a CA's certificate was revoked by a person.
async fn is_revoked(shared: &Shared, key: &SerialKey) -> Result<bool> {
    let marked = shared.ledger.marked_certificate(key).await?;
    Ok(marked.is_some_and(|marked| matches!(marked.standing, Standing::Revoked { .. })))
}

/// Whether one of the certificates between the CA and its root was revoked by a person, as far as it was issued here.
async fn is_revoked_above(shared: &Shared, ca: &CertificateAuthority) -> Result<bool> {
    let above: Vec<_> = ca.issuing_chain().skip(1).chain(ca.root_der()).collect();
    for pair in above.windows(2) {
        let parse = |der| certwave_pki::parse_certificate_info(der).map_err(|error| unreadable(&error));
        let key = SerialKey {
            issuer: parse(pair[1])?.key_id.to_string(),
            serial: parse(pair[0])?.serial,
        };
        if is_revoked(shared, &key).await? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn unreadable(error: &certwave_pki::ParseError) -> Error {
    Error::Pki {
        what: "the CA's certificate",
        why: error.to_string(),
        category: error.category(),
    }
}

/// The CA's certificate as the ledger has it.
fn certificate(entry: &IssuerEntry) -> Result<CertificateRecord> {
    let der = entry.ca.certificate_der();
    let info = certwave_pki::parse_certificate_info(der).map_err(|error| unreadable(&error))?;
    let issuer = match entry.ca.issuing_chain().nth(1).or(entry.ca.root_der()) {
        Some(above) => {
            certwave_pki::parse_certificate_info(above)
                .map_err(|error| unreadable(&error))?
                .key_id
        }
        None => entry.ca.key_id().clone(),
    };
    let key: &SubjectPublicKey = entry.ca.public_key();
    Ok(CertificateRecord {
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
    })
}

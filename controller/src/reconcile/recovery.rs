//! After a restore: takes in again what the backup does not know, before anything is issued or any CRL made.
//!
//! What was issued since stands in the status of devices; what was revoked, in the CRLs that were published last. Those are read
//! from where relying parties get them, and from the `ConfigMap` or Secret that they are written into; the newer one counts, and only
//! when its signature fits and its number is not below the one that the CA's status shows: an older one, which this controller
//! serves from the backup itself, does not say what was revoked since. Where none is to be had any more, a person has to say so,
//! by an annotation that names this very ledger.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use certwave_core::model::{Identity, ObjectRef};
use certwave_core::revocation::{Reason, Standing};
use certwave_crds::{
    CertificateAuthority, CertificateStanding, CertificateStatus, DeviceCertificate, RevokedCertificate,
};
use certwave_ledger::{Declaration, Held, SerialKey, TakenIn};
use certwave_pki::crl::{Crl, CrlReadError, MAX_CRL_BYTES, Mark};
use certwave_pki::{FULL_PARTITION, parse_certificate_info, partition_of};
use kube::api::ListParams;

use super::authority::kept_crl;
use super::device::{declaration, reason};
use super::drive::name;
use super::error::Result;
use super::shared::Shared;
use super::time::{now_ms, now_s};
use crate::publish::end_of;
use crate::registry::IssuerEntry;

/// Its value is the id of the ledger that may go on without the CRLs that were published last.
const ACCEPT: &str = "certwave.dev/accept-lost-crl";
/// How often it is tried.
const PERIOD: Duration = Duration::from_secs(3);
/// How often it is looked whether another part has done it.
const FOLLOWING: Duration = Duration::from_millis(500);
/// For one CRL.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Objects in one list, and certificates in one transaction.
const PAGE: u32 = 500;

/// Numbers below which no CRL may go: issuer, partition, number.
type Floors = Vec<(String, String, u64)>;

/// What one CA's CRLs told.
#[derive(Default)]
struct Told {
    lines: Vec<TakenIn>,
    floors: Floors,
    missing: Vec<String>,
}

/// Runs until the ledger knows what it should; then, and where it was not restored, for ever.
pub(super) async fn run(shared: Arc<Shared>) -> Result<()> {
    loop {
        match attempt(&shared).await {
            Ok(None) => break,
            Ok(Some(missing)) => {
                tracing::warn!(missing, "the restored ledger waits");
                shared.set_recovery(Some(missing));
            }
            Err(error) => {
                shared.failed("Ledger", &error);
                tracing::warn!(%error, "the restored ledger cannot be completed yet");
            }
        }
        tokio::time::sleep(PERIOD).await;
    }
    shared.set_recovery(None);
    std::future::pending().await
}

/// For a broker's part: waits until the controller's has done it; then, and where it was not restored, for ever.
pub(super) async fn follow(shared: Arc<Shared>) -> Result<()> {
    loop {
        match shared.ledger.provenance().await {
            Ok(provenance) if provenance.restored_at.is_none() => break,
            Ok(_) => shared.set_recovery(Some("the ledger is being completed".to_owned())),
            Err(error) => shared.failed("Ledger", &error.into()),
        }
        tokio::time::sleep(FOLLOWING).await;
    }
    shared.set_recovery(None);
    std::future::pending().await
}

/// Answers what is still missing, for people; `None` once nothing is.
async fn attempt(shared: &Shared) -> Result<Option<String>> {
    let provenance = shared.ledger.provenance().await?;
    if provenance.restored_at.is_none() {
        return Ok(None);
    }
    let mut told = Told::default();
    let authorities = shared
        .api_all::<CertificateAuthority>()
        .list(&ListParams::default())
        .await?;
    for object in &authorities.items {
        authority(shared, object, &provenance.id, &mut told).await;
    }
    if let Some(first) = told.missing.first() {
        let more = told.missing.len() - 1;
        return Ok(Some(format!(
            "{first} ({more} more like this). If it is lost for good, revoke again what was revoked since the backup once the \
             ledger is in use, and annotate the CertificateAuthority {ACCEPT}={}",
            provenance.id
        )));
    }
    // What relying parties were told counts, not the short word of a status.
    let listed = told.lines.iter().map(|line| (&line.key, line)).collect();
    if let Some(missing) = devices(shared, &listed).await? {
        return Ok(Some(missing));
    }
    let scopes = told.floors.clone();
    let mut floors = Some(told.floors);
    let mut pages: Vec<_> = told.lines.chunks(PAGE as usize).map(<[_]>::to_vec).collect();
    pages.push(Vec::new());
    let mut lines = 0;
    for page in pages {
        let floors = floors.take().unwrap_or_default();
        lines += shared.ledger.take_in(shared.epoch, now_ms(), page, floors).await?;
    }
    shared.ledger.recovered(shared.epoch, now_ms()).await?;
    tracing::info!(
        lines,
        "the restored ledger knows again what was issued and revoked since its backup"
    );
    // Caches on the way may have newer ones than those of the backup.
    for (issuer, scope, _) in scopes {
        if let Some(entry) = shared.registry.issuer(&issuer)
            && let Err(fault) = shared.publisher.publish(&entry, &scope).await
        {
            tracing::error!(issuer, scope, error = %fault, "cannot make a CRL");
        }
    }
    shared.registry.standing_moved();
    Ok(None)
}

/// What the CRLs say that a CA's status shows as published.
async fn authority(shared: &Shared, object: &CertificateAuthority, ledger: &str, told: &mut Told) {
    let own = name(object);
    let Some((key_id, shown)) = object.status.as_ref().and_then(|s| Some((s.key_id.as_ref()?, &s.crls))) else {
        return;
    };
    let accepted = object
        .metadata
        .annotations
        .as_ref()
        .and_then(|all| all.get(ACCEPT))
        .is_some_and(|id| id == ledger);
    let issuer = shared.registry.issuer(key_id);
    for crl in shown {
        let least = u64::try_from(crl.number).unwrap_or(0);
        if crl.partition == FULL_PARTITION {
            // Its lines stand in the others, which say in which month a certificate ends.
            let served = match &issuer {
                Some(issuer) => served(shared, issuer, &crl.partition)
                    .await
                    .map_or(0, |(number, _)| number),
                None => 0,
            };
            told.floors
                .push((key_id.clone(), crl.partition.clone(), served.max(least)));
            continue;
        }
        let found = match &issuer {
            Some(issuer) => newest(shared, object, issuer, &crl.partition).await,
            None => Err(format!(
                "the CertificateAuthority {}/{} is not ready",
                own.namespace, own.name
            )),
        };
        let (number, lines) = match found {
            Ok((number, lines)) if number >= least => (number, lines),
            Ok((number, _)) if !accepted => {
                told.missing.push(format!(
                    "the CRL {} of {}/{} has the number {number} where it is served, but {least} was published",
                    crl.partition, own.namespace, own.name
                ));
                continue;
            }
            Err(error) if !accepted => {
                told.missing.push(error);
                continue;
            }
            Ok((number, lines)) => (number, lines),
            Err(_) => (least, Vec::new()),
        };
        told.lines.extend(lines);
        told.floors
            .push((key_id.clone(), crl.partition.clone(), number.max(least)));
    }
}

/// A CRL's number and lines.
type Read = (u64, Vec<TakenIn>);

/// The newer of the CRL that is served and the one that was written into an object.
async fn newest(
    shared: &Shared,
    object: &CertificateAuthority,
    issuer: &IssuerEntry,
    partition: &str,
) -> Result<Read, String> {
    let served = served(shared, issuer, partition).await;
    let kept = match kept_crl(shared, object, partition).await {
        Ok(Some(der)) => read(issuer, partition, &der).map_err(|error| format!("the written CRL {partition}: {error}")),
        Ok(None) => return served,
        Err(error) => Err(error.to_string()),
    };
    match (served, kept) {
        (Ok(served), Ok(kept)) => Ok(if kept.0 > served.0 { kept } else { served }),
        (Ok(one), Err(_)) | (Err(_), Ok(one)) => Ok(one),
        (Err(error), Err(other)) => Err(format!("{error}; {other}")),
    }
}

/// A CRL as relying parties get it.
async fn served(shared: &Shared, issuer: &IssuerEntry, partition: &str) -> Result<Read, String> {
    let Some(publication) = issuer.ca.publication() else {
        return Err("the CA has no publication base URL any more".to_owned());
    };
    let url = publication.crl_url(issuer.ca.key_id(), partition);
    let answer = shared.monitor.client().fetch(&url, None, TIMEOUT, MAX_CRL_BYTES).await;
    let (status, _, body) = answer.map_err(|error| format!("{url}: {error}"))?;
    if status != 200 {
        return Err(format!("{url}: the server answers {status}"));
    }
    read(issuer, partition, &body).map_err(|error| format!("{url}: {error}"))
}

fn read(issuer: &IssuerEntry, partition: &str, der: &[u8]) -> Result<Read, CrlReadError> {
    let crl = Crl::parse(der)?;
    let ca = issuer.ca.certificate_der();
    crl.verify(ca)?;
    let month = partition.strip_suffix(".delta").unwrap_or(partition);
    // Subordinates end no later than their issuer.
    let end = match end_of(month) {
        Some(end) => end - 1,
        None => parse_certificate_info(ca).map_or(i64::MAX, |info| info.not_after),
    };
    let lines = crl.entries().filter_map(|line| {
        let standing = match line.mark {
            Mark::Revoked(Reason::CertificateHold) => Standing::Held { since: line.at },
            Mark::Revoked(reason) => Standing::Revoked { since: line.at, reason },
            Mark::Removed => return None,
        };
        Some(TakenIn {
            key: SerialKey {
                issuer: issuer.ca.key_id().to_string(),
                serial: line.serial.to_string(),
            },
            fingerprint: None,
            holder: None,
            public_key: None,
            validity: (0, end),
            partition: month.to_owned(),
            standing,
            invalid_since: line.invalid_since,
        })
    });
    Ok((crl.number(), lines.collect()))
}

/// Takes in what devices hold by their status; answers what has to be waited for.
async fn devices(shared: &Shared, listed: &HashMap<&SerialKey, &TakenIn>) -> Result<Option<String>> {
    let api = shared.api_all::<DeviceCertificate>();
    let mut params = ListParams::default().limit(PAGE);
    loop {
        let page = api.list(&params).await?;
        let (mut held, mut unknown) = (Vec::new(), Vec::new());
        for object in &page.items {
            let own = name(object);
            let fleet = ObjectRef {
                namespace: own.namespace.clone(),
                name: object.spec.fleet_ref.name.clone(),
            };
            let certificates = object.status.as_ref().map(|status| &status.certificates);
            let Some(certificates) = certificates.filter(|held| **held != certwave_crds::DeviceCertificates::default())
            else {
                continue;
            };
            let Some(broker) = shared.homes.get(&fleet).and_then(|home| (*home).clone()) else {
                return Ok(Some(format!(
                    "the Fleet {}/{} is not resolved yet: its devices cannot be taken in",
                    fleet.namespace, fleet.name
                )));
            };
            let Some(declaration) = declaration(object, broker) else {
                continue;
            };
            let identity = declaration.identity.clone();
            if shared.ledger.device_by_object(&own).await?.is_none() {
                // What else it declares is taken over once the ledger is complete.
                unknown.push(Declaration {
                    reenrol: None,
                    ..declaration
                });
            }
            let slots = [
                (Held::Current, &certificates.current),
                (Held::Previous, &certificates.previous),
                (Held::Pending, &certificates.pending),
            ];
            let revocation = object.status.as_ref().and_then(|status| status.revocation.as_ref());
            let said = revocation.map(|all| all.certificates.as_slice()).unwrap_or_default();
            held.extend(slots.into_iter().filter_map(|(slot, status)| {
                let mut taken = taken(&identity, slot, status.as_ref()?)?;
                let line = listed.get(&taken.key);
                let told = line.map(|line| &line.standing);
                taken.standing = standing(&taken, told, said, status.as_ref()?.standing, now_s());
                taken.invalid_since = line.and_then(|line| line.invalid_since);
                Some(taken)
            }));
        }
        shared.ledger.declare(shared.epoch, now_ms(), unknown).await?;
        shared.ledger.take_in(shared.epoch, now_ms(), held, Vec::new()).await?;
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return Ok(None),
        }
    }
}

/// A certificate as a status shows it; `None` where that is not enough to know it by.
fn taken(identity: &Identity, slot: Held, status: &CertificateStatus) -> Option<TakenIn> {
    use base64::Engine as _;
    let end = status.not_after.as_ref()?.0.as_second();
    let key = status.public_key.as_ref();
    Some(TakenIn {
        key: SerialKey {
            issuer: status.issuer.clone()?,
            serial: status.serial.clone()?,
        },
        fingerprint: status.sha256.as_ref().and_then(|hash| hash.parse().ok()),
        holder: Some((identity.clone(), slot)),
        public_key: key.and_then(|key| base64::engine::general_purpose::STANDARD.decode(key).ok()),
        validity: (status.not_before.as_ref().map_or(0, |at| at.0.as_second()), end),
        partition: partition_of(end),
        standing: Standing::Good,
        invalid_since: None,
    })
}

/// How a device's certificate stands: as the CRL says, with its time and reason; where that does not list it yet, as the device's
/// status says. What either says is revoked stays so. `now` in Unix seconds.
fn standing(
    taken: &TakenIn,
    listed: Option<&Standing>,
    said: &[RevokedCertificate],
    shown: Option<CertificateStanding>,
    now: i64,
) -> Standing {
    let said = said
        .iter()
        .find(|said| (&said.issuer, &said.serial) == (&taken.key.issuer, &taken.key.serial));
    let since = said
        .and_then(|said| said.since.as_ref())
        .map_or(now, |since| since.0.as_second());
    match (listed, said.map(|said| said.state).or(shown)) {
        (Some(revoked @ Standing::Revoked { .. }), _) => *revoked,
        (_, Some(CertificateStanding::Revoked)) => Standing::Revoked {
            since,
            reason: said.and_then(|said| said.reason).map_or(Reason::Unspecified, reason),
        },
        (Some(held), _) => *held,
        (None, Some(CertificateStanding::Held)) => Standing::Held { since },
        (None, Some(CertificateStanding::Released) | None) => Standing::Good,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use certwave_crds::RevocationReason;

    use super::*;

    const NOW: i64 = 1_790_000_000;

    fn certificate() -> TakenIn {
        TakenIn {
            key: SerialKey {
                issuer: "aa".to_owned(),
                serial: "01".to_owned(),
            },
            fingerprint: None,
            holder: None,
            public_key: None,
            validity: (0, NOW),
            partition: partition_of(NOW),
            standing: Standing::Good,
            invalid_since: None,
        }
    }

    fn said(state: CertificateStanding) -> RevokedCertificate {
        RevokedCertificate {
            issuer: "aa".to_owned(),
            serial: "01".to_owned(),
            state,
            reason: (state == CertificateStanding::Revoked).then_some(RevocationReason::KeyCompromise),
            since: Some(super::super::time::time(NOW - 7)),
            crl: None,
        }
    }

    #[test]
    fn what_the_crl_says_counts_before_the_status() {
        let line = Standing::Revoked {
            since: NOW - 9,
            reason: Reason::CessationOfOperation,
        };
        let taken = certificate();
        for shown in [
            CertificateStanding::Revoked,
            CertificateStanding::Held,
            CertificateStanding::Released,
        ] {
            assert_eq!(standing(&taken, Some(&line), &[said(shown)], Some(shown), NOW), line);
        }
        assert_eq!(standing(&taken, Some(&line), &[], None, NOW), line);
    }

    #[test]
    fn what_no_crl_says_yet_stands_as_the_status_says_with_its_time_and_reason() {
        let (taken, revoked) = (certificate(), CertificateStanding::Revoked);
        let expected = Standing::Revoked {
            since: NOW - 7,
            reason: Reason::KeyCompromise,
        };
        assert_eq!(standing(&taken, None, &[said(revoked)], Some(revoked), NOW), expected);
        let held = Standing::Held { since: NOW - 20 };
        assert_eq!(
            standing(&taken, Some(&held), &[said(revoked)], Some(revoked), NOW),
            expected
        );
        assert_eq!(standing(&taken, Some(&held), &[], None, NOW), held);
        let bare = Standing::Revoked {
            since: NOW,
            reason: Reason::Unspecified,
        };
        assert_eq!(standing(&taken, None, &[], Some(revoked), NOW), bare);
        assert_eq!(standing(&taken, None, &[], None, NOW), Standing::Good);
    }
}

//! Claims: their certificates, and what the ledger knows of them.

use std::time::Duration;

use certwave_crds::{Claim as Declared, ClaimState, ClaimStatus, Fleet};
use certwave_ledger::{CertificateKind, CertificateRecord, Claim, ClaimRecord, FleetKey, LedgerError};
use certwave_pki::{
    Csr, CsrPolicy, LeafRequest, LeafSubject, LeafUsage, certificates_from_pem, certificates_to_pem, csr_from_pem,
};
use certwave_protocol::ids::{BrokerId, ClaimName, Fingerprint};

use super::resolve::Resolved;
use crate::clock::dating;
use crate::reconcile::authority::Authority;
use crate::reconcile::error::Result;
use crate::reconcile::shared::Shared;
use crate::reconcile::time::{now_ms, time_ms};

/// Sees to it that the ledger knows each declared claim and that each has its certificate; claims that are no longer declared
/// are suspended. `now` in Unix seconds.
pub(super) async fn keep(
    shared: &Shared,
    fleet: &Fleet,
    key: &FleetKey,
    resolved: &Resolved,
    now: i64,
) -> Result<Vec<ClaimStatus>> {
    let declared = &fleet.spec.enrolment.claims;
    let before = fleet
        .status
        .as_ref()
        .map(|status| status.claims.as_slice())
        .unwrap_or_default();
    let shown = |claim: &Declared| before.iter().find(|status| status.name == claim.name);
    let Some(broker) = &resolved.broker else {
        let pending = |claim: &Declared| {
            let known = shown(claim).cloned();
            known.unwrap_or_else(|| {
                status(
                    claim,
                    ClaimState::Pending,
                    Some("the fleet's broker is not ready".to_owned()),
                )
            })
        };
        return Ok(declared.iter().map(pending).collect());
    };
    let known = if declared.is_empty() {
        Vec::new()
    } else {
        shared.ledger.claims(key).await?
    };
    let mut statuses = Vec::with_capacity(declared.len());
    for claim in declared {
        let known = known.iter().find(|known| known.record.name.as_str() == claim.name);
        let one = One {
            shared,
            key,
            broker,
            authority: resolved.authority(),
            now,
        };
        let certificate = shown(claim).and_then(|status| status.certificate.clone());
        statuses.push(one.keep(claim, known, certificate).await?);
    }
    let names: Vec<&str> = declared.iter().map(|claim| claim.name.as_str()).collect();
    withdraw(shared, key, &names).await?;
    Ok(statuses)
}

/// Suspends the fleet's claims that are not among `declared`.
pub(super) async fn withdraw(shared: &Shared, fleet: &FleetKey, declared: &[&str]) -> Result<()> {
    for claim in shared.ledger.claims(fleet).await? {
        if !claim.record.suspended && !declared.contains(&claim.record.name.as_str()) {
            let record = ClaimRecord {
                suspended: true,
                ..claim.record
            };
            shared.ledger.upsert_claim(shared.epoch, record).await?;
        }
    }
    Ok(())
}

/// How long until the next claim ends: its state changes then, though nobody touches the object.
pub(super) fn next_end(fleet: &Fleet, now: i64) -> Option<Duration> {
    let ends = fleet
        .spec
        .enrolment
        .claims
        .iter()
        .map(|claim| claim.not_after.0.as_second() - now);
    let next = ends.filter(|left| *left >= 0).min()?;
    Some(Duration::from_secs(next.unsigned_abs() + 1))
}

fn status(claim: &Declared, state: ClaimState, message: Option<String>) -> ClaimStatus {
    ClaimStatus {
        name: claim.name.clone(),
        state,
        certificate: None,
        used: 0,
        last_used: None,
        message,
    }
}

/// The state of a claim that the ledger knows. `now` in Unix seconds.
fn state(claim: &Declared, used: u32, now: i64) -> ClaimState {
    let quota = claim.quota.map(|quota| quota.max(0).unsigned_abs());
    if claim.suspended {
        ClaimState::Suspended
    } else if claim.not_after.0.as_second() <= now {
        ClaimState::Expired
    } else if quota.is_some_and(|quota| used >= quota) {
        ClaimState::UsedUp
    } else {
        ClaimState::Active
    }
}

/// Everything that one claim needs.
struct One<'a> {
    shared: &'a Shared,
    key: &'a FleetKey,
    broker: &'a BrokerId,
    authority: Option<&'a Authority>,
    now: i64,
}

impl One<'_> {
    async fn keep(&self, claim: &Declared, known: Option<&Claim>, shown: Option<String>) -> Result<ClaimStatus> {
        let refused = |message: String| Ok(status(claim, ClaimState::Rejected, Some(message)));
        let name: ClaimName = match claim.name.parse() {
            Ok(name) => name,
            Err(error) => return refused(format!("name: {error}")),
        };
        let csr = match csr_from_pem(&claim.csr) {
            Some(der) => Csr::parse(&der, &CsrPolicy::default()),
            None => return refused("csr is not a PEM PKCS#10 request".to_owned()),
        };
        let csr = match csr {
            Ok(csr) => csr,
            Err(error) => return refused(format!("csr: {error}")),
        };
        let device = match claim.device_id.as_deref().map(str::parse).transpose() {
            Ok(device) => device,
            Err(error) => return refused(format!("deviceId: {error}")),
        };
        let spki = Fingerprint(*csr.spki_sha256());
        let issued = known
            .filter(|known| known.record.spki == spki)
            .and_then(|known| known.record.certificate);
        let expired = claim.not_after.0.as_second() <= self.now;
        let (certificate, pem) = match (issued, shown) {
            (Some(fingerprint), Some(pem)) if shows(&pem, fingerprint) => (Some(fingerprint), Some(pem)),
            (Some(fingerprint), _) => (Some(fingerprint), self.stored(fingerprint).await?),
            (None, _) if expired => (None, None),
            (None, _) => match self.issue(claim, &name, &csr).await? {
                Ok((fingerprint, pem)) => (Some(fingerprint), Some(pem)),
                Err(Waiting::Later(message)) => return Ok(status(claim, ClaimState::Pending, Some(message))),
                Err(Waiting::Never(message)) => return refused(message),
            },
        };
        let record = ClaimRecord {
            broker: self.broker.clone(),
            fleet: self.key.clone(),
            name,
            device,
            quota: claim.quota.map(|quota| quota.max(0).unsigned_abs()),
            not_after: claim.not_after.0.as_millisecond(),
            suspended: claim.suspended,
            certificate,
            public_key: csr.spki_der().to_vec(),
            spki,
        };
        if known.is_none_or(|known| known.record != record) {
            match self.shared.ledger.upsert_claim(self.shared.epoch, record).await {
                Ok(()) => {}
                Err(error @ (LedgerError::Duplicate { .. } | LedgerError::KeyReused)) => {
                    return refused(error.to_string());
                }
                Err(error) => return Err(error.into()),
            }
        }
        let used = known.map_or(0, |known| known.used);
        Ok(ClaimStatus {
            certificate: pem,
            used: used.into(),
            last_used: known.and_then(|known| known.last_used).map(time_ms),
            ..status(claim, state(claim, used, self.now), None)
        })
    }

    /// The certificate as the ledger keeps it, with the present chain.
    async fn stored(&self, fingerprint: Fingerprint) -> Result<Option<String>> {
        let Some(stored) = self.shared.ledger.certificate(&fingerprint).await? else {
            return Ok(None);
        };
        let chain = self
            .authority
            .map(|authority| authority.entry.ca.issuing_chain())
            .into_iter()
            .flatten();
        let leaf = std::iter::once(stored.record.der.as_slice());
        Ok(Some(certificates_to_pem(leaf.chain(chain.map(AsRef::as_ref)))))
    }

    async fn issue(
        &self,
        claim: &Declared,
        name: &ClaimName,
        csr: &Csr,
    ) -> Result<std::result::Result<(Fingerprint, String), Waiting>> {
        let Some(authority) = self.authority else {
            return Ok(Err(Waiting::Later("the fleet's CA is not ready".to_owned())));
        };
        let never = |error: String| Ok(Err(Waiting::Never(error)));
        let subject = match LeafSubject::common_name(&name.user()) {
            Ok(subject) => subject,
            Err(error) => return never(error.to_string()),
        };
        let left = (claim.not_after.0.as_second() - self.now).max(0).unsigned_abs();
        let request = LeafRequest {
            subject: &subject,
            public_key: csr.public_key(),
            usage: LeafUsage::Claim,
            validity: Duration::from_secs(left),
            backdate: authority.backdate,
        };
        let ca = &authority.entry.ca;
        let issued = match ca.issue(&request, dating() / 1000) {
            Ok(issued) => issued,
            Err(error) => return never(error.to_string()),
        };
        let fingerprint = Fingerprint::of(&issued.der);
        let record = CertificateRecord {
            fingerprint,
            serial: issued.serial.clone(),
            issuer: ca.key_id().to_string(),
            spki: Fingerprint(*csr.spki_sha256()),
            public_key: csr.spki_der().to_vec(),
            not_before: issued.not_before,
            not_after: issued.not_after,
            kind: CertificateKind::Claim,
            holder: name.to_string(),
            identity: None,
            job: None,
            der: issued.der.to_vec(),
            issued_at: now_ms(),
        };
        match self.shared.ledger.record(self.shared.epoch, record).await {
            Ok(()) => {}
            Err(LedgerError::KeyReused) => return never("the key of this claim has been used before".to_owned()),
            Err(error) => return Err(error.into()),
        }
        self.shared.ensure_crl(&authority.entry, &issued.partition).await?;
        let pem = certificates_to_pem(std::iter::once(&issued.der).chain(ca.issuing_chain()));
        Ok(Ok((fingerprint, pem)))
    }
}

/// Why there is no certificate.
enum Waiting {
    Later(String),
    Never(String),
}

fn shows(pem: &str, fingerprint: Fingerprint) -> bool {
    certificates_from_pem(pem).and_then(|all| all.first().map(|der| Fingerprint::of(der))) == Some(fingerprint)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_claims_state_follows_suspension_time_and_quota() {
        let claim = |suspended, quota: i32| -> Declared {
            serde_json::from_value(serde_json::json!({
                "name": "lot-7", "quota": quota, "notAfter": "2026-09-21T00:00:00Z", "suspended": suspended,
                "csr": "-----BEGIN CERTIFICATE REQUEST-----",
            }))
            .unwrap()
        };
        let end = claim(false, 1).not_after.0.as_second();
        assert_eq!(state(&claim(false, 2), 1, end - 1), ClaimState::Active);
        assert_eq!(state(&claim(false, 2), 2, end - 1), ClaimState::UsedUp);
        assert_eq!(state(&claim(false, 2), 0, end), ClaimState::Expired);
        assert_eq!(state(&claim(true, 2), 2, end), ClaimState::Suspended);
    }
}

//! A CA's status.

use certwave_crds::{CertificateAuthority, CertificateAuthorityStatus, CrlStatus};
use certwave_ledger::Ledger;
use certwave_pki::{certificates_to_pem, parse_certificate_info};

use super::{AuthorityState, keys};
use crate::reconcile::error::Result;
use crate::reconcile::status::condition;
use crate::reconcile::time::time;

/// As many CRLs as the status shows: those that end last.
const SHOWN: usize = 50;

/// The CRLs to show, newest partitions first. `nextUpdate` is left out: it would change the status with every renewal.
pub(super) async fn crls(ledger: &dyn Ledger, state: &AuthorityState) -> Result<Vec<CrlStatus>> {
    let AuthorityState::Ready(authority) = state else {
        return Ok(Vec::new());
    };
    let mut numbers = ledger.crl_numbers(&authority.entry.ca.key_id().to_string()).await?;
    numbers.sort_by(|a, b| b.0.cmp(&a.0));
    let shown = numbers.into_iter().take(SHOWN);
    Ok(shown
        .map(|(partition, number)| CrlStatus {
            partition,
            number: i64::try_from(number).unwrap_or(i64::MAX),
            next_update: None,
        })
        .collect())
}

/// The whole status. What was known of a CA that is not ready now stays: a lost key must be recognised after a restart.
pub(super) fn status(
    object: &CertificateAuthority,
    state: &AuthorityState,
    request: Option<String>,
    crls: Vec<CrlStatus>,
    now: i64,
) -> CertificateAuthorityStatus {
    let before = object.status.clone().unwrap_or_default();
    let generation = object.metadata.generation;
    let conditions = vec![condition(
        "Ready",
        &keys::verdict(state),
        generation,
        &before.conditions,
        now,
    )];
    let AuthorityState::Ready(authority) = state else {
        return CertificateAuthorityStatus {
            csr: request.or(before.csr),
            observed_generation: generation,
            conditions,
            ..before
        };
    };
    let ca = &authority.entry.ca;
    let info = parse_certificate_info(ca.certificate_der()).ok();
    let above = ca.chain().iter().chain(ca.root_der().filter(|_| !ca.is_root()));
    CertificateAuthorityStatus {
        key_id: Some(ca.key_id().to_string()),
        certificate: Some(certificates_to_pem([ca.certificate_der()])),
        chain: Some(certificates_to_pem(above)).filter(|pem| !pem.is_empty()),
        csr: before.csr,
        not_before: info.as_ref().map(|info| time(info.not_before)),
        not_after: info.as_ref().map(|info| time(info.not_after)),
        serial: info.as_ref().map(|info| info.serial.clone()),
        sha256: info.map(|info| info.sha256),
        crls,
        observed_generation: generation,
        conditions,
    }
}

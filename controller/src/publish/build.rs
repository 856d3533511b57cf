//! One CRL from the ledger's pages: each is encoded apart while the next one is read.

use std::sync::Arc;

use certwave_core::model::Millis;
use certwave_core::revocation::Standing;
use certwave_ledger::{CrlLine, CrlLines, CrlRecord, Ledger, LedgerError};
use certwave_pki::crl::{CrlEncoder, CrlError, CrlHead, CrlKind, Listed, Mark, Reason};
use certwave_pki::{CertificateAuthority, FULL_PARTITION};

use super::CrlFault;
use super::scope::{Stamp, delta_of, names_deltas, next_number};
use crate::apart;
use crate::registry::IssuerEntry;

/// Lines in one read of the ledger; in the tests a short list has many pages, too.
const PAGE: u32 = if cfg!(test) { 20 } else { 10_000 };

/// What is to be made.
pub(super) struct Plan<'a> {
    pub(super) issuer: &'a IssuerEntry,
    /// The scope, that of delta CRLs too.
    pub(super) scope: &'a str,
    /// The scope's last CRL.
    pub(super) last: Option<Stamp>,
    /// For a delta CRL: the complete one that it builds on.
    pub(super) base: Option<Stamp>,
    /// The greatest number that was ever published in the scope, with its delta CRLs.
    pub(super) highest: u64,
    /// The time to date it by.
    pub(super) now: Millis,
}

/// A signed CRL, not yet stored.
pub(super) struct Made {
    pub(super) record: CrlRecord,
    pub(super) stamp: Stamp,
}

/// Reads, encodes and signs.
pub(super) async fn make(ledger: &dyn Ledger, plan: &Plan<'_>) -> Result<Made, CrlFault> {
    let Some(publication) = plan.issuer.ca.publication() else {
        return Err(CrlFault::NotPublished);
    };
    let key_id = plan.issuer.ca.key_id();
    let partition = plan.scope.strip_suffix(".delta").unwrap_or(plan.scope);
    let whole = partition == FULL_PARTITION;
    let url = |scope: &str| publication.crl_url(key_id, scope);
    let this_update = plan.now.div_euclid(1000);
    let with_deltas = names_deltas(plan.scope, &plan.issuer.crl);
    let next_update = this_update.saturating_add(plan.issuer.crl.validity.max(1));
    let (scope_url, freshest) = (
        (!whole).then(|| url(partition)),
        with_deltas.then(|| url(&delta_of(partition))),
    );
    let head = CrlHead {
        scope_url: scope_url.as_deref(),
        number: next_number(plan.highest, plan.now),
        this_update,
        next_update,
        kind: match plan.base {
            Some(base) => CrlKind::Delta { base: base.number },
            None => CrlKind::Complete {
                freshest: freshest.as_deref(),
            },
        },
    };
    let expected = plan.last.map_or(0, |last| last.entries + last.entries / 16);
    let encoder = CrlEncoder::new(Arc::clone(&plan.issuer.ca), &head, expected)?;
    // Before the lines: what changes while they are read may stand in them, and is said again.
    let covers = ledger.last_change().await?;
    let listed = CrlLines {
        issuer: key_id.to_string(),
        partition: (!whole).then(|| partition.to_owned()),
        ends_at_or_after: listed_from(plan.base.or(plan.last), this_update, plan.issuer.crl.validity),
        changed_after: plan.base.map(|base| base.covers),
    };
    let stamp = Stamp {
        number: head.number,
        this_update,
        next_update,
        covers,
        entries: 0,
        names_deltas: with_deltas,
    };
    let (der, entries) = encoded(ledger, encoder, &listed, this_update).await?;
    Ok(Made {
        record: CrlRecord {
            issuer: listed.issuer,
            partition: plan.scope.to_owned(),
            number: stamp.number,
            this_update,
            next_update,
            der,
        },
        stamp: Stamp { entries, ..stamp },
    })
}

/// Since when certificates have ended that are still listed, Unix seconds: each is until it was on a CRL that was due after its
/// end (RFC 5280, 3.3). Of those that came in between, as something was revoked, any number may come within a validity.
fn listed_from(last: Option<Stamp>, this_update: i64, validity: i64) -> i64 {
    let period = this_update.saturating_sub(validity);
    last.map_or(period, |last| last.this_update.min(period))
}

type Encoder = CrlEncoder<Arc<CertificateAuthority>>;

/// Appends all pages, signs, and says how many lines there are. Nothing is signed before the last page has come: a list cut short by a
/// fault would let revoked devices in.
async fn encoded(
    ledger: &dyn Ledger,
    mut encoder: Encoder,
    listed: &CrlLines,
    this_update: i64,
) -> Result<(Vec<u8>, usize), CrlFault> {
    let mut next = Some(ledger.crl_lines(listed, None, PAGE).await?);
    while let Some(page) = next.take() {
        let full = u32::try_from(page.len()).is_ok_and(|lines| lines >= PAGE);
        let last = page.last().filter(|_| full).map(|line| line.serial.clone());
        let encoding = apart::run(move || push(encoder, &page, this_update));
        if let Some(serial) = last {
            next = Some(ledger.crl_lines(listed, Some(&serial), PAGE).await?);
        }
        encoder = encoding.await.map_err(|_| CrlFault::Abandoned)??;
    }
    let entries = encoder.len();
    let der = apart::run(move || encoder.sign()).await;
    Ok((der.map_err(|_| CrlFault::Abandoned)??, entries))
}

fn push(mut encoder: Encoder, page: &[CrlLine], this_update: i64) -> Result<Encoder, CrlError> {
    for line in page {
        encoder.push(&entry(line, this_update)?)?;
    }
    Ok(encoder)
}

/// A line as it stands in a CRL made at `this_update`: no time in it comes after that, whatever the clock said before.
fn entry(line: &CrlLine, this_update: i64) -> Result<Listed, CrlError> {
    let (at, mark) = match line.standing {
        Standing::Good => (line.released_at.unwrap_or(this_update), Mark::Removed),
        Standing::Held { since } => (since, Mark::Revoked(Reason::CertificateHold)),
        Standing::Revoked { since, reason } => (since, Mark::Revoked(reason)),
    };
    Ok(Listed {
        serial: line.serial.parse().map_err(|_| CrlError::Serial(line.serial.clone()))?,
        at: at.min(this_update),
        mark,
        invalid_since: line.invalid_since.filter(|_| mark != Mark::Removed),
    })
}

/// Whether storing failed only because a greater number is out.
pub(super) fn overtaken(error: &LedgerError) -> Option<u64> {
    match error {
        LedgerError::CrlNumber { present, .. } => Some(*present),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn no_time_of_an_entry_comes_after_the_crl() {
        let line = CrlLine {
            serial: "0a".to_owned(),
            standing: Standing::Held { since: 2000 },
            invalid_since: None,
            released_at: None,
        };
        let listed = entry(&line, 1000).unwrap();
        assert_eq!((listed.at, listed.mark), (1000, Mark::Revoked(Reason::CertificateHold)));
        assert_eq!(entry(&line, 3000).unwrap().at, 2000);
    }

    #[test]
    fn what_has_ended_stays_listed_until_a_crl_was_due_after_that() {
        let day = 86_400;
        let made = |this_update| Stamp {
            number: 1,
            this_update,
            next_update: this_update + 7 * day,
            covers: 0,
            entries: 0,
            names_deltas: false,
        };
        let now = 1_790_000_000;
        assert_eq!(
            listed_from(Some(made(now - 1)), now, 7 * day),
            now - 7 * day,
            "two revocations in a row"
        );
        assert_eq!(
            listed_from(Some(made(now - 30 * day)), now, 7 * day),
            now - 30 * day,
            "after an outage"
        );
        assert_eq!(listed_from(None, now, 7 * day), now - 7 * day);
    }
}

//! One CRL from the ledger's pages: encoded and signed on a thread of its own while the next page is read.

use std::sync::Arc;

use certwave_core::model::Millis;
use certwave_core::revocation::Standing;
use certwave_ledger::{CrlLine, CrlLines, CrlRecord, Ledger, LedgerError};
use certwave_pki::crl::{CrlEncoder, CrlError, CrlHead, CrlKind, Listed, Mark, Reason};
use certwave_pki::{CertificateAuthority, FULL_PARTITION};
use tokio::sync::mpsc;

use super::CrlFault;
use super::scope::{Stamp, delta_of, names_deltas, next_number};
use crate::apart;
use crate::registry::IssuerEntry;

/// Lines in one read of the ledger; in the tests a short list has many pages, too.
const PAGE: u32 = if cfg!(test) { 20 } else { 10_000 };
/// Pages that wait to be encoded.
const AHEAD: usize = 2;

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

/// What stands in the head, owned, for the thread that encodes.
struct Head {
    scope_url: Option<String>,
    freshest: Option<String>,
    base: Option<u64>,
    number: u64,
    this_update: i64,
    next_update: i64,
    expected: usize,
}

enum Part {
    Lines(Vec<CrlLine>),
    /// Nothing is signed without it: a list cut short by a fault would let revoked devices in.
    End,
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
    let head = Head {
        scope_url: (!whole).then(|| url(partition)),
        freshest: with_deltas.then(|| url(&delta_of(partition))),
        base: plan.base.map(|base| base.number),
        number: next_number(plan.highest, plan.now),
        this_update,
        next_update: this_update.saturating_add(plan.issuer.crl.validity.max(1)),
        expected: plan.last.map_or(0, |last| last.entries + last.entries / 16),
    };
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
        next_update: head.next_update,
        covers,
        entries: 0,
        names_deltas: with_deltas,
    };
    let (der, entries) = encoded(ledger, Arc::clone(&plan.issuer.ca), head, &listed).await?;
    Ok(Made {
        record: CrlRecord {
            issuer: listed.issuer,
            partition: plan.scope.to_owned(),
            number: stamp.number,
            this_update,
            next_update: stamp.next_update,
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

async fn encoded(
    ledger: &dyn Ledger,
    ca: Arc<CertificateAuthority>,
    head: Head,
    listed: &CrlLines,
) -> Result<(Vec<u8>, usize), CrlFault> {
    let mut reader = Reader {
        ledger,
        listed,
        next: Next::Page(None),
    };
    if !apart::is_possible() {
        // Nobody would take pages meanwhile.
        let mut pages = Vec::new();
        while let Some(page) = reader.read().await? {
            pages.push(page);
        }
        let mut pages = pages.into_iter();
        return encode(&ca, &head, || pages.next());
    }
    let (pages, mut inbox) = mpsc::channel(AHEAD);
    let encoding = apart::run(move || encode(&ca, &head, || inbox.blocking_recv()));
    while let Some(page) = reader.read().await? {
        // Where nobody takes it, the encoder says why.
        if pages.send(page).await.is_err() {
            break;
        }
    }
    drop(pages);
    encoding.await.map_err(|_| CrlFault::Abandoned)?
}

/// Reads the lines, page by page.
struct Reader<'a> {
    ledger: &'a dyn Ledger,
    listed: &'a CrlLines,
    next: Next,
}

enum Next {
    /// The page after this serial number.
    Page(Option<String>),
    End,
    Nothing,
}

impl Reader<'_> {
    async fn read(&mut self) -> Result<Option<Part>, CrlFault> {
        let after = match std::mem::replace(&mut self.next, Next::Nothing) {
            Next::Page(after) => after,
            Next::End => return Ok(Some(Part::End)),
            Next::Nothing => return Ok(None),
        };
        let page = self.ledger.crl_lines(self.listed, after.as_deref(), PAGE).await?;
        let full = u32::try_from(page.len()).is_ok_and(|lines| lines >= PAGE);
        self.next = match page.last() {
            Some(line) if full => Next::Page(Some(line.serial.clone())),
            _ => Next::End,
        };
        Ok(Some(Part::Lines(page)))
    }
}

fn encode(
    ca: &CertificateAuthority,
    head: &Head,
    mut next: impl FnMut() -> Option<Part>,
) -> Result<(Vec<u8>, usize), CrlFault> {
    let kind = match head.base {
        Some(base) => CrlKind::Delta { base },
        None => CrlKind::Complete {
            freshest: head.freshest.as_deref(),
        },
    };
    let crl_head = CrlHead {
        scope_url: head.scope_url.as_deref(),
        number: head.number,
        this_update: head.this_update,
        next_update: head.next_update,
        kind,
    };
    let mut encoder = CrlEncoder::new(ca, &crl_head, head.expected)?;
    loop {
        match next() {
            Some(Part::Lines(lines)) => {
                for line in &lines {
                    encoder.push(&entry(line, head.this_update)?)?;
                }
            }
            Some(Part::End) => break,
            None => return Err(CrlFault::Abandoned),
        }
    }
    let entries = encoder.len();
    Ok((encoder.sign()?, entries))
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

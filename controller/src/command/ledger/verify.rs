//! Whether what a ledger holds fits together.

use certwave_core::revocation::Standing;
use certwave_ledger::{CrlRecord, Ledger, LedgerError, SerialKey};
use certwave_pki::crl::{Crl, Mark};

use crate::command::CommandError;

/// Serial numbers that are looked up at once.
const PAGE: usize = 500;

/// Checks the chain of the audit and every CRL, also that the ledger still knows what they list, and tells line by line what was found whole.
///
/// # Errors
/// With the first thing that is wrong.
pub(super) async fn verify(ledger: &dyn Ledger, mut tell: impl FnMut(String)) -> Result<(), CommandError> {
    let (lines, last) = ledger.verify_audit().await?;
    tell(format!(
        "the audit's chain is whole: {lines} lines, the last one's hash is {last}"
    ));
    for (issuer, partition) in ledger.crl_scopes().await? {
        let Some(record) = ledger.crl(&issuer, &partition).await? else {
            continue;
        };
        let entries = crl(ledger, &record).await?;
        let number = record.number;
        tell(format!(
            "CRL {issuer}/{partition} is whole: number {number}, {entries} entries"
        ));
    }
    let totals = ledger.totals().await?;
    tell(format!(
        "epoch {}, {} devices, {} certificates and {} archived, {} revoked, {} on hold",
        totals.epoch, totals.devices, totals.certificates, totals.archived, totals.revoked, totals.held
    ));
    if let Some(at) = ledger.provenance().await?.restored_at {
        let at = jiff::Timestamp::from_millisecond(at).map_or_else(|_| at.to_string(), |at| at.to_string());
        tell(format!(
            "restored at {at}: nothing is issued until the controller has taken in what was lost"
        ));
    }
    Ok(())
}

/// Checks one CRL against its record and its CA; answers how many entries it has.
async fn crl(ledger: &dyn Ledger, record: &CrlRecord) -> Result<usize, CommandError> {
    let wrong = |what: String| {
        let (issuer, partition) = (&record.issuer, &record.partition);
        CommandError::Ledger(LedgerError::Corrupt(format!("CRL {issuer}/{partition}: {what}")))
    };
    let crl = Crl::parse(&record.der).map_err(|error| wrong(error.to_string()))?;
    if crl.number() != record.number {
        return Err(wrong(format!(
            "its number is {}, the ledger says {}",
            crl.number(),
            record.number
        )));
    }
    if (crl.this_update(), crl.next_update()) != (record.this_update, record.next_update) {
        return Err(wrong("its dates are not those that the ledger says".to_owned()));
    }
    if let Some(authority) = ledger.authority(&record.issuer).await? {
        crl.verify(&authority.record.der)
            .map_err(|error| wrong(error.to_string()))?;
    }
    let serials: Vec<_> = crl
        .entries()
        .filter(|entry| entry.mark != Mark::Removed)
        .map(|entry| entry.serial.to_string())
        .collect();
    for page in serials.chunks(PAGE) {
        if let Some(serial) = forgotten(ledger, record, page).await? {
            return Err(wrong(format!(
                "it lists the serial {serial}, and the ledger does not say any more that it was revoked or on hold"
            )));
        }
    }
    Ok(crl.len())
}

/// The first of these serial numbers that the CRL lists and the ledger holds for good, though nothing changed since.
async fn forgotten<'a>(
    ledger: &dyn Ledger,
    record: &CrlRecord,
    serials: &'a [String],
) -> Result<Option<&'a str>, LedgerError> {
    let standings = ledger.standings(&record.issuer, serials).await?;
    for (serial, found) in serials.iter().zip(standings) {
        if found.is_some_and(|found| found.standing != Standing::Good) {
            continue;
        }
        let key = SerialKey {
            issuer: record.issuer.clone(),
            serial: serial.clone(),
        };
        let changed = ledger.marked_certificate(&key).await?.map(|marked| marked.change);
        let covers = ledger.crl_covers(&record.issuer, &record.partition, 1).await?;
        // Released since.
        if changed
            .zip(covers.first())
            .is_none_or(|(change, cover)| change <= cover.covers)
        {
            return Ok(Some(serial));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use certwave_core::revocation::Reason;
    use certwave_ledger::{SqliteLedger, TakenIn};
    use certwave_pki::crl::{CrlRequest, Entry, encode};
    use certwave_pki::{CaProfile, CertificateAuthority, KeyAlgorithm, PrivateKey};

    use super::*;

    const NOW: i64 = 1_800_000_000;

    #[tokio::test]
    async fn a_revocation_that_the_ledger_has_forgotten_is_found_by_its_crl() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = SqliteLedger::open(dir.path().join("ledger.db")).unwrap();
        let epoch = ledger.take_epoch("test", NOW).await.unwrap();
        let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
        let ca = CertificateAuthority::self_signed(key, &CaProfile::named("root"), NOW).unwrap();
        let entries = [Entry {
            serial: "0a".to_owned(),
            revoked_at: NOW - 5,
            reason: Reason::KeyCompromise,
        }];
        let request = CrlRequest {
            scope_url: "http://crl/aa/2027-01.crl",
            number: 7,
            this_update: NOW,
            next_update: NOW + 60,
            entries: &entries,
        };
        let record = CrlRecord {
            issuer: "aa".to_owned(),
            partition: "2027-01".to_owned(),
            number: 7,
            this_update: NOW,
            next_update: NOW + 60,
            der: encode(&ca, &request).unwrap(),
        };
        ledger.publish_crl(epoch, record, 0, NOW).await.unwrap();
        let wrong = verify(&ledger, |_| {}).await.unwrap_err().to_string();
        assert!(wrong.contains("lists the serial 0a"), "{wrong}");
        let standing = Standing::Revoked {
            since: NOW - 5,
            reason: Reason::KeyCompromise,
        };
        let known = TakenIn {
            key: SerialKey {
                issuer: "aa".to_owned(),
                serial: "0a".to_owned(),
            },
            fingerprint: None,
            holder: None,
            public_key: None,
            validity: (0, NOW + 60),
            partition: "2027-01".to_owned(),
            standing,
            invalid_since: None,
        };
        ledger.take_in(epoch, NOW, vec![known], Vec::new()).await.unwrap();
        verify(&ledger, |_| {}).await.unwrap();
    }

    #[tokio::test]
    async fn a_crl_that_is_not_what_the_ledger_says_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = SqliteLedger::open(dir.path().join("ledger.db")).unwrap();
        let epoch = ledger.take_epoch("test", NOW).await.unwrap();
        let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
        let ca = CertificateAuthority::self_signed(key, &CaProfile::named("root"), NOW).unwrap();
        let request = CrlRequest {
            scope_url: "http://crl/aa/2027-01.crl",
            number: 7,
            this_update: NOW,
            next_update: NOW + 60,
            entries: &[],
        };
        let mut record = CrlRecord {
            issuer: "aa".to_owned(),
            partition: "2027-01".to_owned(),
            number: 7,
            this_update: NOW,
            next_update: NOW + 60,
            der: encode(&ca, &request).unwrap(),
        };
        ledger.publish_crl(epoch, record.clone(), 0, NOW).await.unwrap();
        let mut told = Vec::new();
        verify(&ledger, |line| told.push(line)).await.unwrap();
        assert!(told[1].contains("aa/2027-01 is whole: number 7, 0 entries"), "{told:?}");
        // A number that the CRL does not have, then one that ends early.
        record.number = 8;
        ledger.publish_crl(epoch, record.clone(), 0, NOW).await.unwrap();
        let wrong = verify(&ledger, |_| {}).await.unwrap_err().to_string();
        assert!(
            wrong.contains("CRL aa/2027-01: its number is 7, the ledger says 8"),
            "{wrong}"
        );
        record.number = 9;
        record.der.pop();
        ledger.publish_crl(epoch, record, 0, NOW).await.unwrap();
        assert!(verify(&ledger, |_| {}).await.is_err());
    }
}

//! Whether the ledger at hand is the one that was in use last: a file that was copied back, a database that was rolled back, and
//! another ledger in the old one's place do not know what was issued and revoked since.
//!
//! The leader notes on its Lease which ledger it works with and how far that is. Whoever finds a ledger that is not that far marks
//! it as restored, before anything is answered from it.

use std::collections::BTreeMap;
use std::time::Duration;

use certwave_core::model::Millis;
use certwave_ledger::{Ledger, LedgerError};
use certwave_protocol::ids::Fingerprint;
use tokio::sync::watch;

const LEDGER: &str = "certwave.dev/ledger";
const EPOCH: &str = "certwave.dev/epoch";
const AUDIT: &str = "certwave.dev/audit-lines";
const HEAD: &str = "certwave.dev/audit-head";
/// How often it is looked how far the ledger is.
const PERIOD: Duration = Duration::from_secs(1);

/// Which ledger, and how far it is. What is missing is not known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// The ledger's id.
    pub ledger: Option<String>,
    /// Its epoch.
    pub epoch: Option<u64>,
    /// How many lines its audit has: everything that is issued or revoked adds one.
    pub lines: Option<u64>,
    /// The hash of the last of them.
    pub head: Option<Fingerprint>,
}

impl Progress {
    /// How far the ledger is at present.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn of(ledger: &dyn Ledger) -> Result<Self, LedgerError> {
        let provenance = ledger.provenance().await?;
        Ok(Self {
            ledger: Some(provenance.id),
            epoch: Some(ledger.epoch().await?),
            lines: Some(provenance.lines),
            head: provenance.head,
        })
    }

    /// As it was noted.
    pub(super) fn noted(annotations: &BTreeMap<String, String>) -> Self {
        let number = |key| annotations.get(key).and_then(|value| value.parse().ok());
        Self {
            ledger: annotations.get(LEDGER).cloned(),
            epoch: number(EPOCH),
            lines: number(AUDIT),
            head: annotations.get(HEAD).and_then(|hash| hash.parse().ok()),
        }
    }

    /// Notes it.
    pub(super) fn note(&self, annotations: &mut BTreeMap<String, String>) {
        let number = |n: Option<u64>| n.map(|n| n.to_string());
        let all = [
            (LEDGER, self.ledger.clone()),
            (EPOCH, number(self.epoch)),
            (AUDIT, number(self.lines)),
            (HEAD, self.head.map(|hash| hash.to_string())),
        ];
        for (key, value) in all {
            match value {
                Some(value) => annotations.insert(key.to_owned(), value),
                None => annotations.remove(key),
            };
        }
    }
}

/// Why the ledger at hand is not the one in use when this was noted, or knows less, for people; `None`: as far as it is known, it does
/// not. `there`: the hash that it has for the line that was the last.
pub fn put_back(noted: &Progress, present: &Progress, there: Option<Fingerprint>) -> Option<String> {
    let less = |noted: Option<u64>, present: Option<u64>| noted.zip(present).filter(|(noted, present)| present < noted);
    if let (Some(before), Some(now)) = (&noted.ledger, &present.ledger)
        && before != now
    {
        return Some(format!("it is the ledger {now}, and {before} was in use"));
    }
    if let Some((before, now)) = less(noted.epoch, present.epoch) {
        return Some(format!("its epoch is {now}, and {before} was reached"));
    }
    if let Some((before, now)) = less(noted.lines, present.lines) {
        return Some(format!("its audit has {now} lines, and {before} were written"));
    }
    let line = noted.lines.filter(|_| noted.head.is_some() && noted.head != there)?;
    Some(format!("line {line} of its audit is another one than was written"))
}

/// How far the ledger is, and why it is not the one of which this was noted, if so.
async fn look(ledger: &dyn Ledger, noted: &Progress) -> Result<(Progress, Option<String>), LedgerError> {
    let present = Progress::of(ledger).await?;
    let there = match noted.lines {
        Some(line) if noted.lines != present.lines => ledger.audit_hash(line).await?,
        _ => present.head,
    };
    let why = put_back(noted, &present, there);
    Ok((present, why))
}

/// Marks the ledger as restored if it is not as far as was noted: nothing is issued and OCSP answers nothing from then on, until
/// what is missing has been taken in. To be called before an epoch is taken, by which an old ledger would look like a new one.
///
/// # Errors
/// When the ledger does not answer, or somebody else has begun an epoch meanwhile.
pub async fn settle(ledger: &dyn Ledger, noted: &Progress, now: Millis) -> Result<(), LedgerError> {
    let (present, Some(why)) = look(ledger, noted).await? else {
        return Ok(());
    };
    if ledger.provenance().await?.restored_at.is_some() {
        return Ok(());
    }
    tracing::error!(
        why,
        "the ledger is not the one that was in use last: it counts as restored from a backup"
    );
    ledger.mark_restored(present.epoch.unwrap_or(0), now).await
}

/// Tells how far the ledger is whenever it has moved, until it has moved back: answers why it is no longer the one in use, for people.
/// Who comes next finds that by [`settle`], as what was noted last stays.
pub async fn follow(ledger: &dyn Ledger, progress: &watch::Sender<Progress>) -> String {
    loop {
        tokio::time::sleep(PERIOD).await;
        // While it does not answer, nothing moves.
        let noted = progress.borrow().clone();
        let Ok((present, why)) = look(ledger, &noted).await else {
            continue;
        };
        if let Some(why) = why {
            return why;
        }
        progress.send_if_modified(|before| std::mem::replace(before, present.clone()) != present);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use certwave_ledger::{AuditEntry, SqliteLedger};

    use super::*;

    fn progress(ledger: &str, epoch: u64, lines: u64) -> Progress {
        Progress {
            ledger: Some(ledger.to_owned()),
            epoch: Some(epoch),
            lines: Some(lines),
            head: Some(Fingerprint([1; 32])),
        }
    }

    const HASH: Option<Fingerprint> = Some(Fingerprint([1; 32]));

    #[test]
    fn a_ledger_that_is_as_far_as_was_noted_or_further_was_not_put_back() {
        let noted = progress("a", 10, 100);
        for present in [progress("a", 10, 100), progress("a", 11, 100), progress("a", 10, 101)] {
            assert_eq!(put_back(&noted, &present, HASH), None, "{present:?}");
        }
    }

    #[test]
    fn another_ledger_an_older_epoch_and_missing_lines_are_found() {
        let noted = progress("a", 10, 100);
        for (present, says) in [
            (progress("b", 11, 200), "ledger b"),
            (progress("a", 9, 100), "epoch is 9"),
            // The same leader was at work since the copy was made.
            (progress("a", 10, 99), "99 lines"),
        ] {
            assert!(put_back(&noted, &present, HASH).unwrap().contains(says), "{present:?}");
        }
        // Others were written in their place.
        for there in [None, Some(Fingerprint([2; 32]))] {
            let why = put_back(&noted, &progress("a", 10, 101), there).unwrap();
            assert!(why.contains("line 100"), "{why}");
        }
    }

    #[test]
    fn nothing_is_held_against_a_ledger_of_which_nothing_was_noted() {
        let present = progress("a", 1, 0);
        assert_eq!(put_back(&Progress::default(), &present, None), None);
        let mistyped = BTreeMap::from([(EPOCH.to_owned(), "ten".to_owned())]);
        assert_eq!(put_back(&Progress::noted(&mistyped), &present, None), None);
    }

    #[test]
    fn what_is_noted_is_read_again_and_other_annotations_stay() {
        let mut annotations = BTreeMap::from([("example.com/mine".to_owned(), "1".to_owned())]);
        let noted = progress("a", 10, 100);
        noted.note(&mut annotations);
        assert_eq!(Progress::noted(&annotations), noted);
        assert_eq!(annotations["example.com/mine"], "1");
    }

    #[tokio::test]
    async fn whoever_leads_notices_that_lines_are_gone_and_notes_nothing_more() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = SqliteLedger::open(dir.path().join("ledger")).unwrap();
        ledger.take_epoch("test", 1).await.unwrap();
        let mut noted = Progress::of(&ledger).await.unwrap();
        noted.lines = noted.lines.map(|lines| lines + 1);
        let progress = watch::Sender::new(noted.clone());
        let why = tokio::time::timeout(Duration::from_secs(20), follow(&ledger, &progress)).await;
        assert!(why.unwrap().contains("were written"));
        assert_eq!(*progress.borrow(), noted);
    }

    #[tokio::test]
    async fn a_file_that_was_copied_back_counts_as_restored_though_no_epoch_began_since() {
        let dir = tempfile::tempdir().unwrap();
        let (file, copy) = (dir.path().join("ledger"), dir.path().join("copy"));
        let ledger = SqliteLedger::open(&file).unwrap();
        ledger.take_epoch("test", 1).await.unwrap();
        ledger.close().await;
        std::fs::copy(&file, &copy).unwrap();
        let ledger = SqliteLedger::open(&file).unwrap();
        let epoch = ledger.epoch().await.unwrap();
        let line = AuditEntry {
            at: 2,
            who: "test".to_owned(),
            what: "written-since".to_owned(),
            identity: None,
            job: None,
            detail: None,
        };
        ledger.append_audit(epoch, vec![line]).await.unwrap();
        let noted = Progress::of(&ledger).await.unwrap();
        settle(&ledger, &noted, 4).await.unwrap();
        assert_eq!(ledger.provenance().await.unwrap().restored_at, None);
        let old = SqliteLedger::open(&copy).unwrap();
        settle(&old, &noted, 5).await.unwrap();
        assert_eq!(old.provenance().await.unwrap().restored_at, Some(5));
    }
}

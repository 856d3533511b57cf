//! The suite: holds, revocations, and who is barred.

use std::sync::Arc;

use certwave_core::model::{Credential, Identity, JobState, Millis};
use certwave_core::revocation::{Bar, Holder, Reason, Standing};
use certwave_ledger::{
    Act, Author, CertificateKind, CertificateRecord, CrlRecord, Declaration, DeclaredRevocation, Ledger, LedgerError,
    Mark, SerialKey, Target, Write,
};
use certwave_protocol::ids::Epoch;

use crate::fixtures::*;

pub(crate) const REVOKE: Act = Act::Revoke {
    reason: Reason::KeyCompromise,
    invalid_since: Some(NOW_S - 60),
};
pub(crate) const HOLD: Act = Act::Hold(Holder::Person);
pub(crate) const RELEASE: Act = Act::Release(Holder::Person);

pub(crate) fn mark(target: Target, act: Act) -> Mark {
    Mark {
        target,
        act,
        requested_at: NOW - 1000,
        who: "alice".to_owned(),
        detail: Some("stolen".to_owned()),
        revocation: None,
    }
}

pub(crate) fn key(record: &CertificateRecord) -> SerialKey {
    SerialKey {
        issuer: record.issuer.clone(),
        serial: record.serial.clone(),
    }
}

pub(crate) async fn one(ledger: &dyn Ledger, epoch: Epoch, now: Millis, mark: Mark) -> usize {
    let changed = ledger.mark(epoch, now, vec![mark]).await.unwrap();
    assert_eq!(changed.len(), 1);
    changed[0].len()
}

pub(crate) async fn standing(ledger: &dyn Ledger, record: &CertificateRecord) -> Standing {
    let found = ledger
        .standings(&record.issuer, std::slice::from_ref(&record.serial))
        .await
        .unwrap();
    found[0].unwrap().standing
}

pub(crate) async fn publish(ledger: &dyn Ledger, epoch: Epoch, partition: &str, number: u64, now: Millis) {
    let covers = ledger.last_change().await.unwrap();
    let crl = CrlRecord {
        partition: partition.to_owned(),
        ..crl(number)
    };
    ledger.publish_crl(epoch, crl, covers, now).await.unwrap();
}

/// A device with a current, a previous and a pending certificate, all of partition 2027-02.
async fn three(ledger: &dyn Ledger, epoch: Epoch, n: u32) -> [CertificateRecord; 3] {
    let base = 2_000_000 + u64::from(n) * 10;
    let certificates = [0, 1, 2].map(|i| certificate(&identity(n), base + i, 30));
    for (i, record) in certificates.iter().enumerate() {
        let mut d = device(ledger, n).await;
        match i {
            0 => d.current = Some(Credential::from(record)),
            1 => d.previous = d.current.replace(Credential::from(record)),
            _ => d.pending = Some(Credential::from(record)),
        }
        let write = Write {
            certificate: Some(record.clone()),
            ..Write::of(d, NOW)
        };
        ledger.write(epoch, write).await.unwrap();
    }
    certificates
}

pub(crate) fn of(n: u32) -> Target {
    Target::Device(identity(n))
}

pub(crate) async fn a_stolen_device_is_revoked_with_all_it_holds_and_barred_until_a_later_permit_is_used(
    ledger: Arc<dyn Ledger>,
) {
    let ledger = &*ledger;
    let epoch = begin(ledger, 2).await;
    let held = three(ledger, epoch, 0).await;
    let other = enrol(ledger, epoch, 1, 30).await;
    let permit = Declaration {
        reenrol: Some("before".to_owned()),
        ..declaration(0)
    };
    ledger.declare(epoch, NOW, vec![permit.clone()]).await.unwrap();
    let waiting = change(ledger, epoch, 0, |d| d.job = Some(job(1, JobState::Sent))).await;

    assert_eq!(one(ledger, epoch, NOW, mark(of(0), REVOKE)).await, 3);
    for record in &held {
        let expected = Standing::Revoked {
            since: NOW_S,
            reason: Reason::KeyCompromise,
        };
        assert_eq!(standing(ledger, record).await, expected);
    }
    assert_eq!(standing(ledger, &other).await, Standing::Good);
    let d = device(ledger, 0).await;
    assert_eq!(d.bar, Some(Bar::Revoked));
    let counts = ledger.counts(&fleet("pumps"), counting(NOW)).await.unwrap();
    assert_eq!((counts.total, counts.revoked, counts.held), (2, 1, 0));
    assert_eq!((d.reenrol, d.reenrol_used.as_deref()), (None, Some("before")));
    assert_eq!(d.job.unwrap().state, JobState::Cancelled);
    assert_eq!(d.previous, None, "nobody goes back to a revoked certificate");
    let stale = ledger.write(epoch, Write::of(waiting, NOW)).await;
    assert_eq!(stale, Err(LedgerError::Conflict));
    let audit = ledger.audit(&identity(0), 1).await.unwrap().remove(0);
    assert_eq!((audit.who.as_str(), audit.what.as_str()), ("alice", "revoked"));
    assert!(audit.detail.unwrap().ends_with(": stolen"));
    // Whatever is repeated changes nothing; a hold does not soften it.
    for act in [REVOKE, HOLD, RELEASE] {
        assert_eq!(one(ledger, epoch, NOW + 1, mark(of(0), act)).await, 0);
    }
    assert_eq!(device(ledger, 0).await.bar, Some(Bar::Revoked));

    // The permit of before counts as used, whatever the object still says.
    ledger.declare(epoch, NOW, vec![permit.clone()]).await.unwrap();
    assert_eq!(device(ledger, 0).await.reenrol, None);
    let later = Declaration {
        reenrol: Some("after".to_owned()),
        ..permit
    };
    ledger.declare(epoch, NOW, vec![later]).await.unwrap();
    let mut d = device(ledger, 0).await;
    assert_eq!(d.reenrol.as_deref(), Some("after"));
    let fresh = certificate(&identity(0), 77, 30);
    d.pending = Some(Credential::from(&fresh));
    let mut write = Write {
        certificate: Some(fresh),
        ..Write::of(d, NOW)
    };
    assert_eq!(ledger.write(epoch, write.clone()).await, Err(LedgerError::Barred));
    write.device.bar = None;
    assert_eq!(ledger.write(epoch, write.clone()).await, Err(LedgerError::Barred));
    let mut enrolment = job(2, JobState::Issued);
    enrolment.kind = certwave_core::model::JobKind::Enrol;
    write.device.job = Some(enrolment);
    ledger.write(epoch, write).await.unwrap();
    assert_eq!(device(ledger, 0).await.bar, None);
}

pub(crate) async fn a_hold_lasts_until_its_last_holder_lets_go(ledger: Arc<dyn Ledger>) {
    let ledger = &*ledger;
    let epoch = begin(ledger, 1).await;
    let record = enrol(ledger, epoch, 0, 30).await;
    let object = Holder::Revocation("uid-of-object".to_owned());
    let retirement = Holder::Retirement(job_id(9));
    let since = Standing::Held { since: NOW_S };

    assert_eq!(one(ledger, epoch, NOW, mark(of(0), HOLD)).await, 1);
    let first = ledger.marked_certificate(&key(&record)).await.unwrap().unwrap();
    for (holder, target) in [(&object, of(0)), (&retirement, Target::Certificate(record.fingerprint))] {
        let hold = mark(target, Act::Hold(holder.clone()));
        assert_eq!(one(ledger, epoch, NOW + 5000, hold).await, 1);
    }
    let held = ledger.marked_certificate(&key(&record)).await.unwrap().unwrap();
    assert_eq!(held.standing, since);
    assert_eq!(held.change, first.change, "the standing has not changed");
    assert_eq!(held.holders.len(), 3);
    assert_eq!(device(ledger, 0).await.bar, Some(Bar::Held));
    assert_eq!(ledger.holding_revocations().await.unwrap(), ["uid-of-object"]);
    assert_eq!(ledger.held_by("uid-of-object", 9).await.unwrap(), [identity(0)]);

    assert_eq!(one(ledger, epoch, NOW + 6000, mark(of(0), RELEASE)).await, 1);
    assert_eq!(standing(ledger, &record).await, since);
    assert_eq!(
        device(ledger, 0).await.bar,
        Some(Bar::Held),
        "the object still holds it"
    );
    one(ledger, epoch, NOW + 7000, mark(of(0), Act::Release(object))).await;
    assert_eq!(device(ledger, 0).await.bar, None, "a retirement bars nobody");
    assert_eq!(standing(ledger, &record).await, since);
    one(ledger, epoch, NOW + 8000, mark(of(0), Act::Release(retirement))).await;
    assert_eq!(standing(ledger, &record).await, Standing::Good);
    let released = ledger.marked_certificate(&key(&record)).await.unwrap().unwrap();
    assert!(released.change > held.change && released.holders.is_empty());
    assert_eq!(ledger.holding_revocations().await.unwrap(), [""; 0]);

    // Revoked from a hold, it counts as revoked since the hold began.
    one(ledger, epoch, NOW + 9000, mark(of(0), HOLD)).await;
    one(ledger, epoch, NOW + 20_000, mark(of(0), REVOKE)).await;
    let revoked = ledger.marked_certificate(&key(&record)).await.unwrap().unwrap();
    let expected = Standing::Revoked {
        since: NOW_S + 9,
        reason: Reason::KeyCompromise,
    };
    assert_eq!((revoked.standing, revoked.holders), (expected, Vec::new()));
}

pub(crate) async fn a_device_without_a_certificate_can_be_barred(ledger: Arc<dyn Ledger>) {
    let ledger = &*ledger;
    let epoch = begin(ledger, 2).await;
    assert_eq!(one(ledger, epoch, NOW, mark(of(0), HOLD)).await, 0);
    assert_eq!(device(ledger, 0).await.bar, Some(Bar::Held));
    one(ledger, epoch, NOW, mark(of(0), RELEASE)).await;
    assert_eq!(device(ledger, 0).await.bar, None);
    one(ledger, epoch, NOW, mark(of(1), REVOKE)).await;
    assert_eq!(device(ledger, 1).await.bar, Some(Bar::Revoked));
    let unknown = ledger
        .mark(epoch, NOW, vec![mark(of(0), HOLD), mark(of(9), HOLD)])
        .await;
    assert_eq!(unknown, Err(LedgerError::NotFound("such device")));
    assert_eq!(device(ledger, 0).await.bar, None, "all or nothing");
}

pub(crate) async fn one_serial_bars_the_device_only_if_it_starts_from_it(ledger: Arc<dyn Ledger>) {
    let ledger = &*ledger;
    let epoch = begin(ledger, 1).await;
    let [previous, current, pending] = three(ledger, epoch, 0).await;
    let serial = |record: &CertificateRecord| Target::DeviceSerial(identity(0), record.serial.clone());
    assert_eq!(one(ledger, epoch, NOW, mark(serial(&previous), REVOKE)).await, 1);
    assert_eq!(device(ledger, 0).await.bar, None);
    assert_eq!(device(ledger, 0).await.previous, None);
    one(ledger, epoch, NOW, mark(serial(&current), HOLD)).await;
    assert_eq!(device(ledger, 0).await.bar, Some(Bar::Held));
    assert_eq!(standing(ledger, &pending).await, Standing::Good);
    one(ledger, epoch, NOW, mark(serial(&current), RELEASE)).await;
    assert_eq!(device(ledger, 0).await.bar, None);
    let by = |issuer: &str| Target::DeviceIssuedBy(identity(0), issuer.to_owned());
    assert_eq!(one(ledger, epoch, NOW, mark(by("other"), REVOKE)).await, 0);
    assert_eq!(device(ledger, 0).await.bar, None);
    assert_eq!(one(ledger, epoch, NOW, mark(by(&current.issuer), REVOKE)).await, 2);
    assert_eq!(device(ledger, 0).await.bar, Some(Bar::Revoked));
    let foreign = mark(Target::DeviceSerial(identity(0), "ff".to_owned()), REVOKE);
    let refused = ledger.mark(epoch, NOW, vec![foreign]).await.unwrap_err();
    assert_eq!(refused.category(), "not-found");
}

pub(crate) async fn a_ca_is_revoked_with_every_certificate_that_its_key_has(ledger: Arc<dyn Ledger>) {
    let ledger = &*ledger;
    let epoch = begin(ledger, 1).await;
    let of_ca = |n: u64, key: &str| CertificateRecord {
        kind: CertificateKind::Authority,
        holder: key.to_owned(),
        identity: None,
        job: None,
        ..certificate(&identity(0), 3_000_000 + n, 30)
    };
    let [first, renewed, other] = [of_ca(0, "plant-1"), of_ca(1, "plant-1"), of_ca(2, "plant-2")];
    for record in [&first, &renewed, &other] {
        ledger.record(epoch, record.clone()).await.unwrap();
    }
    let ca = |key: &str| mark(Target::Authority(key.to_owned()), REVOKE);
    assert_eq!(one(ledger, epoch, NOW, ca("plant-1")).await, 2);
    assert_eq!(one(ledger, epoch, NOW, ca("plant-1")).await, 0);
    for (record, revoked) in [(&first, true), (&renewed, true), (&other, false)] {
        let standing = standing(ledger, record).await;
        assert_eq!(matches!(standing, Standing::Revoked { .. }), revoked);
    }
    let unknown = ledger.mark(epoch, NOW, vec![ca("plant-3")]).await.unwrap_err();
    assert_eq!(unknown.category(), "not-found");
}

pub(crate) async fn what_withdrawn_objects_declared_of_revocations_is_known(ledger: Arc<dyn Ledger>) {
    let ledger = &*ledger;
    let epoch = begin(ledger, 3).await;
    for n in 0..2 {
        let wanted = DeclaredRevocation {
            act: HOLD,
            serial: None,
            requested_at: NOW,
        };
        let who = object("plant", n);
        ledger
            .declare_revocation(epoch, NOW, &who, Some(wanted), "alice")
            .await
            .unwrap();
    }
    let known = async || ledger.withdrawn_revocations(&broker()).await.unwrap();
    assert!(known().await.is_empty());
    for n in 1..3 {
        ledger.withdraw(epoch, NOW, &object("plant", n)).await.unwrap();
    }
    assert_eq!(known().await, [(object("plant", 1), identity(1).device)]);
    // An object of another name has said nothing, and the hold is not its to release.
    let mut other = declaration(1);
    other.object = object("plant", 7);
    ledger.declare(epoch, NOW, vec![other]).await.unwrap();
    let page = ledger.declared_objects(&broker(), None, 9).await.unwrap();
    let found = page.iter().find(|declared| declared.identity == identity(1)).unwrap();
    assert!(!found.revocation);
    assert_eq!(device(ledger, 1).await.bar, Some(Bar::Held));
    assert!(
        ledger
            .withdrawn_revocations(&"elsewhere".parse().unwrap())
            .await
            .unwrap()
            .is_empty()
    );
}

pub(crate) async fn what_an_object_declares_is_taken_over_once(ledger: Arc<dyn Ledger>) {
    let ledger = &*ledger;
    let epoch = begin(ledger, 1).await;
    let [previous, current, _] = three(ledger, epoch, 0).await;
    let who = object("plant", 0);
    let declare = async |act: Option<Act>, serial: Option<&CertificateRecord>| {
        let wanted = act.map(|act| DeclaredRevocation {
            act,
            serial: serial.map(|r| r.serial.clone()),
            requested_at: NOW,
        });
        let changed = ledger
            .declare_revocation(epoch, NOW, &who, wanted, "alice")
            .await
            .unwrap();
        let page = ledger.declared_objects(&broker(), None, 1).await.unwrap();
        (changed.len(), page[0].revocation)
    };
    assert_eq!(declare(None, None).await, (0, false));
    assert_eq!(declare(Some(HOLD), None).await, (3, true));
    assert_eq!(declare(Some(HOLD), None).await, (0, true));
    assert_eq!(device(ledger, 0).await.bar, Some(Bar::Held));
    // Only one of them any more, and not the one that it starts from.
    assert_eq!(declare(Some(HOLD), Some(&previous)).await, (2, true));
    assert_eq!(device(ledger, 0).await.bar, None);
    assert_eq!(standing(ledger, &current).await, Standing::Good);
    assert_eq!(standing(ledger, &previous).await, Standing::Held { since: NOW_S });
    assert_eq!(declare(None, None).await, (1, false));
    assert_eq!(standing(ledger, &previous).await, Standing::Good);
    assert_eq!(declare(Some(HOLD), None).await, (3, true));
    assert_eq!(
        declare(Some(REVOKE), Some(&previous)).await,
        (3, true),
        "the other holds end"
    );
    assert_eq!(standing(ledger, &current).await, Standing::Good);
    assert_eq!(declare(None, None).await, (0, false));
    assert!(matches!(standing(ledger, &previous).await, Standing::Revoked { .. }));
    // Revoked once, it stays so, and what the device has by then does not follow it.
    assert_eq!(declare(Some(REVOKE), None).await, (2, true));
    let mut d = device(ledger, 0).await;
    let fresh = certificate(&identity(0), 77, 30);
    let mut enrolment = job(2, JobState::Issued);
    enrolment.kind = certwave_core::model::JobKind::Enrol;
    (d.bar, d.pending, d.job) = (None, Some(Credential::from(&fresh)), Some(enrolment));
    let write = Write {
        certificate: Some(fresh.clone()),
        ..Write::of(d, NOW)
    };
    ledger.write(epoch, write).await.unwrap();
    assert_eq!(declare(Some(REVOKE), None).await, (0, true));
    let corrected = Act::Revoke {
        reason: Reason::Unspecified,
        invalid_since: None,
    };
    assert_eq!(declare(Some(corrected.clone()), None).await, (0, true));
    assert_eq!(declare(Some(corrected), Some(&previous)).await, (0, true));
    assert_eq!(declare(Some(REVOKE), None).await, (0, true));
    assert_eq!(
        standing(ledger, &fresh).await,
        Standing::Good,
        "it was let in again by a permit"
    );
    // Taken out and put in again, it is a new word.
    assert_eq!(declare(None, None).await, (0, false));
    assert_eq!(declare(Some(REVOKE), None).await, (1, true));
}

pub(crate) async fn who_has_changed_a_certificate_last_is_kept(ledger: Arc<dyn Ledger>) {
    let ledger = &*ledger;
    let epoch = begin(ledger, 1).await;
    let [previous, current, _] = three(ledger, epoch, 0).await;
    let author = async |record: &CertificateRecord| {
        let marked = ledger.marked_certificate(&key(record)).await.unwrap().unwrap();
        (marked.author.clone(), marked.by_person())
    };
    let retired = mark(
        Target::Certificate(previous.fingerprint),
        Act::Hold(Holder::Retirement(job_id(1))),
    );
    one(ledger, epoch, NOW, retired).await;
    assert_eq!(author(&previous).await, (Author::Controller, false));
    let bulk = Mark {
        revocation: Some("u-1".to_owned()),
        ..mark(of(0), Act::Hold(Holder::Revocation("u-1".to_owned())))
    };
    one(ledger, epoch, NOW + 1, bulk).await;
    let of_bulk = (Author::Revocation("u-1".to_owned()), true);
    assert_eq!(
        (author(&previous).await, author(&current).await),
        (of_bulk.clone(), of_bulk)
    );
    one(ledger, epoch, NOW + 2, mark(of(0), REVOKE)).await;
    assert_eq!(author(&current).await, (Author::Person, true));
}

pub(crate) async fn no_word_is_a_permit_twice(ledger: Arc<dyn Ledger>) {
    let ledger = &*ledger;
    let epoch = begin(ledger, 1).await;
    enrol(ledger, epoch, 0, 30).await;
    let give = async |word: &str| {
        let permit = Declaration {
            reenrol: Some(word.to_owned()),
            ..declaration(0)
        };
        ledger.declare(epoch, NOW, vec![permit]).await.unwrap();
        device(ledger, 0).await.reenrol
    };
    for word in ["T-1", "T-2"] {
        assert_eq!(give(word).await.as_deref(), Some(word));
        change(ledger, epoch, 0, |d| d.reenrol_used.clone_from(&d.reenrol)).await;
    }
    // Somebody has gone back to an old manifest.
    assert_eq!(give("T-1").await, None);
    // A revocation voids what was not used.
    assert_eq!(give("T-3").await.as_deref(), Some("T-3"));
    one(ledger, epoch, NOW, mark(of(0), REVOKE)).await;
    assert_eq!(give("T-4").await.as_deref(), Some("T-4"));
    change(ledger, epoch, 0, |d| d.reenrol_used.clone_from(&d.reenrol)).await;
    assert_eq!(give("T-3").await, None);
}

pub(crate) async fn who_would_be_met_by_a_bulk_revocation_is_listed_in_pages(ledger: Arc<dyn Ledger>) {
    let ledger = &*ledger;
    let epoch = begin(ledger, 5).await;
    let issuer = three(ledger, epoch, 0).await[0].issuer.clone();
    for n in 1..4 {
        enrol(ledger, epoch, n, if n == 2 { -1 } else { 30 }).await;
    }
    one(ledger, epoch, NOW, mark(of(3), REVOKE)).await;
    let found = async |page: Vec<(certwave_ledger::DeviceRow, certwave_ledger::Match)>| {
        page.into_iter()
            .map(|(_, m)| (m.identity, m.certificates))
            .collect::<Vec<(Identity, u32)>>()
    };
    let expected = [(identity(0), 3), (identity(1), 1)];
    assert_eq!(
        found(ledger.issued_by(&issuer, NOW_S, None, 9).await.unwrap()).await,
        expected
    );
    assert_eq!(
        found(ledger.issued_by("other", NOW_S, None, 9).await.unwrap()).await,
        []
    );
    let first = ledger.revocable("plant", Some("pumps"), NOW_S, None, 1).await.unwrap();
    let rest = ledger
        .revocable("plant", None, NOW_S, Some(first[0].0), 9)
        .await
        .unwrap();
    assert_eq!(
        (found(first).await, found(rest).await),
        (expected[..1].to_vec(), expected[1..].to_vec())
    );
    assert_eq!(
        found(ledger.revocable("plant", Some("valves"), NOW_S, None, 9).await.unwrap()).await,
        []
    );
}

pub(crate) async fn who_is_barred_gets_no_turn(ledger: Arc<dyn Ledger>) {
    let ledger = &*ledger;
    let epoch = begin(ledger, 3).await;
    for n in 0..3 {
        enrol(ledger, epoch, n, 30).await;
    }
    let query = certwave_ledger::DueQuery {
        now: NOW,
        expires_before_s: NOW_S + 90 * DAY_S,
        failed_before_s: NOW_S,
        limit: 9,
    };
    let fleet = fleet("pumps");
    one(ledger, epoch, NOW, mark(of(0), HOLD)).await;
    let candidates = ledger.candidates(&fleet, NOW, None, 9).await.unwrap();
    assert_eq!(candidates.len(), 2);
    let members = candidates
        .iter()
        .enumerate()
        .map(|(n, c)| certwave_ledger::NewMember {
            row: c.row,
            wave: 0,
            ordinal: u32::try_from(n).unwrap(),
            group: String::new(),
            windows: u64::MAX,
        })
        .collect();
    ledger.begin_rotation(epoch, rotation("r"), members).await.unwrap();
    one(ledger, epoch, NOW, mark(of(1), REVOKE)).await;
    assert_eq!(ledger.due(&fleet, &query).await.unwrap(), [identity(2)]);
    let counts = ledger.wave_counts("r").await.unwrap();
    assert_eq!(
        (counts[0].planned, counts[0].skipped),
        (1, 1),
        "the Rotation waits for nobody who is barred"
    );
}

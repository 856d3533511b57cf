//! Ledgers that earlier versions have written.

use certwave_core::rollout::run::{Run, WaveCounts};
use certwave_ledger::{Ledger, MemberOutcome, MemberQuery, RotationOutcome, RunWrite, SqliteLedger, Target};
use rusqlite::Connection;

use crate::fixtures::*;
use crate::revocations::{REVOKE, mark};

/// Four devices in a Rotation that runs, two of them in one that has ended.
const ROWS: &str = "
    INSERT INTO epochs VALUES (5, 'before', 1);
    INSERT INTO fleets VALUES (1, 'plant', 'pumps');
    INSERT INTO certificates (id, fingerprint, issuer, serial, spki, public_key, not_before, not_after, kind, holder, broker,
            device, issued_at, confirmed_at, der)
        SELECT value, CAST(printf('%032d', value) AS BLOB), 'aa', value, CAST(printf('%032d', value) AS BLOB), x'00', 0, 1800864000, 'Device', 'd', 'main',
            printf('dev-%06d', value), 1, 2, x'30' FROM json_each('[0, 1, 2, 3]');
    INSERT INTO devices (id, broker, device, namespace, name, uid, declared, fleet, labels, current, revision, project_rev,
            changed_at, projected_rev, job_open, not_after, issuer)
        SELECT id + 10, 'main', device, 'plant', printf('object-%06d', id), 'uid', 1, 1, '{}', id, 1, 1, 0, 1, 0, not_after,
            issuer FROM certificates;
    INSERT INTO rotations VALUES (1, 'old', 'plant', 'old', 1, 'Expiry', NULL, 1000, 2, 2000, 'Succeeded');
    INSERT INTO rotations VALUES (2, 'r', 'plant', 'r', 1, 'Expiry', 'bb', 3000, 4, NULL, NULL);
    INSERT INTO members (rotation, device, wave, ordinal, outcome) VALUES (1, 10, 0, 0, 'Confirmed'), (1, 11, 0, 1, 'Skipped'),
        (2, 10, 0, 3, 'Planned'), (2, 11, 0, 2, 'Planned'), (2, 12, 0, 1, 'Failed'), (2, 13, 0, 0, 'Lost');";

#[tokio::test]
async fn a_ledger_of_before_staged_rotation_goes_on_with_its_rotations() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger.db");
    let db = Connection::open(&path).unwrap();
    db.execute_batch(include_str!("../../migrations/0001_initial.sql"))
        .unwrap();
    db.pragma_update(None, "user_version", 1).unwrap();
    db.pragma_update(None, "application_id", 0x4357_4c47).unwrap();
    db.execute_batch(ROWS).unwrap();
    drop(db);

    let ledger = SqliteLedger::open(&path).unwrap();
    let epoch = ledger.take_epoch("after", NOW).await.unwrap();
    let old = ledger.rotation("old").await.unwrap().unwrap();
    assert_eq!(old.ended, Some((2000, RotationOutcome::Succeeded)));
    let r = ledger.rotation("r").await.unwrap().unwrap();
    assert_eq!((r.members, &r.run, r.ended), (4, &Run::default(), None));
    assert_eq!((r.record.issuer.as_deref(), r.record.started), (Some("bb"), 3000));
    assert_eq!(r.record.strategy.waves.len(), 1);
    assert_eq!(r.record.plan.waves.iter().map(|w| w.size).collect::<Vec<_>>(), [4]);
    let expected = WaveCounts {
        members: 4,
        planned: 2,
        failed: 1,
        lost: 1,
        changed: 3000,
        ..WaveCounts::default()
    };
    assert_eq!(ledger.wave_counts("r").await.unwrap(), [expected]);
    let anybody = MemberQuery {
        now: NOW,
        through_wave: 0,
        windows: 1,
        override_before_s: None,
        full_groups: Vec::new(),
        from: (0, 0),
        limit: 9,
    };
    let waiting = ledger.waiting_members("r", &anybody).await.unwrap();
    let found: Vec<_> = waiting.into_iter().map(|m| m.identity).collect();
    assert_eq!(found, [1, 0].map(identity));
    // And it can be written to, by what counts members too.
    let end = RunWrite {
        end: Some(RotationOutcome::Cancelled),
        ..RunWrite::of(r.run)
    };
    ledger.write_run(epoch, "r", NOW, end).await.unwrap();
    let member = ledger.member("r", &identity(0)).await.unwrap().unwrap();
    assert_eq!(member.outcome, MemberOutcome::Skipped);
    assert_eq!(ledger.wave_counts("r").await.unwrap()[0].skipped, 2);
    ledger.close().await;
    assert_eq!(SqliteLedger::open(&path).unwrap().epoch().await.unwrap(), epoch);
}

#[tokio::test]
async fn a_ledger_of_before_revocation_keeps_all_that_it_holds_and_chains_its_audit() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger.db");
    let db = Connection::open(&path).unwrap();
    for sql in [
        include_str!("../../migrations/0001_initial.sql"),
        ROWS,
        include_str!("../../migrations/0002_rollout.sql"),
        "INSERT INTO audit (id, at, who, what, broker, device, detail) VALUES (1, 5, 'controller', 'job-sent', 'main', 'dev-000001', NULL),
             (4, 6, 'alice', 'approved', NULL, NULL, 'wave 1')",
        "INSERT INTO crls VALUES ('aa', '2027-01', 9, 100, 200, x'30')",
    ] {
        db.execute_batch(sql).unwrap();
    }
    db.pragma_update(None, "user_version", 2).unwrap();
    db.pragma_update(None, "application_id", 0x4357_4c47).unwrap();
    drop(db);

    let early = SqliteLedger::open_for_reading(&path).unwrap_err();
    assert!(early.to_string().contains("earlier version"), "{early}");
    let ledger = SqliteLedger::open(&path).unwrap();
    let epoch = ledger.take_epoch("after", NOW).await.unwrap();
    let (lines, before) = ledger.verify_audit().await.unwrap();
    assert_eq!(lines, 2);
    assert_eq!(ledger.crl_numbers("aa").await.unwrap(), [("2027-01".to_owned(), 9)]);
    assert_eq!(ledger.provenance().await.unwrap().restored_at, None);
    let revoked = mark(Target::Device(identity(1)), REVOKE);
    assert_eq!(ledger.mark(epoch, NOW, vec![revoked]).await.unwrap()[0].len(), 1);
    assert_eq!(
        ledger.crls_behind().await.unwrap(),
        [("aa".to_owned(), "2027-01".to_owned())]
    );
    let (lines, after) = ledger.verify_audit().await.unwrap();
    assert!(lines == 3 && after != before);
    assert!(
        !ledger.is_present(5).await.unwrap(),
        "the epoch of before was the controller's"
    );
    assert!(ledger.is_present(epoch).await.unwrap());
}

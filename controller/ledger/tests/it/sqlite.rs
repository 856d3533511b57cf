//! The suite on SQLite, and what concerns its file.

use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;

use certwave_ledger::{Ledger, LedgerError, SqliteLedger, SqliteOptions, Write};
use rusqlite::Connection;
use tempfile::TempDir;

use crate::fixtures::*;

/// Runs each of the suite's functions as a test of its own on a fresh ledger, which `$open` makes.
macro_rules! suite {
    ($open:expr; $($module:ident::$name:ident)*) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            let (ledger, _keep) = $open;
            crate::$module::$name(ledger).await;
        })*
    };
}

fn fresh() -> (Arc<dyn Ledger>, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    (Arc::new(SqliteLedger::open(dir.path().join("ledger.db")).unwrap()), dir)
}

suite! { fresh();
    epochs::an_epoch_rises_above_the_last_one_and_the_clock
    epochs::every_write_of_an_old_epoch_is_refused
    objects::an_identity_belongs_to_whoever_declares_it_first
    objects::a_certificate_sent_but_not_proven_keeps_other_namespaces_out_while_it_is_valid
    objects::an_object_may_change_fleet_labels_and_permit
    objects::withdrawing_cancels_what_waits_and_keeps_the_rest
    objects::declared_objects_come_in_pages
    devices::a_device_comes_back_as_it_was_written
    devices::a_write_of_an_old_revision_conflicts
    devices::a_refused_write_leaves_nothing_behind
    records::a_device_key_is_for_one_certificate_and_a_serial_for_one_per_issuer
    devices::overdue_are_open_jobs_past_a_deadline_and_timed_out_ones_past_theirs
    devices::due_are_idle_enrolled_devices_whose_certificates_end_soon
    devices::who_failed_is_due_only_shortly_before_the_end
    devices::candidates_tell_who_failed_and_who_has_not_been_heard_since
    devices::waiting_devices_are_served_longest_first_and_slots_are_counted
    devices::devices_in_flight_for_something_else_are_counted_by_a_label
    objects::objects_are_written_once_a_job_has_ended_or_a_change_has_aged
    records::crl_numbers_rise
    records::a_claims_quota_holds_against_concurrent_devices
    records::a_claim_is_closed_by_suspension_end_and_binding
    records::the_audit_tells_of_a_device_the_last_first
    records::jobs_sent_are_a_fleets_first_sendings_since_a_time
    devices::a_read_sees_what_was_acknowledged_before_it
    devices::any_bundle_is_stored
    rotations::a_members_outcome_follows_its_job
    rotations::a_planned_retry_keeps_its_place_in_line
    rotations::who_is_busy_elsewhere_keeps_no_rotation_from_ending
    rotations::who_leaves_the_fleet_is_skipped
    rotations::who_has_expired_gets_no_turn
    rotations::a_rotation_ends_once_and_nobody_else_gets_a_turn
    rotations::the_last_rotation_of_a_fleet_is_the_one_that_ended_last
    rotations::who_was_renewed_meanwhile_is_skipped_unless_the_ca_is_to_change
    staged::candidates_are_declared_enrolled_and_alive
    staged::a_rotation_begins_once_with_its_members_in_waves
    staged::waiting_members_come_in_order_within_waves_windows_and_groups
    staged::waiting_members_are_found_behind_any_number_that_may_not_start
    turns::a_timed_out_member_counts_as_gone_until_it_accepts_another_job
    turns::who_timed_out_is_tried_again_once_heard
    turns::confirmed_members_are_sent_back_while_they_can_be
    turns::nobody_waits_for_a_way_back_that_is_closed
    turns::a_way_back_that_is_called_off_leaves_the_new_certificate
    turns::failed_members_get_another_turn_when_a_person_says_so
    staged::a_step_of_a_run_is_stored_whole_and_none_after_the_end
    substitutes::the_member_of_a_later_wave_heard_last_takes_the_place_of_who_is_offline
    substitutes::substitutes_run_out_and_those_never_heard_come_last
    turns::who_is_in_the_way_and_who_is_left_is_known_by_group_and_end
    turns::a_confirmed_trust_job_leads_to_the_leaf_and_only_who_is_there_gets_another_turn
}

#[tokio::test]
async fn only_the_owner_may_read_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger.db");
    std::fs::write(&path, "").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let ledger = SqliteLedger::open(&path).unwrap();
    begin(&ledger, 1).await;
    let modes: Vec<_> = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|e| e.unwrap())
        .map(|e| (e.file_name(), e.metadata().unwrap().permissions().mode() & 0o777))
        .collect();
    assert_eq!(modes.len(), 4, "file, log, index and lock: {modes:?}");
    assert!(modes.iter().all(|(_, mode)| *mode == 0o600), "{modes:?}");
}

#[tokio::test]
async fn a_second_process_is_kept_out_until_the_first_has_closed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger.db");
    let first = SqliteLedger::open(&path).unwrap();
    begin(&first, 3).await;
    let second = SqliteLedger::open(&path).unwrap_err();
    assert!(
        matches!(&second, LedgerError::Unavailable(why) if why.contains("another process")),
        "{second}"
    );
    first.close().await;
    let second = SqliteLedger::open_with(
        &path,
        &SqliteOptions {
            check: true,
            ..SqliteOptions::default()
        },
    )
    .unwrap();
    assert_eq!(device(&second, 2).await.revision, 1);
}

#[tokio::test]
async fn a_newer_schema_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger.db");
    let ledger = SqliteLedger::open(&path).unwrap();
    begin(&ledger, 1).await;
    ledger.close().await;
    let db = Connection::open(&path).unwrap();
    let version: i64 = db.pragma_query_value(None, "user_version", |r| r.get(0)).unwrap();
    db.pragma_update(None, "user_version", version + 1).unwrap();
    drop(db);
    let before = std::fs::read(&path).unwrap();
    let refused = SqliteLedger::open(&path).unwrap_err();
    assert_eq!(
        refused,
        LedgerError::Newer {
            found: version + 1,
            supported: version
        }
    );
    assert!(std::fs::read(&path).unwrap() == before);
}

#[tokio::test]
async fn files_of_others_and_damaged_ones_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let other = dir.path().join("other.db");
    Connection::open(&other)
        .unwrap()
        .execute_batch("CREATE TABLE t (x)")
        .unwrap();
    assert_eq!(SqliteLedger::open(&other).unwrap_err().category(), "corrupt");
    let text = dir.path().join("text.db");
    std::fs::write(&text, "not a database, and long enough to be taken for one".repeat(100)).unwrap();
    assert_eq!(SqliteLedger::open(&text).unwrap_err().category(), "corrupt");
    let nowhere = SqliteLedger::open(dir.path().join("missing/ledger.db")).unwrap_err();
    assert_eq!(nowhere.category(), "unavailable");

    let path = dir.path().join("ledger.db");
    let ledger = SqliteLedger::open(&path).unwrap();
    begin(&ledger, 2000).await;
    ledger.close().await;
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2 / 4096 * 4096;
    bytes[middle..middle + 4096].fill(0xa5);
    std::fs::write(&path, bytes).unwrap();
    let check = SqliteOptions {
        check: true,
        ..SqliteOptions::default()
    };
    assert_eq!(
        SqliteLedger::open_with(&path, &check).unwrap_err().category(),
        "corrupt"
    );
}

#[tokio::test]
async fn the_audit_and_the_certificates_cannot_be_unwritten() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger.db");
    let ledger = SqliteLedger::open(&path).unwrap();
    let epoch = begin(&ledger, 1).await;
    enrol(&ledger, epoch, 0, 1).await;
    ledger
        .append_audit(epoch, vec![audit(&identity(0), NOW, "seen")])
        .await
        .unwrap();
    ledger.close().await;
    let db = Connection::open(&path).unwrap();
    for sql in [
        "UPDATE audit SET who = 'x'",
        "DELETE FROM audit",
        "DELETE FROM certificates",
    ] {
        assert!(db.execute(sql, []).is_err(), "{sql}");
    }
}

#[tokio::test]
async fn an_operation_given_up_by_its_caller_is_done_or_not_but_never_half() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Arc::new(SqliteLedger::open(dir.path().join("ledger.db")).unwrap());
    let epoch = begin(&*ledger, 1).await;
    for n in 0..50 {
        let mut write = Write::of(device(&*ledger, 0).await, NOW);
        write.audit = vec![audit(&identity(0), n, "seen")];
        let writer = Arc::clone(&ledger);
        let task = tokio::spawn(async move { writer.write(epoch, write).await });
        tokio::task::yield_now().await;
        task.abort();
        let _ = task.await;
    }
    // Whatever was queued before is done when this one is answered.
    ledger.append_audit(epoch, vec![]).await.unwrap();
    let lines = ledger.audit(&identity(0), 100).await.unwrap().len();
    assert_eq!(device(&*ledger, 0).await.revision, 1 + lines as u64);
}

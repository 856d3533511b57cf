//! The suite that every database behind the trait must pass.

/// Runs each of the suite's functions as a test of its own on a fresh ledger, which `$open` makes.
macro_rules! suite {
    ($open:expr) => {
        $crate::suite::tests! { $open;
            epochs::an_epoch_rises_above_the_last_one_and_the_clock
            epochs::every_write_of_an_old_epoch_is_refused
            parts::holders_of_different_parts_do_not_disturb_each_other
            parts::a_second_holder_of_a_part_fences_the_first
            parts::a_restored_ledger_ends_the_terms_of_all_parts
            parts::a_brokers_holder_changes_nothing_of_another_broker
            parts::an_object_that_moves_to_another_broker_is_let_go_by_the_holder_of_the_one_before
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
            records::a_cas_object_has_one_key_for_ever
            records::crl_numbers_rise
            records::a_claims_quota_holds_against_concurrent_devices
            records::a_claim_is_closed_by_suspension_end_and_binding
            records::the_audit_tells_of_a_device_the_last_first
            records::jobs_sent_are_a_fleets_first_sendings_since_a_time
            devices::a_read_sees_what_was_acknowledged_before_it
            devices::any_bundle_is_stored
            devices::what_devices_start_from_comes_in_pages
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
            turns::who_went_back_by_itself_is_not_sent_to_the_new_certificate
            turns::confirmed_members_are_sent_back_while_they_can_be
            turns::nobody_waits_for_a_way_back_that_is_closed
            turns::a_way_back_that_is_called_off_leaves_the_new_certificate
            turns::failed_members_get_another_turn_when_a_person_says_so
            staged::a_step_of_a_run_is_stored_whole_and_none_after_the_end
            staged::what_shows_after_a_rotation_was_complete_blocks_its_template_once
            substitutes::the_member_of_a_later_wave_heard_last_takes_the_place_of_who_is_offline
            substitutes::substitutes_run_out_and_those_never_heard_come_last
            turns::who_is_in_the_way_and_who_is_left_is_known_by_group_and_end
            turns::a_confirmed_trust_job_leads_to_the_leaf_and_only_who_is_there_gets_another_turn
            revocations::a_stolen_device_is_revoked_with_all_it_holds_and_barred_until_a_later_permit_is_used
            revocations::a_hold_lasts_until_its_last_holder_lets_go
            revocations::a_device_without_a_certificate_can_be_barred
            revocations::a_ca_is_revoked_with_every_certificate_that_its_key_has
            revocations::one_serial_bars_the_device_only_if_it_starts_from_it
            revocations::what_withdrawn_objects_declared_of_revocations_is_known
            revocations::what_an_object_declares_is_taken_over_once
            revocations::who_has_changed_a_certificate_last_is_kept
            revocations::no_word_is_a_permit_twice
            effects::crl_lines_come_by_scope_in_pages_and_deltas_tell_what_was_released
            effects::a_mark_is_followed_into_its_crl_through_the_door_to_the_end_of_the_session
            effects::a_crl_of_all_that_was_issued_shuts_the_door_too
            revocations::who_would_be_met_by_a_bulk_revocation_is_listed_in_pages
            revocations::who_is_barred_gets_no_turn
            retirements::a_retirement_goes_from_waiting_over_the_hold_to_revoked
            retirements::the_next_retirement_of_a_device_lets_go_of_what_the_last_one_held
            retirements::no_job_begins_amid_a_hold_and_no_hold_amid_a_job
            retirements::the_wave_hears_of_who_did_not_come_back
            retirements::nobody_is_sent_back_to_a_certificate_that_is_held_or_revoked
            recovery::the_audit_is_a_chain
            recovery::a_restored_ledger_issues_nothing_until_what_was_lost_is_taken_in
            recovery::after_a_recovery_it_is_known_which_certificate_is_the_newer_one
            recovery::a_device_whose_current_certificate_is_taken_in_as_revoked_needs_a_permit
            recovery::a_hold_that_was_taken_in_ends_when_the_object_declares_none
            recovery::what_ended_long_ago_is_archived_unless_somebody_refers_to_it
        }
    };
}

macro_rules! tests {
    ($open:expr; $($module:ident::$name:ident)*) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            let (ledger, _keep) = $open;
            crate::$module::$name(ledger).await;
        })*
    };
}
pub(crate) use {suite, tests};

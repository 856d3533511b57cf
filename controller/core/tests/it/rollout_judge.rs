//! What the judge says of waves that prove nothing, and of approvals from before a breach.

use certwave_core::rollout::judge::{Action, Control, Gates, Phase, Seen, Waiting, judge, late_breach};
use certwave_core::rollout::run::{Breach, BreachCause, Ended, Plan, PlannedWave, Run, WaveCounts};
use certwave_core::rollout::strategy::Strategy;

const NOW: i64 = 1_800_000_000_000;

/// A canary of one device, and the rest.
fn plan() -> Plan {
    let wave = |name: &str, size| PlannedWave {
        name: name.to_owned(),
        size,
        max_failed: 0,
        max_lost: 1,
    };
    Plan {
        waves: vec![wave("canary", 1), wave("early", 9), wave("rest", 90)],
        hash: "aa".repeat(32),
    }
}

fn seen<'a>(waves: &'a [WaveCounts], control: Control<'a>) -> Seen<'a> {
    Seen {
        waves,
        control,
        gates: Gates::Well,
        fault: None,
        ledger_out: None,
        clock_turned: None,
        starting: false,
        preempted_by: None,
        online: 100,
    }
}

fn canary(change: impl FnOnce(&mut WaveCounts)) -> [WaveCounts; 3] {
    let planned = |members| WaveCounts {
        members,
        planned: members,
        changed: NOW - 60_000,
        ..WaveCounts::default()
    };
    let mut waves = [planned(1), planned(9), planned(90)];
    waves[0].planned = 0;
    change(&mut waves[0]);
    waves
}

#[test]
fn a_canary_that_is_lost_stops_the_run_though_one_may_be_lost() {
    let waves = canary(|wave| wave.lost = 1);
    let said = judge(
        NOW,
        &Strategy::default(),
        &plan(),
        &Run::default(),
        &seen(&waves, Control::default()),
    );
    assert_eq!(said.phase, Phase::Breached);
    assert_eq!(said.run.breach.unwrap().cause, BreachCause::Success);
    assert!(said.actions.contains(&Action::BlockTemplate) && !said.admits);
}

#[test]
fn a_canary_that_a_person_has_written_off_gets_a_substitute() {
    let waves = canary(|wave| wave.lost = 1);
    let stopped = judge(
        NOW,
        &Strategy::default(),
        &plan(),
        &Run::default(),
        &seen(&waves, Control::default()),
    );
    let control = Control {
        resume: "go on",
        ..Control::default()
    };
    let resumed = judge(NOW, &Strategy::default(), &plan(), &stopped.run, &seen(&waves, control));
    let next = judge(
        NOW + 2000,
        &Strategy::default(),
        &plan(),
        &resumed.run,
        &seen(&waves, control),
    );
    assert_eq!((next.phase, next.waiting), (Phase::Running, Some(Waiting::Proof)));
    assert_eq!(next.actions, [Action::Substitute { wave: 0 }]);
}

#[test]
fn an_approval_from_before_a_breach_counts_no_more_and_says_so() {
    let mut strategy = Strategy::default();
    strategy.waves[0].approval = true;
    let run = Run {
        approved: 1,
        breach: Some(Breach {
            wave: 0,
            at: NOW,
            cause: BreachCause::Gate,
            detail: "no".to_owned(),
            rolling_back: false,
        }),
        ..Run::default()
    };
    let waves = canary(|wave| wave.confirmed = 1);
    let control = Control {
        through_wave: 1,
        resume: "go on",
        ..Control::default()
    };
    let resumed = judge(NOW, &strategy, &plan(), &run, &seen(&waves, control));
    let soaking = judge(NOW + 2000, &strategy, &plan(), &resumed.run, &seen(&waves, control));
    let soaked = judge(
        NOW + 7_200_000,
        &strategy,
        &plan(),
        &soaking.run,
        &seen(&waves, control),
    );
    assert_eq!(soaked.phase, Phase::WaitingForApproval);
    assert!(soaked.refused.unwrap().contains("before the breach"));
    // Taken back, and given again.
    let none = Control {
        through_wave: 0,
        ..control
    };
    let bare = judge(NOW + 7_202_000, &strategy, &plan(), &soaked.run, &seen(&waves, none));
    let given = judge(NOW + 7_204_000, &strategy, &plan(), &bare.run, &seen(&waves, control));
    assert_eq!((given.phase, given.run.wave), (Phase::Running, 1));
}

#[test]
fn who_is_silent_after_an_outage_of_the_ledger_is_not_offline_before_its_time_is_over() {
    let mut strategy = Strategy::default();
    strategy.job.offline_after = 30_000;
    strategy.waves[0].soak = 0;
    let waves = canary(|wave| (wave.members, wave.confirmed, wave.offline) = (2, 1, 1));
    let soaking = Run {
        soak_since: Some(NOW - 60_000),
        ..Run::default()
    };
    let out = NOW - 1_000;
    let seen = Seen {
        ledger_out: Some(out),
        ..seen(&waves, Control::default())
    };
    let back = judge(NOW, &strategy, &plan(), &soaking, &seen);
    assert_eq!((back.phase, back.waiting), (Phase::Running, Some(Waiting::Devices)));
    assert_eq!(
        (back.run.last_fault, back.run.soak_since),
        (Some(out), None),
        "soak begins anew"
    );
    let again = judge(NOW, &strategy, &plan(), &back.run, &seen);
    assert_eq!(again.run, back.run, "one outage counts once");
    let over = judge(out + 30_000, &strategy, &plan(), &back.run, &seen);
    assert_eq!(over.run.wave, 1, "{:?}", over.waiting);
}

#[test]
fn soak_begins_anew_when_the_clock_has_jumped() {
    let mut strategy = Strategy::default();
    strategy.waves[0].soak = 3_600_000;
    let waves = canary(|wave| (wave.members, wave.confirmed, wave.changed) = (1, 1, NOW - 1_000));
    let soaking = Run {
        soak_since: Some(NOW),
        ..Run::default()
    };
    // Two hours ahead, and nobody has waited.
    let ahead = NOW + 7_200_000;
    let right = seen(&waves, Control::default());
    let jumped = Seen {
        clock_turned: Some(ahead),
        ..right
    };
    let anew = judge(ahead + 5, &strategy, &plan(), &soaking, &jumped);
    assert_eq!((anew.phase, anew.run.wave), (Phase::Soaking, 0));
    let over = judge(ahead + 5 + 3_600_000, &strategy, &plan(), &anew.run, &jumped);
    assert_eq!(over.run.wave, 1, "one jump counts once: {:?}", over.waiting);
    // Put back, and ahead once more: each is a turn of its own, whatever the clock says.
    let back = Seen {
        clock_turned: Some(NOW + 9),
        ..right
    };
    let again = judge(NOW + 10, &strategy, &plan(), &anew.run, &back);
    assert_eq!((again.phase, again.run.soak_since), (Phase::Soaking, Some(NOW + 10)));
    let again = judge(ahead + 20, &strategy, &plan(), &again.run, &jumped);
    assert_eq!((again.phase, again.run.wave), (Phase::Soaking, 0));
    let without = judge(ahead + 5, &strategy, &plan(), &soaking, &right);
    assert_eq!(without.run.wave, 1, "the time alone would have been enough");
}

#[test]
fn soak_ends_though_a_device_has_changed_by_a_clock_that_was_years_ahead() {
    let mut strategy = Strategy::default();
    strategy.waves[0].soak = 60_000;
    let waves = canary(|wave| (wave.members, wave.confirmed, wave.changed) = (1, 1, NOW + 86_400_000_000));
    let seen = seen(&waves, Control::default());
    let soaking = judge(NOW, &strategy, &plan(), &Run::default(), &seen);
    assert_eq!((soaking.phase, soaking.run.soak_since), (Phase::Soaking, Some(NOW)));
    let over = judge(NOW + 60_000, &strategy, &plan(), &soaking.run, &seen);
    assert_eq!(over.run.wave, 1, "{:?}", over.waiting);
}

#[test]
fn what_probations_show_after_the_end_counts_by_the_waves_own_budget() {
    let run = Run {
        wave: 2,
        ended: Some(Ended::Complete),
        ..Run::default()
    };
    let of = |failed, probation_failed| {
        let mut waves = canary(|wave| (wave.planned, wave.confirmed) = (0, 1));
        (waves[1].failed, waves[1].probation_failed) = (failed, probation_failed);
        late_breach(&Strategy::default(), &plan(), &run, &waves)
    };
    assert_eq!(of(0, 0), None);
    assert_eq!(
        of(1, 0),
        None,
        "that was judged while the Rotation ran, or is a late device's"
    );
    let found = of(0, 1).map(|(wave, cause, _)| (wave, cause));
    assert_eq!(found, Some((1, BreachCause::Failed)));
}

#[test]
fn a_person_sends_a_wave_back_once_for_each_word() {
    let strategy = Strategy::default();
    let waves = canary(|wave| wave.confirmed = 1);
    let control = Control {
        rollback: "INC-1",
        ..Control::default()
    };
    let said = judge(NOW, &strategy, &plan(), &Run::default(), &seen(&waves, control));
    assert_eq!(said.phase, Phase::RollingBack);
    assert!(said.reverts && !said.admits);
    assert!(said.actions.contains(&Action::Revert { wave: 0 }) && said.actions.contains(&Action::BlockTemplate));
    assert_eq!(said.run.breach.as_ref().unwrap().cause, BreachCause::Person);

    // They are back: a person must say how it goes on, and the word that stands is not carried out again.
    let back = canary(|wave| wave.reverted = 1);
    let done = judge(NOW + 2000, &strategy, &plan(), &said.run, &seen(&back, control));
    assert_eq!((done.phase, done.waiting), (Phase::RolledBack, Some(Waiting::Person)));
    let resumes = Control {
        resume: "go on",
        ..control
    };
    let then = judge(NOW + 4000, &strategy, &plan(), &done.run, &seen(&back, resumes));
    assert_eq!((then.phase, then.run.breach), (Phase::Running, None));
}

#[test]
fn a_breach_that_stopped_the_run_is_sent_back_in_its_own_wave_and_keeps_its_cause_in_words() {
    let run = Run {
        wave: 1,
        breach: Some(Breach {
            wave: 0,
            at: NOW - 1000,
            cause: BreachCause::Failed,
            detail: "2 devices failed".to_owned(),
            rolling_back: false,
        }),
        ..Run::default()
    };
    let waves = canary(|wave| wave.confirmed = 1);
    let control = Control {
        rollback: "INC-1",
        ..Control::default()
    };
    let said = judge(NOW, &Strategy::default(), &plan(), &run, &seen(&waves, control));
    let breach = said.run.breach.unwrap();
    assert_eq!((breach.wave, breach.rolling_back), (0, true));
    assert!(
        breach.detail.contains("INC-1") && breach.detail.contains("2 devices failed"),
        "{}",
        breach.detail
    );
}

#[test]
fn nobody_is_sent_back_in_an_emergency() {
    let strategy = Strategy {
        emergency: true,
        ..Strategy::default()
    };
    let waves = canary(|wave| wave.in_flight = 1);
    let control = Control {
        rollback: "INC-1",
        ..Control::default()
    };
    let said = judge(NOW, &strategy, &plan(), &Run::default(), &seen(&waves, control));
    assert_eq!((said.phase, said.run.breach), (Phase::Running, None));
    assert!(!said.reverts);
}

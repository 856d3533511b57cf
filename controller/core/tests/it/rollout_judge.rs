//! What the judge says of waves that prove nothing, and of approvals from before a breach.

use certwave_core::rollout::judge::{Action, Control, Gates, Phase, Seen, Waiting, judge};
use certwave_core::rollout::run::{Breach, BreachCause, Plan, PlannedWave, Run, WaveCounts};
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

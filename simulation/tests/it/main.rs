//! The whole operator in simulated time: seeds that must hold, histories that must repeat, and mistakes that must be found.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::process::{Command, Output};
use std::sync::Mutex;

use certwave_simulation::mutant::Mutant;

/// Seeds that each run of the tests tries; `make soak` goes on from there.
const SEEDS: u32 = 2000;
/// Seeds among which one must find a mistake.
const SEEDS_FOR_A_MISTAKE: u32 = 400;

/// Each takes all cores there are.
static ALONE: Mutex<()> = Mutex::new(());

fn soak(arguments: &[&str]) -> Output {
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut command = Command::new(env!("CARGO_BIN_EXE_certwave-soak"));
    for name in [
        "HOURS",
        "MINUTES",
        "SEEDS",
        "SEED",
        "FROM",
        "DEVICES",
        "WORKERS",
        "MUTANT",
        "KEEP_GOING",
        "PATIENCE",
        "LOG",
    ] {
        command.env_remove(name);
    }
    command.args(arguments).output().unwrap()
}

fn said(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

fn holds(arguments: &[&str]) -> String {
    let output = soak(arguments);
    let said = said(&output);
    assert!(output.status.success(), "{said}");
    said
}

#[test]
fn what_always_holds_does_whatever_goes_wrong() {
    println!("{}", holds(&["--seeds", &SEEDS.to_string()]));
}

#[test]
fn a_seed_has_one_history() {
    let said = holds(&["--seeds", "8", "--times", "2", "--from", "1000", "--hashes"]);
    let histories: Vec<&str> = said.lines().filter(|line| line.split(' ').count() == 3).collect();
    assert_eq!(histories.len(), 16, "{said}");
    let different: std::collections::BTreeSet<&str> = histories.iter().copied().collect();
    assert_eq!(different.len(), 8, "each seed its own: {said}");
}

#[test]
fn a_failing_seed_says_how_to_replay_it_and_fails_again() {
    let mutant = Mutant::LimitIsIgnored.name();
    let output = soak(&["--seeds", "1", "--from", "8", "--mutant", &mutant]);
    let first = said(&output);
    assert!(!output.status.success(), "{first}");
    assert!(first.contains("seed 8 FAILED"), "{first}");
    assert!(
        first.contains(&format!("make soak SEED=8 DEVICES=5 MUTANT={mutant}")),
        "{first}"
    );
    let again = soak(&["--seed", "8", "--mutant", &mutant]);
    let breaches = |text: &str| {
        let all: Vec<String> = text
            .lines()
            .filter(|line| line.starts_with("  in flight:"))
            .map(str::to_owned)
            .collect();
        all
    };
    assert!(!breaches(&first).is_empty(), "{first}");
    assert_eq!(breaches(&first), breaches(&String::from_utf8_lossy(&again.stdout)));
}

#[test]
fn a_larger_fleet_stands_as_it_should() {
    println!("{}", holds(&["--seeds", "1", "--devices", "2000", "--patience", "300"]));
}

#[test]
fn every_mistake_is_found() {
    let seeds = SEEDS_FOR_A_MISTAKE.to_string();
    let unfound: Vec<String> = Mutant::all()
        .iter()
        .map(|mutant| mutant.name())
        .filter(|mutant| {
            let output = soak(&["--seeds", &seeds, "--mutant", mutant]);
            let said = said(&output);
            println!(
                "{mutant}: {}",
                said.lines().find(|line| line.starts_with("  ")).unwrap_or("not found")
            );
            !said.contains("FAILED")
        })
        .collect();
    assert!(unfound.is_empty(), "not found: {unfound:?}");
}

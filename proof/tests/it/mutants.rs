use std::num::NonZeroUsize;

use certwave_proof::mutant::Mutant;
use certwave_proof::scenario::{AGAIN, BACK, MISTAKE, QUIET, RELEASED, RETIRE, ROTATE, Scenario, TRUST};
use certwave_proof::search::search;

/// The smallest scenario in which a mutant shows.
fn where_it_shows(mutant: Mutant) -> Scenario {
    let one = |scenario| Scenario { faults: 1, ..scenario };
    match mutant {
        Mutant::RevokesOldAtIssue
        | Mutant::CommitsUntested
        | Mutant::ConfirmsAtTested
        | Mutant::ConfirmsTwice
        | Mutant::KeyOverActive
        | Mutant::ForgetsCommit
        | Mutant::LiesAboutRollback => QUIET,
        Mutant::CommitsUntestedWayBack => BACK,
        Mutant::CommitsUntestedAnchors => TRUST,
        Mutant::RevokesNewAtTimeout
        | Mutant::IgnoresLateProof
        | Mutant::IgnoresBar
        | Mutant::LedgerIgnoresEpoch
        | Mutant::DeviceIgnoresEpoch
        | Mutant::DeviceIgnoresSession => ROTATE,
        Mutant::StartsAmidHold => RELEASED,
        Mutant::IgnoresJobAndNonce | Mutant::StartsWhileBusy | Mutant::KeyBeforeJournal => AGAIN,
        Mutant::TakesAnyHello | Mutant::AsksBeforeLoaded | Mutant::RevokesOnClock => one(RETIRE),
        Mutant::RevokesOldAtConfirm | Mutant::NeverReleases | Mutant::ForgetsOtherSlot => MISTAKE,
    }
}

#[test]
fn every_mutant_is_found() {
    for mutant in Mutant::ALL {
        let report = search(where_it_shows(mutant), Some(mutant), NonZeroUsize::MIN);
        let Some(broken) = report.broken.first() else {
            panic!("{mutant:?} was not found in {report}");
        };
        let (steps, seconds) = (broken.steps.len(), report.took.as_secs_f64());
        println!(
            "{mutant:<20?} {steps:>2} steps, {:>5} states, {seconds:.1} s: {}",
            report.states, broken.property
        );
    }
}

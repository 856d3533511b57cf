//! Searches all scenarios, those of the tests first: `certwave-proof [threads] [part of a name]`. Several threads are faster and do not find the
//! shortest ways.
#![allow(missing_docs)]

use std::num::NonZeroUsize;
use std::process::ExitCode;

use certwave_proof::scenario::{LARGE, SMALL};
use certwave_proof::search::search;

fn main() -> ExitCode {
    let threads = std::env::args()
        .nth(1)
        .and_then(|n| n.parse().ok())
        .unwrap_or(NonZeroUsize::MIN);
    let mut holds = true;
    let part = std::env::args().nth(2).unwrap_or_default();
    let all = SMALL.into_iter().chain(LARGE);
    for scenario in all.filter(|scenario| scenario.name.contains(&part)) {
        let report = search(scenario, None, threads);
        println!("{report}");
        report.broken.iter().for_each(|broken| println!("{broken}"));
        report.missing.iter().for_each(|never| println!("never: {never}"));
        holds &= report.broken.is_empty() && report.missing.is_empty();
    }
    if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

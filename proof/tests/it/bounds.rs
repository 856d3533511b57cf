use std::num::NonZeroUsize;
use std::time::Duration;

use certwave_proof::scenario::SMALL;
use certwave_proof::search::search;

#[test]
fn the_invariants_hold_in_every_state_within_small_bounds() {
    let design = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/design.md");
    let design = std::fs::read_to_string(design).unwrap_or_default();
    let (mut states, mut took, mut stale) = (0, Duration::ZERO, Vec::new());
    for scenario in SMALL {
        let report = search(scenario, None, NonZeroUsize::MIN);
        println!("{report}");
        for broken in &report.broken {
            println!("{broken}");
        }
        assert!(report.broken.is_empty(), "{}", report.name);
        assert!(report.missing.is_empty(), "{}: never {:?}", report.name, report.missing);
        let row = format!(
            "| {} | {} | {} |",
            grouped(report.states),
            grouped(report.steps),
            report.depth
        );
        if !design.contains(&row) {
            stale.push(format!("{}: {row}", report.name));
        }
        states += report.states;
        took += report.took;
    }
    assert!(stale.is_empty(), "docs/design.md says otherwise: {stale:#?}");
    println!("{states} states in {:.0} s", took.as_secs_f64());
}

/// As people write large numbers.
fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

use std::num::NonZeroUsize;
use std::time::Duration;

use certwave_proof::scenario::SMALL;
use certwave_proof::search::search;

#[test]
fn the_invariants_hold_in_every_state_within_small_bounds() {
    let (mut states, mut took) = (0, Duration::ZERO);
    for scenario in SMALL {
        let report = search(scenario, None, NonZeroUsize::MIN);
        println!("{report}");
        for broken in &report.broken {
            println!("{broken}");
        }
        assert!(report.broken.is_empty(), "{}", report.name);
        assert!(report.missing.is_empty(), "{}: never {:?}", report.name, report.missing);
        states += report.states;
        took += report.took;
    }
    println!("{states} states in {:.0} s", took.as_secs_f64());
}

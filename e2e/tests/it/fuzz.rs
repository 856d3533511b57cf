//! Bytes from outside, for some seconds; `make fuzz` does it for long.

use std::time::Duration;

use certwave_e2e::fuzz::{Effort, run, targets};

/// Of each parser. All seeds of before are tried no more: a failing one becomes a test of its parser.
const TIME: Duration = Duration::from_secs(2);

#[test]
fn no_bytes_from_outside_make_a_parser_panic_hang_or_believe() {
    let seed = rand::random();
    for target in targets().unwrap() {
        let tally = run(&target, seed, Effort::Time(TIME)).unwrap();
        println!("{}: {} inputs, {} taken", target.name, tally.inputs, tally.taken);
        assert!(tally.taken > 0, "{}: only noise was tried", target.name);
    }
}

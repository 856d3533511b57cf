//! Random and mutated bytes through every parser of bytes from outside: none may panic, hang, or take what it cannot stand by.
//!
//! `make test` does it for some seconds, `make fuzz` ten million times. What is tried follows from a seed, which a failure names.

mod declared;
mod device;
mod mutate;
mod neighbours;
mod targets;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use rand::SeedableRng as _;
use rand::rngs::SmallRng;

pub use targets::{Target, targets};

/// No input of the greatest size that is read may take longer, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(2);
/// Inputs between two looks at the clock.
const ROUND: u64 = 256;

/// How long to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effort {
    /// So many inputs for each target.
    Inputs(u64),
    /// So long for each target.
    Time(Duration),
}

/// What one target was given.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Inputs.
    pub inputs: u64,
    /// Those that it took.
    pub taken: u64,
}

/// Gives one target inputs that follow from `seed`.
///
/// # Errors
/// When an input made it panic or took too long, with what is needed to see it again.
pub fn run(target: &Target, seed: u64, effort: Effort) -> Result<Tally> {
    let begin = Instant::now();
    let (mut random, mut tally) = (SmallRng::seed_from_u64(seed), Tally::default());
    let mut input = Vec::new();
    loop {
        match effort {
            Effort::Inputs(inputs) if tally.inputs >= inputs => return Ok(tally),
            Effort::Time(time) if begin.elapsed() >= time => return Ok(tally),
            Effort::Inputs(_) | Effort::Time(_) => {}
        }
        let round = Instant::now();
        for _ in 0..ROUND {
            mutate::next(&mut random, &target.seeds, &mut input);
            tally.inputs += 1;
            match catch_unwind(AssertUnwindSafe(|| (target.parse)(&input))) {
                Ok(taken) => tally.taken += u64::from(taken),
                Err(_) => bail!(failure(target, seed, &tally, &input, "panicked")),
            }
        }
        if round.elapsed() > PATIENCE {
            bail!(failure(target, seed, &tally, &input, "took too long at or before"));
        }
    }
}

fn failure(target: &Target, seed: u64, tally: &Tally, input: &[u8], what: &str) -> String {
    format!(
        "{} {what} input {} of seed {seed}: {}",
        target.name,
        tally.inputs,
        hex::encode(input)
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn a_parser_that_panics_or_dawdles_is_found() {
        let seeds = vec![b"good".to_vec()];
        let fragile = Target {
            name: "fragile",
            seeds: seeds.clone(),
            parse: Box::new(|input| {
                assert!(input.len() != 3, "three bytes");
                false
            }),
        };
        let error = run(&fragile, 1, Effort::Inputs(100_000)).unwrap_err().to_string();
        assert!(error.starts_with("fragile panicked input"), "{error}");
        let slow = Target {
            name: "slow",
            seeds,
            parse: Box::new(|_| {
                let begin = Instant::now();
                while begin.elapsed() < Duration::from_millis(10) {
                    std::hint::spin_loop();
                }
                false
            }),
        };
        let error = run(&slow, 1, Effort::Inputs(1)).unwrap_err().to_string();
        assert!(error.starts_with("slow took too long"), "{error}");
    }

    #[test]
    fn every_parser_takes_its_seeds_and_some_of_what_becomes_of_them() {
        for target in targets().unwrap() {
            for seed in &target.seeds {
                assert!((target.parse)(seed), "{}: {}", target.name, hex::encode(seed));
            }
            let tally = run(&target, 7, Effort::Inputs(2_000)).unwrap();
            assert!(
                tally.taken > 0 && tally.taken < tally.inputs,
                "{}: {tally:?}",
                target.name
            );
        }
    }
}

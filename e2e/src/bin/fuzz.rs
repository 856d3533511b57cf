//! `make fuzz`: ten million random and mutated inputs (INPUTS) for every parser of bytes from outside, by a seed (SEED) that is
//! printed. Arguments name the parsers to try; without any, all are.

use std::str::FromStr;
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use certwave_e2e::fuzz::{Effort, run, targets};

fn main() -> Result<()> {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let inputs = number("INPUTS")?.unwrap_or(10_000_000);
    let seed = number("SEED")?.unwrap_or_else(rand::random);
    let targets = targets()?;
    if let Some(unknown) = wanted.iter().find(|name| !targets.iter().any(|t| t.name == *name)) {
        let known: Vec<_> = targets.iter().map(|target| target.name).collect();
        bail!("{unknown}: the parsers are {}", known.join(", "));
    }
    println!("seed {seed}");
    let threads = thread::available_parallelism().map_or(1, |n| n.get() as u64);
    for target in targets
        .iter()
        .filter(|t| wanted.is_empty() || wanted.iter().any(|name| name == t.name))
    {
        let begin = Instant::now();
        let tallies = thread::scope(|scope| {
            let share = Effort::Inputs(inputs.div_ceil(threads));
            let running: Vec<_> = (0..threads)
                .map(|thread| scope.spawn(move || run(target, seed.wrapping_add(thread), share)))
                .collect();
            let joined = running.into_iter().map(std::thread::ScopedJoinHandle::join);
            joined
                .map(|tally| tally.unwrap_or_else(|_| bail!("a thread ended early")))
                .collect::<Result<Vec<_>>>()
        })?;
        let (inputs, taken) = tallies.iter().fold((0, 0), |(inputs, taken), tally| {
            (inputs + tally.inputs, taken + tally.taken)
        });
        let seconds = begin.elapsed().as_secs_f64();
        println!("{:<14} {inputs} inputs, {taken} taken, {seconds:.1} s", target.name);
    }
    Ok(())
}

fn number(name: &str) -> Result<Option<u64>> {
    match std::env::var(name) {
        Ok(value) => Ok(Some(u64::from_str(&value).with_context(|| format!("{name}={value}"))?)),
        Err(_) => Ok(None),
    }
}

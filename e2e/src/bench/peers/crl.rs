//! A CRL made by the encoder, rcgen, Go's crypto/x509 and `openssl ca -gencrl`.

use std::process::Command;

use anyhow::Result;

use super::results::{Better, Figure, Rounds};
use super::{CERTWAVE, machine};
use crate::bench::{crl, scaled};
use crate::tools;

const ENTRIES: usize = 1_000_000;
const TIME: Figure = Figure {
    name: "time to make it",
    unit: "s",
    better: Better::Less,
};
const MEMORY: Figure = Figure {
    name: "memory besides the list itself",
    unit: "MiB",
    better: Better::Less,
};

/// Each maker in a process of its own.
pub(super) fn measure(rounds: &mut Rounds) -> Result<Vec<String>> {
    let entries = u32::try_from(scaled(ENTRIES))?;
    let go = tools::peer("crl")?;
    for _ in 0..rounds.count() {
        for (of, taken) in [
            (CERTWAVE, crl::made_by("certwave", entries)?),
            ("rcgen", crl::made_by("rcgen", entries)?),
            ("Go's crypto/x509", crl::made(&mut Command::new(&go), entries)?),
            ("openssl ca -gencrl", crl::openssl(entries)?),
        ] {
            rounds.add(TIME, of, taken.seconds);
            rounds.add(MEMORY, of, taken.mebibytes());
        }
    }
    Ok(vec![
        machine::certwave(),
        machine::library("rcgen")?,
        machine::go()?,
        machine::openssl()?,
    ])
}

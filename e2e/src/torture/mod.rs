//! Real processes, on a real API server and a real broker, with everything going wrong in an order that follows from a seed, while
//! Rotations run one after the other. What held is judged by what devices, broker and relying parties recorded, not by what the
//! controller says of itself.
//!
//! `make torture` does it for minutes with hundreds of devices, `make test` for half a minute with some dozens, with each kind of ledger.

mod campaign;
mod end;
mod faults;
pub mod history;
pub mod judge;
mod rig;
mod run;
pub mod standing;
mod store;
mod watch;

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, bail};

pub use faults::{Breakable, Deck, Fault, Part};
pub use run::run;
pub use store::Kind;

/// What a person may choose.
#[derive(Debug, Clone)]
pub struct Options {
    /// `SEED`: what goes wrong when follows from it; random where left out.
    pub seed: u64,
    /// `MINUTES`: for how long faults come; 10 where left out.
    pub time: Duration,
    /// `DEVICES`: how many; 200 where left out.
    pub devices: usize,
    /// `LEDGER`: `sqlite` or `postgres`; by the seed where left out.
    pub ledger: Kind,
}

impl Options {
    /// Reads `SEED`, `MINUTES`, `DEVICES` and `LEDGER`.
    ///
    /// # Errors
    /// When one of them is nothing that it may be.
    pub fn from_environment() -> Result<Self> {
        let seed: u64 = number("SEED")?.unwrap_or_else(rand::random);
        let minutes: f64 = number("MINUTES")?.unwrap_or(10.0);
        let devices: usize = number("DEVICES")?.unwrap_or(200);
        anyhow::ensure!((9..=5000).contains(&devices), "DEVICES={devices}: it takes 9 to 5000");
        let ledger = match set("LEDGER").as_deref() {
            None if seed.is_multiple_of(2) => Kind::Sqlite,
            None | Some("postgres") => Kind::Postgres,
            Some("sqlite") => Kind::Sqlite,
            Some(other) => bail!("LEDGER={other}: it takes sqlite or postgres"),
        };
        Ok(Self {
            seed,
            time: Duration::try_from_secs_f64(minutes * 60.0).with_context(|| format!("MINUTES={minutes}"))?,
            devices,
            ledger,
        })
    }

    fn minutes(&self) -> f64 {
        self.time.as_secs_f64() / 60.0
    }

    /// How to do the same again.
    pub fn again(&self) -> String {
        format!(
            "make torture SEED={} MINUTES={} DEVICES={} LEDGER={}",
            self.seed,
            self.minutes(),
            self.devices,
            self.ledger.name()
        )
    }
}

fn set(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn number<T: FromStr<Err: std::error::Error + Send + Sync + 'static>>(name: &str) -> Result<Option<T>> {
    let parse = |value: String| {
        value
            .parse()
            .with_context(|| format!("{name}={value}: it takes a number"))
    };
    set(name).map(parse).transpose()
}

/// How it ended.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// What must not have been; nothing, if all held.
    pub wrong: Vec<String>,
    /// What the closing line counts.
    pub counts: Counts,
    /// Where the files are, if something was wrong.
    pub files: Option<String>,
}

/// What the closing line counts.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    /// Rotations that came to their end.
    pub rotations: usize,
    /// Jobs that devices took on, and those that they committed.
    pub jobs: (usize, usize),
    /// Certificates that were seen to be revoked once their device had a new one.
    pub retired: usize,
    /// Faults.
    pub faults: usize,
    /// Parts that were broken.
    pub parts: BTreeSet<Part>,
    /// Parts that could be: a disk is filled by root only.
    pub breakable: usize,
    /// Faults by which somebody died at once.
    pub kills: usize,
    /// How often the controller was started again.
    pub restarts: usize,
    /// The most devices that were busy at the same time.
    pub in_flight: usize,
    /// How often a job was the last one that a limit allowed.
    pub at_limit: usize,
    /// The most jobs that were taken on within a minute.
    pub per_minute: usize,
    /// Different CRLs that were seen, in how many looks.
    pub crls: (usize, usize),
    /// Seconds, all in all.
    pub seconds: u64,
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "rotations={} jobs={} committed={} retired={} faults={} parts={} kills={} restarts={} peak-in-flight={} at-limit={} \
             peak-per-minute={} crls={} crl-looks={} seconds={}",
            self.rotations,
            self.jobs.0,
            self.jobs.1,
            self.retired,
            self.faults,
            self.parts.len(),
            self.kills,
            self.restarts,
            self.in_flight,
            self.at_limit,
            self.per_minute,
            self.crls.0,
            self.crls.1,
            self.seconds
        )
    }
}

impl Outcome {
    /// The closing line, after what was wrong and how to see it again.
    pub fn line(&self, options: &Options) -> String {
        let word = if self.wrong.is_empty() { "PASS" } else { "FAIL" };
        format!(
            "torture: {word} seed={} ledger={} minutes={} devices={} {}",
            options.seed,
            options.ledger.name(),
            options.minutes(),
            options.devices,
            self.counts
        )
    }
}

//! `make bench-peers`: Certwave beside what people use today, in turns within one run.
//!
//! Each group measures the same work with each of its subjects, round by round, so that whatever slows the machine down meets all
//! of them. What comes out is kept in a file; the page `docs/benchmarks.md` is made from that file.

mod about;
mod cert_manager;
mod crl;
mod issue;
mod machine;
mod ocsp;
mod page;
mod results;
mod rotation;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::divisor;
use crate::tools::progress;
use results::{Group, Results, Rounds};

/// The argument of the bench program with which it compares.
pub const MODE: &str = "peers";
/// That with which it only writes the page.
pub const PAGE: &str = "peers-page";
/// What can be compared, by name.
pub const GROUPS: [&str; 4] = ["ocsp", "crl", "issue", "rotation"];
/// How many rounds; fewer make a quick look.
const ROUNDS_FROM: &str = "ROUNDS";
const ROUNDS: usize = 5;
/// How the first subject of each measure is called.
const CERTWAVE: &str = "Certwave";

/// Writes the documentation's page anew from its file.
///
/// # Errors
/// When the file cannot be read or the page not be written.
pub fn write_page() -> Result<()> {
    let results = Results::read(&documentation().join("benchmarks.json"))?;
    Ok(std::fs::write(
        documentation().join("benchmarks.md"),
        page::of(&results),
    )?)
}

/// Compares the named groups, or all. A run of the full size goes into the documentation, any other into `target/bench`.
///
/// # Errors
/// When a name is unknown, or something cannot be measured.
pub async fn run(groups: &[String]) -> Result<()> {
    if let Some(unknown) = groups.iter().find(|name| !GROUPS.contains(&name.as_str())) {
        bail!("{unknown}: the groups are {}", GROUPS.join(", "));
    }
    let rounds = match std::env::var(ROUNDS_FROM) {
        Ok(text) => text.parse().with_context(|| format!("{ROUNDS_FROM}={text}"))?,
        Err(_) => ROUNDS,
    };
    let wanted = |name: &&str| groups.is_empty() || groups.iter().any(|group| group == name);
    for name in GROUPS.into_iter().filter(wanted) {
        let mut measured = Rounds::new(rounds.max(1));
        let versions = match name {
            "ocsp" => ocsp::measure(&mut measured).await,
            "crl" => crl::measure(&mut measured),
            "issue" => issue::measure(&mut measured).await,
            _ => rotation::measure(&mut measured).await,
        };
        let group = Group {
            date: machine::today(),
            divisor: divisor(),
            rounds: measured.count(),
            machine: machine::Machine::this()?,
            versions: versions.with_context(|| name.to_owned())?,
            measures: measured.into_measures(),
        };
        keep(name, group)?;
    }
    Ok(())
}

/// Puts a group into the file and writes the page anew.
fn keep(name: &str, group: Group) -> Result<()> {
    let directory = if group.divisor == 1 && group.rounds >= ROUNDS {
        documentation()
    } else {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bench")
    };
    std::fs::create_dir_all(&directory)?;
    let (file, page) = (directory.join("benchmarks.json"), directory.join("benchmarks.md"));
    let mut results = if file.is_file() {
        Results::read(&file)?
    } else {
        Results::default()
    };
    results.groups.insert(name.to_owned(), group);
    results.write(&file)?;
    std::fs::write(&page, page::of(&results)).with_context(|| format!("write {}", page.display()))?;
    progress(&format!("{name} is in {}", page.display()));
    Ok(())
}

fn documentation() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_page_says_what_the_results_say() {
        let results = Results::read(&documentation().join("benchmarks.json")).unwrap();
        let page = std::fs::read_to_string(documentation().join("benchmarks.md")).unwrap();
        assert!(
            page == page::of(&results),
            "docs/benchmarks.md is not what docs/benchmarks.json makes; `make bench-page` writes it"
        );
    }
}

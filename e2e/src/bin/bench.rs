//! `make bench`: measures speed and memory, prints the numbers and writes them to `target/bench/results.json`.
//! Arguments name the groups to measure; without any, all are.

use std::path::Path;

use anyhow::Result;
use certwave_e2e::bench::{Report, run};

#[tokio::main]
async fn main() -> Result<()> {
    let groups: Vec<String> = std::env::args().skip(1).collect();
    let results = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bench/results.json");
    run(&groups, &mut Report::new(results)).await
}

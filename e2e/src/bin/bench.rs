//! `make bench`: measures speed and memory, prints the numbers and writes them to `target/bench/results.json`.
//! Arguments name the groups to measure; without any, all are. `make bench-peers`: with `peers` before them, it compares.

use std::path::Path;

use anyhow::Result;
use certwave_e2e::bench::{FIXED, Report, crl, peers, run, serve_fixed};

#[tokio::main]
async fn main() -> Result<()> {
    let groups: Vec<String> = std::env::args().skip(1).collect();
    if let Some((first, more)) = groups.split_first()
        && first == crl::MAKER
    {
        return crl::make(more);
    }
    match groups.split_first() {
        Some((mode, groups)) if mode == peers::MODE => return peers::run(groups).await,
        Some((mode, [])) if mode == peers::PAGE => return peers::write_page(),
        _ => {}
    }
    if let [mode, address, size] = groups.as_slice()
        && mode == FIXED
    {
        return serve_fixed(address.parse()?, size.parse()?).await;
    }
    let results = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bench/results.json");
    run(&groups, &mut Report::new(results)).await
}

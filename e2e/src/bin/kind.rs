//! `make e2e`: the chart on a kind cluster, from the installation to the day after it was uninstalled, and the page for those who begin.
//! `certwave-kind guide` follows the page alone, with programs that were built before.

use std::process::ExitCode;

use certwave_e2e::kind;

#[tokio::main]
async fn main() -> ExitCode {
    let done = match std::env::args().nth(1).as_deref() {
        Some("guide") => kind::guide(),
        _ => kind::run().await,
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("e2e: FAIL {error:#}");
            ExitCode::FAILURE
        }
    }
}

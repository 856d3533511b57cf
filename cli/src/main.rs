//! `kubectl certwave`.

use std::process::ExitCode;

use certwave_cli::Arguments;
use clap::Parser as _;

#[tokio::main]
async fn main() -> ExitCode {
    match certwave_cli::run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error.tell();
            ExitCode::from(error.code())
        }
    }
}

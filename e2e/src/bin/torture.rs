//! `make torture`: everything goes wrong for MINUTES, in an order that follows from SEED, while DEVICES get new certificates again
//! and again; then all must be whole, and no limit was ever exceeded.

use std::process::ExitCode;

use certwave_e2e::torture::{Options, run};

#[tokio::main]
async fn main() -> ExitCode {
    let options = match Options::from_environment() {
        Ok(options) => options,
        Err(error) => {
            eprintln!("torture: {error:#}");
            return ExitCode::from(2);
        }
    };
    let outcome = match run(&options, &mut |line| println!("{line}")).await {
        Ok(outcome) => outcome,
        Err(error) => {
            eprintln!("torture: {error:#}");
            println!("torture: FAIL seed={}: it could not be run", options.seed);
            return ExitCode::FAILURE;
        }
    };
    for wrong in &outcome.wrong {
        println!("wrong: {wrong}");
    }
    if let Some(files) = &outcome.files {
        println!("logs and histories are in {files}; again: {}", options.again());
    }
    println!("{}", outcome.line(&options));
    if outcome.wrong.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

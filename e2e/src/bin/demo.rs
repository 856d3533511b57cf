//! `make demo`: a fleet gets its first certificates and then new ones, in waves. Three devices fail in three ways: their wave
//! goes back, a person lets it go on, and they live on with what they had.

use std::process::ExitCode;

use certwave_e2e::demo::{Options, run};

#[tokio::main]
async fn main() -> ExitCode {
    let options = match Options::from_environment() {
        Ok(options) => options,
        Err(error) => {
            eprintln!("demo: {error:#}");
            return ExitCode::from(2);
        }
    };
    match run(&options).await {
        Ok(outcome) if outcome.expected(&options) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("demo: {error:#}");
            println!("demo: FAIL devices={}", options.devices);
            ExitCode::FAILURE
        }
    }
}

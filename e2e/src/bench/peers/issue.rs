//! Certificates issued by Certwave's CA and by the authority of step-ca.

use std::process::Command;

use anyhow::{Context as _, Result};

use super::results::{Better, Figure, Rounds};
use super::{CERTWAVE, machine};
use crate::bench::{number, pki, scaled};
use crate::scratch::Scratch;
use crate::tools;

const CERTIFICATES: usize = 5_000;
const STEP_CA: &str = "step-ca";
const STEP_CA_MODULE: &str = "github.com/smallstep/certificates";
const RATE: Figure = Figure {
    name: "certificates issued and recorded",
    unit: "1/s",
    better: Better::More,
};
const CPU: Figure = Figure {
    name: "CPU time for each certificate",
    unit: "µs",
    better: Better::Less,
};

/// Requests in, recorded certificates out.
pub(super) async fn measure(rounds: &mut Rounds) -> Result<Vec<String>> {
    let certificates = scaled(CERTIFICATES);
    let program = tokio::task::spawn_blocking(|| tools::peer(STEP_CA)).await??;
    for _ in 0..rounds.count() {
        let took = pki::issue(certificates).await?;
        add(rounds, CERTWAVE, certificates, took.seconds, took.cpu_seconds);
        let scratch = Scratch::new("peers-step-ca")?;
        let mut command = Command::new(&program);
        command.arg(scratch.path().join("db")).arg(certificates.to_string());
        let said = tokio::task::spawn_blocking(move || tools::output(&mut command)).await??;
        let (seconds, cpu) = said.trim().split_once(' ').context("a program that says too little")?;
        add(rounds, STEP_CA, certificates, seconds.parse()?, cpu.parse()?);
    }
    let version = tools::peer_version(STEP_CA, STEP_CA_MODULE)?;
    Ok(vec![
        machine::certwave(),
        format!("{STEP_CA} {version}"),
        machine::go()?,
    ])
}

fn add(rounds: &mut Rounds, of: &str, certificates: usize, seconds: f64, cpu: f64) {
    rounds.add(RATE, of, number(certificates) / seconds);
    rounds.add(CPU, of, cpu * 1e6 / number(certificates));
}

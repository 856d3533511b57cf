//! Foreign judges of certificates and CRLs: pkilint and cryptography (Python), zlint and crypto/x509 (Go, `e2e/verify`).

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::tools;

const VERIFY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/verify");
/// One list for all linters; a reason stands beside each.
const EXCLUDED: &str = include_str!("../verify/excluded.txt");

/// What pkilint looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lint {
    /// A certificate.
    Certificate,
    /// A CRL of leaves.
    Crl,
}

/// Fails with pkilint's findings of level notice and above, the excluded ones left out.
///
/// # Errors
/// See above; or when pkilint cannot be had.
pub fn pkilint(what: Lint, pem: &Path) -> Result<()> {
    let (module, more): (_, &[&str]) = match what {
        Lint::Certificate => ("pkilint.bin.lint_pkix_cert", &[]),
        Lint::Crl => ("pkilint.bin.lint_crl", &["-t", "CRL", "-p", "PKIX"]),
    };
    let mut lint = Command::new(tools::python()?);
    lint.args(["-m", module, "lint", "-s", "NOTICE", "-f", "JSON"]);
    // Its exit status is the number of findings.
    let answer = lint.args(more).arg(pem).output()?;
    let text = String::from_utf8_lossy(&answer.stdout);
    let report: serde_json::Value = serde_json::from_slice(&answer.stdout)
        .with_context(|| format!("pkilint: {text}{}", String::from_utf8_lossy(&answer.stderr)))?;
    let results = report["results"].as_array().context("pkilint reports no results")?;
    let findings: Vec<String> = results
        .iter()
        .flat_map(|result| result["finding_descriptions"].as_array().into_iter().flatten())
        .filter(|finding| !excluded("pkilint", finding["code"].as_str().unwrap_or_default()))
        .map(ToString::to_string)
        .collect();
    if findings.is_empty() {
        return Ok(());
    }
    bail!("{}: pkilint finds {}", pem.display(), findings.join("\n"))
}

/// What Python's cryptography reads in a CRL of this CA, both PEM.
///
/// # Errors
/// When it refuses it.
pub fn cryptography(ca: &Path, crl: &Path) -> Result<String> {
    let mut read = Command::new(tools::python()?);
    tools::output(read.arg(Path::new(VERIFY).join("read_crl.py")).arg(ca).arg(crl))
}

/// zlint's verdict on certificates, PEM: no finding.
///
/// # Errors
/// When there is one.
pub fn zlint(certificates: &[&Path]) -> Result<String> {
    tools::output(Command::new(tools::verifier()?).arg("lint").args(certificates))
}

/// What Go reads in a CRL, DER, once zlint has found nothing: number and dates, then its entries.
///
/// # Errors
/// When Go refuses it, or zlint finds something.
pub fn go_crl(ca: &Path, crl: &Path) -> Result<String> {
    tools::output(
        Command::new(tools::verifier()?)
            .arg("crl")
            .arg("-issuer")
            .arg(ca)
            .arg("-crl")
            .arg(crl),
    )
}

fn excluded(linter: &str, lint: &str) -> bool {
    let lines = EXCLUDED.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| line.split_whitespace())
        .any(|mut words| words.next() == Some(linter) && words.next() == Some(lint))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_excluded_lint_has_a_reason() {
        for line in EXCLUDED.lines().filter(|line| !line.starts_with('#')) {
            assert!(line.split_whitespace().count() > 4, "no reason: {line}");
        }
    }
}
